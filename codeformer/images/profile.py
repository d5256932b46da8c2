"""ICC profiles."""

from __future__ import annotations


def space_of(icc: bytes) -> str | None:
    """The colour space that a profile says it describes; None if it is no profile."""
    return icc[16:20].decode("latin-1") if len(icc) >= 128 and icc[36:40] == b"acsp" else None
