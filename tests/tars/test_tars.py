"""Tar files as webdataset packs them: samples in, samples out, and what becomes of files that are damaged."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from codeformer.cli import main
from codeformer.errors import ExitCode, InputError, UsageError
from codeformer.tars.names import expanded, is_tar, key_and_field
from codeformer.tars.packing import Packing, member_names
from codeformer.tars.reading import DamagedError, TarSample, samples
from tests.crops import crop


def pack(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """Write a tar file, as webdataset does."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1_600_000_000
            tar.addfile(member, io.BytesIO(data))
    return path


def unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]


def records(out: Path) -> dict[str, dict[str, Any]]:
    return {one["input"]: one for one in json.loads((out / "results.json").read_text())["inputs"]}


# Names


@given(st.integers(0, 10**6), st.integers(0, 300), st.integers(1, 7), st.booleans())
def test_braces_count_with_the_digits_of_their_ends(low: int, more: int, width: int, down: bool) -> None:
    ends = [f"{low:0{width}d}", f"{low + more:0{width}d}"]
    numbers = list(range(low, low + more + 1))
    if down:
        ends, numbers = ends[::-1], numbers[::-1]
    padded = any(len(one) > 1 and one.startswith("0") for one in ends)
    names = [f"a-{number:0{max(map(len, ends))}d}.tar" if padded else f"a-{number}.tar" for number in numbers]
    assert [str(path) for path in expanded(Path(f"a-{{{ends[0]}..{ends[1]}}}.tar"))] == names


words = st.text("abcxyz019-_ ", max_size=4)


@given(st.lists(st.one_of(words, st.lists(words, min_size=2, max_size=4)), min_size=1, max_size=4))
def test_lists_in_braces_stand_for_every_combination(parts: list[str | list[str]]) -> None:
    text = "".join(part if isinstance(part, str) else "{" + ",".join(part) + "}" for part in parts)
    expected = [""]
    for part in parts:
        expected = [begin + one for begin in expected for one in ([part] if isinstance(part, str) else part)]
    assert [str(path) for path in expanded(Path(f"x{text}.tar"))] == [str(Path(f"x{one}.tar")) for one in expected]


def test_braces_that_name_a_file_or_mean_nothing_stay(tmp_path: Path) -> None:
    (tmp_path / "a{0..1}.tar").touch()
    for name in ("a{0..1}.tar", "a{b}.tar", "a{.tar", "a{}.tar", "a{1...3}.tar", "a.tar"):
        assert expanded(tmp_path / name) == [tmp_path / name]
    with pytest.raises(UsageError, match="more than 100,000 names"):
        expanded(Path("a-{0..999}{0..999}.tar"))
    with pytest.raises(UsageError, match="unpack it to a plain"):
        is_tar(Path("a.tar.gz"))


def test_keys_are_those_of_webdataset() -> None:
    assert key_and_field("0001.png") == ("0001", "png")
    assert key_and_field("a.b/c/0001.mask.PNG") == ("a.b/c/0001", "mask.PNG")
    assert key_and_field("a/.hidden") == ("", "hidden")
    assert key_and_field("none") == ("none", "")


def test_results_have_the_key_and_a_field_of_their_own() -> None:
    whole = ["cropped_faces/s/3_00.png", "restored_faces/s/3_00_w0.5_x.png", "compare/s/3_x.png", "masks/s/3.png"]
    assert member_names("k", "s/3", [*whole, "final_results/s/3_w0.5_x.png", "final_results/s/3_w1_x.png"]) == [
        "k.cropped_00.png",
        "k.restored_00_w0.5_x.png",
        "k.compare_x.png",
        "k.damage.png",
        "k.w0.5_x.png",
        "k.w1_x.png",
    ]
    assert member_names("k", "s/3", ["restored_faces/s/3.jpg"]) == ["k.jpg"]  # of an aligned crop
    assert member_names("k", "s/3", ["s/3.png"]) == ["k.png"]  # of upscale


# Files

fields = st.dictionaries(st.sampled_from(["json", "cls", "txt", "mask.png", "x.bin"]), st.binary(max_size=2000))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(fields, st.one_of(st.none(), st.binary(max_size=3000))), max_size=6), st.booleans())
def test_what_is_packed_is_what_was_read(contents: list[tuple[dict[str, bytes], bytes | None]], dots: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = "./" if dots else ""
        members = [
            (f"{start}d/{index}.{kind}", data)
            for index, (others, picture) in enumerate(contents)
            for kind, data in ([] if picture is None else [("png", picture)]) + list(others.items())
        ]
        pack(folder / "in.tar", members)
        packing = Packing(folder / "out.tar", folder)
        for number, sample in enumerate(samples(folder / "in.tar", lambda name: folder / "tmp" / name)):
            results = []
            if sample.path is not None:
                results = [(sample.picture, sample.path)]
            assert packing.add(sample, results) == ([sample.picture] if results else [], [])
            sample.close()
            assert number < len(contents)
        packing.finish()
        expected = {name.removeprefix("./"): data for name, data in members}
        assert unpacked(folder / "out.tar") == expected and list(unpacked(folder / "out.tar")) == list(expected)
        assert not [path for path in (folder / "tmp").rglob("*") if path.is_file()]


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_a_file_that_is_cut_anywhere_gives_its_whole_samples_and_says_so(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = data.draw(st.lists(st.integers(0, 3000), min_size=1, max_size=4))
        path = pack(
            folder / "in.tar", [(f"{index}.png", bytes([index + 1]) * size) for index, size in enumerate(sizes)]
        )
        ends = np.cumsum([512 + -(-size // 512) * 512 for size in sizes])
        cut = data.draw(st.integers(1, int(ends[-1])))
        os.truncate(path, cut)
        got: list[TarSample] = []
        with pytest.raises(DamagedError):
            got.extend(samples(path, lambda name: folder / name))
        assert [one.key for one in got] == [str(index) for index in range(len(got))]
        # one that is whole counts when the next one begins or the file ends; never one that is cut
        assert len(got) <= sum(end <= cut + 511 for end in ends)
        for one, size in zip(got, sizes, strict=False):
            assert one.path is not None and one.path.stat().st_size == size


def test_members_that_are_no_plain_files_and_names_that_lead_out(tmp_path: Path) -> None:
    path = tmp_path / "in.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("a.png", tarfile.SYMTYPE), ("d", tarfile.DIRTYPE), ("p.png", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        for name in ("../out.png", "/abs.png", "._x.png", "ok.png", "z.png", "ok.json"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    got = {one.key: one for one in samples(path, lambda name: tmp_path / "tmp" / name)}
    assert "it is a link" in got["a"].notes[0] and got["a"].path is None and got["p"].path is None
    assert isinstance(got["../out"].error, InputError) and isinstance(got["abs"].error, InputError)
    assert not (tmp_path / "out.png").exists() and "._x" not in got and "" not in got
    assert [str(one.error) for one in samples(path, lambda name: tmp_path / "tmp" / name)][-1].startswith("its key was")


def test_times_that_are_no_numbers_stop_nothing(tmp_path: Path) -> None:
    path = tmp_path / "in.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, time in (("a.png", "inf"), ("a.json", "nan"), ("b.png", "12.5")):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 3, {"mtime": time}
            tar.addfile(member, io.BytesIO(b"abc"))
    packing = Packing(tmp_path / "out.tar", tmp_path)
    for one in samples(path, lambda name: tmp_path / "tmp" / name):
        assert one.path is not None
        packing.add(one, [(one.picture, one.path)])
        one.close()
    packing.finish()
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert [(one.name, one.mtime) for one in tar] == [("a.png", 0), ("a.json", 0), ("b.png", 12)]


# Runs


def shards(folder: Path, counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        members = []
        for index in range(count):
            key = f"{name}/{index:04d}"
            members += [(f"{key}.json", b'{"of": "%d"}' % index), (f"{key}.png", crop(index)), (f"{key}.cls", b"7")]
        pack(folder / f"{name}.tar", members)


def test_shards_in_and_out_with_their_keys_and_fields(
    restore: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards(tmp_path, {"c-000": 3, "c-001": 2, "c-002": 1})
    assert restore("c-{000..002}.tar", "-o", "out") == ExitCode.OK
    assert "6 of 6 restored" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("c-000.tar", "c-001.tar", "c-002.tar"),
        "results.json",
    ]
    made = unpacked(tmp_path / "out/c-000.tar")
    assert sorted(made) == sorted(unpacked(tmp_path / "c-000.tar"))
    assert made["c-000/0001.json"] == b'{"of": "1"}' and made["c-000/0002.cls"] == b"7"
    # the same bytes as from files
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/x.png").write_bytes(crop(1))
    (tmp_path / "plain/y.png").write_bytes(crop(2))
    assert restore("plain", "-o", "files") == ExitCode.OK
    assert made["c-000/0001.png"] == (tmp_path / "files/restored_faces/x.png").read_bytes()
    known = records(tmp_path / "out")
    one = known[f"{tmp_path}/c-000.tar/c-000/0001.png"]
    assert (one["status"], one["shard"], one["members"]) == ("restored", "c-000.tar", ["c-000/0001.png"])
    whole = known[f"{tmp_path}/c-000.tar"]
    assert whole["status"] == "packed" and whole["pictures"] == {"done": 3, "without_face": 0, "failed": 0}
    assert whole["outputs"] == [{"path": "c-000.tar", "bytes": (tmp_path / "out/c-000.tar").stat().st_size}]
    # again: nothing; one changes: that one
    before = (tmp_path / "out/c-001.tar").stat().st_mtime_ns
    assert restore("c-{000..002}.tar", "-o", "out") == ExitCode.OK
    assert "all 3 were done already" in capsys.readouterr().err
    shards(tmp_path, {"c-000": 1})
    assert restore("c-{000..002}.tar", "-o", "out") == ExitCode.OK
    assert "1 of 3 restored" in capsys.readouterr().err
    assert len(unpacked(tmp_path / "out/c-000.tar")) == 3
    assert (tmp_path / "out/c-001.tar").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("codeformer-")] == []


def test_a_bad_member_a_cut_off_file_and_none_are_named_and_the_others_go_on(
    restore: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(tmp_path / "a.tar", [("0.png", crop(0)), ("1.png", b"no picture"), ("1.txt", b"x"), ("2.png", crop(2))])
    pack(tmp_path / "b.tar", [("0.png", crop(0)), ("1.png", crop(1)), ("2.png", crop(2))])
    os.truncate(tmp_path / "b.tar", (tmp_path / "b.tar").stat().st_size // 2)
    (tmp_path / "c.tar").write_bytes(b"not a tar file" * 100)
    pack(tmp_path / "d.tar", [("only.txt", b"carried along")])
    words = ("a.tar", "b.tar", "c.tar", "d.tar", "gone.tar", "-o", "out")
    assert restore(*words) == ExitCode.SOME_FAILED
    err = capsys.readouterr().err
    assert f"{tmp_path}/a.tar/1.png: " in err and "b.tar: is cut off or damaged behind" in err
    assert "c.tar: is not a tar file" in err and "gone.tar: cannot be read" in err
    assert sorted(unpacked(tmp_path / "out/a.tar")) == ["0.png", "2.png"]
    assert next(iter(unpacked(tmp_path / "out/b.tar"))) == "0.png"
    assert unpacked(tmp_path / "out/d.tar") == {"only.txt": b"carried along"}
    assert not (tmp_path / "out/c.tar").exists()
    known = records(tmp_path / "out")
    assert known[f"{tmp_path}/a.tar"]["status"] == "failed" and known[f"{tmp_path}/a.tar/1.png"]["status"] == "failed"
    # the same failures, without another try; a file that is there now is done
    stamp = (tmp_path / "out/a.tar").stat().st_mtime_ns
    pack(tmp_path / "gone.tar", [("0.png", crop(0))])
    assert restore(*words) == ExitCode.SOME_FAILED
    again = capsys.readouterr().err
    assert (
        again.count(f"{tmp_path}/a.tar/1.png: ") == 1
        and "b.tar: is cut off" in again
        and "c.tar: is not a tar" in again
    )
    assert (tmp_path / "out/a.tar").stat().st_mtime_ns == stamp and (tmp_path / "out/gone.tar").is_file()
    # mended: done
    pack(tmp_path / "a.tar", [("0.png", crop(0)), ("1.png", crop(1))])
    assert restore("a.tar", "-o", "out") == ExitCode.OK
    assert records(tmp_path / "out")[f"{tmp_path}/a.tar"]["status"] == "packed"
    assert records(tmp_path / "out")[f"{tmp_path}/a.tar/1.png"]["status"] == "restored"


def test_what_does_not_go_with_tar_files_is_said(
    restore: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards(tmp_path, {"a": 1})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.tar").write_bytes(b"somebody else's")
    assert restore("a.tar", "-o", "out") == ExitCode.USAGE
    assert "out/a.tar exists and is not a result of this input" in capsys.readouterr().err
    assert (tmp_path / "out/a.tar").read_bytes() == b"somebody else's"
    assert restore("a.tar", "-o", "out", "--overwrite") == ExitCode.OK
    for words in (
        ("a.tar", "x.png", "-o", "out"),
        ("a.tar", "-o", "x.png"),
        ("a.tar", "-o", "-"),
        ("a.tar", "-o", "out", "--watch"),
        ("a.tar", "-o", "."),
        ("a.tar.gz", "-o", "out"),
        ("a.tar", "-o", "out", "--engine", "ray"),
    ):
        assert restore(*words) == ExitCode.USAGE, words
    assert main(["align", "a.tar", "out"]) == ExitCode.USAGE


def test_a_plan_says_which_tar_file_is_made(
    restore: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards(tmp_path, {"a": 1})
    (tmp_path / "b.tar").write_bytes(b"none")
    assert restore("{a,b}.tar", "-o", "out", "--dry_run") == ExitCode.SOME_FAILED
    out, err = capsys.readouterr()
    assert "a.tar -> out/a.tar" in out and "b.tar: is not a tar file" in err and not (tmp_path / "out").exists()


def test_processes_share_the_tar_files(restore: Callable[..., int], tmp_path: Path) -> None:
    shards(tmp_path, {f"s-{index}": 1 for index in range(6)})
    for shard in ("0/2", "1/2"):
        assert restore("s-{0..5}.tar", "-o", "out", "--shard", shard) == ExitCode.OK
    assert main(["report", "out"]) == ExitCode.OK
    known = records(tmp_path / "out")
    assert sorted(one["name"] for one in known.values() if one["status"] == "packed") == [f"s-{i}" for i in range(6)]
    assert sum(one["status"] == "restored" for one in known.values()) == 6


KILLED = """
import os, sys
from codeformer.cli import main
from codeformer.tars.packing import Packing
name, last = sys.argv[1], int(sys.argv[2])
do, count = getattr(Packing, name), [0]
def counted(self, *args):
    made = do(self, *args)
    count[0] += 1
    if count[0] == last:
        os.kill(os.getpid(), 9)
    return made
setattr(Packing, name, counted)
main(sys.argv[3:])
"""


@pytest.mark.parametrize("where", [("add", "5"), ("finish", "2")], ids=["before", "after"])
def test_a_killed_run_leaves_whole_tar_files_and_goes_on(
    restore: Callable[..., int],
    small_model_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    where: tuple[str, str],
) -> None:
    shards(tmp_path, {"c-0": 3, "c-1": 3})
    words = ["restore", "c-0.tar", "c-1.tar", "-o", "out", "--has_aligned", "--device", "cpu"]
    script = [sys.executable, "-c", KILLED, *where, *words, "--model", str(small_model_path)]
    assert subprocess.run(script, cwd=tmp_path).returncode == -9
    whole = (tmp_path / "out/c-0.tar").read_bytes()
    assert (tmp_path / "out/c-1.tar").exists() == (where[0] == "finish")
    assert restore("c-{0..1}.tar", "-o", "out") == ExitCode.OK
    assert "3 of 4 restored" in capsys.readouterr().err  # the first file counts as one, and was done already
    assert (tmp_path / "out/c-0.tar").read_bytes() == whole
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["c-0.tar", "c-1.tar", "results.json"]
    assert len(unpacked(tmp_path / "out/c-1.tar")) == 9


def test_upscale_packs_too(
    tmp_path: Path, networks: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shards(tmp_path, {"a": 2})
    words = ["upscale", "a.tar", "-o", "big", "--model", str(networks["nearest"]), "-s", "2", "--device", "cpu"]
    assert main(words) == ExitCode.OK
    made = unpacked(tmp_path / "big/a.tar")
    assert len(made) == 6 and Image.open(io.BytesIO(made["a/0001.png"])).size == (128, 128)
    assert sorted(path.name for path in (tmp_path / "big").iterdir()) == ["a.tar", "upscale.json"]
    assert main(words) == ExitCode.OK
    assert "it was done already" in capsys.readouterr().err


def test_members_that_are_done_take_no_memory(tmp_path: Path) -> None:
    path = pack(tmp_path / "in.tar", [(f"{index:06d}.png", b"x" * 100) for index in range(500)])
    packing = Packing(tmp_path / "out.tar", tmp_path)
    for index, sample in enumerate(samples(path, lambda name: tmp_path / "tmp" / name)):
        assert sample.path is not None
        packing.add(sample, [(sample.picture, sample.path)])
        sample.close()
        if index % 100 == 99:
            assert sum(type(one) in (tarfile.TarInfo, TarSample) for one in gc.get_objects()) < 10
    packing.finish()
    assert len(unpacked(tmp_path / "out.tar")) == 500
