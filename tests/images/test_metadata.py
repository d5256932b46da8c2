"""What a file says of its picture stays with it, from every format to every other that can hold it."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from codeformer.errors import LossWarning
from codeformer.images import exif as exif_blocks
from codeformer.images import formats
from codeformer.images.heif import bits_of_avif
from codeformer.images.jpeg2000 import blocks_of
from codeformer.images.metadata import fitted_xmp
from codeformer.images.picture import Picture, encode_picture, read_picture, replace_rgb, write_picture
from codeformer.images.profile import made_of, to_xyz
from codeformer.images.tiff import table_of, with_table

XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" '
    b'tiff:ImageWidth="40" tiff:ImageLength="30" tiff:XResolution="300/1" tiff:YResolution="300/1">'
    b"<exif:PixelXDimension>40</exif:PixelXDimension><dc:description>Anna, Lisbon 1953</dc:description>"
    b'</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
IPTC = b"\x1c\x02\x78\x00\x12Grandmother Anna 2" + b"\x1c\x02\x50\x00\x04Joao"
ADOBE = made_of("adobe", (563 / 256,), to_xyz((0.64, 0.33, 0.21, 0.71, 0.15, 0.06), (0.3127, 0.3290)))
WRITTEN = [".jpg", ".png", ".tif", ".webp", ".avif", ".heic"]


def exif_of(width: int, height: int, dpi: int | None) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "Grandmother Anna, Lisbon 1953"
    exif[0x013B] = "João"
    if dpi is not None:
        exif[0x011A] = exif[0x011B] = float(dpi)
        exif[0x0128] = 2
    exif.get_ifd(0x8769)[0xA002] = width
    exif.get_ifd(0x8769)[0xA003] = height
    exif.get_ifd(0x8769)[0x9003] = "1953:06:01 12:00:00"
    return exif_blocks.without_prefix(exif.tobytes())


def smooth(height: int = 30, width: int = 40) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=2).astype(np.uint8)


def skip_without(suffix: str) -> None:
    if not formats.available(formats.FORMAT_OF_SUFFIX[suffix]):
        pytest.skip(f"nothing here writes {suffix}")


@pytest.fixture
def told() -> Picture:
    """A picture with all that a file can say."""
    return Picture(
        smooth(), exif=exif_of(40, 30, 300), xmp=XMP, iptc=IPTC, text=(("Comment", "scanned by João"),), dpi=(300, 300)
    )


def told_of(recwarn: pytest.WarningsRecorder) -> list[str]:
    """The warnings of what files lack."""
    return [str(one.message) for one in recwarn if isinstance(one.message, LossWarning)]


def print_width(picture: Picture) -> float:
    assert picture.dpi is not None
    return picture.rgb.shape[1] / picture.dpi[0]


@pytest.mark.parametrize("first", WRITTEN)
@pytest.mark.parametrize("second", WRITTEN)
def test_from_every_format_to_every_other(
    tmp_path: Path, told: Picture, first: str, second: str, recwarn: pytest.WarningsRecorder
) -> None:
    skip_without(first)
    skip_without(second)
    write_picture(told, tmp_path / f"a{first}")
    once = read_picture(tmp_path / f"a{first}")
    larger = replace_rgb(once, smooth(60, 80))
    recwarn.clear()
    write_picture(larger, tmp_path / f"b{second}")
    lines = told_of(recwarn)
    said = "".join(lines)
    back = read_picture(tmp_path / f"b{second}")
    assert print_width(back) == pytest.approx(40 / 300, rel=0.01), "a print keeps its size"
    assert back.xmp is not None and b"Anna, Lisbon 1953" in back.xmp
    assert b'tiff:Orientation="1"' in back.xmp and b"<exif:PixelXDimension>80<" in back.xmp
    assert back.exif is not None
    parsed = Image.Exif()
    parsed.load(back.exif)
    assert parsed[0x010E] == "Grandmother Anna, Lisbon 1953"
    assert parsed.get_ifd(0x8769)[0x9003] == "1953:06:01 12:00:00"
    assert (parsed.get_ifd(0x8769)[0xA002], parsed.get_ifd(0x8769)[0xA003]) == (80, 60)
    holds = {".jpg", ".png", ".tif"}
    if first in holds:
        assert (back.iptc == IPTC) == (second in holds)
        assert ("IPTC" in said) == (second not in holds), "what is lost is said"
    if first in (".jpg", ".png"):
        assert (back.text == (("Comment", "scanned by João"),)) == (second in (".jpg", ".png"))
        assert ("texts (Comment)" in said) == (second not in (".jpg", ".png"))
    assert len(lines) <= 1


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif", ".bmp"])
def test_the_resolution_alone(tmp_path: Path, suffix: str) -> None:
    """Where no EXIF says it. And other programs see it."""
    skip_without(suffix)
    write_picture(Picture(smooth(), dpi=(600, 300)), tmp_path / f"x{suffix}")
    back = read_picture(tmp_path / f"x{suffix}")
    assert back.dpi == pytest.approx((600, 300), abs=0.1)
    with Image.open(tmp_path / f"x{suffix}") as image:
        if suffix in (".webp", ".avif"):
            assert image.getexif()[0x011A] == 600
        else:
            assert image.info["dpi"] == pytest.approx((600, 300), abs=0.1)


def test_a_turned_scan_keeps_the_sides_of_its_print(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth()).save(tmp_path / "x.jpg", exif=exif, dpi=(100, 200), quality=95)
    picture = read_picture(tmp_path / "x.jpg")
    assert picture.rgb.shape[:2] == (40, 30) and picture.dpi == (200, 100)


def test_without_a_resolution_none_is_made_up(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png", ".tif", ".webp"):
        write_picture(Picture(smooth(), exif=exif_of(1, 1, None)), tmp_path / f"x{suffix}")
        assert read_picture(tmp_path / f"x{suffix}").dpi is None


def test_texts_of_png(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "Großmutter")
    info.add_itxt("Description", "Лисабон 1953")
    info.add_text("Scanner", "Epson", zip=True)
    Image.fromarray(smooth()).save(tmp_path / "x.png", pnginfo=info)
    picture = read_picture(tmp_path / "x.png")
    assert dict(picture.text) == {"Title": "Großmutter", "Description": "Лисабон 1953", "Scanner": "Epson"}
    for deep in (False, True):
        rgb = picture.rgb.astype(np.uint16) * 257 if deep else picture.rgb
        write_picture(replace_rgb(picture, rgb), tmp_path / "y.png")
        with Image.open(tmp_path / "y.png") as image:
            image.load()
            assert image.text == dict(picture.text)  # type: ignore[attr-defined]
    write_picture(picture, tmp_path / "y.jpg")
    assert ("Comment", "Description: Лисабон 1953") in read_picture(tmp_path / "y.jpg").text


@pytest.mark.parametrize("suffix", [".webp", ".tif"])
def test_a_caption_becomes_exif_where_there_is_no_text(
    tmp_path: Path, suffix: str, recwarn: pytest.WarningsRecorder
) -> None:
    write_picture(Picture(smooth(), text=(("Description", "Anna"), ("Scanner", "Epson"))), tmp_path / f"x{suffix}")
    with Image.open(tmp_path / f"x{suffix}") as image:
        assert image.getexif()[0x010E] == "Anna"
    (line,) = told_of(recwarn)
    assert "texts (Scanner)" in line and "Description" not in line


def test_what_bmp_cannot_hold_is_said_in_one_line(
    tmp_path: Path, told: Picture, recwarn: pytest.WarningsRecorder
) -> None:
    write_picture(replace_rgb(told, told.rgb.astype(np.uint16), smooth()[..., 0].astype(np.uint16)), tmp_path / "x.bmp")
    (line,) = told_of(recwarn)
    for word in ("x.bmp", "transparency", "16 bits", "EXIF", "XMP", "IPTC", "texts"):
        assert word in line


def test_a_plain_picture_says_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for suffix in (".jpg", ".png", ".tif", ".webp", ".bmp"):
        write_picture(Picture(smooth()), tmp_path / f"x{suffix}")
    assert not told_of(recwarn)


def test_iptc_of_other_programs(tmp_path: Path) -> None:
    """As ImageMagick keeps it in PNG, as libtiff declares it in TIFF, among Photoshop's other resources in JPEG."""
    resource = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(IPTC)) + IPTC + b"\0" * (len(IPTC) % 2)
    other = b"8BIM" + struct.pack(">HBBI", 0x03ED, 0, 0, 3) + b"abc\0"
    info = PngImagePlugin.PngInfo()
    digits = resource.hex()
    info.add_text("Raw profile type iptc", f"\niptc\n{len(resource):8d}\n{digits[:72]}\n{digits[72:]}\n", zip=True)
    Image.fromarray(smooth()).save(tmp_path / "x.png", pnginfo=info)
    assert read_picture(tmp_path / "x.png").iptc == IPTC
    padded = IPTC + bytes(-len(IPTC) % 4)
    plain = encode_picture(Picture(smooth()), "TIFF")
    table = table_of(plain)
    (tmp_path / "x.tif").write_bytes(with_table(plain, replace(table, tags={**table.tags, 33723: (4, padded)})))
    assert read_picture(tmp_path / "x.tif").iptc == padded
    data = encode_picture(Picture(smooth()), "JPEG")
    body = b"Photoshop 3.0\0" + other + resource
    segment = struct.pack(">BBH", 0xFF, 0xED, len(body) + 2) + body
    (tmp_path / "x.jpg").write_bytes(data[:2] + segment + data[2:])
    assert read_picture(tmp_path / "x.jpg").iptc == IPTC


def test_blocks_that_are_too_long_for_jpeg_are_named(tmp_path: Path) -> None:
    with pytest.warns(LossWarning, match="XMP of more than 64 kB"):
        write_picture(Picture(smooth(), xmp=XMP + b" " * 70000, iptc=IPTC), tmp_path / "x.jpg")
    back = read_picture(tmp_path / "x.jpg")
    assert back.xmp is None and back.iptc == IPTC


def test_tags_that_tiff_files_do_not_carry_are_named(tmp_path: Path) -> None:
    """Out of an EXIF block into a TIFF file, and out of one."""
    said = Image.Exif()
    for tag, value in {0x010E: "Anna", 0x013C: "a telephone", 0x4749: 75, 0x829A: 0.01, 65000: "mine"}.items():
        said[tag] = value
    said[0x0213] = 1  # how the JPEG stores its pixels, which is nothing to lose
    picture = Picture(smooth(), exif=exif_blocks.without_prefix(said.tobytes()))
    with pytest.warns(LossWarning, match=r"TIFF cannot hold its EXIF tags ExposureTime, 65000; PNG can"):
        write_picture(picture, tmp_path / "x.tif")
    back = read_picture(tmp_path / "x.tif")
    kept = Image.Exif()
    kept.load(back.exif)
    assert dict(kept) == {0x010E: "Anna", 0x013C: "a telephone", 0x4749: 75} and back.warnings == ()
    data = (tmp_path / "x.tif").read_bytes()
    table = table_of(data)
    more = {33550: (12, struct.pack("<3d", 1, 1, 0)), **dict.fromkeys(range(65001, 65006), (3, b"\x01\x00"))}
    (tmp_path / "x.tif").write_bytes(with_table(data, replace(table, tags={**table.tags, **more})))
    note = "its TIFF tags ModelPixelScaleTag, 65001, 65002, 65003, 65004 and 1 more are left out"
    assert read_picture(tmp_path / "x.tif").warnings == (note,)


def test_a_tiff_in_floating_point_and_colour_says_what_others_say(tmp_path: Path) -> None:
    """Pillow does not open these."""
    cv2.imwrite(str(tmp_path / "x.tif"), smooth().astype(np.float32) / 255)
    data = (tmp_path / "x.tif").read_bytes()
    table = table_of(data)
    more = {
        270: (2, b"Anna\0"),
        282: (5, struct.pack("<II", 300, 1)),
        283: (5, struct.pack("<II", 150, 1)),
        296: (3, struct.pack("<H", 2)),
        exif_blocks.ORIENTATION: (3, struct.pack("<H", 6)),
        33723: (7, IPTC),
        65000: (2, b"mine\0"),
    }
    (tmp_path / "x.tif").write_bytes(with_table(data, replace(table, tags={**table.tags, **more})))
    picture = read_picture(tmp_path / "x.tif")
    assert picture.exif is not None and b"Anna" in picture.exif
    assert (picture.iptc, picture.dpi) == (IPTC, (150, 300)), "turned, as the pixels are"
    assert any("its TIFF tags 65000 are left out" in line for line in picture.warnings)


def test_a_second_picture_gets_a_note(tmp_path: Path) -> None:
    left, right = Image.fromarray(smooth()), Image.fromarray(smooth()[:, ::-1].copy())
    left.save(tmp_path / "x.mpo", "MPO", save_all=True, append_images=[right])
    picture = read_picture(tmp_path / "x.mpo")
    assert any("2 pictures" in note and "only the first" in note for note in picture.warnings)
    assert picture.format == "JPEG"
    gain = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description hdrgm:Version="1.0"/></x:xmpmeta>'
    (tmp_path / "x.jpg").write_bytes(encode_picture(Picture(smooth(), xmp=gain), "JPEG") + b"\xff\xd8\xff\xd9")
    assert any("gain map" in note for note in read_picture(tmp_path / "x.jpg").warnings)


def test_stereo_pictures_count_as_pictures() -> None:
    assert ".mpo" in formats.SUFFIXES and ".mpo" not in formats.WRITABLE_SUFFIXES


@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_are_added_behind_everything_else(order: str) -> None:
    note = b"MakerNote" * 5
    mark = b"II*\0" if order == "<" else b"MM\0*"
    table = struct.pack(order + "H", 2)
    table += struct.pack(order + "HHII", 0x010F, 2, len(note), 60) + struct.pack(order + "HHIHH", 0x0112, 3, 1, 1, 0)
    exif = (mark + struct.pack(order + "I", 8) + table + bytes(4)).ljust(60, b"\0") + note
    more = exif_blocks.fitted(exif_blocks.with_tags(exif, {0x010E: "Anna", 0x9999: 3}), 80, 60, (600, 450))
    assert more[8 : len(exif)] == exif[8:], "nothing moves"
    parsed = Image.Exif()
    parsed.load(more)
    assert parsed[0x010F] == note.decode() and parsed[0x010E] == "Anna" and parsed[0x0112] == 1
    assert exif_blocks.resolution(more) == (600, 450)
    assert exif_blocks.fitted(more, 80, 60, (600, 450)) == more
    assert exif_blocks.fitted(more, 80, 60, None) == more


@given(st.binary(max_size=120), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_damaged_blocks_never_raise(junk: bytes, head: bytes) -> None:
    exif = exif_blocks.upright(head + junk)
    if exif is not None:
        exif_blocks.fitted(exif, 3, 4, (72.5, 72.5))
        exif_blocks.with_tags(exif, {0x010E: "x"})
        exif_blocks.has_tag(exif, 7)
    fitted_xmp(junk, 3, 4, (72.5, 72.5))


@given(st.integers(1, 9999), st.integers(1, 9999))
def test_xmp_tells_the_size_once_it_told_any(width: int, height: int) -> None:
    fitted = fitted_xmp(XMP, width, height, (300.0, 301.5))
    assert b'tiff:ImageWidth="%d"' % width in fitted and b'tiff:ImageLength="%d"' % height in fitted
    assert b'tiff:XResolution="300000/1000"' in fitted and b'tiff:YResolution="301500/1000"' in fitted
    assert fitted_xmp(fitted, 40, 30, (300.0, 300.0)).count(b"40") == XMP.count(b"40")


def test_a_gif_comment(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"comment": "scanned by João".encode()}
    Image.fromarray(smooth()).convert("P").save(buffer, "GIF", **options)
    (tmp_path / "x.gif").write_bytes(buffer.getvalue())
    assert read_picture(tmp_path / "x.gif").text == (("Comment", "scanned by João"),)


@pytest.mark.parametrize("suffix", [".heic", ".avif"])
def test_colours_of_heic_and_avif_without_a_profile(tmp_path: Path, suffix: str) -> None:
    """Display P3 becomes a profile; PQ stays HDR in PNG, and becomes sRGB in JPEG, which is said."""
    skip_without(suffix)
    if suffix == ".heic":
        pillow_heif = pytest.importorskip("pillow_heif")
        image, buffer = pillow_heif.from_pillow(Image.fromarray(smooth(64, 64))), io.BytesIO()
        image.save(buffer, quality=90, save_nclx_profile=True)
        data = buffer.getvalue()
    else:
        data = encode_picture(Picture(smooth(64, 64)), "AVIF")
    place = data.find(b"colrnclx")
    if place < 0:
        pytest.skip("nothing here writes code points")

    def read(primaries: int, transfer: int) -> Picture:
        code = struct.pack(">HH", primaries, transfer)
        (tmp_path / f"x{suffix}").write_bytes(data[: place + 8] + code + data[place + 12 :])
        return read_picture(tmp_path / f"x{suffix}")

    plain = read(1, 13)
    assert plain.icc is None and plain.cicp is None and not plain.warnings
    wide = read(12, 13)
    assert wide.icc is not None and wide.space is not None
    bright = read(9, 16)
    assert bright.cicp == b"\x09\x10\0\1" and bright.space is not None and "HDR" in bright.warnings[0]
    write_picture(bright, tmp_path / "y.png")
    assert read_picture(tmp_path / "y.png").cicp == bright.cicp
    with pytest.warns(LossWarning, match="HDR"):
        write_picture(bright, tmp_path / "y.jpg")


def test_the_depth_of_avif() -> None:
    skip_without(".avif")
    data = encode_picture(Picture(smooth(64, 64)), "AVIF")
    assert bits_of_avif(data) == 8 == bits_of_avif(b"")
    place = data.find(b"av1C") + 6
    for flags, bits in ((0x40, 10), (0x60, 12)):
        assert bits_of_avif(data[:place] + bytes([data[place] | flags]) + data[place + 1 :]) == bits


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def jpeg_2000(profile: bytes, exif: bytes) -> bytes:
    """A file with all that its boxes may say."""
    buffer = io.BytesIO()
    Image.fromarray(smooth()).save(buffer, "JPEG2000")
    data = buffer.getvalue()
    start = data.index(b"jp2h") - 4
    (size,) = struct.unpack_from(">I", data, start)
    header = data[start + 8 : start + size]
    colours = header.index(b"colr") - 4
    (length,) = struct.unpack_from(">I", header, colours)
    pixels_per_metre = struct.pack(">HHHHBB", 11811, 1, 11811, 1, 0, 0)
    header = header[:colours] + box(b"colr", b"\2\0\0" + profile) + header[colours + length :]
    header += box(b"res ", box(b"resc", pixels_per_metre))
    said = box(b"uuid", b"JpgTiffExif->JP2" + exif)
    said += box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + XMP)
    said += box(b"uuid", bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38") + IPTC)
    return data[:start] + box(b"jp2h", header) + said + data[start + size :]


def test_what_jpeg_2000_says_of_itself(tmp_path: Path) -> None:
    """Its colour profile, EXIF, XMP, IPTC and resolution, which stand in boxes beside the pixels."""
    turned = exif_blocks.with_tags(exif_of(40, 30, 300), {exif_blocks.ORIENTATION: 6})
    data = jpeg_2000(ADOBE, turned)
    (tmp_path / "x.jp2").write_bytes(data)
    picture = read_picture(tmp_path / "x.jp2")
    assert picture.rgb.shape == (40, 30, 3), "as its EXIF says, it is turned"
    assert picture.icc == ADOBE and picture.xmp == XMP and picture.iptc == IPTC
    assert picture.dpi == pytest.approx((300, 300), abs=0.1)
    assert picture.exif is not None and b"Grandmother Anna" in picture.exif
    assert not picture.warnings
    for cut in range(0, len(data), 7):
        blocks_of(data[:cut])


def psd(profile: bytes, *, alpha: bool = False) -> bytes:
    """A file of Photoshop's with all that its resources may say."""

    def resource(number: int, block: bytes) -> bytes:
        return b"8BIM" + struct.pack(">HHI", number, 0, len(block)) + block + b"\0" * (len(block) % 2)

    resolution = struct.pack(">IHHIHH", 300 << 16, 1, 1, 150 << 16, 1, 1)
    resources = resource(0x03ED, resolution) + resource(0x0404, IPTC) + resource(0x0424, XMP)
    resources += resource(0x0422, exif_of(40, 30, None)) + resource(0x040F, profile)
    data = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3 + alpha, 30, 40, 8, 3) + bytes(4)
    data += struct.pack(">I", len(resources)) + resources + bytes(4)
    return data + bytes(2) + smooth().transpose(2, 0, 1).tobytes() + bytes(30 * 40 * alpha)


def test_what_a_psd_file_says_of_itself(tmp_path: Path) -> None:
    (tmp_path / "x.psd").write_bytes(psd(ADOBE))
    picture = read_picture(tmp_path / "x.psd")
    np.testing.assert_array_equal(picture.rgb, smooth())
    assert picture.xmp == XMP and picture.iptc == IPTC and picture.dpi == (300, 150) and picture.icc == ADOBE
    assert picture.exif is not None and b"Grandmother Anna" in picture.exif
