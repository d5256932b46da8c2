"""Telemetry is off, waiting threads sleep, and there are no more of them than the process may use cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codeformer import environment

_SETTINGS = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", *environment.NO_TELEMETRY)


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python code without what the tests' own environment says of threads."""
    bare = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**bare, **env})
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.parametrize(
    ("files", "membership", "quota"),
    [
        ({"cpu.max": "200000 100000"}, "0::/", 2),
        ({"cpu.max": "150000 100000"}, "0::/", 2),
        ({"cpu.max": "max 100000"}, "0::/", None),
        ({"a/cpu.max": "max 100000", "cpu.max": "100000 100000"}, "0::/a", 1),
        ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "400000 100000"}, "0::/a/b", 3),
        ({"cpu.max": "100000 100000"}, "0::/../elsewhere", 1),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu:/docker/1", 1),
        (
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "-1", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            "4:cpu,cpuacct:/x",
            None,
        ),
        ({"memory/cpu.max": "100000 100000"}, "5:memory:/", None),
        ({"cpu.max": "many"}, "0::/", None),
        ({"cpu.max": "100000 0"}, "0::/", None),
        ({}, "nonsense", None),
    ],
)
def test_a_quota_counts(
    files: dict[str, str], membership: str, quota: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "affinity", lambda: 64)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "self").write_text(membership + "\n")
    assert environment.cores(tmp_path / "cgroup", tmp_path / "self") == (quota or 64)


def test_the_affinity_mask_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "affinity", lambda: 3)
    assert environment.cores(tmp_path, tmp_path / "none") == 3


@pytest.mark.parametrize(
    ("machine", "env", "omp", "opencv"),
    [
        ((64, 32, 3), {}, "3", "3"),  # docker run --cpus=3
        ((64, 32, 48), {}, "32", "48"),  # two threads of a core do the work of one
        ((64, 32, 64), {}, None, "64"),  # no quota: PyTorch's own choice is right
        ((64, 32, 3), {"OMP_NUM_THREADS": "2"}, "2", "2"),  # the user's word
        ((64, 32, 3), {"OMP_NUM_THREADS": "many"}, "many", "3"),
    ],
)
def test_threads_for_a_machine(
    machine: tuple[int, int, int],
    env: dict[str, str],
    omp: str | None,
    opencv: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in _SETTINGS:
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    for name, count in zip(("affinity", "_physical_cores", "cores"), machine, strict=True):
        monkeypatch.setattr(environment, name, lambda count=count: count)
    environment.prepare_process()
    assert (os.environ.get("OMP_NUM_THREADS"), os.environ["OPENCV_FOR_THREADS_NUM"]) == (omp, opencv)


_COUNT = """
import os
from codeformer import environment
{machine}
environment.prepare_process()
import cv2, torch
from codeformer.faces.detectors import MobileNetDetector
before = len(os.listdir("/proc/self/task"))
detector = MobileNetDetector()
print(torch.get_num_threads(), cv2.getNumThreads(), 1 + len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize(
    ("machine", "env"),
    [
        ("environment.affinity, environment.cores = (lambda: 64), (lambda: 1)", {}),  # docker run --cpus=1
        ("environment.affinity, environment.cores = (lambda: 64), (lambda: 32)", {"OMP_NUM_THREADS": "1"}),
        ("os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])", {}),  # taskset -c 0
    ],
)
def test_torch_opencv_and_onnxruntime_take_as_many_threads(machine: str, env: dict[str, str]) -> None:
    assert run(_COUNT.format(machine=machine), **env).stdout.strip() == "1 1 1"


@pytest.mark.skipif(sys.platform != "linux", reason="the display is GNU's")
@pytest.mark.parametrize(("env", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_the_openmp_that_the_command_line_loads_waits_without_spinning(env: dict[str, str], policy: str) -> None:
    code = "from codeformer.cli import main\nmain(['models'])\nimport torch"
    said = run(code, OMP_DISPLAY_ENV="true", **env).stderr
    assert f"OMP_WAIT_POLICY = '{policy}'" in said


def test_pythons_threads_take_turns_more_often_in_programs_alone() -> None:
    said = "import sys\nimport codeformer.api\nold = sys.getswitchinterval()\n{then}print(old, sys.getswitchinterval())"
    program = "from codeformer.cli import main\nmain(['models'])\n"
    assert run(said.format(then="")).stdout.split() == ["0.005", "0.005"]
    assert run(said.format(then=program)).stdout.split()[-2:] == ["0.005", "0.0005"]


def test_the_python_api_sets_nothing_but_the_telemetry_of_what_it_loads() -> None:
    code = f"""
import os
import codeformer.api
from codeformer.faces.detectors import MobileNetDetector
MobileNetDetector()
print(*(name for name in {_SETTINGS!r} if name in os.environ))
"""
    assert run(code).stdout.split() == ["ORT_DISABLE_TELEMETRY"]


def test_tensorboard_does_not_look_for_s3(tmp_path: Path) -> None:
    """A boto3 that is installed would bring urllib3, which opens a socket at its import."""
    pytest.importorskip("tensorboard")
    (tmp_path / "boto3.py").write_text("raise SystemExit('boto3 is imported')")
    code = (
        "import sys; from codeformer.environment import summary_writer; assert summary_writer(); "
        "print([name for name in ('boto3', 'botocore') if name in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)
    assert (ended.returncode, ended.stdout) == (0, "[]\n"), ended.stderr
