"""Reports of very many inputs, and of several processes: journals that stay until they are joined."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer.cli import main
from codeformer.errors import InputError, OutputError
from codeformer.images.picture import Picture, write_picture
from codeformer.options import Shard
from codeformer.run.index import Index, Position
from codeformer.run.inputs import Input
from codeformer.run.join import as_csv, as_table, join, reports_in
from codeformer.run.journal import journal_name
from codeformer.run.report import JOURNAL, NAME, Report, look
from codeformer.run.runner import named_inputs
from codeformer.run.stored import Known
from codeformer.video.films import films_of
from codeformer.video.options import FilmOptions
from tests.run.test_report import record

HEAD = {"codeformer": "x", "task": "restore", "started": "2030-01-01T00:00:00+00:00", "state": "finished"}


def entry(key: str, fingerprint: str = "f", **more: Any) -> dict[str, Any]:
    return {**record(key), "fingerprint": fingerprint, **more}


def inputs_of(root: Path) -> dict[str, str]:
    return {one["input"]: one["fingerprint"] for one in json.loads((root / NAME).read_text())["inputs"]}


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codeformer.run.report.LARGE", 3)


# --- the index ---------------------------------------------------------------------------------------------------

puts = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xXyé"), st.integers(0, 3)), max_size=12)


@given(puts)
@settings(deadline=None)
def test_of_an_input_the_record_of_the_latest_run_counts(puts: list[tuple[str, str, int]]) -> None:
    index, wanted, newest = Index(), dict[str, Known](), dict[str, int]()
    for number, (key, stem, began) in enumerate(puts):
        known = Known(str(number), stem, "restored", ((f"{number}.png", number),), (("old.png", 1),))
        index.put(key, known, Position("j", number, 1, str(began)))
        if began >= newest.get(key, 0):
            wanted[key], newest[key] = known, began
    assert dict(index) == wanted and list(index) == list(wanted) and len(index) == len(wanted)
    assert dict(zip(index, index.known_values(), strict=True)) == wanted
    folded = [known.stem.casefold() for known in wanted.values()]
    first = dict(reversed(list(zip(folded, wanted, strict=True))))
    assert set(index.names()) == set(first.values())


# --- very many inputs --------------------------------------------------------------------------------------------


def test_of_very_many_the_journal_stays_until_it_is_joined(tmp_path: Path, large: None) -> None:
    with Report(tmp_path) as report:
        for key in "abc":
            report.append(entry(key))
        report.finish(HEAD)
    before = (tmp_path / NAME).read_bytes()
    with Report(tmp_path) as report:
        report.append(entry("d"))
        report.append(entry("b", "new"))
        assert report.left_to_join
        report.finish({**HEAD, "state": "interrupted"})
    assert (tmp_path / NAME).read_bytes() == before, "results.json is left alone"
    with Report(tmp_path) as report:
        assert {key: known.fingerprint for key, known in report.known.items()} == {
            "a": "f",
            "b": "new",
            "c": "f",
            "d": "f",
        }
        assert report.head()["state"] == "interrupted"
    assert (tmp_path / JOURNAL).exists()
    head, count = join(tmp_path, NAME)
    assert (head["state"], count) == ("interrupted", 4)
    assert inputs_of(tmp_path) == {"a": "f", "b": "new", "c": "f", "d": "f"} and not (tmp_path / JOURNAL).exists()
    assert join(tmp_path, NAME)[1] == 4, "again is no harm"
    assert json.loads((tmp_path / NAME).read_text())["state"] == "interrupted"


def test_a_record_is_read_back_wherever_it_stands(tmp_path: Path) -> None:
    with Report(tmp_path) as report:
        report.append(entry("a", extra="é" * 50))
        report.append(entry("b"))
        assert report.record("a") == entry("a", extra="é" * 50)
        report.merge(HEAD)
        report.append(entry("b", "new"))
        assert [report.record(key) for key in "abz"] == [entry("a", extra="é" * 50), entry("b", "new"), None]
        report.merge(HEAD)
        assert list(report.records()) == [entry("a", extra="é" * 50), entry("b", "new")]


def test_a_report_that_was_formatted_anew_goes_on(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(json.dumps({"format": 1, "inputs": [entry("a"), entry("b")]}, indent=4))
    with Report(tmp_path) as report:
        assert report.record("a") == entry("a")
        report.append(entry("b", "new"))
        report.finish(HEAD)
    assert inputs_of(tmp_path) == {"a": "f", "b": "new"}


def test_a_journal_that_somebody_cuts_meanwhile_is_an_error(tmp_path: Path) -> None:
    with Report(tmp_path) as report:
        report.append(entry("a"))
        os.truncate(tmp_path / JOURNAL, 9)
        with pytest.raises(OutputError, match="was changed during the run"):
            report.merge(HEAD)


# --- shards ------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=5), unique=True), st.integers(1, 7))
def test_each_input_is_taken_by_exactly_one_shard(keys: list[str], count: int) -> None:
    shards = [Shard(index, count) for index in range(count)]
    assert all(sum(shard.takes(key) for shard in shards) == 1 for key in keys)


def test_films_are_divided_too(tmp_path: Path) -> None:
    films = [FilmOptions(tmp_path / f"{number}.mp4") for number in range(9)]
    parts = [films_of(films, Shard(index, 3)) for index in range(3)]
    assert sorted((film for part in parts for film in part), key=lambda film: film.source) == films
    assert films_of(films, None) == films


def test_who_may_write_beside_whom(tmp_path: Path) -> None:
    first, second, other = Shard(0, 2), Shard(1, 2), Shard(0, 3)
    with Report(tmp_path, shard=first), Report(tmp_path, shard=second):
        for shard in (None, first, other):
            with pytest.raises(OutputError, match="another codeformer is writing here"):
                Report(tmp_path, shard=shard)
    with Report(tmp_path):
        for shard in (None, first, other):
            with pytest.raises(OutputError, match="another codeformer is writing here"):
                Report(tmp_path, shard=shard)
    with Report(tmp_path, shard=other):
        pass


def test_shards_are_joined_also_while_they_work(tmp_path: Path) -> None:
    summary = {"inputs": 2, "done": 1, "faces": 1, "failed": 1, "seconds": 3.5}
    with Report(tmp_path, shard=Shard(0, 2)) as one, Report(tmp_path, shard=Shard(1, 2)) as two:
        one.begin(HEAD)
        one.append(entry("a"))
        two.begin(HEAD)
        two.append(entry("b"))
        head, count = join(tmp_path, NAME)
        assert (head["state"], count) == ("running", 2) and inputs_of(tmp_path) == {"a": "f", "b": "f"}
        one.append(entry("c"))
        one.finish({**HEAD, "summary": summary})
        two.finish({**HEAD, "summary": summary, "finished": "2030-01-02"})
    head, count = join(tmp_path, NAME)
    assert (head["state"], count, list(head["shards"])) == ("finished", 3, ["0/2", "1/2"])
    assert head["summary"]["done"] == 2 and head["summary"]["failed"] == 2 and head["summary"]["seconds"] == 3.5
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME]
    with Report(tmp_path, shard=Shard(1, 2)) as two:  # one of them goes on later
        two.begin(HEAD)
        two.finish({**HEAD, "state": "interrupted", "summary": summary})
    head, _ = join(tmp_path, NAME)
    assert head["state"] == "interrupted" and list(head["shards"]) == ["0/2", "1/2"]


def test_an_ordinary_run_takes_in_what_shards_left(tmp_path: Path) -> None:
    with Report(tmp_path, shard=Shard(0, 2)) as report:
        report.append(entry("a"))
        report.finish(HEAD)
    with Report(tmp_path) as report:
        assert report.is_done("a", "f")
        report.append(entry("b"))
        report.finish(HEAD)
    assert inputs_of(tmp_path) == {"a": "f", "b": "f"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME]


def test_the_later_run_of_two_journals_counts(tmp_path: Path) -> None:
    for shard, fingerprint, started in ((Shard(0, 2), "old", "2030"), (Shard(0, 3), "new", "2031")):
        with Report(tmp_path, shard=shard) as report:
            report.begin({**HEAD, "started": started})
            report.append(entry("a", fingerprint))
            report.finish({**HEAD, "started": started})
    os.utime(tmp_path / journal_name(NAME, Shard(0, 2)))  # the files' times do not decide
    assert look(tmp_path).known["a"].fingerprint == "new"
    assert look(tmp_path).head()["shards"].keys() == {"0/3"}


def test_shards_that_see_different_folders_never_share_a_name(tmp_path: Path) -> None:
    """Between the starts of two shards a picture arrives whose name would have been another's."""
    early = [Input(Path(f"/in/{name}.png")) for name in "abcdefgh"]
    late = [Input(Path(f"/in/{name}.bmp")) for name in "abcdefgh"] + early
    with Report(tmp_path, shard=Shard(0, 2)) as one, Report(tmp_path, shard=Shard(1, 2)) as two:
        _, first = named_inputs(one, early)
        _, second = named_inputs(two, late)
        items = [*first, *second]
        assert len({item.stem for item in items}) == len(items)
        assert not {item.key for item in first} & {item.key for item in second}


# --- the command -------------------------------------------------------------------------------------------------


def test_a_table_and_csv(tmp_path: Path) -> None:
    failed = {"kind": "InputError", "message": 'a,"b"\nc', "exit_code": 3}
    with Report(tmp_path) as report:
        faces = [{"chosen": True}, {"chosen": False}]
        report.append(entry("a", output_size=[4, 5], faces=faces, seconds={"read": 0.5, "find": 0.25}))
        report.append({**entry("b"), "status": "failed", "error": failed})
    rows = list(csv.DictReader("\n".join(as_csv(tmp_path, NAME)).splitlines(keepends=True)))
    assert (rows[0]["faces"], rows[0]["width"], rows[0]["seconds"]) == ("1", "4", "0.75")
    assert rows[1]["error"] == failed["message"] and rows[1]["exit_code"] == "3"
    lines = list(as_table(tmp_path, NAME))
    assert lines[1].split() == ["restored", "1", "a"] and "2 inputs" in lines[-1]
    assert reports_in(tmp_path) == [NAME]
    with pytest.raises(InputError, match="holds no report"):
        reports_in(tmp_path.parent)
    with pytest.raises(InputError, match="no such folder"):
        reports_in(tmp_path / "gone")


def test_an_ordinary_run_is_not_disturbed(tmp_path: Path) -> None:
    with Report(tmp_path) as report:
        report.append(entry("a"))
        with pytest.raises(OutputError, match="another codeformer is writing here"):
            join(tmp_path, NAME)
        assert "a" in "".join(as_csv(tmp_path, NAME)), "it may be read"


COUNT = 12


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_two_processes_share_a_folder_and_one_is_killed(
    tmp_path: Path, small_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is lost and nothing done twice; the bad input is named; the bytes are those of one process."""
    for i in range(COUNT):
        noise = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        write_picture(Picture(noise), tmp_path / "in" / f"{i}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    words = ["restore", tmp_path / "in", "--aligned", "--model", small_model_path, "-w", "0.5", "--only_final"]
    out, alone = tmp_path / "out", tmp_path / "alone"

    def start(index: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "codeformer", *map(str, words), "-o", str(out), "--shard", f"{index}/2"]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    both = [start(0), start(1)]
    journal = out / journal_name(NAME, Shard(1, 2))
    while both[1].poll() is None and not (journal.exists() and b'{"input"' in journal.read_bytes()):
        time.sleep(0.01)
    both[1].send_signal(signal.SIGKILL)
    codes = [process.wait(120) for process in both]
    assert codes[0] in (0, 1) and codes[1] in (0, 1, -signal.SIGKILL)
    again = [main([*map(str, words), "-o", str(out), "--shard", f"{index}/2"]) for index in (0, 1)]
    assert sorted(again) == [0, 1], "the shard of the bad one"
    assert capsys.readouterr().err.count("error:") == 1
    assert main([*map(str, words), "-o", str(alone)]) == 1
    assert main(["report", str(out)]) == 0
    report, reference = (json.loads((root / NAME).read_text()) for root in (out, alone))
    assert report["state"] == "finished" and report["summary"]["inputs"] == COUNT + 1

    def said(whole: dict[str, Any]) -> list[dict[str, Any]]:
        records = [{key: value for key, value in one.items() if key != "seconds"} for one in whole["inputs"]]
        return sorted(records, key=lambda one: one["input"])

    assert said(report) == said(reference)
    trees = [{p.name: p.read_bytes() for p in (root / "restored_faces").iterdir()} for root in (out, alone)]
    assert trees[0] == trees[1] and len(trees[0]) == COUNT
    assert main([*map(str, words), "-o", str(out), "--dry_run"]) == 1  # all but the bad one is done


def test_a_shard_that_is_none_is_refused_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    for text, says in (("4/4", "0/4 to 3/4"), ("x", "write 0/4"), ("1", "write 0/4"), ("0/0", "N from 1")):
        assert main(["restore", "a.png", "--shard", text]) == 2
        assert says in capsys.readouterr().err
