"""A run over files and folders: what there is to do, what is done, what failed, and the exit code that says so."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from codeformer import __version__
from codeformer.errors import CodeFormerError, ExitCode, InputError, OutputError
from codeformer.files.digest import sha256_of
from codeformer.images.picture import SUFFIXES, read_picture
from codeformer.options import OutputOptions, RunOptions
from codeformer.pipeline.engine import Engine, choose_model, open_engine, settle_w
from codeformer.pipeline.pictures import Job, Result, as_our_error, process
from codeformer.run.inputs import OUR_FOLDERS, Planned, films, find_inputs, output_root, plan
from codeformer.run.outputs import write_outputs
from codeformer.run.record import describe, fingerprint_of, header_of, naming, now, record_of
from codeformer.run.report import Record, Report
from codeformer.tasks.base import Task

_AHEAD = 2  # pictures read and detected before the network wants them
_WRITERS = 2
_WRITING_BYTES = 400_000_000  # pictures that wait for being written hold no more than this, but always one
_NAMED = 100  # failures that the summary names; the report has them all


class Bar(Protocol):
    """A progress bar: tqdm, or anything like it."""

    def update(self, n: float = 1) -> Any: ...
    def set_postfix_str(self, s: str = "", refresh: bool = True) -> Any: ...


class Console(Protocol):
    """Where the run speaks; the command line's console is one."""

    def error(self, message: str) -> None: ...
    def warning(self, message: str) -> None: ...
    def note(self, message: str) -> None: ...
    def detail(self, message: str) -> None: ...
    def progress(self, total: int, unit: str = "picture") -> AbstractContextManager[Bar]: ...


@dataclass
class _Tally:
    """What came of the inputs so far."""

    started: float = field(default_factory=time.monotonic)
    working: float = field(default_factory=time.monotonic)
    done: int = 0
    without_face: int = 0
    faces: int = 0
    skipped: int = 0
    failed: list[tuple[str, CodeFormerError]] = field(default_factory=list)

    @property
    def seen(self) -> int:
        return self.done + self.without_face + self.skipped + len(self.failed)

    @property
    def exit_code(self) -> ExitCode:
        """Nothing failed: 0. Everything failed for one kind of reason: that reason's. Else 1."""
        if not self.failed:
            return ExitCode.OK
        codes = {error.exit_code for _, error in self.failed}
        if len(self.failed) == self.seen and len(codes) == 1:
            return codes.pop()
        return ExitCode.SOME_FAILED

    def rate(self) -> str:
        seconds = max(time.monotonic() - self.working, 1e-9)
        return f"{self.faces / seconds:.2f} faces/s"


def run_pictures(options: RunOptions, task: Task, console: Console, engine: Engine | None = None) -> ExitCode:
    """Work on every input and write results and report.

    ``engine``: one that is already open, for callers that run several times. An input that fails does not stop the
    others. Raises CodeFormerError when nothing can be done (no input, no weights), or when results cannot be written
    any more (OutputError). Ctrl-C ends the run cleanly with ``ExitCode.INTERRUPTED``.
    """
    model, notes = (engine.model, engine.notes) if engine else choose_model(task, options.work.model)
    if engine is None:
        w = settle_w(task, model, None if options.w_by_model else options.work.w)
        options = replace(options, work=replace(options.work, w=w))
    if task.only_faces and not options.work.faces.aligned:
        console.note(f"only the faces are {task.past}; the rest of a picture stays as it is")
    root = output_root(options.inputs, task, options.work.w, options.output.output_path)
    found = find_inputs(options.inputs, recursive=options.recursive, suffixes=SUFFIXES, root=root)
    _mention_ignored(found.ignored, console)
    with Report(root) as report:
        if report.damaged:
            console.warning(f"{root / 'results.json'} was damaged, is kept as {report.damaged.name} and written anew")
        planned = plan(found.inputs, {key: known.stem for key, known in report.known.items()})
        for note in notes:
            console.note(note)
        model_hash = engine.model_hash if engine else sha256_of(model)
        settings = describe(task, options.work, options.output)
        stamp = hashlib.sha256(json.dumps([settings, model_hash, __version__]).encode()).hexdigest()
        header = header_of(task, settings, model, model_hash, engine)
        tally = _Tally()
        with console.progress(len(planned)) as bar:
            waiting = _to_do(planned, task, stamp, report, options.output.resume, tally, bar)
            state = "failed"
            try:
                first = next(waiting, None)
                if first is not None:
                    report.merge({**header, "state": "running"})
                    engine = engine or open_engine(task, options.work)
                    header = header_of(task, settings, model, model_hash, engine)
                    tally.working = time.monotonic()  # loading is not the speed of the work
                    results = process(chain([first], waiting), engine, ahead=_AHEAD)
                    for result, written in _written(results, root, options.output):
                        record = _settle(result, written, options.output, task, tally, console)
                        _drop_stale(report, record)
                        report.append(record)
                        bar.update()
                        bar.set_postfix_str(tally.rate(), refresh=False)
                state = "finished"
            except KeyboardInterrupt:
                state = "interrupted"
            finally:
                report.finish({**header, "state": state, "finished": now(), "summary": _counts(tally, len(planned))})
    return _conclude(tally, len(planned), state, root, task, console)


class Asked(NamedTuple):
    """An input that is to be done: what its record will need besides the result."""

    item: Planned
    fingerprint: str
    mask: Path | None


def _to_do(
    planned: list[Planned], task: Task, stamp: str, report: Report, resume: bool, tally: _Tally, bar: Bar
) -> Iterator[Job[Asked]]:
    """Jobs for the inputs that are not done yet; the others are counted as skipped."""
    for item in planned:
        fingerprint, mask = fingerprint_of(item.path, task, stamp)
        known = report.known.get(item.key)
        if resume and fingerprint and known and known.fingerprint == fingerprint and known.complete(report.root):
            tally.skipped += 1
            bar.update()
            continue
        yield Job(Asked(item, fingerprint, mask), partial(read_picture, item.path))


@dataclass(frozen=True)
class _Written:
    """The files of a result with their sizes, or why they could not be written."""

    files: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0
    error: CodeFormerError | None = None


def _written(
    results: Iterator[Result[Asked]], root: Path, output: OutputOptions
) -> Iterator[tuple[Result[Asked], _Written]]:
    """Results with their files, in order; threads write while the pipeline goes on.

    Raises OutputError if no file can be written any more. An interruption lets the files that were begun be finished.
    """
    queue: deque[tuple[Result[Asked], Future[_Written]]] = deque()
    with ThreadPoolExecutor(_WRITERS, "codeformer-write") as writers:
        try:
            for result in results:
                queue.append((result, writers.submit(_write, result, root, output)))
                while len(queue) > _WRITERS or sum(_bytes(one) for one, _ in queue) > _WRITING_BYTES:
                    yield queue[0][0], queue[0][1].result()
                    queue.popleft()
        except KeyboardInterrupt:
            for result, future in queue:
                yield result, future.result()
            raise
        while queue:
            result, future = queue.popleft()
            yield result, future.result()


def _write(result: Result[Asked], root: Path, output: OutputOptions) -> _Written:
    if result.error is not None or (result.done == 0 and output.no_face != "copy"):
        return _Written()
    start = time.perf_counter()
    try:
        files = write_outputs(result, result.key.item.stem, root, output)
    except OutputError as error:
        if _is_fatal(error):
            raise
        return _Written(seconds=time.perf_counter() - start, error=error)
    except Exception as error:  # of this picture alone
        return _Written(seconds=time.perf_counter() - start, error=as_our_error(error, "write"))
    return _Written(tuple(files), time.perf_counter() - start)


def _bytes(result: Result[Any]) -> int:
    return sum(picture.rgb.nbytes for picture in (result.picture, result.output) if picture is not None)


def _settle(
    result: Result[Asked],
    written: _Written,
    output: OutputOptions,
    task: Task,
    tally: _Tally,
    console: Console,
) -> Record:
    """Count a result, tell the user, and return its line of the report."""
    item, fingerprint, mask = result.key
    error, status = result.error or written.error, "failed"
    if error is None and result.done == 0 and output.no_face == "error":
        error = InputError("no face found; lower --det_threshold, give --landmarks, or see --no_face")
    seconds = {**result.seconds, "write": written.seconds}
    if error is not None:
        tally.failed.append((str(item.path), error))
        console.error(naming(item.path, error))
    elif result.done == 0:
        status = "no_face"
        tally.without_face += 1
        how = "only resized" if output.no_face == "copy" else "left out"
        console.warning(f"{item.path}: no face found; {how}")
    else:
        status = task.past
        tally.done += 1
        tally.faces += result.done
    for note in result.notes:
        console.warning(note if str(item.path) in note else f"{item.path}: {note}")
    console.detail(f"{item.path}: {_faces(result.done)}, {sum(seconds.values()):.2f} s")
    return record_of(item, fingerprint, status, result, written.files, seconds, error, mask)


def _drop_stale(report: Report, record: Record) -> None:
    """Remove what an earlier run with other settings wrote for this input and this one did not, say a sixth face."""
    known = report.known.get(record["input"])
    if known is None or record["status"] == "failed":
        return
    for name in {name for name, _ in known.outputs} - {one["path"] for one in record["outputs"]}:
        if name.split("/")[0] in OUR_FOLDERS and ".." not in name.split("/"):
            with suppress(OSError):
                (report.root / name).unlink()


def _is_fatal(error: OutputError) -> bool:
    """Whether the next file would fail too: a full disk, a folder that is read-only; not a format's limit, or a name
    that this file system does not take or has given to something else."""
    cause = error.__cause__
    of_one_name = (None, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR)
    return isinstance(cause, OSError) and cause.errno not in of_one_name


def _counts(tally: _Tally, total: int) -> dict[str, Any]:
    return {
        "inputs": total,
        "done": tally.done,
        "faces": tally.faces,
        "without_face": tally.without_face,
        "done_before": tally.skipped,
        "failed": len(tally.failed),
        "left": total - tally.seen,
        "seconds": round(time.monotonic() - tally.started, 2),
    }


def _conclude(tally: _Tally, total: int, state: str, root: Path, task: Task, console: Console) -> ExitCode:
    """The summary on stderr, and the exit code."""
    speed = f" ({_faces(tally.faces)}, {tally.rate()})" if tally.faces else ""
    parts = [f"{tally.done} of {total} {task.past}{speed}"]
    if tally.skipped:
        parts.append(f"{tally.skipped} were done already")
    if tally.without_face:
        parts.append(f"{tally.without_face} without a face")
    if tally.failed:
        parts.append(f"{len(tally.failed)} failed")
    console.note(f"{', '.join(parts)}; results in {root}")
    if len(tally.failed) > 1:
        for path, error in tally.failed[:_NAMED]:
            console.note(f"  failed: {naming(Path(path), error)}")
        if len(tally.failed) > _NAMED:
            console.note(f"  and {len(tally.failed) - _NAMED} more: see {root / 'results.json'}")
    if state == "interrupted":
        console.error(f"interrupted: {total - tally.seen} of {total} left; the same command goes on from here")
        return ExitCode.INTERRUPTED
    return tally.exit_code


def _faces(count: int) -> str:
    return f"{count} face{'s' if count != 1 else ''}"


def _mention_ignored(ignored: tuple[Path, ...], console: Console) -> None:
    if count := films(ignored):
        console.note(f"{count} films in the folder are left out; see: codeformer video --help")
    others = len(ignored) - count
    if others:
        console.note(f"{others} files in the folder do not look like pictures and are left out")
        for path in ignored:
            console.detail(f"left out: {path}")
