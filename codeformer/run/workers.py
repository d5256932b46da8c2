"""Who works on the inputs of a run: this process, or workers on a Ray cluster (``--engine``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from codeformer.options import AlignOptions, RayOptions, RunOptions, UpscaleOptions
from codeformer.run.inputs import NamedInput
from codeformer.run.messages import Messages
from codeformer.run.places import Place
from codeformer.run.report import Report
from codeformer.run.runner import Do, Pending, State, run_inputs
from codeformer.run.stored import now
from codeformer.run.tally import Tally

J = TypeVar("J")
S = TypeVar("S")
R = TypeVar("R", RunOptions, UpscaleOptions, AlignOptions)


@dataclass(frozen=True)
class Work(Generic[J]):
    """How the inputs of a run are done.

    Attributes:
        begin: makes a job of an input, or None if it is done already.
        do: makes an outcome of each job.
    """

    begin: Callable[[NamedInput], J | None]
    do: Do[J]


def run_named(
    named: Iterable[NamedInput],
    report: Report,
    place: Place,
    tally: Tally,
    console: Messages,
    *,
    ray: RayOptions | None,
    here: Callable[[], Work[Pending]],
    on_ray: Callable[[RayOptions], Work[S]],
    head: Callable[[], Mapping[str, Any]],
    unit: str = "picture",
) -> State:
    """Do the inputs of a run in this process or on a Ray cluster, and write the report.

    Args:
        named: the inputs.
        report: where their records go.
        place: where inputs and results lie. Ray's workers have files alone, of which all machines have the same.
        tally: where the outcomes are counted.
        console: where the run speaks.
        ray: which cluster; None for this process.
        here: returns the work of this process; called only if it does the work.
        on_ray: returns the work of a cluster. Its workers find out themselves what is done already.
        head: returns the report's head at the end of the run.
        unit: what the progress bar counts.

    Returns:
        As :func:`~codeformer.run.runner.run_inputs`.

    Raises:
        CodeFormerError: nothing can be done, or nothing more can be done, such as OutputError for a full disk.
    """

    def finish(state: State) -> None:
        report.finish({**head(), "state": state, "finished": now(), "summary": tally.summary()})

    rest: dict[str, Any] = {"append": report.append, "finish": finish, "unit": unit}
    if ray is None:
        work = here()
        do = place.around(work.do, report)
        return run_inputs(place.with_versions(named), work.begin, do, tally, console, **rest)
    sent = on_ray(ray)
    return run_inputs(named, sent.begin, sent.do, tally, console, **rest)


def for_worker(options: R) -> R:
    """Return the options as a worker gets them: without those that say which inputs there are."""
    return replace(options, inputs=(Path("input"),), input_list=None, shard=None)
