"""``codeformer video --engine ray``: the same films and reports as one process, whatever is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from codeformer.cli import main
from codeformer.errors import RestorationError
from codeformer.images.picture import Picture, write_picture
from codeformer.models.file import open_model
from codeformer.options import RayOptions
from codeformer.run.messages import Messages
from codeformer.video.film import run_film
from codeformer.video.films import open_worker
from codeformer.video.options import FilmOptions
from codeformer.video.parts import divided
from tests.run import ray_jobs
from tests.run.ray_runs import in_process, tree
from tests.video.clips import clicks, decode, make_film
from tests.video.fakes import engine_for, options_for, square_face

STRETCH = 5


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of films, of which one is none and one is cut off; the engine is a fake one, here and in the workers."""

    def fake(options: FilmOptions, console: Messages, *_: object, begun: bool = False, **__: object) -> Any:
        return run_film(options, console, engine_for(options.work), begun=begun)

    monkeypatch.setattr("codeformer.video.films.run_film", fake)
    monkeypatch.setattr("codeformer.video.parts.tells_apart", lambda: False)
    monkeypatch.setattr("codeformer.video.restoring.with_recogniser", lambda engine: engine)
    monkeypatch.setattr("codeformer.video.films.open_worker", partial(ray_jobs.films, tmp_path))
    folder = tmp_path / "in"
    folder.mkdir()
    for name, frames in (("a", 4), ("once", 17)):
        make_film(folder / f"{name}.mp4", [square_face(i) for i in range(frames)], sounds=[clicks])
    (folder / "bad.mp4").write_bytes(b"no film")
    cut = make_film(folder / "cut.mkv", [square_face(i) for i in range(60)])
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    return folder


def words(folder: Path, out: Path, model: Path) -> list[str]:
    how = ["--stretch", str(STRETCH), "-w", "0.5", "--precision", "fp32"]  # as the fake engine's
    return ["video", str(folder), "-o", str(out), "--model", str(model), *how]


def engine(shared: RayOptions) -> list[str]:
    return ["--engine", "ray", "--ray_address", shared.address, "--workers", "2"]


def made(out: Path) -> dict[str, Any]:
    """Return what a run left: films, and reports without what differs from run to run."""
    left: dict[str, Any] = {}
    for path in out.iterdir():
        if path.suffix == ".json":
            report = json.loads(path.read_text())
            left[path.name] = {key: value for key, value in report.items() if key not in ("seconds", "output")}
        elif path.suffix == ".mkv":  # each has a number of its own, at random
            left[path.name] = [frame.tobytes() for frame in decode(path)]
        else:
            left[path.name] = path.read_bytes()
    return left


def test_films_are_the_same_as_of_one_process(
    shared: RayOptions, films: Path, tmp_path: Path, small_model_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also the one whose worker is killed in its second stretch: it goes on from the first."""
    out, alone = tmp_path / "ray", tmp_path / "alone"
    assert main(words(films, alone, small_model_path)) == 1
    told_alone = capfd.readouterr().err
    assert main([*words(films, out, small_model_path), *engine(shared)]) == 1
    told = capfd.readouterr().err
    assert out.is_dir(), told
    assert made(out) == made(alone) and len(made(out)) == 6
    assert (tmp_path / "once.tries").read_text().split() == ["0", "1"]
    assert (tmp_path / "a.tries").read_text().split() == ["0"]
    for line in ("2 of 4 films are done, 2 failed", "cut.mkv: is damaged", "the film is cut off", "bad.mp4"):
        assert told.count(line) == told_alone.count(line) == 1, line


class Here:
    """Four workers in this process, one after the other, without Ray; parts come in any order."""

    size = 4

    def __init__(self, lose: int = -1, interrupt: int = -1) -> None:
        self.rounds: list[list[Any]] = []
        self._lose, self._interrupt = lose, interrupt

    def outcomes(self, jobs: Iterator[Any], make: Any, lost: Any, *, block: int) -> Iterator[Any]:
        self.rounds.append(list(jobs))
        for job in self.rounds[-1][::-1]:
            if self.rounds[-1].index(job) == self._lose and job.part is not None:
                yield lost(job, RestorationError("the worker ended"))
            elif self.rounds[-1].index(job) == self._interrupt and job.part is not None:
                raise KeyboardInterrupt
            else:
                yield from in_process(iter([job]), make, RayOptions(), lost)

    @contextmanager
    def __call__(self, options: RayOptions) -> Iterator[Here]:
        yield self


@pytest.mark.parametrize(("ending", "lose"), [("mp4", -1), ("folder", 1)])
def test_a_film_in_parts_is_the_same(
    films: Path, ending: str, lose: int, tmp_path: Path, small_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a part is lost, and in a folder whose first frames alone are of another size."""
    source = tmp_path / f"film.{ending}"
    if ending == "mp4":
        make_film(source, [square_face(i) for i in range(17)], sounds=[clicks])
    else:
        for i in range(17):
            wide = 160 if i != 2 else 180
            write_picture(Picture(square_face(i // 2, wide)), source / f"{i:03}.png")
    out, alone, here = tmp_path / "ray", tmp_path / "alone", Here(lose)
    monkeypatch.setattr("codeformer.video.films.pool", here)
    monkeypatch.setattr("codeformer.video.films.open_worker", open_worker)
    monkeypatch.setattr("codeformer.video.films.open_engine", lambda task, work, model: engine_for(work))
    saved = ["--save_frames", str(tmp_path / "frames")]
    assert main([*words(source, alone, small_model_path), *saved]) == 0
    (tmp_path / "frames").rename(tmp_path / "frames alone")
    parts = [*words(source, out, small_model_path), *saved, "--engine", "ray"]
    assert main(parts) == 0
    assert [(one.part.first, one.part.end) for one in here.rounds[1]] == [(0, 1), (1, 2), (2, 3), (3, None)]
    assert made(out) == made(alone) and len(made(out)) == 2
    frames, others = tree(tmp_path / "frames"), tree(tmp_path / "frames alone")
    assert frames == others and len(frames) == 17
    assert main(parts) == 0 and here.rounds[-2] == [], "it is done already"
    assert main([*parts, "--overwrite"]) == 0 and len(here.rounds[-2]) == 4
    assert made(out) == made(alone)


def test_a_film_whose_people_are_told_apart_is_not_divided(
    tmp_path: Path, small_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who they are is handed on from stretch to stretch."""
    film = make_film(tmp_path / "film.mp4", [square_face(i) for i in range(17)])
    for apart in (True, False):
        monkeypatch.setattr("codeformer.video.parts.tells_apart", lambda: apart)  # noqa: B023
        options = options_for(film, tmp_path / "out.mp4", small_model_path, stretch=5)
        assert bool(divided(options, 4, open_model(small_model_path)).parts) is not apart


def test_parts_that_an_interrupted_run_has_done_are_not_done_again(
    films: Path, tmp_path: Path, small_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever in the film they are."""
    monkeypatch.setattr("codeformer.video.films.open_worker", open_worker)
    monkeypatch.setattr("codeformer.video.films.open_engine", lambda task, work, model: engine_for(work))
    film, out, alone = films / "once.mp4", tmp_path / "ray", tmp_path / "alone"
    assert main(words(film, alone, small_model_path)) == 0
    for here, code in ((Here(interrupt=1), 130), (Here(), 0)):
        monkeypatch.setattr("codeformer.video.films.pool", here)
        assert main([*words(film, out, small_model_path), "--engine", "ray"]) == code
    assert [one.part.first for one in here.rounds[1]] == [0, 1] and made(out) == made(alone)


def test_a_worker_of_another_device_does_not_restore_a_part(
    films: Path, tmp_path: Path, small_model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Its frames would stand beside those of the others: the film is restored as a whole."""

    def other(task: object, work: Any, model: object) -> Any:
        engine = engine_for(work)
        engine.restorer.precision = "bf16"
        return engine

    monkeypatch.setattr("codeformer.video.films.pool", Here())
    monkeypatch.setattr("codeformer.video.films.open_worker", open_worker)
    monkeypatch.setattr("codeformer.video.films.open_engine", other)
    film = make_film(tmp_path / "film.mp4", [square_face(i, 96, 96, 40) for i in range(7)])
    assert main([*words(film, tmp_path / "out", small_model_path), "--engine", "ray"]) == 0
    assert capsys.readouterr().err.count("a part failed and will be done again: the workers have") == 2


@pytest.mark.slow
def test_one_film_by_two_workers_of_which_one_is_killed(
    shared: RayOptions, films: Path, tmp_path: Path, small_model_path: Path
) -> None:
    out, alone = tmp_path / "ray", tmp_path / "alone"
    film = films / "once.mp4"
    assert main(words(film, alone, small_model_path)) == 0
    assert main([*words(film, out, small_model_path), *engine(shared)]) == 0
    assert made(out) == made(alone)
    assert (tmp_path / "killed").exists()


@pytest.mark.slow
def test_a_film_that_ends_its_worker_each_time_is_named_and_alone(
    shared: RayOptions, films: Path, tmp_path: Path, small_model_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_film(films / "killer.mp4", [square_face(i) for i in range(17)])
    assert main([*words(films, tmp_path / "ray", small_model_path), *engine(shared)]) == 1
    told = capfd.readouterr().err
    assert "2 of 5 films are done, 3 failed" in told
    assert "killer.mp4: the process that worked on it was ended each time" in told
    assert {path.name for path in (tmp_path / "ray").glob("*.m*")} == {
        *("a.mp4", "once.mp4", "cut.mkv"),
        *("a.mp4.json", "once.mp4.json", "cut.mkv.json", "killer.mp4.codeformer-work"),
    }
