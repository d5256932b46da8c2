"""Reading and writing pictures: what survives, what is refused and how, and that a write is all or nothing."""

from __future__ import annotations

import builtins
import io
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms, ImageDraw, ImageOps

from codeformer.errors import InputError, LossWarning, OutputError
from codeformer.images import exif as exif_blocks
from codeformer.images import formats, png
from codeformer.images.picture import (
    SUFFIXES,
    WRITABLE_SUFFIXES,
    Picture,
    encode_picture,
    read_picture,
    replace_rgb,
    to_uint8,
    to_uint16,
    write_atomic,
    write_picture,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PREFIX_LONG = "ü" * 125  # 250 bytes: with a suffix close to the 255 that a name may have


def grey_profile() -> bytes:
    """The header is what counts here: colour space GRAY, signature acsp."""
    body = bytearray(SRGB)
    body[16:20] = b"GRAY"
    return bytes(body)


def noise(height: int = 23, width: int = 31, dtype: Any = np.uint8, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype=dtype, endpoint=True)


def smooth(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=2).astype(np.uint8)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def skip_without(suffix: str) -> None:
    if suffix == ".avif" and not formats.available("AVIF"):
        pytest.skip("this Pillow has no AVIF")


def refusal(path: Path | str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_picture(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    return text


def raw_exif(order: str, orientation: int) -> bytes:
    """A block with orientation, artist, a private table with an offset, and a thumbnail table."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    artist = b"Ada Lovelace\0"
    first = 8
    end = first + 2 + 3 * 12 + 4
    thumbnail = end + len(artist)
    entries = struct.pack(order + "HHI", 0x0112, 3, 1) + struct.pack(order + "HH", orientation, 0)
    entries += struct.pack(order + "HHII", 0x013B, 2, len(artist), end)
    entries += struct.pack(order + "HHI4s", 0xC000, 7, 4, b"\1\2\3\4")
    table = struct.pack(order + "H", 3) + entries + struct.pack(order + "I", thumbnail)
    tail = struct.pack(order + "H", 1) + struct.pack(order + "HHI", 0x0112, 3, 1)
    tail += struct.pack(order + "HH", orientation, 0) + struct.pack(order + "I", 0)
    return mark + struct.pack(order + "I", first) + table + artist + tail


# --- round trips -------------------------------------------------------------------------------------------------

DTYPES = st.sampled_from([np.uint8, np.uint16])


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    dtype = draw(DTYPES)
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    grey = draw(st.booleans())
    rgb = draw(hnp.arrays(dtype, (height, width, 1 if grey else 3)))
    alpha = draw(st.none() | hnp.arrays(dtype, (height, width)))
    return Picture(
        np.repeat(rgb, 3, axis=2) if grey else rgb, alpha, grey=grey, icc=draw(st.sampled_from([None, SRGB]))
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(pictures(), st.sampled_from([".png", ".tif", ".tiff"]))
def test_png_and_tiff_keep_every_bit(tmp_path: Path, picture: Picture, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    write_picture(picture, path)
    back = read_picture(path)
    np.testing.assert_array_equal(back.rgb, picture.rgb)
    assert back.rgb.dtype == picture.rgb.dtype
    assert (back.alpha is None) == (picture.alpha is None)
    if picture.alpha is not None and back.alpha is not None:
        np.testing.assert_array_equal(back.alpha, picture.alpha)
    assert back.icc == picture.icc
    assert back.format == ("PNG" if suffix == ".png" else "TIFF")
    assert encode_picture(picture, back.format) == path.read_bytes(), "the same picture gives the same bytes"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(pictures())
def test_lossless_webp_and_bmp_keep_eight_bits(tmp_path: Path, picture: Picture) -> None:
    write_picture(picture, tmp_path / "x.webp", quality=100)
    back = read_picture(tmp_path / "x.webp")
    np.testing.assert_array_equal(back.rgb, to_uint8(picture.rgb))
    # Pillow leaves out a channel that is opaque everywhere.
    expected = None if picture.alpha is None else to_uint8(picture.alpha)
    if back.alpha is None:
        assert expected is None or (expected == 255).all()
    else:
        np.testing.assert_array_equal(back.alpha, expected)
    opaque = Picture(picture.rgb, grey=picture.grey)
    write_picture(opaque, tmp_path / "x.bmp")
    np.testing.assert_array_equal(read_picture(tmp_path / "x.bmp").rgb, to_uint8(picture.rgb))


@given(hnp.arrays(np.uint8, (3, 4)))
def test_eight_bits_survive_the_way_to_sixteen_and_back(pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(to_uint8(to_uint16(pixels)), pixels)
    assert to_uint16(np.array([0, 255], np.uint8)).tolist() == [0, 65535]


def test_sixteen_bits_are_rounded_to_the_nearest_of_eight() -> None:
    deep = np.array([0, 128, 129, 65535 - 129, 65535 - 128, 65535], np.uint16)
    assert to_uint8(deep).tolist() == [0, 0, 1, 254, 255, 255]


@pytest.mark.parametrize("suffix", sorted(WRITABLE_SUFFIXES - {".heic", ".heif"}))
def test_every_writable_suffix_writes_what_it_says(tmp_path: Path, suffix: str) -> None:
    skip_without(suffix)
    for picture in (
        Picture(smooth()),
        Picture(to_uint16(smooth()), to_uint16(smooth()[..., 0])),
        Picture(smooth(), grey=True),
    ):
        path = tmp_path / f"x{suffix}"
        write_picture(picture, path)
        back = read_picture(path)
        assert not back.warnings
        if picture.alpha is None:
            assert np.abs(to_uint8(back.rgb).astype(int) - to_uint8(picture.rgb)).max() < 16
    assert suffix in SUFFIXES


def test_heic_there_and_back(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    exif = exif_blocks.upright(raw_exif("<", 6))
    write_picture(Picture(smooth(), smooth()[..., 0], icc=SRGB, exif=exif), tmp_path / "x.heic")
    back = read_picture(tmp_path / "x.heic")
    assert back.format == "HEIF" and back.icc == SRGB and not back.warnings
    assert np.abs(back.rgb.astype(int) - smooth()).max() < 16
    assert back.alpha is not None and back.exif is not None and b"Ada Lovelace" in back.exif


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_without_the_extra_the_message_names_it(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_heif(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pillow_heif"):
            raise ImportError(name)
        return real_import(name, *rest, **more)

    Image.init()
    monkeypatch.delitem(Image.OPEN, kind, raising=False)
    monkeypatch.setattr(builtins, "__import__", no_heif)
    brand = b"heic" if kind == "HEIF" else b"avif"
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand + bytes(64))
    assert "pip install pillow-heif" in refusal(tmp_path / "x.heic")
    with pytest.raises(OutputError, match="pip install pillow-heif"):
        write_picture(Picture(smooth()), tmp_path / ("y.heic" if kind == "HEIF" else "y.avif"))


# --- what a file carries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_icc_and_exif_survive(tmp_path: Path, suffix: str, deep: bool) -> None:
    skip_without(suffix)
    exif = exif_blocks.upright(raw_exif("<", 6))
    rgb = to_uint16(smooth()) if deep else smooth()
    write_picture(Picture(rgb, icc=SRGB, exif=exif), tmp_path / f"x{suffix}")
    back = read_picture(tmp_path / f"x{suffix}")
    assert back.icc == SRGB
    assert back.exif is not None and b"Ada Lovelace" in back.exif
    assert back.rgb.shape == rgb.shape, "orientation 1 turns nothing"
    assert back.rgb.dtype == (np.uint16 if deep and suffix in (".png", ".tif") else np.uint8)
    with Image.open(tmp_path / f"x{suffix}") as image:  # and another program sees the same
        assert image.info["icc_profile"] == SRGB
        assert image.getexif()[0x013B] == "Ada Lovelace"
        assert image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_orientation_is_applied_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    skip_without(suffix)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {} if suffix in (".png", ".tif") else {"quality": 95}
    path = save(tmp_path / f"x{suffix}", Image.fromarray(smooth()), exif=exif, **options)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.rgb, expected)
    assert (picture.rgb.shape == smooth().shape) == (orientation < 5)
    write_picture(picture, tmp_path / "again.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "again.png").rgb, picture.rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_orientation_of_sixteen_bits(tmp_path: Path, suffix: str, orientation: int) -> None:
    """The same turn as Pillow makes of the same file in 8 bits."""
    path = tmp_path / f"x{suffix}"
    alpha = noise(seed=1)[..., 0]
    write_picture(Picture(to_uint16(noise()), to_uint16(alpha), exif=raw_exif("<", orientation)), path)
    if suffix == ".tif":  # the writer does not take the orientation: a TIFF says it in its own table
        data = path.read_bytes()
        table = struct.unpack_from("<I", data, 4)[0]
        # XResolution is not written, so the place of a tag that is: planar configuration (1, the default) becomes it
        entry = next(i for i in range(table + 2, len(data), 12) if struct.unpack_from("<H", data, i)[0] == 284)
        changed = bytearray(data)
        struct.pack_into("<HHIHH", changed, entry, 274, 3, 1, orientation, 0)
        path.write_bytes(changed)
    picture = read_picture(path)
    reference = Image.fromarray(np.dstack([noise(), alpha]))
    reference.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(reference))
    np.testing.assert_array_equal(to_uint8(picture.rgb), expected[..., :3])
    assert picture.alpha is not None
    np.testing.assert_array_equal(to_uint8(picture.alpha), expected[..., 3])


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_reset_in_place(order: str) -> None:
    block = raw_exif(order, 6)
    reset = exif_blocks.upright(b"Exif\0\0" + block)
    assert reset is not None and len(reset) == len(block)
    parsed = Image.Exif()
    parsed.load(reset)
    assert parsed[0x0112] == 1
    assert parsed[0x013B] == "Ada Lovelace"
    assert parsed[0xC000] == b"\1\2\3\4"
    assert not parsed.get_ifd(1), "no thumbnail of the unrestored picture"
    assert exif_blocks.upright(b"not EXIF at all") is None


@given(st.binary(max_size=80))
def test_damaged_exif_never_raises(junk: bytes) -> None:
    for block in (junk, b"II*\0" + junk, b"MM\0*" + junk):
        exif_blocks.upright(block)


def test_damaged_exif_does_not_spoil_the_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "x.jpg", Image.fromarray(smooth()), exif=b"Exif\0\0II*\0\xff\xff\xff\x7fjunk")
    assert read_picture(path).exif is None


def test_long_exif_is_left_out_of_jpeg_but_not_of_png(tmp_path: Path) -> None:
    picture = Picture(smooth(), exif=raw_exif("<", 1) + bytes(70000))
    with pytest.warns(LossWarning, match="EXIF"):
        write_picture(picture, tmp_path / "x.jpg")
    write_picture(picture, tmp_path / "x.png")
    assert read_picture(tmp_path / "x.jpg").exif is None
    assert read_picture(tmp_path / "x.png").exif == exif_blocks.upright(picture.exif or b"")


@settings(max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 9),
    channels=st.integers(1, 4),
    deep=st.booleans(),
    level=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_other_programs_read_the_png_files(
    height: int, width: int, channels: int, deep: bool, level: int, seed: int
) -> None:
    kind = np.uint16 if deep else np.uint8
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(kind).max + 1, (height, width, channels), kind)
    for rows, piece in ((256, 1 << 20), (7, 20)):  # in one band and in several, of one chunk and of several
        with pytest.MonkeyPatch.context() as changed:
            changed.setattr(png, "_ROWS", rows)
            changed.setattr(png, "_PIECE", piece)
            data = png.encode_png(pixels, None, None, level)
        if deep and channels != 2:
            back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            assert back.dtype == np.uint16
            back = back.reshape(height, width, -1)
            back = back[..., [2, 1, 0, 3][: back.shape[2]]] if channels > 2 else back
            np.testing.assert_array_equal(back, pixels)
        elif not deep:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                assert image.mode == ("L", "LA", "RGB", "RGBA")[channels - 1]
                np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("kind", ["photograph", "text", "checkerboard", "grey"])
def test_quick_png_files_are_hardly_larger_than_those_of_pillow(kind: str, astronaut: np.ndarray) -> None:
    """Packing by runs suits photographs; what repeats itself would be many times larger."""
    y, x = np.mgrid[0:400, 0:400]
    page = Image.new("L", (400, 400), 255)
    for line in range(0, 400, 14):
        ImageDraw.Draw(page).text((4, line), " ".join(f"{(line * 37 + n) ** 3:x}" for n in range(9)), fill=0)
    planes = {"text": np.asarray(page), "checkerboard": (x // 3 + y // 3) % 2 * 255, "grey": astronaut[..., 1]}
    pixels = astronaut if kind == "photograph" else np.repeat(planes[kind].astype(np.uint8)[..., None], 3, axis=2)
    theirs = io.BytesIO()
    Image.fromarray(pixels).save(theirs, "PNG", compress_level=2)
    assert len(png.encode_png(pixels, None, None, 2)) < 1.15 * len(theirs.getvalue())


@pytest.mark.parametrize("deep", [False, True])
def test_a_png_of_any_level_has_the_same_pixels(tmp_path: Path, deep: bool) -> None:
    rgb = to_uint16(smooth()) if deep else smooth()
    sizes = []
    for level in (0, 2, 9):
        write_picture(Picture(rgb), tmp_path / "x.png", png_level=level)
        np.testing.assert_array_equal(read_picture(tmp_path / "x.png").rgb, rgb)
        sizes.append((tmp_path / "x.png").stat().st_size)
    assert sizes[0] > sizes[1] >= sizes[2]


def test_grey_stays_one_channel_with_its_profile(tmp_path: Path) -> None:
    grey = np.repeat(smooth()[..., :1], 3, axis=2)
    for suffix in (".jpg", ".png", ".tif"):
        write_picture(Picture(grey, grey=True, icc=grey_profile()), tmp_path / f"x{suffix}")
        with Image.open(tmp_path / f"x{suffix}") as image:
            assert image.mode == "L"
        back = read_picture(tmp_path / f"x{suffix}")
        assert back.grey and back.icc == grey_profile() and not back.warnings


def test_a_grey_picture_that_got_colours_is_written_in_colour(tmp_path: Path) -> None:
    """As colorization makes it. A grey profile in a colour file would make readers refuse or ignore it."""
    write_picture(Picture(smooth(), grey=True, icc=grey_profile()), tmp_path / "x.png")
    back = read_picture(tmp_path / "x.png")
    assert not back.grey and back.icc is None
    np.testing.assert_array_equal(back.rgb, smooth())


def test_a_profile_for_other_colours_is_left_out_with_a_warning(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", Image.fromarray(smooth()), icc_profile=grey_profile())
    picture = read_picture(path)
    assert picture.icc is None and "ICC" in picture.warnings[0]
    path = save(tmp_path / "y.png", Image.fromarray(smooth()), icc_profile=b"rubbish")
    assert read_picture(path).icc is None


def test_alpha_is_flattened_onto_white_where_it_cannot_be_held(tmp_path: Path) -> None:
    rgb = np.zeros((16, 16, 3), np.uint16)
    alpha = np.full((16, 16), 65535 // 2, np.uint16)
    alpha[:, 8:] = 0
    for suffix in (".jpg", ".bmp"):
        write_picture(Picture(rgb, alpha), tmp_path / f"x{suffix}", quality=100)
        back = read_picture(tmp_path / f"x{suffix}")
        assert back.alpha is None
        assert abs(int(back.rgb[4, 3, 0]) - 128) <= 2 and back.rgb[4, 12].min() >= 253


def test_replace_rgb_takes_alpha_along() -> None:
    alpha = np.zeros((10, 20), np.uint8)
    alpha[:, 10:] = 255
    picture = Picture(np.zeros((10, 20, 3), np.uint8), alpha, icc=SRGB)
    larger = replace_rgb(picture, np.zeros((20, 40, 3), np.uint16))
    assert larger.icc == SRGB and larger.alpha is not None
    assert larger.alpha.shape == (20, 40) and larger.alpha.dtype == np.uint16
    assert (larger.alpha[:, :18] == 0).all() and (larger.alpha[:, 22:] == 65535).all()
    own = np.full((5, 6), 7, np.uint8)
    assert replace_rgb(picture, np.zeros((5, 6, 3), np.uint8), own).alpha is own


@pytest.mark.parametrize(
    ("rgb", "alpha"),
    [
        (np.zeros((4, 4), np.uint8), None),
        (np.zeros((4, 4, 4), np.uint8), None),
        (np.zeros((4, 4, 3), np.float32), None),
        (np.zeros((0, 4, 3), np.uint8), None),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16)),
    ],
)
def test_a_picture_checks_its_arrays(rgb: np.ndarray, alpha: np.ndarray | None) -> None:
    with pytest.raises(ValueError):
        Picture(rgb, alpha)


def test_high_quality_jpeg_keeps_the_colours_resolution(tmp_path: Path) -> None:
    for quality, sampling in ((95, (1, 1)), (90, (1, 1)), (80, (2, 2))):
        write_picture(Picture(smooth()), tmp_path / "x.jpg", quality=quality)
        with Image.open(tmp_path / "x.jpg") as image:
            assert image.layer[0][1:3] == sampling


# --- kinds of pixels ---------------------------------------------------------------------------------------------


def test_palette_one_bit_and_grey_with_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(smooth())
    palette = image.quantize(16)
    picture = read_picture(save(tmp_path / "p.png", palette))
    np.testing.assert_array_equal(picture.rgb, np.asarray(palette.convert("RGB")))
    assert picture.alpha is None and not picture.grey
    picture = read_picture(save(tmp_path / "pt.png", palette, transparency=3))
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha == 0, np.asarray(palette) == 3)
    picture = read_picture(save(tmp_path / "one.png", image.convert("1")))
    assert picture.grey and set(np.unique(picture.rgb)) == {0, 255}
    picture = read_picture(save(tmp_path / "la.png", image.convert("LA")))
    assert picture.grey and picture.alpha is not None
    picture = read_picture(save(tmp_path / "key.png", image, transparency=(0, 0, 0)))
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha == 0, (smooth() == 0).all(axis=2))


def test_one_transparent_colour_of_a_sixteen_bit_png(tmp_path: Path) -> None:
    rgb = to_uint16(noise())
    rgb[3, 4] = (1, 2, 65533)
    rgb[3, 5] = (1, 2, 65532)  # the same in 8 bits
    data = encode_picture(Picture(rgb), "PNG")
    body = struct.pack(">HHH", 1, 2, 65533)
    chunk = struct.pack(">I", 6) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))
    (tmp_path / "x.png").write_bytes(data[:33] + chunk + data[33:])
    picture = read_picture(tmp_path / "x.png")
    np.testing.assert_array_equal(picture.rgb, rgb)
    assert picture.alpha is not None
    assert np.argwhere(picture.alpha == 0).tolist() == [[3, 4]]


def test_sixteen_bit_files_of_another_program(tmp_path: Path) -> None:
    rgb = noise(dtype=np.uint16)
    for suffix in (".png", ".tif"):
        (tmp_path / f"x{suffix}").write_bytes(cv2.imencode(suffix, rgb[..., ::-1])[1].tobytes())
        np.testing.assert_array_equal(read_picture(tmp_path / f"x{suffix}").rgb, rgb)
        write_picture(Picture(rgb), tmp_path / f"y{suffix}")
        theirs = cv2.imdecode(np.fromfile(tmp_path / f"y{suffix}", np.uint8), cv2.IMREAD_UNCHANGED)
        assert theirs is not None
        np.testing.assert_array_equal(theirs[..., ::-1], rgb)


def test_cmyk_is_converted_with_a_warning(tmp_path: Path) -> None:
    path = save(tmp_path / "x.jpg", Image.fromarray(smooth()).convert("CMYK"), quality=95)
    picture = read_picture(path)
    assert "CMYK" in picture.warnings[0] and picture.icc is None
    assert np.abs(picture.rgb.astype(int) - smooth()).mean() < 6


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((20, 30, 3), value, np.uint8)) for value in (200, 100, 0)]
    for suffix in (".gif", ".webp", ".png", ".tif"):
        options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
        path = save(tmp_path / f"x{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
        picture = read_picture(path)
        assert (picture.rgb == 200).all()
        assert picture.warnings == ("has 3 frames or pages; only the first is used",)


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["женщина 写真 é.png", PREFIX_LONG + ".png", " leading and trailing .png", "-w.png", "a\nb.png"]
)
def test_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / ("深い" * 20) / ("x" * 200)
    write_picture(Picture(smooth()), folder / name)
    assert [entry.name for entry in folder.iterdir()] == [name], "and no temporary file"
    np.testing.assert_array_equal(read_picture(str(folder / name)).rgb, smooth())


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes only there")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png"))
    write_picture(Picture(smooth()), path)
    assert read_picture(path).rgb.shape == smooth().shape
    path.write_bytes(b"")
    assert "\\udcff\\udcfe.png: the file is empty" in refusal(path)


def test_a_mislabelled_picture_is_read_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(encode_picture(Picture(smooth()), "PNG"))
    picture = read_picture(path)
    assert picture.format == "PNG" and "really a PNG" in picture.warnings[0]
    write_picture(picture, path)  # and writing it back gives what the name says
    assert path.read_bytes()[:3] == b"\xff\xd8\xff"


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (bytes(999), "zeros"),
        (b"Dear Ada,\n\tthis is not a picture.\n", "is text"),
        ("smörgåsbord – ".encode() * 400, "is text"),
        (b"\n<!DOCTYPE html><html><body>404", "web page"),
        (b'<?xml version="1.0"?><svg/>', "drawing"),
        (b"%PDF-1.7\n%\xe2\xe3", "document"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "codeformer video"),
        (b"\x89PIG rubbish \xff\xfe", "not a picture of a known format"),
        (b"\xff\xd8\xff\xe0 and then rubbish", "convert|damaged"),
        (b"BMrubbish", "convert|damaged"),
        (b"GIF89arubbish", "convert|damaged"),
        (b"RIFF\0\0\0\0WEBPrubbish", "convert|damaged"),
        (b"II*\0\x08\0\0\0", "convert|damaged"),
    ],
)
def test_what_is_no_picture_is_refused_by_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "portrait.jpg"
    path.write_bytes(content)
    text = refusal(path)
    assert text.startswith(f"{path}: ")
    assert any(word in text for word in words.split("|")), text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_damage_gives_a_picture_or_a_refusal_never_another_error(tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "BMP"]))
    deep = data.draw(st.booleans())
    picture = Picture(noise(8, 9, np.uint16 if deep else np.uint8), icc=SRGB[:200], exif=raw_exif("<", 1))
    damaged = bytearray(encode_picture(picture, kind))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x"
    path.write_bytes(damaged)
    try:
        read_picture(path, max_pixels=1_000_000)
    except InputError as error:
        assert str(path) in str(error)


def huge_png(width: int, height: int, bits: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [8, 16])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(huge_png(60000, 60000, bits))
    before = Image.MAX_IMAGE_PIXELS
    assert "60000x60000" in refusal(path)
    assert before == Image.MAX_IMAGE_PIXELS, "the process's own limit is as it was"
    assert "limit of 100" in refusal(save(tmp_path / "small.png", Image.fromarray(smooth())), max_pixels=100)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.png")
    assert "is a folder" in refusal(tmp_path)
    assert "name too long" in refusal(tmp_path / ("x" * 300)).lower()
    refusal("null\0byte.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        assert "not a regular file" in refusal(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    refusal(tmp_path / "loop.png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", Image.fromarray(smooth()))
    path.chmod(0)
    assert "permissions" in refusal(path)


def test_permission_errors_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "x.png", Image.fromarray(smooth()))

    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    assert "permissions" in refusal(path)


# --- writing -----------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"x\.png: cannot be written \(No space left on device\); free some space"):
        write_picture(Picture(smooth()), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    picture = Picture(smooth())
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "file" / "x.png", tmp_path / "folder.png", tmp_path / ("x" * 300 + ".png")):
        with pytest.raises(OutputError) as caught:
            write_picture(picture, path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    for name in ("x.gif", "x", "x.xyz"):
        with pytest.raises(OutputError, match=r"use \.png"):
            write_picture(picture, tmp_path / name)
    with pytest.raises(OutputError, match="16383"):
        write_picture(Picture(np.zeros((1, 16384, 3), np.uint8)), tmp_path / "x.webp")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder.png"]


def test_written_files_have_ordinary_permissions_and_links_stay_links(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("POSIX permissions")
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "x.json", b"{}")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o640
    (tmp_path / "link.json").symlink_to(tmp_path / "x.json")
    write_atomic(tmp_path / "link.json", b"[]")
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "x.json").read_bytes() == b"[]"


def test_writers_of_one_path_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    contents = [bytes([value]) * 300_000 for value in range(6)]
    seen: list[bytes] = []

    def write(content: bytes) -> None:
        for _ in range(8):
            write_atomic(path, content)
            seen.append(path.read_bytes())

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 48 and all(data in contents for data in seen)
    assert list(tmp_path.iterdir()) == [path]


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from codeformer.files.atomic import write_atomic
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_atomic(Path(sys.argv[1]), b"new" * 1000)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL and locks")
def test_a_killed_write_leaves_the_old_file_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / (PREFIX_LONG + ".json")
    path.write_bytes(b"old")
    ended = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2, "what was being written lies beside it"
    write_atomic(path, b"next")
    assert path.read_bytes() == b"next"
    assert list(tmp_path.iterdir()) == [path]


def test_pillow_formats_we_do_not_read_are_not_opened(tmp_path: Path) -> None:
    """PostScript would start an interpreter; whatever is not in our table never reaches Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(smooth()).save(buffer, "EPS")
    (tmp_path / "x.jpg").write_bytes(buffer.getvalue())
    assert "document" in refusal(tmp_path / "x.jpg")
