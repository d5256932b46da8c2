"""``codeformer video --engine ray``: the same films and reports as one process, whatever is killed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from codeformer.cli import main
from codeformer.options import RayOptions
from codeformer.run.messages import Messages
from codeformer.video.film import run_film
from codeformer.video.options import FilmOptions
from tests.run import ray_jobs
from tests.video.clips import clicks, decode, make_film
from tests.video.fakes import engine_for, square_face

STRETCH = 5


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of films, of which one is none and one is cut off; the engine is a fake one, here and in the workers."""

    def fake(options: FilmOptions, console: Messages, *_: object, **__: object) -> Any:
        return run_film(options, console, engine_for(options.work))

    monkeypatch.setattr("codeformer.video.films.run_film", fake)
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
    return ["video", str(folder), "-o", str(out), "--model", str(model), "--stretch", str(STRETCH), "-w", "0.5"]


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
    assert made(out) == made(alone) and len(made(out)) == 6
    assert (tmp_path / "once.tries").read_text().split() == ["0", "1"]
    assert (tmp_path / "a.tries").read_text().split() == ["0"]
    for line in ("2 of 4 films are done, 2 failed", "cut.mkv: is damaged", "the film is cut off", "bad.mp4"):
        assert told.count(line) == told_alone.count(line) == 1, line


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
