"""Encoders of graphics cards: their settings, and a clear refusal where the card is not there."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from codeformer.errors import UsageError
from codeformer.video import hardware
from codeformer.video.encoding import check_encoding, is_hevc, plan_encoding
from codeformer.video.source import FilmInfo

INFO = FilmInfo(Path("a.mp4"), 160, 120, Fraction(1, 25), Fraction(25), 1, Fraction(1, 25))
_HERE = av.codecs_available


def test_which_encoders_are_hardware() -> None:
    names = ("h264_nvenc", "hevc_videotoolbox", "av1_qsv", "libx264", "prores_ks", "libsvtav1", "nvenc")
    kinds = ["nvenc", "videotoolbox", "qsv", None, None, None, None]
    assert [hardware.kind_of(name) for name in names] == kinds
    assert hardware.software("hevc_nvenc") == "hevc"
    assert [is_hevc(name) for name in ("hevc_nvenc", "libx265", "h264_nvenc")] == [True, True, False]


def test_settings_become_the_encoders_own() -> None:
    assert hardware.settings("hevc_nvenc", 24, "p2") == {"cq": "24", "rc": "vbr", "b": "0", "preset": "p2"}
    assert hardware.settings("hevc_qsv", None, None) == {"global_quality": "18", "preset": "slow"}
    assert hardware.settings("hevc_videotoolbox", 20, None) is None
    assert hardware.settings("h264_amf", None, "fast") is None


def test_ten_bits_go_to_hevc_and_never_frames_on_the_card() -> None:
    offered = ["cuda", "qsv", "nv12", "p010le"]
    assert hardware.pixel_format(offered, 10, "hevc_nvenc") == "p010le"
    assert hardware.pixel_format(offered, 10, "h264_nvenc") == "nv12"
    assert hardware.pixel_format(["cuda"], 8, "h264_nvenc") is None


def test_what_the_wheel_has_not_is_refused_with_a_way_out() -> None:
    with pytest.raises(UsageError, match=r"hevc_mf: this PyAV has no such encoder; it needs Windows: use --codec hevc"):
        plan_encoding(INFO, ".mp4", codec="hevc_mf")
    with pytest.raises(UsageError, match="no such encoder; use h264"):
        plan_encoding(INFO, ".mp4", codec="h267")


@pytest.mark.skipif("h264_nvenc" not in _HERE, reason="this PyAV has no NVENC")
def test_without_the_card_one_line_says_so() -> None:
    encoding = plan_encoding(INFO, ".mp4", codec="h264_nvenc", crf=20)
    assert (encoding.pix_fmt, dict(encoding.options)["cq"]) == ("yuv420p", "20")
    try:
        check_encoding(encoding, "mp4")
    except UsageError as error:
        assert "it needs an NVIDIA card that encodes" in str(error)
        assert "use --codec h264" in str(error)
        assert "\n" not in str(error)
