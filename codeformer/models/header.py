"""What a safetensors file says of itself, read without PyTorch and without its tensors."""

from pathlib import Path

from safetensors import safe_open

from codeformer.errors import WeightsError
from codeformer.files.atomic import reason
from codeformer.files.opening import require_regular

SUFFIX = ".safetensors"


def read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Return the shapes of the tensors of a safetensors file by name, and its metadata.

    Raises:
        WeightsError: the file is missing, empty, cut off, or no safetensors file.
    """
    require_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (not a dict)
            return shapes, dict(file.metadata() or {})
    except MemoryError:
        raise
    except Exception as error:  # a mutated file makes the library raise anything at all
        raise not_safetensors(path, error) from error


def require_file(path: Path) -> None:
    """Raise WeightsError if there is no file at `path`, or an empty one."""
    if not path.exists():
        raise WeightsError(f"{path}: no such weights file")
    try:
        require_regular(path)
    except OSError as error:
        raise WeightsError(f"{path}: not a weights file: it {reason(error)}") from error
    if path.stat().st_size == 0:
        raise WeightsError(f"{path}: the weights file is empty; fetch it again")


def not_safetensors(path: Path, error: Exception) -> WeightsError:
    """Return the error for a file that the safetensors library refuses."""
    return WeightsError(f"{path}: not a safetensors file, or cut off ({first_line(error)})")


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, at most 120 characters; its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
