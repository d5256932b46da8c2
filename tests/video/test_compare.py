"""Before and after in one film, and previews with several w."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeformer.cli.console import Console
from codeformer.errors import ExitCode, UsageError
from codeformer.images.picture import read_picture
from codeformer.video.compare import sheet
from codeformer.video.film import run_film
from codeformer.video.options import output_file
from tests.video.clips import decode, make_film
from tests.video.fakes import engine_for, options_for, square_face


@pytest.fixture
def film(tmp_path: Path) -> Path:
    (tmp_path / "any").write_bytes(b"no weights")
    return make_film(tmp_path / "in.mp4", [square_face(i) for i in range(6)])


def run(film: Path, output: Path, capture: Any = None, **more: Any) -> ExitCode:
    options = options_for(film, output, film.with_name("any"), temporal="off", **more)
    return run_film(options, Console(), engine_for(options.work))


def test_beside_each_other(tmp_path: Path, film: Path) -> None:
    run(film, tmp_path / "after.mkv", codec="ffv1")
    run(film, tmp_path / "both.mkv", codec="ffv1", compare="side")
    for old, new, both in zip(*map(decode, (film, tmp_path / "after.mkv", tmp_path / "both.mkv")), strict=True):
        assert both.shape == (120, 320, 3)
        assert np.abs(both[:, :160].astype(int) - old).mean() < 2
        assert np.abs(both[:, 160:].astype(int) - new).mean() < 2


def test_split_in_the_middle(tmp_path: Path, film: Path) -> None:
    run(film, tmp_path / "after.mkv", codec="ffv1")
    run(film, tmp_path / "split.mkv", codec="ffv1", compare="split")
    for old, new, both in zip(*map(decode, (film, tmp_path / "after.mkv", tmp_path / "split.mkv")), strict=True):
        assert both.shape == (120, 160, 3)
        assert np.abs(both[:, :78].astype(int) - old[:, :78]).mean() < 2
        assert np.abs(both[:, 83:].astype(int) - new[:, 83:]).mean() < 2
        assert both[:, 80].mean() > 180  # the line


def test_the_default_name_tells_a_comparison_from_the_film(film: Path) -> None:
    options = [options_for(film, film, film, compare=how) for how in (None, "side", "split")]
    names = {str(output_file(type(o)(source=o.source, compare=o.compare)).parent) for o in options}
    assert len(names) == 3


def test_several_w_on_one_labelled_sheet(tmp_path: Path, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(film, tmp_path / "out.mp4", preview=2, preview_w=(0.2, 0.8)) is ExitCode.OK
    folder = tmp_path / "out_preview"
    assert f"2 frames, before and with w 0.2, 0.8, in {folder}" in capsys.readouterr().err
    pictures = sorted(folder.iterdir())
    assert len(pictures) == 2
    rgb = read_picture(pictures[0]).rgb
    assert rgb.shape[1] == 3 * 160
    assert rgb.shape[0] > 120
    label = rgb[: rgb.shape[0] - 120]
    assert all(label[:, i * 160 : (i + 1) * 160].max() > 100 for i in range(3))
    assert np.abs(rgb[-120:, :160].astype(int) - rgb[-120:, 160:320]).max() > 60


def test_a_sheet_of_sixteen_bits() -> None:
    white = np.full((40, 60, 3), 65535, np.uint16)
    result = sheet([white, white], ["before", "w 1"])
    assert result.dtype == np.uint16
    assert np.array_equal(result[-40:, :60], white)


def test_previews_options_are_checked(film: Path) -> None:
    with pytest.raises(UsageError, match="needs --preview"):
        options_for(film, film, film, preview_w=(0.5,))
    with pytest.raises(UsageError, match=r"not 1\.5"):
        options_for(film, film, film, preview=1, preview_w=(1.5,))
    with pytest.raises(UsageError, match="side or split"):
        options_for(film, film, film, compare="both")


def test_an_interruption_and_the_run_after_it_count_alike(
    tmp_path: Path, film: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from codeformer.video.packets import SegmentWriter

    write, count = SegmentWriter.write, [0]

    def broken(self: Any, frame: Any, pts: int) -> None:
        write(self, frame, pts)
        count[0] += 1
        if count[0] == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(SegmentWriter, "write", broken)
    assert run(film, tmp_path / "out.mp4", stretch=2) is ExitCode.INTERRUPTED
    monkeypatch.setattr(SegmentWriter, "write", write)
    first = re.search(r"goes on after the first (\d+)", capsys.readouterr().err)
    assert run(film, tmp_path / "out.mp4", stretch=2) is ExitCode.OK
    second = re.search(r"going on after the first (\d+)", capsys.readouterr().err)
    assert first and second and first[1] == second[1] == "4"
