"""Small files cannot claim much memory: limits by the machine, and by what a file can hold."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from codeformer.environment import memory
from codeformer.errors import InputError
from codeformer.images import decoding, limits
from codeformer.images.limits import most_pixels
from codeformer.images.picture import read_picture, write_picture
from codeformer.tasks.inpainting.masks import read_mask


def refusal(path: Path, **options: int) -> str:
    with pytest.raises(InputError) as caught:
        read_picture(path, **options)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    return str(caught.value)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bits: int, colour: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(width: int, height: int, bits: int, channels: int, compression: int) -> bytes:
    """A TIFF file that announces a picture and holds none of it."""
    tags = {256: width, 257: height, 258: bits, 259: compression, 262: 2 if channels == 3 else 1, 273: 8, 277: channels}
    tags |= {278: height, 279: 4, 284: 1}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + table + bytes(4)


def test_the_limit_follows_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory() > 1 << 28
    before = 0
    for gigabytes in (1, 4, 16, 1000):
        monkeypatch.setattr(limits, "memory", lambda gigabytes=gigabytes: gigabytes << 30)
        assert most_pixels(4) < most_pixels(2) < most_pixels(1) <= 500_000_000 or gigabytes == 1000
        assert before < most_pixels()
        before = most_pixels()
    monkeypatch.setattr(limits, "memory", lambda: 8 << 30)
    assert most_pixels(2) > 100_000_000, "a telephone's largest picture fits into an ordinary machine"


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_a_limit_on_the_process_counts() -> None:
    code = "from codeformer.environment import memory; print(memory())"
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)); {code}"
    ended = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=True)
    assert int(ended.stdout) <= 3 << 30


def test_a_picture_beyond_the_limit_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "memory", lambda: 1 << 30)
    path = tmp_path / "bomb.png"  # every row is there: 60 MB of zeros in 58 KB
    path.write_bytes(png(60000, 8000, 1, 0, zlib.compress(bytes(8000 * 7501), 9)))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it is decoded"))
    assert "--max_pixels" in refusal(path)
    with pytest.raises(InputError, match="--max_pixels"):
        read_mask(path, (10, 10))


CLAIMS = {
    "empty.png": png(20000, 20000, 8, 2, zlib.compress(bytes(9))),
    "empty16.png": png(20000, 20000, 16, 2, zlib.compress(bytes(9))),
    "raw.tif": tiff(20000, 20000, 8, 3, 1),
    "raw16.tif": tiff(20000, 20000, 16, 3, 1),
    "lzw.tif": tiff(20000, 20000, 8, 3, 5),
    "deflate.tif": tiff(20000, 20000, 8, 3, 8),
    "old deflate16.tif": tiff(20000, 20000, 16, 1, 32946),
    "packbits.tif": tiff(20000, 20000, 8, 1, 32773),
    "fax.tif": tiff(20000, 20000, 1, 1, 4),
    "raw.bmp": b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 20000, 20000, 1, 24, 0, 0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_file_too_short_for_its_pixels_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_bytes(CLAIMS[name])
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it is decoded"))
    assert "cut off (20000x20000 pixels need" in refusal(tmp_path / name, max_pixels=10**9)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits", "group4", "tiff_adobe_deflate"])
def test_the_emptiest_real_tiff_is_read(tmp_path: Path, compression: str) -> None:
    mode = "1" if compression == "group4" else "RGB"
    Image.new(mode, (3000, 3000)).save(tmp_path / "x.tif", compression=compression)
    assert read_picture(tmp_path / "x.tif").rgb.shape == (3000, 3000, 3)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_the_emptiest_real_picture_is_read(tmp_path: Path, mode: str, ending: str) -> None:
    Image.new(mode, (3001, 2999)).save(tmp_path / f"x.{ending}")
    assert read_picture(tmp_path / f"x.{ending}").rgb.shape == (2999, 3001, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "P+", "RGB", "RGB+", "RGBA"])
def test_strips_give_the_pixels_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(decoding, "_STRIP_PIXELS", 1000)
    colours = np.random.default_rng(5).integers(0, 256, (61, 83, 4), np.uint8)
    image = Image.fromarray(colours).convert("RGB").quantize(64) if mode[0] == "P" else Image.fromarray(colours)
    image = image.convert(mode.removesuffix("+"))
    options = {"transparency": 3 if mode == "P+" else (1, 2, 3)} if mode.endswith("+") else {}
    image.save(tmp_path / "x.png", compress_level=1, **options)  # type: ignore[arg-type]
    whole = Image.open(tmp_path / "x.png")
    picture = read_picture(tmp_path / "x.png")
    assert np.array_equal(picture.rgb, np.array(whole.convert("RGB")))
    if mode in ("LA", "RGBA", "P+", "RGB+"):
        assert np.array_equal(picture.alpha, np.array(whole.convert("RGBA"))[..., 3])  # type: ignore[arg-type]
    else:
        assert picture.alpha is None


PEAK = """
import resource, sys
from pathlib import Path
from codeformer.images.picture import read_picture
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rgb = read_picture(Path(sys.argv[1])).rgb
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (rgb.size / 3))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in kilobytes")
def test_reading_takes_little_more_than_the_picture(tmp_path: Path) -> None:
    """For each pixel Pillow holds 4 bytes and we hold 3; a second copy of the whole would be 3 or 4 more."""
    Image.new("RGB", (4000, 4000), (9, 8, 7)).save(tmp_path / "x.png")
    ended = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "x.png")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "0"},
    )
    assert float(ended.stdout) < 9


def test_a_large_colour_profile_is_kept(tmp_path: Path) -> None:
    """Pillow takes no more than 1 MB in PNG; printers' profiles have several."""
    icc = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    icc += np.random.default_rng(1).bytes(5_000_000)
    icc[:4] = len(icc).to_bytes(4, "big")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "x.png", icc_profile=bytes(icc))
    picture = read_picture(tmp_path / "x.png")
    assert picture.icc == bytes(icc)
    write_picture(picture, tmp_path / "y.png")
    assert read_picture(tmp_path / "y.png").icc == bytes(icc)


def test_a_text_that_inflates_without_end_is_named(tmp_path: Path) -> None:
    bomb = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 27), 9))
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    data = out.getvalue()
    (tmp_path / "x.png").write_bytes(data[:33] + bomb + data[33:])
    assert "more than 64 MB; save it without" in refusal(tmp_path / "x.png")
