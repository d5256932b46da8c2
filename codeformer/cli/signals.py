"""SIGTERM and SIGHUP end a run as Ctrl-C does: what is begun is finished, the report says "interrupted".

None of them acts while a module is imported. PyTorch registers its operators then, and its C++ ends the whole process
(SIGABRT) where such a call raises.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from codeformer.errors import ExitCode

#: What asks a program to end, and the exit code that says who asked. Windows has no SIGHUP.
_CODES = {"SIGTERM": ExitCode.TERMINATED, "SIGHUP": ExitCode.HANGUP}


_AGAIN = 0.05  # seconds until a signal that came during an import is tried again


class Stop:
    """Whether a signal has asked the program to end, and which exit code stands for it."""

    def __init__(self) -> None:
        self.code = ExitCode.INTERRUPTED
        self._asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal. Ctrl-C always interrupts; of the others the first one, later ones leave time to end."""
        if _is_importing(frame):
            later = threading.Timer(_AGAIN, _again, (number,))
            later.daemon = True
            later.start()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        elif not self._asked:
            self._asked = True
            self.code = _CODES[signal.Signals(number).name]
            raise KeyboardInterrupt


def _again(number: int) -> None:
    """Send a signal to the main thread, so that it does not sleep on."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a module is being imported, by the program and not by whoever called it."""
    while frame is not None and frame.f_globals.get("__name__") != "codeformer.cli":
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn SIGINT, SIGTERM and SIGHUP into KeyboardInterrupt; one that is ignored, as under nohup, stays ignored."""
    stop = Stop()
    before = {}
    if threading.current_thread() is threading.main_thread():  # signal() refuses to work elsewhere
        for name in ("SIGINT", *_CODES):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
