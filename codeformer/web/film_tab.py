"""The tab for films: a preview, the run with its progress, the result that plays."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from codeformer.tasks.table import TASKS
from codeformer.web.app import film_job
from codeformer.web.films import FilmJob
from codeformer.web.service import Service
from codeformer.web.view import refusal, told
from codeformer.web.visits import Given, Visits, language
from codeformer.web.words import sentence

_PAUSE = 0.7  # seconds between two looks at a job


def film_tab(service: Service, visits: Visits, words: Any) -> None:
    """Lay out the tab."""
    films = service.films
    given_state = gr.State(None)
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
    timer = gr.Timer(_PAUSE, active=False)
    outputs = [job_state, timer, state]

    def came(file: Any, request: gr.Request) -> Given | None:
        return next(iter(visits.take(file, request)), None)

    def begin(
        given: Given | None, w: float, scale: float, count: int, old: FilmJob | None, request: gr.Request
    ) -> list[Any]:
        told_in = language(request)
        if given is None:
            raise refusal(sentence(told_in, "no_film"))
        if old is not None:
            films.remove(old)
        fields = {"w": float(w), "upscale": float(scale), "preview": int(count)}
        with given.path.open("rb") as file:
            job = told(film_job, service, given.name, file, fields, language=told_in)
        return [job, gr.Timer(active=True), film_state(job, told_in)]

    def tick(job: FilmJob | None, request: gr.Request) -> list[Any]:
        if job is None or films.get(job.key) is None:
            return [gr.Timer(active=False), ""]
        return [gr.Timer(active=job.state in ("waiting", "running")), film_state(job, language(request))]

    def interrupt(job: FilmJob | None) -> None:
        if job is not None:
            films.cancel(job)

    def go_on(job: FilmJob | None) -> Any:
        if job is not None:
            films.start(job)
        return gr.Timer(active=job is not None)

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    film.change(came, [film], [given_state], preprocess=False, **quiet)
    look.click(begin, [given_state, w, scale, frames, job_state], outputs, api_visibility="private")
    whole = gr.State(0)
    start.click(begin, [given_state, w, scale, whole, job_state], outputs, api_visibility="private")
    timer.tick(tick, [job_state], [timer, state], **quiet)
    cancel.click(interrupt, [job_state], None, **quiet)
    resume.click(go_on, [job_state], [timer], **quiet)


def film_state(job: FilmJob, language: str) -> str:
    """Return the HTML that says how far a film is, and shows what came of it."""
    said = job.describe()
    done, total = said["frames"], said["total"]
    name = html.escape(job.name)
    parts = [sentence(language, said["state"])]
    parts.append(sentence(language, "frames_of" if total else "frames", done=done, total=total))
    if said["frames_per_second"]:
        parts.append(sentence(language, "rate", rate=f"{said['frames_per_second']:.1f}"))
    if said["seconds_left"] is not None:
        parts.append(sentence(language, "left", time=clock(said["seconds_left"])))
    lines = [f"<p><b>{name}</b>: {', '.join(parts)}</p>"]
    if job.state in ("running", "waiting"):
        lines.append(f'<progress style="width:100%" value="{done}" max="{max(int(total), 1)}"></progress>')
    if job.error:
        lines.append(f"<p>{html.escape(job.error)}</p>")
    link = f"./api/jobs/{job.key}"
    if job.result and not job.fields.get("preview"):
        lines.append(f'<video controls autoplay muted src="{link}/result"></video>')
        lines.append(f'<p class="links"><a href="{link}/result" download>{name}</a></p>')
    if job.state == "done":
        for number, _ in enumerate(job.frames, 1):
            frame = f"{link}/frames/{number}"
            lines.append(f'<p><a href="{frame}" target="_blank"><img src="{frame}" alt="{number}"></a></p>')
    lines += [f"<p>{html.escape(note)}</p>" for note in job.notes]
    return "".join(lines)


def clock(seconds: float) -> str:
    """Return a time that is left, as 0:07 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
