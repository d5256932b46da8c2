"""Tar files behind URLs: from a bucket into another folder of it."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from codeformer.cli import main
from codeformer.errors import ExitCode
from tests.stores.listing import below
from tests.tars.test_tars import shards


def test_tar_files_from_a_bucket_into_another_folder_of_it_and_again(
    s3: Any,
    small_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    shards(tmp_path, {"c-0": 2, "c-1": 1, "c-2": 3})
    os.truncate(tmp_path / "c-2.tar", (tmp_path / "c-2.tar").stat().st_size // 2)
    for index in range(3):
        s3.pipe_file(f"bkt/in/c-{index}.tar", (tmp_path / f"c-{index}.tar").read_bytes())
    words = ["restore", "s3://bkt/in/c-{0..3}.tar", "-o", "s3://bkt/out", "--has_aligned", "--device", "cpu"]
    words += ["--model", str(small_model_path), "--json"]
    for run in range(2):
        assert main(words) == ExitCode.SOME_FAILED
        out, err = capsys.readouterr()
        assert "s3://bkt/in/c-2.tar: is cut off" in err and "s3://bkt/in/c-3.tar: no such file or bucket" in err
        assert str(tmp_path) not in out + err
        told = {json.loads(line)["input"]: json.loads(line)["status"] for line in out.splitlines()}
        assert ("s3://bkt/in/c-0.tar/c-0/0001.png" in told) == (run == 0)
        made = below(s3, "s3://bkt/out")
        assert sorted(made) == ["c-0.tar", "c-1.tar", "c-2.tar", "results.json"]
    with tarfile.open(fileobj=io.BytesIO(made["c-0.tar"])) as tar:
        names = [f"c-0/000{index}.{kind}" for index in range(2) for kind in ("cls", "json", "png")]
        assert sorted(tar.getnames()) == names
    known = {one["input"]: one for one in json.loads(made["results.json"])["inputs"]}
    assert known["s3://bkt/in/c-0.tar"]["status"] == "packed"
    assert known["s3://bkt/in/c-0.tar/c-0/0001.png"]["members"] == ["c-0/0001.png"]
    assert str(tmp_path) not in json.dumps(known)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("codeformer-")] == []
