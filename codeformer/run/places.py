"""Where the inputs of a run come from: files on this machine. `codeformer.stores` has other places, for URLs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codeformer.errors import CodeFormerError
from codeformer.run.inputs import Listing, NamedInput, find_inputs
from codeformer.run.messages import Messages
from codeformer.run.report import Report
from codeformer.run.runner import Do, Pending


class Place:
    """Files on this machine: they are there, and results are where they were written.

    Attributes:
        holds_many: whether an input may be many pictures.
    """

    holds_many = False

    def find(self, *args: Any, **kwargs: Any) -> Listing:
        """Return the inputs, as :func:`~codeformer.run.inputs.find_inputs` finds them."""
        return find_inputs(*args, **kwargs)

    def with_versions(self, named: Iterable[NamedInput]) -> Iterable[NamedInput]:
        """Return the inputs with their versions, where bytes are not to tell them apart."""
        return named

    def peek(self, job: Pending) -> CodeFormerError | None:
        """Make the beginning of an input's file readable, by which its format is known; return why it is not."""
        return None

    def whole(self, item: NamedInput) -> str:
        """Return the name of the one file that all results of an input go into; "" where each has its own."""
        return ""

    def around(self, do: Do[Pending], report: Report) -> Do[Pending]:
        """Return what fetches the inputs of jobs, does them, and puts the results where they belong."""
        return do


class FilmPlace:
    """Films on this machine: they are there, and results are where they were written."""

    def key(self, source: Path) -> str:
        """Return what a film is known by, to whoever shares films out."""
        return os.path.normpath(source.absolute())

    @contextmanager
    def here(self, source: Path, film: Path, report: Path, console: Messages) -> Iterator[None]:
        """Have a film here for the block, and put its result and its report where they belong after it."""
        yield


#: The places of a run without URLs and tar files.
HERE = Place()
FILMS_HERE = FilmPlace()
