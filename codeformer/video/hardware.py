"""Encoders of graphics cards and processors, by FFmpeg's names: their settings, and what they need to be here.

What a card's encoder makes is not the same on another card, so nothing here is a default.
"""

from __future__ import annotations

from collections.abc import Mapping

#: By the ending of an encoder's name: what it needs.
_NEEDS: Mapping[str, str] = {
    "nvenc": "an NVIDIA card that encodes, with its driver",
    "videotoolbox": "macOS",
    "qsv": "an Intel graphics processor, with its driver",
    "amf": "an AMD card, with its driver",
    "vaapi": "a VA-API device",
    "mf": "Windows",
}
# A quality near that of x264 at CRF 16 to 18, and the setting that holds it; smaller is better for all of them
_QUALITY = {"nvenc": ("cq", 19), "qsv": ("global_quality", 18), "amf": ("qp_i", 18)}
_PRESET = {"nvenc": "p6", "qsv": "slow"}
_VIDEOTOOLBOX = 65  # of 100, greater is better


def kind_of(encoder: str) -> str | None:
    """Return which hardware an encoder runs on (nvenc, videotoolbox, qsv...); None for one in software."""
    ending = encoder.rpartition("_")[2]
    return ending if "_" in encoder and ending in _NEEDS else None


def needs(encoder: str) -> str:
    """Return what an encoder's hardware is."""
    return _NEEDS[kind_of(encoder) or ""]


def software(encoder: str) -> str:
    """Return the ``--codec`` that makes the same kind of film without the hardware."""
    return encoder.partition("_")[0]


def settings(encoder: str, crf: int | None, preset: str | None) -> dict[str, str] | None:
    """Return the options for a quality and a speed; None where a setting was asked for that the encoder has not.

    Args:
        encoder: one for which :func:`kind_of` names the hardware.
        crf: ``--crf``; None for the usual quality.
        preset: ``--preset``; None for the usual speed.
    """
    kind = kind_of(encoder) or ""
    if kind == "videotoolbox" and crf is None and preset is None:
        return {"q:v": str(_VIDEOTOOLBOX)}
    if (crf is not None and kind not in _QUALITY) or (preset is not None and kind not in _PRESET):
        return None
    options = {}
    if kind in _QUALITY:
        name, usual = _QUALITY[kind]
        options[name] = str(usual if crf is None else crf)
    if kind == "nvenc":
        options |= {"rc": "vbr", "b": "0"}
    if kind == "amf":
        options |= {"rc": "cqp", "qp_p": options["qp_i"]}
    if kind in _PRESET:
        options["preset"] = preset or _PRESET[kind]
    return options


def pixel_format(offered: list[str], bits: int, encoder: str) -> str | None:
    """Return the format to hand to the encoder: 10 bits for HEVC and AV1 if the film has them; None if it offers none.

    Formats of frames that lie on the card (cuda, qsv...) are passed over.
    """
    deep = ("p010le", "yuv420p10le") if bits > 8 and not encoder.startswith("h264") else ()
    return next((name for name in (*deep, "yuv420p", "nv12") if name in offered), None)
