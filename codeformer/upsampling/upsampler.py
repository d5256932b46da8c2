"""Upsampling of the picture around the faces, and of restored faces that are shown larger than their crop."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from codeformer.arrays import Crop, Matrix, Pixels, Rgb, Samples
from codeformer.device import (
    dtype_of,
    halved_until_it_fits,
    pick_device,
    pick_precision,
    whole_floats,
    within_memory,
)
from codeformer.environment import memory
from codeformer.errors import RestorationError, UsageError
from codeformer.faces.align import crop_scaled, mean_scale
from codeformer.images.alpha import visible
from codeformer.images.colour import to_grey
from codeformer.images.picture import Picture, replace_rgb, to_uint8, to_uint16
from codeformer.images.space import Space, in_space, in_srgb
from codeformer.upsampling.networks import Network, find_realesrgan, load_descriptor, prepare
from codeformer.upsampling.tiles import resized_rows, spans, upsampled_rows

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

_log = logging.getLogger("codeformer")

TileSize = int | Literal["auto"] | None

_RAMP = 16  # pixels over which two tiles are mixed
_EDGE = 8  # reflection around the picture: zero padding would darken the frame
_SMALLEST_TILE = 32
_LARGEST_TILE = 1024
# What a tile takes in an RRDBNet in fp32: the process grew by 2500 and 4800 with tiles of 384 and 256 pixels
_BYTES_PER_PIXEL = 4_000
_WORTH_IT = 1.05  # a face shown smaller than this many times its crop gains nothing


class Upsampler:
    """A super-resolution network on a device. Deterministic for the same input on the same machine.

    ``scale`` is the network's own factor; a call takes any other by Lanczos. Not for several threads at once: a tile
    size that had to shrink is kept for later calls.
    """

    def __init__(
        self,
        model: ImageModelDescriptor[Any],
        *,
        device: str = "auto",
        precision: str = "auto",
        tile: TileSize = "auto",
        name: str = "the network",
    ) -> None:
        """Make the network ready on its device.

        Args:
            model: from ``load_descriptor``, used once.
            device: auto, cpu, cuda, cuda:N or mps.
            precision: auto, fp32, bf16 or fp16.
            tile: pixels of the picture along a tile's side; auto or None by the memory; 0 for no tiles.
            name: what messages call the network.

        Raises:
            UsageError: a device, precision or tile that does not exist.
            OutOfMemoryError: the network alone is too much.
        """
        self.name = name
        self.device = pick_device(device)
        self._network = within_memory(
            lambda: prepare(model, self.device), f"upsampling: {name} does not fit into the memory of {self.device}"
        )
        self.scale = self._network.scale
        self.precision = _choose_precision(precision, self.device, self._network)
        self._deep_precision = "fp32" if precision == "auto" else self.precision
        self.tile = _choose_tile(tile, self.device)  # 0: the whole picture

    def __call__(
        self, rgb: Pixels | Samples, outscale: float | None = None, alpha: Pixels | None = None
    ) -> NDArray[Any]:
        """Return the picture enlarged by ``outscale`` (None: by the network's own factor).

        ``rgb``: (H, W, 3) uint8, uint16, or float32 in [0, 1], not empty. Returns (H', W', 3) of the same dtype, with
        H' = round(H * outscale); with ``alpha`` (H, W) of rgb's dtype, (H', W', 4). 16-bit pictures are computed in
        fp32 unless a precision was asked for: half precision would leave them fewer levels than they have.

        Raises OutOfMemoryError when even the smallest tile does not fit, RestorationError for an output with NaN.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
            raise ValueError(f"rgb must be (H, W, 3) and not empty, not {rgb.shape}")
        if alpha is not None and (alpha.shape != rgb.shape[:2] or alpha.dtype != rgb.dtype):
            raise ValueError("alpha must have the height, width and dtype of rgb")
        factor = float(self.scale) if outscale is None else float(outscale)
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(f"outscale must be a positive number, not {outscale}")
        wanted = (max(1, round(rgb.shape[0] * factor)), max(1, round(rgb.shape[1] * factor)))
        out = self._enlarge(rgb, wanted)
        if alpha is None:
            return out
        opacity = self._enlarge(np.repeat(alpha[..., None], 3, axis=2), wanted)
        return np.concatenate([out, opacity[..., 1:2]], axis=2)  # its channels differ by the network's noise alone

    def _enlarge(self, pixels: Pixels | Samples, wanted: tuple[int, int]) -> NDArray[Any]:
        """(H, W, 3) -> (*wanted, 3) of the same dtype, in smaller tiles if memory runs out."""
        whole = max(pixels.shape[:2]) + 2 * max(_EDGE, self._network.multiple) + self._network.multiple

        def shrunk(tile: int, smaller: int) -> None:
            _log.warning("upsampling: out of memory with tiles of %d pixels; going on with %d", tile, smaller)
            self.tile = smaller

        result, _ = halved_until_it_fits(
            lambda tile: self._enlarge_in_tiles(pixels, wanted, tile),
            min(self.tile or whole, whole),
            self.device,
            lambda tile: (
                f"upsampling: a tile of {tile} pixels does not fit into the memory of {self.device}; "
                "try --device cpu, or close other programs"
            ),
            least=_SMALLEST_TILE,
            shrunk=shrunk,
        )
        return result

    def _enlarge_in_tiles(self, pixels: Pixels | Samples, wanted: tuple[int, int], tile: int) -> NDArray[Any]:
        height, width = pixels.shape[:2]
        net = self._network
        rows, columns = (
            spans(n, tile, overlap=2 * net.context, ramp=_RAMP, edge=_EDGE, multiple=net.multiple)
            for n in (height, width)
        )
        precision = self._deep_precision if pixels.dtype == np.uint16 else self.precision
        strips = upsampled_rows(pixels, rows, columns, self.scale, lambda piece: self._run(piece, precision))
        out = np.empty((*wanted, 3), pixels.dtype)
        top = np.float32(np.iinfo(out.dtype).max) if np.issubdtype(out.dtype, np.integer) else None
        done = 0
        for strip in resized_rows(strips, (height * self.scale, width * self.scale), wanted):
            levels = np.clip(strip, 0.0, 1.0)
            out[done : done + len(strip)] = levels if top is None else np.rint(levels * top)
            done += len(strip)
        return out

    def _run(self, piece: Samples, precision: str) -> Samples:
        """One tile, (h, w, 3) float32 in [0, 1] -> (h * scale, w * scale, 3); again in fp32 if half precision fails."""
        if (piece == piece[:1, :1]).all():  # one colour, as most of an alpha channel: exact, and nothing to invent
            return np.broadcast_to(piece[0, 0], (piece.shape[0] * self.scale, piece.shape[1] * self.scale, 3))
        out = self._forward(piece, precision)
        if precision != "fp32" and not np.isfinite(out).all():
            out = self._forward(piece, "fp32")
        if not np.isfinite(out).all():
            raise RestorationError(f"upsampling: the output of {self.name} is not finite; its file may be damaged")
        return out

    def _forward(self, piece: Samples, precision: str) -> Samples:
        with torch.inference_mode():
            x = torch.from_numpy(piece).permute(2, 0, 1)[None].to(self.device)  # (1, 3, h, w), channels last in memory
            with (
                whole_floats(self.device),  # with half precision the first and the last layer compute in fp32, too
                torch.autocast(self.device.type, dtype_of(precision), enabled=precision != "fp32"),
            ):
                y = self._network.forward(x)
            return y[0].permute(1, 2, 0).float().clamp(0, 1).contiguous().cpu().numpy()


def make_upsampler(
    name_or_path: str | Path = "realesrgan",
    *,
    scale: float,
    device: str = "auto",
    precision: str = "auto",
    tile: TileSize = "auto",
    weights_dir: Path | None = None,
) -> Upsampler:
    """Return the upsampler for ``--bg_upsampler``: ``realesrgan``, or a file.

    ``scale`` is the enlargement that is wanted.

    ``tile``: pixels of the picture along a tile's side, at least 32; ``auto`` or None by the memory; 0: no tiles.
    Raises WeightsError (none is there, or the file is not a super-resolution network) and UsageError.
    """
    source = find_realesrgan(scale, weights_dir) if str(name_or_path) == "realesrgan" else Path(name_or_path)
    model = load_descriptor(source, weights_dir)
    return Upsampler(model, device=device, precision=precision, tile=tile, name=source.name)


def upsample_picture(picture: Picture, upsampler: Upsampler, outscale: float) -> Picture:
    """Return a whole picture enlarged: depth, colour space, alpha and metadata stay, and a grey picture stays grey.

    The network gets sRGB. What sRGB cannot hold of the picture's colours is enlarged by Lanczos.
    """
    seen, space, dtype = visible(picture), picture.space, picture.rgb.dtype.type
    alpha = picture.alpha
    if space is None:
        pixels = upsampler(seen, outscale, alpha)
    else:
        pixels = upsampler(in_srgb(seen, space), outscale, None if alpha is None else to_uint16(alpha))
    rgb = pixels[..., :3]
    if alpha is not None:
        alpha = pixels[..., 3] if pixels.dtype == dtype else to_uint8(np.ascontiguousarray(pixels[..., 3]))
    if space is not None:
        rgb = _with_rest(seen, in_space(rgb, space, dtype), space)
    if picture.grey:  # the network's noise is coloured
        mean = np.rint(rgb.mean(axis=2, dtype=np.float32)).astype(rgb.dtype)
        rgb = np.repeat(mean[..., None], 3, axis=2)
    return replace_rgb(picture, np.ascontiguousarray(rgb), None if alpha is None else np.ascontiguousarray(alpha))


def _with_rest(before: Rgb, after: Rgb, space: Space) -> Rgb:
    """Return the enlarged picture with the colours that sRGB could not hold, in the picture's own space."""
    rest = before.astype(np.float32) - in_space(in_srgb(before, space), space, before.dtype.type)
    top = np.iinfo(after.dtype).max
    if np.abs(rest).max() <= 2 * top / 255:  # rounding
        return after
    large = cv2.resize(rest, (after.shape[1], after.shape[0]), interpolation=cv2.INTER_LANCZOS4)
    return np.rint(np.clip(after + large, 0, top)).astype(after.dtype)


def upsample_faces(
    crops: Sequence[Crop], matrices: Sequence[Matrix], upsampler: Upsampler
) -> tuple[list[Crop], list[Matrix], list[str]]:
    """Restored crops made larger where the output shows them larger than they are: (crops, matrices, notes).

    ``crops``: (S, S, 3) float32 RGB in [0, 1]. ``matrices``: (2, 3), *output* picture -> crop (``align.scaled`` of the
    input's). A crop grows by the whole factor that the output shows it at, at most by the upsampler's own; its matrix
    grows with it. Other crops are returned as they are. The result goes to ``paste_faces`` with the masks unchanged.
    """
    large, maps, skipped = list(crops), list(matrices), 0
    for index, (crop, per_pixel) in enumerate(zip(crops, mean_scale(matrices), strict=True)):
        shown = 1 / per_pixel  # output pixels per crop pixel
        if shown < _WORTH_IT:
            skipped += 1
            continue
        factor = min(upsampler.scale, math.ceil(shown - 0.05))
        large[index] = upsampler(crop, factor)
        if (crop == crop[..., :1]).all():  # as in upsample_picture: a grey face stays grey
            large[index] = to_grey(large[index])
        maps[index] = crop_scaled(matrices[index], factor)
    count = f"{skipped} of {len(crops)} faces"
    notes = [f"--face_upsample adds nothing to {count}: the output shows them no larger than their crop"]
    return large, maps, notes if skipped else []


def _choose_precision(precision: str, device: torch.device, network: Network) -> str:
    chosen = pick_precision(precision, device)
    if precision == "auto":
        if device.type == "cpu":  # bf16 is 1.7 times faster, but its rounding, unlike a tile's seam, reaches 8 of 255
            return "fp32"
        if device.type == "cuda" and chosen == "bf16" and "fp16" in network.precisions:
            return "fp16"  # as fast, with three more bits; where it overflows the tile is computed again in fp32
        return chosen if chosen in network.precisions else "fp32"
    if chosen not in network.precisions:
        name = network.descriptor.architecture.name
        raise UsageError(f"--precision {precision}: the upsampler's {name} does not work in it; use fp32")
    return chosen


def _choose_tile(tile: TileSize, device: torch.device) -> int:
    """Return the side of a tile in pixels of the picture; 0 means no tiles."""
    if tile == "auto" or tile is None:
        # By all of the memory, not by what is free now: the same picture must give the same bytes every time
        on_gpu = device.type == "cuda"
        budget = torch.cuda.get_device_properties(device).total_memory // 3 if on_gpu else memory() // 10
        return min(_LARGEST_TILE, max(256, math.isqrt(budget // _BYTES_PER_PIXEL) // 64 * 64))
    if tile != 0 and tile < _SMALLEST_TILE:
        raise UsageError(f"a tile must be auto, 0 (no tiles) or at least {_SMALLEST_TILE} pixels, not {tile}")
    return tile
