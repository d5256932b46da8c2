"""Damaged and cut off files are read as far as they go, and it is said how far that is."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from codeformer.errors import InputError
from codeformer.images import jpeg
from codeformer.images.picture import Picture, encode_picture, read_picture, to_uint16


@pytest.fixture(scope="module")
def photo(astronaut: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(astronaut[:225, 60:285])


def jpeg_of(rgb: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", **{"quality": 85, **options})
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def read(path: Path, data: bytes) -> Picture:
    path.write_bytes(data)
    return read_picture(path)


def missing(picture: Picture) -> int:
    """The rows that the one warning says are missing or wrong."""
    assert len(picture.warnings) == 1
    found = re.search(r"of its (\d+) rows, (\d+) ", picture.warnings[0])
    assert found is not None and int(found[1]) == picture.rgb.shape[0], picture.warnings
    return int(found[2])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 2}])
def test_a_jpeg_without_its_last_two_bytes_is_whole(tmp_path: Path, photo: np.ndarray, options: Any) -> None:
    data = jpeg_of(photo, **options)
    picture = read(tmp_path / "x.jpg", data[:-2])
    np.testing.assert_array_equal(picture.rgb, decoded(data))
    assert "end of the file is missing" in picture.warnings[0] or "less detail" in picture.warnings[0]


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_rows": 2}])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_a_cut_off_jpeg_gives_its_rows_and_says_how_many_are_missing(
    tmp_path: Path, photo: np.ndarray, options: Any, share: float
) -> None:
    data = jpeg_of(photo, **options)
    picture = read(tmp_path / "x.jpg", data[: int(len(data) * share)])
    there = 225 - missing(picture)
    assert picture.rgb.shape == photo.shape
    assert 0.5 * share < there / 225 <= 1
    np.testing.assert_array_equal(picture.rgb[: there - 1], decoded(data)[: there - 1])
    assert (picture.rgb[-4:, -8:] == 128).all(), "what is missing is grey"


def test_a_cut_off_progressive_jpeg_is_all_there_with_less_detail(tmp_path: Path, photo: np.ndarray) -> None:
    data = jpeg_of(photo, progressive=True)
    picture = read(tmp_path / "x.jpg", data[: len(data) * 7 // 10])
    assert "less detail" in picture.warnings[0]
    assert np.abs(picture.rgb.astype(int) - photo).mean() < 12


def test_a_download_that_ends_in_zeros_is_cut_off(tmp_path: Path, photo: np.ndarray) -> None:
    data = jpeg_of(photo)
    cut = len(data) * 7 // 10
    assert missing(read(tmp_path / "x.jpg", data[:cut] + bytes(len(data) - cut))) > 20


def test_a_cut_off_cmyk_jpeg_says_so_too(tmp_path: Path, photo: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo).convert("CMYK").save(buffer, "JPEG", quality=85)
    data = buffer.getvalue()
    picture = read(tmp_path / "x.jpg", data[: len(data) * 7 // 10])
    assert any(" missing" in note and "rows" in note for note in picture.warnings)


def damaged_dc(data: bytes, photo: np.ndarray) -> tuple[bytes, int]:
    """The file with one wrong bit that spoils many rows, and the first of them."""
    whole = decoded(data).astype(int)
    start, end = jpeg.layout_of(data).scans[0]
    for place in range((start + end) // 2, end):
        for bit in range(8):
            bad = bytearray(data)
            bad[place] ^= 1 << bit
            if 0xFF in (bad[place], data[place], bad[place - 1]):
                continue
            spoiled = (np.abs(decoded(bytes(bad)).astype(int) - whole) > 60).any(axis=2).mean(axis=1) > 0.5
            if spoiled.sum() > 60 and jpeg.fault_in(bytes(bad), jpeg.layout_of(bytes(bad))) is not None:
                return bytes(bad), int(np.flatnonzero(spoiled)[0])
    raise AssertionError("no such bit")


@pytest.mark.parametrize("options", [{}, {"subsampling": 0, "quality": 95}])
def test_a_jpeg_with_garbage_in_it_is_read_with_a_warning(tmp_path: Path, photo: np.ndarray, options: Any) -> None:
    data, first = damaged_dc(jpeg_of(photo, **options), photo)
    picture = read(tmp_path / "x.jpg", data)
    assert "damaged" in picture.warnings[0]
    assert abs(225 - missing(picture) - first) <= 16
    np.testing.assert_array_equal(picture.rgb, decoded(data))


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"restart_marker_rows": 1}])
def test_sound_compressed_data_have_no_fault(astronaut: np.ndarray, options: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    bars = np.zeros((64, 64, 3), np.uint8)
    bars[:, ::2] = 255
    for rgb in (astronaut[:200, :211], noise, bars, bars[..., 0], noise[..., 0], np.full((16, 16, 3), 255, np.uint8)):
        for quality in (10, 50, 92, 100):
            data = jpeg_of(rgb, quality=quality, **options)
            assert jpeg.fault_in(data, jpeg.layout_of(data)) is None


def test_a_hard_edge_where_blocks_begin_is_no_damage(tmp_path: Path, photo: np.ndarray) -> None:
    framed = photo.copy()
    framed[104:] = 255
    framed[:16] = 0
    big = np.tile(framed, (4, 4, 1))  # large enough that the seam alone decides about the check
    data = jpeg_of(big, quality=95)
    assert len(data) > 100_000
    assert read(tmp_path / "x.jpg", data).warnings == ()


@pytest.mark.parametrize(
    ("kind", "deep"), [("PNG", False), ("PNG", True), ("TIFF", False), ("TIFF", True), ("BMP", False)]
)
@pytest.mark.parametrize("share", [0.4, 0.75, 0.99])
def test_rows_of_lossless_files(tmp_path: Path, photo: np.ndarray, kind: str, deep: bool, share: float) -> None:
    rgb = to_uint16(photo) if deep else photo
    alpha = None if kind == "BMP" else rgb[..., 0].copy()
    data = encode_picture(Picture(rgb, alpha), kind)
    picture = read(tmp_path / "x", data[: int(len(data) * share)])
    there = 225 - missing(picture)
    assert picture.rgb.dtype == rgb.dtype
    assert there / 225 == pytest.approx(share, abs=0.1)
    if kind == "BMP":  # the lowest row comes first
        np.testing.assert_array_equal(picture.rgb[-there:], rgb[-there:])
        return
    np.testing.assert_array_equal(picture.rgb[:there], rgb[:there])
    assert picture.alpha is not None and alpha is not None
    np.testing.assert_array_equal(picture.alpha[:there], alpha[:there])
    assert (picture.alpha[there:] == np.iinfo(rgb.dtype).max).all(), "grey rows are to be seen"


def pillow_file(rgb: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, kind, **options)
    return buffer.getvalue()


def deep_file(rgb: np.ndarray, suffix: str) -> bytes:
    pixels = rgb[..., ::-1].astype(np.float32) / 255 if suffix == ".pfm" else to_uint16(rgb)[..., ::-1]
    return cv2.imencode(suffix, pixels)[1].tobytes()


def shade(rgb: np.ndarray) -> np.ndarray:
    """An alpha channel that takes few bytes."""
    return np.repeat(np.linspace(0, 255, rgb.shape[0], dtype=np.uint8)[:, None], rgb.shape[1], axis=1)


SEQUENTIAL = {
    "webp": lambda rgb: pillow_file(rgb, "WEBP", quality=85),
    "webp lossless": lambda rgb: pillow_file(rgb, "WEBP", lossless=True),
    "webp alpha": lambda rgb: pillow_file(np.dstack([rgb, shade(rgb)]), "WEBP", quality=85),
    "avif": lambda rgb: pillow_file(rgb, "AVIF", quality=85),
    "heic": lambda rgb: pillow_file(rgb, "HEIF", quality=85),
    "gif": lambda rgb: pillow_file(rgb, "GIF", interlace=0),
    "ppm": lambda rgb: pillow_file(rgb, "PPM"),
    "pgm": lambda rgb: pillow_file(rgb[..., 1], "PPM"),
    "deep ppm": lambda rgb: deep_file(rgb, ".ppm"),
    "pfm": lambda rgb: deep_file(rgb, ".pfm"),
    "tga": lambda rgb: pillow_file(rgb, "TGA"),
    "tga packed": lambda rgb: pillow_file(rgb, "TGA", compression="tga_rle"),
}
_LOWEST_FIRST = ("pfm", "tga")


@pytest.mark.parametrize("share", [0.6, 0.97])
@pytest.mark.parametrize("kind", SEQUENTIAL)
def test_a_cut_off_file_gives_the_pixels_that_it_has(
    tmp_path: Path, astronaut: np.ndarray, kind: str, share: float
) -> None:
    if kind == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    data = SEQUENTIAL[kind](np.ascontiguousarray(astronaut[:320, :200]))
    name = tmp_path / f"x.{kind.partition(' ')[0]}"
    whole = read(name, data).rgb
    picture = read(name, data[: int(len(data) * share)])
    grey = (int(np.iinfo(whole.dtype).max) + 1) // 2
    right = (picture.rgb == whole).all(axis=2)
    assert ((picture.rgb == grey).all(axis=2) | right).all(), "what is not of the picture is grey"
    found = re.fullmatch(
        r"is damaged or cut off: of its (320 rows|200 columns), \d+ \((\d+)%\) are missing", *picture.warnings
    )
    assert found is not None, picture.warnings
    there = 1 - int(found[2]) / 100
    assert right.mean() == pytest.approx(there, abs=0.02), "the warning tells how much is missing"
    assert share - 0.35 < there < share + 0.15, "not much less than is in the file"


def test_a_heic_without_the_end_of_its_transparency_keeps_its_colours(tmp_path: Path, photo: np.ndarray) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    data = pillow_file(np.dstack([photo, shade(photo)]), "HEIF", quality=85)
    picture = read(tmp_path / "x.heic", data[: len(data) * 7 // 10])
    assert picture.alpha is None
    assert "its transparency is missing" in picture.warnings
    assert len(picture.warnings) == 2


def test_what_a_turned_picture_misses_are_columns(tmp_path: Path, photo: np.ndarray) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    data = pillow_file(photo[:, :200], "HEIF", quality=85, exif=exif.tobytes())
    whole = read(tmp_path / "x.heic", data).rgb
    assert whole.shape == (200, 225, 3)
    picture = read(tmp_path / "x.heic", data[: len(data) * 7 // 10])
    found = re.fullmatch(r"is damaged or cut off: of its 225 columns, (\d+) \(.*", picture.warnings[0])
    assert found is not None, picture.warnings
    there = 225 - int(found[1])
    np.testing.assert_array_equal(picture.rgb[:, -there:], whole[:, -there:])
    assert (picture.rgb[:, :-there] == 128).all()


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_the_first_frame_of_a_cut_off_animation(tmp_path: Path, photo: np.ndarray, share: float) -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(255 - photo)]
    Image.fromarray(photo).save(buffer, "WEBP", quality=85, save_all=True, append_images=frames)
    data = buffer.getvalue()
    whole = read(tmp_path / "x.webp", data).rgb
    picture = read(tmp_path / "x.webp", data[: int(len(data) * share)])
    assert "is an animation; only its first frame is used" in picture.warnings
    there = 225 if share > 0.5 else int((picture.rgb != 128).any(axis=(1, 2)).sum())
    assert there > 100
    np.testing.assert_array_equal(picture.rgb[:there], whole[:there])


@pytest.mark.parametrize(("kind", "program"), [("JPEG2000", "opj_decompress"), ("JXL", "djxl")])
def test_what_no_library_here_reads_in_part_names_a_program(
    tmp_path: Path, photo: np.ndarray, kind: str, program: str
) -> None:
    if kind == "JXL":
        pytest.importorskip("pillow_jxl")
    data = pillow_file(photo, kind)
    with pytest.raises(InputError, match=f"copy or download it again.*{program}"):
        read(tmp_path / "x", data[: len(data) // 2])


def test_strips_of_another_programs_tiff(tmp_path: Path, photo: np.ndarray) -> None:
    """LZW in strips of 16 rows, with the table of tags in front, as scanners write it."""
    from codeformer.images.tiff import table_of, with_table

    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "TIFF", compression="tiff_lzw", tiffinfo={278: 16})
    data = buffer.getvalue()
    table = table_of(data)
    offsets = table.numbers(273)
    assert len(offsets) == 15
    front = with_table(data[:8], table)  # the table, then the strips behind it
    shift = len(front) - offsets[0]
    front = with_table(data[:8], table.with_numbers({273: tuple(one + shift for one in offsets)}))
    shift = len(front) - offsets[0]
    front = with_table(data[:8], table.with_numbers({273: tuple(one + shift for one in offsets)}))
    moved = front + data[offsets[0] :]
    np.testing.assert_array_equal(read(tmp_path / "whole.tif", moved).rgb, photo)
    picture = read(tmp_path / "x.tif", moved[: len(front) + sum(table.numbers(279)[:10]) + 100])
    assert missing(picture) == 225 - 160
    np.testing.assert_array_equal(picture.rgb[:160], photo[:160])


def test_a_wrong_check_sum_loses_no_rows(tmp_path: Path, photo: np.ndarray) -> None:
    data = encode_picture(Picture(to_uint16(photo)), "PNG")
    bad = bytearray(data)
    bad[data.index(b"IEND") - 5] ^= 1  # of the picture data
    picture = read(tmp_path / "x.png", bytes(bad))
    np.testing.assert_array_equal(picture.rgb, to_uint16(photo))
    assert picture.warnings == ("is damaged or cut off, but all its rows are there",)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_where_little_is_left_it_is_refused(tmp_path: Path, photo: np.ndarray, kind: str) -> None:
    data = encode_picture(Picture(photo), kind)
    for share in (0.02, 0.1, 0.2):
        with pytest.raises(InputError, match=r"again|convert"):
            read(tmp_path / "x", data[: int(len(data) * share)])


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_a_file_cut_anywhere_gives_its_first_rows_or_a_refusal(tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP"]))
    rgb = np.random.default_rng(1).integers(0, 256, (40, 31, 3), dtype=np.uint8)
    if kind == "GIF":
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "GIF")
        whole = buffer.getvalue()
    else:
        whole = encode_picture(Picture(rgb), kind)
    expected = read(tmp_path / "whole", whole).rgb
    cut = data.draw(st.integers(1, len(whole) - 1))
    try:
        picture = read(tmp_path / "x", whole[:cut])
    except InputError as error:
        assert str(tmp_path / "x") in str(error)
        return
    if (picture.rgb != expected).any():
        assert picture.warnings, "what is not as it was is not kept secret"
