"""Formats beyond the common ones: their pixels, their bits, and what is missing to read them."""

from __future__ import annotations

import builtins
import importlib.util
import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from codeformer.errors import InputError
from codeformer.images import formats
from codeformer.images.picture import Picture, encode_picture, read_picture, to_uint8, to_uint16, write_picture
from codeformer.images.tiff import encode_tiff, table_of, with_table


def smooth(height: int = 30, width: int = 40) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=2).astype(np.uint8)


def deep(height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, (height, width, 3), dtype=np.uint16)


def saved(path: Path, rgb: np.ndarray, **options: Any) -> Picture:
    Image.fromarray(rgb).save(path, **options)
    return read_picture(path)


@pytest.mark.parametrize("suffix", [".jp2", ".ppm", ".tga"])
def test_formats_of_eight_bits(tmp_path: Path, suffix: str) -> None:
    assert suffix in formats.SUFFIXES
    picture = saved(tmp_path / f"x{suffix}", smooth())
    np.testing.assert_array_equal(picture.rgb, smooth())
    assert not picture.warnings and not picture.grey
    grey = saved(tmp_path / f"g{suffix}", smooth()[..., 0].copy())
    assert grey.grey and (grey.rgb[..., 0] == smooth()[..., 0]).all()


def test_transparent_targa_and_jpeg2000(tmp_path: Path) -> None:
    rgba = np.dstack([smooth(), smooth()[..., 0]])
    for suffix in (".tga", ".jp2"):
        picture = saved(tmp_path / f"x{suffix}", rgba)
        np.testing.assert_array_equal(picture.alpha, rgba[..., 3])  # type: ignore[arg-type]


def test_sixteen_bits_stay_in_jpeg2000_and_ppm(tmp_path: Path) -> None:
    whole = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    for suffix in (".jp2", ".ppm"):
        rgb = deep(150, 160)
        coded = cv2.imencode(suffix, rgb[..., ::-1], whole if suffix == ".jp2" else [])[1]
        (tmp_path / f"x{suffix}").write_bytes(coded.tobytes())
        picture = read_picture(tmp_path / f"x{suffix}")
        assert picture.rgb.dtype == np.uint16
        np.testing.assert_array_equal(picture.rgb, rgb)
    (tmp_path / "x.pgm").write_bytes(b"P5\n# a scan\n40 30\n65535\n" + deep()[..., 0].astype(">u2").tobytes())
    picture = read_picture(tmp_path / "x.pgm")
    assert picture.grey
    np.testing.assert_array_equal(picture.rgb[..., 0], deep()[..., 0])
    (tmp_path / "y.ppm").write_bytes(b"P6 40 30 1023 " + (deep() >> 6).astype(">u2").tobytes())
    picture = read_picture(tmp_path / "y.ppm")
    assert np.abs(picture.rgb.astype(int) - deep()).max() <= 65
    with pytest.raises(InputError, match="damaged or cut off"):
        (tmp_path / "z.ppm").write_bytes(b"P6 40 30 1023 " + bytes(99))
        read_picture(tmp_path / "z.ppm")


def psd(channels: list[np.ndarray], mode: int) -> bytes:
    """Photoshop's format as it is without layers: header, three empty sections, and the flat picture."""
    height, width = channels[0].shape
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, len(channels), height, width, 8, mode)
    return head + struct.pack(">IIIH", 0, 0, 0, 0) + b"".join(channel.tobytes() for channel in channels)


def test_the_flat_picture_of_photoshops_format(tmp_path: Path) -> None:
    (tmp_path / "x.psd").write_bytes(psd([smooth()[..., c] for c in range(3)], 3))
    np.testing.assert_array_equal(read_picture(tmp_path / "x.psd").rgb, smooth())
    (tmp_path / "g.psd").write_bytes(psd([smooth()[..., 0]], 1))
    assert read_picture(tmp_path / "g.psd").grey


def by_ffmpeg(codec: str, rgb: np.ndarray, pixels: str) -> bytes:
    import av

    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = rgb.shape[1], rgb.shape[0], pixels
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(rgb, "gbrpf32le" if rgb.dtype == np.float32 else "rgb48le")
    packets = [*context.encode(frame.reformat(format=pixels)), *context.encode(None)]
    return bytes(packets[0])


def test_dpx(tmp_path: Path) -> None:
    (tmp_path / "x.dpx").write_bytes(by_ffmpeg("dpx", deep(), "rgb48le"))
    np.testing.assert_array_equal(read_picture(tmp_path / "x.dpx").rgb, deep())
    (tmp_path / "y.dpx").write_bytes(by_ffmpeg("dpx", deep(), "gbrp10le"))
    picture = read_picture(tmp_path / "y.dpx")
    assert picture.rgb.dtype == np.uint16 and np.abs(picture.rgb.astype(int) - deep()).max() < 130
    log = bytearray((tmp_path / "x.dpx").read_bytes())
    log[801] = 3
    (tmp_path / "log.dpx").write_bytes(log)
    assert "logarithmic" in read_picture(tmp_path / "log.dpx").warnings[0]
    with pytest.raises(InputError, match=r"x\.dpx: 40x30 pixels are more than the limit of 100"):
        read_picture(tmp_path / "x.dpx", max_pixels=100)


def test_exr_is_light(tmp_path: Path) -> None:
    light = np.linspace(0, 1.25, 30 * 40 * 3, dtype=np.float32).reshape(30, 40, 3)
    (tmp_path / "x.exr").write_bytes(by_ffmpeg("exr", light, "gbrpf32le"))
    picture = read_picture(tmp_path / "x.exr")
    assert picture.rgb.dtype == np.uint16
    assert "20% of its pixels are brighter than white" in picture.warnings[0]
    shown = np.clip(light, 0, 1)
    expected = np.where(shown <= 0.0031308, shown * 12.92, 1.055 * shown ** (1 / 2.4) - 0.055)
    assert np.abs(picture.rgb / 65535 - expected).max() < 1e-3
    with pytest.raises(InputError, match="40x30 pixels are more than"):
        read_picture(tmp_path / "x.exr", max_pixels=100)


def test_pfm_is_light(tmp_path: Path) -> None:
    light = np.full((8, 9, 3), (0.2, 0.4, 0.6), np.float32)
    (tmp_path / "x.pfm").write_bytes(cv2.imencode(".pfm", light[..., ::-1])[1].tobytes())
    rgb = read_picture(tmp_path / "x.pfm").rgb[4, 4] / 65535
    np.testing.assert_allclose(rgb, 1.055 * np.array([0.2, 0.4, 0.6]) ** (1 / 2.4) - 0.055, atol=1e-4)


# --- TIFF --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("top", "said"), [(1.0, "0 to 1"), (255.0, "0 to 255"), (65535.0, "0 to 65535")])
def test_floating_point_tiff(tmp_path: Path, top: float, said: str) -> None:
    values = (deep() / 65535 * top).astype(np.float32)
    (tmp_path / "x.tif").write_bytes(cv2.imencode(".tiff", values[..., ::-1])[1].tobytes())
    picture = read_picture(tmp_path / "x.tif")
    assert picture.rgb.dtype == np.uint16 and said in picture.warnings[0]
    assert np.abs(picture.rgb.astype(int) - deep()).max() <= 1
    grey = Image.fromarray(values[..., 0] / np.float32(top))
    grey.save(tmp_path / "g.tif")
    assert read_picture(tmp_path / "g.tif").grey
    holes = values / top
    holes[3, 4] = np.nan
    (tmp_path / "n.tif").write_bytes(cv2.imencode(".tiff", holes.astype(np.float32))[1].tobytes())
    assert (read_picture(tmp_path / "n.tif").rgb[3, 4] == 0).all()


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("strips", [1, 3])
def test_sixteen_bit_tiff_in_planes(tmp_path: Path, channels: int, strips: int) -> None:
    pixels = np.dstack([deep(), deep()[..., 0]])[..., :channels]
    data = encode_tiff(pixels, None, None)
    table = table_of(data)
    parts = [
        zlib.compress(part.astype("<u2").tobytes())
        for channel in range(channels)
        for part in np.split(pixels[..., channel], strips)
    ]
    places, at = [], len(data)
    for part in parts:
        places.append(at)
        at += len(part)
    changes = {273: tuple(places), 279: tuple(map(len, parts)), 278: (30 // strips,), 284: (2,), 317: (1,)}
    (tmp_path / "x.tif").write_bytes(with_table(data + b"".join(parts), table.with_numbers(changes)))
    picture = read_picture(tmp_path / "x.tif")
    np.testing.assert_array_equal(picture.rgb, deep())
    if channels == 4:
        np.testing.assert_array_equal(picture.alpha, deep()[..., 0])  # type: ignore[arg-type]


def test_thirty_two_bits(tmp_path: Path) -> None:
    values = deep()[..., 0].astype(np.int32)
    Image.fromarray(values).save(tmp_path / "x.tif")
    picture = read_picture(tmp_path / "x.tif")
    np.testing.assert_array_equal(picture.rgb[..., 1], deep()[..., 0])
    assert picture.grey and "32-bit" in picture.warnings[0]


# --- extras ------------------------------------------------------------------------------------------------------


def dng(height: int = 64, width: int = 96) -> bytes:
    """Raw data of a camera whose filters let through an orange wall, as Adobe's DNG."""
    mosaic = np.empty((height, width), "<u2")
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = 9000, 2000  # red, blue
    mosaic[0::2, 1::2] = mosaic[1::2, 0::2] = 5000  # green
    plain = encode_tiff(np.zeros((height, width, 1), np.uint16), None, None)
    table = table_of(plain)
    data = plain + mosaic.tobytes()
    changes = {
        **{254: (0,), 259: (1,), 262: (32803,), 273: (len(plain),), 279: (mosaic.nbytes,), 278: (height,), 317: (1,)},
        **{50714: (0,), 50717: (16383,), 50778: (21,)},
    }
    tags = dict(table.with_numbers(changes).tags)
    one = struct.pack("<ii", 1, 1) + 3 * struct.pack("<ii", 0, 1)
    tags |= {
        271: (2, b"Test\0"),
        272: (2, b"Camera\0"),
        33421: (3, struct.pack("<HH", 2, 2)),
        33422: (1, bytes([0, 1, 1, 2])),
        50706: (1, bytes([1, 4, 0, 0])),
        50707: (1, bytes([1, 1, 0, 0])),
        50708: (2, b"Test Camera\0"),
        50721: (10, one + one + one[:8]),
        50728: (5, struct.pack("<6I", 1, 1, 1, 1, 1, 1)),
    }
    tags.pop(317)
    return with_table(data, type(table)("<", False, tags))


def test_camera_raw_is_developed(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    assert ".dng" in formats.SUFFIXES
    (tmp_path / "x.dng").write_bytes(dng())
    picture = read_picture(tmp_path / "x.dng")
    assert picture.rgb.dtype == np.uint16 and abs(picture.rgb.shape[1] - 96) <= 8
    red, green, blue = picture.rgb[20:40, 20:40].mean(axis=(0, 1))
    assert red > 2 * max(green, blue)
    assert "developed from camera raw" in picture.warnings[0]
    write_picture(picture, tmp_path / "x.jpg")
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.getexif()[272] == "Camera"
    with pytest.raises(InputError, match="more than the limit"):
        read_picture(tmp_path / "x.dng", max_pixels=100)


def test_jpeg_xl(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl")
    assert ".jxl" in formats.SUFFIXES
    buffer = io.BytesIO()
    assert formats.available("JXL")
    Image.fromarray(smooth()).save(buffer, "JXL", lossless=True)
    (tmp_path / "x.jxl").write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(read_picture(tmp_path / "x.jxl").rgb, smooth())


@pytest.mark.parametrize(
    ("name", "module", "package", "content"),
    [
        ("x.nef", "rawpy", "rawpy", encode_picture(Picture(smooth()), "TIFF")),
        ("x.cr3", "rawpy", "rawpy", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"),
        ("x.jxl", "pillow_jxl", "pillow-jxl-plugin", b"\xff\x0a" + bytes(20)),
    ],
)
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, package: str, content: bytes
) -> None:
    real = builtins.__import__
    Image.init()
    monkeypatch.delitem(Image.OPEN, "JXL", raising=False)

    def without(wanted: str, *rest: Any, **more: Any) -> Any:
        if wanted.startswith(module):
            raise ImportError(wanted)
        return real(wanted, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"pip install {package}$"):
        read_picture(tmp_path / name)


def test_what_a_folder_leaves_out_is_named_by_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    from codeformer.run.runner import mention_ignored

    lines: list[str] = []

    class Console:
        note = staticmethod(lines.append)
        detail = staticmethod(lambda _: None)

    monkeypatch.setattr(formats, "find_spec", lambda _: None)
    names = ["a.CR2", "b.cr2", "c.cr2", "d.txt", "e.txt", "README", "f.jxl", "g.mp4"]
    mention_ignored(tuple(map(Path, names)), Console())  # type: ignore[arg-type]
    assert "1 film" in lines[0]
    assert "7 files" in lines[1]
    assert "3 .cr2 (pip install rawpy reads them), 2 .txt, 1 without an ending, 1 .jxl (pip" in lines[1]


def test_every_suffix_belongs_to_a_format() -> None:
    assert importlib.util.find_spec("PIL") is not None
    for suffix in formats.SUFFIXES:
        assert suffix == suffix.lower() and suffix.startswith(".")
    assert not formats.SUFFIXES & {".txt", ".pdf", ".mp4", ".json"}


@pytest.mark.parametrize("ext", ["avif", "tiff"])
def test_avif_and_tiff_can_be_asked_for(tmp_path: Path, ext: str) -> None:
    from codeformer.options import EXTENSIONS
    from codeformer.run.outputs import final_ending

    assert ext in EXTENSIONS
    picture = Picture(to_uint16(smooth()))
    write_picture(picture, tmp_path / f"x{final_ending(ext, picture)}")
    back = read_picture(tmp_path / f"x.{ext}")
    assert np.abs(to_uint8(back.rgb).astype(int) - smooth()).max() < 20
    assert back.rgb.dtype == (np.uint16 if ext == "tiff" else np.uint8)


def test_a_stereo_picture_comes_out_as_jpeg() -> None:
    from codeformer.run.outputs import final_ending

    assert final_ending("same", Picture(smooth(), format="JPEG", path=Path("x.mpo"))) == ".jpg"
    assert final_ending("same", Picture(smooth(), format="PSD", path=Path("x.psd"))) == ".png"
