"""The counts of a run, and the rule for its exit code."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codeformer.errors import CodeFormerError, ExitCode

#: Failures that are remembered and named at the end; the report has them all.
NAMED = 100


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        path: the input.
        record: its line of the report; None where it has none.
        error: why it failed; None if it did not.
        faces: how many faces were worked on.
        without_face: it did not fail, but there was no face to work on.
        warnings: what the user should know of the result.
        detail: what only a curious user wants to know.
        done_before: an earlier run had done it, which was found out only when its turn came.
        replaced: its results took the place of an earlier run's, of other settings.
        said: what a worker of another process said of it: error, warning, note or detail, and the line.
        adds: inputs that it adds to those that were known, where an input turned out to hold several.
        counts: whether it is one of the inputs; else others are counted in its place.
    """

    path: Path
    record: dict[str, Any] | None = None
    error: CodeFormerError | None = None
    faces: int = 0
    without_face: bool = False
    warnings: tuple[str, ...] = ()
    detail: str = ""
    done_before: bool = False
    replaced: bool = False
    said: tuple[tuple[str, str], ...] = ()
    adds: int = 0
    counts: bool = True


@dataclass
class Tally:
    """What came of a run's inputs so far.

    Attributes:
        total: how many inputs there are.
        done: how many were worked on, those without a face not counted.
        done_before: how many an earlier run had done.
        replaced: how many results took the place of others, of other settings.
        failed: how many failed.
        failures: the first of those that failed, with the reason; the report has them all.
        codes: how many failed with each exit code.
    """

    total: int
    done: int = 0
    without_face: int = 0
    faces: int = 0
    done_before: int = 0
    replaced: int = 0
    failed: int = 0
    failures: list[tuple[Path, CodeFormerError]] = field(default_factory=list)
    codes: Counter[ExitCode] = field(default_factory=Counter)
    _started: float = field(default_factory=time.monotonic)
    _working: float = field(default_factory=time.monotonic)

    @property
    def seen(self) -> int:
        """How many inputs are settled, one way or another."""
        return self.done + self.without_face + self.done_before + self.failed

    @property
    def left(self) -> int:
        """How many inputs nothing has been done about."""
        return self.total - self.seen

    @property
    def exit_code(self) -> ExitCode:
        """Nothing failed: 0. Everything failed for one kind of reason: that reason's. Else 1."""
        if not self.codes:
            return ExitCode.OK
        return next(iter(self.codes)) if len(self.codes) == 1 and self.failed == self.seen else ExitCode.SOME_FAILED

    def count(self, outcome: Outcome) -> None:
        """Count what became of one input."""
        self.replaced += outcome.replaced
        self.total += outcome.adds
        if not outcome.counts:
            return
        if outcome.error is not None:
            self.failed += 1
            self.codes[outcome.error.exit_code] += 1
            if len(self.failures) < NAMED:
                self.failures.append((outcome.path, outcome.error))
        elif outcome.done_before:
            self.done_before += 1
        elif outcome.without_face:
            self.without_face += 1
        else:
            self.done += 1
            self.faces += outcome.faces

    def start_work(self) -> None:
        """Measure the speed from now on: loading the networks is not the speed of the work."""
        self._working = time.monotonic()

    def rate(self) -> str:
        """Return how many faces were done in a second."""
        return f"{self.faces / max(time.monotonic() - self._working, 1e-9):.2f} faces/s"

    def summary(self) -> dict[str, Any]:
        """Return the counts as the report has them."""
        return {
            "inputs": self.total,
            "done": self.done,
            "faces": self.faces,
            "without_face": self.without_face,
            "done_before": self.done_before,
            "failed": self.failed,
            "left": self.left,
            "seconds": round(time.monotonic() - self._started, 2),
        }


def counted(number: int, what: str) -> str:
    """Return a number with its word, ``1 face`` or ``2 faces``."""
    return f"{number} {what}{'' if number == 1 else 's'}"
