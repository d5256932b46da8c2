"""What an exception means to the user: one sentence and an exit code."""

from __future__ import annotations

import errno
import os
import sys

from codeformer.errors import CodeFormerError, ExitCode, OutOfMemoryError, UsageError

_LEAST_ADDRESSES = (
    1 << 30
)  # bytes that PyTorch's smallest build maps; with less, its libraries crash instead of failing

#: How the dynamic loader, the kernel and the C++ library say that there is no memory, or none that a limit allows.
_NO_MEMORY = (
    "cannot allocate memory",
    "failed to map segment from shared object",
    "cannot enlarge memory arrays",
    "can't start new thread",
    "std::bad_alloc",
    "not enough memory",
)
_MANY_FILES = "too many open files"
_NO_LIBRARY = "cannot open shared object file"


def check_process() -> None:
    """Refuse to begin where the libraries would end the process themselves, without a word or with a riddle.

    Raises:
        UsageError: the working folder is gone.
        OutOfMemoryError: a limit on the process's memory leaves no room for PyTorch.
    """
    try:
        os.getcwd()  # noqa: PTH109
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"the working folder is gone ({reason}): cd to one that is there") from error
    if sys.platform != "win32":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESSES:
            raise OutOfMemoryError(
                f"the limit on this process's memory, {limit >> 20} MB, is too small for PyTorch: raise it (ulimit -v)"
            )


def explain(error: Exception) -> tuple[str, ExitCode]:
    """Return the message and the exit code of an exception that ended the program."""
    text = str(error)
    if isinstance(error, CodeFormerError):
        return text, error.exit_code
    if is_no_memory(error):
        what = f" ({text})" if text else ""
        return f"not enough memory{what}; close other programs, raise the limit, or shrink the pictures", (
            ExitCode.OUT_OF_MEMORY
        )
    if type(error).__module__ == "sqlite3":  # see codeformer.files.spool
        what = f"the folder for temporary files cannot take what a run sets aside there ({text})"
        return f"{what}: free some space, or name another folder by TMPDIR", ExitCode.OUTPUT
    if _MANY_FILES in text.lower():
        return f"too many open files ({text}): raise the limit (ulimit -n)", ExitCode.SOME_FAILED
    if isinstance(error, (ImportError, OSError)) and _NO_LIBRARY in text:  # OpenCV's wheel on a bare server
        return (
            f"a system library is missing ({text}); on Debian: apt install libgl1 libglib2.0-0 libxcb1",
            ExitCode.SOME_FAILED,
        )
    if isinstance(error, ImportError):
        return f"the installation is incomplete ({text}); reinstall codeformer", ExitCode.SOME_FAILED
    return f"unexpected {type(error).__name__}: {text or 'no message'} (--verbose shows where)", ExitCode.SOME_FAILED


def is_no_memory(error: BaseException | None) -> bool:
    """Whether memory is what the exception, or one that it came from, lacked."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if isinstance(error, (ImportError, OSError, RuntimeError)):
            text = str(error).lower()
            if any(sign in text for sign in _NO_MEMORY):
                return True
        error = error.__cause__ or error.__context__
    return False
