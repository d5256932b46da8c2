"""The files of one result, with the original's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from codeformer.arrays import Where
from codeformer.images.picture import WRITABLE_SUFFIXES, Picture, as_srgb, to_uint16, write_noting
from codeformer.options import OutputOptions
from codeformer.pipeline.compose import as_picture
from codeformer.pipeline.pictures import Rendering, Result
from codeformer.run.inputs import COMPARE, CROPPED, FINAL, MASKS, OUR_FOLDERS, RESTORED


class Written(NamedTuple):
    """A file of a result.

    Attributes:
        name: its path below the output folder.
        size: its bytes.
        w: its fidelity weight, where there are several.
        lost: what its format cannot hold of the picture, as a line for the user.
    """

    name: str
    size: int
    w: float | None = None
    lost: str = ""


def write_outputs(result: Result[Any], stem: str, root: Path, options: OutputOptions) -> list[Written]:
    """Write everything that the options ask for, and return the files.

    ``final_results/NAME`` is the whole picture (for aligned crops ``restored_faces/NAME``), ``restored_faces/NAME_00``
    and ``cropped_faces/NAME_00`` are its faces, ``compare/NAME`` is before and after, ``masks/NAME.png`` is white where
    scratches were filled. With several fidelity weights names end in ``_w0.3``, and one comparison has them all. The
    final picture is written last, so that it stands for all of them. Raises OutputError.
    """
    picture, output = result.picture, result.output
    if picture is None or output is None:
        raise ValueError("a result with an error has nothing to write")
    renderings = result.by_weight or (Rendering(output, result.faces),)
    ending = final_ending(options.ext, picture)
    aligned = any(one.chosen and one.face is None for one in result.faces)
    # Pictures are made one at a time: memory holds one copy, not all
    files: list[tuple[str, float | None, Callable[[], Picture]]] = []
    if not aligned and not options.only_final:
        for rendering in renderings:
            for one in rendering.faces:
                if one.before is not None and one.after is not None:
                    crop = f"{stem}_{one.number - 1:02d}"
                    if rendering is renderings[0]:
                        files.append((f"{CROPPED}/{crop}.png", None, partial(as_picture, picture, one.before)))
                    name = f"{RESTORED}/{crop}{tail_of(options, rendering.w)}.png"
                    files.append((name, rendering.w, partial(as_picture, picture, one.after)))
    if result.damage is not None and not options.only_final:
        files.append((f"{MASKS}/{stem}{tail_of(options)}.png", None, partial(_as_mask, result.damage)))
    if options.compare:
        shown = [rendering.output for rendering in renderings]
        files.append((f"{COMPARE}/{stem}{tail_of(options)}{ending}", None, partial(side_by_side, picture, *shown)))
    for rendering in renderings:
        name = f"{RESTORED if aligned else FINAL}/{stem}{tail_of(options, rendering.w)}{ending}"
        files.append((name, rendering.w, partial(_itself, rendering.output)))
    written = []
    for name, w, make in files:
        lost = write_noting(make(), root / name, quality=options.quality, png_level=options.png_level, below=root)
        written.append(Written(name, (root / name).stat().st_size, w, lost))
    return written


def losses(files: Sequence[Written]) -> list[str]:
    """Return one line for each kind of loss: which files of a result do not hold all of it, and what they lack."""
    names: dict[str, list[str]] = {}
    for one in files:
        if one.lost:
            names.setdefault(one.lost, []).append(one.name)
    return [f"{', '.join(which)}: {lost}" for lost, which in names.items()]


def tail_of(options: OutputOptions, w: float | None = None) -> str:
    """Return what stands behind the input's name in a result's; ``w`` is its weight, where there are several."""
    return ("" if w is None else f"_w{w:g}") + (f"_{options.suffix}" if options.suffix else "")


def _itself(picture: Picture) -> Picture:
    return picture


def _tails(options: OutputOptions, weights: Sequence[float]) -> list[str]:
    return [tail_of(options, w) for w in weights] if len(weights) > 1 else [tail_of(options)]


def is_stale(
    name: str, stem: str, options: OutputOptions, ending: str, kept: Collection[str], weights: Sequence[float] = ()
) -> bool:
    """Whether an earlier result is one that a run with these options would write, under this very name.

    Results with another suffix or ending are not, and a face's crop as it was before is not as long as an earlier
    result of this face is kept.

    Args:
        name: of the earlier result, below the output folder.
        stem: the input's name, which its results begin with.
        options: the run's.
        ending: of the final picture.
        kept: the names of all earlier results of the input.
        weights: the run's fidelity weights.
    """
    folder, _, rest = name.partition("/")
    if folder not in OUR_FOLDERS or not rest.startswith(stem):
        return False
    rest = rest[len(stem) :]
    tails = _tails(options, weights)
    if folder == CROPPED:
        found = re.fullmatch(r"(_\d{2,})\.png", rest)
        own = re.compile(re.escape(f"{RESTORED}/{stem}{found[1]}") + r"(_.*)?\.png") if found else None
        others = [
            one for one in kept if own and own.fullmatch(one) and not is_stale(one, stem, options, ending, (), weights)
        ]
        return found is not None and not others
    if folder == MASKS:
        return rest == f"{tail_of(options)}.png"
    if folder == COMPARE:
        return rest == tail_of(options) + ending
    if folder == RESTORED and any(re.fullmatch(r"_\d{2,}" + re.escape(tail) + r"\.png", rest) for tail in tails):
        return True
    return rest in [tail + ending for tail in tails]


def expected_names(
    stem: str,
    ending: str,
    options: OutputOptions,
    weights: Sequence[float] = (),
    *,
    aligned: bool,
    scratches: bool = False,
) -> list[str]:
    """Return the names that :func:`write_outputs` will use, the final pictures' first; ``NN`` is a face's number."""
    tails = _tails(options, weights)
    names = [f"{RESTORED if aligned else FINAL}/{stem}{tail}{ending}" for tail in tails]
    if options.compare:
        names.append(f"{COMPARE}/{stem}{tail_of(options)}{ending}")
    if not aligned and not options.only_final:
        names += [*(f"{RESTORED}/{stem}_NN{tail}.png" for tail in tails), f"{CROPPED}/{stem}_NN.png"]
    if scratches and not options.only_final:
        names.append(f"{MASKS}/{stem}{tail_of(options)}.png")
    return names


def _as_mask(damage: Where) -> Picture:
    """Return damaged pixels as a picture, white where they are."""
    return Picture(np.repeat(damage[..., None].astype(np.uint8) * 255, 3, axis=2), grey=True)


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


def side_by_side(before: Picture, *outputs: Picture) -> Picture:
    """Return the input, at the outputs' size, left of the outputs, which have one size and colours."""
    after = outputs[0]
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
        alphas = [one.alpha for one in outputs if one.alpha is not None]
        alpha = np.concatenate([old.astype(after.alpha.dtype), *alphas], axis=1)
    both = np.concatenate([left, *(one.rgb for one in outputs)], axis=1)
    # Without what the file says of one of them, such as its size
    return Picture(both, alpha, icc=after.icc, cicp=after.cicp, grey=after.grey, format=after.format)
