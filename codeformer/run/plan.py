"""What a run would do: its inputs, their results, and what is done already, found out without writing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from codeformer.backends.base import backend_of
from codeformer.errors import CodeFormerError
from codeformer.files.atomic import unwritable, why_closed
from codeformer.images.picture import SUFFIXES
from codeformer.images.reading import format_of
from codeformer.models.file import find_model
from codeformer.options import RunOptions
from codeformer.pipeline.engine import Engine, open_engine
from codeformer.pipeline.single import for_one_picture
from codeformer.run.inputs import NamedInput, output_root
from codeformer.run.messages import Messages
from codeformer.run.outputs import ending_of, expected_names
from codeformer.run.pictures import with_weights
from codeformer.run.places import HERE, Place
from codeformer.run.record import describe, error_entry, stamp_of
from codeformer.run.report import NAME, Earlier, look
from codeformer.run.runner import Pending, mention_ignored, named_inputs, pending
from codeformer.tasks.base import Task


@dataclass(frozen=True)
class Planned:
    """What would become of one input.

    Attributes:
        path: the input.
        results: the files that would be written, or were where it is done; ``NN`` stands for a face's number.
        done: whether an earlier run has done it.
        error: why it would fail; None where nothing is known against it.
        note: what else is to be said.
    """

    path: Path
    results: tuple[Path, ...] = ()
    done: bool = False
    error: CodeFormerError | None = None
    note: str = ""

    @property
    def status(self) -> Literal["to do", "done", "failed"]:
        """The state in one word or two."""
        return "failed" if self.error else "done" if self.done else "to do"

    def record(self) -> dict[str, Any]:
        """Return the same as JSON."""
        return {
            "input": str(self.path),
            "status": self.status,
            "outputs": [str(path) for path in self.results],
            "error": None if self.error is None else error_entry(self.path, self.error),
        }


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        did: what would be done to the inputs, such as ``restored``.
        inputs: in the run's order; looked at one after the other, when they are asked for, so there may be any number.
        facts: what it would be done with: names and values.
        more_facts: finds out the rest of them, by loading what does the work. It is called before the first input that
            is not done already, and raises CodeFormerError where the run would end.
    """

    did: str
    inputs: Iterable[Planned]
    facts: tuple[tuple[str, str], ...] = ()
    more_facts: Callable[[], Sequence[tuple[str, str]]] = tuple


def plan_input(
    item: NamedInput, job: Pending | None, earlier: Earlier, results: Callable[[Pending], Sequence[Path]]
) -> Planned:
    """Return what would become of an input.

    Args:
        item: the input.
        job: what :func:`~codeformer.run.runner.pending` says of it.
        earlier: what earlier runs did.
        results: the files that a job would write. It raises CodeFormerError where the job would fail.
    """
    if job is None:
        return Planned(item.path, tuple(earlier.root / name for name, _ in earlier.known[item.key].outputs), True)
    try:
        return Planned(item.path, tuple(results(job)))
    except CodeFormerError as error:
        return Planned(item.path, error=error)


def plan_inputs(
    named: Iterable[NamedInput],
    begin: Callable[[NamedInput], Pending | None],
    earlier: Earlier,
    results: Callable[[Pending], Sequence[Path]],
    place: Place = HERE,
) -> Iterator[Planned]:
    """Yield what would become of each input; see :func:`plan_input`.

    Args:
        named: the inputs.
        begin: makes a job of one; None if it is done already.
        earlier: what earlier runs did.
        results: the files that a job would write.
        place: where the inputs lie.
    """
    for item in place.with_versions(named):
        job = begin(item)
        error = None if job is None else place.peek(job)
        if error:
            yield Planned(item.path, error=error)
        elif whole := place.whole(item):
            yield plan_input(item, job, earlier, partial(_only, earlier.root / whole))
        else:
            yield plan_input(item, job, earlier, results)


def _only(path: Path, job: Pending) -> Sequence[Path]:
    return [path]


def beside(file: Path, report: str = NAME) -> Earlier:
    """Return what is known to a run that makes a single file: nothing. Raises OutputError if it cannot be written."""
    if error := why_closed(file.parent):
        raise unwritable(file, error)
    return Earlier(file.parent, report)


def plan_pictures(
    options: RunOptions, task: Task, console: Messages, file: Path | None = None, place: Place = HERE
) -> Plan:
    """Return what :func:`~codeformer.run.pictures.run_pictures` would do, after its checks; nothing is written.

    The networks are loaded, where there is something to do. Pictures are recognised by their first bytes, and not
    searched for faces.

    Args:
        options: the run.
        task: what is done to the faces.
        console: where the checks speak.
        file: the result's file, where that is given instead of a folder.
        place: where inputs and results lie.

    Raises:
        CodeFormerError: as the run does before its first picture.
    """
    asked, output = options.work.model, options.output
    model = find_model(asked.model, task, asked.weights_dir)
    work = with_weights(options, model, task)
    root = output_root(options.given, task, work.weights, output.output_path)
    listing = place.find(
        options.inputs, recursive=options.recursive, suffixes=SUFFIXES, root=root, input_list=options.input_list
    )
    mention_ignored(listing.ignored, console)
    earlier = look(root, shard=options.shard) if file is None else beside(file)
    count, named = named_inputs(earlier, listing.inputs)
    for note in model.notes:
        console.note(note)
    for line in (line for w in work.weights for line in model.doubts(task, w)):
        console.warning(line)
    stamp = stamp_of(describe(task, work, output), model.sha256)

    def results(job: Pending) -> list[Path]:
        kind = format_of(job.item.path)
        task.companion(job.item.path)
        ending = ending_of(output.ext, job.item.path, kind)
        mends = work.scratches != "off"
        aligned = work.faces.aligned
        names = expected_names(job.item.stem, ending, output, work.weights, aligned=aligned, scratches=mends)
        return [root / name for name in names] if file is None else [file]

    def begin(item: NamedInput) -> Pending | None:
        return pending(item, stamp, earlier, resume=output.resume, task=task)

    planned = plan_inputs(named, begin, earlier, results, place)
    facts = (("model", f"{model.path}, w {', '.join(f'{w:g}' for w in work.weights)}"),)

    def more_facts() -> list[tuple[str, str]]:
        return facts_of(
            open_engine(
                task, for_one_picture(task, work, model) if count == 1 and not place.holds_many else work, model
            )
        )

    return Plan(task.past, planned, facts, more_facts)


def facts_of(engine: Engine) -> list[tuple[str, str]]:
    """Return what an engine works with, besides its model."""
    networks = ", ".join(f"{purpose} {name}" for purpose, name in engine.extras.items())
    backend = backend_of(engine.restorer.device)
    engine_name = "" if backend == "torch" else f", {backend}"
    device = ("device", f"{engine.restorer.device}, {engine.restorer.precision}{engine_name}")
    return [device, ("networks", networks)] if networks else [device]
