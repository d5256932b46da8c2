"""A run that enlarges whole pictures by super-resolution, without looking for faces."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from codeformer.errors import CodeFormerError, ExitCode, InputError, UsageError, WeightsError
from codeformer.files.atomic import reason
from codeformer.files.digest import sha256_of
from codeformer.files.paths import FileId, file_id
from codeformer.files.spool import SeenSet, packed_text
from codeformer.images.limits import most_pixels
from codeformer.images.picture import SUFFIXES, read_picture, write_noting
from codeformer.images.reading import format_of
from codeformer.options import RayOptions, UpscaleOptions
from codeformer.run.inputs import Input, NamedInput
from codeformer.run.messages import Messages
from codeformer.run.outputs import ending_of, final_ending
from codeformer.run.places import HERE, Place
from codeformer.run.plan import Plan, beside, plan_inputs
from codeformer.run.ray_pool import Opened, Sent, ray_outcomes, sent_outcomes, use_threads
from codeformer.run.record import error_entry, stamp_of
from codeformer.run.report import Earlier, Report, look
from codeformer.run.runner import (
    Pending,
    conclude,
    mention_ignored,
    mention_join,
    named_inputs,
    one_by_one,
    open_report,
    pending,
)
from codeformer.run.stored import Known, Record, known_of, now
from codeformer.run.tally import Outcome, Tally
from codeformer.run.workers import Work, for_worker, run_named
from codeformer.upsampling import ncnn as ncnn_weights
from codeformer.upsampling.networks import find_realesrgan, require_network
from codeformer.upsampling.upsampler import Upsampler, make_upsampler, upsample_picture
from codeformer.version import __version__

REPORT = "upscale.json"  # beside a results.json, which restore and the others may keep in the same folder


def run_upscale(
    options: UpscaleOptions, console: Messages, *, where: Path | None = None, place: Place = HERE
) -> ExitCode:
    """Enlarge every picture, and write the results and their report.

    ``where``: what the summary names as the place of the results, instead of the output folder. ``place``: where inputs
    and results lie.

    A picture that fails does not stop the others. Ctrl-C ends the run cleanly with ``ExitCode.INTERRUPTED``.

    Raises:
        CodeFormerError: nothing can be done (no input, no network), or nothing can be written any more.
    """
    with open_report(options.output_path, REPORT, console, options.shard) as report:
        found = _found(options, report, console, place)
        count, named = named_inputs(report, found)
        network = network_of(options)
        settings, digest = _settled(options, network)
        stamp = stamp_of(settings, digest)
        header = {
            "codeformer": __version__,
            "task": "upscale",
            "started": now(),
            "model": {"file": str(network), "sha256": digest},
            "settings": settings,
        }
        sources = _identities(found)
        tally = Tally(count)

        def here() -> Work[Pending]:
            upsampler = _upsampler(options, network)
            console.detail(_told(upsampler))

            def free(job: Pending, name: str) -> None:
                known = report.known.get(job.item.key)
                _require_free(report.root / name, name, known.outputs if known else (), options, sources)

            do = _enlarging(upsampler, options, _Results(report.root, report.known.get, free, report.append))
            return Work(lambda item: pending(item, stamp, report, resume=options.resume), do)

        def on_ray(ray: RayOptions) -> Work[Claimed]:
            make = partial(open_worker, for_worker(options), report.root, network)

            def send(jobs: Iterator[Claimed]) -> Generator[Outcome, None, None]:
                return ray_outcomes(jobs, make, ray, _lost, opened=lambda facts: console.detail(facts["upsampler"]))

            return Work(lambda item: _claimed(item, report, options, sources), send)

        state = run_named(
            named,
            report,
            place,
            tally,
            console,
            ray=options.ray,
            here=here,
            on_ray=on_ray,
            head=lambda: header,
        )
        mention_join(report, console)
    return conclude(
        tally, state, console, did="enlarged", where=where or options.output_path, report=report.root / REPORT
    )


def _found(options: UpscaleOptions, earlier: Earlier, console: Messages, place: Place) -> Sequence[Input]:
    """Return the inputs; what earlier runs made is not one."""
    made = SeenSet(packed_text(name) for known in earlier.known.known_values() for name, _ in known.outputs)
    listing = place.find(
        options.inputs,
        recursive=options.recursive,
        suffixes=SUFFIXES,
        root=earlier.root,
        is_result=lambda name: packed_text(name) in made,
        input_list=options.input_list,
    )
    mention_ignored(listing.ignored, console)
    return listing.inputs


def _identities(inputs: Sequence[Input]) -> SeenSet:
    """Return what tells the inputs' files from all others, by whatever names."""
    found = (file_id(one.path) for one in inputs)
    return SeenSet(_identity(one) for one in found if one is not None)


def _identity(found: FileId) -> bytes:
    return b"%d:%d" % found


def _upsampler(options: UpscaleOptions, network: Path) -> Upsampler:
    return make_upsampler(
        network,
        scale=options.upscale,
        device=options.device,
        precision=options.precision,
        tile=options.tile,
        weights_dir=options.weights_dir,
    )


def plan_upscale(options: UpscaleOptions, console: Messages, file: Path | None = None, place: Place = HERE) -> Plan:
    """Return what :func:`run_upscale` would do, after its checks; nothing is written.

    Args:
        options: the run.
        console: where the checks speak.
        file: the result's file, where that is given instead of a folder.
        place: where inputs and results lie.

    Raises:
        CodeFormerError: as the run does before its first picture.
    """
    earlier = look(options.output_path, REPORT, options.shard) if file is None else beside(file, REPORT)
    root = earlier.root
    found = _found(options, earlier, console, place)
    _, named = named_inputs(earlier, found)
    network = network_of(options)
    upsampler = _upsampler(options, network)
    stamp = stamp_of(*_settled(options, network))
    sources = _identities(found)

    def results(job: Pending) -> list[Path]:
        item = job.item
        name = f"{item.stem}{ending_of(options.ext, item.path, format_of(item.path))}"
        known = earlier.known.get(item.key)
        if file is None:
            _require_free(root / name, name, known.outputs if known else (), options, sources)
        return [file or root / name]

    planned = plan_inputs(
        named, lambda item: pending(item, stamp, earlier, resume=options.resume), earlier, results, place
    )
    where = f"{upsampler.device}, {upsampler.precision}"
    return Plan("enlarged", planned, (("model", f"{network}, x{options.upscale:g}"), ("device", where)))


def _settled(options: UpscaleOptions, network: Path) -> tuple[dict[str, Any], str]:
    """Return what decides the results: the settings and the network's digest. Raises WeightsError."""
    settings = {name: getattr(options, name) for name in ("upscale", "ext", "quality", "precision")}
    try:
        return settings, ncnn_weights.fingerprint(network) if network.suffix == ".param" else sha256_of(network)
    except OSError as error:
        raise WeightsError(f"{error.filename or network}: cannot be read ({reason(error)})") from error


def network_of(options: UpscaleOptions) -> Path:
    """Return the file of the network that the options name. Raises WeightsError."""
    if options.model == "realesrgan":
        return find_realesrgan(options.upscale, options.weights_dir)
    network = Path(options.model)
    require_network(network)
    return network


@dataclass(frozen=True)
class _Results:
    """Where results go, and which input the files there belong to.

    Attributes:
        root: the output folder.
        known: what is known of an input, by its key.
        require_free: raises UsageError if an input's result may not have a name.
        append: writes a record down.
    """

    root: Path
    known: Callable[[str], Known | None]
    require_free: Callable[[Pending, str], None]
    append: Callable[[Record], None]

    def made(self, job: Pending) -> Sequence[tuple[str, int]]:
        """Return the results that an input has, with their sizes."""
        known = self.known(job.item.key)
        return known.outputs if known else ()


def _enlarging(
    upsampler: Upsampler, options: UpscaleOptions, results: _Results
) -> Callable[[Iterator[Pending]], Generator[Outcome, None, None]]:
    """Return what enlarges pictures. Results of an earlier run, and of other settings, stay those of their input."""

    def failed(job: Pending, error: CodeFormerError) -> Outcome:
        return Outcome(job.item.path, _record(job.item, "failed", results.made(job), error=error), error)

    return one_by_one(lambda job: _enlarge(job, upsampler, options, results), failed, "upsample")


def _enlarge(job: Pending, upsampler: Upsampler, options: UpscaleOptions, results: _Results) -> Outcome:
    """Enlarge one picture and write it.

    What is there and is not an earlier result of this input belongs to somebody else: UsageError.
    """
    item, root = job.item, results.root
    picture = read_picture(item.path, max_pixels=options.max_pixels or most_pixels(options.upscale))
    name = f"{item.stem}{final_ending(options.ext, picture)}"
    path = root / name
    results.require_free(job, name)
    others = _others(root, name, results.made(job))
    enlarged = upsample_picture(picture, upsampler, options.upscale)
    # Before it is written, so that a file that a kill leaves is known as ours
    results.append(_record(item, "failed", [*others, (name, -1)], job.fingerprint))
    lost = write_noting(enlarged, path, quality=options.quality, png_level=options.png_level, below=root)
    notes = (*picture.warnings, *([f"{name}: {lost}"] if lost else []))
    record = _record(item, "enlarged", [*others, (name, path.stat().st_size)], job.fingerprint, notes=notes)
    return Outcome(item.path, record, warnings=notes)


def _others(root: Path, name: str, made: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the results of an input that have other names, and are there."""
    return [(own, size) for own, size in made if own != name and (root / own).is_file()]


@dataclass(frozen=True)
class Claimed(Sent):
    """An input on its way to a worker.

    Attributes:
        name: of its result, which belongs to this input from now on; empty where its file does not tell.
        refusal: why its result may not have that name.
    """

    name: str = ""
    refusal: UsageError | None = None


def _claimed(item: NamedInput, report: Report, options: UpscaleOptions, sources: SeenSet) -> Claimed:
    """Look whether the result's name is free, and write down that it is this input's.

    A worker cannot tell a file that a killed worker left from somebody else's.
    """
    known = report.known.get(item.key)
    made = known.outputs if known else ()
    try:
        kind = format_of(item.path) if options.ext == "same" else None
    except CodeFormerError:  # which the worker will say
        return Claimed(item, known)
    name = f"{item.stem}{ending_of(options.ext, item.path, kind)}"
    try:
        _require_free(report.root / name, name, made, options, sources)
    except UsageError as error:
        return Claimed(item, known, name, error)
    if name not in {own for own, _ in made}:
        report.append(_record(item, "pending", [*_others(report.root, name, made), (name, -1)]))
    return Claimed(item, known, name)


def open_worker(options: UpscaleOptions, root: Path, network: Path) -> Opened[Claimed]:
    """Open what a worker of ``--engine ray`` works with, in its own process. Raises CodeFormerError."""
    use_threads(options.ray or RayOptions())
    upsampler = _upsampler(options, network)
    stamp = stamp_of(*_settled(options, network))

    def enlarge(todo: Iterator[Pending], sent: Mapping[str, Claimed]) -> Iterator[Outcome]:
        begun: dict[str, Known] = {}

        def known(key: str) -> Known | None:
            return begun.get(key, sent[key].known)

        def free(job: Pending, name: str) -> None:
            claimed = sent[job.item.key]
            if claimed.refusal is not None:
                raise claimed.refusal
            if claimed.name != name:
                raise InputError(f"{job.item.path}: was changed during the run; run the same command again")

        def append(record: Record) -> None:
            begun[record["input"]] = known_of(record)

        return _enlarging(upsampler, options, _Results(root, known, free, append))(todo)

    def do(jobs: Iterator[Claimed]) -> Generator[Outcome, None, None]:
        return sent_outcomes(jobs, enlarge, stamp, root, resume=options.resume)

    return Opened(do, {"upsampler": _told(upsampler)})


def _told(upsampler: Upsampler) -> str:
    return f"{upsampler.name}: x{upsampler.scale}, {upsampler.device}, {upsampler.precision}"


def _lost(job: Claimed, error: CodeFormerError) -> Outcome:
    """Return the outcome of an input whose worker ended each time; it may have left a file."""
    outputs = list(job.known.outputs if job.known else ())
    if job.name and job.refusal is None and job.name not in {own for own, _ in outputs}:
        outputs.append((job.name, -1))
    return Outcome(job.item.path, _record(job.item, "failed", outputs, error=error), error)


def _require_free(
    path: Path, name: str, made: Sequence[tuple[str, int]], options: UpscaleOptions, sources: SeenSet
) -> None:
    """Raise UsageError if what is at a result's place is not an earlier result of the same input."""
    found = file_id(path)
    if found is not None and _identity(found) in sources:
        raise UsageError(f"{path} is an input: choose another --output_path or --ext")
    if options.resume and os.path.lexists(path) and name not in {own for own, _ in made}:
        raise UsageError(
            f"{path} exists and is not a result of this input: choose another --output_path, or --overwrite it"
        )


def _record(
    item: NamedInput,
    status: str,
    outputs: Sequence[tuple[str, int]],
    fingerprint: str = "",
    *,
    error: CodeFormerError | None = None,
    notes: Sequence[str] = (),
) -> Record:
    return {
        "input": item.key,
        "name": item.stem,
        "status": status,
        "fingerprint": fingerprint,
        "outputs": [{"path": name, "bytes": size} for name, size in outputs],
        "notes": list(notes),
        "error": None if error is None else error_entry(item.path, error),
    }
