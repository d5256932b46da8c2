"""The loop that every command shares, with work that does nothing: order, counts, exit code, ends."""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeformer.errors import (
    CodeFormerError,
    ExitCode,
    InputError,
    OutOfMemoryError,
    OutputError,
    RestorationError,
    UsageError,
)
from codeformer.run.runner import Do, conclude, one_by_one, run_inputs
from codeformer.run.tally import Outcome, Tally
from tests.run.log import Log

KINDS = (InputError, OutOfMemoryError, RestorationError, UsageError)


def outcome(name: str) -> Outcome:
    return Outcome(Path(name), {"input": name})


def failed(name: str, error: CodeFormerError) -> Outcome:
    return Outcome(Path(name), {"input": name, "failed": True}, error)


def run(names: Sequence[str], do: Do[str], before: Sequence[str] = ()) -> tuple[str, Tally, Log, list[str], list[str]]:
    tally, log, written, ends = Tally(len(names)), Log(), list[str](), list[str]()
    try:
        state: str = run_inputs(
            names,
            lambda name: None if name in before else name,
            do,
            tally,
            log,
            append=lambda record: written.append(record["input"]),
            finish=ends.append,
        )
    except OutputError:
        state = "raised"
    return state, tally, log, written, ends


@given(st.lists(st.sampled_from(["done", "before", "no face", *KINDS])))
def test_the_exit_code_follows_from_what_failed(fates: list[Any]) -> None:
    names = [str(number) for number in range(len(fates))]
    fate = dict(zip(names, fates, strict=True))

    def do(name: str) -> Outcome:
        if fate[name] in KINDS:
            raise fate[name]("no")
        return Outcome(Path(name), without_face=fate[name] == "no face")

    state, tally, log, _, ends = run(names, one_by_one(do, failed, "work"), [n for n in names if fate[n] == "before"])
    kinds = {fate[name] for name in names}
    assert state == "finished" and ends == ["finished"] and tally.left == 0
    assert [error.split(":")[0] for error in log.errors] == [name for name in names if fate[name] in KINDS]
    code = conclude(tally, "finished", log, did="done")
    if not kinds & set(KINDS):
        assert code is ExitCode.OK
    elif len(kinds) == 1:
        assert code is kinds.pop().exit_code
    else:
        assert code is ExitCode.SOME_FAILED
    counts = tally.summary()
    assert counts["done"] == fates.count("done") and counts["done_before"] == fates.count("before")
    assert counts["without_face"] == fates.count("no face") and counts["inputs"] == len(fates)


def test_what_nobody_expected_fails_one_input() -> None:
    def do(name: str) -> Outcome:
        if name == "b":
            raise ZeroDivisionError("oops")
        return outcome(name)

    state, tally, log, written, _ = run("abc", one_by_one(do, failed, "work"))
    assert (state, written, tally.exit_code) == ("finished", ["a", "b", "c"], ExitCode.SOME_FAILED)
    assert log.errors == ["b: unexpected ZeroDivisionError in the step work: oops"]


@pytest.mark.parametrize(("reason", "ends"), [(errno.ENOSPC, True), (errno.EROFS, True), (errno.ENAMETOOLONG, False)])
def test_a_full_disk_ends_the_run_and_a_name_that_is_too_long_does_not(reason: int, ends: bool) -> None:
    def do(name: str) -> Outcome:
        if name == "b":
            raise OutputError("cannot be written") from OSError(reason, "why")
        return outcome(name)

    state, tally, _, written, said = run("abc", one_by_one(do, failed, "work"))
    assert (state, said) == (("raised", ["failed"]) if ends else ("finished", ["finished"]))
    assert written == (["a"] if ends else ["a", "b", "c"]) and tally.left == (2 if ends else 0)


def test_work_may_read_ahead_and_ctrl_c_keeps_what_is_done() -> None:
    asked = []

    def batches(jobs: Iterator[str]) -> Generator[Outcome, None, None]:
        waiting = []
        for name in jobs:
            asked.append(name)
            waiting.append(name)
            if name == "e":
                raise KeyboardInterrupt
            if len(waiting) == 2:
                yield from map(outcome, waiting)
                waiting.clear()

    state, tally, log, written, ends = run("abcdef", batches, before="b")
    assert (state, ends, asked) == ("interrupted", ["interrupted"], list("acde"))
    assert written == ["a", "c"] and tally.left == 3
    assert conclude(tally, "interrupted", log, did="done") is ExitCode.INTERRUPTED
    assert "3 of 6 left" in log.errors[-1]
