"""Which files a run works on, and what each one's results are called. Nothing here reads a picture."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from codeformer.errors import InputError, UsageError
from codeformer.files.paths import is_folder, shortened
from codeformer.options import VIDEO_SUFFIXES
from codeformer.tasks.base import Task

#: Folders under the output root, as the original names them.
FINAL, RESTORED, CROPPED, COMPARE = "final_results", "restored_faces", "cropped_faces", "compare"
OUR_FOLDERS = (FINAL, RESTORED, CROPPED, COMPARE)
# What runs write beside their results; other programs' files of these names are not pictures either.
_REPORT = re.compile(r"(results|upscale)\.jsonl?(\.damaged(-\d+)?)?")
_LONGEST_STEM = 180  # bytes: with a face's number, suffix and ending still a legal name everywhere


@dataclass(frozen=True)
class Input:
    """A file to work on, and its folder below the one that was given (``.`` at the top)."""

    path: Path
    folder: PurePosixPath = field(default_factory=PurePosixPath)


@dataclass(frozen=True)
class Listing:
    """What the given paths hold: pictures, and the files in folders that do not look like any."""

    inputs: tuple[Input, ...]
    ignored: tuple[Path, ...] = ()


@dataclass(frozen=True)
class NamedInput:
    """An input with the name of its results: a relative path without ending. ``key`` names it in the report."""

    path: Path
    stem: str
    key: str


def find_inputs(
    paths: Sequence[Path],
    *,
    recursive: bool,
    suffixes: frozenset[str],
    root: Path,
    results: Collection[str] = (),
) -> Listing:
    """Return the files behind the given paths, each once, folders in the order of their names.

    A path that does not exist, beside others that do, is kept: reading it gives the error that names it. Results of an
    earlier run are not taken for inputs. A folder within that cannot be listed is kept in the same way. Raises
    InputError if a given folder cannot be listed, or there is nothing at all.

    ``results``: files below ``root`` that an earlier run made, which are not inputs where a folder holds them.
    """
    if not any(os.path.lexists(path) for path in paths):
        raise InputError(f"{', '.join(map(str, paths))}: no such file or folder")
    ours = {os.path.realpath(root / name) for name in OUR_FOLDERS}
    made = {os.path.realpath(root / name) for name in results}
    seen: set[str] = set()
    inputs: list[Input] = []
    ignored: list[Path] = []
    for given in paths:
        if not is_folder(given):  # a closed one neither: reading names it
            found = [Input(given)]
        else:
            found = []
            for file, folder in _walk(given, PurePosixPath(), recursive, ours):
                if made and os.path.realpath(file) in made:
                    continue
                if file.suffix.lower() in suffixes or is_folder(file):  # a closed one, to be named
                    found.append(Input(file, folder))
                else:
                    ignored.append(file)
        for one in found:
            real = os.path.realpath(one.path)
            if real not in seen:
                seen.add(real)
                inputs.append(one)
    if not inputs:
        hint = "" if recursive else " (--recursive looks into folders within)"
        raise InputError(f"{', '.join(map(str, paths))}: no pictures here{hint}")
    for one in inputs:
        if any(str(parent) in ours for parent in Path(os.path.realpath(one.path)).parents):
            raise UsageError(f"--output_path {root}: the results would overwrite the input {one.path}")
    return Listing(tuple(inputs), tuple(ignored))


def _walk(top: Path, folder: PurePosixPath, recursive: bool, skip: set[str]) -> Iterable[tuple[Path, PurePosixPath]]:
    try:
        with os.scandir(top) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if folder.parts:  # the others are there all the same; reading it will say that this one is not
            yield top, folder.parent
            return
        raise InputError(f"{top}: cannot be listed ({error.strerror})") from error
    has_report = any(entry.name in ("results.json", "results.jsonl") for entry in listed)
    for entry in listed:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            results = has_report and entry.name in OUR_FOLDERS  # of an earlier run
            if recursive and not results and os.path.realpath(entry.path) not in skip:
                yield from _walk(top / entry.name, folder / entry.name, recursive, skip)
        elif _REPORT.fullmatch(entry.name):
            continue
        elif not is_folder(entry.path):  # a link that leads nowhere, too: reading it will name it
            yield top / entry.name, folder


def output_root(inputs: Sequence[Path], task: Task, weights: Sequence[float], given: Path | None) -> Path:
    """``results/<input name>_<w>`` as the original names it; other tasks than restore add theirs."""
    if given is not None:
        return given
    first = _absolute(inputs[0])
    if len(inputs) == 1:
        name = first.name if is_folder(first) else first.stem
    else:
        try:
            name = Path(os.path.commonpath([_absolute(path).parent for path in inputs])).name
        except ValueError:  # on different drives
            name = ""
    middle = "" if task.name == "restore" else f"_{task.name}"
    return Path("results") / f"{name or 'inputs'}{middle}_{'_'.join(str(float(w)) for w in weights)}"


def assign_names(inputs: Iterable[Input], taken: Mapping[str, str]) -> list[NamedInput]:
    """Return a name for each input that no other has, also where upper and lower case are the same.

    ``taken``: names of earlier runs by key. An input keeps the name that it had; a new one stays clear of them all.
    """
    inputs = list(inputs)
    keys = [str(_absolute(one.path)) for one in inputs]
    used = {folded_name(stem) for stem in taken.values() if stem}
    named = []
    for one, key in zip(inputs, keys, strict=True):
        stem = taken.get(key, "")
        if not stem:
            wanted = one.folder / shortened(one.path.stem, _LONGEST_STEM)
            stem, count = str(wanted), 2
            while folded_name(stem) in used:
                stem, count = f"{wanted}_{count}", count + 1
            used.add(folded_name(stem))
        named.append(NamedInput(one.path, stem, key))
    return named


def count_films(paths: Iterable[Path]) -> int:
    """How many of the files look like films."""
    return sum(path.suffix.lower() in VIDEO_SUFFIXES for path in paths)


def _absolute(path: Path) -> Path:
    """Without ``.`` and ``..``, but with symbolic links as they were given: their names are what the user knows."""
    return Path(os.path.normpath(path.absolute()))


def folded_name(name: str) -> str:
    """Return what two names have in common that are one on some file systems: case and composition do not count."""
    return unicodedata.normalize("NFC", name).casefold()
