"""A run that restores, colorizes or inpaints pictures: the pipeline between the inputs and their results."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from codeformer.environment import threads
from codeformer.errors import CodeFormerError, ExitCode, InputError, OutputError
from codeformer.images.limits import most_pixels
from codeformer.images.picture import SUFFIXES, read_picture
from codeformer.models.file import ModelFile, find_model, open_model
from codeformer.options import FaceWork, OutputOptions, RayOptions, RunOptions
from codeformer.pipeline.engine import Engine, open_engine
from codeformer.pipeline.pictures import Job, Result, as_our_error, process
from codeformer.pipeline.single import for_one_picture
from codeformer.run.inputs import CROPPED, Listing, NamedInput, output_root
from codeformer.run.interrupts import signals_held
from codeformer.run.messages import Messages
from codeformer.run.outputs import Written, final_ending, is_stale, losses, write_outputs
from codeformer.run.places import HERE, Place
from codeformer.run.ray_pool import Opened, Sent, lost_input, ray_outcomes, sent, sent_outcomes, use_threads
from codeformer.run.record import RAN_ON, describe, header_of, record_of, stamp_of
from codeformer.run.report import NAME, remove_stale
from codeformer.run.runner import (
    Pending,
    conclude,
    ends_the_run,
    mention_ignored,
    mention_join,
    named_inputs,
    open_report,
    pending,
)
from codeformer.run.stored import Known
from codeformer.run.tally import Outcome, Tally, counted
from codeformer.run.workers import Work, for_worker, run_named
from codeformer.tasks.base import Task

_AHEAD = 2  # pictures read and detected before the network wants them
_WRITERS = 2, 8  # threads that write: half of the cores, within these bounds
_WRITING_BYTES = 400_000_000  # pictures that wait for being written hold no more than this, but always one


def run_pictures(
    options: RunOptions,
    task: Task,
    console: Messages,
    engine: Engine | None = None,
    listing: Listing | None = None,
    where: Path | None = None,
    place: Place = HERE,
) -> ExitCode:
    """Work on every input and write results and report.

    ``engine``: one that is already open, for callers that run several times. ``listing``: those of the inputs that are
    to be done, where the caller has looked. ``where``: what the summary names as the place of the results, instead of
    the output folder. ``place``: where inputs and results lie. An input that fails does not stop the
    others. Raises CodeFormerError when nothing can be done (no input, no weights), or when results cannot be written
    any more (OutputError). Ctrl-C ends the run cleanly with ``ExitCode.INTERRUPTED``.
    """
    asked = options.work.model
    model = engine.model if engine else find_model(asked.model, task, asked.weights_dir)
    if engine is None:
        options = replace(options, work=with_weights(options, model, task))
    if task.only_faces and not options.work.faces.aligned:
        console.note(f"only the faces are {task.past}; the rest of a picture stays as it is")
    root = output_root(options.given, task, options.work.weights, options.output.output_path)
    if listing is None:
        listing = place.find(
            options.inputs, recursive=options.recursive, suffixes=SUFFIXES, root=root, input_list=options.input_list
        )
    mention_ignored(listing.ignored, console)
    with open_report(root, NAME, console, options.shard) as report:
        count, named = named_inputs(report, listing.inputs)
        for note in model.notes:
            console.note(note)
        for line in (line for w in options.work.weights for line in model.doubts(task, w)):
            console.warning(line)
        settings = describe(task, options.work, options.output)
        stamp = stamp_of(settings, model.sha256)
        header = header_of(task, settings, model, engine)
        ran_on = {key: value for key, value in report.head().items() if key in RAN_ON}
        tally = Tally(count)

        def opened(facts: Mapping[str, Any]) -> None:
            header.update(facts)

        def restore(jobs: Iterator[Pending]) -> Generator[Outcome, None, None]:
            first = next(jobs, None)
            if first is None:
                return
            report.begin(header)
            here = engine or open_engine(task, work_of(options, model, task, 0 if place.holds_many else count), model)
            opened(facts_of(header_of(task, settings, model, here)))
            tally.start_work()
            yield from restored(chain([first], jobs), here, root, options, task, report.known.get)

        def begin(item: NamedInput) -> Pending | None:
            return pending(item, stamp, report, resume=options.output.resume, task=task)

        def on_ray(ray: RayOptions) -> Work[Sent]:
            make = partial(open_worker, task, for_worker(options), model.path, root, settings, count)

            def send(jobs: Iterator[Sent]) -> Generator[Outcome, None, None]:
                report.begin(header)
                yield from ray_outcomes(jobs, make, ray, lost_input, opened=opened)

            return Work(partial(sent, report), send)

        state = run_named(
            named,
            report,
            place,
            tally,
            console,
            ray=options.ray,
            here=lambda: Work(begin, restore),
            on_ray=on_ray,
            # What no engine was opened for is as it was when the results were made
            head=lambda: {**ran_on, **header},
        )
        if tally.replaced:
            what = counted(tally.replaced, "picture")
            console.note(f"earlier results of {what}, of other settings or inputs, were replaced; --suffix keeps both")
        mention_join(report, console)
    return conclude(tally, state, console, did=task.past, where=where or root, report=root / NAME)


def with_weights(options: RunOptions, model: ModelFile, task: Task) -> FaceWork:
    """Return the work with the fidelity weights that the weights file takes. Raises UsageError, WeightsError."""
    work = options.work
    w = model.choose_w(task, None if options.w_by_model else work.w)
    return replace(work, w=w, more_w=tuple(model.choose_w(task, one) for one in work.more_w))


def work_of(options: RunOptions, model: ModelFile, task: Task, count: int) -> FaceWork:
    """Return the work of a run over as many pictures."""
    return for_one_picture(task, options.work, model) if count == 1 else options.work


def restored(
    jobs: Iterator[Pending],
    engine: Engine,
    root: Path,
    options: RunOptions,
    task: Task,
    known: Callable[[str], Known | None],
) -> Generator[Outcome, None, None]:
    """Work on pictures and write their results; yield what became of each, in order.

    Args:
        jobs: the pictures.
        engine: the networks.
        root: the output folder.
        options: the run.
        task: what is done to the faces, as the run was asked for it.
        known: what earlier runs made of an input, by its key.
    """
    most = options.max_pixels or most_pixels(options.work.canvas.upscale * len(options.work.weights) ** 0.5)
    read = partial(read_picture, max_pixels=most)
    pictures = (Job(job, partial(read, job.item.path)) for job in jobs)
    for result, written in _written(process(pictures, engine, ahead=_AHEAD), root, options.output):
        outcome = _outcome(result, written, options.output, task)
        yield _beside_earlier(outcome, result, root, known(result.key.item.key), options)


def open_worker(
    task: Task, options: RunOptions, model: Path, root: Path, settings: dict[str, Any], count: int
) -> Opened[Sent]:
    """Open what a worker of ``--engine ray`` works with, in its own process. Raises CodeFormerError."""
    use_threads(options.ray or RayOptions())
    file = open_model(model)
    engine = open_engine(task, work_of(options, file, task, count), file)
    stamp = stamp_of(settings, file.sha256)

    def restore(todo: Iterator[Pending], sent: Mapping[str, Sent]) -> Iterator[Outcome]:
        return restored(todo, engine, root, options, task, lambda key: sent[key].known)

    def do(jobs: Iterator[Sent]) -> Generator[Outcome, None, None]:
        return sent_outcomes(jobs, restore, stamp, root, task, resume=options.output.resume)

    return Opened(do, facts_of(header_of(task, settings, file, engine)))


def facts_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a report's head only the open networks tell."""
    return {key: header[key] for key in RAN_ON if key in header}


def _beside_earlier(
    outcome: Outcome, result: Result[Pending], root: Path, known: Known | None, options: RunOptions
) -> Outcome:
    """Remove what earlier runs made of this input under the names of this one, and is wrong now.

    Returns the outcome, with a line about what was removed, and whether results of other settings were replaced.
    """
    record, picture, output, weights = outcome.record, result.picture, options.output, options.work.weights
    if record is None or known is None:
        return outcome
    earlier = [name for name, _ in (*known.kept, *known.outputs)]
    ending = final_ending(output.ext, picture) if picture is not None else ".png"
    stem = result.key.item.stem
    removed = remove_stale(root, known, record, lambda name: is_stale(name, stem, output, ending, earlier, weights))
    same = {one["path"] for one in record["outputs"]} & {name for name, _ in known.outputs}
    replaces = known.fingerprint not in ("", result.key.fingerprint) and any(not n.startswith(CROPPED) for n in same)
    if removed:
        line = f"removed what an earlier run made and this one did not: {', '.join(sorted(removed))}"
        outcome = replace(outcome, warnings=(*outcome.warnings, line))
    return replace(outcome, replaced=replaces)


def no_face_error(result: Result[Any]) -> InputError:
    """Return the error for a picture without a face to work on, where ``--no_face`` makes it one."""
    if result.faces:
        return InputError(f"{result.nothing}; raise --person_distance, give another photograph, or see --no_face")
    return InputError("no face found; lower --det_threshold, give --landmarks, or see --no_face")


@dataclass(frozen=True)
class _Written:
    """The files of a result with their sizes, or why they could not be written."""

    files: tuple[Written, ...] = ()
    seconds: float = 0.0
    error: CodeFormerError | None = None


def _written(
    results: Iterator[Result[Pending]], root: Path, output: OutputOptions
) -> Iterator[tuple[Result[Pending], _Written]]:
    """Results with their files, in order; threads write while the pipeline goes on.

    Raises OutputError if no file can be written any more. An interruption lets the files that were begun be finished.
    """
    queue: deque[tuple[Result[Pending], Future[_Written]]] = deque()
    least, most = _WRITERS
    count = max(least, min(most, threads() // 2))
    with ThreadPoolExecutor(count, "codeformer-write") as writers:
        try:
            for result in results:
                with signals_held():  # a result whose files are begun is recorded, once
                    queue.append((result, writers.submit(_write, result, root, output)))
                    while len(queue) > count or sum(one.nbytes for one, _ in queue) > _WRITING_BYTES:
                        yield queue[0][0], queue[0][1].result()
                        queue.popleft()
        except KeyboardInterrupt:
            with signals_held():
                yield from _drained(queue)
            raise
        with signals_held():
            yield from _drained(queue)


def _drained(queue: deque[tuple[Result[Pending], Future[_Written]]]) -> Iterator[tuple[Result[Pending], _Written]]:
    while queue:
        result, future = queue.popleft()
        yield result, future.result()


def _write(result: Result[Pending], root: Path, output: OutputOptions) -> _Written:
    if result.error is not None or (result.without_face and output.no_face != "copy"):
        return _Written()
    start = time.perf_counter()
    try:
        files = write_outputs(result, result.key.item.stem, root, output)
    except OutputError as error:
        if ends_the_run(error):
            raise
        return _Written(seconds=time.perf_counter() - start, error=error)
    except Exception as error:  # it concerns this picture alone
        return _Written(seconds=time.perf_counter() - start, error=as_our_error(error, "write"))
    return _Written(tuple(files), time.perf_counter() - start)


def _outcome(result: Result[Pending], written: _Written, output: OutputOptions, task: Task) -> Outcome:
    """Return what a picture's result means: its line of the report, its counts, and what to tell the user."""
    job = result.key
    error, status = result.error or written.error, "failed"
    warnings = (*result.notes, *losses(written.files))
    if error is None and result.without_face and output.no_face == "error":
        error = no_face_error(result)
    without_face = error is None and result.without_face
    if without_face:
        status = "no_face"
        warnings = (f"{result.nothing}; {'only resized' if output.no_face == 'copy' else 'left out'}", *warnings)
    elif error is None:
        status = task.past
    seconds = {**result.seconds, "write": written.seconds}
    return Outcome(
        job.item.path,
        record_of(job.item, job.fingerprint, status, result, written.files, seconds, error, job.mask),
        error,
        result.done,
        without_face,
        warnings,
        f"{counted(result.done, 'face')}, {sum(seconds.values()):.2f} s",
    )
