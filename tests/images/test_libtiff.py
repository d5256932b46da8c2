"""What libtiff says of a damaged file is a warning of that picture, not a raw line on stderr."""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codeformer.errors import InputError
from codeformer.images.picture import read_picture

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Pillow's libtiff cannot be reached there")


@pytest.fixture
def fax(tmp_path: Path) -> Path:
    """A black and white scan, compressed as fax machines do, with some bytes of its first rows overwritten."""
    rows, columns = np.mgrid[0:64, 0:80]
    buffer = io.BytesIO()
    Image.fromarray(((rows * columns) % 7 < 3).astype(np.uint8) * 255).convert("1").save(
        buffer, "TIFF", compression="group4"
    )
    data = bytearray(buffer.getvalue())
    offset = Image.open(buffer).tag_v2[273][0]  # type: ignore[attr-defined]
    data[offset + 20 : offset + 24] = b"\xff\xff\xff\xff"
    path = tmp_path / "fax.tif"
    path.write_bytes(data)
    return path


def test_a_damaged_scan(fax: Path, capfd: pytest.CaptureFixture[str]) -> None:
    warnings = read_picture(fax).warnings
    assert [line for line in warnings if "may be damaged in places" in line and "Fax" in line], warnings
    assert capfd.readouterr().err == ""


def test_each_thread_has_its_own(fax: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.tif"
    Image.new("1", (50, 50)).save(good, compression="group4")
    with ThreadPoolExecutor(4) as threads:
        heard = list(threads.map(lambda path: read_picture(path).warnings, [good, fax] * 8))
    assert heard[::2] == [()] * 8
    assert all(heard[1::2])


def test_what_is_refused_is_one_error_and_no_raw_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 99, 200)).save(buffer, "TIFF", compression="jpeg")
    data = bytearray(buffer.getvalue())
    data[8:12] = b"\x00\x00\x00\x00"  # no JPEG begins like this
    (tmp_path / "bad.tif").write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.tif"):
        read_picture(tmp_path / "bad.tif")
    assert capfd.readouterr().err == ""
