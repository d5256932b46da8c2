"""URLs among paths: ``s3://bucket/photographs``. Which stores there are is up to fsspec."""

from __future__ import annotations

import os
import re
from pathlib import Path

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.+)")  # pathlib makes one slash of two; C:/ is a drive of Windows


def url_of(path: Path | str) -> str | None:
    """Return the URL that a path was given as; None for a path on this machine, as ``file:///`` names one too."""
    found = _URL.fullmatch(path if isinstance(path, str) else path.as_posix())
    if found is None or found[1].lower() == "file" or os.path.lexists(path):
        return None
    return f"{found[1].lower()}://{found[2].rstrip('/')}"


def local_path(path: Path) -> Path:
    """Return a path as it is, but that of a ``file:///`` URL for the URL."""
    found = _URL.fullmatch(path.as_posix())
    return Path("/" + found[2]) if found and found[1].lower() == "file" else path


def joined(url: str, name: str) -> str:
    """Return the URL of a name below another one."""
    return f"{url.rstrip('/')}/{name}"
