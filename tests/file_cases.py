"""The kinds of files that a user can name: a good one of each, and how it is read."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from codeformer.cli.parser import parse
from codeformer.images.picture import Picture, encode_picture, read_picture
from codeformer.run.input_list import listed
from codeformer.tars.reading import samples
from codeformer.tasks.inpainting.masks import mask_file, read_mask

LARGEST = 1 << 20  # pixels that a mutated header may announce here: what is allowed is decoded


@dataclass(frozen=True)
class Case:
    """A kind of file: a good one, how it is read, and how often it is tried.

    ``read`` asserts that what it returns is whole; ``head`` is as for `faults`.
    """

    name: str
    good: Callable[[], bytes]
    read: Callable[[Path], object]
    tries: int = 60
    head: int = 200


def rgb(side: int = 48, seed: int = 0) -> np.ndarray:
    """A smooth colourful picture with a white square."""
    small = np.random.default_rng(seed).integers(0, 200, (4, 4, 3), np.uint8)
    pixels = np.kron(small, np.ones((side // 4, side // 4, 1), np.uint8))
    pixels[8:20, 8:24] = 255
    return pixels


def pillow(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb()).save(buffer, kind, **options)
    return buffer.getvalue()


def a_deep_png() -> bytes:
    return encode_picture(Picture(rgb().astype(np.uint16) * 257), "PNG")


def checked_picture(path: Path) -> None:
    picture = read_picture(path, max_pixels=LARGEST)
    assert picture.rgb.dtype in (np.uint8, np.uint16) and picture.rgb.ndim == 3 and picture.rgb.shape[2] == 3
    assert picture.alpha is None or picture.alpha.shape == picture.rgb.shape[:2]
    encode_picture(picture, "PNG")  # with all that the file said of itself


def checked_tga(path: Path) -> None:  # which is known by its name alone
    checked_picture(path.replace(path.with_suffix(".tga")))


def checked_mask(path: Path) -> None:
    mask = read_mask(path, (48, 48))
    assert mask.shape == (48, 48) and mask.dtype == np.float32
    assert mask.any() and mask.min() >= 0 and mask.max() <= 1


def checked_mask_of_a_folder(path: Path) -> None:
    path = path.replace(path.with_suffix(".png"))
    checked_mask(mask_file(path.parent, Path("photographs") / "x.jpg"))


def checked_face(path: Path) -> None:
    from codeformer.train.data import read_face

    face, _ = read_face(path, 32)
    assert face.shape == (32, 32, 3) and face.dtype == np.float32 and face.min() >= 0 and face.max() <= 1


def checked_list(ending: str, path: Path) -> None:
    path = path.replace(path.with_suffix(ending))
    assert all(isinstance(one, Path) for one in listed(path))


def a_table() -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([("n", "path"), *((number, f"a, b/{number}.png") for number in range(9))])
    return text.getvalue().encode()


def a_parquet() -> bytes:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(arrow.table({"n": [1, 2, 3], "path": ["x.png", None, "y.png"]}), buffer)
    return buffer.getvalue()


def a_tar() -> bytes:
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("0.png", "0.json", "ü" * 60 + ".png", "2.cls"):
            member = tarfile.TarInfo(name)
            member.size = 700
            tar.addfile(member, io.BytesIO(bytes(range(250)) * 3))
    return buffer.getvalue()


def checked_tar(path: Path) -> None:
    goal = path.parent / "members"
    try:
        for sample in samples(path, lambda name: goal / "one"):
            sample.close()
    finally:
        outside = {one.name for one in path.parent.iterdir()} - {path.name, "members"}
        assert not outside, "a member lies outside of its place"


def a_preset() -> bytes:
    return (resources.files("codeformer.train.presets") / "tiny.toml").read_bytes()


def checked_preset(path: Path) -> None:
    from codeformer.train.networks import check_network
    from codeformer.train.settings import Settings, load_settings

    path = path.replace(path.with_suffix(".toml"))
    found = load_settings(str(path), 1)
    assert isinstance(found, Settings)
    check_network(found.network)


CONFIG = b"""device = "cpu"
[restore]
input_path = ["a.png", "b.png"]
fidelity_weight = 0.25
only_final = true
face = [2, 1]
landmarks = "1,2 3,4 5,6 7,8 9,10"
"""


def checked_config(path: Path) -> None:
    with suppress(SystemExit):  # argparse's own answer to a value
        assert parse(["restore", "--config", str(path)])[0].command == "restore"


def a_checkpoint() -> bytes:
    import torch

    from codeformer.train import checkpoint

    saved = io.BytesIO()
    state, todo = a_state()
    parts = {name: part.state_dict() for name, part in state.parts().items()}
    network = todo.network.to_json()
    torch.save({"step": 3, "stage": 1, "network": network, "average": state.average, **parts}, saved)
    assert checkpoint.NAME
    return saved.getvalue()


def a_state() -> tuple[Any, Any]:
    import torch

    from codeformer.train import checkpoint
    from codeformer.train.codebook import Codebook
    from codeformer.train.settings import Settings

    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    average = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    codes = Codebook(4, 2, torch.device("cpu"))
    return checkpoint.State(net, average, optimizer, None, None, scaler, codes), Settings()


def checked_checkpoint(path: Path) -> None:
    from codeformer.train import checkpoint

    state, todo = a_state()
    assert isinstance(checkpoint.load(path, state, todo), int)


def checked_scalars(path: Path) -> None:
    from codeformer.train.checkpoint import forget_scalars

    forget_scalars(path, 3)
    assert all(json.loads(line)["step"] <= 3 for line in path.read_bytes().splitlines())


def a_film(ending: str, codec: str) -> bytes:
    import tempfile

    from tests.video.clips import make_film, pattern

    with tempfile.TemporaryDirectory() as folder:
        frames = [pattern(index, 64, 48) for index in range(6)]
        pixels = {"libx264": "yuv420p", "mjpeg": "yuvj420p", "gif": "rgb8"}[codec]
        return make_film(Path(folder) / f"film{ending}", frames, codec=codec, pix_fmt=pixels).read_bytes()


def an_animated_webp() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.fromarray(rgb(seed=number)) for number in range(3)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=40)
    return buffer.getvalue()


def checked_film(path: Path) -> None:
    from codeformer.video.reader import open_film

    film = open_film(path)
    for number, frame in enumerate(film.frames()):
        assert frame.rgb.ndim == 3 and frame.rgb.shape[2] == 3
        if number > 20:
            break


def an_ncnn_pair(which: int) -> bytes:
    import tempfile

    from tests.upsampling.test_ncnn import small_net, write_pair

    with tempfile.TemporaryDirectory() as folder:
        param = write_pair(Path(folder), small_net())
        return (param, param.with_suffix(".bin"))[which].read_bytes()


def checked_ncnn_pair(which: int, path: Path) -> None:
    from codeformer.upsampling.ncnn import converted

    pair = [path.with_name("net.param"), path.with_name("net.bin")]
    path.replace(pair[which])
    pair[1 - which].write_bytes(an_ncnn_pair(1 - which))
    shutil.rmtree(path.parent / "cache", ignore_errors=True)
    assert converted(pair[0], path.parent / "cache").is_file()


def the_features() -> bytes:
    import torch
    from safetensors.torch import save

    return save({"features.0.weight": torch.zeros(4, 3, 3, 3), "features.0.bias": torch.zeros(4)})


def checked_features(path: Path) -> None:
    from codeformer.train.perceptual import read_features

    path = path.replace(path.with_suffix(".safetensors"))
    assert all(tensor.dtype.is_floating_point for tensor in read_features(path).values())


PICTURES: Mapping[str, Mapping[str, Any]] = {
    "PNG": {},
    "JPEG": {},
    "TIFF": {"compression": "tiff_lzw"},
    "BMP": {},
    "GIF": {},
    "WEBP": {},
    "PPM": {},
}
CODECS = {"JPEG2000": "jpg_2000", "AVIF": "avif"}
MASKS: Mapping[str, Mapping[str, Any]] = {"PNG": {}, "JPEG": {}, "TIFF": {"compression": "tiff_deflate"}}
FILMS = {".mp4": "libx264", ".mkv": "libx264", ".avi": "mjpeg", ".gif": "gif"}


CASES = [
    *(Case(f"picture {k}", partial(pillow, k, **o), checked_picture) for k, o in PICTURES.items()),
    *(Case(f"picture {k}", partial(pillow, k), checked_picture) for k, name in CODECS.items() if features.check(name)),
    Case("picture TGA", partial(pillow, "TGA"), checked_tga, 30),
    Case("picture PNG of 16 bits", a_deep_png, checked_picture),
    *(Case(f"mask {kind}", partial(pillow, kind, **options), checked_mask) for kind, options in MASKS.items()),
    Case("mask in a folder", partial(pillow, "PNG"), checked_mask_of_a_folder, 20),
    *(Case(f"face {kind}", partial(pillow, kind, **options), checked_face, 40) for kind, options in MASKS.items()),
    Case("list of lines", lambda: b"a.png\nb c.png\r\n\n\xffd.png\n", partial(checked_list, ".txt"), 40),
    Case("list as CSV", a_table, partial(checked_list, ".csv"), 40),
    Case("list as Parquet", a_parquet, partial(checked_list, ".parquet")),
    Case("tar", a_tar, checked_tar, 150, head=4000),
    Case("preset", a_preset, checked_preset, 80, head=900),
    Case("config", lambda: CONFIG, checked_config, 40),
    Case("checkpoint", a_checkpoint, checked_checkpoint, 100, head=3000),
    Case("scalars", lambda: b'{"step": 1, "loss": 2.5}\n{"step": 4, "loss": NaN}\n', checked_scalars, 40),
    *(Case(f"film {ending}", partial(a_film, ending, codec), checked_film, 20) for ending, codec in FILMS.items()),
    Case("film .webp", an_animated_webp, checked_film, 20),
    Case("upsampler .param", partial(an_ncnn_pair, 0), partial(checked_ncnn_pair, 0), 40),
    Case("upsampler .bin", partial(an_ncnn_pair, 1), partial(checked_ncnn_pair, 1), 20),
    Case("features", the_features, checked_features, 40),
]  # fmt: skip
