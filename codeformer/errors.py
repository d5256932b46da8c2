"""Exit codes, the one exception tree that carries them, and the warning of what a file lacks.

The codes are a stable interface, documented in ``docs/exit-codes.md``. Library code raises; only
``codeformer.cli`` turns an exception into a message on stderr and an exit status.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """What the process says to the shell."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    BAD_INPUT = 3
    WEIGHTS = 4
    OUT_OF_MEMORY = 5
    OUTPUT = 6
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class CodeFormerError(Exception):
    """Base of every error that this package raises on purpose; its text is one line for the user."""

    exit_code: ExitCode = ExitCode.SOME_FAILED


class UsageError(CodeFormerError):
    """Options that contradict each other or are out of range."""

    exit_code = ExitCode.USAGE


class InputError(CodeFormerError):
    """An input that cannot be read, or is not what it claims to be."""

    exit_code = ExitCode.BAD_INPUT


class WeightsError(CodeFormerError):
    """A weights file that is missing, damaged, or of another network."""

    exit_code = ExitCode.WEIGHTS


class OutOfMemoryError(CodeFormerError):
    """Even the smallest piece of work (one face, one tile) does not fit into the device's memory."""

    exit_code = ExitCode.OUT_OF_MEMORY


class OutputError(CodeFormerError):
    """An output that cannot be written. ``path`` is its file, if it is about one."""

    path: Path | None = None

    exit_code = ExitCode.OUTPUT


class RestorationError(CodeFormerError):
    """The network gave no usable face (non-finite values), or the task cannot be done on this picture."""

    exit_code = ExitCode.SOME_FAILED


class LossWarning(UserWarning):
    """A file was written, and its format cannot hold all of the picture.

    Attributes:
        path: the file, as it is shown.
        lost: what is lost, such as ``JPEG cannot hold transparency (white instead); PNG can``.
    """

    def __init__(self, path: str, lost: str) -> None:
        super().__init__(f"{path}: {lost}")
        self.path = path
        self.lost = lost
