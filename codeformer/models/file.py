"""An opened weights file: what it holds, what it was trained for, and how it wants to be used.

A run opens its weights file once, as a :class:`ModelFile`, and hands that on. Opening hashes the file and reads what it
says of itself; the tensors are read when the network is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from codeformer.errors import UsageError, WeightsError
from codeformer.files.digest import sha256_of
from codeformer.hub.store import resolve_model
from codeformer.models.config import CONFIG_KEY, Config, config_of
from codeformer.models.exported import Parts, is_exported, parts_of, read_metadata
from codeformer.models.header import SUFFIX, read_header
from codeformer.models.known import face_restorer_in, note_on, refused

if TYPE_CHECKING:
    from codeformer.models.codeformer import CodeFormer
    from codeformer.models.foreign import ForeignRestorer
    from codeformer.models.vqgan import VQAutoEncoder
    from codeformer.tasks.base import Task

OWN = "CodeFormer"
# The published files do not say what they were trained for: the number of codes and of levels with CFT tells.
_TASK_OF_PUBLISHED = {(1024, 4): "restore", (1024, 3): "colorize", (512, 3): "inpaint"}


@dataclass(frozen=True)
class ModelFile:
    """A weights file that was opened.

    Attributes:
        path: where it lies.
        sha256: of its bytes, in hexadecimal.
        config: the hyperparameters of its network.
        metadata: what training wrote into it; published files have none.
        notes: lines for the user about why it was chosen.
        architecture: of its network. Another one than CodeFormer is built by spandrel; ``config`` says its size alone.
        exported: the files of an exported network, which has no tensors to build from; None for weights.
    """

    path: Path
    sha256: str
    config: Config
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    architecture: str = OWN
    exported: Parts | None = None

    @property
    def tasks(self) -> frozenset[str] | None:
        """Names of the tasks that it was trained for; None where neither the file nor its network tells."""
        if self.architecture != OWN:
            return frozenset({"restore"})
        if self.exported is not None and "tasks" not in self.metadata:
            return frozenset({self.metadata["task"]}) if "task" in self.metadata else None
        if "tasks" in self.metadata:
            return frozenset(name.strip() for name in self.metadata["tasks"].split(",")) - {""}
        if self.path.suffix == SUFFIX or self.config.stem != 1:
            return None
        published = _TASK_OF_PUBLISHED.get((self.config.codebook_size, len(self.config.connect_list)))
        return frozenset({published}) if published else None

    @property
    def hole(self) -> str | None:
        """What the network expects to see in a hole, ``white`` or ``smear``; None where the file does not say."""
        return self.metadata.get("hole")

    @property
    def w_least(self) -> float:
        """The smallest fidelity weight that it was trained for, in [0, 1].

        Raises:
            WeightsError: the metadata names another number.
        """
        return self._weight("w_least", 0.0)

    @property
    def w_keeps(self) -> float:
        """The smallest fidelity weight at which a restored face is still the same person's, in [0, 1].

        0 where the file does not say.

        Raises:
            WeightsError: the metadata names another number.
        """
        return self._weight("w_keeps", 0.0)

    def adain(self, task: Task) -> bool:
        """Return whether the decoder was trained behind AdaIN: as the file says, else as the task's published one."""
        return {"true": True, "false": False}.get(self.metadata.get("adain", ""), task.adain)

    def default_w(self, task: Task) -> float:
        """Return the fidelity weight in [0, 1] that the file wants for a task (its ``w_restore``), or the task's own.

        Raises:
            WeightsError: the metadata names another number.
        """
        return self._weight(f"w_{task.name}", task.default_w)

    def choose_w(self, task: Task, asked: float | None) -> float:
        """Return the fidelity weight for a task: what the user asks for, or the default.

        Raises:
            UsageError: the user asks for less than the file was trained for.
            WeightsError: the metadata names a weight outside of [0, 1].
        """
        if asked is None:
            return self.default_w(task)
        if asked < self.w_least:
            raise UsageError(
                f"-w {asked:g} is too small for {self.path.name} (trained for {self.w_least:g} to 1): "
                f"use -w {self.w_least:g} or more, or run: codeformer download {task.weights_group}"
            )
        return asked

    def doubts(self, task: Task, w: float) -> tuple[str, ...]:
        """Return warnings about a fidelity weight that the file can work with, but not well.

        Args:
            task: what is done to the faces.
            w: in [0, 1], as :meth:`choose_w` gives it.

        Raises:
            WeightsError: the metadata names a weight outside of [0, 1].
        """
        if task.name != "restore" or w >= self.w_keeps:
            return ()
        return (
            f"-w {w:g} may give another person's face: {self.path.name} keeps the person from -w {self.w_keeps:g} on",
        )

    def describe_w(self, task: Task) -> str:
        """Return what the file does with w, in a few words, such as ``w 0.5 by default, keeps the person from 0.3 on``.

        Raises:
            WeightsError: the metadata names a weight outside of [0, 1].
        """
        words = [f"w {self.default_w(task):g} by default"]
        if self.w_least > 0:
            words.append(f"at least {self.w_least:g}")
        if task.name == "restore" and self.w_keeps > 0:
            words.append(f"keeps the person from {self.w_keeps:g} on")
        return ", ".join(words)

    def require_task(self, task: Task) -> None:
        """Refuse a task that the file was not trained for: the faces would look like results and be wrong.

        A file that says nothing is taken at the user's word.

        Raises:
            WeightsError: it was trained for other tasks.
        """
        trained = self.tasks
        if trained is not None and task.name not in trained:
            others = ", ".join(sorted(trained)) or "no task"
            raise WeightsError(
                f"{self.path}: was trained to {others}, not to {task.name}; "
                f"run: codeformer download {task.weights_group}"
            )

    def build(self) -> CodeFormer | VQAutoEncoder | ForeignRestorer:
        """Read the tensors and return the network, in float32 on the CPU, ready for inference.

        Raises:
            WeightsError: the file is damaged, or an exported network.
        """
        if self.architecture != OWN:
            from codeformer.models.foreign import load_foreign

            return load_foreign(self.path, self.architecture)
        if self.exported is not None:
            raise WeightsError(
                f"{self.path}: is an exported network, which PyTorch cannot open: give the weights that it was made of"
            )
        from codeformer.models.load import load_network

        return load_network(self.path, self.config)

    def _weight(self, name: str, otherwise: float) -> float:
        said = self.metadata.get(name)
        try:
            w = otherwise if said is None else float(said)
        except ValueError:
            w = -1.0
        if not 0 <= w <= 1:
            raise WeightsError(f"{self.path}: its metadata says {name} = {said!r}, but that must lie in [0, 1]")
        return w


def open_model(path: Path | str, *, sha256: str = "", notes: tuple[str, ...] = ()) -> ModelFile:
    """Open a weights file: hash it, and read what it says of itself.

    Args:
        path: a ``.safetensors`` or ``.pth`` file, or an ``.onnx`` file of ``codeformer export``.
        sha256: of its bytes, where that is known already.
        notes: lines for the user about the choice.

    Raises:
        WeightsError: the file is missing, empty, damaged, holds code, or is of another network.
    """
    path = Path(path)
    metadata: dict[str, str] = {}
    shapes: Mapping[str, Sequence[int]] = {}
    exported = None
    if is_exported(path):
        metadata = read_metadata(path)
        exported = parts_of(path, metadata)
    elif path.suffix == SUFFIX:
        shapes, metadata = read_header(path)
    else:
        from codeformer.models.state import read_shapes

        shapes = read_shapes(path)
    architecture = None if CONFIG_KEY in metadata else face_restorer_in(shapes)
    if architecture is None:
        try:
            config = config_of(shapes, metadata, path)
        except WeightsError as error:
            raise refused(path, shapes, error) from error
    else:
        config, notes = Config(), (*notes, note_on(architecture))
    try:
        return ModelFile(
            path, sha256 or sha256_of(path), config, metadata, notes, architecture or OWN, exported=exported
        )
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error


def find_model(name: str | Path, task: Task, weights_dir: Path | None = None) -> ModelFile:
    """Open the weights file that ``--model`` means for a task.

    Args:
        name: auto, compact, official, the name of a published file, or a file.
        task: whose weights are wanted.
        weights_dir: where downloaded weights lie; None for the usual places.

    Raises:
        WeightsError: there is none, or see :func:`open_model`.
    """
    choice = resolve_model(name, task.weights_group, weights_dir)
    return open_model(choice.path, sha256=choice.sha256, notes=choice.notes)
