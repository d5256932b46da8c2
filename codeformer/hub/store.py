"""Published weights: one table, where the files lie, whether they are what was published, which one a task takes.

Nothing here touches the network but `download`. Files are looked for in the weights folder (``--weights_dir``, else
``$CODEFORMER_WEIGHTS``, else the user's cache folder) and in ``./weights``, each in the original's layout
(``CodeFormer/``, ``facelib/``, ``realesrgan/``) or flat. The table itself is in `codeformer.hub.catalogue`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codeformer.errors import UsageError, WeightsError
from codeformer.files.atomic import reason, shown
from codeformer.files.digest import sha256_of
from codeformer.files.opening import require_regular
from codeformer.files.paths import is_file
from codeformer.hub.catalogue import BUNDLED, GROUPS, WEIGHTS, Weights
from codeformer.hub.mirrors import address_of, check_mirror
from codeformer.hub.verified import digest_of

__all__ = [
    "BUNDLED",
    "GROUPS",
    "WEIGHTS",
    "Choice",
    "Presence",
    "Weights",
    "bundled",
    "bundled_problem",
    "bundled_problems",
    "download",
    "find",
    "inventory",
    "licences",
    "locate",
    "packaged",
    "read_packaged",
    "resolve_model",
    "select",
    "sha256_of",
    "weights_dir",
]

# --- where they lie ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Presence:
    """What is on this machine of one published file. ``path`` is None where it is missing."""

    weights: Weights
    state: Literal["missing", "verified", "wrong", "not verified"]
    path: Path | None = None
    problem: str = ""


def weights_dir(override: Path | None = None) -> Path:
    """Return the weights folder: ``override``, else ``$CODEFORMER_WEIGHTS``, else in the user's cache folder."""
    chosen = override or os.environ.get("CODEFORMER_WEIGHTS")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("codeformer", appauthor=False)) / "weights"


def find(file_or_name: str, weights_dir: Path | None = None, verify: bool = True) -> Path | None:
    """Return the file on this machine, None if it is nowhere.

    Raises WeightsError if there are only files of that name with other bytes than were published (``verify``), or if
    the table has no such name.
    """
    presence = locate(_entry(file_or_name), weights_dir, verify)
    if presence.state == "wrong":
        raise WeightsError(presence.problem)
    return presence.path


def locate(weights: Weights, folder: Path | None = None, verify: bool = True) -> Presence:
    """Look for a published file; one that verifies wins over one that does not."""
    wrong: Presence | None = None
    for path in _places(weights, weights_dir(folder)):
        if not is_file(path):
            continue
        problem = _problem(weights, path) if verify else ""
        if not problem:
            return Presence(weights, "verified" if verify else "not verified", path)
        wrong = wrong or Presence(weights, "wrong", path, problem)
    return wrong or Presence(weights, "missing")


def inventory(folder: Path | None = None, verify: bool = True) -> list[Presence]:
    """Return what is here of each file of the table, in its order."""
    return [locate(weights, folder, verify) for weights in WEIGHTS]


# Bundled files made for one group of weights, and taken for it before ``compact``.
SPECIAL = {"compact_inpainting": "inpainting"}


def bundled(name: str = "compact") -> Path:
    """Return a file that the package carries: ``compact``, or one of `SPECIAL`. Raises WeightsError."""
    path = packaged(f"{name}.safetensors")
    if path is None:
        raise WeightsError(
            f"this installation carries no {name}.safetensors; reinstall codeformer-toolkit, or give --model FILE"
        )
    return path


def packaged(file: str) -> Path | None:
    """Return a file of the package's own weights folder, None if it is not there."""
    here = Path(__file__).resolve().parents[1]
    # Installed from a wheel, the folder lies in the package; run from a checkout, beside it.
    places = [here / "weights" / file]
    if (here.parent / "pyproject.toml").is_file():
        places.append(here.parent / "weights" / file)
    return next((path for path in places if path.is_file()), None)


def read_packaged(file: str) -> bytes:
    """Return the bytes of a file that the package carries. Raises WeightsError if they are not the published ones."""
    path = packaged(file)
    if path is None:
        raise WeightsError(f"this installation carries no {file}: reinstall codeformer-toolkit")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != BUNDLED[file]:
        raise WeightsError(f"{path} is damaged (another SHA-256 than published): reinstall codeformer-toolkit")
    return content


def bundled_problem(file: str) -> str:
    """Return what is wrong with a file that the package carries, with the way out; empty if nothing is.

    Every byte is covered, those of the tensors too, which safetensors' own checks leave out.
    """
    path = packaged(file)
    if path is None:
        return f"this installation carries no {file}; reinstall codeformer"
    try:
        right = sha256_of(path) == BUNDLED[file]
    except OSError as error:
        return f"{shown(path)}: cannot be read ({error.strerror}); reinstall codeformer"
    return "" if right else f"{shown(path)}: is damaged, by its SHA-256; reinstall codeformer"


def bundled_problems() -> list[str]:
    """Return what is wrong with the files that the package carries, one line for each that is damaged or missing."""
    return [problem for file in BUNDLED if (problem := bundled_problem(file))]


@dataclass(frozen=True)
class Choice:
    """The weights file that a name stands for. ``sha256`` is empty where nobody has hashed the file yet."""

    path: Path
    sha256: str = ""
    notes: tuple[str, ...] = ()


def resolve_model(model: str | Path, group: str, weights_dir: Path | None = None) -> Choice:
    """Return the weights file that ``--model`` means for a group of weights, such as ``restoration``.

    ``auto``: the published weights if they are here and right, else the bundled compact model and a note that says so.
    ``official``: the published ones. ``compact``: the group's bundled one. Anything else: that file.

    Raises:
        WeightsError: it is not here, or it is damaged.
    """
    if model == "compact":
        return Choice(_compact(group))
    if model in SPECIAL:
        return Choice(bundled(str(model)))
    if model not in ("auto", "official"):
        return _own_file(model, weights_dir)
    weights = next(entry for entry in WEIGHTS if entry.group == group)
    presence = locate(weights, weights_dir)
    if presence.path and presence.state == "verified":
        return Choice(presence.path, weights.sha256)
    get_them = f"run: codeformer download {group}"
    if model == "official":
        problem = presence.problem or (
            f"{weights.file}: the published {group} weights are not here; {get_them}, "
            f"or get {weights.url} and put it at {shown(_places(weights, _root(weights_dir))[0])}"
        )
        raise WeightsError(problem)
    why = f"{presence.problem}; " if presence.problem else ""
    note = f"{why}using the bundled compact model; for the published {group} weights {get_them}"
    return Choice(_compact(group), notes=(note,))


def _compact(group: str) -> Path:
    """Return the bundled model: one made for the group if the package has it."""
    for name in (name for name, made_for in SPECIAL.items() if made_for == group):
        with suppress(WeightsError):
            return bundled(name)
    return bundled()


def _own_file(model: str | Path, folder: Path | None) -> Choice:
    path = Path(model).expanduser()
    if path.is_file():
        return Choice(path)
    if path.exists():
        try:
            require_regular(path)
        except OSError as error:
            raise WeightsError(f"{shown(path)}: {reason(error)}; --model takes a weights file") from error
    if any(str(model) in (entry.name, entry.file) for entry in WEIGHTS):
        found = find(str(model), folder)
        if found:
            return Choice(found, _entry(str(model)).sha256)
        raise WeightsError(f"{model}: not here; run: codeformer download {model}")
    raise WeightsError(f"{shown(path)}: no such weights file; --model takes auto, compact, official or a file")


def _root(folder: Path | None) -> Path:
    return weights_dir(folder)


def _entry(file_or_name: str) -> Weights:
    for weights in WEIGHTS:
        if file_or_name in (weights.file, weights.name):
            return weights
    raise WeightsError(f"{file_or_name}: no such published weights; see: codeformer models")


def _places(weights: Weights, root: Path) -> list[Path]:
    """Where the file may lie; the first is where `download` puts it."""
    local = Path("weights")
    return [folder / weights.file for folder in (root / weights.folder, root, local / weights.folder, local)]


# --- whether they are right --------------------------------------------------------------------------------------


def _problem(weights: Weights, path: Path) -> str:
    """Why the file is not the published one, with the way out; empty if it is. Hashes it once for each change."""
    again = f"delete it and run: codeformer download {weights.name}"
    try:
        status = path.stat()
        if status.st_size != weights.size:
            return f"{shown(path)}: has {status.st_size} bytes instead of {weights.size}; {again}"
        digest = digest_of(path)
    except OSError as error:
        return f"{shown(path)}: cannot be read ({error.strerror}); check its permissions"
    if digest == weights.sha256:
        return ""
    doubt = f" ({weights.note})" if weights.note else ""
    return f"{shown(path)}: is damaged or not the published file by its SHA-256{doubt}; {again}"


# --- getting them ------------------------------------------------------------------------------------------------

Progress = Callable[[Weights, int], None]
Note = Callable[[str], None]


def select(names: Iterable[str]) -> list[Weights]:
    """Return the entries for ``all``, group names, names and file names, each once. Raises UsageError."""
    wanted: set[str] = set()
    for name in names:
        chosen = {w.name for w in WEIGHTS if name in ("all", w.group, w.name, w.file)}
        if not chosen:
            known = ", ".join(("all", *GROUPS, *(w.name for w in WEIGHTS)))
            raise UsageError(f"no weights are called {name!r}; there are: {known}")
        wanted |= chosen
    return [weights for weights in WEIGHTS if weights.name in wanted]


def download(
    names: Iterable[str],
    weights_dir: Path | None = None,
    *,
    base_url: str | None = None,
    into: Path | None = None,
    progress: Progress = lambda weights, done: None,
    note: Note = lambda text: None,
    timeout: float = 30.0,
) -> list[Path]:
    """Fetch what `select` makes of ``names``, unless it is here and right already; the paths, in the table's order.

    One file that cannot be had does not stop the others.

    Args:
        names: see `select`.
        weights_dir: where downloaded weights lie; None for the usual place.
        base_url: the mirror, see `codeformer.hub.mirrors.address_of`; None for ``$CODEFORMER_MIRROR``, if that is set.
            What comes from there is verified just the same.
        into: a folder for another machine, which gets all files; those that are here already are copied.
        progress: gets each file with the number of its bytes that are here.
        note: gets a line about each file that is here, and what goes wrong and is tried again.
        timeout: of a connection, seconds.

    Raises:
        WeightsError: a file cannot be had, or is not the published one; the others are there.
        OutputError: the folder cannot be written.
    """
    from codeformer.hub.download import Unreachable, fetch

    root = _root(weights_dir)
    mirror = base_url or os.environ.get("CODEFORMER_MIRROR")
    if mirror:
        check_mirror(mirror)
    paths, errors = [], []
    for weights in select(names):
        presence = locate(weights, weights_dir)
        here = done = presence.path if presence.state == "verified" else None
        target = _places(weights, root)[0]
        if into is not None:
            target = into / weights.folder / weights.file
            done = target if is_file(target) and not _problem(weights, target) else None
        if done:
            note(f"{weights.file}: is here already: {shown(done)}")
            paths.append(done)
            continue
        if presence.problem:
            note(f"{presence.problem.rpartition(';')[0]}; fetching it again")
        url = here.absolute().as_uri() if here else address_of(weights, mirror)
        try:
            fetch(
                url,
                target,
                size=weights.size,
                sha256=weights.sha256,
                progress=_progress_of(weights, progress),
                note=note,
                timeout=timeout,
            )
        except Unreachable:
            raise
        except WeightsError as error:
            errors.append(str(error))
        else:
            paths.append(target)
    if errors:
        raise WeightsError(" | ".join(errors))
    return paths


def _progress_of(weights: Weights, progress: Progress) -> Callable[[int], None]:
    return lambda done: progress(weights, done)


def licences(chosen: Iterable[Weights]) -> Iterator[str]:
    """One line for each licence, with the files under it."""
    files: dict[str, list[str]] = {}
    for weights in chosen:
        files.setdefault(weights.licence, []).append(weights.file)
    for licence, names in files.items():
        yield f"licence of {', '.join(names)}: {licence}"
