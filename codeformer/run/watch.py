"""Folders that are watched: pictures that arrive are worked on when they are complete, until Ctrl-C."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from codeformer.errors import ExitCode, InputError, UsageError
from codeformer.files.paths import is_folder
from codeformer.images.picture import SUFFIXES
from codeformer.models.file import find_model
from codeformer.options import RunOptions
from codeformer.pipeline.engine import open_engine
from codeformer.run.inputs import Listing, find_inputs, output_root
from codeformer.run.messages import Messages
from codeformer.run.pictures import run_pictures, with_weights
from codeformer.run.tally import counted
from codeformer.tasks.base import Task

_Stamp = tuple[int, int]  # size, time of the last change


def watch(options: RunOptions, task: Task, console: Messages, *, pause: float = 1.0) -> ExitCode:
    """Work on what is in the folders, and then on every picture that arrives or changes there.

    A picture is complete when its size and time stay the same from one look to the next. If it changes later, it is
    worked on again. Ctrl-C while a run waits ends it with OK, or SOME_FAILED if a picture failed; while pictures are
    worked on, as it ends any run.

    Args:
        options: the run; its inputs are folders.
        task: what to do.
        console: where the run speaks.
        pause: seconds from one look to the next.

    Raises:
        UsageError: an input is not a folder.
        CodeFormerError: nothing can be done, or nothing can be written any more.
    """
    for path in options.inputs:
        if not is_folder(path):
            raise UsageError(
                f"--watch needs folders, and {path} is not one: give the folder that the pictures arrive in"
            )
    asked = options.work.model
    model = find_model(asked.model, task, asked.weights_dir)
    work = with_weights(options, model, task)
    root = output_root(options.inputs, task, work.weights, options.output.output_path)
    options = replace(options, work=work, output=replace(options.output, output_path=root), w_by_model=False)
    engine = open_engine(task, work, model)
    seen: dict[Path, _Stamp] = {}
    done: dict[Path, _Stamp] = {}
    failed, working, came = False, False, 0
    console.note(f"watching {', '.join(map(str, options.inputs))}; Ctrl-C ends")
    try:
        while True:
            listing = _listing(options, root)
            now = {one.path: stamp for one in listing.inputs if (stamp := _stamp(one.path)) is not None}
            ready = [
                one
                for one in listing.inputs
                if (stamp := now.get(one.path)) is not None and seen.get(one.path) == stamp != done.get(one.path)
            ]
            seen = now
            if ready:
                came += sum(one.path not in done for one in ready)
                done = {path: stamp for path, stamp in done.items() if path in now}
                done.update({one.path: now[one.path] for one in ready})
                working = True
                code = run_pictures(options, task, console, engine, Listing(tuple(ready)))
                if code is ExitCode.INTERRUPTED:
                    return code
                failed = failed or code is not ExitCode.OK
                working = False
            else:
                time.sleep(pause)
    except KeyboardInterrupt:
        if working:  # a run that was just ending: what came of its pictures is not known here
            return ExitCode.INTERRUPTED
        console.note(f"watching ended; {counted(came, 'picture')} came")
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def _listing(options: RunOptions, root: Path) -> Listing:
    """Return what is there now; an empty folder is nothing special here."""
    try:
        return find_inputs(options.inputs, recursive=options.recursive, suffixes=SUFFIXES, root=root)
    except InputError:
        for path in options.inputs:
            if not os.access(path, os.R_OK | os.X_OK):
                raise
        return Listing(())


def _stamp(path: Path) -> _Stamp | None:
    try:
        stat = path.stat()
    except OSError:  # it left, or a link leads nowhere yet
        return None
    return stat.st_size, stat.st_mtime_ns
