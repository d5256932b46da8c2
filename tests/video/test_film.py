"""Whole films through run_film with a fake network: in order, resumable, interruptible, honest about damage."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch

from codeformer.cli.console import Console
from codeformer.errors import ExitCode, InputError, OutputError, UsageError
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.read_ahead import items_ahead
from codeformer.tasks.table import TASKS
from codeformer.video import film as film_module
from codeformer.video import segment, stretches, temporal
from codeformer.video.film import run_film
from codeformer.video.options import FilmOptions, check_apart, output_file, parse_time
from codeformer.video.packets import SegmentWriter
from codeformer.video.reader import open_film
from codeformer.video.restoring import _save_frame
from codeformer.video.summary import StretchNotes
from codeformer.video.work import WorkFolder
from tests.video.clips import click_times, clicks, decode, make_film, pattern, times
from tests.video.fakes import InvertingRestorer, engine_for, options_for, square_face

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("m") / "any.safetensors"
    path.write_bytes(b"the fake network needs no weights")
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("f") / "film.mp4", [square_face(i) for i in range(30)], sounds=[clicks])


def run(source: Path, output: Path, model: Path, pause: float = 0.0, **more: Any) -> tuple[ExitCode, dict[str, Any]]:
    options = options_for(source, output, model, **more)
    code = run_film(options, QUIET, engine_for(options.work, pause))
    report = output.with_name(output.name + ".json")
    return code, json.loads(report.read_bytes()) if report.exists() else {}


@pytest.mark.parametrize("temporal", ["off", "landmarks", "codes", "auto"])
def test_every_frame_is_restored_in_its_place(tmp_path: Path, film: Path, model: Path, temporal: str) -> None:
    code, report = run(film, tmp_path / "out.mp4", model, temporal=temporal, stretch=8)
    assert code is ExitCode.OK
    assert times(tmp_path / "out.mp4") == times(film)
    before, after = decode(film), decode(tmp_path / "out.mp4")
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        x = 10 + round(1.5 * i)
        face_a, face_b = (rgb[44:68, x + 14 : x + 34].mean(axis=(0, 1)) for rgb in (a, b))
        assert face_b[1] > face_a[1] + 60 and face_b[0] < face_a[0] - 60  # inverted: red became cyan
        assert np.abs(a[:, 120:].astype(int) - b[:, 120:]).mean() < 5  # far from the face nothing changed
    assert (report["frames"], report["faces"], len(report["tracks"])) == (30, 30, 1)
    assert report["tracks"][0]["frames"] == 30
    assert np.allclose(click_times(tmp_path / "out.mp4"), 0.1 + 0.2 * np.arange(6), atol=0.003)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4", "out.mp4.json"]


def test_a_strength_of_nothing_shows_the_film_as_it_was(tmp_path: Path, film: Path, model: Path) -> None:
    options = options_for(film, tmp_path / "out.mp4", model, crf=1)
    options = replace(options, work=replace(options.work, strength=0.0))
    assert run_film(options, QUIET, engine_for(options.work)) is ExitCode.OK
    for a, b in zip(decode(film), decode(tmp_path / "out.mp4"), strict=True):
        assert np.abs(a.astype(int) - b).mean() < 2


def test_stretches_leave_no_seam(tmp_path: Path, film: Path, model: Path) -> None:
    """Cutting the work into stretches changes no face: the averages reach over the borders."""
    run(film, tmp_path / "one.mp4", model, stretch=100, crf=1)
    run(film, tmp_path / "many.mp4", model, stretch=7, crf=1)
    for a, b in zip(decode(tmp_path / "one.mp4"), decode(tmp_path / "many.mp4"), strict=True):
        assert np.abs(a.astype(int) - b).max() <= 12 and np.abs(a.astype(int) - b).mean() < 0.6


def test_doubled_frames_are_restored_once(tmp_path: Path, model: Path) -> None:
    pictures = [square_face(i // 3) for i in range(18)]
    source = make_film(tmp_path / "in.mkv", pictures, codec="ffv1", pix_fmt="yuv444p")
    options = options_for(source, tmp_path / "out.mkv", model)
    engine = engine_for(options.work)
    run_film(options, QUIET, engine)
    report = json.loads((tmp_path / "out.mkv.json").read_bytes())
    assert engine.restorer.faces == 6
    assert (report["frames"], report["repeated_frames"]) == (18, 12)
    assert times(tmp_path / "out.mkv") == times(source)


def test_frames_without_faces_never_reach_the_network(tmp_path: Path, model: Path) -> None:
    source = make_film(tmp_path / "in.mp4", 10)
    options = options_for(source, tmp_path / "out.mp4", model, upscale=2.0)
    engine = engine_for(options.work)
    assert run_film(options, QUIET, engine) is ExitCode.OK
    assert engine.restorer.faces == 0
    assert decode(tmp_path / "out.mp4")[0].shape == (240, 320, 3)
    assert any("no face" in line for line in json.loads((tmp_path / "out.mp4.json").read_bytes())["warnings"])


def _process(source: Path, output: Path, model: Path, stretch: int, pause: float) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "tests.video.fakes",
        str(source),
        str(output),
        str(model),
        str(stretch),
        str(pause),
    ]
    root = Path(__file__).parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=root, env=env, stderr=subprocess.PIPE, text=True)


def _wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_after_kill_9_the_same_command_gives_the_same_film(tmp_path: Path, film: Path, model: Path) -> None:
    run(film, tmp_path / "whole.mp4", model, stretch=5)
    output = tmp_path / "out.mp4"
    work = tmp_path / "out.mp4.codeformer-work"
    process = _process(film, output, model, 5, 0.1)
    _wait_for((work / "00001.json").exists, process)
    process.kill()
    process.communicate()
    assert not output.exists() and (work / "00001.json").exists()

    options = options_for(film, output, model, stretch=5)
    engine = engine_for(options.work)
    assert run_film(options, QUIET, engine) is ExitCode.OK
    assert engine.restorer.faces <= 20  # what was finished was not done again
    assert output.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not work.exists()


def test_ctrl_c_leaves_a_playable_part_and_130(tmp_path: Path, film: Path, model: Path) -> None:
    output = tmp_path / "out.mp4"
    process = _process(film, output, model, 4, 0.1)
    _wait_for((tmp_path / "out.mp4.codeformer-work" / "00001.json").exists, process)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 130, message
    assert not output.exists()
    part = decode(tmp_path / "out.partial.mp4")
    assert 8 <= len(part) < 30 and "out.partial.mp4" in message
    assert len(click_times(tmp_path / "out.partial.mp4")) <= len(part) / 5 + 1  # the sound ends with the picture
    code, report = run(film, output, model, stretch=4)
    assert code is ExitCode.OK and report["frames"] == 30
    assert not (tmp_path / "out.partial.mp4").exists()


STRETCH = {**StretchNotes().record(), "frames": 5, "duration": 1, "until": 5}


def test_work_of_other_settings_is_not_mixed_in(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    first = WorkFolder(output, "a", resume=True)
    first.unfinished(0).write_bytes(b"12345")
    first.finish(0, STRETCH)
    with pytest.raises(OutputError, match="another codeformer"):
        WorkFolder(output, "a", resume=True)
    first.release()
    again = WorkFolder(output, "a", resume=True)
    assert again.finished() == [{**STRETCH, "bytes": 5}]
    again.release()
    other = WorkFolder(output, "b", resume=True)
    assert other.finished() == []
    other.release()


def test_a_torn_stretch_is_done_again(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "out.mp4", "a", resume=True)
    for number in range(3):
        work.unfinished(number).write_bytes(b"12345")
        work.finish(number, STRETCH)
    work.packets(1).write_bytes(b"12")
    assert len(work.finished()) == 1


def test_a_second_run_finds_the_film_done(tmp_path: Path, film: Path, model: Path) -> None:
    run(film, tmp_path / "out.mp4", model)
    stamp = (tmp_path / "out.mp4").stat().st_mtime_ns
    options = options_for(film, tmp_path / "out.mp4", model)
    engine = engine_for(options.work)
    assert run_film(options, QUIET, engine) is ExitCode.OK
    assert engine.restorer.faces == 0 and (tmp_path / "out.mp4").stat().st_mtime_ns == stamp
    with pytest.raises(UsageError, match="finished film of other settings"):
        run(film, tmp_path / "out.mp4", model, crf=30)
    assert (tmp_path / "out.mp4").stat().st_mtime_ns == stamp
    run(film, tmp_path / "out.mp4", model, crf=30, resume=False)
    assert (tmp_path / "out.mp4").stat().st_mtime_ns != stamp


def test_the_work_of_an_interrupted_run_is_not_dropped(tmp_path: Path, film: Path, model: Path) -> None:
    output = tmp_path / "out.mp4"
    work = WorkFolder(output, "another stamp", resume=True)
    work.unfinished(0).write_bytes(b"packets")
    work.finish(0, {"frames": 1})
    work.release()
    with pytest.raises(UsageError, match="1 finished stretches of an interrupted run"):
        run(film, output, model)
    assert len(list(work.path.glob("0*.packets"))) == 1
    assert run(film, output, model, resume=False)[0] is ExitCode.OK


def test_a_cut_off_film_is_restored_as_far_as_it_goes(tmp_path: Path, model: Path) -> None:
    whole = make_film(tmp_path / "in.mkv", [square_face(i) for i in range(80)], sounds=[clicks])
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) // 2])
    code, report = run(whole, tmp_path / "out.mp4", model, temporal="off")
    assert code is ExitCode.SOME_FAILED
    assert 20 < report["frames"] < 70 and any("cut off" in line for line in report["warnings"])
    assert len(decode(tmp_path / "out.mp4")) == report["frames"]


def test_a_part_of_the_film(tmp_path: Path, film: Path, model: Path) -> None:
    code, report = run(film, tmp_path / "out.mp4", model, start=Fraction(2, 5), end=Fraction(4, 5))
    assert (code, report["frames"]) == (ExitCode.OK, 10)
    assert times(tmp_path / "out.mp4")[0] == 0
    with pytest.raises(InputError, match="--start"):
        run(film, tmp_path / "late.mp4", model, start=Fraction(50))
    assert not (tmp_path / "late.mp4").exists()


def test_saved_frames_and_a_folder_as_input(tmp_path: Path, film: Path, model: Path) -> None:
    run(film, tmp_path / "out.mp4", model, save_frames=tmp_path / "frames", end=Fraction(1, 5))
    names = sorted(p.name for p in (tmp_path / "frames").iterdir())
    assert names == [f"{i:08}.png" for i in range(1, 6)]
    code, report = run(tmp_path / "frames", tmp_path / "again.mp4", model, fps=Fraction(10))
    assert (code, report["frames"]) == (ExitCode.OK, 5)
    assert times(tmp_path / "again.mp4") == [Fraction(i, 10) for i in range(5)]


def test_preview(tmp_path: Path, film: Path, model: Path) -> None:
    options = options_for(film, tmp_path / "out.mp4", model, preview=3)
    assert run_film(options, QUIET, engine_for(options.work)) is ExitCode.OK
    pictures = sorted((tmp_path / "out_preview").iterdir())
    assert len(pictures) == 3 and not (tmp_path / "out.mp4").exists()
    with av.open(str(pictures[1])) as picture:
        both = next(picture.decode(video=0)).to_ndarray(format="rgb24")
    assert both.shape == (120, 320, 3) and np.abs(both[:, :160].astype(int) - both[:, 160:]).max() > 80


def test_nothing_but_the_network_runs_in_its_thread(
    tmp_path: Path, film: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU waits for nothing else; and what a frame is compared by is made once, however many neighbours it has."""
    threads: dict[str, list[int]] = {}

    def watch(what: Any, name: str) -> None:
        real = getattr(what, name)

        def call(*args: Any, **options: Any) -> Any:
            threads.setdefault(name, []).append(threading.get_ident())
            return real(*args, **options)

        monkeypatch.setattr(what, name, call)

    for what, name in [
        (segment, "find"), (segment, "align"), (segment, "compose"), (temporal, "steady_crop"), (temporal, "_grey"),
        (temporal, "_log_softmax"),
        (SegmentWriter, "write"), (InvertingRestorer, "encode"), (InvertingRestorer, "decode"),
        (type(TASKS["restore"]), "finish"),
    ]:  # fmt: skip
        watch(what, name)
    run(film, tmp_path / "out.mp4", model)
    inside, network = ("encode", "decode", "_log_softmax"), set(threads["encode"])
    assert len(network) == 1 and network == set(threads["decode"])
    assert all(network.isdisjoint(own) for name, own in threads.items() if name not in inside)
    counts = {name: len(threads[name]) for name in ("finish", "steady_crop", "_grey", "_log_softmax")}
    assert counts == dict.fromkeys(counts, 30)


def test_on_a_gpu_several_threads_find_steady_and_paste(
    tmp_path: Path, film: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step waits until four threads are in it, which nobody is if there are fewer; the film is the same."""
    run(film, tmp_path / "cpu.mp4", model, stretch=12)
    met: dict[str, int] = {}

    def meet(what: Any, name: str) -> None:
        real, barrier, lock = getattr(what, name), threading.Barrier(4), threading.Lock()

        def call(*args: Any, **options: Any) -> Any:
            with lock:
                met[name] = met.get(name, 0) + 1
                first = met[name] <= 4
            if first:
                barrier.wait(timeout=20)
            return real(*args, **options)

        monkeypatch.setattr(what, name, call)

    for what, name in ((segment, "find"), (temporal, "steady_crop"), (segment, "compose")):
        meet(what, name)
    monkeypatch.setattr(stretches, "_threads", lambda engine: 4)
    code, report = run(film, tmp_path / "gpu.mp4", model, stretch=12)
    assert code is ExitCode.OK and report["frames"] == 30
    assert met == {"find": 30, "steady_crop": met["steady_crop"], "compose": 30} and met["steady_crop"] >= 30
    assert all(map(np.array_equal, decode(tmp_path / "cpu.mp4"), decode(tmp_path / "gpu.mp4")))


def restore_on_a_gpu(film: Path, model: Path, tmp_path: Path, batch_size: int, stretch: int, **calls: Any) -> Any:
    """Restore a film's frames as on a GPU, and return the network with the sizes of the batches that it saw."""

    class Counting(InvertingRestorer):
        device = torch.device(calls.get("device", "cuda"))

        def __init__(self) -> None:
            super().__init__(batch_size)
            self.encoded: list[int] = []
            self.decoded: list[int] = []

        def encode(self, crops: list[np.ndarray]) -> Any:
            self.encoded.append(len(crops))
            return super().encode(crops)

        def decode(self, encoded: Any, codes: Any, **how: Any) -> list[np.ndarray]:
            self.decoded.append(len(encoded))
            if "decode" in calls:
                calls["decode"](self)
            return super().decode(encoded, codes, **how)

    restorer: Any = Counting()
    engine = replace(engine_for(options_for(film, tmp_path / "out.mp4", model).work), restorer=restorer)
    steps = stretches.restored_frames(open_film(film), engine, segment.MODES["auto"], stretch, 0, Clock())
    assert [step.done.frame.index for step in steps if step.done is not None] == list(range(30))
    return restorer


def test_the_first_and_last_batches_of_a_film_are_smaller_on_a_gpu(tmp_path: Path, film: Path, model: Path) -> None:
    """The network begins with 8 frames, and only in the film's first stretch: others are the same after a kill."""
    gpu = restore_on_a_gpu(film, model, tmp_path, batch_size=16, stretch=20)
    assert gpu.encoded == [8, 15, 13]  # codes depend on 3 frames beyond a stretch
    assert gpu.decoded == [8, 12, 5, 5], "little is left to paste when the network has ended"
    cpu = restore_on_a_gpu(film, model, tmp_path, batch_size=16, stretch=20, device="cpu")
    assert cpu.encoded == [16, 7, 13] and cpu.decoded == [16, 4, 10]


def test_the_next_stretch_is_ready_when_one_ends(
    tmp_path: Path, film: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a GPU is busy with the last batch of a stretch, what it begins the next one with is prepared."""
    steadied = threading.Semaphore(0)
    real = temporal.steady_crop

    def steady(*args: Any) -> Any:
        steadied.release()
        return real(*args)

    def last_of_the_first(restorer: Any) -> None:
        if sum(restorer.decoded) == 12:  # 18 frames were prepared for it, and 6 + 8 make the next one's first batch
            assert all(steadied.acquire(timeout=20) for _ in range(18 + 6 + 8))

    monkeypatch.setattr(temporal, "steady_crop", steady)
    restorer = restore_on_a_gpu(film, model, tmp_path, batch_size=8, stretch=12, decode=last_of_the_first)
    assert sum(restorer.decoded) == 30


def test_more_cores_steady_crops_with_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = SimpleNamespace(restorer=SimpleNamespace(device=torch.device("cuda")))
    for cores, threads in ((2, 4), (16, 8), (128, 16)):
        monkeypatch.setattr(stretches, "cores", lambda cores=cores: cores)
        assert stretches._steadying(engine) == threads
    engine.restorer.device = torch.device("cpu")
    assert stretches._steadying(engine) == 0


def test_memory_does_not_grow_with_the_film(tmp_path: Path, model: Path) -> None:
    """The frames that are alive at once are counted: the same for a film more than twice as long."""
    peaks = []
    for count in (50, 120):
        source = make_film(tmp_path / f"{count}.mp4", [square_face(i % 40, 96, 96, 40) for i in range(count)])
        peaks.append(_most_alive(source, tmp_path / f"out{count}.mp4", model))
    assert peaks[1] <= peaks[0] + 3


def test_of_a_finished_stretch_numbers_are_kept_and_no_faces(
    tmp_path: Path, film: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    real = film_module.problems_of
    monkeypatch.setattr(film_module, "problems_of", lambda record: kept.append(record) or real(record))
    code, report = run(film, tmp_path / "out.mp4", model, stretch=8)
    assert code is ExitCode.OK and [record["frames"] for record in kept] == [8, 8, 8, 6]
    assert not any(key in record for record in kept for key in ("tracks", "people"))
    assert [track["frames"] for track in report["tracks"]] == [30], "and the report has them all the same"


def _most_alive(source: Path, output: Path, model: Path) -> int:
    import weakref

    from codeformer.video import reader

    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0
    lock = threading.Lock()
    original = reader.Frame

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal most
        frame = original(*args, **kwargs)
        with lock:
            alive.add(frame)
            most = max(most, len(alive))
        return frame

    reader.Frame = counting  # type: ignore[assignment, misc]
    try:
        run(source, output, model, stretch=20)
    finally:
        reader.Frame = original  # type: ignore[misc]
    return most


def test_threads_pass_errors_on_and_stop() -> None:
    def numbers() -> Any:
        try:
            yield from range(3)
            raise InputError("broken")
        finally:
            closed.append(True)

    closed: list[bool] = []
    taken = []
    with pytest.raises(InputError, match="broken"):
        for number in items_ahead(numbers(), 1):
            taken.append(number)
    assert taken == [0, 1, 2] and closed == [True]
    closed.clear()
    stream = items_ahead(numbers(), 1)
    assert next(stream) == 0
    stream.close()
    assert closed == [True]


@pytest.mark.parametrize(
    ("text", "seconds"), [("3", 3), ("1.5", Fraction(3, 2)), ("1:02.5", Fraction(125, 2)), ("1:00:01", 3601)]
)
def test_times(text: str, seconds: Fraction) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "1:2:3:4"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text)


def test_output_names(tmp_path: Path) -> None:
    def name(source: str, output: Path | None = None, suffix: str | None = None) -> str:
        return str(output_file(FilmOptions(source=Path(source), output=output, suffix=suffix)))

    assert name("a/clip.mov") == "results/clip_0.5/clip.mov"
    assert name("a/clip.gif", suffix="new") == "results/clip_0.5/clip_new.mp4"
    assert name("a/frame_%05d.png") == "results/frame_0.5/frame.mp4"
    assert name("clip.mkv", tmp_path) == str(tmp_path / "clip.mkv")
    assert name("clip.mkv", tmp_path / "x.mp4") == str(tmp_path / "x.mp4")
    with pytest.raises(UsageError, match="ends with"):
        name("clip.mkv", tmp_path / "x.txt")
    with pytest.raises(UsageError, match="input itself"):
        name(str(tmp_path / "x.mp4"), tmp_path / "x.mp4")


def test_a_saved_frame_that_somebody_removed_is_named(tmp_path: Path) -> None:
    """A frame that is equal to the one before is a copy of its file."""
    with pytest.raises(OutputError, match=r"00000001\.png: the next frame is equal .* --overwrite"):
        _save_frame(tmp_path, 1, None, 2)
    (tmp_path / "00000001.png").write_bytes(b"a picture")
    _save_frame(tmp_path, 1, None, 2)
    assert (tmp_path / "00000002.png").read_bytes() == b"a picture"


def test_no_film_of_a_run_replaces_another(tmp_path: Path) -> None:
    for name in ("a/clip.mp4", "b/clip.mp4", "b/CLIP.mov", "a/clip.avi", "a/v.partial.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())

    def check(*sources: str, output: Path | None = None, **more: Any) -> None:
        check_apart([FilmOptions(source=tmp_path / source, output=output, **more) for source in sources])

    check("a/clip.mp4", "b/CLIP.mov", output=tmp_path / "out")
    with pytest.raises(UsageError, match="both results would be"):
        check("a/clip.mp4", "b/clip.mp4")
    with pytest.raises(UsageError, match=r"would replace .*clip\.mp4"):
        check("a/clip.avi", "a/clip.mp4", output=tmp_path / "a")
    with pytest.raises(UsageError, match="rename"):
        check("a/v.partial.mp4", output=tmp_path / "a/v.mp4")
    with pytest.raises(UsageError, match="--save_frames"):
        check("a/clip.mp4", "b/CLIP.mov", save_frames=tmp_path / "frames")
    with pytest.raises(UsageError, match="holds the input's frames"):
        check("a", save_frames=tmp_path / "b" / ".." / "a")
    with pytest.raises(UsageError, match="holds the input's frames"):
        check("a/f_%05d.png", save_frames=tmp_path / "a")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a" / "clip.avi")
    with pytest.raises(UsageError, match="input itself"):
        check("a/clip.avi", output=tmp_path / "link.mp4")


def test_somebody_elses_file_is_not_replaced(tmp_path: Path, film: Path, model: Path) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"holiday")
    with pytest.raises(UsageError, match="not a result of codeformer"):
        run(film, output, model)
    assert output.read_bytes() == b"holiday" and len(list(tmp_path.iterdir())) == 1
    code, _ = run(film, output, model, resume=False, end=Fraction(1, 5))
    assert code is ExitCode.OK and len(decode(output)) == 5
    with pytest.raises(UsageError, match="finished film of other settings"):
        run(film, output, model, end=Fraction(2, 5))
    code, _ = run(film, output, model, resume=False, end=Fraction(2, 5))
    assert code is ExitCode.OK and len(decode(output)) == 10


def test_a_full_disk_is_said_as_such(tmp_path: Path, film: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self) -> None:
            self.write(b"")

        def close(self) -> None:
            self.write(b"")

    begin = SegmentWriter.__init__

    def start(self: SegmentWriter, path: Path, encoding: Any) -> None:
        begin(self, path, encoding)
        self._file = Full(self._file)  # type: ignore[assignment]

    monkeypatch.setattr(SegmentWriter, "__init__", start)
    with pytest.raises(OutputError, match="No space left"):
        run(film, tmp_path / "out.mp4", model)


def test_ctrl_c_while_a_stretch_is_closed_keeps_the_others(
    tmp_path: Path, film: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, calls = SegmentWriter.close, []

    def interrupted(self: SegmentWriter) -> None:
        close(self)
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SegmentWriter, "close", interrupted)
        options = options_for(film, tmp_path / "out.mp4", model, stretch=5)
        assert run_film(options, QUIET, engine_for(options.work)) is ExitCode.INTERRUPTED
    assert len(decode(tmp_path / "out.partial.mp4")) == 10
    code, report = run(film, tmp_path / "out.mp4", model, stretch=5)
    assert code is ExitCode.OK and report["frames"] == 30


def test_pattern_is_no_face() -> None:
    from tests.video.fakes import SquareDetector

    assert SquareDetector()(pattern(3), 0.5) == [] and len(SquareDetector()(square_face(3), 0.5)) == 1


@pytest.mark.slow
def test_peak_memory_of_100_and_2000_frames_is_the_same(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("resource")
    code = (
        "import resource, sys; from tests.video.fakes import main; main(*sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for count in (100, 2000):
        source = make_film(tmp_path / f"{count}.mp4", [square_face(i % 50) for i in range(100)] * (count // 100))
        command = [sys.executable, "-c", code, str(source), str(tmp_path / f"out{count}.mp4"), str(model), "96", "0"]
        root = Path(__file__).parents[2]
        result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        peaks.append(int(result.stdout.split()[-1]))
    assert abs(peaks[1] - peaks[0]) < 0.05 * peaks[0], peaks


def test_the_command_line_restores_a_real_face(
    tmp_path: Path, tiny_model_path: Path, portrait: np.ndarray, cli: Any
) -> None:
    """``restore`` hands a film over to ``video``; the detector, the network and the paste are the real ones."""
    source = make_film(tmp_path / "in.mp4", [np.ascontiguousarray(portrait)] * 4, sounds=[clicks])
    done = cli("restore", "-i", source, "-o", tmp_path / "o", "--model", tiny_model_path, "-s", "1", "--crf", "20")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "o" / "in.mp4.json").read_bytes())
    assert (report["frames"], len(report["tracks"])) == (4, 1)
    assert len(decode(tmp_path / "o" / "in.mp4")) == 4
    bad = tmp_path / "bad.mp4"
    bad.write_text("no film")
    done = cli("video", "-i", bad, "-o", tmp_path / "o")
    assert done.returncode == 3 and "bad.mp4" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "o" / "bad.mp4").exists()


def test_work_of_another_precision_is_not_gone_on_with(tmp_path: Path, film: Path, model: Path) -> None:
    options = options_for(film, tmp_path / "out.mp4", model, stretch=8)
    engine = engine_for(options.work)
    work = WorkFolder(options.output or film, "of another device", resume=True)
    work.unfinished(0).write_bytes(b"")
    record = dict.fromkeys(("frames", "repeated", "faces", "bridged", "duration", "until"), 0) | {"tracks": []}
    work.finish(0, record)
    work.release()
    with pytest.raises(UsageError, match="another device"):
        run_film(options, QUIET, engine)


def test_device_and_precision_are_part_of_the_works_fingerprint(
    tmp_path: Path, film: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = []

    def kept(self: WorkFolder, output: Path, stamp: str, *, resume: bool) -> None:
        stamps.append(stamp)
        raise OutputError("enough")

    monkeypatch.setattr(WorkFolder, "__init__", kept)
    options = options_for(film, tmp_path / "out.mp4", model)
    for precision in ("fp32", "fp32", "bf16"):
        engine = engine_for(options.work)
        engine.restorer.precision = precision
        with pytest.raises(OutputError):
            run_film(options, QUIET, engine)
    assert stamps[0] == stamps[1] != stamps[2]
