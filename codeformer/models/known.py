"""Which networks a weights file may hold besides our own, by the names of its tensors. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from codeformer.errors import WeightsError

#: Face restorers that ``--model`` takes beside CodeFormer, and tensors that each of their files has.
FACE_RESTORERS: dict[str, frozenset[str]] = {
    "GFPGAN": frozenset({"toRGB.0.weight", "stylegan_decoder.style_mlp.1.weight", "final_linear.weight"}),
    "RestoreFormer": frozenset(
        {
            *("quantize.embedding.weight", "quant_conv.weight", "encoder.conv_in.weight", "encoder.conv_out.weight"),
            *("encoder.down.0.block.0.norm1.weight", "decoder.conv_out.weight"),
        }
    ),
}


def face_restorer_in(names: Collection[str]) -> str | None:
    """Return which of the face restorers of other projects has tensors of these names, or None."""
    have = set(names)
    return next((one for one, needed in FACE_RESTORERS.items() if needed <= have), None)


def note_on(architecture: str) -> str:
    """Return what the user should know of a face restorer that has no fidelity weight."""
    return f"{architecture} has no fidelity weight: -w changes nothing; --strength blends its faces with the input"


def refused(path: Path, names: Collection[str], error: WeightsError) -> WeightsError:
    """Return the error for a file that holds no face restorer, which says what it holds where spandrel knows that."""
    if find_spec("spandrel") is None:
        return error
    from spandrel import MAIN_REGISTRY

    state = dict.fromkeys(names)
    for one in MAIN_REGISTRY.architectures("detection"):
        with suppress(Exception):  # some look at the tensors, too
            if one.architecture.detect(state):
                return WeightsError(
                    f"{path}: holds {one.architecture.name}, which restores no faces: --model takes CodeFormer, "
                    f"{' or '.join(FACE_RESTORERS)}; for the rest of a picture give it as --bg_upsampler, or to "
                    "codeformer upscale --model"
                )
    return error
