"""Where else the published files lie: on a server of one's own, or on Hugging Face.

Whatever a mirror sends is verified by the size and the SHA-256 of the published file, so a wrong or changed copy is an
error, never another model.
"""

from __future__ import annotations

import os
import re

from codeformer.errors import UsageError
from codeformer.hub.catalogue import Weights

#: Repositories of third parties on Hugging Face from which public programs fetch these very files.
ON_HUGGING_FACE = {
    "codeformer.pth": "shaitanzx/FooocusExtend",
    "detection_Resnet50_Final.pth": "shaitanzx/FooocusExtend",
    "parsing_parsenet.pth": "shaitanzx/FooocusExtend",
    "RealESRGAN_x2plus.pth": "shaitanzx/FooocusExtend",
    "RealESRGAN_x4plus.pth": "lllyasviel/Annotators",
    "realesr-general-x4v3.pth": "jhj0517/realesr-general-x4v3",
}
_SCHEMES = ("http://", "https://", "file://")
_REPOSITORY = re.compile(r"hf:([\w.-]+/[\w.-]+)")


def check_mirror(mirror: str) -> None:
    """Raise UsageError unless a mirror is ``hf``, ``hf:OWNER/REPOSITORY``, or an http, https or file address."""
    if mirror != "hf" and not _REPOSITORY.fullmatch(mirror) and not mirror.startswith(_SCHEMES):
        raise UsageError(
            f"--mirror and --base_url must be hf, hf:OWNER/REPOSITORY, or begin with http://, https:// or file://, not "
            f"{mirror!r}"
        )


def address_of(weights: Weights, mirror: str | None) -> str:
    """Return where to fetch a file from.

    Args:
        weights: the file.
        mirror: an address under which files lie by their names; ``hf:OWNER/REPOSITORY``, which has them at its top;
            ``hf``, the copies that are known on Hugging Face, and for a file without one its published address; None
            for that address. ``$HF_ENDPOINT`` stands for https://huggingface.co, as for Hugging Face's own programs.
    """
    if not mirror:
        return weights.url
    if found := _REPOSITORY.fullmatch(mirror):
        return _on_hugging_face(found[1], weights.file)
    if mirror == "hf":
        repository = ON_HUGGING_FACE.get(weights.file)
        return _on_hugging_face(repository, weights.file) if repository else weights.url
    return f"{mirror.rstrip('/')}/{weights.file}"


def _on_hugging_face(repository: str, file: str) -> str:
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return f"{endpoint.rstrip('/')}/{repository}/resolve/main/{file}"
