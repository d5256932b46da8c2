"""What a run over films would do, found out without writing anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from codeformer.errors import CodeFormerError, RestorationError
from codeformer.files.atomic import unwritable, why_closed
from codeformer.models.file import ModelFile, find_model
from codeformer.options import Shard
from codeformer.pipeline.engine import open_engine
from codeformer.run.messages import Messages
from codeformer.run.plan import Plan, Planned, facts_of
from codeformer.tasks.table import TASKS
from codeformer.video.films import films_of
from codeformer.video.options import FilmOptions, check_apart
from codeformer.video.plan import already_done, plan_film, refuse_to_replace, work_stamp
from codeformer.video.work import WorkFolder, work_folder


def plan_films(films: Sequence[FilmOptions], console: Messages, shard: Shard | None = None) -> Plan:
    """Return what :func:`~codeformer.video.films.run_films` would do, after its checks; nothing is written.

    ``shard``: which of the films are this process's; None for all.

    Raises:
        CodeFormerError: as the run does before its first film.
    """
    task, work = TASKS["restore"], films[0].work
    model = find_model(work.model.model, task, work.model.weights_dir)
    work = replace(work, w=model.choose_w(task, None if films[0].w_by_model else work.w))
    films = [replace(film, work=work) for film in films]
    check_apart(films)
    planned = [_planned(film, model, console) for film in films_of(films, shard)]
    facts = [("model", f"{model.path}, w {work.w:g}")]
    if any(not one.done for one in planned):
        facts += facts_of(open_engine(task, work, model))
    return Plan("restored", tuple(planned), tuple(facts))


def _planned(options: FilmOptions, model: ModelFile, console: Messages) -> Planned:
    try:
        plan = plan_film(options, model, console)
        if options.preview:
            folder = plan.output.with_name(f"{plan.output.stem}_preview")
            return Planned(options.source, (folder,), note=f"a preview of {options.preview} frames")
        done = already_done(plan) if options.resume else None
        if options.resume and done is None:
            refuse_to_replace(plan, None)
        if error := why_closed(plan.output.parent):
            raise unwritable(plan.output, error)
    except CodeFormerError as error:
        return Planned(options.source, error=error)
    results = (plan.output, plan.report)
    if done is not None:
        damaged = RestorationError("is damaged; the film is what could be decoded") if done else None
        return Planned(options.source, results, done=not done, error=damaged)
    info = plan.film.info
    frames = f"{info.frames} frames, " if info.frames else ""
    text = f"{frames}{plan.encoding.codec}"
    if (
        options.resume
        and work_folder(plan.output).is_dir()
        and WorkFolder.others_work(plan.output, work_stamp(plan, None))[1]
    ):
        text += ", goes on with what an interrupted run finished"
    return Planned(options.source, results, note=text)
