"""The faults, family by family. Each function tries some and yields what became of them."""

from __future__ import annotations

import os
import resource
import signal
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from codeformer.models.state import read_state
from tests.faults.place import HANGS, Place, Trial, bad_manners, report_of, run, start, tree

TASKS = ("restore", "colorize", "inpaint", "video", "upscale", "align", "train")


def kills(place: Place, rounds: int) -> Iterator[Trial]:
    """SIGKILL at a random moment, then the same command again: the results are those of a run that nobody killed."""
    for task in TASKS:
        source = place.inputs_of(task)
        whole = place.folder()
        begun = time.monotonic()
        ended = run(place.command(task, source, whole))
        length = time.monotonic() - begun
        if ended.code:
            yield Trial("kills", f"{task}: undisturbed", ended.err[-200:])
            continue
        for number in range(rounds):
            out = place.folder()
            moments = sorted(float(x) for x in place.rng.uniform(0.2, 1.05, 2) * length)
            lost = ""
            for moment in moments:
                process = start(place.command(task, source, out))
                time.sleep(moment)
                process.kill()
                process.communicate()
                for report in out.glob("*.json"):
                    try:
                        report_of(out, report.name)
                    except ValueError:
                        lost = "the report is torn"
            again = run(place.command(task, source, out))
            lost = lost or bad_manners(again, {0})
            if not lost and tree(out) != tree(whole):
                lost = f"other results: {sorted(set(tree(out)) ^ set(tree(whole))) or 'other bytes'}"
            yield Trial("kills", f"{task} {number}", lost)


def signals(place: Place, rounds: int) -> Iterator[Trial]:
    """Ctrl-C, SIGTERM and SIGHUP at a random moment: the documented code, and the same command goes on."""
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
    for number, task, which in product(range(rounds), TASKS, expected):
        name, code = f"{task} {which.name} {number}", expected[which]
        out, words = place.folder(), partial(place.command, task, place.inputs_of(task))
        process = start(words(out))
        time.sleep(float(place.rng.uniform(1, 5)))
        process.send_signal(which)
        try:
            _, err = process.communicate(timeout=HANGS)
        except Exception:
            process.kill()
            process.communicate()
            yield Trial("signals", name, "hangs")
            continue
        # Before Python has its handler the system's own answer counts; after the work there is nothing to end.
        lost = "" if process.returncode in (0, code, -which) else f"ends with {process.returncode}: {err[-200:]}"
        report = {"upscale": "upscale.json", "align": "align.json"}.get(task, "results.json")  # training has none
        if (out / "checkpoint.pt").exists() and process.returncode == code and "go on with --resume" not in err:
            lost = lost or f"says nothing of --resume: {err[-200:]}"
        if process.returncode == code and (out / report).exists():
            state = report_of(out, report)["state"]
            lost = lost or ("" if state in ("interrupted", "finished") else f"the report says {state}")
        lost = lost or bad_manners(run(words(out)), {0})
        yield Trial("signals", name, lost)


def fuzz(place: Place, rounds: int) -> Iterator[Trial]:
    """Damaged pictures of every format, in one folder with a good one: each is accounted for, none crashes the run."""
    from PIL import Image

    samples = {}
    for kind in ("png", "jpg", "webp", "bmp", "tif", "gif", "avif"):
        Image.open(place.faces / "0.png").convert("RGB").save(place.root / f"sample.{kind}")
        samples[kind] = (place.root / f"sample.{kind}").read_bytes()
    for number in range(rounds):
        folder, out = place.folder(), place.folder()
        place.picture(folder / "good.png")
        for kind, data in samples.items():
            for copy in range(5):
                content = bytearray(data)
                for _ in range(int(place.rng.integers(1, 12))):
                    content[int(place.rng.integers(0, len(content)))] = int(place.rng.integers(0, 256))
                end = len(content) if copy % 2 else int(place.rng.integers(0, len(content)))
                (folder / f"{copy}.{kind}").write_bytes(content[:end])
        ended = run(place.command("restore", folder, out))
        lost = bad_manners(ended, {0, 1})
        if not lost:
            report = report_of(out)
            states = {Path(one["input"]).name: one["status"] for one in report["inputs"]}
            if states.get("good.png") != "restored" or len(states) != 5 * len(samples) + 1:
                lost = f"{len(states)} inputs are accounted for"
            codes = {one["error"]["exit_code"] for one in report["inputs"] if one["error"]}
            lost = lost or ("" if codes <= {3} else f"codes {codes}")
        yield Trial("fuzz", f"{5 * len(samples)} damaged pictures {number}", lost)


def limits(place: Place, rounds: int) -> Iterator[Trial]:
    """A full disk (as a limit on files), few open files, little memory, a full stdout and stderr."""

    def limited(which: int, value: int) -> Callable[[], None]:
        return lambda: resource.setrlimit(which, (value, value))

    cases: dict[str, dict[str, Any]] = {
        f"files of at most {size} bytes": {"limit": limited(resource.RLIMIT_FSIZE, size)}
        for size in (0, 100, 3000, 9000)
    }
    cases |= {f"{n} open files": {"limit": limited(resource.RLIMIT_NOFILE, n)} for n in (12, 24, 40)}
    cases |= {f"{n} GB": {"limit": limited(resource.RLIMIT_AS, n << 30)} for n in (1, 2)}
    full = Path("/dev/full")
    if full.exists():
        cases["full stdout"] = {"stdout": full.open("w")}
    for name, options in cases.items():
        out = place.folder()
        ended = run(place.command("restore", place.faces, out), **options)
        lost = bad_manners(ended)
        if ended.code == 0 and len(tree(out)) != 8:
            lost = lost or "says that all went well"
        lost = lost or bad_manners(run(place.command("restore", place.faces, out)), {0})
        yield Trial("limits", name, lost)


def together(place: Place, rounds: int) -> Iterator[Trial]:
    """Two runs into one folder at once: one works, the other is told; both may work one after the other."""
    for number in range(rounds):
        out = place.folder()
        both = [start(place.command("restore", place.faces, out)) for _ in range(2)]
        ends = [process.communicate(timeout=HANGS)[1] for process in both]
        codes = sorted(process.returncode for process in both)
        lost = "" if codes in ([0, 0], [0, 6]) else f"codes {codes}: {ends}"
        if not lost and (len(tree(out)) != 8 or report_of(out)["state"] != "finished"):
            lost = f"{len(tree(out))} of 8 results"
        yield Trial("together", str(number), lost)


NAMES = (
    "line\nbreak", "tab\tstop", "\x1b[31mred", "\x1b]0;title\x07", "\u202egnp.exe", "-rf", "--overwrite", "a" * 240,
    "\ud800lone".encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"), "\udcff\udcfe", " ", "%s%n{0}",
    "'; rm -rf ~ #", "$(id)", "con", "ünï", "ﷺ" * 40, "..hidden", "a*b?", "\u200b",
)  # fmt: skip


def names(place: Place, rounds: int) -> Iterator[Trial]:
    """Hostile file names, of good pictures and of damaged ones: results are written, and stderr stays printable."""
    folder, out = place.folder(), place.folder()
    good = 0
    for number, name in enumerate(NAMES):
        try:
            place.picture(folder / f"{name}.png")
            good += not name.startswith(".")  # hidden files of a folder are left out
            (folder / f"{name}.jpg").write_bytes(b"\xff\xd8\xff damaged %d" % number)
        except (OSError, ValueError):
            continue
    ended = run(place.command("restore", folder, out))
    lost = bad_manners(ended, {1})
    found = len(tree(out))
    yield Trial("names", f"{good} hostile names", lost or ("" if found == good else f"{found} of {good} results"))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bombs(place: Place, rounds: int) -> Iterator[Trial]:
    """Small files that claim much memory: refused, within less memory than a run with one picture may take."""
    folder = place.folder()
    header = struct.pack(">IIBBBBB", 60000, 8000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(8000 * 7501), 9)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (folder / "a.png").write_bytes(png)
    tags = {256: 30000, 257: 30000, 258: 8, 259: 1, 262: 2, 273: 8, 277: 3, 278: 30000, 279: 4, 284: 1}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    (folder / "b.tif").write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + table + bytes(4))
    state = read_state(place.model)[0]
    torch.save({**state, "zeros": torch.zeros(1 << 26)}, folder / "big.pth")
    with (
        zipfile.ZipFile(folder / "big.pth") as old,
        zipfile.ZipFile(folder / "c.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for part in old.namelist():
            new.writestr(part, old.read(part))
    torch.save({**state, "zeros": torch.zeros(1).expand(1 << 20, 1 << 20)}, folder / "d.pth")
    usual = run(place.command("restore", place.faces, place.folder())).peak
    cases = {
        "a PNG of 480 megapixels in 58 KB": (["--max_pixels", "100000000"], folder / "a.png", None, {3}),
        "a TIFF without its pixels": ([], folder / "b.tif", None, {3}),
        "a deflated checkpoint": ([], place.faces / "0.png", folder / "c.pth", {4}),
        "a tensor with strides of 0": ([], place.faces / "0.png", folder / "d.pth", {4}),
    }
    for name, (more, source, model, codes) in cases.items():
        words = [*place.command("restore", source, place.folder()), *more]
        if model:
            words[words.index("--model") + 1] = str(model)
        ended = run(words)
        lost = bad_manners(ended, codes)
        much = ended.peak > usual + (200 << 20)
        yield Trial("bombs", name, lost or (f"takes {ended.peak >> 20} MB" if much else ""))


class Call:
    """Pickled, it calls a function when it is opened."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def weights(place: Place, rounds: int) -> Iterator[Trial]:
    """Malicious checkpoints wherever a file is taken: named, and nothing runs."""
    folder = place.folder()
    canary = folder / "canary"
    state = read_state(place.model)[0]
    for zipped in (True, False):
        for protocol in (2, 4):
            for function in (os.mkdir, os.system, eval):
                argument = f"__import__('os').mkdir({str(canary)!r})" if function is eval else str(canary)
                argument = f"mkdir {canary}" if function is os.system else argument
                path = folder / "evil.pth"
                content = {"params_ema": state, "evil": Call(function, argument)}
                torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
                for option in ("--model", "--bg_upsampler"):
                    words = place.command("restore", place.faces / "0.png", place.folder())
                    if option == "--model":
                        words[words.index("--model") + 1] = str(path)
                    else:
                        words = [*(word for word in words if word != "--aligned"), option, str(path)]
                    ended = run(words)
                    lost = bad_manners(ended, {4})
                    if canary.exists():
                        lost = "it ran"
                    elif "would run code when opened" not in ended.err:
                        lost = lost or f"it is not named: {ended.err[-150:]}"
                    kind = "zip" if zipped else "stream"
                    yield Trial("weights", f"{function.__name__} {kind} {protocol} {option}", lost)


def links(place: Place, rounds: int) -> Iterator[Trial]:
    """Links and names planted in the output folder: what lies outside stays as it is."""
    names = (
        "results.json", "results.jsonl", ".results.json.tmp", "restored_faces/0.png", "restored_faces", "film.mp4.json",
        "film.mp4.codeformer-work", "film.mp4.codeformer-work/lock", "film.mp4.codeformer-work/work.json",
        "film.mp4.codeformer-work/film.part.mp4",
    )  # fmt: skip
    for name in names:
        out, outside = place.folder(), place.folder()
        victim = outside / ("victim" if "." in Path(name).name else "0.png")
        victim.write_bytes(b"precious")
        is_folder = name in ("restored_faces", "film.mp4.codeformer-work")
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).symlink_to(outside if is_folder else victim)
        task, source = ("video", place.film) if "film" in name else ("restore", place.faces)
        ended = run(place.command(task, source, out))
        lost = bad_manners(ended)
        if [path.name for path in outside.iterdir()] != [victim.name] or victim.read_bytes() != b"precious":
            lost = "it leads outside"
        yield Trial("links", name, lost)


FAMILIES: dict[str, Callable[[Place, int], Iterator[Trial]]] = {
    one.__name__: one for one in (kills, signals, fuzz, limits, together, names, bombs, weights, links)
}
