"""URLs for inputs and outputs: a real S3 server on this machine, and fsspec's store in memory."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from codeformer.cli import main
from codeformer.errors import ExitCode
from codeformer.files.urls import local_path, url_of
from tests.crops import crop
from tests.stores.listing import below

fsspec = pytest.importorskip("fsspec", reason="pip install fsspec s3fs")


def records(files: Any, url: str) -> dict[str, dict[str, Any]]:
    return {one["input"]: one for one in json.loads(files.cat_file(f"{url}/results.json"))["inputs"]}


@pytest.mark.parametrize(
    ("given", "url", "path"),
    [
        ("s3://bkt/photos", "s3://bkt/photos", None),
        ("gs://b/a b.png", "gs://b/a b.png", None),
        ("S3://bkt/x/", "s3://bkt/x", None),
        ("file:///tmp/x.png", None, "/tmp/x.png"),
        ("C:/x", None, "C:/x"),
        ("a/b.png", None, "a/b.png"),
        ("-", None, "-"),
    ],
)
def test_what_is_a_url(given: str, url: str | None, path: str | None) -> None:
    assert url_of(Path(given)) == url
    if path is not None:
        assert local_path(Path(given)) == Path(path)


def test_from_a_bucket_into_another_folder_of_it_and_again(
    s3: Any, restore: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "album/a.png", "album/deep/c.png", "notes.txt"):
        s3.pipe_file(f"bkt/in/{name}", crop(len(name)))
    s3.pipe_file("bkt/in/bad.png", b"no picture")
    assert restore("s3://bkt/in", "-o", "s3://bkt/out", "--recursive", "--json") == ExitCode.SOME_FAILED
    out, err = capsys.readouterr()
    assert "s3://bkt/in/bad.png" in err and str(tmp_path) not in out + err
    assert {json.loads(line)["input"] for line in out.splitlines()} == set(records(s3, "bkt/out"))
    made = below(s3, "s3://bkt/out")
    assert sorted(made) == [
        "restored_faces/a.png",
        "restored_faces/album/a.png",
        "restored_faces/album/deep/c.png",
        "results.json",
    ]
    known = records(s3, "bkt/out")
    assert [known[f"s3://bkt/in/{name}"]["status"] for name in ("a.png", "bad.png")] == ["restored", "failed"]
    assert str(tmp_path) not in json.dumps(known)
    # the same bytes as from and to this machine
    (tmp_path / "here").mkdir()
    (tmp_path / "here/a.png").write_bytes(crop(5))
    assert restore("here", "-o", "there") == ExitCode.OK
    assert (tmp_path / "there/restored_faces/a.png").read_bytes() == made["restored_faces/a.png"]
    # again: one object has changed, one result is gone, the others are not even fetched
    s3.pipe_file("bkt/in/a.png", crop(77))
    s3.rm_file("bkt/out/restored_faces/album/deep/c.png")
    capsys.readouterr()
    assert restore("s3://bkt/in", "-o", "s3://bkt/out", "--recursive", "--json") == ExitCode.SOME_FAILED
    again = {json.loads(line)["input"] for line in capsys.readouterr().out.splitlines()}
    assert again == {"s3://bkt/in/a.png", "s3://bkt/in/album/deep/c.png", "s3://bkt/in/bad.png"}
    changed = below(s3, "s3://bkt/out")
    assert sorted(changed) == sorted(made) and changed["restored_faces/a.png"] != made["restored_faces/a.png"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("codeformer-")] == []


def test_a_list_of_urls_and_paths_into_a_folder_here(s3: Any, restore: Callable[..., int], tmp_path: Path) -> None:
    s3.pipe_file("bkt/x.png", crop(1))
    (tmp_path / "y.png").write_bytes(crop(2))
    (tmp_path / "list.csv").write_text("path\ns3://bkt/x.png\ny.png\ns3://bkt/gone.png\n")
    assert restore("--input_list", "list.csv", "-o", "out") == ExitCode.SOME_FAILED
    known = {one["input"]: one for one in json.loads((tmp_path / "out/results.json").read_text())["inputs"]}
    assert {key: one["status"] for key, one in known.items()} == {
        "s3://bkt/x.png": "restored",
        str(tmp_path / "y.png"): "restored",
        "s3://bkt/gone.png": "failed",
    }
    assert known["s3://bkt/gone.png"]["error"]["message"] == "s3://bkt/gone.png: no such file or bucket"
    assert (tmp_path / "out/restored_faces/x.png").is_file()


def test_shards_into_a_bucket_are_joined_by_report(
    s3: Any, restore: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(6):
        s3.pipe_file(f"bkt/in/{index}.png", crop(index))
    for shard in ("0/2", "1/2"):
        assert restore("s3://bkt/in", "-o", "s3://bkt/out", "--shard", shard) == ExitCode.OK
    assert any(name.startswith("results.0-of-2.jsonl.parts/") for name in below(s3, "s3://bkt/out"))
    assert "codeformer report s3://bkt/out joins them" in capsys.readouterr().err
    assert main(["report", "s3://bkt/out"]) == ExitCode.OK
    assert capsys.readouterr().out.strip() == "s3://bkt/out/results.json"
    assert {one["status"] for one in records(s3, "bkt/out").values()} == {"restored"} and len(
        records(s3, "bkt/out")
    ) == 6
    assert not any(".parts/" in name for name in below(s3, "s3://bkt/out"))
    assert restore("s3://bkt/in", "-o", "s3://bkt/out") == ExitCode.OK
    assert "nothing to do: all 6 were done already" in capsys.readouterr().err


def test_one_picture_from_a_url_and_to_a_url(
    s3: Any, restore: Callable[..., int], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    s3.pipe_file("bkt/x.png", crop(1))
    assert restore("s3://bkt/x.png", "-o", "s3://bkt/made/one.png") == ExitCode.OK
    assert restore("s3://bkt/x.png", "-o", "one.png") == ExitCode.OK
    assert s3.cat_file("bkt/made/one.png") == (tmp_path / "one.png").read_bytes()
    assert restore("s3://bkt/x.png", "-o", "s3://bkt/made/one.png") == ExitCode.USAGE
    capfdbinary.readouterr()
    assert restore("s3://bkt/x.png", "-o", "-") == ExitCode.OK
    assert capfdbinary.readouterr().out == (tmp_path / "one.png").read_bytes()


def test_what_the_store_refuses_names_the_url(
    s3: Any, restore: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    s3.pipe_file("bkt/in/x.png", crop(1))
    assert restore("s3://bkt/in", "-o", "s3://nobucket/out") == ExitCode.OUTPUT
    assert "s3://nobucket/out: no such bucket; make it" in capsys.readouterr().err
    assert restore("s3://nobucket/in", "-o", "out") == ExitCode.BAD_INPUT
    assert "s3://nobucket/in: no such file or bucket" in capsys.readouterr().err
    assert restore("s3://bkt/in", "-o", "s3://bkt/in/out") == ExitCode.OK  # the results are not inputs of the next run
    assert restore("s3://bkt/in", "-o", "s3://bkt/in/out", "--recursive") == ExitCode.OK
    assert restore("s3://bkt/in", "-o", "s3://bkt/in") == ExitCode.USAGE
    assert restore("s3://bkt/in", "-o", "out", "--watch") == ExitCode.USAGE
    capsys.readouterr()
    assert restore("nosuch://b/in", "-o", "out") == ExitCode.USAGE
    assert "fsspec knows no nosuch://" in capsys.readouterr().err


def test_a_denied_result_is_this_inputs_failure(
    s3: Any, restore: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from codeformer.stores.access import Store

    for name in ("x", "y"):
        s3.pipe_file(f"bkt/in/{name}.png", crop(ord(name)))
    put = Store.put

    def denied(self: Store, source: Path, url: str) -> None:
        if url.endswith("x.png"):
            raise PermissionError("Access Denied")
        put(self, source, url)

    monkeypatch.setattr(Store, "put", denied)
    assert restore("s3://bkt/in", "-o", "s3://bkt/out") == ExitCode.SOME_FAILED
    err = capsys.readouterr().err
    assert "s3://bkt/out/restored_faces/x.png: may not be written (Access Denied); give the store's credentials" in err
    known = records(s3, "bkt/out")
    assert [known[f"s3://bkt/in/{name}.png"]["status"] for name in "xy"] == ["failed", "restored"]
    assert sorted(below(s3, "s3://bkt/out")) == ["restored_faces/y.png", "results.json"]
    monkeypatch.undo()


def test_a_plan_reads_the_beginnings_and_writes_nothing(
    s3: Any, restore: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    s3.pipe_file("bkt/in/x.png", crop(1))
    s3.pipe_file("bkt/in/z.png", b"no picture")
    assert restore("s3://bkt/in", "-o", "s3://bkt/out", "--dry_run") == ExitCode.SOME_FAILED
    out, err = capsys.readouterr()
    assert "s3://bkt/in/x.png -> s3://bkt/out/restored_faces/x.png" in out and "s3://bkt/in/z.png" in err
    assert not s3.exists("bkt/out")


def test_without_fsspec_a_line_says_what_to_install(
    restore: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert restore("s3://bkt/in", "-o", "out") == ExitCode.USAGE
    assert "pip install fsspec s3fs" in capsys.readouterr().err


KILLED = """
import os, sys
from codeformer.cli import main
from codeformer.stores import outputs
outputs._EVERY, outputs._GROUP = 0.0, 2
from codeformer.stores.outputs import StoredOutputs
put, count = StoredOutputs._put_piece, [0]
def counted(self, name, data):
    put(self, name, data)
    count[0] += 1
    if count[0] == 4:
        os.kill(os.getpid(), 9)
StoredOutputs._put_piece = counted
main(sys.argv[1:])
"""


def test_a_killed_run_goes_on_and_nothing_is_there_twice(
    s3: Any, restore: Callable[..., int], small_model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(12):
        s3.pipe_file(f"bkt/in/{index % 2}/face{index}.png", crop(index))
    words = ["restore", "s3://bkt/in", "-o", "s3://bkt/out", "--recursive", "--has_aligned", "--device", "cpu"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *words, "--model", str(small_model_path)], cwd=tmp_path, env=dict(os.environ)
    )
    assert killed.returncode == -9
    before = below(s3, "s3://bkt/out")
    up = [name for name in before if name.endswith(".png")]
    assert 0 < len(up) < 12
    assert restore("s3://bkt/in", "-o", "s3://bkt/out", "--recursive") == ExitCode.OK
    assert "were done already" in capsys.readouterr().err
    after = below(s3, "s3://bkt/out")
    assert len([name for name in after if name.endswith(".png")]) == 12
    assert all(after[name] == before[name] for name in up)
    assert len(records(s3, "bkt/out")) == 12 and not any(".parts/" in name for name in after)


def test_align_and_upscale_use_stores_too(
    s3: Any,
    tmp_path: Path,
    portrait: np.ndarray,
    networks: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO()
    Image.fromarray(portrait).save(file, "png")
    s3.pipe_file("bkt/in/p.png", file.getvalue())
    align = ["align", "s3://bkt/in", "s3://bkt/faces", "--size", "64", "--min_size", "32", "--min_sharpness", "0"]
    upscale = ["upscale", "s3://bkt/in", "-o", "s3://bkt/big", "--model", str(networks["nearest"]), "-s", "2"]
    for _ in range(2):
        assert main([*align, "--device", "cpu"]) == ExitCode.OK
        assert main([*upscale, "--device", "cpu"]) == ExitCode.OK
    assert capsys.readouterr().err.count("it was done already") == 2
    assert sorted(below(s3, "s3://bkt/faces")) == ["align.json", "p_01.png"]
    assert sorted(below(s3, "s3://bkt/big")) == ["p.png", "upscale.json"]
    s3.pipe_file("bkt/big/q.png", b"somebody else's")
    s3.pipe_file("bkt/in/q.png", file.getvalue())
    assert main([*upscale, "--device", "cpu"]) == ExitCode.SOME_FAILED
    assert "s3://bkt/big/q.png exists and is not a result of this input" in capsys.readouterr().err
    assert s3.cat_file("bkt/big/q.png") == b"somebody else's"
    assert main([*upscale, "--device", "cpu", "--overwrite"]) == ExitCode.OK
    assert s3.cat_file("bkt/big/q.png")[:4] == b"\x89PNG"
