"""A run whose inputs, or whose results, or both, lie in stores."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from codeformer.errors import CodeFormerError, UsageError
from codeformer.files.urls import url_of
from codeformer.images.picture import SUFFIXES
from codeformer.run.inputs import Input, Listing, NamedInput, find_inputs
from codeformer.run.places import Place
from codeformer.run.record import error_entry
from codeformer.run.report import Report
from codeformer.run.runner import Do, Pending
from codeformer.run.tally import Outcome
from codeformer.stores.access import unwritable
from codeformer.stores.inputs import StoredInputs
from codeformer.stores.outputs import StoredOutputs, translated


class Remote(Place):
    """URLs among the inputs of a run, and its output folder if that is one.

    Args:
        folder: an empty folder for what is fetched and what is made.
        output: the URL of the output folder; None for a folder on this machine.
        alone: whether this process does the work; no other one has the files that are fetched.
    """

    def __init__(self, folder: Path, output: str | None = None, *, alone: bool = True) -> None:
        self.inputs = StoredInputs(folder / "in")
        self.outputs: StoredOutputs | None = None
        self._single: tuple[Path, str] | None = None
        self._folder, self._alone = folder, alone
        if output is not None:
            self.outputs = StoredOutputs(self.inputs.store(output), output, folder / "out")

    def find(self, paths: Any, *, recursive: bool, **kwargs: Any) -> Listing:
        """Return the inputs, those behind URLs too.

        Raises:
            CodeFormerError: as :func:`~codeformer.run.inputs.find_inputs`; a store that cannot be listed; inputs that
                lie where the results go.
        """
        output = self.outputs.url if self.outputs else None

        def stored(url: str) -> tuple[bool, Iterable[Input]]:
            if not self._alone:
                raise UsageError(f"{url}: --engine ray needs paths; for URLs start processes with --shard I/N")
            if output is not None and f"{url}/".startswith(f"{output}/"):
                raise UsageError(f"{url}: lies in {output}, where the results go; give another --output_path")
            return self.inputs.find(url, recursive, output, SUFFIXES)

        return find_inputs(paths, recursive=recursive, stored=stored, **kwargs)

    def with_versions(self, named: Iterable[NamedInput]) -> Iterator[NamedInput]:
        """Return the inputs with what the stores have for versions of them."""
        return self.inputs.with_versions(named)

    def peek(self, job: Pending) -> CodeFormerError | None:
        """Fetch the beginning of an input's file; return why it cannot be fetched."""
        return self.inputs.peek(job.item.key, job.item.path)

    def around(self, do: Do[Pending], report: Report) -> Do[Pending]:
        """Return what fetches the inputs, does the work, and uploads the results."""

        def work(jobs: Iterator[Pending]) -> Generator[Outcome, None, None]:
            with closing(self.inputs.fetched(jobs)) as fetched, closing(do(fetched)) as done:
                outcomes = self._explained(done)
                for outcome in self.outputs.uploaded(outcomes, report) if self.outputs else outcomes:
                    yield replace(outcome, record=translated(outcome.record, self.spoken))

        return work

    def mirror(self, *, files: bool = True) -> Path:
        """Return the folder here that stands for the output folder, with its reports and what stands for its files.

        Args:
            files: whether there is to be anything but the reports.

        Raises:
            OutputError: the store cannot be asked.
            ValueError: the output folder is on this machine.
        """
        if self.outputs is None:
            raise ValueError("the output folder is on this machine")
        self.outputs.mirror(files=files)
        return self.outputs.folder

    def single(self, url: str, *, may_replace: bool) -> Path:
        """Return the path here of the one result that is uploaded as this URL.

        Args:
            url: the result's.
            may_replace: whether one that is there already may be replaced.

        Raises:
            UsageError: there is one, and it may not be replaced.
        """
        if not may_replace:
            store = self.inputs.store(url)
            try:
                store.info(url)
            except Exception:  # nothing is there, or the store is silent, which the upload will say
                pass
            else:
                raise UsageError(f"{url} is there: choose another --output_path, or --overwrite it")
        path = self._folder / "out" / url.rpartition("/")[2]
        self._single = path, url
        return path

    def fetched_now(self, path: Path) -> Path:
        """Return an input's path here, where it is fetched to if it is a URL. Raises CodeFormerError."""
        url = url_of(path)
        return path if url is None else self.inputs.get(url)

    def settle(self) -> None:
        """Upload what is left here when a run has ended. Raises OutputError."""
        if self.outputs is not None:
            self.outputs.settle()
        if self._single is not None and self._single[0].is_file():
            path, url = self._single
            try:
                self.inputs.store(url).put(path, url)
            except Exception as error:
                raise unwritable(url, error) from error

    def spoken(self, text: str) -> str:
        """Return a text with URLs where it names files that stand for them here."""
        text = self.inputs.spoken(text)
        if self._single is not None:
            text = text.replace(str(self._single[0]), self._single[1])
        if self.outputs is not None:
            folder = str(self.outputs.folder)
            text = text.replace(f"{folder}{os.sep}", f"{self.outputs.url}/").replace(folder, self.outputs.url)
        return text

    def _explained(self, outcomes: Generator[Outcome, None, None]) -> Generator[Outcome, None, None]:
        """Outcomes that say why an input could not be fetched; its file here goes."""
        for outcome in outcomes:
            self.inputs.forget(outcome.path)
            record, error = outcome.record, outcome.error
            if error is not None and (why := self.inputs.reason_of(outcome.path)) is not None:
                error = why
                if record is not None:
                    record = {**record, "error": error_entry(outcome.path, why)}
            yield replace(outcome, record=record, error=error)
