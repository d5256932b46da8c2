"""What lies in a store."""

from __future__ import annotations

from typing import Any


def below(files: Any, url: str) -> dict[str, bytes]:
    """Every object below a URL by its name there."""
    top = files._strip_protocol(url)
    return {name[len(top) + 1 :]: files.cat_file(name) for name in files.find(top)}
