"""The tab with the brush."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import gradio as gr
import numpy as np

from codeformer.images.picture import Picture, write_picture
from codeformer.tasks.inpaint import Inpaint
from codeformer.web.desk import Desk, Desks, shown
from codeformer.web.view import links_of, parts, refusal, told
from codeformer.web.visits import Visits, language
from codeformer.web.words import sentence

_SIDE = 900  # pixels: what is painted on is not larger, so that a brush fits


def inpaint_tab(desks: Desks, visits: Visits, words: Any) -> None:
    """Lay out the tab."""
    desk_state = gr.State(None)
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            files = gr.File(
                label=words("picture"),
                file_count="single",
                height=110,
                elem_classes="pictures",
                elem_id="inpaint-files",
            )
            editor = gr.ImageEditor(
                label=words("paint"),
                show_label=True,
                type="numpy",
                image_mode="RGBA",
                sources=[],
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=24, colors=["#ff2d55"], color_mode="fixed"),
                canvas_size=(_SIDE, _SIDE),
                height=480,
                elem_id="inpaint-editor",
            )
            go = gr.Button(words("fill"), variant="primary", elem_id="inpaint-go")
        with gr.Column(scale=1, min_width=320):
            view = gr.ImageSlider(
                label=words("view"), type="numpy", format="jpeg", max_height=720, elem_id="inpaint-view"
            )
            links = gr.HTML("", elem_classes="links")
            notes = gr.Markdown("", elem_classes="notes", elem_id="inpaint-notes")
            with gr.Accordion(words("report"), open=False):
                report = gr.JSON(show_label=False)

    def came(file: Any, request: gr.Request) -> list[Any]:
        given = visits.take(file, request)
        if not given:
            return [None, None]
        desk = told(visits.lay, None, given, request)  # its mask is still to be painted: nothing is looked for yet
        told(desks.open, desk, desk.sheet, language=desk.language)
        assert desk.sheet.picture is not None
        rgb = shown(desk.sheet.picture)
        scale = min(1.0, _SIDE / max(rgb.shape[:2]))
        if scale < 1:
            rgb = np.asarray(cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        ground = desk.show(rgb)
        return [desk, {"background": ground, "layers": [], "composite": ground}]

    def fill(desk: Desk | None, painted: dict[str, Any] | None, request: gr.Request) -> list[Any]:
        if desk is None:
            raise refusal(sentence(language(request), "no_picture"))
        mask = _mask(painted)
        if not mask.any():
            raise refusal(desk.say("no_paint"))
        sheet = desk.sheet
        assert sheet.picture is not None
        height, width = sheet.picture.rgb.shape[:2]
        large = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        path = desk.folder / "mask.png"
        write_picture(Picture(np.repeat(large[..., None], 3, axis=2)), path)
        desk.task = replace(Inpaint(), mask=path)
        desk.w, sheet.opened = 1.0, None
        return [links_of(desk), *parts(desk, desks)]

    loud: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 2}
    files.change(came, [files], [desk_state, editor], preprocess=False, **loud)
    go.click(fill, [desk_state, editor], [links, view, notes, report], **loud)


def _mask(painted: dict[str, Any] | None) -> np.ndarray:
    """Return what was painted, (H, W) uint8: 255 where any layer holds paint."""
    layers = [] if painted is None else [layer for layer in painted["layers"] if layer is not None]
    if not layers:
        return np.zeros((1, 1), np.uint8)
    alpha = np.max([layer[..., 3] for layer in layers], axis=0)
    return np.where(alpha > 127, 255, 0).astype(np.uint8)
