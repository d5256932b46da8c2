"""The tables of docs/pictures.md say what is kept of a picture: every cell of them, on real files of each format."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from codeformer.images import formats
from codeformer.images.picture import Picture, encode_picture, file_noting, read_picture, to_uint16
from codeformer.images.profile import described_by, made_of
from tests.images.test_metadata import ADOBE, IPTC, XMP, exif_of, jpeg_2000, psd, smooth

PAGE = Path(__file__).parents[2] / "docs" / "pictures.md"
PQ = b"\x09\x10\x00\x01"  # BT.2020
SUFFIX = {"JPEG 2000": ".jp2", "JPEG XL": ".jxl", "TIFF": ".tif", "JPEG": ".jpg"}
#: What a line about a loss calls each column of the second table.
LOST = {
    "alpha": "transparency",
    "16 bits": "16 bits",
    "profile": "ICC profile",
    "HDR": "HDR colours",
    "EXIF": "its EXIF",
    "XMP": "its XMP",
    "IPTC": "its IPTC",
    "texts": "its texts",
    "resolution": "resolution",
}


def table(first: str) -> dict[str, dict[str, str]]:
    """Return the cells of the table whose first column is headed so, by format and by column."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return {name: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:] for name in row[0].split(", ")}


BROUGHT, HELD = table("brings"), table("written as")


def suffix_of(name: str) -> str:
    return SUFFIX.get(name, f".{name.lower()}")


def everything() -> Picture:
    """A picture that says all there is, of 8 bits."""
    return Picture(
        smooth(),
        np.tile(np.arange(40, dtype=np.uint8) * 6, (30, 1)),
        icc=ADOBE,
        exif=exif_of(40, 30, 300),
        xmp=XMP,
        iptc=IPTC,
        text=(("Copyright", "us"), ("Scanner", "Epson")),
        dpi=(300, 300),
    )


def same_colours(one: bytes, other: bytes) -> bool:
    """Whether two profiles mean the same."""
    a, b = described_by(one), described_by(other)
    assert a is not None and b is not None and a.matrix is not None and b.matrix is not None
    return np.allclose(a.matrix, b.matrix, atol=1e-3) and np.allclose(a.curves[0], b.curves[0], atol=1e-3)


def kept(back: Picture, source: Picture) -> dict[str, bool]:
    """Return for each column whether the picture that was read has what its source had."""
    exif = Image.Exif()
    if back.exif is not None:
        exif.load(back.exif)
    texts = " ".join(value for _, value in back.text) + str(exif.get(0x8298, ""))
    return {
        "alpha": back.alpha is not None,
        "16 bits": back.rgb.dtype == np.uint16,
        "profile": back.icc is not None and source.icc is not None and same_colours(back.icc, source.icc),
        "EXIF": exif.get_ifd(0x8769).get(0x9003) == "1953:06:01 12:00:00",
        "XMP": back.xmp is not None and b"Anna, Lisbon 1953" in back.xmp,
        "IPTC": back.iptc is not None and back.iptc.startswith(IPTC),
        "texts": "us" in texts,
        "resolution": back.dpi == pytest.approx((300, 300), abs=0.2),
    }


@pytest.mark.parametrize("name", HELD)
def test_what_a_format_holds(tmp_path: Path, name: str) -> None:
    """Each part alone: it comes back, or a line names it. Then all of them together."""
    suffix = suffix_of(name)
    kind = formats.FORMAT_OF_SUFFIX[suffix]
    if not formats.available(kind):
        pytest.skip(f"nothing here writes {name}")
    whole, plain = everything(), Picture(smooth())
    alone: dict[str, Picture] = {
        "alpha": replace(plain, alpha=whole.alpha),
        "16 bits": replace(plain, rgb=to_uint16(smooth())),
        "profile": replace(plain, icc=ADOBE),
        "EXIF": replace(plain, exif=whole.exif),
        "XMP": replace(plain, xmp=XMP),
        "IPTC": replace(plain, iptc=IPTC),
        "texts": replace(plain, text=whole.text),
        "resolution": replace(plain, dpi=(300, 300)),
    }
    assert set(HELD[name]) == {*alone, "HDR"}
    for column, source in alone.items():
        data, lost = file_noting(source, tmp_path / f"x{suffix}")
        (tmp_path / f"x{suffix}").write_bytes(data)
        back = read_picture(tmp_path / f"x{suffix}")
        cell = HELD[name][column]
        assert kept(back, source)[column] == cell.startswith(("yes", "some")), (column, cell)
        assert (LOST[column] in lost) == (not cell.startswith("yes")), (column, lost)
        assert not back.warnings
    data, lost = file_noting(whole, tmp_path / f"x{suffix}")
    for column, cell in HELD[name].items():
        if column not in ("HDR", "16 bits"):
            assert (LOST[column] in lost) == (not cell.startswith("yes")), (column, lost)
    data, lost = file_noting(replace(plain, rgb=to_uint16(smooth()), cicp=PQ), tmp_path / f"x{suffix}")
    (tmp_path / f"x{suffix}").write_bytes(data)
    holds = HELD[name]["HDR"].startswith("yes")
    assert (read_picture(tmp_path / f"x{suffix}").cicp == PQ) == holds == (LOST["HDR"] not in lost)


def file_of(name: str, column: str = "") -> bytes:
    """Return a file of this format that says all that it can; where the column wants it, deep or with alpha."""
    whole = everything()
    if name == "JPEG 2000" and column == "16 bits":
        lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
        return bytes(cv2.imencode(".jp2", to_uint16(smooth(64, 64)), lossless)[1])
    if name == "JPEG 2000" and column != "alpha":
        return jpeg_2000(ADOBE, exif_of(40, 30, 300))
    if name == "PPM" and column == "16 bits":
        return b"P6\n40 30\n65535\n" + to_uint16(smooth()).astype(">u2").tobytes()
    if name in ("PNG", "TIFF") and column == "16 bits":
        return encode_picture(Picture(to_uint16(smooth())), name)
    if name == "PPM":
        return b"P6\n# scanned by us\n40 30\n255\n" + smooth().tobytes()
    if name == "PFM":
        return b"PF\n40 30\n-1.0\n" + (smooth()[::-1] / 255).astype("<f4").tobytes()
    if name == "PSD":
        return psd(ADOBE, alpha=column == "alpha")
    if name in ("GIF", "TGA", "JPEG XL", "JPEG 2000"):
        buffer = io.BytesIO()
        options: dict[str, Any] = {}
        image = Image.fromarray(np.dstack([smooth(), whole.alpha])) if whole.alpha is not None else None
        assert image is not None
        if name == "GIF":
            image, options = image.convert("P"), {"comment": b"us", "transparency": 3}
        elif name == "JPEG XL":
            options = {
                "exif": whole.exif,
                "xmp": XMP,
                "use_container": True,
                "lossless": True,
            }  # it writes sRGB's profile
        image.save(buffer, {"JPEG XL": "JXL", "JPEG 2000": "JPEG2000"}.get(name, name), **options)
        return buffer.getvalue()
    return encode_picture(whole, formats.FORMAT_OF_SUFFIX[suffix_of(name)])


@pytest.mark.parametrize("name", BROUGHT)
def test_what_a_file_brings(tmp_path: Path, name: str) -> None:
    if name in ("DPX", "OpenEXR", "camera raw"):
        pytest.skip("nothing here writes such files; tests/images/test_formats.py reads small ones")
    suffix = suffix_of(name)
    kind = {".jxl": "JXL"}.get(suffix) or formats.FORMAT_OF_SUFFIX.get(suffix)
    kind = kind or formats.sniff(file_of(name), suffix) or ""
    if not formats.available(kind):
        pytest.skip(f"nothing here reads {name}")
    for column, cell in BROUGHT[name].items():
        (tmp_path / f"x{suffix}").write_bytes(file_of(name, column))
        back = read_picture(tmp_path / f"x{suffix}")
        if name == "PSD" and back.dpi is not None:
            back = replace(back, dpi=(back.dpi[0], 2 * back.dpi[1]))  # the file has two numbers
        source = replace(everything(), icc=back.icc) if name == "JPEG XL" else everything()
        assert kept(back, source)[column] == cell.startswith("yes"), (column, cell)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif", ".heic", ".bmp"])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_a_grey_profile_stands_in_no_file_of_colours(tmp_path: Path, suffix: str, alpha: bool, deep: bool) -> None:
    """A profile is for as many channels as the file has; where a format has no grey, the picture becomes sRGB."""
    kind = formats.FORMAT_OF_SUFFIX[suffix]
    if not formats.available(kind):
        pytest.skip(f"nothing here writes {suffix}")
    grey = np.repeat(np.tile(np.arange(48, 208, 4, dtype=np.uint8), (30, 1))[..., None], 3, axis=2)
    cover = np.full((30, 40), 200, np.uint8) if alpha else None
    rgb, cover = (to_uint16(grey), None if cover is None else to_uint16(cover)) if deep else (grey, cover)
    source = Picture(rgb, cover, icc=made_of("dark", (1.2,), None), grey=True)
    (tmp_path / f"x{suffix}").write_bytes(file_noting(source, tmp_path / f"x{suffix}", quality=100)[0])
    back = read_picture(tmp_path / f"x{suffix}")
    assert not back.warnings
    assert source.space is not None
    if alpha and back.alpha is None:
        return  # on white, which says nothing here
    expected = source.space.to_srgb(rgb[0].astype(np.float32) / np.iinfo(rgb.dtype).max)
    seen = back.rgb[0].astype(np.float32) / np.iinfo(back.rgb.dtype).max
    seen = seen if back.space is None else back.space.to_srgb(seen)
    assert np.abs(seen - expected).max() < 0.03


def test_the_formats_of_the_tables() -> None:
    assert {formats.FORMAT_OF_SUFFIX[suffix_of(name)] for name in HELD} == set(formats.FORMAT_OF_SUFFIX.values())
    assert set(BROUGHT) >= {"JPEG", "PNG", "TIFF", "GIF", "PSD", "JPEG 2000"}
