"""The files of one result, with the original's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from codeformer.images.picture import WRITABLE_SUFFIXES, Picture, as_srgb, to_uint16, write_picture
from codeformer.options import OutputOptions
from codeformer.pipeline.compose import as_picture
from codeformer.pipeline.pictures import Result
from codeformer.run.inputs import COMPARE, CROPPED, FINAL, OUR_FOLDERS, RESTORED


def write_outputs(result: Result[Any], stem: str, root: Path, options: OutputOptions) -> list[tuple[str, int]]:
    """Write everything that the options ask for; the paths, relative to ``root``, with their sizes in bytes.

    ``final_results/NAME`` is the whole picture (for aligned crops ``restored_faces/NAME``), ``restored_faces/NAME_00``
    and ``cropped_faces/NAME_00`` are its faces, ``compare/NAME`` is before and after. The final picture is written
    last, so that it stands for all of them. Raises OutputError.
    """
    picture, output = result.picture, result.output
    if picture is None or output is None:
        raise ValueError("a result with an error has nothing to write")
    tail = f"_{options.suffix}" if options.suffix else ""
    ending = final_ending(options.ext, picture)
    aligned = any(one.chosen and one.face is None for one in result.faces)
    files: list[tuple[str, Callable[[], Picture]]] = []  # made one at a time: memory holds one copy, not all
    if not aligned and not options.only_final:
        for one in result.faces:
            if one.before is not None and one.after is not None:
                number = f"{one.number - 1:02d}"
                files.append((f"{CROPPED}/{stem}_{number}.png", partial(as_picture, picture, one.before)))
                files.append((f"{RESTORED}/{stem}_{number}{tail}.png", partial(as_picture, picture, one.after)))
    if options.compare:
        files.append((f"{COMPARE}/{stem}{tail}{ending}", partial(side_by_side, picture, output)))
    files.append((f"{RESTORED if aligned else FINAL}/{stem}{tail}{ending}", lambda: output))
    written = []
    for name, make in files:
        write_picture(make(), root / name, quality=options.quality, png_level=options.png_level, below=root)
        written.append((name, (root / name).stat().st_size))
    return written


def is_stale(name: str, stem: str, options: OutputOptions, ending: str, kept: Collection[str]) -> bool:
    """Whether an earlier result is one that a run with these options would write, under this very name.

    Results with another suffix or ending are not, and a face's crop as it was before is not as long as an earlier
    result of this face is kept.

    Args:
        name: of the earlier result, below the output folder.
        stem: the input's name, which its results begin with.
        options: the run's.
        ending: of the final picture.
        kept: the names of all earlier results of the input.
    """
    folder, _, rest = name.partition("/")
    if folder not in OUR_FOLDERS or not rest.startswith(stem):
        return False
    rest = rest[len(stem) :]
    tail = f"_{options.suffix}" if options.suffix else ""
    if folder == CROPPED:
        found = re.fullmatch(r"(_\d{2,})\.png", rest)
        own = re.compile(re.escape(f"{RESTORED}/{stem}{found[1]}") + r"(_.*)?\.png") if found else None
        others = [one for one in kept if own and own.fullmatch(one) and not is_stale(one, stem, options, ending, ())]
        return found is not None and not others
    if folder == RESTORED and re.fullmatch(r"_\d{2,}" + re.escape(tail) + r"\.png", rest):
        return True
    return rest == tail + ending


def expected_names(stem: str, ending: str, options: OutputOptions, *, aligned: bool) -> list[str]:
    """Return the names that :func:`write_outputs` will use, the final picture's first; ``NN`` is a face's number."""
    tail = f"_{options.suffix}" if options.suffix else ""
    names = [f"{RESTORED if aligned else FINAL}/{stem}{tail}{ending}"]
    if options.compare:
        names.append(f"{COMPARE}/{stem}{tail}{ending}")
    if not aligned and not options.only_final:
        names += [f"{RESTORED}/{stem}_NN{tail}.png", f"{CROPPED}/{stem}_NN.png"]
    return names


def final_ending(ext: str, picture: Picture) -> str:
    """Return the ending of the final picture, with its dot.

    ``same`` is the input's, or .png where that cannot be written.

    A stereo picture (.mpo), which is JPEG, gives .jpg.
    """
    return ending_of(ext, picture.path, picture.format)


def ending_of(ext: str, path: Path | None, kind: str | None) -> str:
    """Return :func:`final_ending` of a picture from this file, in this format."""
    if ext != "same":
        return f".{ext}"
    own = path.suffix.lower() if path else ""
    if own in WRITABLE_SUFFIXES:
        return own
    return ".jpg" if kind == "JPEG" else ".png"


def side_by_side(before: Picture, after: Picture) -> Picture:
    """Return the input, at the output's size, left of the output."""
    height, width = after.rgb.shape[:2]
    if (before.icc, before.cicp) != (after.icc, after.cicp):
        before = as_srgb(before)
    left = before.rgb
    if left.dtype != after.rgb.dtype:
        left = to_uint16(left)
    if left.shape[:2] != (height, width):
        left = cv2.resize(left, (width, height), interpolation=cv2.INTER_CUBIC)
    alpha = None
    if after.alpha is not None:
        old = after.alpha if before.alpha is None else before.alpha
        old = cv2.resize(old, (width, height), interpolation=cv2.INTER_LINEAR)
        alpha = np.concatenate([old.astype(after.alpha.dtype), after.alpha], axis=1)
    both = np.concatenate([left, after.rgb], axis=1)  # without what the file says of one of them, such as its size
    return Picture(both, alpha, icc=after.icc, cicp=after.cicp, grey=after.grey, format=after.format)
