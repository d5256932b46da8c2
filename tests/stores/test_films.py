"""Films behind URLs: fetched, restored, uploaded; and what a run that was killed leaves to the next one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codeformer.cli import main
from codeformer.errors import ExitCode
from tests.stores.listing import below
from tests.video.clips import decode, make_film


@pytest.fixture
def video(small_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs ``codeformer video`` in an empty working folder, which is the one for temporary files, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def run(*words: str) -> int:
        return main(["video", *words, "--model", str(small_model_path), "--device", "cpu"])

    return run


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("codeformer-")]


def test_from_a_bucket_into_another_folder_of_it_and_again(
    s3: Any, video: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.pipe_file("bkt/in/a.mp4", make_film(tmp_path / "here.mp4", 5).read_bytes())
    s3.pipe_file("bkt/in/b.mp4", b"no film")
    s3.pipe_file("bkt/in/notes.txt", b"no film either")
    assert video("s3://bkt/in", "-o", "s3://bkt/out") == ExitCode.SOME_FAILED
    out, err = capsys.readouterr()
    assert "s3://bkt/in/b.mp4" in err and str(tmp_path) not in out + err
    made = below(s3, "s3://bkt/out")
    assert sorted(made) == ["a.mp4", "a.mp4.json"]
    report = json.loads(made["a.mp4.json"])
    assert (report["input"], report["output"]) == ("s3://bkt/in/a.mp4", "s3://bkt/out/a.mp4")
    assert report["bytes"] == len(made["a.mp4"]) and left(tmp_path) == []
    # the same frames as from and to this machine
    assert video("here.mp4", "-o", "there.mp4") == ExitCode.OK
    (tmp_path / "from_store.mp4").write_bytes(made["a.mp4"])
    assert [one.tobytes() for one in decode(tmp_path / "there.mp4")] == [
        one.tobytes() for one in decode(tmp_path / "from_store.mp4")
    ]
    capsys.readouterr()
    assert video("s3://bkt/in/a.mp4", "-o", "s3://bkt/out") == ExitCode.OK
    assert "s3://bkt/out/a.mp4 is already done" in capsys.readouterr().err
    assert below(s3, "s3://bkt/out") == made and left(tmp_path) == []
    # another film has that name: it is not replaced
    assert video("s3://bkt/in/a.mp4", "-o", "s3://bkt/out", "--crf", "30") == ExitCode.USAGE
    assert "s3://bkt/out/a.mp4 is a finished film of other settings" in capsys.readouterr().err
    assert below(s3, "s3://bkt/out") == made
    assert video("s3://bkt/in/a.mp4", "-o", "s3://bkt/out", "--crf", "40", "--overwrite") == ExitCode.OK
    assert len(below(s3, "s3://bkt/out")["a.mp4"]) < len(made["a.mp4"])


def test_one_film_to_a_file_and_from_a_url_to_a_folder_here(
    s3: Any, video: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.pipe_file("bkt/a.mp4", make_film(tmp_path / "here.mp4", 3).read_bytes())
    assert video("here.mp4", "-o", "s3://bkt/made/one.mkv") == ExitCode.OK
    assert sorted(below(s3, "s3://bkt/made")) == ["one.mkv", "one.mkv.json"]
    assert video("s3://bkt/a.mp4", "-o", "out") == ExitCode.OK
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "a.mp4.json"]
    assert video("s3://bkt/gone.mp4", "-o", "out") == ExitCode.BAD_INPUT
    assert "s3://bkt/gone.mp4: no such file or bucket" in capsys.readouterr().err
    for words in (("--dry_run",), ("--preview", "2"), ("--save_frames", "s3://bkt/frames"), ("--engine", "ray")):
        assert video("s3://bkt/a.mp4", "-o", "s3://bkt/x", *words) == ExitCode.USAGE, words
    s3.pipe_file("bkt/empty/notes.txt", b"x")
    assert video("s3://bkt/empty", "-o", "out") == ExitCode.BAD_INPUT
    assert "s3://bkt/empty: holds no films" in capsys.readouterr().err


def test_shards_take_films_by_their_urls(s3: Any, video: Callable[..., int], tmp_path: Path) -> None:
    film = make_film(tmp_path / "here.mp4", 2).read_bytes()
    for index in range(4):
        s3.pipe_file(f"bkt/in/{index}.mp4", film)
    counts = []
    for shard in ("0/2", "1/2"):
        assert video("s3://bkt/in", "-o", "s3://bkt/out", "--shard", shard) == ExitCode.OK
        counts.append(len([name for name in below(s3, "s3://bkt/out") if name.endswith(".mp4")]))
    assert 0 < counts[0] < 4 == counts[1]


def test_a_result_that_the_store_refuses_stays_here_and_goes_up_later(
    s3: Any,
    video: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from codeformer.stores.access import Store

    def denied(self: Store, source: Path, url: str) -> None:
        raise PermissionError("Access Denied")

    make_film(tmp_path / "here.mp4", 3)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", denied)
        assert video("here.mp4", "-o", "s3://bkt/out") == ExitCode.OUTPUT
    assert "s3://bkt/out/here.mp4: may not be written (Access Denied)" in capsys.readouterr().err
    assert below(s3, "s3://bkt/out") == {} and len(left(tmp_path)) == 1
    assert video("here.mp4", "-o", "s3://bkt/out") == ExitCode.OK
    err = capsys.readouterr().err
    assert "is already done" in err and "s3://bkt/out/here.mp4: uploaded" in err
    assert sorted(below(s3, "s3://bkt/out")) == ["here.mp4", "here.mp4.json"] and left(tmp_path) == []


KILLED = """
import os, sys
from codeformer.cli import main
from codeformer.video.work import WorkFolder
finish = WorkFolder.finish
def killed(self, number, record):
    finish(self, number, record)
    if number == 1:
        os.kill(os.getpid(), 9)
WorkFolder.finish = killed
main(sys.argv[1:])
"""


def test_a_killed_run_goes_on_with_its_stretches(
    s3: Any,
    video: Callable[..., int],
    small_model_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    s3.pipe_file("bkt/in/a.mp4", make_film(tmp_path / "here.mp4", 9).read_bytes())
    words = ["s3://bkt/in/a.mp4", "-o", "s3://bkt/out", "--stretch", "3"]
    rest = ["--model", str(small_model_path), "--device", "cpu"]
    killed = subprocess.run([sys.executable, "-c", KILLED, "video", *words, *rest], env=dict(os.environ))
    assert killed.returncode == -9 and not s3.exists("bkt/out")
    assert len([name for name in left(tmp_path) if name.startswith("codeformer-films-")]) == 1
    assert video(*words) == ExitCode.OK
    assert "going on after the first 6 frames" in capsys.readouterr().err
    (tmp_path / "made.mp4").write_bytes(s3.cat_file("bkt/out/a.mp4"))
    assert len(decode(tmp_path / "made.mp4")) == 9
    assert not [name for name in left(tmp_path) if name.startswith("codeformer-films-")]
