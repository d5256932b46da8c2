"""What one visitor's open page holds on the server, and its end: nothing stays when the page is closed."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from codeformer.tasks.base import Task
from codeformer.web.desk import Desk, Desks
from codeformer.web.words import language_of


class Given(NamedTuple):
    """An upload: where Gradio put it, and what its owner calls it."""

    path: Path
    name: str


@dataclass(eq=False)
class _Visit:
    desks: list[Desk] = field(default_factory=list)
    uploads: set[Path] = field(default_factory=set)


class Visits:
    """The open pages, by Gradio's session."""

    def __init__(self, desks: Desks) -> None:
        """Begin with none."""
        self._desks = desks
        self._visits: dict[str, _Visit] = {}
        self._lock = threading.Lock()

    def take(self, files: Any, request: gr.Request) -> list[Given]:
        """Return uploads, and remember to delete them.

        Args:
            files: the value of a file field as the browser sent it; Gradio's own processing takes letters out of names.
            request: of the page.
        """
        one_or_more = [files] if isinstance(files, dict) else files or []
        given = [Given(Path(one["path"]), str(one.get("orig_name") or one["path"])) for one in one_or_more]
        with self._lock:
            self._of(request).uploads.update(one.path for one in given)
        return given

    def lay(self, task: Task | None, given: list[Given], request: gr.Request) -> Desk:
        """Put uploads on a new desk. Raises InputError."""
        desk = self._desks.lay(task, given, language(request))
        with self._lock:
            self._of(request).desks.append(desk)
        return desk

    def leave(self, request: gr.Request) -> None:
        """Delete what a page held that was closed."""
        with self._lock:
            visit = self._visits.pop(str(request.session_hash), _Visit())
            # Gradio keeps equal uploads of two visitors as one file
            gone = visit.uploads.difference(*(other.uploads for other in self._visits.values()))
        for desk in visit.desks:
            self._desks.clear(desk)
        for path in gone:
            with suppress(OSError):
                path.unlink()

    def _of(self, request: gr.Request) -> _Visit:
        return self._visits.setdefault(str(request.session_hash), _Visit())


def language(request: gr.Request) -> str:
    """Return the language of a page, see :func:`codeformer.web.words.language_of`."""
    return language_of(request.headers.get("accept-language"))
