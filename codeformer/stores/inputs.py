"""Inputs in stores: listed as folders are, fetched shortly before their turn, and gone after it."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from codeformer.errors import CodeFormerError
from codeformer.files.paths import shortened
from codeformer.files.spool import Table
from codeformer.files.urls import joined
from codeformer.run.inputs import OUR_FOLDERS, Input, NamedInput, is_report
from codeformer.run.runner import Pending
from codeformer.stores.access import Store, is_folder, open_store, refused, unreadable, version_of

_AHEAD = 16  # inputs that are fetched before their turn, and as many questions to the store at a time
_BYTES = 1 << 30  # inputs that wait take no more of the disk than this, but always one
_HEAD = 1 << 16  # bytes by which a format is known
_LONGEST = 200  # bytes of a local name


class StoredInputs:
    """The inputs of a run that lie in stores, and the folder in which the next ones lie.

    Args:
        folder: for what is fetched.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stores: dict[str, Store] = {}
        self._known = Table()  # version and size by URL, of inputs that a listing told
        self._urls = Table()  # URL by the digest that its local path has
        self._failed: dict[Path, CodeFormerError] = {}

    def store(self, url: str) -> Store:
        """Return the store of a URL, opened once. Raises UsageError."""
        scheme = url.partition("://")[0]
        if scheme not in self._stores:
            self._stores[scheme] = open_store(url)
        return self._stores[scheme]

    def find(
        self, url: str, recursive: bool, skip: str | None, suffixes: frozenset[str]
    ) -> tuple[bool, Iterator[Input]]:
        """Return what lies behind a URL, and whether that is a folder.

        Args:
            url: of a file or a folder.
            recursive: folders within, too.
            skip: the URL of a folder that is left out.
            suffixes: endings of files; such a URL is one, and the store is asked later, for many at a time.

        Raises:
            CodeFormerError: the store cannot be asked. What is not there is an input, and fails when it is fetched.
        """
        store = self.store(url)
        if PurePosixPath(url).suffix.lower() in suffixes:
            return False, iter([self.input_of(url, PurePosixPath())])
        try:
            info = store.info(url)
        except FileNotFoundError:
            return False, iter([self.input_of(url, PurePosixPath())])
        except Exception as error:
            raise unreadable(url, error) from error
        if not is_folder(info):
            self._learn(url, info)
            return False, iter([self.input_of(url, PurePosixPath())])
        return True, self._walk(store, url, PurePosixPath(), recursive, skip)

    def get(self, url: str) -> Path:
        """Fetch one file, and return its path here. Raises CodeFormerError."""
        path = self.input_of(url, PurePosixPath()).path
        try:
            self._fetch(self.store(url), url, path)
        except Exception as error:
            raise refused(url, error) from error
        return path

    def with_versions(self, named: Iterable[NamedInput]) -> Iterator[NamedInput]:
        """Yield inputs with what the store has for a version of each; what no listing told is asked ahead."""

        def ask(url: str) -> str:
            try:
                info = self.store(url).info(url)
            except Exception:  # fetching it says why
                return "\0"
            return f"{version_of(info)}\0{info.get('size') or 0}"

        def learnt(item: NamedInput, asked: Future[str] | None) -> NamedInput:
            if "://" not in item.key:
                return item
            if asked is not None:
                self._known[item.key] = asked.result()
            return replace(item, version=self._known[item.key].partition("\0")[0])

        waiting: deque[tuple[NamedInput, Future[str] | None]] = deque()
        with ThreadPoolExecutor(_AHEAD, "codeformer-ask") as pool:
            try:
                for item in named:
                    unknown = "://" in item.key and item.key not in self._known
                    waiting.append((item, pool.submit(ask, item.key) if unknown else None))
                    if len(waiting) > _AHEAD:
                        yield learnt(*waiting.popleft())
                while waiting:
                    yield learnt(*waiting.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def fetched(self, jobs: Iterator[Pending]) -> Generator[Pending, None, None]:
        """Yield jobs when their files are here. Some more are fetched meanwhile, within a bounded space.

        What cannot be fetched has no file, and `reason_of` says why.
        """
        waiting: deque[tuple[Pending, Future[None] | None, int]] = deque()
        with ThreadPoolExecutor(_AHEAD, "codeformer-fetch") as pool:
            try:
                for job in jobs:
                    url = job.item.key
                    future, size = None, 0
                    if "://" in url:
                        size = self._size(url)
                        future = pool.submit(self._fetch, self.store(url), url, job.item.path)
                    waiting.append((job, future, size))
                    while len(waiting) > _AHEAD or sum(one[2] for one in waiting) > _BYTES:
                        yield self._here(*waiting.popleft()[:2])
                while waiting:
                    yield self._here(*waiting.popleft()[:2])
            finally:
                pool.shutdown(cancel_futures=True)

    def peek(self, url: str, path: Path) -> CodeFormerError | None:
        """Fetch the beginning of a file, by which its format is known; return why it cannot be fetched."""
        if "://" not in url:
            return None
        store = self.store(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Some stores refuse to read beyond the end
            limits = (0, _HEAD) if self._size(url) > _HEAD else ()
            path.write_bytes(store.files.cat_file(store.path(url), *limits))
        except Exception as error:
            return unreadable(str(path), error)
        return None

    def reason_of(self, path: Path) -> CodeFormerError | None:
        """Return why the file of an input is not here, once; None if it is, or was."""
        return self._failed.pop(path, None)

    def forget(self, path: Path) -> None:
        """Remove the file of an input whose turn is over."""
        if path.is_relative_to(self.folder):
            path.unlink(missing_ok=True)
            with suppress(OSError):  # its folders were its own; the first that is not empty ends this
                for parent in path.parents:
                    if parent == self.folder:
                        break
                    parent.rmdir()

    def spoken(self, text: str) -> str:
        """Return a text with the URLs of inputs instead of the paths of their files here."""
        start = f"{self.folder}{os.sep}"
        parts = text.split(start)
        for index, part in enumerate(parts[1:], 1):
            digest = part[:16]
            url = self._urls.get(digest)
            own = "" if url is None else str(Path(self._below(url, digest)))
            parts[index] = f"{url}{part[len(own) :]}" if own and part.startswith(own) else start + part
        return "".join(parts)

    def _here(self, job: Pending, future: Future[None] | None) -> Pending:
        if future is not None:
            try:
                future.result()
            except Exception as error:
                self._failed[job.item.path] = unreadable(str(job.item.path), error)  # `spoken` names the URL
        return job

    @staticmethod
    def _fetch(store: Store, url: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        store.get(url, path)

    def _walk(
        self, store: Store, url: str, folder: PurePosixPath, recursive: bool, skip: str | None
    ) -> Iterator[Input]:
        try:
            entries = list(store.listed(url))
        except Exception as error:
            if folder.parts:  # the others are there all the same; fetching it will say that this one is not
                yield self.input_of(url, folder.parent)
                return
            raise unreadable(url, error) from error
        has_report = any(name in ("results.json", "results.jsonl.parts") for name, _ in entries)
        for name, info in entries:
            below = joined(url, name)
            if name.startswith(".") or below == skip or is_report(name) or name.endswith(".jsonl.parts"):
                continue
            if is_folder(info):
                if recursive and not (has_report and name in OUR_FOLDERS):
                    yield from self._walk(store, below, folder / name, recursive, skip)
            else:
                self._learn(below, info)
                yield self.input_of(below, folder)

    def _size(self, url: str) -> int:
        """Return the bytes of an input, 0 if unknown."""
        return int(self._known.get(url, "\0").partition("\0")[2] or 0)

    def _learn(self, url: str, info: object) -> None:
        if isinstance(info, dict):
            self._known[url] = f"{version_of(info)}\0{info.get('size') or 0}"

    def input_of(self, url: str, folder: PurePosixPath) -> Input:
        """Return the input that is named so, with the path that it has here while it is needed."""
        digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self._urls[digest] = url
        return Input(self.folder / self._below(url, digest), folder, url)

    @staticmethod
    def _below(url: str, digest: str) -> str:
        """Return the local path of an input below the folder: its digest, its last folders and its name."""
        parts = [part for part in url.rpartition("://")[2].split("/") if part not in ("", ".", "..")]
        return "/".join([digest, *(shortened(part, _LONGEST) for part in parts[-3:])])
