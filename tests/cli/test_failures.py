"""What the system refuses has its own sentence and a documented code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codeformer.cli.failures import explain
from codeformer.errors import ExitCode, WeightsError

_RUN = [sys.executable, "-m", "codeformer"]


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (WeightsError("x is damaged"), ExitCode.WEIGHTS, "x is damaged"),
        (MemoryError(), ExitCode.OUT_OF_MEMORY, "not enough memory"),
        (ImportError("libtorch.so: failed to map segment from shared object"), ExitCode.OUT_OF_MEMORY, "libtorch.so"),
        (OSError(12, "Cannot allocate memory"), ExitCode.OUT_OF_MEMORY, "not enough memory"),
        (RuntimeError("can't start new thread"), ExitCode.OUT_OF_MEMORY, "can't start new thread"),
        (RuntimeError("unable to open file <x>: Too many open files (24)"), ExitCode.SOME_FAILED, "ulimit -n"),
        (ImportError("libGL.so.1: cannot open shared object file"), ExitCode.SOME_FAILED, "apt install"),
        (ImportError("No module named 'cv2'"), ExitCode.SOME_FAILED, "installation is incomplete"),
        (ZeroDivisionError(), ExitCode.SOME_FAILED, "unexpected ZeroDivisionError"),
    ],
)
def test_explained(error: Exception, code: ExitCode, says: str) -> None:
    message, found = explain(error)
    assert (found, says in message) == (code, True)
    assert ("reinstall" in message) is ("No module" in message)


def test_the_memory_that_an_import_lacked_is_named_through_what_it_caused() -> None:
    try:
        try:
            raise ImportError("cv2.so: failed to map segment from shared object")
        except ImportError:
            raise RuntimeError("the detector cannot be opened")  # noqa: B904
    except RuntimeError as error:
        assert explain(error)[1] is ExitCode.OUT_OF_MEMORY


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize("megabytes", [700, 1500])
def test_a_limit_on_memory(megabytes: int, tmp_path: Path) -> None:
    """Below what PyTorch maps its libraries crash; with a little more they cannot be loaded."""
    import resource

    size = megabytes * 1_000_000
    result = subprocess.run(
        [*_RUN, "restore", "-i", str(tmp_path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
    )
    if result.returncode == ExitCode.BAD_INPUT:
        pytest.skip("a small build of PyTorch: it fits")
    assert result.returncode == ExitCode.OUT_OF_MEMORY, result.stderr
    assert "memory" in result.stderr and "reinstall" not in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be deleted there")
def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    script = 'cd "$0" && rmdir "$0" && exec "$@"'
    result = subprocess.run(
        ["sh", "-c", script, str(folder), *_RUN, "restore", "-i", "x.png"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert result.returncode == ExitCode.USAGE, result.stderr
    assert "the working folder is gone" in result.stderr and result.stderr.count("\n") == 1
