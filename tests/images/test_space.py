"""Networks get sRGB, and what they give goes back into the picture's own colours, in all its bits."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms

from codeformer.errors import LossWarning
from codeformer.images.picture import Picture, as_srgb, encode_picture, read_picture, to_uint16, write_picture
from codeformer.images.png import chunk
from codeformer.images.profile import made_of, to_xyz
from codeformer.images.space import in_space, in_srgb, space_in

D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
PROFILES = {
    "ProPhoto": made_of("wide", (1.8,), to_xyz((0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), D50)),
    "Adobe": made_of("adobe", (563 / 256,), to_xyz((0.64, 0.33, 0.21, 0.71, 0.15, 0.06), D65)),
    "P3": made_of("p3", SRGB_CURVE, to_xyz((0.68, 0.32, 0.265, 0.69, 0.15, 0.06), D65)),
    "linear": made_of("linear", (1.0,), to_xyz((0.64, 0.33, 0.30, 0.60, 0.15, 0.06), D65)),
}
SRGB = ImageCms.createProfile("sRGB")


def noise(height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_littlecms(rgb: np.ndarray, source: object, target: object) -> np.ndarray:
    return np.asarray(ImageCms.profileToProfile(Image.fromarray(rgb), source, target, renderingIntent=1), int)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PROFILES)
def test_it_agrees_with_littlecms(name: str) -> None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(PROFILES[name]))
    space = space_in(PROFILES[name])
    assert space is not None
    rgb = noise()
    assert np.abs(in_srgb(rgb, space, np.uint8).astype(int) - by_littlecms(rgb, profile, SRGB)).max() <= 2
    back = np.abs(in_space(rgb, space, np.uint8).astype(int) - by_littlecms(rgb, SRGB, profile))
    assert back.mean() < 0.3 and back.max() <= 2


def test_srgb_under_any_name_is_left_alone() -> None:
    ours = made_of("srgb", SRGB_CURVE, to_xyz((0.64, 0.33, 0.30, 0.60, 0.15, 0.06), D65))
    for icc in (None, ImageCms.ImageCmsProfile(SRGB).tobytes(), ours, b"rubbish", PROFILES["P3"][:300]):
        assert space_in(icc) is None
    picture = Picture(noise(), icc=ours)
    assert as_srgb(picture).rgb is picture.rgb and as_srgb(Picture(noise())).icc is None


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.uint16, (5, 7, 3)), st.sampled_from(sorted(PROFILES)))
def test_sixteen_bits_come_back(rgb: np.ndarray, name: str) -> None:
    """All of sRGB lies in these spaces, so the way there and back gives the same picture."""
    space = space_in(PROFILES[name])
    assert space is not None
    there = in_space(rgb, space, np.uint16)
    again = in_srgb(there, space)
    # One level of a bright channel is several of a dark one: less than half of what 8 bits can tell apart
    assert np.abs(again.astype(int) - rgb).max() < 128
    neutral = np.repeat(rgb[..., :1], 3, axis=2)
    grey = in_space(neutral, space, np.uint16).astype(int)
    assert (grey.max(axis=2) - grey.min(axis=2)).max() <= 130, "grey is grey in every space, to 0.2 %"


def test_a_grey_profile_is_a_curve() -> None:
    icc = made_of("dot gain", (1.75,), None)
    space = space_in(icc)
    assert space is not None
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    light = (np.arange(256) / 255) ** 1.75
    expected = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(in_srgb(levels, space)[:, 0, 0] / 65535 - expected).max() < 1e-4


def test_a_grey_picture_that_gets_colours_is_converted(tmp_path: Path) -> None:
    grey = np.repeat(noise()[..., :1], 3, axis=2)
    coloured = grey.copy()
    coloured[:10, :10, 0] = 255
    icc = made_of("dark", (3.0,), None)
    space = space_in(icc)
    assert space is not None
    write_picture(Picture(grey, grey=True, icc=icc), tmp_path / "grey.png")
    assert read_picture(tmp_path / "grey.png").icc == icc
    write_picture(Picture(coloured, grey=True, icc=icc), tmp_path / "x.png")
    back = read_picture(tmp_path / "x.png")
    assert back.icc is None
    np.testing.assert_array_equal(back.rgb, in_srgb(coloured, space, np.uint8))


def test_bmp_has_no_profile_and_gets_srgb(tmp_path: Path) -> None:
    space = space_in(PROFILES["ProPhoto"])
    assert space is not None
    with pytest.warns(LossWarning, match="converted to sRGB"):
        write_picture(Picture(noise(), icc=PROFILES["ProPhoto"]), tmp_path / "x.bmp")
    np.testing.assert_array_equal(read_picture(tmp_path / "x.bmp").rgb, in_srgb(noise(), space, np.uint8))


def png_with(*chunks: tuple[bytes, bytes], deep: bool = False, grey: bool = False) -> bytes:
    rgb = np.repeat(noise()[..., :1], 3, axis=2) if grey else noise()
    data = encode_picture(Picture(to_uint16(rgb) if deep else rgb, grey=grey), "PNG")
    return data[:33] + b"".join(chunk(kind, body) for kind, body in chunks) + data[33:]


GAMMA_18 = (b"gAMA", struct.pack(">I", 55556))
P3_CHRM = (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ((GAMMA_18, P3_CHRM), made_of("x", (1.8,), to_xyz((0.68, 0.32, 0.265, 0.69, 0.15, 0.06), D65))),
        ((P3_CHRM,), PROFILES["P3"]),
        (((b"gAMA", struct.pack(">I", 100000)),), PROFILES["linear"]),
        (((b"cICP", b"\x0c\x0d\x00\x01"),), PROFILES["P3"]),
        ((GAMMA_18, (b"cICP", b"\x0c\x0d\x00\x01")), PROFILES["P3"]),
        (((b"gAMA", struct.pack(">I", 45455)),), None),
        ((GAMMA_18, (b"sRGB", b"\0")), None),
        (((b"cICP", b"\x01\x0d\x00\x01"),), None),
    ],
)
def test_what_png_says_of_its_colours(
    tmp_path: Path, chunks: tuple[tuple[bytes, bytes], ...], expected: bytes | None, deep: bool
) -> None:
    (tmp_path / "x.png").write_bytes(png_with(*chunks, deep=deep))
    picture = read_picture(tmp_path / "x.png")
    assert not picture.warnings
    space = space_in(expected)
    if space is None:
        assert picture.icc is None
        return
    assert picture.space is not None
    values = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    assert np.abs(picture.space.to_srgb(values) - space.to_srgb(values)).max() < 2e-3
    for suffix in (".png", ".jpg", ".tif"):  # and other programs see it
        write_picture(picture, tmp_path / f"y{suffix}")
        with Image.open(tmp_path / f"y{suffix}") as image:
            assert "icc_profile" in image.info
            ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))


def test_a_grey_png_with_gamma_stays_grey(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png_with(GAMMA_18, grey=True))
    picture = read_picture(tmp_path / "x.png")
    assert picture.grey and picture.icc is not None and picture.space is not None
    write_picture(picture, tmp_path / "y.png")
    with Image.open(tmp_path / "y.png") as image:
        assert image.mode == "L" and image.info["icc_profile"] == picture.icc


def test_hdr_stays_hdr_in_png_and_becomes_srgb_elsewhere(tmp_path: Path) -> None:
    code = b"\x09\x10\x00\x01"  # BT.2020, PQ
    (tmp_path / "x.png").write_bytes(png_with((b"cICP", code), deep=True))
    picture = read_picture(tmp_path / "x.png")
    assert picture.cicp == code and picture.space is not None and "HDR" in picture.warnings[0]
    white = picture.space.to_srgb(np.full((1, 3), 0.5807, np.float32))  # 203 cd/m2
    np.testing.assert_allclose(white, 1, atol=5e-3)
    write_picture(picture, tmp_path / "y.png")
    assert (b"cICP" + code) in (tmp_path / "y.png").read_bytes()
    np.testing.assert_array_equal(read_picture(tmp_path / "y.png").rgb, picture.rgb)
    with pytest.warns(LossWarning, match="HDR"):
        write_picture(picture, tmp_path / "y.jpg", quality=100)
    expected = in_srgb(picture.rgb, picture.space, np.uint8)
    assert np.abs(read_picture(tmp_path / "y.jpg").rgb.astype(int) - expected).mean() < 3


def table_profile() -> bytes:
    """An RGB profile of a table alone, as scanners have: red, green and blue to XYZ in a cube of two steps a side."""
    matrix = np.array([[0.43, 0.38, 0.14], [0.22, 0.71, 0.06], [0.01, 0.10, 0.71]])
    corners = np.array([[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)])
    cube = np.clip(np.rint((corners @ matrix.T) * 32768), 0, 65535).astype(">u2").tobytes()
    ramp = struct.pack(">2H", 0, 65535) * 3
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft2" + struct.pack(">4xBBBB", 3, 3, 2, 0) + identity + struct.pack(">HH", 2, 2) + ramp + cube + ramp
    plain = bytearray(made_of("x", (1.0,), None))
    tags = {b"A2B0": table, b"wtpt": b"XYZ " + struct.pack(">4x3i", 63190, 65536, 54061)}
    head, body = b"", b""
    for name, value in tags.items():
        head += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(value))
        body += value + b"\0" * (-len(value) % 4)
    plain = plain[:128] + struct.pack(">I", len(tags)) + head + body
    plain[0:4] = struct.pack(">I", len(plain))
    plain[8:12] = b"\x02\x40\0\0"
    plain[12:20] = b"scnrRGB "
    return bytes(plain)


def test_a_profile_with_tables_is_converted_in_all_bits(tmp_path: Path) -> None:
    icc = table_profile()
    expected = by_littlecms(noise(), ImageCms.ImageCmsProfile(io.BytesIO(icc)), SRGB)
    for deep in (False, True):
        rgb = to_uint16(noise()) if deep else noise()
        write_picture(Picture(rgb, icc=icc), tmp_path / "x.png")
        picture = read_picture(tmp_path / "x.png")
        assert picture.icc is None and "converted to sRGB" in picture.warnings[0]
        assert picture.rgb.dtype == rgb.dtype
        off = np.abs(picture.rgb / (257 if deep else 1) - expected)
        assert off.mean() < 2 and off.max() < 30
    ramp = np.repeat(np.arange(0, 65536, 16, dtype=np.uint16)[None, :, None], 3, axis=2)
    write_picture(Picture(ramp, icc=icc), tmp_path / "x.png")
    assert len(np.unique(read_picture(tmp_path / "x.png").rgb)) > 3000, "16 bits stay 16 bits"
