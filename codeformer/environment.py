"""What libraries should know before they are loaded: no telemetry, and no more threads than there are cores.

They read environment variables when they are imported, so this module imports nothing of weight and is called first. A
variable that the user has set is left as it is.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from codeformer.extras import require

#: Each of these switches off what a library, ours or a companion's, would otherwise report to its makers.
NO_TELEMETRY = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime from 1.29 on: events by HTTPS, a device id in the user's cache folder
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
}
_TURN = 0.0005  # seconds that a thread of Python's keeps its turn while others wait
# Files that drivers for NVIDIA's and AMD's cards make on Linux, the first also within Windows' subsystem
_ACCELERATORS = ("/dev/dxg", "/dev/nvidiactl", "/dev/kfd")


def prepare_process() -> None:
    """Prepare a program before it imports PyTorch: telemetry off, threads that wait without spinning and take turns.

    PyTorch's OpenMP threads spin while they wait for each other. That gains 3 % on an idle machine, and on a busy one
    it takes the cores from whoever has work to do: ``OMP_WAIT_POLICY=PASSIVE`` lets them sleep.

    For programs. A library has no say in its process, so the Python API does nothing of this but :func:`onnxruntime`.
    """
    refuse_telemetry()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    count = threads()
    if count < affinity():  # without a quota PyTorch's own choice, one thread for each physical core, is right
        os.environ.setdefault("OMP_NUM_THREADS", str(min(count, _physical_cores())))
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", str(count))
    take_short_turns()


def take_short_turns() -> None:
    """Let this program's Python threads take turns ten times as often as by default.

    Reading, pasting and writing wait for their turn again and again, and so does the network for each of its layers: on
    16 cores beside an H100 aligned crops went from 36 to 50 a second (``scripts/benchmark_gpu.py runs --switch``).
    """
    sys.setswitchinterval(_TURN)


def refuse_telemetry() -> None:
    """Switch telemetry off in libraries that are not yet loaded."""
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)


def onnxruntime() -> Any:
    """Import ONNX Runtime, which then reports nothing to anybody, and return it."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", NO_TELEMETRY["ORT_DISABLE_TELEMETRY"])
    import onnxruntime as module

    if os.environ["ORT_DISABLE_TELEMETRY"] != "0" and hasattr(module, "disable_telemetry_events"):
        module.disable_telemetry_events()  # where the caller's program loaded it before us, and on Windows
    return module


def openvino() -> Any:
    """Import OpenVINO, which then reports nothing to anybody, and return it.

    It would send an event to Google for each import, by its package ``openvino_telemetry``, and has a stand-in for
    where that is not installed. No environment variable switches it off.

    Raises:
        UsageError: OpenVINO is not installed.
    """
    names = () if "openvino" in sys.modules else ("openvino_telemetry",)  # else the caller's program has decided
    with without(*names):
        return require("openvino", "--backend openvino", "openvino")


def summary_writer() -> Any:
    """Import TensorBoard's writer of scalars, and return its class; None where it is not installed.

    TensorBoard would import boto3 where that is installed, for scalars in S3, and with it urllib3, which opens a socket
    to see whether this machine has IPv6. Ours go to a folder.
    """
    with without("boto3", "botocore"):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
    return SummaryWriter


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Keep packages from being imported meanwhile, as if they were not installed; those that are loaded stay."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def accelerator_in_sight() -> bool:
    """Return whether PyTorch may find a GPU here: told by the system's files alone, since PyTorch takes seconds to ask.

    True where that cannot be told.
    """
    import platform
    from importlib.metadata import PackageNotFoundError, version

    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    try:
        if version("torch").endswith("+cpu"):
            return False
    except PackageNotFoundError:
        return False
    if sys.platform == "win32":
        system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32"
        return any((system / library).is_file() for library in ("nvcuda.dll", "amdhip64.dll", "amdhip64_7.dll"))
    return not sys.platform.startswith("linux") or any(Path(device).exists() for device in _ACCELERATORS)


def threads() -> int:
    """Return how many threads a library should use: ``OMP_NUM_THREADS`` if the user has set it, else :func:`cores`."""
    with suppress(ValueError):
        count = int(os.environ.get("OMP_NUM_THREADS", ""))
        if count >= 1:
            return count
    return cores()


def cores(cgroups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return the cores that this process may use: those of its affinity mask, and no more than its cgroup's quota.

    A quota of 1.5 cores counts as 2. ``cgroups`` is where the control groups are mounted, ``membership`` the file that
    names the process's own.
    """
    quotas = list(_quotas(cgroups, membership))
    return max(1, min([affinity(), *(math.ceil(quota) for quota in quotas)]))


def affinity() -> int:
    """Return the number of logical cores in the process's affinity mask."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, a container's or a limit's share of them."""
    found = [1 << 33]  # where nothing says how much there is
    with suppress(AttributeError, ValueError, OSError):
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found.append(int(Path(path).read_text(encoding="ascii")))  # "max" is not a number
    with suppress(ImportError, AttributeError, OSError):
        import resource  # not on Windows

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            found.append(soft)
    return min(found)


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of the process's group and of those above it."""
    try:
        lines = membership.read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has one tree, version 1 one for each controller. A container may see its own group as the root.
        root = cgroups / controllers if controllers else cgroups
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder != root and root not in folder.parents:
                break
            quota = _quota(folder, version=1 if controllers else 2)
            if quota is not None:
                yield quota


def _quota(folder: Path, version: int) -> float | None:
    """One group's quota in cores; None without one."""
    try:
        if version == 2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file; "max"
        return None
    return cores if cores > 0 else None


def _physical_cores() -> int:
    """Return the physical cores behind the affinity mask: two threads on one core do the work of one."""
    try:
        mine = os.sched_getaffinity(0)
        topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
        return len({Path(topology.format(core)).read_text() for core in mine})
    except (AttributeError, OSError):
        return affinity()
