"""The page: tabs of Gradio over the same engine as the API, mounted into the same application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from gradio.utils import get_upload_folder

from codeformer.errors import CodeFormerError
from codeformer.tasks.base import Task
from codeformer.tasks.table import TASKS
from codeformer.upsampling.networks import find_realesrgan
from codeformer.web.desk import Desk, Desks
from codeformer.web.film_tab import film_tab
from codeformer.web.inpaint_tab import inpaint_tab
from codeformer.web.service import Service
from codeformer.web.view import links_of, parts, told
from codeformer.web.visits import Visits, language
from codeformer.web.words import WORDS, sentence

#: w and scale by what a visitor wants.
PRESETS: dict[str, tuple[float, float]] = {
    "balanced": (0.5, 1.0),
    "faithful": (0.9, 1.0),
    "bad": (0.2, 1.0),
    "print": (0.7, 2.0),
}
_FONTS = ["system-ui", "sans-serif"]
_MONO = ["ui-monospace", "monospace"]
_CSS = """
.gradio-container { width: 100%; max-width: min(1400px, 100vw) !important; margin: 0 auto !important;
  padding: 0 !important }
.gradio-container > .main { width: 100%; max-width: 100% !important; min-width: 0; padding: 8px !important; margin: 0 }
.gradio-container .main > .wrap { width: 100%; min-width: 0; padding: 8px !important }
.links a { display: inline-block; padding: .45rem 1rem; margin: 0 .5rem .5rem 0; border-radius: .5rem;
  background: var(--button-primary-background-fill); color: var(--button-primary-text-color); text-decoration: none }
.links a.plain { background: var(--button-secondary-background-fill); color: var(--button-secondary-text-color) }
.notes p { margin: .2rem 0 }
.gradio-container main { width: 100%; min-width: 0 }
.faces, .faces .grid-wrap { min-height: 0 !important; height: auto !important }
.faces .grid-wrap { padding-top: 2.4rem !important }
.pictures .icon-wrap { display: none }
video, #film-state img { max-width: 100%; border-radius: .5rem }
"""
# A picture in the clipboard goes to the file field of the tab in view
_PASTE = """<script>
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
  const fields = [...document.querySelectorAll(".pictures input[type=file]")];
  const field = fields.find((one) => one.closest("[role=tabpanel]")?.offsetParent !== null);
  if (!files.length || !field) return;
  const given = new DataTransfer();
  files.forEach((file) => given.items.add(file));
  field.files = given.files;
  field.dispatchEvent(new Event("change", {bubbles: true}));
});
</script>"""


def mount(app: FastAPI, service: Service) -> FastAPI:
    """Add the page to the application, and the paths from which it downloads."""
    desks = Desks(service, gradio_folder())
    _add_downloads(app, desks)
    blocks = _page(service, desks)
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        root_path=service.server.root_path,
        footer_links=[],
        show_error=False,  # what is said is made to be said; others' words may have paths in them
        max_file_size=service.server.max_bytes,
        ssr_mode=False,
        i18n=gr.I18n(**WORDS),
        theme=gr.themes.Soft(font=_FONTS, font_mono=_MONO, primary_hue="teal"),
        css=_CSS,
        head=_PASTE,
        run_history=False,
    )


def gradio_folder() -> Path:
    """Return where Gradio keeps uploads, and everything that the page shows."""
    return Path(get_upload_folder())


def _page(service: Service, desks: Desks) -> gr.Blocks:
    words = gr.I18n(**WORDS)
    visits = Visits(desks)
    with gr.Blocks(title="codeformer", analytics_enabled=False, delete_cache=(300, 3600)) as blocks:
        gr.Markdown("# codeformer")
        with gr.Tabs():
            with gr.Tab(words("restore"), id="restore"):
                preset = _picture_tab(TASKS["restore"], service, desks, visits, words)
            with gr.Tab(words("colorize"), id="colorize"):
                _picture_tab(TASKS["colorize"], service, desks, visits, words)
            with gr.Tab(words("inpaint"), id="inpaint"):
                inpaint_tab(desks, visits, words)
            with gr.Tab(words("upscale"), id="upscale"):
                _picture_tab(None, service, desks, visits, words)
            with gr.Tab(words("film"), id="film"):
                film_tab(service, visits, words)
        blocks.load(_translated, None, [preset], api_visibility="private", show_progress="hidden")
        blocks.unload(visits.leave)
    return blocks


def _picture_tab(task: Task | None, service: Service, desks: Desks, visits: Visits, words: Any) -> gr.Radio:
    name = "upscale" if task is None else task.name
    desk_state = gr.State(None)
    w_default = 0.5
    if task is not None:
        try:
            w_default = service.networks.model(task).default_w(task)
        except CodeFormerError:  # said again, in words, when a picture comes
            w_default = task.default_w
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            files = gr.File(
                label=words("pictures"),
                file_count="multiple",
                height=130,
                elem_classes="pictures",
                elem_id=f"{name}-files",
            )
            which = gr.Dropdown(label=words("which"), choices=[], visible=False, elem_id=f"{name}-which")
            preset = gr.Radio(
                _presets("en"), label=words("preset"), visible=name == "restore", elem_id=f"{name}-preset"
            )
            w = gr.Slider(0, 1, w_default, step=0.01, label=words("w"), visible=task is not None, elem_id=f"{name}-w")
            scale = gr.Slider(
                1,
                4,
                4 if task is None else 1,
                step=1 if task is None else 0.5,
                label=words("scale"),
                elem_id=f"{name}-scale",
            )
            background = gr.Checkbox(
                False,
                label=words("background"),
                visible=task is not None and _has_realesrgan(service),
                elem_id=f"{name}-bg",
            )
            enlarge = gr.Button(words("enlarge"), variant="primary", visible=task is None, elem_id=f"{name}-go")
            faces = gr.Gallery(
                label=words("faces"), columns=4,
                fit_columns=False, allow_preview=False, interactive=False, height="auto",
                visible=task is not None, elem_id=f"{name}-faces", elem_classes="faces", buttons=[],
            )  # fmt: skip
        with gr.Column(scale=3, min_width=320):
            view = gr.ImageSlider(label=words("view"), format="jpeg", max_height=720, elem_id=f"{name}-view")
            links = gr.HTML("", elem_classes="links")
            notes = gr.Markdown("", elem_classes="notes", elem_id=f"{name}-notes")
            with gr.Accordion(words("report"), open=False):
                report = gr.JSON(show_label=False)
    shown_parts = [view, notes, report]
    everything = [desk_state, which, faces, links, *shown_parts]

    def settled(desk: Desk, w: float, scale: float, background: bool) -> None:
        desk.w, desk.upscale, desk.background = float(w), float(scale), bool(background)

    def came(files: Any, w: float, scale: float, background: bool, request: gr.Request) -> list[Any]:
        given = visits.take(files, request)
        if not given:
            return [None, gr.Dropdown(choices=[], visible=False), [], "", None, "", None]
        desk = told(visits.lay, task, given, request)
        settled(desk, w, scale, background)
        names = [(sheet.name, number) for number, sheet in enumerate(desk.sheets)]
        return [desk, gr.Dropdown(choices=names, value=0, visible=len(names) > 1), *look(desk, first=True)]

    def look(desk: Desk, first: bool = False) -> list[Any]:
        return [gallery(desk, desks), links_of(desk), *parts(desk, desks, wait=first and task is None)]

    def turn(desk: Desk | None, number: int | None, w: float, scale: float, background: bool) -> list[Any]:
        if desk is None or number is None:
            return [[], "", None, "", None]
        desk.at = number
        settled(desk, w, scale, background)
        return look(desk, first=True)

    def move(desk: Desk | None, w: float, scale: float, background: bool) -> list[Any]:
        if desk is None:
            return [None, "", None]
        settled(desk, w, scale, background)
        return parts(desk, desks)

    def switch(desk: Desk | None, event: gr.SelectData) -> list[Any]:
        if desk is None or desk.sheet.opened is None:
            return [[], None, "", None]
        number = sorted(desk.sheet.opened.aligned)[event.index]
        desk.sheet.chosen ^= {number}
        return [gallery(desk, desks), *parts(desk, desks)]

    settings = [w, scale, background]
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    loud: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 2}
    files.change(came, [files, *settings], everything, preprocess=False, **loud)
    which.input(turn, [desk_state, which, *settings], [faces, links, *shown_parts], **loud)
    if task is None:
        enlarge.click(move, [desk_state, *settings], shown_parts, **loud)
        return preset
    w.change(move, [desk_state, *settings], shown_parts, trigger_mode="always_last", concurrency_limit=4, **quiet)
    scale.change(move, [desk_state, *settings], shown_parts, trigger_mode="always_last", **loud)
    background.change(move, [desk_state, *settings], shown_parts, trigger_mode="always_last", **loud)
    faces.select(switch, [desk_state], [faces, *shown_parts], **quiet)
    preset.input(lambda name: PRESETS[name], [preset], [w, scale], **quiet)
    return preset


def _translated(request: gr.Request) -> Any:
    return gr.Radio(choices=_presets(language(request)))


def _presets(language: str) -> list[tuple[str, str]]:
    return [(sentence(language, name), name) for name in PRESETS]


def gallery(desk: Desk, desks: Desks) -> list[tuple[str, str]]:
    """Return the faces of the picture in view, a path and a label for each: those that are off are pale."""
    told(desks.open, desk, desk.sheet, language=desk.language)
    opened = desk.sheet.opened
    if opened is None:
        return []
    result = []
    for number, one in sorted(opened.aligned.items()):
        on = number in desk.sheet.chosen
        small = cv2.resize(one.crop.pixels, (128, 128), interpolation=cv2.INTER_AREA)
        pixels = np.rint(np.clip(small if on else 0.75 + 0.2 * small, 0, 1) * 255).astype(np.uint8)
        result.append((desk.show(pixels), desk.say("on" if on else "off", number=number)))
    return result


def _has_realesrgan(service: Service) -> bool:
    try:
        find_realesrgan(2.0, service.server.model.weights_dir)
    except CodeFormerError:
        return False
    return True


def _add_downloads(app: FastAPI, desks: Desks) -> None:
    def found(key: str) -> Desk:
        desk = desks.get(key)
        if desk is None:
            raise HTTPException(404, "no such picture: it was deleted, or never there")
        return desk

    @app.get("/desks/{key}/all.zip", include_in_schema=False)
    def everything(key: str) -> Response:
        return _file("codeformer.zip", desks.archive(found(key)), "application/zip")

    @app.get("/desks/{key}/{number}", include_in_schema=False)
    def one(key: str, number: int, request: Request, inline: bool = False) -> Response:
        desk = found(key)
        if not 0 <= number < len(desk.sheets):
            raise HTTPException(404, "no such picture")
        name, data = desks.result_file(desk, desk.sheets[number])
        return _file(name, data, "image/png", inline=inline)


def _file(name: str, data: bytes, kind: str, *, inline: bool = False) -> Response:
    from urllib.parse import quote

    how = "inline" if inline else "attachment"
    headers = {"Content-Disposition": f"{how}; filename*=UTF-8''{quote(Path(name).name)}", "Cache-Control": "no-store"}
    return Response(data, media_type=kind, headers=headers)
