"""The tensors of a weights file: reading them safely, and giving them to a network.

Opens safetensors and PyTorch's ``.pth`` files. A pickle is read opcode by opcode first and refused by the name of what
it would run; ``torch.load`` with ``weights_only=True`` is the second lock on the same door. Whatever is wrong with a
file, the answer is a :class:`WeightsError` of one line that names it. Which networks there are is not known here.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from codeformer.errors import WeightsError
from codeformer.models.header import SUFFIX, first_line, not_safetensors, require_file
from codeformer.models.pickles import check_checkpoint


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a ``.safetensors`` or a pickled checkpoint, on the CPU.

    Wrappers are taken off: ``params_ema``, ``params``, ``state_dict``, and the prefix ``module.``.

    Raises:
        WeightsError: the file is missing, empty, cut off, not a checkpoint, or holds code.
    """
    require_file(path)
    if path.suffix != SUFFIX:
        return _read_pickle(path, "cpu"), {}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118  (not a dict)
    except MemoryError:
        raise
    except Exception as error:  # the library and torch have no common error for "not one of mine"
        raise not_safetensors(path, error) from error


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a pickled checkpoint by name, without their bytes.

    Raises:
        WeightsError: see :func:`read_state`.
    """
    require_file(path)
    return {name: tuple(tensor.shape) for name, tensor in _read_pickle(path, "meta").items()}


def load_checkpoint(path: Path, device: str = "cpu") -> object:
    """Return what a pickled checkpoint holds, wrappers and all; nothing in it is executed.

    Args:
        path: the file.
        device: ``cpu``, or ``meta`` for tensors without their bytes.

    Raises:
        WeightsError: see :func:`read_state`.
    """
    require_file(path)
    check_checkpoint(path)
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=is_zip and device == "meta")
    except MemoryError:
        raise
    except Exception as error:  # a mutated file makes torch raise anything at all
        raise WeightsError(f"{path}: not a PyTorch checkpoint, or cut off ({first_line(error)})") from error


def _read_pickle(path: Path, device: str) -> dict[str, Tensor]:
    state = _unwrap(load_checkpoint(path, device), path)
    promised = sum(t.numel() * t.element_size() for t in state.values())
    if any(t.layout != torch.strided for t in state.values()) or promised > os.stat(path).st_size:  # noqa: PTH116
        raise WeightsError(f"{path}: its tensors unfold to more bytes than the file has: refused")
    return state


def load_into(net: nn.Module, path: Path, *, partial: bool = False, of: str = "") -> None:
    """Load a file's tensors into a network.

    Args:
        net: gets the tensors.
        path: the weights file, ours or another project's.
        partial: take those that the file holds of the network's, and at least one; else it must hold all of them.
        of: name of the network, for the message.

    Raises:
        WeightsError: see :func:`read_state`; or the tensors do not fit.
    """
    state, _ = read_state(path)
    own = net.state_dict()
    if partial:
        state = {name: t for name, t in state.items() if name in own and own[name].shape == t.shape}
        if not state:
            raise WeightsError(f"{path}: holds no tensor of this network")
    else:
        check_fit(net, state, path, of)
    net.load_state_dict(state, strict=not partial)


def check_fit(net: nn.Module, state: Mapping[str, Tensor], path: Path, of: str = "") -> None:
    """Raise WeightsError unless `state`, read from `path`, has the names and shapes of `net`'s tensors."""
    own = {name: t.shape for name, t in net.state_dict().items()}
    missing = sorted(set(own) - set(state))
    unknown = sorted(set(state) - set(own))
    changed = sorted(n for n in set(own) & set(state) if own[n] != state[n].shape)
    if missing or unknown or changed:
        first = (missing + unknown + changed)[0]
        raise WeightsError(
            f"{path}: the weights of another network{f' than {of}' if of else ''}: "
            f"{len(missing)} tensors missing, {len(unknown)} unknown, "
            f"{len(changed)} of another shape (first: {first})"
        )


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    for key in ("params_ema", "params", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise WeightsError(f"{path}: a PyTorch file, but not a network's weights")
    return {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}
