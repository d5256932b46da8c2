"""What a million crops and a thousand films cost on 1, 8 and 64 workers, computed from rates measured here.

    python scripts/plan_scale.py                         # measures on this machine (two minutes), and prints the tables
    python scripts/plan_scale.py --save rates.json       # also keeps the rates
    python scripts/plan_scale.py --rates rates.json      # computes only
    python scripts/plan_scale.py --rates rates.json --faces_per_second 90 --frames_per_second 60
                                                         # with a device's rates, as benchmark.py gave them there

Rates are processor seconds, divided by the cores of a worker: so a busy machine gives the same ones. Only the rates are
measured. That N workers do N times as much is an assumption: nothing but the arithmetic was tried with 8 or 64.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from benchmark_common import PICTURE, ROOT

WORKERS = (1, 8, 64)
LINK = 125.0  # MB/s that a network of 1 Gbit/s carries


@dataclass(frozen=True)
class Rates:
    """What was measured.

    Attributes:
        face: processor seconds of an aligned crop, from reading to writing.
        start: processor seconds of a process before its first face.
        read_mb: a crop, MB. written_mb: its result.
        record: processor seconds that a record takes in the report, of one process. record_kb: its size.
        transfer: processor seconds for fetching a crop from S3 and putting its result there; 0 where not measured.
        frame: processor seconds of a frame with a face, from decoding to encoding.
    """

    face: float
    start: float
    read_mb: float
    written_mb: float
    record: float
    record_kb: float
    transfer: float
    frame: float


def processor_seconds(*words: object) -> float:
    """Run ``codeformer`` and return its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([sys.executable, "-m", "codeformer", *map(str, words), "--quiet"], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def mean_mb(folder: Path, pattern: str) -> float:
    """Return the mean size of files, MB."""
    return float(np.mean([path.stat().st_size for path in folder.glob(pattern)])) / 1e6


def measure_crops(folder: Path, few: int = 4, many: int = 28) -> tuple[float, float, float, float, float]:
    """Return a face's and the start's processor seconds, MB of a crop and of its result, and KB of a record."""
    faces = [cv2.imread(str(path)) for path in sorted((ROOT / "inputs/cropped_faces").glob("*.png"))]
    for count in (few, many):
        (folder / f"in{count}").mkdir()
        for index in range(count):
            face = np.roll(faces[index % len(faces)], index, 1)
            cv2.imwrite(str(folder / f"in{count}" / f"{index:03d}.png"), face)
    seconds = {
        count: processor_seconds("restore", folder / f"in{count}", "-o", folder / f"out{count}", "--has_aligned")
        for count in (few, many)
    }
    face = (seconds[many] - seconds[few]) / (many - few)
    lines = (folder / f"out{many}/results.json").read_bytes().splitlines()
    record = float(np.mean([len(line) for line in lines if line.startswith(b'{"input"')])) / 1e3
    sizes = mean_mb(folder / f"in{many}", "*.png"), mean_mb(folder / f"out{many}", "restored_faces/*.png")
    return face, seconds[few] - few * face, *sizes, record


def measure_film(folder: Path, few: int = 24, many: int = 72) -> float:
    """Return a frame's processor seconds, of a camera that moves over a photograph of 512 x 512 with one face."""
    photograph = cv2.imread(str(PICTURE))
    seconds = {}
    for count in (few, many):
        (folder / f"film{count}").mkdir()
        for index in range(count):
            cv2.imwrite(str(folder / f"film{count}" / f"{index:04d}.jpg"), np.roll(photograph, index, 1))
        seconds[count] = processor_seconds("video", folder / f"film{count}", "-o", folder / f"film{count}.mp4")
    return (seconds[many] - seconds[few]) / (many - few)


def measure_records(folder: Path, count: int = 5000) -> float:
    """Return the processor seconds of a record: appended, and merged at the end."""
    from codeformer.run.report import Report

    start = time.process_time()
    with Report(folder / "report") as report:
        for index in range(count):
            name = f"{index:07d}"
            outputs = [{"path": f"restored_faces/{name}.png", "bytes": 400_000}]
            report.append(
                {"input": f"/x/{name}", "name": name, "status": "restored", "fingerprint": "f" * 64, "outputs": outputs}
            )
        report.finish({"state": "finished"})
    return (time.process_time() - start) / count


def measure_transfer(folder: Path, crop: Path, result: Path, count: int = 40) -> float:
    """Return this process's processor seconds for a crop from S3 (moto's server) and its result back; 0 without."""
    try:
        import moto.server  # noqa: F401
        import s3fs  # noqa: F401
    except ImportError:
        return 0.0
    from codeformer.stores.access import open_store

    command = [sys.executable, "-u", "-c", "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            found = next(f for line in server.stdout or () if (f := re.search(r"http://127\.0\.0\.1:\d+", line)))
            credentials = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
            os.environ.update(credentials, AWS_ENDPOINT_URL=found[0])
            store = open_store("s3://plan/")
            store.files.mkdir("plan")
            store.put(crop, "s3://plan/crop.png")
            start = time.process_time()
            for index in range(count):
                store.get("s3://plan/crop.png", folder / "fetched.png")
                store.put(result, f"s3://plan/{index}.png")
            return (time.process_time() - start) / count
        finally:
            server.terminate()


def measure(folder: Path) -> Rates:
    """Measure everything, in an empty folder."""
    face, start, read, written, record = measure_crops(folder)
    frame = measure_film(folder)
    crop, result = folder / "in28/000.png", folder / "out28/restored_faces/000.png"
    records = measure_records(folder)
    return Rates(face, start, read, written, records, record, measure_transfer(folder, crop, result), frame)


def crops_table(rates: Rates, crops: int, cores: int, faces_per_second: float | None) -> list[str]:
    """Return the lines of the table for crops."""
    rate = faces_per_second or cores / (rates.face + rates.transfer)
    lines = [
        f"{crops:,} crops, {rate:.3g} faces/s a worker",
        "",
        "| workers | faces/s | hours | read, MB/s | written, MB/s | requests/s | records' core, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for workers in WORKERS:
        all_of_them = workers * rate
        cells = (
            f"{all_of_them:.3g}",
            f"{crops / all_of_them / 3600:.3g}",
            f"{all_of_them * rates.read_mb:.3g}",
            f"{all_of_them * rates.written_mb:.3g}",
            f"{2 * all_of_them:.3g}",
            f"{100 * all_of_them * rates.record:.2g}",
        )
        lines.append(f"| {workers} | {' | '.join(cells)} |")
    both = rates.read_mb + rates.written_mb
    lines += [
        "",
        f"In the store: {crops * rates.read_mb / 1e3:,.0f} GB read, {crops * rates.written_mb / 1e3:,.0f} GB written; "
        f"report: {crops * rates.record_kb / 1e6:.2g} GB.",
        f"A network of 1 Gbit/s is full at {LINK / both:.3g} faces/s, {LINK / both / rate:.3g} workers;",
        f"the core that writes one report is busy at {1 / rates.record:,.0f} faces/s, "
        f"{1 / rates.record / rate:,.0f} workers.",
        f"Transfers take {100 * rates.transfer / (rates.face + rates.transfer):.2g} % of a CPU worker's time.",
    ]
    return lines


def films_table(rates: Rates, films: int, minutes: float, fps: float, cores: int, speed: float | None) -> list[str]:
    """Return the lines of the table for films."""
    rate = speed or cores / rates.frame
    frames = films * minutes * 60 * fps
    lines = [
        f"{films:,} films of {minutes:g} minutes, {fps:g} frames/s, a face in each: {rate:.3g} frames/s a worker",
        "",
        "| workers | frames/s | days | a film, hours |",
        "|---|---|---|---|",
    ]
    for workers in WORKERS:
        all_of_them = workers * rate
        cells = (
            f"{all_of_them:.3g}",
            f"{frames / all_of_them / 86400:.3g}",
            f"{minutes * 60 * fps / rate / 3600:.3g}",
        )
        lines.append(f"| {workers} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure or read the rates, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=Path, help="compute from these")
    parser.add_argument("--save", type=Path, help="keep what was measured")
    parser.add_argument("--cores", type=int, default=2, help="of a worker (default: 2)")
    parser.add_argument("--faces_per_second", type=float, help="of a worker, measured elsewhere")
    parser.add_argument("--frames_per_second", type=float, help="the same for films")
    parser.add_argument("--crops", type=int, default=1_000_000)
    parser.add_argument("--films", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--fps", type=float, default=24)
    args = parser.parse_args()
    if args.rates:
        rates = Rates(**json.loads(args.rates.read_text()))
    else:
        with tempfile.TemporaryDirectory() as folder:
            rates = measure(Path(folder))
    if args.save:
        args.save.write_text(json.dumps(asdict(rates), indent=1) + "\n")
    print(", ".join(f"{name} {value:.3g}" for name, value in asdict(rates).items()), end="\n\n")
    print("\n".join(crops_table(rates, args.crops, args.cores, args.faces_per_second)), end="\n\n")
    print("\n".join(films_table(rates, args.films, args.minutes, args.fps, args.cores, args.frames_per_second)))


if __name__ == "__main__":
    main()
