"""One picture through a pipe: from stdin or a file to stdout, without a report."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from codeformer.errors import CodeFormerError, ExitCode, UsageError
from codeformer.images.limits import most_pixels
from codeformer.images.picture import Picture, file_noting, read_opened, read_picture
from codeformer.models.file import find_model
from codeformer.options import OutputOptions, RunOptions, UpscaleOptions
from codeformer.pipeline.engine import open_engine
from codeformer.pipeline.pictures import Job, process
from codeformer.pipeline.single import for_one_picture
from codeformer.run.messages import Messages
from codeformer.run.outputs import final_ending
from codeformer.run.pictures import no_face_error
from codeformer.run.record import naming
from codeformer.tasks.base import Task

Write = Callable[[bytes], None]
_STDIN = Path("stdin")  # what messages call it


def picture_to(write: Write, options: RunOptions, task: Task, console: Messages) -> ExitCode:
    """Restore, colorize or inpaint the one input, and hand the file of the result to ``write``.

    Raises CodeFormerError when nothing can be done: no weights, or the result cannot be written. What is wrong with
    the picture is an error on the console, and the exit code.
    """
    source = _source(options.inputs[0])
    asked = options.work.model
    model = find_model(asked.model, task, asked.weights_dir)
    w = model.choose_w(task, None if options.w_by_model else options.work.w)
    for note in model.notes:
        console.note(note)
    for line in model.doubts(task, w):
        console.warning(line)
    work = for_one_picture(task, replace(options.work, w=w), model)
    most = options.max_pixels or most_pixels(work.canvas.upscale)
    result = next(process([Job(None, lambda: _read(source, most))], open_engine(task, work, model)))
    error = result.error
    if error is None and result.without_face and options.output.no_face == "error":
        error = no_face_error(result)
    _tell(result.notes, source, console)
    if error is not None or result.output is None:
        return _failed(error, source, console)
    if result.without_face:
        leave = options.output.no_face == "skip"
        console.warning(f"{source}: {result.nothing}; {'nothing is written' if leave else 'only resized'}")
        if leave:
            return ExitCode.OK
    _hand_on(write, result.output, result.picture or result.output, source, options.output, console)
    return ExitCode.OK


def upscale_to(write: Write, options: UpscaleOptions, console: Messages) -> ExitCode:
    """Enlarge the one input, and hand the file of the result to ``write``; as :func:`picture_to`."""
    from codeformer.run.upscale import network_of
    from codeformer.upsampling.upsampler import make_upsampler, upsample_picture

    source = _source(options.inputs[0])
    upsampler = make_upsampler(
        network_of(options),
        scale=options.upscale,
        device=options.device,
        precision=options.precision,
        tile=options.tile,
        weights_dir=options.weights_dir,
    )
    try:
        picture = _read(source, options.max_pixels or most_pixels(options.upscale))
        enlarged = upsample_picture(picture, upsampler, options.upscale)
    except CodeFormerError as error:
        return _failed(error, source, console)
    _tell(picture.warnings, source, console)
    _hand_on(write, enlarged, picture, source, options, console)
    return ExitCode.OK


def _source(given: Path) -> Path:
    if given != Path("-"):
        return given
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("-i - reads a picture from a pipe, but stdin is a terminal: add < FILE")
    return _STDIN


def _read(source: Path, most: int) -> Picture:
    if source is not _STDIN:
        return read_picture(source, max_pixels=most)
    with tempfile.TemporaryFile() as file:  # decoders seek, which a pipe cannot
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.seek(0)
        return read_opened(file, source, max_pixels=most)


def _hand_on(
    write: Write,
    result: Picture,
    picture: Picture,
    source: Path,
    how: OutputOptions | UpscaleOptions,
    console: Messages,
) -> None:
    """Write the file of the result, and say what its format cannot hold."""
    if source is _STDIN:  # it has no ending, but its bytes say the format
        picture = replace(picture, path=Path(f"x.{picture.format.lower()}") if picture.format else None)
    path = source.with_suffix(final_ending(how.ext, picture))
    data, lost = file_noting(result, path, quality=how.quality, png_level=how.png_level)
    _tell((lost,) if lost else (), source, console)
    write(data)


def _tell(notes: tuple[str, ...], source: Path, console: Messages) -> None:
    for line in notes:
        console.warning(line if str(source) in line else f"{source}: {line}")


def _failed(error: CodeFormerError | None, source: Path, console: Messages) -> ExitCode:
    if error is None:
        return ExitCode.OK
    console.error(naming(source, error))
    return error.exit_code
