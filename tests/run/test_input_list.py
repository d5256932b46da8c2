"""Inputs that a file names: lines, tables, stdin."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer.cli import main
from codeformer.errors import InputError, UsageError
from codeformer.run.input_list import listed
from codeformer.run.inputs import Input, assign_names, find_inputs

names = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=8).filter(
    lambda name: "://" not in name and not name.startswith("\ufeff")
)


@given(st.lists(names, max_size=6), st.sampled_from(["\n", "\r\n"]), st.booleans())
@settings(deadline=None)
def test_one_path_a_line(tmp_path_factory: pytest.TempPathFactory, paths: list[str], end: str, mark: bool) -> None:
    file = tmp_path_factory.mktemp("list") / "list.txt"
    file.write_bytes(("\ufeff" * mark + end.join(["", *paths, ""])).encode())
    assert list(listed(file)) == [Path(name) for name in paths]


@pytest.mark.skipif(os.name != "posix", reason="paths are bytes there")
def test_a_path_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a\xff.png\n")
    assert [os.fsencode(path) for path in listed(tmp_path / "list.txt")] == [b"a\xff.png"]


def test_a_column_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,input,w\n1,"x, y.png",0.5\n2,,\n3,z.png,1\n')
    assert list(listed(tmp_path / "a.csv")) == [Path("x, y.png"), Path("z.png")]
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table({"n": [1, 2], "path": ["x.png", None]}), tmp_path / "a.parquet")
    assert list(listed(tmp_path / "a.parquet")) == [Path("x.png")]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"id,picture\n1,a.png\n", "needs a column path, input, file; its columns are: id, picture"),
        ("a.csv", b"", "its columns are: none"),
        ("a.parquet", b"no table", "--input_list"),
        ("gone.txt", None, "No such file"),
    ],
)
def test_what_is_no_list_is_said(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        list(listed(tmp_path / name))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match="pip install"):
        list(listed(tmp_path / "a.parquet"))


def test_listed_files_are_inputs_beside_the_others(tmp_path: Path) -> None:
    for name in ("a.png", "one/b.png", "one/c.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list").write_text("\n".join(map(str, (tmp_path / "one", tmp_path / "a.png", tmp_path / "gone.png"))))
    found = find_inputs(
        [tmp_path / "a.png"],
        recursive=False,
        suffixes=frozenset({".png"}),
        root=tmp_path / "o",
        input_list=tmp_path / "list",
    )
    assert [one.path.name for one in found.inputs] == ["a.png", "b.png", "c.png", "gone.png"]
    (tmp_path / "list").write_text("\n")
    with pytest.raises(InputError, match="list: no pictures here"):
        find_inputs([], recursive=False, suffixes=frozenset(), root=tmp_path / "o", input_list=tmp_path / "list")


def test_many_inputs_of_one_name_are_numbered_without_looking_at_all_before() -> None:
    named = assign_names([Input(Path(f"/{i}/face.png")) for i in range(3000)], {"/7/face.png": "face_2"})
    stems = [one.stem for one in named]
    assert stems[:3] == ["face", "face_3", "face_4"] and stems[7] == "face_2" and len(set(stems)) == 3000


def test_a_list_from_stdin_gives_the_folder_its_name(
    tmp_path: Path, small_model_path: Path, cli: Callable[..., Any]
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    ran = cli(
        *("restore", "--input_list", "-", "--aligned", "--model", small_model_path, "-w", "0.5"),
        cwd=tmp_path,
        input="bad.png\nbad.png\n",
    )
    assert ran.returncode == 3
    report = json.loads((tmp_path / "results/stdin_0.5/results.json").read_text())
    assert [one["input"] for one in report["inputs"]] == [str(tmp_path / "bad.png")]


@pytest.mark.parametrize("flags", [["--watch"], ["-o", "-"], ["-o", "x.png"]])
def test_what_does_not_go_with_a_list(tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list").write_text("a.png\n")
    assert main(["restore", "--input_list", str(tmp_path / "list"), *flags]) == 2
    assert "error:" in capsys.readouterr().err


def test_the_columns_of_a_table_are_named_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text('"n\r\nm",other\n0,a.png\n')
    with pytest.raises(InputError) as caught:
        list(listed(file))
    assert "\n" not in str(caught.value) and "other" in str(caught.value)
