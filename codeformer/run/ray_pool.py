"""``--engine ray``: the inputs of a run go to a pool of Ray actors, each of which keeps its networks.

The driver lists and names the inputs, and has the report. Blocks of inputs go through Ray Data to the actors, which
read, restore and write, and send back what became of each input; pictures never travel. Autoscaling, back-pressure and
the retries of a lost worker are Ray's. An input that ends the process of its worker each time costs its block, whose
inputs are then tried one by one, so that it fails alone.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from codeformer.environment import take_short_turns
from codeformer.errors import CodeFormerError, RestorationError, UsageError
from codeformer.extras import installed
from codeformer.files.spool import Spool
from codeformer.options import RayOptions
from codeformer.run.inputs import NamedInput
from codeformer.run.ray_cluster import cluster
from codeformer.run.record import error_entry, fingerprint_of
from codeformer.run.report import Earlier
from codeformer.run.runner import Do, Pending
from codeformer.run.stored import Known
from codeformer.run.tally import Outcome
from codeformer.tasks.base import Task

_BLOCK = 32  # inputs that a worker takes at a time, and may share batches among
_ENDED = "the process that worked on it was ended each time, perhaps for lack of memory"
_WINDOW = 100_000  # inputs of which the driver has blocks at a time: about 50 MB; the actors start anew with each
_RETRIES = 3  # of a block whose worker was lost


J = TypeVar("J")
S = TypeVar("S", bound="Sent")


@dataclass(frozen=True)
class Sent:
    """An input on its way to a worker, with what the report knows of it."""

    item: NamedInput
    known: Known | None = None


@dataclass(frozen=True)
class Opened(Generic[J]):
    """What a worker works with.

    Attributes:
        do: makes the outcomes of jobs.
        facts: keys of the report's head that only who has opened the networks knows.
    """

    do: Do[J]
    facts: dict[str, Any] = field(default_factory=dict)


def ray_outcomes(
    jobs: Iterator[J],
    make: Callable[[], Opened[J]],
    options: RayOptions,
    lost: Callable[[J, RestorationError], Outcome],
    *,
    opened: Callable[[dict[str, Any]], None] = lambda facts: None,
    block: int = _BLOCK,
) -> Generator[Outcome, None, None]:
    """Do jobs in a pool of actors, and yield their outcomes in the order in which they are done.

    Args:
        jobs: the inputs; they are taken by the hundred thousand.
        make: opens what a worker works with, in its process; it is pickled.
        options: which cluster, and what a worker gets.
        lost: makes the outcome of a job whose worker ended each time.
        opened: told the facts of the first worker that says them.
        block: how many jobs a worker takes at a time, at most.

    Raises:
        UsageError: Ray is not installed, or the cluster cannot be reached.
        CodeFormerError: what ends the run in a worker ends it here, such as OutputError for a full disk.
    """
    first = next(jobs, None)
    if first is not None:
        with pool(options) as workers:
            yield from workers.outcomes(chain([first], jobs), make, lost, opened=opened, block=block)


@dataclass(frozen=True)
class Pool:
    """A cluster, and what each of the actors gets that work there."""

    ray: Any
    options: RayOptions

    @property
    def size(self) -> int:
        """How many actors work at a time."""
        return _workers(self.ray, self.options)

    def outcomes(
        self,
        jobs: Iterator[J],
        make: Callable[[], Opened[J]],
        lost: Callable[[J, RestorationError], Outcome],
        *,
        opened: Callable[[dict[str, Any]], None] = lambda facts: None,
        block: int = _BLOCK,
    ) -> Generator[Outcome, None, None]:
        """Do jobs, as :func:`ray_outcomes` says."""
        once = _first_only(opened)
        while len(window := _window(jobs)):
            for job in (yield from _blocks(window, self.ray, make, self.options, once, block)):
                yield lost(job, RestorationError(_ENDED))


@contextmanager
def pool(options: RayOptions) -> Iterator[Pool]:
    """Connect to a cluster, for several rounds of jobs. Raises UsageError."""
    with cluster(options) as ray:
        _require_room(ray, options)
        yield Pool(ray, options)


def _first_only(tell: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """Return what passes on the first facts that are not empty: workers of one run may be of several kinds."""
    told: list[dict[str, Any]] = []

    def opened(facts: dict[str, Any]) -> None:
        if facts and not told:
            told.append(facts)
            tell(facts)

    return opened


def _window(jobs: Iterator[J]) -> Spool[J]:
    """Take the next jobs, as many as the driver may keep track of at a time."""
    return Spool(pickle.dumps, pickle.loads, islice(jobs, _WINDOW))


def _blocks(
    left: Spool[J],
    ray: Any,
    make: Callable[[], Opened[J]],
    options: RayOptions,
    opened: Callable[[dict[str, Any]], None],
    block: int,
) -> Generator[Outcome, None, Spool[J]]:
    """Do jobs in blocks, and those of blocks that were lost one by one; returns the jobs that were lost then too."""
    for most in dict.fromkeys((block, 1)):
        size = max(1, min(most, len(left) // (2 * _workers(ray, options))))
        missing: Spool[J] = Spool(pickle.dumps, pickle.loads)
        came = bytearray(-(-len(left) // size))
        for number, facts, outcomes, error in _pass(ray, left, size, make, options):
            came[number] = 1
            opened(facts)
            yield from outcomes
            if error is not None:
                raise error
        for place, job in enumerate(left):
            if not came[place // size]:
                missing.append(job)
        left = missing
        if not len(left):
            break
    return left


def sent(report: Earlier, item: NamedInput) -> Sent:
    """Return an input with what the report knows of it."""
    return Sent(item, report.known.get(item.key))


def sent_outcomes(
    jobs: Iterable[S],
    do: Callable[[Iterator[Pending], Mapping[str, S]], Iterator[Outcome]],
    stamp: str,
    root: Path,
    task: Task | None = None,
    *,
    resume: bool,
) -> Generator[Outcome, None, None]:
    """Do those of a worker's inputs that are not done already, and yield what became of all.

    Args:
        jobs: the inputs.
        do: does inputs; it also gets each as it was sent, by its key.
        stamp: the settings, as the fingerprints have them.
        root: the output folder.
        task: whose masks count; None where it has none.
        resume: pass over what is done already.
    """
    sent: dict[str, S] = {}
    done: list[Outcome] = []

    def todo() -> Iterator[Pending]:
        for job in jobs:
            fingerprint, mask = fingerprint_of(job.item.path, task, stamp)
            known = job.known
            if resume and known is not None and known.fingerprint == fingerprint != "" and known.complete(root):
                done.append(Outcome(job.item.path, done_before=True))
            else:
                sent[job.item.key] = job
                yield Pending(job.item, fingerprint, mask)

    yield from do(todo(), sent)
    yield from done


def lost_input(job: Sent, error: CodeFormerError) -> Outcome:
    """Return the outcome of an input whose worker ended each time; what earlier runs made of it stays."""
    outputs = () if job.known is None else job.known.outputs
    record = {
        "input": job.item.key,
        "name": job.item.stem,
        "status": "failed",
        "fingerprint": "",
        "outputs": [{"path": name, "bytes": size} for name, size in outputs],
        "error": error_entry(job.item.path, error),
    }
    return Outcome(job.item.path, record, error)


Result = tuple[int, dict[str, Any], list[Outcome], CodeFormerError | None]


def _pass(
    ray: Any, jobs: Sequence[J], size: int, make: Callable[[], Opened[J]], options: RayOptions
) -> Iterator[Result]:
    """Send all jobs through the pool once; a block whose worker was lost too often has no result."""
    import pyarrow
    from ray.data import ActorPoolStrategy, DataContext, from_arrow_refs

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1
    source = iter(jobs)
    blocks: list[Any] = []
    while block := list(islice(source, size)):
        row = {"number": [len(blocks)], "jobs": [pickle.dumps(block)]}
        blocks.append(ray.put(pyarrow.table(row)))
    workers = min(_workers(ray, options), len(blocks))
    results: Any  # whether Ray, with its types, is installed or not
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # max_task_retries is to get a name of its own
        results = from_arrow_refs(blocks).map_batches(
            _Worker,
            batch_size=None,
            fn_constructor_args=(pickle.dumps(make), str(Path.cwd())),
            # One at a time: what waits behind a block that ends the actor would lose one of its retries with it
            compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            num_cpus=options.cpus_per_worker,
            num_gpus=_gpus(ray, options),
            max_task_retries=_RETRIES,
        )
    try:
        for row in results.iter_rows():
            yield pickle.loads(row["result"])
    except ray.exceptions.RayError as error:
        if "No module named 'codeformer" in str(error):
            raise UsageError("--engine ray: its workers cannot import codeformer: install it on every node") from error
        what = " ".join(str(error).split())[:300]
        raise RestorationError(f"Ray ended the run: {what}; the same command goes on from there") from error


class _Worker:
    """One actor of the pool, and its networks."""

    def __init__(self, make: bytes, folder: str) -> None:
        self._error: CodeFormerError | None = None
        try:
            os.chdir(folder)  # relative paths count from there
            self._opened: Opened[Any] = pickle.loads(make)()
        except CodeFormerError as error:
            self._error = error
        except OSError as error:
            self._error = UsageError(f"--engine ray: the workers' machine has no folder {folder} ({error.strerror})")

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        results = [self._do(int(number), jobs) for number, jobs in zip(batch["number"], batch["jobs"], strict=True)]
        return {"result": [pickle.dumps(one) for one in results]}

    def _do(self, number: int, jobs: bytes) -> Result:
        if self._error is not None:
            return number, {}, [], self._error
        outcomes: list[Outcome] = []
        try:
            outcomes.extend(self._opened.do(iter(pickle.loads(jobs))))
        except CodeFormerError as error:
            return number, self._opened.facts, outcomes, error
        return number, self._opened.facts, outcomes, None


def use_threads(options: RayOptions) -> None:
    """Let the libraries of a worker use its share of the cores, and not all; Python's threads take short turns."""
    import cv2

    take_short_turns()

    count = max(1, int(options.cpus_per_worker))
    cv2.setNumThreads(count)
    if installed("torch"):
        import torch

        torch.set_num_threads(count)


def _require_room(ray: Any, options: RayOptions) -> None:
    """Raise UsageError where a worker would wait forever. A cluster that somebody else started may grow."""
    gpus, there = _gpus(ray, options), ray.cluster_resources().get("GPU", 0)
    if options.address == "local" and gpus > there:
        raise UsageError(
            f"--gpus_per_worker {gpus:g}: this machine has {there:g} GPUs that Ray can see; give less, or 0"
        )


def _workers(ray: Any, options: RayOptions) -> int:
    """Return how many actors the pool has: as many as asked for, or as fit into the cluster."""
    if options.workers is not None:
        return options.workers
    there = ray.cluster_resources()
    fitting = [there.get("CPU", 1) / options.cpus_per_worker]
    if gpus := _gpus(ray, options):
        fitting.append(there.get("GPU", 0) / gpus)
    return max(1, int(min(fitting)))


def _gpus(ray: Any, options: RayOptions) -> float:
    """Return the GPUs of a worker: as asked for, or one where the cluster has any."""
    if options.gpus_per_worker is not None:
        return options.gpus_per_worker
    return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
