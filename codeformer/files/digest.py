"""SHA-256 of files: what tells one weights file, or one input, from another."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from codeformer.files.opening import open_regular

_BLOCK = 1 << 20


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal. Raises OSError."""
    with open_regular(path) as file:
        return sha256_of_open(file)


def sha256_of_open(file: BinaryIO) -> str:
    """Return the same for an open file, from its beginning; it is left at its end."""
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
