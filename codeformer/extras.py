"""Packages that only some options need: imported when they are wanted, with a line that says what to install."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from codeformer.errors import UsageError


def installed(module: str) -> bool:
    """Return whether a module of the top level can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # refused by the environment
        return False


def require(module: str, what: str, packages: str) -> Any:
    """Import a module of a package that the installation may lack.

    Args:
        module: its dotted name.
        what: what needs it, the beginning of the message.
        packages: what `pip install` would have to be told.

    Raises:
        UsageError: it is not installed, or cannot be imported.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"{what} needs a package that is not installed: pip install {packages}") from error
    except (ImportError, OSError, RuntimeError) as error:  # made for another PyTorch, or a system library is missing
        reason = " ".join(str(error).split())
        raise UsageError(f"{what} needs {packages}, which is installed but cannot be imported: {reason}") from error
