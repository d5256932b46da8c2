"""The API over HTTP: every path and its errors. The page is mounted beside it (:mod:`codeformer.web.page`)."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, Form, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from codeformer.cli.models import rows as model_rows
from codeformer.errors import CodeFormerError, InputError, OutputError
from codeformer.images.picture import file_noting
from codeformer.options import VIDEO_SUFFIXES, OutputOptions, UpscaleOptions
from codeformer.pipeline.pictures import Result
from codeformer.run.pictures import no_face_error
from codeformer.tasks.base import Task
from codeformer.tasks.colorize import Colorize
from codeformer.tasks.inpaint import Inpaint
from codeformer.tasks.table import TASKS
from codeformer.version import __version__
from codeformer.video.reader import open_film
from codeformer.web.describe import as_html
from codeformer.web.fields import (
    ColorizeFields,
    FilmFields,
    InpaintFields,
    PictureFields,
    UpscaleFields,
    color_of,
    points_of,
)
from codeformer.web.films import FilmJob
from codeformer.web.options import face_work, film_options, has_w
from codeformer.web.service import Service, Upload, describe, safe_name, status_of, without, words_of

_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_VERBS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_LOOK = 0.2  # seconds between two looks at whether a client is still there
_ANSWER = "The picture; with `Accept: application/json` its faces and notes, and the picture in base64."


class TimeoutOfRequestError(CodeFormerError):
    """A picture took longer than the server allows."""


def create_app(service: Service) -> FastAPI:
    """Return the application; it closes the service when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="codeformer",
        version=__version__,
        description="Restore, colorize and inpaint faces. Fields are named as the command line's flags.",
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        servers=[{"url": service.server.root_path}] if service.server.root_path else None,
    )
    _add_errors(app)
    _add_pictures(app, service)
    _add_films(app, service)

    @app.get("/healthz", summary="Whether the server lives")
    def health() -> dict[str, Any]:
        return {"status": "ok", "version": __version__, "waiting": service.batches.waiting}

    @app.get("/api/models", summary="Which weights there are, which are here, and whether they are right")
    def models() -> dict[str, Any]:
        rows = model_rows(service.server.model.weights_dir)
        return {"models": [{k: v for k, v in row.items() if k not in ("path", "problem")} for row in rows]}

    @app.api_route("/api/{path:path}", methods=_VERBS, include_in_schema=False)
    def nothing(path: str) -> None:  # else the page answers
        raise HTTPException(404, f"/api/{path}: no such path, or not with this method; /docs has them all")

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(as_html(app.openapi()))

    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(CodeFormerError)
    async def ours(request: Request, error: CodeFormerError) -> JSONResponse:
        status = 503 if isinstance(error, TimeoutOfRequestError) else status_of(error)
        headers = {"Retry-After": "5"} if status == 429 else {}
        content = {"error": words_of(error), "kind": type(error).__name__, "exit_code": int(error.exit_code)}
        return JSONResponse(content, status, headers)

    @app.exception_handler(RequestValidationError)
    async def fields(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name = str(first["loc"][1]) if len(first["loc"]) > 1 else "form"
        if first["type"] == "extra_forbidden":
            text = f"{name}: no such field; /docs has them all"
        elif first["type"] == "missing":
            text = f"{name}: is needed"
        else:
            text = f"--{name}: {first['msg'].removeprefix('Value error, ').removeprefix(f'--{name}: ')}"
        return JSONResponse({"error": text, "kind": "UsageError", "exit_code": 2}, 422)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail), "kind": "RefusedError"}, error.status_code, error.headers)


def _add_pictures(app: FastAPI, service: Service) -> None:
    kinds: dict[int | str, dict[str, Any]] = {200: {"content": {kind: {} for kind in _TYPES.values()}}}

    @app.post("/api/restore", summary="Restore the faces of a picture", description=_ANSWER, responses=kinds)
    async def restore(request: Request, form: Annotated[PictureFields, Form()]) -> Response:
        return await _faces(service, request, form, TASKS["restore"])

    @app.post("/api/colorize", summary="Give colour to grey faces", description=_ANSWER, responses=kinds)
    async def colorize(request: Request, form: Annotated[ColorizeFields, Form()]) -> Response:
        strength = 1.0 if form.color_strength is None else form.color_strength
        return await _faces(service, request, form, Colorize(form.keep_luma, strength))

    @app.post("/api/inpaint", summary="Fill the masked parts of faces", description=_ANSWER, responses=kinds)
    async def inpaint(request: Request, form: Annotated[InpaintFields, Form()]) -> Response:
        plain = Inpaint()
        task = replace(
            plain,
            color=None if form.mask_color is None else color_of(form.mask_color),
            tolerance=plain.tolerance if form.mask_tolerance is None else form.mask_tolerance,
            grow=plain.grow if form.mask_grow is None else form.mask_grow,
            feather=plain.feather if form.mask_feather is None else form.mask_feather,
        )
        async with _kept(service, [] if form.mask is None else [form.mask]) as mask:
            return await _faces(service, request, form, replace(task, mask=next(iter(mask), None)), mask)

    @app.post("/api/upscale", summary="Enlarge a picture by super-resolution", description=_ANSWER, responses=kinds)
    async def upscale(request: Request, form: Annotated[UpscaleFields, Form()]) -> Response:
        options = UpscaleOptions((Path("x"),), Path(), upscale=form.upscale, ext=form.ext, quality=form.quality)
        name = safe_name(form.picture.filename)
        future = service.enlarge(Upload(form.picture.file, name), options)
        result = await _awaited(future, request, service.server.timeout)
        return await _answer(request, result, name, form.ext, form.quality, "enlarged", {})


async def _faces(
    service: Service, request: Request, form: PictureFields, task: Task, hidden: dict[Path, str] | None = None
) -> Response:
    async with _kept(service, form.person) as photos:
        try:
            return await _done(service, request, form, task, photos, {**photos, **(hidden or {})})
        except CodeFormerError as error:
            raise type(error)(without(str(error), photos)) from error


async def _done(
    service: Service, request: Request, form: PictureFields, task: Task, photos: Iterable[Path], hidden: dict[Path, str]
) -> Response:
    fields = form.given()
    fields["landmarks"] = [points_of(text) for text in form.landmarks]
    fields["person"] = list(photos)
    work = face_work(fields, task, service.server)
    OutputOptions(ext=form.ext, quality=form.quality)
    model = await run_in_threadpool(service.networks.model, task)
    work = replace(work, w=model.choose_w(task, work.w if has_w(fields) else None))
    name = safe_name(form.picture.filename)
    future = service.work_on(Upload(form.picture.file, name), task, work)
    result = await _awaited(future, request, service.server.timeout)
    if result.error is None and result.without_face and form.no_face == "error":
        raise InputError(f"{name}: {no_face_error(result)}")
    if result.error is None and result.done:
        result = replace(result, notes=(*result.notes, *model.doubts(task, work.w)))
    return await _answer(request, result, name, form.ext, form.quality, task.past, hidden)


async def _awaited(future: Future[Result[None]], request: Request, limit: float) -> Result[None]:
    """Wait for a result as long as the client does. Raises TimeoutOfRequestError."""
    waiting = asyncio.wrap_future(future)
    end = time.monotonic() + limit
    try:
        while True:
            done, _ = await asyncio.wait([waiting], timeout=_LOOK)
            if done:
                return waiting.result()
            if time.monotonic() > end:
                raise TimeoutOfRequestError(
                    f"took longer than {limit:g} s (--timeout): try again later, or a smaller picture"
                )
            if await request.is_disconnected():
                raise HTTPException(499, "the client left")
    finally:
        waiting.cancel()  # and with it the future, if its turn has not come


async def _answer(
    request: Request, result: Result[None], name: Path, ext: str, quality: int, past: str, hidden: dict[Path, str]
) -> Response:
    if result.error is not None or result.output is None:
        error = result.error or InputError("nothing came of it")
        text = without(words_of(error, name), hidden)
        raise type(error)(text)
    goal = name.with_suffix(f".{ext}")
    data, lost = await run_in_threadpool(file_noting, result.output, goal, quality=quality)
    record = describe(result, name, past if result.done or not result.faces else "no_face")
    record["notes"] = [*(without(note, hidden) for note in record["notes"]), *([lost] if lost else [])]
    if past != "enlarged" and result.without_face:
        record["status"] = "no_face"
        record["notes"].insert(0, f"{result.nothing}; only resized")
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({**record, "picture": base64.b64encode(data).decode(), "type": _TYPES[ext]})
    headers = {
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(str(goal))}",
        "Codeformer-Faces": str(result.done),
        "Codeformer-Notes": json.dumps(record["notes"][:10])[:4000],
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(data, media_type=_TYPES[ext], headers=headers)


def _add_films(app: FastAPI, service: Service) -> None:
    films, root = service.films, service.server.root_path

    @app.post("/api/films", status_code=202, summary="Restore the faces in a film: a job")
    async def new(form: Annotated[FilmFields, Form()]) -> dict[str, Any]:
        fields = form.given()
        fields["landmarks"] = [points_of(text) for text in form.landmarks]
        people = [(safe_name(one.filename, "photo"), one.file) for one in form.person]
        job = await run_in_threadpool(film_job, service, form.film.filename, form.film.file, fields, people)
        return job.describe(root)

    @app.get("/api/jobs/{key}", summary="How far a job is")
    def look(key: str) -> dict[str, Any]:
        return _found(service, key).describe(root)

    @app.post("/api/jobs/{key}", summary="Let a job that was cancelled, or failed, go on where it stopped")
    def go_on(key: str) -> dict[str, Any]:
        job = _found(service, key)
        films.start(job)
        return job.describe(root)

    @app.post("/api/jobs/{key}/cancel", summary="Interrupt a job; what is done of it stays")
    def cancel(key: str) -> dict[str, Any]:
        job = _found(service, key)
        films.cancel(job)
        return job.describe(root)

    @app.get("/api/jobs/{key}/result", summary="The film, or the ZIP of a preview", response_class=FileResponse)
    def result(key: str) -> FileResponse:
        job = _found(service, key)
        path = job.result
        if path is None:
            raise HTTPException(409, f"{job.name}: is {job.state}, not done" + (f" ({job.error})" if job.error else ""))
        stem = Path(job.name).stem
        return FileResponse(path, filename=f"{stem}{path.suffix}", headers={"Cache-Control": "no-store"})

    @app.get("/api/jobs/{key}/frames/{number}", summary="One frame of a preview, before and after side by side")
    def frame(key: str, number: int) -> FileResponse:
        frames = _found(service, key).frames
        if not 1 <= number <= len(frames):
            raise HTTPException(404, "no such frame: a preview has frames 1 to N when it is done")
        return FileResponse(frames[number - 1], headers={"Cache-Control": "no-store"})

    @app.delete("/api/jobs/{key}", status_code=204, summary="Cancel a job and delete all its files")
    def delete(key: str) -> Response:
        films.remove(_found(service, key))
        return Response(status_code=204)


def film_job(
    service: Service,
    filename: str | None,
    file: Any,
    fields: dict[str, Any],
    people: Sequence[tuple[Path, Any]] = (),
) -> FilmJob:
    """Check a film and its options, and queue it.

    Args:
        service: works on it.
        filename: what its owner calls it.
        file: holds it.
        fields: its options.
        people: photographs of the one person who is wanted, with their names.

    Raises:
        CodeFormerError: a field is out of range, it is not a film, or too many wait.
    """
    name = safe_name(filename, "film")
    ending = name.suffix.lower() if name.suffix.lower() in VIDEO_SUFFIXES else ""
    task, server = TASKS["restore"], service.server
    work = film_options(fields, task, server, Path("film.mp4"), Path("out.mp4")).work
    service.networks.model(task).choose_w(task, work.w if has_w(fields) else None)
    job = service.films.new(str(name), ending, fields)
    try:
        with job.source.open("wb") as goal:
            shutil.copyfileobj(file, goal)
        for number, (called, photo) in enumerate(people):
            path = job.folder / f"person{number}{called.suffix}"
            job.photos[path] = str(called)
            with path.open("wb") as goal:
                shutil.copyfileobj(photo, goal)
        fields["person"] = [str(path) for path in job.photos]
        options = film_options(fields, task, server, job.source, job.output)
        try:
            film = open_film(job.source, start=options.start, end=options.end, stream=options.stream)
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error.strerror})") from error
        if film.info.width * film.info.height > service.most_pixels(options.work.canvas.upscale):
            raise InputError(f"{name}: {film.info.width}x{film.info.height} pixels are more than this server takes")
    except CodeFormerError as error:
        service.films.remove(job)
        raise type(error)(job.without_paths(str(error))) from error
    except OSError as error:
        service.films.remove(job)
        raise OutputError(f"{name}: cannot be stored ({error.strerror})") from error
    service.films.start(job)
    return job


def _found(service: Service, key: str) -> FilmJob:
    job = service.films.get(key)
    if job is None:
        raise HTTPException(404, "no such job: it was deleted, or never there")
    return job


@asynccontextmanager
async def _kept(service: Service, uploads: Sequence[UploadFile]) -> AsyncIterator[dict[Path, str]]:
    """Keep uploads as files as long as a request lasts; yield what their owner calls each."""
    if not uploads:
        yield {}
        return
    with tempfile.TemporaryDirectory(dir=service.root) as folder:
        names = {}
        for number, upload in enumerate(uploads):
            name = safe_name(upload.filename, "upload")
            path = Path(folder) / f"{number}{name.suffix}"
            names[path] = str(name)
            await run_in_threadpool(_save, upload, path)
        yield names


def _save(upload: UploadFile, path: Path) -> None:
    with path.open("wb") as goal:
        shutil.copyfileobj(upload.file, goal)
