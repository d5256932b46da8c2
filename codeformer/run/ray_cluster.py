"""The Ray cluster of a run: one that is there, or one that a process of its own starts on this machine and keeps.

That process has a session of its own: what a terminal or a scheduler sends to all processes of the run, such as Ctrl-C,
reaches the driver alone, which may be interrupted at any moment, also while the cluster starts. When the driver ends,
also by SIGKILL, the process's stdin does, and it ends the cluster.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from codeformer.environment import cores, refuse_telemetry
from codeformer.errors import UsageError
from codeformer.extras import require
from codeformer.options import RayOptions
from codeformer.run.interrupts import signals_held

_KEEPER = Path(__file__).with_name("ray_keeper.py")
_STARTS = 3  # attempts to start a cluster: Ray gives up where its agents take more than 15 seconds
_REACHED = 10  # seconds in which a cluster's address answers
_ENDED = 10  # seconds for a cluster to end its processes
_EXTRA = "'codeformer-toolkit[ray]'"


@contextmanager
def cluster(options: RayOptions) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine that ends with the block; yields the module ``ray``.

    Raises:
        UsageError: Ray is not installed, or no cluster can be reached at the address, or started.
    """
    _prepare(options.address)
    ray = require("ray", "--engine ray", _EXTRA)
    require("ray.data", "--engine ray", _EXTRA)
    _silence()
    if options.address == "local":
        with local_cluster(options) as address:
            yield from _connected(ray, address)
    else:
        _require_reachable(options.address)
        yield from _connected(ray, options.address)


def _prepare(address: str) -> None:
    """Set the environment that Ray reads when it is imported, where the user has not set it."""
    refuse_telemetry()
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters comes as an exception
    if address == "local" and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:  # nobody else may use it
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _silence() -> None:
    """Keep Ray from writing to stderr, and to stdout, which is for data; it has no switch for all of that."""
    for name in ("ray", "ray.data"):  # after they are imported, which sets their own
        logging.getLogger(name).setLevel(logging.CRITICAL)
    worker = sys.modules.get("ray._private.worker")
    if hasattr(worker, "print_to_stdstream"):  # on stdout: what the nodes tell of lost workers
        worker.print_to_stdstream = lambda *args, **kwargs: None  # type: ignore[union-attr]


def _require_reachable(address: str) -> None:
    """Raise UsageError if nobody listens there: Ray itself would ask for a long time."""
    host, _, port = address.rpartition(":")
    if not host:  # auto
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACHED).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"--ray_address {address}: nobody listens there ({reason})") from error


def _connected(ray: Any, address: str) -> Iterator[Any]:
    """Yield Ray while this process is a driver at the address."""
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}
    try:
        error = _in_thread(lambda: ray.init(address=address, **quiet))
        if error is not None:
            what = " ".join(str(error).split())[:300]
            raise UsageError(f"--ray_address {address}: no Ray cluster can be reached there ({what})") from error
        yield ray
    finally:
        _in_thread(ray.shutdown)


def _in_thread(do: Callable[[], object]) -> Exception | None:
    """Call what would set signal handlers of its own in the main thread; signals wait. Returns what it raises."""
    errors: list[Exception] = []

    def call() -> None:
        try:
            with _stderr_closed():
                do()
        except Exception as error:
            errors.append(error)

    with signals_held():
        thread = Thread(target=call, name="codeformer-ray")
        thread.start()
        thread.join()
    return errors[0] if errors else None


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Lead what C++ code writes to stderr nowhere: Ray tells there that its log level was set."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def local_cluster(options: RayOptions) -> Iterator[str]:
    """Start a cluster on this machine, which ends with the block; yields its address. Raises UsageError."""
    _prepare("local")
    wanted = (options.workers or 1) * options.cpus_per_worker
    count = max(cores(), int(-(-wanted // 1)))
    environment = dict(os.environ)
    environment.setdefault("RAY_worker_niceness", "0")  # the workers are the run: no less urgent than the driver
    environment.setdefault("RAY_AUTH_MODE", "disabled")  # as in this process, which imported Ray before
    why = ""
    for _ in range(_STARTS):
        with _keeper(count, environment) as answer:
            word, _, rest = answer.partition(" ")
            if word == "at":
                yield rest
                return
            why = rest[:300] or why
    raise UsageError(f"--engine ray: Ray does not start on this machine ({why}); see /tmp/ray/session_latest/logs")


@contextmanager
def _keeper(count: int, environment: dict[str, str]) -> Iterator[str]:
    """Run the process that keeps a cluster, and yield its answer."""
    with signals_held():  # so that it is never started without an end
        keeper = subprocess.Popen(
            [sys.executable, "-P", str(_KEEPER), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,
        )
    answer = ""
    try:
        answer = keeper.stdout.readline().strip()  # type: ignore[union-attr]
        yield answer
    finally:
        with signals_held(), keeper:
            if answer:
                keeper.stdin.close()  # type: ignore[union-attr]
                with suppress(subprocess.TimeoutExpired):
                    keeper.wait(_ENDED)
            _kill_all(keeper)


def _kill_all(keeper: subprocess.Popen[str]) -> None:
    """Kill the process and what it has started, of which some would notice its end only after a minute."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(keeper.pid, signal.SIGKILL)
    else:
        keeper.kill()
