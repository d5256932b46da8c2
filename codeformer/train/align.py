"""Photographs to aligned faces: the run of ``codeformer align``, the first step of training.

Faces that are too small or too blurred to learn from are left out, and the report says which and why.
"""

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from codeformer.arrays import Crop, Rgb
from codeformer.device import pick_device
from codeformer.errors import CodeFormerError, ExitCode, UsageError
from codeformer.faces.align import crop_face, face_transform, mean_scale
from codeformer.faces.find import Detector, Face, find_faces
from codeformer.files.spool import SeenSet, Table, packed_text
from codeformer.images.colour import LUMA
from codeformer.images.picture import SUFFIXES, Picture, as_srgb, read_picture, write_picture
from codeformer.images.reading import format_of
from codeformer.options import AlignOptions, Demands, RayOptions
from codeformer.run.inputs import Input, NamedInput
from codeformer.run.messages import Messages
from codeformer.run.places import HERE, Place
from codeformer.run.plan import Plan, plan_inputs
from codeformer.run.ray_pool import Opened, Sent, ray_outcomes, sent_outcomes, use_threads
from codeformer.run.record import error_entry, stamp_of
from codeformer.run.report import Earlier, look
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
from codeformer.run.stored import Known, Record, now
from codeformer.run.tally import Outcome, Tally, counted
from codeformer.run.workers import Work, for_worker, run_named
from codeformer.version import __version__

REPORT = "align.json"
_FORMAT = 2  # of the report; 1 had its inputs in an object, by path
_ENDINGS = (".png", ".webp")


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one face: whether it is kept, and why not.

    ``side`` and ``sharpness`` are measured as :class:`~codeformer.options.Demands` wants them.
    """

    status: str  # kept, too small, too blurred
    score: float
    side: float
    sharpness: float
    landmarks: list[list[float]]
    file: str | None = None


def sharpness(crop: Crop) -> float:
    """Return how sharp an aligned face (S, S, 3) in [0, 1] is: the variance of its brightness's Laplacian.

    Taken of 8-bit values, at 256 pixels a side whatever S is, in the middle of the crop (eyes, nose, mouth). Faces
    that are sharp at 512 pixels have about 130 to 450, the same with a Gaussian blur of 2 pixels 14 to 80. Noise counts
    as sharpness.
    """
    small = cv2.resize(crop.astype(np.float32) @ LUMA, (256, 256), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(small[64:224, 64:192] * 255, cv2.CV_32F).var())


def judge(rgb: Rgb, face: Face, demands: Demands) -> tuple[Verdict, Crop | None]:
    """Judge one face of a picture; return the verdict and, if the face is kept, its crop, (S, S, 3) in [0, 1]."""
    size = demands.size
    matrix = face_transform(face.landmarks, size)
    side = size / mean_scale([matrix])[0]
    if side < size and not demands.enlarge:
        size = max(16, int(side) // 2 * 2)
        matrix = face_transform(face.landmarks, size)
    crop = crop_face(rgb, matrix, size)
    sharp = sharpness(crop)
    status = "too small" if side < demands.min_size else "too blurred" if sharp < demands.min_sharpness else "kept"
    landmarks = np.asarray(face.landmarks, float).round(2).tolist()
    verdict = Verdict(status, round(face.score, 4), round(side, 1), round(sharp, 1), landmarks)
    return verdict, crop if status == "kept" else None


def run_align(
    options: AlignOptions, console: Messages, detector: Detector | None = None, place: Place = HERE
) -> ExitCode:
    """Write the faces of all photographs as ``<name>_<number>.<ext>``, and the report ``align.json``.

    Equal names of different photographs get a number each. Repeated, a photograph keeps its name and replaces its own
    faces; what other photographs gave, in this run or an earlier one, stays. A file that cannot be read does not stop
    the others, and the faces that an earlier run took from it stay. Ctrl-C ends the run cleanly with
    ``ExitCode.INTERRUPTED``.

    Args:
        options: what to do.
        console: where the run speaks.
        detector: one that is open already; else the options say which.
        place: where photographs and faces lie.

    Raises:
        CodeFormerError: nothing can be done (no photograph, no detector), or nothing can be written any more.
    """
    out, demands = options.output_path, options.demands
    found = _found(options, console, place)
    with open_report(out, REPORT, console, options.shard) as report:
        count, named = _named(found, report)
        settings = {"demands": asdict(demands), "detection_model": options.detection_model}
        stamp = stamp_of(settings, "")
        header = {"format": _FORMAT, "codeformer": __version__, "task": "align", "started": now(), "settings": settings}
        tally, verdicts = Tally(count), Counter[str]()

        def faces(key: str) -> list[Any]:
            record = report.record(key)
            return [] if record is None else record.get("faces", [])

        def counted_verdicts(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
            for outcome in outcomes:
                if outcome.record is not None and outcome.error is None:
                    report.remove_stale(outcome.record, lambda name: name.lower().endswith(_ENDINGS))
                    verdicts.update(face["status"] for face in outcome.record["faces"])
                yield outcome

        def here() -> Work[Pending]:
            def align(jobs: Iterator[Pending]) -> Generator[Outcome, None, None]:
                opened = detector or _open_detector(options)
                tally.start_work()
                do = _aligning(opened, options, _Faces(report.root, report.known.get, faces, report.append))
                yield from counted_verdicts(do(jobs))

            return Work(lambda item: pending(item, stamp, report, resume=options.resume), align)

        def on_ray(ray: RayOptions) -> Work[Photograph]:
            make = partial(open_worker, for_worker(options), stamp)

            def photograph(item: NamedInput) -> Photograph:
                known = report.known.get(item.key)
                if known is None:  # from now on its name, and the faces that a killed worker leaves, are its own
                    report.append(_record(item, "pending", [], ()))
                return Photograph(item, known, tuple(faces(item.key)) if known else ())

            def send(jobs: Iterator[Photograph]) -> Generator[Outcome, None, None]:
                yield from counted_verdicts(ray_outcomes(jobs, make, ray, _lost))

            return Work(photograph, send)

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
            unit="photograph",
        )
        mention_join(report, console)
    left_out = ", ".join(counted(verdicts[status], f"{status} face") for status in ("too small", "too blurred"))
    console.note(f"{counted(verdicts['kept'], 'face')} kept; left out: {left_out}")
    if not verdicts["kept"] and tally.done + tally.without_face and not tally.failed:
        console.warning("no face was kept; see the report for their sizes and sharpness")
    return conclude(tally, state, console, did="aligned", where=out, report=out / REPORT)


def plan_align(options: AlignOptions, console: Messages, place: Place = HERE) -> Plan:
    """Return what :func:`run_align` would do, after its checks; nothing is written.

    Raises:
        CodeFormerError: as the run does before its first photograph.
    """
    earlier = look(options.output_path, REPORT, options.shard)
    _, named = _named(_found(options, console, place), earlier)
    settings = {"demands": asdict(options.demands), "detection_model": options.detection_model}
    stamp = stamp_of(settings, "")

    def results(job: Pending) -> list[Path]:
        format_of(job.item.path)
        return [earlier.root / f"{job.item.stem}_NN.{options.demands.ext}"]

    def more_facts() -> list[tuple[str, str]]:
        _open_detector(options)
        return [("device", str(pick_device(options.device)))]

    planned = plan_inputs(
        named, lambda item: pending(item, stamp, earlier, resume=options.resume), earlier, results, place
    )
    return Plan("aligned", planned, (("detector", options.detection_model),), more_facts)


def _found(options: AlignOptions, console: Messages, place: Place) -> Sequence[Input]:
    out = options.output_path
    listing = place.find(
        options.inputs, recursive=options.recursive, suffixes=SUFFIXES, root=out, input_list=options.input_list
    )
    mention_ignored(listing.ignored, console)
    _check_apart(listing.inputs, out)
    return listing.inputs


def _named(found: Sequence[Input], report: Earlier) -> tuple[int, Iterable[NamedInput]]:
    """Return the inputs with their number and names, which stay clear of files that are not ours."""
    ours = SeenSet(packed_text(name) for known in report.known.known_values() for name, _ in known.outputs)
    taken = Table(report.names().items())
    taken.update((f"file {path}", _stem_of(path)) for path in _pictures(report.root) if packed_text(path) not in ours)
    return named_inputs(report, found, taken)


def _open_detector(options: AlignOptions) -> Detector:
    from codeformer.faces.find import make_detector

    device = str(pick_device(options.device))
    return make_detector(options.detection_model, device=device, weights_dir=options.weights_dir)


@dataclass(frozen=True)
class _Faces:
    """Where faces go, and what earlier runs took from a photograph.

    Attributes:
        root: the output folder.
        known: what is known of a photograph, by its key.
        faces: the faces of its last record.
        append: writes a record down.
    """

    root: Path
    known: Callable[[str], Known | None]
    faces: Callable[[str], Sequence[Any]]
    append: Callable[[Record], None]

    def record(self, job: Pending, status: str, error: CodeFormerError | None = None) -> Record:
        """Return a record by which the faces that an earlier run took from the photograph stay."""
        known = self.known(job.item.key)
        outputs = known.outputs if known else ()
        return _record(job.item, status, self.faces(job.item.key), outputs, error=error)


def _aligning(
    detector: Detector, options: AlignOptions, there: _Faces
) -> Callable[[Iterator[Pending]], Generator[Outcome, None, None]]:
    """Return what takes the faces out of photographs."""

    def failed(job: Pending, error: CodeFormerError) -> Outcome:
        return Outcome(job.item.path, there.record(job, "failed", error), error)

    return one_by_one(lambda job: _align(job, detector, options, there), failed, "align")


def _align(job: Pending, detector: Detector, options: AlignOptions, there: _Faces) -> Outcome:
    """Write the faces of one photograph."""
    item, demands = job.item, options.demands
    picture = as_srgb(read_picture(item.path))  # what trains a network is what it gets
    # Before its faces are written, so that those that a kill leaves are known as ours
    there.append(there.record(job, "pending"))
    faces, outputs = [], []
    for number, face in enumerate(find_faces(picture.rgb, detector, threshold=demands.threshold), 1):
        verdict, crop = judge(picture.rgb, face, demands)
        entry = asdict(verdict)
        if crop is not None:
            entry["file"] = f"{item.stem}_{number:02d}.{demands.ext}"
            pixels = (crop * 255).round().astype(np.uint8)
            path = there.root / entry["file"]
            write_picture(Picture(pixels), path, quality=demands.quality, png_level=options.png_level, below=there.root)
            outputs.append((entry["file"], path.stat().st_size))
        faces.append(entry)
    record = _record(item, "done", faces, outputs, job.fingerprint, warnings=picture.warnings)
    return Outcome(item.path, record, None, len(outputs), not faces, picture.warnings)


@dataclass(frozen=True)
class Photograph(Sent):
    """A photograph on its way to a worker, with the faces that its last record has."""

    faces: tuple[Any, ...] = ()


def open_worker(options: AlignOptions, stamp: str) -> Opened[Photograph]:
    """Open what a worker of ``--engine ray`` works with, in its own process. Raises CodeFormerError."""
    use_threads(options.ray or RayOptions())
    detector = _open_detector(options)

    def align(todo: Iterator[Pending], sent: Mapping[str, Photograph]) -> Iterator[Outcome]:
        there = _Faces(
            options.output_path, lambda key: sent[key].known, lambda key: sent[key].faces, lambda record: None
        )
        return _aligning(detector, options, there)(todo)

    def do(jobs: Iterator[Photograph]) -> Generator[Outcome, None, None]:
        return sent_outcomes(jobs, align, stamp, options.output_path, resume=options.resume)

    return Opened(do)


def _lost(job: Photograph, error: CodeFormerError) -> Outcome:
    """Return the outcome of a photograph whose worker ended each time."""
    outputs = job.known.outputs if job.known else ()
    return Outcome(job.item.path, _record(job.item, "failed", job.faces, outputs, error=error), error)


def _record(
    item: NamedInput,
    status: str,
    faces: Sequence[Any],
    outputs: Sequence[tuple[str, int]],
    fingerprint: str = "",
    *,
    warnings: Sequence[str] = (),
    error: CodeFormerError | None = None,
) -> Record:
    return {
        "input": item.key,
        "name": item.stem,
        "status": status,
        "fingerprint": fingerprint,
        "faces": list(faces),
        "outputs": [{"path": name, "bytes": size} for name, size in outputs],
        "notes": list(warnings),
        "error": None if error is None else error_entry(item.path, error),
    }


def _check_apart(inputs: Sequence[Input], out: Path) -> None:
    """Raise UsageError if an input lies in the folder that is written."""
    target = Path(os.path.realpath(out))
    for one in inputs:
        if target in Path(os.path.realpath(one.path)).parents:
            raise UsageError(f"{one.path}: lies in {out}, where the faces are written; give another folder")


def _pictures(out: Path) -> Iterator[str]:
    """Yield the pictures below the folder, as the report names them."""
    found: Iterable[Path] = out.rglob("*") if out.is_dir() else ()
    return (path.relative_to(out).as_posix() for path in found if path.suffix.lower() in _ENDINGS)


def _stem_of(path: str) -> str:
    """Return the name whose face a file would be, ``album/1`` for ``album/1_01.png``; empty if it is none."""
    folder, slash, name = path.rpartition("/")
    stem = name.rpartition("_")[0]
    return stem and folder + slash + stem
