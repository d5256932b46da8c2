"""A report that somebody else wrote: names from it stay names, and no shape of it blocks the folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codeformer.cli import main
from codeformer.errors import CodeFormerError, OutputError
from codeformer.images.picture import Picture, write_picture
from codeformer.run.inputs import Input, assign_names
from codeformer.run.report import JOURNAL, NAME, Report
from codeformer.run.stored import Known, is_record

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")


def record(key: str, name: str | None = None, *outputs: str, **more: Any) -> dict[str, Any]:
    made = [{"path": path, "bytes": 3} for path in outputs]
    return {
        "input": key,
        "name": key if name is None else name,
        "status": "restored",
        "fingerprint": "f",
        "outputs": made,
        **more,
    }


def report_of(*records: object) -> str:
    return json.dumps({"format": 1, "state": "finished", "inputs": records})


HOSTILE = ["../../victim", "/etc/passwd", "a/../../victim", "..", "", "a\0b", 5, None, ["a"], {"a": 1}]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("file", [NAME, JOURNAL])
@pytest.mark.parametrize("lines", [True, False])
def test_names_that_lead_out_are_no_names(tmp_path: Path, name: Any, file: str, lines: bool) -> None:
    for key in ("name", "path"):
        if key == "name" and name == "":
            continue  # an input that has no name yet
        evil = record("/in/a.png", "a", "final_results/a.png")
        if key == "name":
            evil["name"] = name
        else:
            evil["outputs"][0]["path"] = name
        good = record("/in/b.png", "b")
        root = tmp_path / key
        root.mkdir()
        if file == JOURNAL or lines:
            (root / file).write_text("".join(f"\n{json.dumps(one, separators=(',', ':'))}" for one in (good, evil)))
        else:
            (root / file).write_text(report_of(evil, good))
        with Report(root) as report:
            assert list(report.known) == ["/in/b.png"], "the good one stays known"
            assert report.names() == {"/in/b.png": "b"}
            if file == NAME:
                assert report.damaged == root / f"{NAME}.damaged"
            (named,) = assign_names([Input(Path("/in/a.png"))], report.names())
            assert named.stem == "a"
            report.finish({})
        assert [one["input"] for one in json.loads((root / NAME).read_text())["inputs"]] == ["/in/b.png"]


def test_stale_results_are_removed_below_the_folder_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(b"own")
    root.mkdir()
    (root / "final_results").symlink_to(outside)
    with Report(root) as report:
        report.append(record("a", "a", "final_results/a.png"))
        assert not report.is_done("a", "f"), "what lies behind a link is not a result"
        report.remove_stale(record("a", "a"), lambda name: True)
    assert (outside / "a.png").read_bytes() == b"own"


def test_two_inputs_never_share_a_name(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(report_of(record("/in/a.png", "x"), record("/in/b.png", "X")))
    with Report(tmp_path) as report:
        named = assign_names([Input(Path("/in/a.png")), Input(Path("/in/b.png"))], report.names())
    assert named[0].stem == "x" and named[1].stem.casefold() != "x"


def plant(path: Path, what: str, victim: Path) -> None:
    if what == "link":
        path.symlink_to(victim)
    elif what == "dangling":
        path.symlink_to(victim.parent / "made")
    elif what == "second name":
        os.link(victim, path)
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        (path / "inside").mkdir(parents=True)
    else:
        path.symlink_to("/dev/zero")


PLANTS = ["link", "dangling", "second name", "pipe", "folder", "zero"]
RUN = """
import sys
from pathlib import Path
from codeformer.run.report import Report
with Report(Path(sys.argv[1])) as report:
    print(report.damaged)
    report.append({"input": "a", "name": "a", "status": "failed", "fingerprint": "", "outputs": []})
    report.merge({"state": "running"})
    report.finish({"state": "finished"})
"""


@pytest.mark.parametrize("what", PLANTS)
@pytest.mark.parametrize("name", [NAME, JOURNAL, f".{NAME}.tmp"])
def test_planted_files_are_neither_followed_nor_in_the_way(tmp_path: Path, name: str, what: str) -> None:
    victim, root = tmp_path / "victim", tmp_path / "root"
    victim.write_bytes(b"precious")
    root.mkdir()
    plant(root / name, what, victim)
    ended = subprocess.run(
        [sys.executable, "-c", RUN, str(root)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert victim.read_bytes() == b"precious" and not (tmp_path / "made").exists()
    whole = json.loads((root / NAME).read_text())
    assert not (root / NAME).is_symlink() and [one["input"] for one in whole["inputs"]] == ["a"]
    assert not os.path.lexists(root / JOURNAL)


@pytest.mark.parametrize("text", ["", "null", "5", "[]", "{}", '"x"', "{", "\0" * 99, "[" * 100_000, '{"a":' * 100_000])
def test_what_holds_nothing_is_set_aside(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with Report(tmp_path) as report:
        assert report.damaged == tmp_path / f"{NAME}.damaged"
        report.append(record("a"))
        report.finish({})
    assert (tmp_path / f"{NAME}.damaged").read_text() == text
    with Report(tmp_path) as report:
        assert report.damaged is None and list(report.known) == ["a"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["../x", "/x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["input", "name", "status", "fingerprint", "outputs", "path", "bytes", "faces"])
records = st.dictionaries(keys, json_values, max_size=6) | json_values
malformed = st.fixed_dictionaries({"format": json_values, "inputs": st.lists(records, max_size=4) | json_values})


@given(value=malformed, indent=st.sampled_from([None, 1]), name=st.sampled_from([NAME, JOURNAL]), cut=st.integers(0, 3))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_shape_of_a_report_blocks_a_folder(
    tmp_path: Path, value: object, indent: int | None, name: str, cut: int
) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    text = json.dumps(value, indent=indent)
    (tmp_path / name).write_text(text[: len(text) - cut])
    try:
        with Report(tmp_path) as report:
            assert all(is_record(one) for one in report.records())
            report.append(record("new"))
            report.finish({})
    except OutputError as error:
        assert name == JOURNAL and "not codeformer's" in str(error)
        return
    assert json.loads((tmp_path / NAME).read_text())["inputs"][-1]["input"] == "new"


@given(st.binary(max_size=300))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_bytes_give_a_report_or_our_error(tmp_path: Path, data: bytes) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / NAME).write_bytes(data)
    try:
        with Report(tmp_path) as report:
            report.finish({})
    except CodeFormerError as error:
        assert "\n" not in str(error)


def test_a_journal_that_ends_meanwhile_is_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends between our opening and our locking removes the journal: lines written to it would be lost."""
    from codeformer.run import report as module

    real, removed = module.lock, []

    def end_of_the_other(file: Any) -> bool | None:
        if not removed:
            (tmp_path / JOURNAL).unlink()
            removed.append(True)
        return real(file)

    monkeypatch.setattr(module, "lock", end_of_the_other)
    with Report(tmp_path) as report:
        report.append(record("a"))
        assert b'"input":"a"' in (tmp_path / JOURNAL).read_bytes()


def test_known_results_are_files_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert Known("f", "a", "restored", (("a", 3),)).complete(tmp_path)
    for name in ("link", "../a", "missing"):
        assert not Known("f", "a", "restored", ((name, 3),)).complete(tmp_path)


def test_a_second_run_keeps_the_report_whole(tmp_path: Path) -> None:
    """It opens no network, so what the results ran on is what the first run wrote."""
    write_picture(Picture(np.full((64, 64, 3), 90, np.uint8)), tmp_path / "face.png")
    words = [
        "restore",
        "-i",
        str(tmp_path / "face.png"),
        "-o",
        str(tmp_path / "out"),
        "--aligned",
        "--model",
        "compact",
    ]
    assert main(words) == 0
    first = json.loads((tmp_path / "out" / NAME).read_text())
    assert main(words) == 0
    second = json.loads((tmp_path / "out" / NAME).read_text())
    assert second["summary"]["done_before"] == 1
    for key in ("device", "precision", "networks", "model", "settings", "inputs"):
        assert second[key] == first[key], key
