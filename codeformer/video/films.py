"""A run over several films: each is restored by :func:`~codeformer.video.film.run_film`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from codeformer.errors import CodeFormerError, ExitCode, RestorationError
from codeformer.models.file import find_model
from codeformer.options import Shard
from codeformer.run.messages import Messages
from codeformer.run.runner import conclude, one_by_one, run_inputs
from codeformer.run.tally import Outcome, Tally
from codeformer.tasks.table import TASKS
from codeformer.video.film import run_film
from codeformer.video.options import FilmOptions, check_apart, output_file


def run_films(films: Sequence[FilmOptions], console: Messages, shard: Shard | None = None) -> ExitCode:
    """Restore films, and write each with its report.

    A film that fails does not stop the others. Ctrl-C ends the run with ``ExitCode.INTERRUPTED``; what is done of the
    film at hand is then in ``NAME.partial.EXT``.

    Args:
        films: what to do. All have the same model, faces and canvas (``work``).
        console: where the run speaks.
        shard: which of the films are this process's; None for all.

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
    films = films_of(films, shard)
    if len(films) == 1:
        return run_film(films[0], console, model=model)

    def restore(film: FilmOptions) -> Outcome:
        code = run_film(film, console, model=model)
        if code is ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        return Outcome(film.source, error=None if code is ExitCode.OK else _damaged(film))

    tally = Tally(len(films))
    do = one_by_one(restore, lambda film, error: Outcome(film.source, error=error), "film")
    state = run_inputs(films, lambda film: film, do, tally, console, unit=None)  # each film has a bar of its own
    return conclude(tally, state, console, did="films are done")


def films_of(films: Sequence[FilmOptions], shard: Shard | None) -> list[FilmOptions]:
    """Return the films that a shard takes."""
    return [film for film in films if shard is None or shard.takes(os.path.normpath(film.source.absolute()))]


def _damaged(film: FilmOptions) -> CodeFormerError:
    return RestorationError(f"{film.source}: is damaged; {output_file(film)} holds what could be decoded")
