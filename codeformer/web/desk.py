"""What lies on one visitor's desk: the pictures that were uploaded, kept open while w and faces are chosen."""

from __future__ import annotations

import io
import itertools
import json
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from codeformer.arrays import Rgb
from codeformer.errors import CodeFormerError, InputError
from codeformer.images.picture import Picture, as_srgb, file_noting, to_uint8
from codeformer.options import CanvasOptions, FaceWork
from codeformer.pipeline.engine import Engine
from codeformer.pipeline.opened import OpenPicture, open_picture
from codeformer.pipeline.pictures import as_our_error
from codeformer.run.inputs import Input, assign_names
from codeformer.tasks.base import Task
from codeformer.upsampling.upsampler import upsample_picture
from codeformer.web.networks import LoadedNetworks
from codeformer.web.service import Service, Upload, safe_name, without
from codeformer.web.words import sentence

_SHOWN = 1600  # pixels: a larger picture is shown smaller, and downloaded whole
_KEPT = 3600.0  # seconds
_MOST = 50  # pictures on one desk
_SEEN = 200  # the latest pictures in the browser whose files are kept


@dataclass(eq=False)
class Sheet:
    """One picture on a desk.

    Attributes:
        name: as its owner calls it, and no other picture of the desk.
        source: its upload.
        chosen: the faces that are worked on; None until they are found.
    """

    name: str
    source: Path
    picture: Picture | None = None
    opened: OpenPicture | None = None
    chosen: set[int] = field(default_factory=set)
    stem: str = ""


@dataclass(eq=False)
class Desk:
    """One visitor's pictures for one task; ``key`` is known to nobody else.

    Attributes:
        task: None is upscale.
        folder: its files.
        page: a folder of Gradio's, for what the browser shows.
        language: of its owner's browser.
    """

    task: Task | None
    folder: Path
    page: Path
    language: str = "en"
    key: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    sheets: list[Sheet] = field(default_factory=list)
    at: int = 0
    w: float = 0.5
    upscale: float = 1.0
    background: bool = False
    asked: float = field(default_factory=time.monotonic)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def sheet(self) -> Sheet:
        """The picture in view."""
        return self.sheets[self.at]

    def say(self, key: str, **values: object) -> str:
        """Return a sentence in the owner's language."""
        return sentence(self.language, key, **values)

    def show(self, rgb: Rgb) -> str:
        """Write a picture for the browser; return its path."""
        number = next(self._numbers)
        (self.page / f"{number - _SEEN}.jpg").unlink(missing_ok=True)
        return self._jpeg(rgb, f"{number}.jpg")

    def show_before(self, picture: Picture, size: tuple[int, int]) -> str:
        """Write the picture in view as it came, once for each size; return its path."""
        name = f"before-{self.at}-{size[0]}x{size[1]}.jpg"
        return str(self.page / name) if (self.page / name).exists() else self._jpeg(shown(picture, size), name)

    def _jpeg(self, rgb: Rgb, name: str) -> str:
        Image.fromarray(rgb).save(self.page / name, quality=93)
        return str(self.page / name)


class Desks:
    """All visitors' desks; one that nobody asked for in an hour is cleared."""

    def __init__(self, service: Service, pages: Path) -> None:
        """Begin with none; ``pages`` is Gradio's folder."""
        self._service, self._pages = service, pages
        self._desks: dict[str, Desk] = {}
        self._lock = threading.Lock()

    @property
    def networks(self) -> LoadedNetworks:
        """The networks that all share."""
        return self._service.networks

    def lay(self, task: Task | None, files: Sequence[tuple[Path, str]], language: str = "en") -> Desk:
        """Put uploads on a new desk.

        Args:
            task: None is upscale.
            files: where each is, and what its owner calls it.
            language: of the owner's browser.

        Raises:
            InputError: they are too many.
        """
        if len(files) > _MOST:
            raise InputError(sentence(language, "too_many", count=len(files), most=_MOST))
        folder, page = self._service.root / "desks" / secrets.token_hex(8), self._pages / secrets.token_hex(16)
        folder.mkdir(parents=True)
        page.mkdir(parents=True)
        desk = Desk(task, folder, page, language)
        names = [safe_name(name) for _, name in files]
        named = assign_names([Input(name) for name in names], {})
        for number, ((file, _), name, one) in enumerate(zip(files, names, named, strict=True)):
            source = folder / f"{number}{name.suffix}"
            shutil.copyfile(file, source)
            desk.sheets.append(Sheet(str(name), source, stem=one.stem))
        with self._lock:
            old = time.monotonic() - _KEPT
            stale = [other for other in self._desks.values() if other.asked < old]
            self._desks[desk.key] = desk
        for forgotten in stale:
            self.clear(forgotten)
        return desk

    def get(self, key: str) -> Desk | None:
        """Return a desk."""
        desk = self._desks.get(key)
        if desk is not None:
            desk.asked = time.monotonic()
        return desk

    def clear(self, desk: Desk | None) -> None:
        """Delete a desk and its files."""
        if desk is not None:
            with self._lock:
                self._desks.pop(desk.key, None)
            for folder in (desk.folder, desk.page):
                shutil.rmtree(folder, ignore_errors=True)

    def open(self, desk: Desk, sheet: Sheet) -> None:
        """Read a picture and find its faces, if that is still to be done. Raises CodeFormerError."""
        desk.asked = time.monotonic()
        try:
            if sheet.picture is None:
                with sheet.source.open("rb") as file:
                    upload = Upload(file, Path(sheet.name))
                    sheet.picture = upload.read(self._service.most_pixels(4.0))
            if sheet.opened is None and desk.task is not None:
                with self.networks.busy:
                    sheet.opened = open_picture(sheet.picture, self._engine(desk))
                sheet.chosen = set(sheet.opened.chosen)
        except Exception as error:
            ours = as_our_error(error, "find")
            text = without(str(ours), {sheet.source: sheet.name})
            raise type(ours)(text if sheet.name in text else f"{sheet.name}: {text}") from error

    def render(self, desk: Desk, sheet: Sheet) -> tuple[Picture, list[str]]:
        """Return the finished picture, and notes. Raises CodeFormerError."""
        self.open(desk, sheet)
        assert sheet.picture is not None
        if desk.task is None:
            with self.networks.busy:
                upsampler = self.networks.upsampler(desk.upscale)
                return upsample_picture(sheet.picture, upsampler, desk.upscale), list(sheet.picture.warnings)
        assert sheet.opened is not None
        try:
            engine = self._engine(desk)
            w = engine.model.choose_w(desk.task, desk.w)
            picture, notes = sheet.opened.render(engine, w, sheet.chosen)
        except Exception as error:
            ours = as_our_error(error, "restore")
            raise type(ours)(f"{sheet.name}: {ours}") from error
        if not sheet.opened.aligned:
            notes.insert(0, desk.say("no_face"))
        else:
            notes += engine.model.doubts(desk.task, desk.w)
        return picture, [*sheet.picture.warnings, *sheet.opened.study.notes, *notes]

    def _engine(self, desk: Desk) -> Engine:
        assert desk.task is not None
        canvas = CanvasOptions(desk.upscale, "realesrgan" if desk.background else None)
        work = FaceWork(w=desk.w, model=self._service.server.model, canvas=canvas)
        faces = replace(work.faces, detection_model=self._service.server.detection_model)
        return self.networks.engine(desk.task, replace(work, faces=faces))

    def result_file(self, desk: Desk, sheet: Sheet) -> tuple[str, bytes]:
        """Return the name and the bytes of one finished picture. Raises CodeFormerError."""
        picture, _ = self.render(desk, sheet)
        name = f"{sheet.stem}.png"
        return name, file_noting(picture, Path(name))[0]  # PNG holds all

    def archive(self, desk: Desk) -> bytes:
        """Return a ZIP of all finished pictures, and of a report that says what became of each."""
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
            records = []
            for sheet in desk.sheets:
                try:
                    name, content = self.result_file(desk, sheet)
                    archive.writestr(name, content)
                    records.append({**self.report(desk, sheet), "output": name, "error": None})
                except CodeFormerError as error:
                    records.append({"input": sheet.name, "output": None, "error": str(error)})
            archive.writestr("results.json", json.dumps({"inputs": records}, indent=1))
        return data.getvalue()

    def report(self, desk: Desk, sheet: Sheet) -> dict[str, Any]:
        """Return what is known of a picture, as JSON."""
        faces = [] if sheet.opened is None else sheet.opened.faces
        size = None if sheet.picture is None else [sheet.picture.rgb.shape[1], sheet.picture.rgb.shape[0]]
        return {
            "input": sheet.name,
            "task": "upscale" if desk.task is None else desk.task.name,
            "w": None if desk.task is None else desk.w,
            "upscale": desk.upscale,
            "size": size,
            "faces": [
                {
                    "number": number,
                    "chosen": number in sheet.chosen,
                    "box": [round(v, 2) for v in face.box],
                    "score": round(float(face.score), 4),
                }
                for number, face in enumerate(faces, 1)
            ],
        }


def shown(picture: Picture, size: tuple[int, int] | None = None) -> Rgb:
    """Return a picture as a browser shows it: 8 bits, sRGB, and not larger than a screen.

    Args:
        picture: any picture.
        size: width and height to show it at; None for its own.
    """
    plain = as_srgb(picture)
    rgb = to_uint8(plain.rgb)
    if plain.alpha is not None:
        alpha = to_uint8(plain.alpha)[..., None].astype(np.float32) / 255
        rgb = np.rint(rgb * alpha + 255 * (1 - alpha)).astype(np.uint8)
    height, width = rgb.shape[:2]
    goal = size or (width, height)
    scale = min(1.0, _SHOWN / max(goal))
    goal = (max(1, round(goal[0] * scale)), max(1, round(goal[1] * scale)))
    if goal == (width, height):
        return rgb
    method = cv2.INTER_AREA if goal[0] < width else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, goal, interpolation=method), np.uint8)
