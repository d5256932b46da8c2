"""A run that enlarges whole pictures by super-resolution, without looking for faces."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codeformer.errors import CodeFormerError, ExitCode, UsageError
from codeformer.files.digest import sha256_of
from codeformer.files.paths import FileId, file_id
from codeformer.files.spool import SeenSet, packed_text
from codeformer.images.limits import most_pixels
from codeformer.images.picture import SUFFIXES, read_picture, write_noting
from codeformer.images.reading import format_of
from codeformer.options import UpscaleOptions
from codeformer.run.inputs import Input
from codeformer.run.messages import Messages
from codeformer.run.outputs import ending_of, final_ending
from codeformer.run.places import HERE, Place
from codeformer.run.plan import Plan, beside, plan_inputs
from codeformer.run.record import error_entry, stamp_of
from codeformer.run.report import Earlier, Report, look
from codeformer.run.runner import (
    Do,
    Pending,
    State,
    conclude,
    mention_ignored,
    mention_join,
    named_inputs,
    one_by_one,
    open_report,
    pending,
    run_inputs,
)
from codeformer.run.stored import Record, now
from codeformer.run.tally import Outcome, Tally
from codeformer.upsampling import ncnn as ncnn_weights
from codeformer.upsampling.networks import find_realesrgan
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
        upsampler = _upsampler(options, network)
        console.detail(f"{upsampler.name}: x{upsampler.scale}, {upsampler.device}, {upsampler.precision}")
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

        def finish(state: State) -> None:
            report.finish({**header, "state": state, "finished": now(), "summary": tally.summary()})

        enlarge: Do[Pending] = one_by_one(
            lambda job: _enlarge(job, upsampler, options, sources, report),
            lambda job, error: _failed(job, error, report),
            "upsample",
        )
        state = run_inputs(
            place.with_versions(named),
            lambda item: pending(item, stamp, report, resume=options.resume),
            place.around(enlarge, report),
            tally,
            console,
            append=report.append,
            finish=finish,
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
    """Return what decides the results: the settings and the network's digest."""
    settings = {name: getattr(options, name) for name in ("upscale", "ext", "quality", "precision")}
    return settings, ncnn_weights.fingerprint(network) if network.suffix == ".param" else sha256_of(network)


def network_of(options: UpscaleOptions) -> Path:
    """Return the file of the network that the options name. Raises WeightsError."""
    if options.model == "realesrgan":
        return find_realesrgan(options.upscale, options.weights_dir)
    return Path(options.model)


def _enlarge(job: Pending, upsampler: Upsampler, options: UpscaleOptions, sources: SeenSet, report: Report) -> Outcome:
    """Enlarge one picture and write it.

    What is there and is not an earlier result of this input belongs to somebody else: UsageError.
    """
    item = job.item
    picture = read_picture(item.path, max_pixels=options.max_pixels or most_pixels(options.upscale))
    name = f"{item.stem}{final_ending(options.ext, picture)}"
    path = report.root / name
    known = report.known.get(item.key)
    made = known.outputs if known else ()
    _require_free(path, name, made, options, sources)
    others = [(own, size) for own, size in made if own != name and (report.root / own).is_file()]
    enlarged = upsample_picture(picture, upsampler, options.upscale)
    # Before it is written, so that a file that a kill leaves is known as ours
    report.append(_record(job, "failed", [*others, (name, -1)]))
    lost = write_noting(enlarged, path, quality=options.quality, png_level=options.png_level, below=report.root)
    notes = (*picture.warnings, *([f"{name}: {lost}"] if lost else []))
    record = _record(job, "enlarged", [*others, (name, path.stat().st_size)], notes=notes)
    return Outcome(item.path, record, warnings=notes)


def _require_free(
    path: Path, name: str, made: Sequence[tuple[str, int]], options: UpscaleOptions, sources: SeenSet
) -> None:
    """Raise UsageError if what is at a result's place is not an earlier result of the same input."""
    found = file_id(path)
    if found is not None and _identity(found) in sources:
        raise UsageError(f"{path} is an input: choose another --output_path or --ext")
    if options.resume and os.path.lexists(path) and name not in {own for own, _ in made}:
        raise UsageError(f"{path} is there, but not as its result: choose another --output_path, or --overwrite it")


def _failed(job: Pending, error: CodeFormerError, report: Report) -> Outcome:
    """Results of an earlier run, and of other settings, stay this input's."""
    known = report.known.get(job.item.key)
    return Outcome(job.item.path, _record(job, "failed", known.outputs if known else (), error), error)


def _record(
    job: Pending,
    status: str,
    outputs: Sequence[tuple[str, int]],
    error: CodeFormerError | None = None,
    notes: Sequence[str] = (),
) -> Record:
    return {
        "input": job.item.key,
        "name": job.item.stem,
        "status": status,
        "fingerprint": "" if error else job.fingerprint,
        "outputs": [{"path": name, "bytes": size} for name, size in outputs],
        "notes": list(notes),
        "error": None if error is None else error_entry(job.item.path, error),
    }
