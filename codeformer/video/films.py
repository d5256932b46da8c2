"""A run over several films: each is restored by :func:`~codeformer.video.film.run_film`, here or by a worker of Ray."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from codeformer.errors import CodeFormerError, ExitCode, OutputError, RestorationError
from codeformer.models.file import ModelFile, find_model, open_model
from codeformer.options import RayOptions, Shard
from codeformer.pipeline.engine import Engine, open_engine
from codeformer.run.messages import Kept, Messages
from codeformer.run.places import FILMS_HERE, FilmPlace
from codeformer.run.ray_pool import Opened, pool, use_threads
from codeformer.run.runner import conclude, one_by_one, run_inputs
from codeformer.run.tally import Outcome, Tally
from codeformer.tasks.table import TASKS
from codeformer.video.film import run_film
from codeformer.video.options import FilmOptions, check_apart, output_file, report_file
from codeformer.video.parts import Divided, FilmPart, divided, restore_part
from codeformer.video.work import hold_work


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
        ray: which cluster restores the films; None for this process.
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
        send = partial(_sent, make=partial(open_worker, ray, model.path), ray=ray, console=console)
        state = run_inputs(films, lambda film: film, send, tally, console, unit="film")
        return conclude(tally, state, console, did="films are done")
    if len(films) == 1:
        return _restored(films[0], console, model, place)
    do = one_by_one(partial(_restore, console=console, model=model, place=place), _failed, "film")
    state = run_inputs(films, lambda film: film, do, tally, console, unit=None)  # each film has a bar of its own
    return conclude(tally, state, console, did="films are done")


def _restored(
    film: FilmOptions, console: Messages, model: ModelFile, place: FilmPlace, *, begun: bool = False
) -> ExitCode:
    """Restore a film, which is here meanwhile."""
    output = output_file(film)
    with place.here(film.source, output, report_file(output), console):
        return run_film(film, console, model=model, begun=begun)


def _restore(
    film: FilmOptions, console: Messages, model: ModelFile, place: FilmPlace, *, begun: bool = False
) -> Outcome:
    """Restore a film; Ctrl-C ends this and the run."""
    code = _restored(film, console, model, place, begun=begun)
    if code is ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    return Outcome(film.source, error=None if code is ExitCode.OK else _damaged(film))


def _failed(film: FilmOptions, error: CodeFormerError) -> Outcome:
    return Outcome(film.source, error=error)


@dataclass(frozen=True)
class Errand:
    """What a worker of ``--engine ray`` does with a film: divide it, restore a part of it, or restore it.

    Attributes:
        film: the film.
        count: into how many parts it is to be divided; 0 for not at all.
        part: the part; None for the film.
        begun: parts of it are done.
    """

    film: FilmOptions
    count: int = 0
    part: FilmPart | None = None
    begun: bool = False


def _sent(
    films: Iterator[FilmOptions],
    make: Callable[[], Opened[Errand]],
    ray: RayOptions,
    console: Messages,
) -> Generator[Outcome, None, None]:
    """Let workers restore films. Where they are fewer than the workers, parts of them are restored first."""
    errands = [Errand(film) for film in films]
    if not errands:
        return
    with pool(ray) as workers:
        do = partial(workers.outcomes, make=make, lost=_lost, block=1)
        if len(errands) < workers.size:
            begun = _in_parts(errands, 2 * workers.size, do, console)
            errands = [replace(one, begun=one.film.source in begun) for one in errands]
        yield from do(iter(errands))


def _in_parts(
    films: Sequence[Errand], count: int, do: Callable[[Iterator[Errand]], Iterator[Outcome]], console: Messages
) -> set[Path]:
    """Restore films in so many parts, and return the films that are begun so. What failed will be tried again."""
    parts: list[Errand] = []
    begun, said = set(), set()
    with ExitStack() as locks:
        for outcome in do(replace(one, count=-(-count // len(films))) for one in films):
            if isinstance(outcome, Divided) and outcome.parts and _locked(outcome, locks):
                parts += (Errand(outcome.film, part=part) for part in outcome.parts)
                begun.add(outcome.path)
        for number, outcome in enumerate(do(iter(parts)), 1):
            for kind, line in outcome.said:
                if line not in said:
                    said.add(line)
                    getattr(console, kind)(line)
            if outcome.error is None:
                console.note(f"{outcome.path}: a part is done ({number} of {len(parts)} parts of all films)")
            else:
                console.warning(f"{outcome.path}: a part failed and will be done again: {outcome.error}")
    return begun


def _locked(film: Divided, locks: ExitStack) -> bool:
    """Keep others from a film while its parts are done; return whether that can be."""
    try:
        locks.enter_context(hold_work(output_file(film.film)))
    except (OutputError, OSError):  # which is said when its turn comes
        return False
    return True


def _lost(errand: Errand, error: CodeFormerError) -> Outcome:
    return _failed(errand.film, error)


def open_worker(ray: RayOptions, model: Path) -> Opened[Errand]:
    """Open what a worker of ``--engine ray`` restores films with, in its own process. Raises CodeFormerError."""
    use_threads(ray)
    file = open_model(model)
    engines: list[Engine] = []  # all films are restored alike

    def run(errand: Errand, console: Messages) -> Outcome:
        if errand.count:
            return divided(errand.film, errand.count, file)
        if errand.part is None:
            return _restore(errand.film, console, file, FILMS_HERE, begun=errand.begun)
        if not engines:
            engines.append(open_engine(TASKS["restore"], errand.film.work, file))
        return restore_part(errand.part, engines[0], console)

    def do(errands: Iterator[Errand]) -> Generator[Outcome, None, None]:
        for errand in errands:
            heard = Kept()
            for outcome in one_by_one(partial(run, console=heard), _lost, "film")(iter([errand])):
                yield replace(outcome, said=tuple(heard.lines))

    return Opened(do)


def films_of(films: Sequence[FilmOptions], shard: Shard | None, place: FilmPlace = FILMS_HERE) -> list[FilmOptions]:
    """Return the films that a shard takes."""
    return [film for film in films if shard is None or shard.takes(place.key(film.source))]


def _damaged(film: FilmOptions) -> CodeFormerError:
    return RestorationError(f"{film.source}: is damaged; {output_file(film)} holds what could be decoded")
