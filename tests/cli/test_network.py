"""Nobody is told anything: the commands look up no host, open no socket, and leave nothing in the user's folders.

Python's own sockets are seen by an audit hook. Where ``strace`` is installed, so are those of the libraries beneath;
where ``unshare`` may take the network away, it does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from codeformer.images.picture import Picture, write_picture
from tests.video.clips import make_film

# ONNX Runtime keeps quiet where it takes the machine for a build server
_BUILD_SERVERS = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY", "DO_NOT_TRACK")

_WATCHED = """
import json, socket, sys

def seen(event, args):
    if event == "socket.__new__" and args[1] not in (socket.AF_INET, socket.AF_INET6):
        return  # a pair within this machine
    if event == "socket.gethostname":
        return  # TensorBoard's files carry it in their names; no lookup
    if event.startswith("socket.") or event == "urllib.Request":
        print("network:", event, args[1:], file=sys.stderr)

sys.addaudithook(seen)
# TensorBoard imports it where it is installed, and urllib3 beneath then asks this machine for a port, to know IPv6
sys.modules["boto3"] = None
"""


def watch(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code with an empty home; assert that neither the network nor the home was touched."""
    home = folder / "home"
    home.mkdir()
    keep = {name: value for name, value in os.environ.items() if name not in _BUILD_SERVERS}
    for name in [name for name in keep if name.startswith("XDG_")]:
        del keep[name]
    env = {**keep, "HOME": str(home), "USERPROFILE": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _WATCHED + code]
    trace = folder / "trace"
    if shutil.which("strace"):
        command = ["strace", "-f", "-qq", "-e", "trace=%network", "-o", str(trace), *command]
    if shutil.which("unshare") and subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0:
        command = ["unshare", "-rn", *command]
    result = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "network:" not in result.stderr
    if trace.exists():
        calls = [line for line in trace.read_text().splitlines() if "AF_INET" in line or "AF_NETLINK" in line]
        assert not calls, calls[:5]
    assert list(home.rglob("*")) == []
    return result


@pytest.fixture
def photo(portrait: np.ndarray, tmp_path: Path) -> Path:
    write_picture(Picture(portrait), tmp_path / "in" / "photo.png")
    return tmp_path / "in" / "photo.png"


def test_the_commands(
    photo: Path, portrait: np.ndarray, small_model_path: Path, networks: dict[str, Path], tmp_path: Path
) -> None:
    mask = np.zeros_like(portrait)
    mask[100:120, 100:140] = 255
    write_picture(Picture(mask), tmp_path / "mask.png")
    make_film(tmp_path / "film.mp4", [portrait] * 2)
    model = f"--model {small_model_path}"
    commands = [
        f"restore -i in -o restored {model} --compare",
        f"colorize -i in -o colorized {model}",
        f"inpaint -i in -o inpainted --mask mask.png {model}",
        f"video -i film.mp4 -o out.mp4 {model}",
        f"upscale -i in -o large -s 2 --device cpu --model {networks['nearest']}",
        "report restored",
        "align in faces --size 64 --min_size 20 --min_sharpness 0",
        "train --stage 1 --config tiny --data faces -o run --set steps=1 perceptual=0 batch_size=1 gan=0 --device cpu",
        f"evaluate --data faces -w 0.5 --no_perceptual --no_identity {model}",
        "models",
        "doctor --quiet",
        "help settings",
        "completion bash",
    ]
    code = f"""
from codeformer.cli import main
for words in {commands!r}:
    assert main(words.split()) == 0, words
"""
    watch(code, tmp_path)
    assert (tmp_path / "restored" / "final_results" / "photo.png").exists()
    assert (tmp_path / "out.mp4").exists() and (tmp_path / "run" / "model.safetensors").exists()


def test_the_python_api(photo: Path, small_model_path: Path, tmp_path: Path) -> None:
    code = f"""
from codeformer import Restorer, read_picture
result = Restorer(model={str(small_model_path)!r}, device="cpu").restore(read_picture({str(photo)!r}).rgb)
print(len(result.faces))
"""
    assert watch(code, tmp_path).stdout == "1\n"


def test_the_watch_sees_the_network(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"network:|AF_INET|AF_NETLINK"):
        watch("import urllib.request as u\ntry: u.urlopen('http://127.0.0.1:9')\nexcept OSError: pass", tmp_path)
