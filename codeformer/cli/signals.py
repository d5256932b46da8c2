"""SIGTERM and SIGHUP end a run as Ctrl-C does: what is begun is finished, the report says "interrupted"."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from codeformer.errors import ExitCode

#: What asks a program to end, and the exit code that says who asked. Windows has no SIGHUP.
_CODES = {"SIGTERM": ExitCode.TERMINATED, "SIGHUP": ExitCode.HANGUP}


class Stop:
    """Whether a signal has asked the program to end, and which exit code stands for it."""

    def __init__(self) -> None:
        self.code = ExitCode.INTERRUPTED

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Handle the signal. The first one interrupts; those after it leave the run the time to end."""
        if self.code is ExitCode.INTERRUPTED:
            self.code = _CODES[signal.Signals(number).name]
            raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt; one that is ignored, as under nohup, stays ignored."""
    stop = Stop()
    before = {}
    if threading.current_thread() is threading.main_thread():  # signal() refuses to work elsewhere
        for name in _CODES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
