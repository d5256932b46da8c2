"""CodeFormer: restore, colorize and inpaint faces in pictures and films.

``import codeformer`` is cheap: the names below are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from codeformer.version import __version__

if TYPE_CHECKING:
    from codeformer.api import Restoration, Restorer
    from codeformer.images.picture import Picture, read_picture, write_picture

_HOMES = {
    "Restorer": "codeformer.api",
    "Restoration": "codeformer.api",
    "Picture": "codeformer.images.picture",
    "read_picture": "codeformer.images.picture",
    "write_picture": "codeformer.images.picture",
}

__all__ = ["Picture", "Restoration", "Restorer", "__version__", "read_picture", "write_picture"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
