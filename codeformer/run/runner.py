"""One run over many inputs, whatever is done to them: pictures, films, photographs for training.

A run names its inputs, passes over those that are done already, does the others, writes down what became of each, and
says at the end what failed, also by its exit code. An input that fails does not stop the others. What is done to an
input is a generator from jobs to outcomes, so that a pipeline may read ahead and share batches.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from codeformer.errors import CodeFormerError, ExitCode, OutputError
from codeformer.files.atomic import can_write_in
from codeformer.images.formats import extra_for
from codeformer.options import Shard
from codeformer.run.inputs import Input, NamedInput, count_films, name_inputs, spool_of_names
from codeformer.run.interrupts import signals_held
from codeformer.run.journal import shared_names
from codeformer.run.messages import Bar, Messages, NoBar
from codeformer.run.record import fingerprint_of, naming
from codeformer.run.report import Earlier, Report
from codeformer.run.tally import Outcome, Tally, counted
from codeformer.tasks.base import Task

_OF_ONE_NAME = (None, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR)
_OF_ALL = (errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", None))
_AT_A_GLANCE = 10  # inputs whose errors are still on the screen when the run ends: they are not said again

T = TypeVar("T")
J = TypeVar("J")
State = Literal["finished", "interrupted", "failed"]
#: How jobs are done: outcomes come in the jobs' order, perhaps some jobs later.
Do: TypeAlias = Callable[[Iterator[J]], Generator[Outcome, None, None]]


@dataclass(frozen=True)
class Pending:
    """An input that is to be done: its fingerprint, and its mask's file if the task has one."""

    item: NamedInput
    fingerprint: str
    mask: Path | None = None


def open_report(root: Path, name: str, console: Messages, shard: Shard | None = None) -> Report:
    """Open a folder's report for one run, and warn if it was damaged. Raises OutputError."""
    report = Report(root, name, shard)
    if report.damaged:
        console.warning(f"{root / name} was damaged: it is kept as {report.damaged.name}, and written anew")
    return report


def named_inputs(
    report: Earlier, inputs: Sequence[Input], taken: Mapping[str, str] | None = None
) -> tuple[int, Iterable[NamedInput]]:
    """Return how many inputs a run has, and the inputs with their names.

    Args:
        report: of the folder; its shard takes its part of the inputs.
        inputs: all that were found.
        taken: names by input; by default those that the report knows.
    """
    taken = report.names() if taken is None else taken
    if report.shard is None:
        return len(inputs), name_inputs(inputs, taken)
    if isinstance(report, Report):
        own: Sequence[NamedInput] = shared_names(report.root, report.name, inputs, taken, report.shard)
    else:  # which writes nothing
        own = mine = spool_of_names()
        for item in name_inputs(inputs, taken):
            if report.shard.takes(item.key):
                mine.append(item)
    return len(own), own


def mention_join(report: Report, console: Messages) -> None:
    """Say how ``results.json`` is made where this run leaves it to another command."""
    if report.left_to_join:
        console.note(f"the records are in {report.root / report.journal}; codeformer report {report.root} joins them")


def pending(item: NamedInput, stamp: str, report: Earlier, *, resume: bool, task: Task | None = None) -> Pending | None:
    """Return what is to be done about an input, or None if the report and the results say that it is done."""
    fingerprint, mask = fingerprint_of(item.path, task, stamp, item.version)
    if resume and report.is_done(item.key, fingerprint):
        return None
    return Pending(item, fingerprint, mask)


def run_inputs(
    inputs: Iterable[T],
    begin: Callable[[T], J | None],
    do: Do[J],
    tally: Tally,
    console: Messages,
    *,
    append: Callable[[dict[str, Any]], None] = lambda record: None,
    finish: Callable[[State], None] = lambda state: None,
    unit: str | None = "picture",
) -> State:
    """Do all inputs, and return ``finished``, or ``interrupted`` after Ctrl-C.

    Args:
        inputs: what there is to do, in order; each is asked for when its turn is near.
        begin: makes a job of an input, or None if it is done already.
        do: makes an outcome of each job, in order. It may take several jobs before it gives the first outcome. What it
            raises ends the run.
        tally: where the outcomes are counted.
        console: where the run speaks.
        append: writes an outcome's record down, so that a kill does not lose it.
        finish: called once at the end with what the return value says, or ``failed`` if an error ends the run.
        unit: what the progress bar counts; None for no bar.

    Raises:
        CodeFormerError: nothing more can be done, such as OutputError for a full disk.
    """
    state: State = "failed"
    try:
        with (
            console.progress(tally.total, unit) if unit else nullcontext(NoBar()) as bar,
            closing(do(_to_do(inputs, begin, tally, bar))) as outcomes,
        ):
            for outcome in outcomes:
                with signals_held():  # what is counted is told and recorded too
                    tally.count(outcome)
                    _tell(outcome, console)
                    if outcome.record is not None:
                        append(outcome.record)
                        console.record(outcome.record)
                    bar.update()
                    if tally.faces:
                        bar.set_postfix_str(tally.rate(), refresh=False)
        state = "finished"
    except KeyboardInterrupt:
        state = "interrupted"
    finally:
        with signals_held():
            finish(state)
    return state


def one_by_one(do: Callable[[J], Outcome], fail: Callable[[J, CodeFormerError], Outcome], stage: str) -> Do[J]:
    """Return what :func:`run_inputs` wants to ``do``, for work without a pipeline: one job after the other.

    Args:
        do: does a job. Anything that it raises is this job's failure, except for an output error that would meet the
            next job too.
        fail: makes the outcome of a job that failed.
        stage: what goes on in ``do``, for the message of an unexpected error.
    """

    def outcomes(jobs: Iterator[J]) -> Generator[Outcome, None, None]:
        from codeformer.pipeline.pictures import as_our_error

        for job in jobs:
            try:
                outcome = do(job)
            except Exception as error:
                if isinstance(error, OutputError) and ends_the_run(error):
                    raise
                outcome = fail(job, as_our_error(error, stage))
            with signals_held():
                yield outcome

    return outcomes


def ends_the_run(error: OutputError) -> bool:
    """Return whether the next file would fail too: a full disk, a folder that is read-only or gone.

    A format's limit concerns one file alone, and so does a name that this file system does not take or has given to
    something else. Where the system does not say, as for a file that a viewer keeps open on Windows, another file in
    the same folder is tried.
    """
    cause = error.__cause__
    if not isinstance(cause, OSError) or cause.errno in _OF_ONE_NAME:
        return False
    if cause.errno in _OF_ALL or error.path is None:
        return True
    return not can_write_in(error.path.parent)


def conclude(
    tally: Tally, state: State, console: Messages, *, did: str, where: Path | None = None, report: Path | None = None
) -> ExitCode:
    """Say what became of all inputs, and return the exit code.

    Args:
        tally: the counts.
        state: what :func:`run_inputs` returned.
        console: where the run speaks.
        did: what was done to them, such as ``restored``.
        where: the folder of the results.
        report: the file that names every failure.
    """
    speed = f" ({counted(tally.faces, 'face')}, {tally.rate()})" if tally.faces else ""
    if tally.done_before == tally.total > 0:
        all_of_them = f"all {tally.total} were" if tally.total > 1 else "it was"
        parts = [f"nothing to do: {all_of_them} done already (--overwrite does that again)"]
    else:
        parts = [f"{tally.done} of {tally.total} {did}{speed}"]
        if tally.done_before:
            parts.append(f"{tally.done_before} were done already (--overwrite does them again)")
    if tally.without_face:
        parts.append(f"{tally.without_face} without a face to work on")
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    console.note(", ".join(parts) + (f"; results in {where}" if where else ""))
    if tally.failed > 1 and tally.total > _AT_A_GLANCE:
        for path, error in tally.failures:
            console.note(f"  failed: {naming(path, error)}")
        if tally.failed > len(tally.failures):
            console.note(f"  and {tally.failed - len(tally.failures)} more" + (f": see {report}" if report else ""))
    if state == "interrupted":
        console.error(f"interrupted: {tally.left} of {tally.total} left; the same command goes on from here")
        return ExitCode.INTERRUPTED
    return tally.exit_code


def mention_ignored(ignored: Sequence[Path], console: Messages) -> None:
    """Say which files of the given folders are left out, and why."""
    if films := count_films(ignored):
        console.note(f"{counted(films, 'film')} in the folder left out; see: codeformer video --help")
    others = len(ignored) - films
    if others:
        endings = Counter(path.suffix.lower() for path in ignored if not count_films([path]))
        count = counted(others, "file")
        console.note(f"{count} in the folder left out, which do not look like pictures: {_by_ending(endings)}")
        for path in ignored:
            console.detail(f"left out: {path}")


def _by_ending(endings: Counter[str]) -> str:
    """Return the files' endings with their numbers, and what would read those for which something is missing."""
    parts = []
    for ending, count in sorted(endings.items(), key=lambda one: (-one[1], one[0])):
        extra = extra_for(ending)
        parts.append(f"{count} {ending or 'without an ending'}" + (f" ({extra} reads them)" if extra else ""))
    return ", ".join(parts)


def _to_do(inputs: Iterable[T], begin: Callable[[T], J | None], tally: Tally, bar: Bar) -> Iterator[J]:
    """Jobs for the inputs that are not done yet; the others are counted."""
    for one in inputs:
        job = begin(one)
        if job is None:
            tally.done_before += 1
            bar.update()
        else:
            yield job


def _tell(outcome: Outcome, console: Messages) -> None:
    for kind, line in outcome.said:
        getattr(console, kind)(line)
    if outcome.error is not None:
        console.error(naming(outcome.path, outcome.error))
    for line in outcome.warnings:
        console.warning(line if str(outcome.path) in line else f"{outcome.path}: {line}")
    if outcome.detail:
        console.detail(f"{outcome.path}: {outcome.detail}")
