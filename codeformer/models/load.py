"""A whole network from a weights file, and into one.

Opens what training saves (safetensors, with the :class:`Config` in its metadata) and the published ``.pth`` files.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from torch.overrides import TorchFunctionMode

from codeformer.errors import WeightsError
from codeformer.files.atomic import write_atomic
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import CONFIG_KEY, Config, config_of
from codeformer.models.header import first_line
from codeformer.models.state import check_fit, read_state
from codeformer.models.vqgan import VQAutoEncoder


def load_network(path: Path | str, config: Config | None = None) -> CodeFormer | VQAutoEncoder:
    """Open a weights file as the network that it holds, in float32 and ``eval`` mode; see its ``config``.

    Args:
        path: the file.
        config: what the file says of its network, where that is known already.

    Raises:
        WeightsError: see :func:`codeformer.models.state.read_state`; or the file holds another network.
    """
    path = Path(path)
    state, metadata = read_state(path)
    config = config or config_of({name: tuple(tensor.shape) for name, tensor in state.items()}, metadata, path)
    with torch.device("meta"), _NothingDrawn():
        net = _built(config, path, CONFIG_KEY in metadata)
    check_fit(net, state, path)
    net.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True, assign=True)
    for name, tensor in net.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{path}: the tensor {name} is not finite; the file is damaged")
    return net.eval().requires_grad_(False)


def _built(config: Config, path: Path, described: bool) -> CodeFormer | VQAutoEncoder:
    try:
        return CodeFormer.from_config(config) if config.n_layers else VQAutoEncoder.from_config(config)
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError, ArithmeticError, AssertionError) as error:
        what = "its metadata describes" if described else "no metadata describes its network, and its tensors suggest"
        raise WeightsError(f"{path}: {what} one that cannot be built ({first_line(error)})") from error


def save_network(
    net: CodeFormer | VQAutoEncoder,
    path: Path,
    metadata: Mapping[str, str] | None = None,
    *,
    half: bool = True,
    state: Mapping[str, Tensor] | None = None,
    below: Path | None = None,
) -> None:
    """Write `net` (or `state`, its averaged weights) as safetensors, atomically, with its config as metadata.

    A link at `path` is followed, unless `below` names the folder that nothing may lead out of.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {
        name: (t.detach().half() if half and t.is_floating_point() else t.detach()).cpu().contiguous()
        for name, t in (state or net.state_dict()).items()
    }
    data = save(tensors, {CONFIG_KEY: net.config.to_json(), **(metadata or {})})
    write_atomic(path, _in_order(data), below=below)


def _in_order(data: bytes) -> bytes:
    """Return a safetensors file with its metadata sorted by name, so that equal networks are equal files.

    The library writes metadata in an order of its own each time.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # what follows is aligned to 8 bytes
    return b"".join((len(text).to_bytes(8, "little"), text, data[start:]))


class _NothingDrawn(TorchFunctionMode):
    """Leave out the numbers with which layers start: the file's own take their place.

    It is not only their time: ``normal_`` on the meta device imports torch._dynamo, which takes longer than loading.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
