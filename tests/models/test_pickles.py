"""Checkpoints that would run code are named as what they are, by their opcodes, and none of them runs anything."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from codeformer.errors import CodeFormerError, WeightsError
from codeformer.models.pickles import ALLOWED, check_checkpoint, globals_of


class Call:
    """Pickled, it calls a function when it is opened."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        check_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text and path.name in text
    return text


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def checkpoint(content: object, path: Path, *, zipped: bool = True, protocol: int = 2) -> Path:
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_ordinary_checkpoints_pass(tmp_path: Path, zipped: bool, protocol: int, dtype: torch.dtype) -> None:
    net = network().to(dtype)
    content = {
        "params_ema": net.state_dict(),
        "params": OrderedDict(net.named_parameters()),
        "optimizer": torch.optim.Adam(net.parameters()).state_dict(),
        "iter": 800_000,
        "dtype": dtype,
        "size": torch.Size([1, 2]),
    }
    check_checkpoint(checkpoint(content, tmp_path / "x.pth", zipped=zipped, protocol=protocol))


CALLS = {
    "system": (os.system, "os.system"),
    "mkdir": (os.mkdir, "os.mkdir"),
    "eval": (eval, "builtins.eval"),
    "exec": (exec, "builtins.exec"),
    "getattr": (getattr, "builtins.getattr"),
    "load": (torch.load, "torch.serialization.load"),
    "hub": (torch.hub.load, "torch.hub.load"),
}


@pytest.mark.skipif(os.name != "posix", reason="the names of POSIX's functions")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("call", CALLS)
def test_code_is_named(tmp_path: Path, call: str, protocol: int, zipped: bool) -> None:
    function, name = CALLS[call]
    evil = Call(function, str(tmp_path / "canary"))
    state = {**network().state_dict(), "evil": evil}
    text = refusal(checkpoint(state, tmp_path / "x.pth", zipped=zipped, protocol=protocol))
    assert f"would run code when opened ({name}): refused" in text
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_bare_pickle_is_named_too(tmp_path: Path, protocol: int) -> None:
    """It is not a checkpoint of PyTorch at all, which torch.load would say; what it would do is the news."""
    (tmp_path / "x.pth").write_bytes(pickle.dumps(Call(os.mkdir, str(tmp_path / "canary")), protocol))
    assert "would run code when opened" in refusal(tmp_path / "x.pth")
    assert not (tmp_path / "canary").exists()


def test_whole_networks_are_code(tmp_path: Path) -> None:
    text = refusal(checkpoint(network(), tmp_path / "x.pth"))
    assert "torch.nn.modules.container.Sequential" in text and "state_dict" in text


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


HIDDEN = {
    "by the memo": b"\x80\x04" + short("os") + b"\x94" + short("system") + b"\x94" + b"00h\x00h\x01\x93.",
    "by put and get": b"\x80\x04"
    + short("os")
    + b"p7\n0"
    + short("system")
    + b"g7\n0"
    + b"0g7\n"
    + short("system")
    + b"\x93.",
    "an instance": b"(S'true'\nios\nsystem\n.",
    "an extension": b"\x80\x02\x82\x07.",
    "a name from a call": b"\x80\x04" + short("os") + b"(l0" + b"K\x01\x93.",
    "after the stop": pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"cos\nsystem\n(S'true'\ntR.",
    "a name of two parts": b"\x80\x04" + short("builtins") + short("object.__subclasses__") + b"\x93.",
}


@pytest.mark.parametrize("how", HIDDEN)
def test_hidden_names_are_found(tmp_path: Path, how: str) -> None:
    (tmp_path / "x.pth").write_bytes(HIDDEN[how])
    assert "would run code when opened" in refusal(tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "y.pth", "w") as archive:
        archive.writestr("y/data.pkl", HIDDEN[how])
    if how != "after the stop":
        assert "would run code when opened" in refusal(tmp_path / "y.pth")


def test_every_allowed_name_is_harmless_and_the_rest_of_its_module_is_not() -> None:
    for name in ALLOWED:
        assert name.split(".")[0] in ("torch", "collections", "builtins", "_codecs"), name
    for name in (
        "torch.load",
        "builtins.eval",
        "builtins.getattr",
        "collections.namedtuple",
        "torch.hub.load",
        "_codecs.lookup",
    ):
        assert name not in ALLOWED


def test_the_format_of_2016(tmp_path: Path) -> None:
    for content, words in ((b"cos\nsystem\n.", "format of 2016"), (pickle.dumps(Call(os.getpid), 2), "would run code")):
        with tarfile.open(tmp_path / "x.pth", "w") as archive:
            member = tarfile.TarInfo("pickle")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        assert words in refusal(tmp_path / "x.pth")


def rezipped(source: Path, target: Path, compression: int = zipfile.ZIP_STORED, extra: bytes = b"") -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
        if extra:
            new.writestr("x/data/99", extra)
    return target


def test_a_checkpoint_does_not_inflate(tmp_path: Path) -> None:
    """1 MB of deflated zeros is 1 GB of tensors; PyTorch reads it."""
    source = checkpoint({"a": torch.zeros(1 << 20)}, tmp_path / "x.pth")
    small = rezipped(source, tmp_path / "deflated.pth", zipfile.ZIP_DEFLATED)
    assert small.stat().st_size < 10_000
    assert "compressed" in refusal(small)
    with zipfile.ZipFile(tmp_path / "pickle bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(1 << 27))
    assert "too many for weights" in refusal(tmp_path / "pickle bomb.pth")


def test_parts_that_overlap_are_refused(tmp_path: Path) -> None:
    """Many names for the same bytes: a file of 4 MB that unpacks to 400."""
    body = bytes(1 << 22)
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 0, 0, 0, zlib.crc32(body), len(body), len(body), 8, 0)
    pickled = b"\x80\x02}."
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        start = archive.fp.tell()  # type: ignore[union-attr]
        archive.fp.write(local + b"x/data/0" + body)  # type: ignore[union-attr]
        archive.start_dir = archive.fp.tell()  # type: ignore[attr-defined, union-attr]
        for number in range(100):
            part = zipfile.ZipInfo(f"x/data/{number}")
            part.file_size = part.compress_size = len(body)
            part.CRC, part.header_offset = zlib.crc32(body), start
            archive.filelist.append(part)
            archive.NameToInfo[part.filename] = part
        archive._didModify = True  # type: ignore[attr-defined]
    assert "overlap" in refusal(tmp_path / "x.pth")


def test_the_old_format_cannot_promise_more_than_the_file(tmp_path: Path) -> None:
    path = checkpoint({"a": torch.zeros(1000)}, tmp_path / "x.pth", zipped=False)
    data = path.read_bytes()
    assert data.count(b"M\xe8\x03") == 2, "the length of the storage and of the tensor"
    path.write_bytes(data.replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f"))
    assert "cut off: its tensors have" in refusal(path)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    for name, data in {
        "picture.pth": b"\xff\xd8\xff\xe0" + bytes(99),
        "empty.pth": b"",
        "text.pth": b"hello",
        "page.pth": b"<!DOCTYPE html>",
        "torn.pth": b"PK\3\4" + bytes(50),
        "number.pth": pickle.dumps(5),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert "not a PyTorch checkpoint" in refusal(tmp_path / name), name
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not a PyTorch checkpoint" in refusal(tmp_path / "other.zip")
    assert "cannot be read (is a folder)" in refusal(tmp_path)
    assert "cannot be read (No such file" in refusal(tmp_path / "none.pth")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("samples")
    content = {"params": network().state_dict(), "evil": Call(os.getpid)}
    files = [checkpoint(content, folder / f"{zipped}.pth", zipped=zipped) for zipped in (True, False)]
    return [*(file.read_bytes() for file in files), *HIDDEN.values()]


@given(data=st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_mutated_checkpoints_are_refused_or_pass(samples: list[bytes], tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(samples)))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    (tmp_path / "x.pth").write_bytes(content)
    try:
        check_checkpoint(tmp_path / "x.pth")
    except CodeFormerError as error:
        assert "\n" not in str(error)


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.tuples(inner, inner)), st.integers(0, 5))
def test_data_names_nothing(value: object, protocol: int) -> None:
    assert list(globals_of(pickle.dumps(value, protocol))) == []
