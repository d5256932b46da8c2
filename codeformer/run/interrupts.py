"""Ctrl-C, and what else asks a run to end, waits while something is written down."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def signals_held() -> Iterator[None]:
    """Put off SIGINT, SIGTERM and SIGHUP until the block is done, so that it is done whole or not at all.

    The handlers from before then get the first signal that came. A signal that is ignored, or that ends the process at
    once because nobody handles it, is left as it is.
    """
    before = {}
    held: list[int] = []
    if threading.current_thread() is threading.main_thread():  # signals are handled there alone
        for number in (getattr(signal, name, None) for name in _NAMES):
            if number is not None and callable(signal.getsignal(number)):
                before[number] = signal.signal(number, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])
