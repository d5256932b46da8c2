"""A run over several films: each is restored by :func:`~codeformer.video.film.run_film`, here or by a worker of Ray."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from codeformer.errors import CodeFormerError, ExitCode, RestorationError
from codeformer.models.file import ModelFile, find_model, open_model
from codeformer.options import RayOptions, Shard
from codeformer.run.messages import Kept, Messages
from codeformer.run.places import FILMS_HERE, FilmPlace
from codeformer.run.ray_pool import Opened, ray_outcomes, use_threads
from codeformer.run.runner import conclude, one_by_one, run_inputs
from codeformer.run.tally import Outcome, Tally
from codeformer.tasks.table import TASKS
from codeformer.video.film import run_film
from codeformer.video.options import FilmOptions, check_apart, output_file, report_file


def run_films(
    films: Sequence[FilmOptions],
    console: Messages,
    shard: Shard | None = None,
    ray: RayOptions | None = None,
    place: FilmPlace = FILMS_HERE,
) -> ExitCode:
    """Restore films, and write each with its report.

    A film that fails does not stop the others. Ctrl-C ends the run with ``ExitCode.INTERRUPTED``; what is done of the
    film at hand is then in ``NAME.partial.EXT``, but for workers of Ray: they are not waited for.

    Args:
        films: what to do. All have the same model, faces and canvas (``work``).
        console: where the run speaks.
        shard: which of the films are this process's; None for all.
        ray: which cluster restores the films, each as a whole; None for this process.
        place: where films and results are.

    Raises:
        UsageError: a film's result would replace another film, or its result.
        CodeFormerError: nothing can be done: no weights, no such device, or a single film that fails.
    """
    task, work = TASKS["restore"], films[0].work
    model = find_model(work.model.model, task, work.model.weights_dir)
    work = replace(work, w=model.choose_w(task, None if films[0].w_by_model else work.w))
    films = [replace(film, work=work) for film in films]
    if len(films) > 1:
        check_apart(films)
    films = films_of(films, shard, place)
    tally = Tally(len(films))
    if ray is not None:
        make = partial(open_worker, ray, model.path)

        def send(jobs: Iterator[FilmOptions]) -> Generator[Outcome, None, None]:
            return ray_outcomes(jobs, make, ray, _failed, block=1)

        state = run_inputs(films, lambda film: film, send, tally, console, unit="film")
        return conclude(tally, state, console, did="films are done")
    if len(films) == 1:
        return _restored(films[0], console, model, place)
    do = one_by_one(partial(_restore, console=console, model=model, place=place), _failed, "film")
    state = run_inputs(films, lambda film: film, do, tally, console, unit=None)  # each film has a bar of its own
    return conclude(tally, state, console, did="films are done")


def _restored(film: FilmOptions, console: Messages, model: ModelFile, place: FilmPlace) -> ExitCode:
    """Restore a film, which is here meanwhile."""
    output = output_file(film)
    with place.here(film.source, output, report_file(output), console):
        return run_film(film, console, model=model)


def _restore(film: FilmOptions, console: Messages, model: ModelFile, place: FilmPlace) -> Outcome:
    """Restore a film; Ctrl-C ends this and the run."""
    code = _restored(film, console, model, place)
    if code is ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    return Outcome(film.source, error=None if code is ExitCode.OK else _damaged(film))


def _failed(film: FilmOptions, error: CodeFormerError) -> Outcome:
    return Outcome(film.source, error=error)


def open_worker(ray: RayOptions, model: Path) -> Opened[FilmOptions]:
    """Open what a worker of ``--engine ray`` restores films with, in its own process. Raises CodeFormerError."""
    use_threads(ray)
    file = open_model(model)

    def do(films: Iterator[FilmOptions]) -> Generator[Outcome, None, None]:
        for film in films:
            heard = Kept()
            restore = one_by_one(partial(_restore, console=heard, model=file, place=FILMS_HERE), _failed, "film")
            for outcome in restore(iter([film])):
                yield replace(outcome, said=tuple(heard.lines))

    return Opened(do)


def films_of(films: Sequence[FilmOptions], shard: Shard | None, place: FilmPlace = FILMS_HERE) -> list[FilmOptions]:
    """Return the films that a shard takes."""
    return [film for film in films if shard is None or shard.takes(place.key(film.source))]


def _damaged(film: FilmOptions) -> CodeFormerError:
    return RestorationError(f"{film.source}: is damaged; {output_file(film)} holds what could be decoded")
