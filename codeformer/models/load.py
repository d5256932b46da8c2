"""Opening and writing weights files, safely.

Opens what training saves (safetensors, with the :class:`Config` in its metadata) and the published ``.pth``
files (``torch.load`` with ``weights_only=True``, so that a pickle cannot run code). Whatever is wrong with a
file, the answer is a :class:`WeightsError` of one line that names it.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from codeformer.errors import WeightsError
from codeformer.files.atomic import write_atomic
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import Config
from codeformer.models.vqgan import VQAutoEncoder

CONFIG_KEY = "codeformer_config"


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a ``.safetensors`` or a pickled checkpoint, on the CPU.

    Wrappers are taken off: ``params_ema``, ``params``, ``state_dict``, and the prefix ``module.``.

    Raises:
        WeightsError: the file is missing, empty, cut off, not a checkpoint, or holds code.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path}: the weights file is empty; fetch it again")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118  (not a dict)
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"{path}: not a safetensors file, or cut off ({_first_line(error)})") from error
    with path.open("rb") as file:
        head = file.read(4)
    is_zip = head[:2] == b"PK"
    if is_zip and not zipfile.is_zipfile(path):
        raise WeightsError(f"{path}: the checkpoint is cut off; fetch it again")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        words = str(error)  # an unsupported operand is a byte that no pickle has: a picture, say
        if "weights_only" in words.lower() and "Unsupported" in words and "Unsupported operand" not in words:
            raise WeightsError(f"{path}: refused: the pickle holds more than tensors and could run code") from error
        raise WeightsError(f"{path}: not a PyTorch checkpoint") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        raise WeightsError(f"{path}: not a PyTorch checkpoint, or cut off ({_first_line(error)})") from error
    return _unwrap(loaded, path), {}


def load_network(path: Path | str) -> CodeFormer | VQAutoEncoder:
    """Open a weights file as the network that it holds, in float32 and ``eval`` mode; see its ``config``.

    Raises:
        WeightsError: see :func:`read_state`; or the file holds another network.
    """
    path = Path(path)
    state, metadata = read_state(path)
    config = _config_of(state, metadata, path)
    with torch.device("meta"):
        net = CodeFormer.from_config(config) if config.n_layers else VQAutoEncoder.from_config(config)
    _check_fit(net, state, path)
    net.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True, assign=True)
    for name, tensor in net.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{path}: the tensor {name} is not finite; the file is damaged")
    return net.eval().requires_grad_(False)


def load_into(net: nn.Module, path: Path, *, partial: bool = False) -> None:
    """Load a file's tensors into `net`; with `partial`, those that it holds of `net`'s, and at least one.

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
        _check_fit(net, state, path)
    net.load_state_dict(state, strict=not partial)


def save_network(
    net: CodeFormer | VQAutoEncoder,
    path: Path,
    metadata: Mapping[str, str] | None = None,
    *,
    half: bool = True,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `net` (or `state`, its averaged weights) as safetensors, atomically, with its config as metadata.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {
        name: (t.detach().half() if half and t.is_floating_point() else t.detach()).cpu().contiguous()
        for name, t in (state or net.state_dict()).items()
    }
    write_atomic(path, save(tensors, {CONFIG_KEY: net.config.to_json(), **(metadata or {})}))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file without its tensors; other files have none."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a safetensors file, or cut off ({_first_line(error)})") from error


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    for key in ("params_ema", "params", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise WeightsError(f"{path}: a PyTorch file, but not a network's weights")
    return {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}


def _config_of(state: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path) -> Config:
    try:
        if CONFIG_KEY in metadata:
            return Config.from_json(metadata[CONFIG_KEY])
        return Config.from_state_dict(state)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: the weights of another network, not of CodeFormer or its VQGAN") from error


def _check_fit(net: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    own = {name: t.shape for name, t in net.state_dict().items()}
    missing = sorted(set(own) - set(state))
    unknown = sorted(set(state) - set(own))
    changed = sorted(n for n in set(own) & set(state) if own[n] != state[n].shape)
    if missing or unknown or changed:
        first = (missing + unknown + changed)[0]
        raise WeightsError(
            f"{path}: the weights of another network: {len(missing)} tensors missing, {len(unknown)} unknown, "
            f"{len(changed)} of another shape (first: {first})"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
