"""Every file that a user can name, damaged or made up: it is read, or refused in one line; nothing else comes of it.

Weights have tests of their own in ``models/test_mutated.py``, exported ones in ``backends/test_stored.py``, reports in
``run/test_report.py`` and the work of films in ``video/test_work.py``.
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import features

from codeformer.cli.options import commands_of
from codeformer.cli.parser import build_parser, parse
from codeformer.errors import CodeFormerError, InputError, OutputError, UsageError
from codeformer.images.picture import read_picture
from tests.file_cases import CASES, LARGEST, Case, a_preset, pillow
from tests.mutations import Fault, faults, mutate


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mutated_file_is_read_or_refused_in_one_line(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codeformer.images.limits._MOST", LARGEST)
    good = case.good()
    place = tmp_path / "files"

    def tried(content: bytes) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (place / "x").write_bytes(content)
        case.read(place / "x")

    tried(good)

    @settings(max_examples=case.tries, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(faults(len(good), case.head))
    def any_of_them(found: list[Fault]) -> None:
        try:
            tried(mutate(good, found))
        except CodeFormerError as error:
            assert "\n" not in str(error) and not isinstance(error, OutputError), error

    any_of_them()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("picture BMP", [("zeros", 18, 4, 0)]),  # of no width
        ("film .webp", [("cut", 17, 1, 0)]),
        ("film .avi", [("big", 190, 1, 2)]),  # a codec that nobody knows
        ("checkpoint", [("little", 4567, 5, 2447), ("big", 2056, 39, 3899), ("big", 2057, 38, 4073)]),
    ],
)
def test_what_was_found_once_is_refused(name: str, found: list[Fault], tmp_path: Path) -> None:
    case = next(one for one in CASES if one.name == name)
    (tmp_path / "x").write_bytes(mutate(case.good(), found))
    with pytest.raises(CodeFormerError):
        case.read(tmp_path / "x")


@pytest.mark.skipif(not features.check("avif"), reason="Pillow has no AVIF here")
def test_a_length_that_a_file_announces_is_not_filled_up(tmp_path: Path) -> None:
    content = bytearray(pillow("AVIF"))
    place = content.index(b"mdat") - 4
    content[place : place + 4] = b"\x7f\xff\xff\xff"
    (tmp_path / "x.avif").write_bytes(content[:-9])
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            read_picture(tmp_path / "x.avif")
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()


toml = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(st.characters(codec="ascii"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("a", "ab")), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


def toml_of(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml_of(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    return json.dumps(value).replace("\\u007f", "?").replace("\x7f", "?") if isinstance(value, str) else str(value)


@given(data=st.data())
@settings(
    max_examples=150,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_preset_of_any_shape_is_settings_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    from codeformer.train.networks import check_network
    from codeformer.train.settings import load_settings

    whole = tomllib.loads(a_preset().decode())
    where = data.draw(st.sampled_from([(), ("network",), ("stage1",)]))
    table = whole if not where else whole[where[0]]
    for _ in range(data.draw(st.integers(1, 3))):
        table[data.draw(st.sampled_from([*table, "tasks", "degradations", "betas", "fidelity"]))] = data.draw(toml)
    path = tmp_path / "preset.toml"
    path.write_text("\n".join(f"{key} = {toml_of(value)}" for key, value in whole.items()), encoding="utf-8")
    with suppress(UsageError):
        check_network(load_settings(str(path), 1).network)


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 100_000, "steps = " + "9" * 5000, "stage1 = 5", "network = [1]", "\xff"]
)
def test_settings_that_no_preset_has(tmp_path: Path, text: str) -> None:
    from codeformer.train.settings import load_settings

    path = tmp_path / "preset.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"preset\.toml"):
        load_settings(str(path), 1)
    with pytest.raises((InputError, UsageError), match=r"preset\.toml"):
        parse(["restore", "--config", str(path), "a.png"])


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")
@pytest.mark.parametrize("what", ["pipe", "device", "kernel"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_but_a_regular_file_is_read(case: Case, tmp_path: Path, what: str) -> None:
    """Where one is opened nevertheless, this test waits at its pipe for ever."""
    if case.name == "list as Parquet":
        pytest.importorskip("pyarrow")
    if what == "pipe":
        os.mkfifo(tmp_path / "x")
    else:
        (tmp_path / "x").symlink_to({"device": "/dev/zero", "kernel": "/proc/self/environ"}[what])
    with pytest.raises((CodeFormerError, OSError), match=rf"is a {what}|kernel's own|no mask named"):
        case.read(tmp_path / "x")


def test_a_face_has_no_more_pixels_than_its_file_can_hold(tmp_path: Path) -> None:
    from codeformer.train.data import read_face
    from tests.faults.trials import chunk

    header = chunk(b"IHDR", (20000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0]))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"x" * 9) + chunk(b"IEND", b""))
    with pytest.raises(InputError, match=r"bomb\.png.*20000x20000"):
        read_face(tmp_path / "bomb.png", 32)


# --- no file is forgotten ---

WRITTEN = "written"
FACES, WEIGHTS = "face", "models/test_mutated.py"
READ = {
    "paths": "picture", "input_path": "picture", "inputs": "picture", "person": "picture", "mask": "mask",
    "input_list": "list", "config": "config", "model": WEIGHTS, "init": WEIGHTS, "teacher": WEIGHTS,
    "bg_upsampler": "upsampler", "weights_dir": "hub/test_hub.py", "data": FACES, "validation": FACES,
    "results": FACES, "masks": FACES, "faces": FACES, "perceptual": "features", "folder": "run/test_report.py",
    "output_path": WRITTEN, "output": WRITTEN, "save_config": WRITTEN, "save_frames": WRITTEN, "json": WRITTEN,
    "dir": WRITTEN, "root_path": "of an address",
}  # fmt: skip
OF_COMMANDS = {("video", "input_path"): "film", ("train", "config"): "preset"}


@pytest.mark.parametrize("command", list(commands_of(build_parser())))
def test_every_path_that_a_command_takes_has_its_trial(command: str) -> None:
    """A new option with a file has to be entered here, and its file among the cases."""
    names = {case.name.split()[0] for case in CASES}
    for action in commands_of(build_parser())[command]._actions:
        words = str(action.metavar or "")
        if action.type is Path or any(word in words for word in ("FILE", "DIR", "PATH", "PHOTO", "FOLDER", "PRESET")):
            of = OF_COMMANDS.get((command, action.dest), READ.get(action.dest))
            assert of is not None, f"{command} {action.dest}: which test damages its file?"
            known = of in names or of.startswith(("written", "of "))
            assert known or (Path(__file__).parent / of).is_file(), of
