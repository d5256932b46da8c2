"""The tab for films: a preview, the run with its progress, the result that plays."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from codeformer.images.picture import read_picture
from codeformer.tasks.table import TASKS
from codeformer.web.app import film_job
from codeformer.web.films import FilmJob
from codeformer.web.service import Service
from codeformer.web.view import told

_PAUSE = 0.7  # seconds between two looks at a job


def film_tab(service: Service, words: Any) -> None:
    """Lay out the tab."""
    films = service.films
    job_state = gr.State(None, time_to_live=3600)
    task = TASKS["restore"]
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            film = gr.File(label=words("film_file"), file_count="single", height=130, elem_id="film-file")
            w = gr.Slider(0, 1, task.default_w, step=0.01, label=words("w"), elem_id="film-w")
            scale = gr.Slider(1, 4, 1, step=0.5, label=words("scale"), elem_id="film-scale")
            frames = gr.Slider(1, 12, 3, step=1, label=words("frames"), elem_id="film-frames")
            with gr.Row():
                look = gr.Button(words("preview"), elem_id="film-preview", min_width=100)
                start = gr.Button(words("start"), variant="primary", elem_id="film-start", min_width=100)
            with gr.Row():
                cancel = gr.Button(words("cancel"), elem_id="film-cancel", min_width=100)
                resume = gr.Button(words("resume"), elem_id="film-resume", min_width=100)
        with gr.Column(scale=3, min_width=320):
            state = gr.HTML("<p>&nbsp;</p>", elem_id="film-state")
            previewed = gr.Gallery(
                label=words("previewed"),
                columns=1,
                visible=False,
                interactive=False,
                elem_id="film-frames-seen",
                buttons=[],
            )
    timer = gr.Timer(_PAUSE, active=False)
    outputs = [job_state, timer, state, previewed]

    def begin(path: str | None, w: float, scale: float, count: int, old: FilmJob | None) -> list[Any]:
        if not path:
            raise gr.Error("no film yet: drop one here", title="codeformer", print_exception=False)
        if old is not None:
            films.remove(old)
        fields = {"w": float(w), "upscale": float(scale), "preview": int(count)}
        with Path(path).open("rb") as file:
            job = told(film_job, service, path, file, fields)
        return [job, gr.Timer(active=True), _state(job), gr.Gallery(visible=False, value=[])]

    def tick(job: FilmJob | None) -> list[Any]:
        if job is None or films.get(job.key) is None:
            return [gr.Timer(active=False), "", gr.Gallery(visible=False)]
        busy = job.state in ("waiting", "running")
        seen = gr.Gallery(visible=False)
        if job.state == "done" and job.frames:
            pictures = [read_picture(path).rgb for path in job.frames]
            seen = gr.Gallery(visible=True, value=pictures)
        return [gr.Timer(active=busy), _state(job), seen]

    def interrupt(job: FilmJob | None) -> None:
        if job is not None:
            films.cancel(job)

    def go_on(job: FilmJob | None) -> Any:
        if job is not None:
            films.start(job)
        return gr.Timer(active=job is not None)

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    look.click(begin, [film, w, scale, frames, job_state], outputs, api_visibility="private")
    whole = gr.State(0)
    start.click(begin, [film, w, scale, whole, job_state], outputs, api_visibility="private")
    timer.tick(tick, [job_state], [timer, state, previewed], **quiet)
    cancel.click(interrupt, [job_state], None, **quiet)
    resume.click(go_on, [job_state], [timer], **quiet)


def _state(job: FilmJob) -> str:
    said = job.describe()
    count = f"{said['frames']} of {said['total']} frames" if said["total"] else f"{said['frames']} frames"
    parts = [f"<p><b>{html.escape(job.name)}</b>: {said['state']}, {count}"]
    if said["frames_per_second"]:
        parts.append(f", {said['frames_per_second']:.1f} frames/s")
    if said["seconds_left"] is not None:
        parts.append(f", {said['seconds_left']:.0f} s left")
    parts.append("</p>")
    if job.state in ("running", "waiting"):
        most = max(int(said["total"]), 1)
        parts.append(f'<progress style="width:100%" value="{said["frames"]}" max="{most}"></progress>')
    if job.error:
        parts.append(f"<p>{html.escape(job.error)}</p>")
    if job.result and not job.fields.get("preview"):
        link = f"./api/jobs/{job.key}/result"
        parts.append(f'<video controls autoplay muted src="{link}"></video>')
        parts.append(f'<p class="links"><a href="{link}" download>{html.escape(job.name)}</a></p>')
    parts += [f"<p>{html.escape(note)}</p>" for note in job.notes]
    return "".join(parts)
