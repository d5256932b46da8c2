"""Which files a run works on, and what each one's results are called. Nothing here reads a picture."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath

from codeformer.errors import InputError, UsageError
from codeformer.files.paths import is_folder, shortened
from codeformer.files.spool import SeenSet, Spool, Table, in_order, packed_text, unpacked_text
from codeformer.files.urls import url_of
from codeformer.options import VIDEO_SUFFIXES
from codeformer.run.input_list import listed
from codeformer.tasks.base import Task

#: Folders under the output root, as the original names them.
FINAL, RESTORED, CROPPED, COMPARE, MASKS = "final_results", "restored_faces", "cropped_faces", "compare", "masks"
OUR_FOLDERS = (FINAL, RESTORED, CROPPED, COMPARE, MASKS)
# What runs write beside their results; other programs' files of these names are not pictures either.
_REPORT = re.compile(r"(results|upscale|align)(\.\d+-of-\d+|\.names)?\.jsonl?(\.damaged(-\d+)?)?")
_LONGEST_STEM = 180  # bytes: with a face's number, suffix and ending still a legal name everywhere


@dataclass(frozen=True)
class Input:
    """A file to work on, and its folder below the one that was given (``.`` at the top).

    ``url`` is where the file comes from, if that is a store: then it is fetched before its turn.
    """

    path: Path
    folder: PurePosixPath = field(default_factory=PurePosixPath)
    url: str = ""


@dataclass(frozen=True)
class Listing:
    """What the given paths hold: pictures, and the files in folders that do not look like any."""

    inputs: Sequence[Input]
    ignored: Sequence[Path] = ()


@dataclass(frozen=True)
class NamedInput:
    """An input with the name of its results: a relative path without ending. ``key`` names it in the report.

    ``version`` changes when the input does, where a store says so; "" where its bytes are to be looked at.
    """

    path: Path
    stem: str
    key: str
    version: str = ""


def find_inputs(
    paths: Sequence[Path],
    *,
    recursive: bool,
    suffixes: frozenset[str],
    root: Path,
    is_result: Callable[[str], bool] | None = None,
    input_list: Path | None = None,
    stored: Callable[[str], tuple[bool, Iterable[Input]]] | None = None,
) -> Listing:
    """Return the files behind the given paths, each once, folders in the order of their names.

    A path that does not exist, beside others that do, is kept: reading it gives the error that names it. Results of an
    earlier run are not taken for inputs. A folder within that cannot be listed is kept in the same way. Raises
    InputError if a given folder cannot be listed, or there is nothing at all.

    ``input_list``: a file that names further paths. ``is_result``: says of a file below ``root`` whether an earlier run
    made it; then it is not an input where a folder holds it. What the given paths hold lies in memory while it is
    little, and in a temporary file where it is much. ``stored``: says what lies behind a URL, and whether that is a
    folder; without it there are no URLs among the paths.
    """
    if input_list is None and not any(os.path.lexists(path) or (stored and url_of(path)) for path in paths):
        raise InputError(f"{', '.join(map(str, paths))}: no such file or folder")
    ours = {os.path.realpath(root / name) for name in OUR_FOLDERS}
    real_root = Path(os.path.realpath(root))
    seen = SeenSet()
    inputs = Spool(_packed, _unpacked)
    ignored = Spool(os.fsencode, lambda data: Path(os.fsdecode(data)))

    def is_made(file: Path) -> bool:
        if is_result is None:
            return False
        real = Path(os.path.realpath(file))  # perhaps on another drive
        return real.is_relative_to(real_root) and is_result(real.relative_to(real_root).as_posix())

    for given in chain(paths, () if input_list is None else listed(input_list)):
        url, within = url_of(given) if stored else None, False
        found: Iterable[Input] = [Input(given)]
        if stored and url:
            within, found = stored(url)
        elif is_folder(given):  # no closed one: reading names it
            within = True
            found = (Input(file, folder) for file, folder in _walk(given, PurePosixPath(), recursive, ours))
        for one in found:
            if within and one.path is not given:
                if is_made(one.path):
                    continue
                if not (one.path.suffix.lower() in suffixes or is_folder(one.path)):  # a closed one, to be named
                    ignored.append(one.path)
                    continue
            if seen.add(os.fsencode(os.path.realpath(one.path))):
                inputs.append(one)
    if not inputs:
        hint = "" if recursive else " (--recursive looks into folders within)"
        where = [*paths, *([] if input_list is None else [input_list])]
        raise InputError(f"{', '.join(map(str, where))}: no pictures here{hint}")
    for one in inputs:
        if any(str(parent) in ours for parent in Path(os.path.realpath(one.path)).parents):
            raise UsageError(f"--output_path {root}: the results would overwrite the input {one.path}")
    return Listing(inputs, ignored)


def _walk(top: Path, folder: PurePosixPath, recursive: bool, skip: set[str]) -> Iterator[tuple[Path, PurePosixPath]]:
    try:
        with os.scandir(top) as entries:
            # A folder within is marked by a letter after its name, which no name holds
            listed = in_order(f"{e.name}\0{'d' if e.is_dir(follow_symlinks=False) else ''}" for e in entries)
    except OSError as error:
        if folder.parts:  # the others are there all the same; reading it will say that this one is not
            yield top, folder.parent
            return
        raise InputError(f"{top}: cannot be listed ({error.strerror})") from error
    has_report = any(os.path.lexists(top / name) for name in ("results.json", "results.jsonl"))
    for entry in listed:
        name, _, within = entry.partition("\0")
        if name.startswith("."):
            continue
        if within:
            results = has_report and name in OUR_FOLDERS  # of an earlier run
            if recursive and not results and os.path.realpath(top / name) not in skip:
                yield from _walk(top / name, folder / name, recursive, skip)
        elif is_report(name):
            continue
        elif not is_folder(top / name):  # a link that leads nowhere, too: reading it will name it
            yield top / name, folder


def is_report(name: str) -> bool:
    """Return whether a file of this name is what runs write beside their results."""
    return _REPORT.fullmatch(name) is not None


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
    return list(name_inputs(inputs, taken))


def name_inputs(inputs: Iterable[Input], taken: Mapping[str, str]) -> Iterator[NamedInput]:
    """Yield what :func:`assign_names` returns, one after the other. ``taken`` may not change meanwhile."""
    used = SeenSet(packed_text(folded_name(stem)) for stem in taken.values() if stem)
    counts = Table()
    for one in inputs:
        key = one.url or str(_absolute(one.path))
        stem = taken.get(key, "")
        if not stem:
            wanted = one.folder / shortened(one.path.stem, _LONGEST_STEM)
            stem = str(wanted)
            if not used.add(packed_text(folded_name(stem))):
                folded = folded_name(stem)
                count = int(counts.get(folded, "2"))  # a thousand folders may each have a face.png
                while not used.add(packed_text(folded_name(stem := f"{wanted}_{count}"))):
                    count += 1
                counts[folded] = str(count + 1)
        yield NamedInput(one.path, stem, key)


def spool_of_names() -> Spool[NamedInput]:
    """Return an empty sequence of named inputs for any number of them."""

    def unpack(data: bytes) -> NamedInput:
        path, stem, key = unpacked_text(data).split("\0")
        return NamedInput(Path(path), stem, key)

    return Spool(lambda item: packed_text("\0".join((str(item.path), item.stem, item.key))), unpack)


def _packed(item: Input) -> bytes:
    return packed_text(f"{item.path}\0{item.folder}\0{item.url}")


def _unpacked(data: bytes) -> Input:
    path, folder, url = unpacked_text(data).split("\0")
    return Input(Path(path), PurePosixPath(folder), url)


def count_films(paths: Iterable[Path]) -> int:
    """How many of the files look like films."""
    return sum(path.suffix.lower() in VIDEO_SUFFIXES for path in paths)


def _absolute(path: Path) -> Path:
    """Without ``.`` and ``..``, but with symbolic links as they were given: their names are what the user knows."""
    return Path(os.path.normpath(path.absolute()))


def folded_name(name: str) -> str:
    """Return what two names have in common that are one on some file systems: case and composition do not count."""
    return unicodedata.normalize("NFC", name).casefold()
