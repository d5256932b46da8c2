"""Films in stores: one at a time is fetched and restored here, and its result uploaded."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from codeformer.errors import InputError, OutputError
from codeformer.files.atomic import unwritable, write_atomic
from codeformer.files.urls import joined, url_of
from codeformer.options import VIDEO_SUFFIXES
from codeformer.run.messages import Messages
from codeformer.run.places import FilmPlace
from codeformer.stores.access import unreadable
from codeformer.stores.access import unwritable as unwritable_url
from codeformer.stores.inputs import StoredInputs
from codeformer.stores.outputs import hollow, is_hollow, translated


class StoredFilms(FilmPlace):
    """URLs among the films of a run, and its output folder if that is one.

    Args:
        folder: for what is fetched.
        made: for what is made, if that is uploaded.
        output: the URL of the folder of the results; None for a folder on this machine.
    """

    def __init__(self, folder: Path, made: Path, output: str | None = None) -> None:
        self.inputs = StoredInputs(folder)
        self.made = made
        self._output = output
        self._store = None if output is None else self.inputs.store(output)

    def films_at(self, url: str) -> list[Path]:
        """Return the paths that stand for the film behind a URL, or for those of a folder, in the order of their names.

        Raises:
            CodeFormerError: the store cannot be asked, or the folder holds no film.
        """
        within, found = self.inputs.find(url, False, None, VIDEO_SUFFIXES)
        paths = [one.path for one in found if not within or one.path.suffix.lower() in VIDEO_SUFFIXES]
        if not paths:
            raise InputError(f"{url}: holds no films; frames are read from folders of this machine")
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()  # by which it counts as a file, and keeps its name
        return paths

    def key(self, source: Path) -> str:
        """Return what a film is known by: its URL, or its absolute path."""
        return url_of(self.inputs.spoken(str(source))) or super().key(source)

    @contextmanager
    def here(self, source: Path, film: Path, report: Path, console: Messages) -> Iterator[None]:
        """Fetch a film for the block, and upload what the block makes of it.

        Args:
            source: the film.
            film: where its result goes.
            report: where the result's report goes.
            console: where it is said what is uploaded.

        Raises:
            InputError: the film cannot be fetched.
            OutputError: the store does not take the result, which then stays here for the next run.
        """
        url = url_of(self.inputs.spoken(str(source)))
        if url is not None:
            console.note(f"{url}: is fetched")
            self.inputs.get(url)
        try:
            if self._output is None:
                yield
                return
            self._look(film, report)
            yield
            self._upload(film, report, console)
        finally:
            self.inputs.forget(source)
            if self._output is not None and film.is_file() and is_hollow(film):  # it only stood for the store's
                for path in (film, report):
                    path.unlink(missing_ok=True)

    def spoken(self, text: str) -> str:
        """Return a text with URLs where it names what stands for them here; what stays here keeps its path."""
        text = self.inputs.spoken(text)
        if self._output is None or any(mark in text for mark in (".partial.", ".codeformer-work")):
            return text
        return text.replace(f"{self.made}{os.sep}", f"{self._output}/")

    def _url(self, path: Path) -> str:
        return joined(self._output or "", path.relative_to(self.made).as_posix())

    def _look(self, film: Path, report: Path) -> None:
        """Let an earlier result in the store be seen: its report, and a file of its size."""
        if self._store is None or (film.is_file() and not is_hollow(film)):
            return  # a result that could not be uploaded
        film.parent.mkdir(parents=True, exist_ok=True)
        for path in (film, report):
            path.unlink(missing_ok=True)
            url = self._url(path)
            try:
                if path is film:
                    hollow(film, int(self._store.info(url).get("size") or 0))
                else:
                    self._store.get(url, report)
            except FileNotFoundError:  # nothing is there yet
                continue
            except Exception as error:
                raise unreadable(url, error) from error

    def _upload(self, film: Path, report: Path, console: Messages) -> None:
        """Upload what was made: the film, and then the report, which says that it is whole."""
        if self._store is None or not (film.is_file() and report.is_file()):
            return  # interrupted: what is done of it stays here for the next run
        if is_hollow(film):
            return  # it was done before
        told = translated(json.loads(report.read_bytes()), self.spoken)
        write_atomic(report, json.dumps(told, indent=1).encode(), below=report.parent)
        for path in (film, report):
            try:
                self._store.put(path, self._url(path))
            except Exception as error:
                raise unwritable_url(self._url(path), error) from error
        for path in (film, report):
            path.unlink(missing_ok=True)
        console.note(f"{self._url(film)}: uploaded")


@contextmanager
def kept_folder(output: str) -> Iterator[Path]:
    """Yield a folder below the system's for temporary files, for all runs of this user that have this output.

    What an interrupted run has done of a film stays there for the next one. It is removed where nothing is in it.

    Raises:
        OutputError: it cannot be made, or belongs to somebody else.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    digest = hashlib.sha256(output.encode()).hexdigest()[:12]
    path = Path(tempfile.gettempdir()) / f"codeformer-films-{user}-{digest}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise unwritable(path, error) from error
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != user):
        raise OutputError(f"{path}: belongs to somebody else; set TMPDIR to a folder of yours")
    try:
        yield path
    finally:
        with suppress(OSError):
            path.rmdir()
