"""The exported form of weights at hand: graphs beside the file, or made once and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from codeformer.errors import UsageError
from codeformer.extras import installed
from codeformer.models.exported import Parts, linked_to
from codeformer.models.file import ModelFile
from codeformer.tasks.base import Task
from codeformer.version import __version__

_log = logging.getLogger("codeformer")
_NEEDED = ("torch", "onnx", "onnxscript")


def parts_for(model: ModelFile, task: Task, precision: str) -> Parts:
    """Return the files of a network for other engines than PyTorch.

    An exported network has its own, and so have weights with graphs beside them, as the bundled ones. Others are
    exported, compared with PyTorch, and kept under the hash of the weights; a line is logged before that begins,
    because it takes a minute or so.

    Args:
        model: the weights file, or the exported network.
        task: decides AdaIN where the weights file does not say.
        precision: fp32 or fp16, of an export.

    Raises:
        UsageError: exporting needs packages that are not installed.
        RestorationError: what was exported differs from PyTorch by more than it may.
        OutputError: the cache folder cannot be written.
    """
    if (known := _known(model, task, precision)) is not None:
        return known
    target = _place(model, task, precision)
    parts = _pair(target)
    if not all(path.is_file() for path in (parts.encoder, parts.decoder) if path is not None):
        _export(model, task, target, precision)
    return parts


def is_stored(model: ModelFile, task: Task, precision: str = "fp32") -> bool:
    """Return whether :func:`parts_for` has its files already."""
    parts = _known(model, task, precision) or _pair(_place(model, task, precision))
    return all(path.is_file() for path in (parts.whole, parts.encoder, parts.decoder) if path is not None)


def is_linked(model: ModelFile, task: Task) -> bool:
    """Return whether a weights file has graphs beside it, so that it starts without PyTorch."""
    return model.exported is None and _known(model, task, "fp32") is not None


def _known(model: ModelFile, task: Task, precision: str) -> Parts | None:
    if model.exported is not None or precision != "fp32":
        return model.exported
    return linked_to(model.path, model.sha256, model.adain(task))


def _export(model: ModelFile, task: Task, target: Path, precision: str) -> None:
    missing = [name for name in _NEEDED if not installed(name)]
    if missing:
        raise UsageError(
            f"{model.path.name} has to be exported for this engine, which needs {' and '.join(missing)}: "
            f"pip install {' '.join(missing)}, or give --model FILE.onnx (docs/export.md)"
        )
    from codeformer.export.files import ExportOptions, export

    _log.warning("exporting %s for other engines than PyTorch, once: it takes about a minute", model.path.name)
    export(model, task, ExportOptions(target, precision, split=True))


def _place(model: ModelFile, task: Task, precision: str) -> Path:
    import platformdirs

    # The graph is of this version's code
    known = f"{model.sha256} {model.adain(task)} {precision} {__version__}"
    name = f"{model.path.stem}-{hashlib.sha256(known.encode()).hexdigest()[:16]}.onnx"
    return Path(platformdirs.user_cache_dir("codeformer", appauthor=False)) / "exported" / name


def _pair(target: Path) -> Parts:
    halves = {part: target.with_name(f"{target.stem}_{part}.onnx") for part in ("encoder", "decoder")}
    return Parts(encoder=halves["encoder"], decoder=halves["decoder"])
