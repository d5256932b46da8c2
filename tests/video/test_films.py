"""Several films in one run: one that fails stops nobody else, and the exit code says what became of all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from codeformer.errors import ExitCode, InputError, UsageError
from codeformer.run.messages import Messages
from codeformer.video.film import run_film
from codeformer.video.films import run_films
from codeformer.video.options import FilmOptions
from tests.run.log import Log
from tests.video.clips import make_film
from tests.video.fakes import engine_for, options_for, square_face


@pytest.fixture
def films(tmp_path: Path, small_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[FilmOptions]:
    """Two films and, between them, a file that is none; the engine is a fake one."""

    def fake(options: FilmOptions, console: Messages, *_: object, **__: object) -> ExitCode:
        return run_film(options, console, engine_for(options.work))

    monkeypatch.setattr("codeformer.video.films.run_film", fake)
    for name in "ac":
        make_film(tmp_path / f"{name}.mp4", [square_face(i) for i in range(4)])
    (tmp_path / "b.mp4").write_bytes(b"no film")
    first = options_for(tmp_path / "a.mp4", tmp_path / "out", small_model_path)
    return [replace(first, source=tmp_path / f"{name}.mp4") for name in "abc"]


def test_one_film_that_fails_stops_nobody_else(films: list[FilmOptions], tmp_path: Path) -> None:
    for _ in range(2):
        log = Log()
        assert run_films(films, log) is ExitCode.SOME_FAILED
        assert {path.name for path in (tmp_path / "out").glob("*.mp4")} == {"a.mp4", "c.mp4"}
        assert len(log.errors) == 1 and "b.mp4" in log.errors[0]
        assert "2 of 3 films are done, 1 failed" in log.lines
    assert sum("is already done" in line for line in log.lines) == 2
    with pytest.raises(InputError, match=r"b\.mp4"):
        run_films(films[1:2], Log())


def test_all_films_failed_for_one_reason(films: list[FilmOptions], tmp_path: Path) -> None:
    bad = [films[1], replace(films[1], source=tmp_path / "none.mp4")]
    assert run_films(bad, Log()) is ExitCode.BAD_INPUT


def test_ctrl_c_ends_the_run(films: list[FilmOptions], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("codeformer.video.films.run_film", lambda *_, **__: ExitCode.INTERRUPTED)
    log = Log()
    assert run_films(films, log) is ExitCode.INTERRUPTED
    assert "3 of 3 left" in log.errors[-1] and not (tmp_path / "out").exists()


def test_results_of_several_films_need_a_folder(films: list[FilmOptions], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="need a folder"):
        run_films([replace(film, output=tmp_path / "x.mp4") for film in films], Log())
