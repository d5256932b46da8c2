"""One file over HTTP into its place: resumed, retried, verified, and never half there.

The bytes gather in ``<file>.part``, which outlives a cut connection, Ctrl-C and ``kill -9``; the next call goes on
from its end. Nothing that a server says is trusted: not that it honours a range, not its Content-Length. The size and
the SHA-256 that the caller knows decide, and only a file that has both gets its name.
"""

from __future__ import annotations

import errno
import http.client
import os
import queue
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from codeformer.errors import WeightsError
from codeformer.files.atomic import reason, shown, sync_folder, unwritable
from codeformer.files.digest import sha256_of, sha256_of_open
from codeformer.files.lock import lock
from codeformer.files.opening import open_own
from codeformer.version import __version__

_BLOCK = 1 << 18
_RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE = 60.0  # seconds; also the most of what a server may ask for
_ENOUGH = 1 << 20  # bytes that an attempt must bring beyond all before it so that it does not count as a failed one
_ROUNDS = 20  # times the attempts that may fail in a row: so many may fail in all
_SLOWEST = 1000  # bytes in a second: a modem brings more
_PATIENCE = 4  # times the timeout that a server has for its answer's first lines


class Unreachable(WeightsError):
    """No server answered: other files of the same place need not be tried."""


class _Retry(Exception):
    """This attempt failed; another may not.

    Attributes:
        pause: seconds that the server asks for.
        answered: whether there was a server at all.
        at_end: whether the server says that its file ends where our part does.
    """

    def __init__(self, what: str, pause: float = 0.0, answered: bool = True, at_end: bool = False) -> None:
        super().__init__(what)
        self.pause = pause
        self.answered = answered
        self.at_end = at_end


def fetch(
    url: str,
    target: Path,
    *,
    size: int,
    sha256: str,
    progress: Callable[[int], None] = lambda done: None,
    note: Callable[[str], None] = lambda text: None,
    attempts: int = 5,
    timeout: float = 30.0,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Bring the file at ``url`` (http, https or file) to ``target``, if ``size`` (bytes) and ``sha256`` are right.

    Several processes may ask for the same file: one fetches, the others wait. Proxies are taken from the environment.
    Every attempt ends: by a silence of ``timeout`` seconds, and by a speed below 1 kB a second over as many.

    Args:
        url: an http, https or file address.
        target: where the file goes.
        size: its bytes.
        sha256: of its bytes, in hexadecimal.
        progress: gets the number of bytes that are here, which falls when a server makes us start again.
        note: gets a line about what goes wrong and is tried again.
        attempts: failed attempts in a row that end it, with growing pauses between them. One that brings a megabyte
            which no attempt before it brought did not fail.
        timeout: seconds.
        sleep: waits between attempts.

    Raises:
        WeightsError: it cannot be had, naming the address, the reason and the place (Unreachable if nothing answered).
        OutputError: the folder cannot be written.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_writer(part, lambda: note(f"{target.name}: another process is fetching it; waiting")) as file:
            if target.is_file() and target.stat().st_size == size and sha256_of(target) == sha256:
                part.unlink()  # somebody else was faster
                progress(size)
                return
            try:
                _require_space(target.parent, size - _length(file))
                _gather(url, file, target, size, sha256, progress, note, attempts, timeout, sleep)
            except BaseException:
                if _length(file) == 0:
                    part.unlink()
                raise
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # an open file cannot be renamed there
            part.replace(target)
            sync_folder(target.parent)
    except OSError as error:
        raise unwritable(target, error) from error


def _gather(
    url: str,
    file: BinaryIO,
    target: Path,
    size: int,
    sha256: str,
    progress: Callable[[int], None],
    note: Callable[[str], None],
    attempts: int,
    timeout: float,
    sleep: Callable[[float], None],
) -> None:
    """Until ``file`` holds the right bytes. Raises WeightsError when that will not happen."""
    failures, in_all, wrong, answered = 0, 0, False, False
    best = _length(file)
    while True:
        before = _length(file)
        try:
            if before < size:
                _receive(url, file, size, progress, timeout)
            if _length(file) == size and sha256_of_open(file) == sha256:
                return
            file.truncate(0)
            if wrong:
                raise WeightsError(f"{target.name}: {url} gives other bytes than were published; {_by_hand(target)}")
            wrong = True  # what was there from an earlier run may be to blame: once more from the start
            note(f"{target.name}: the bytes are not the published ones; starting again")
        except _Retry as failure:
            answered = answered or failure.answered
            if failure.at_end and before == best:  # and not: what is here from an earlier run is too long
                if wrong:
                    raise WeightsError(
                        f"{target.name}: the file at {url} has {before} bytes instead of {size}; {_by_hand(target)}"
                    ) from failure
                wrong = True
            now = _length(file)
            failures, in_all = 1 if now - best >= _ENOUGH else failures + 1, in_all + 1
            best = max(best, now)
            if failures >= attempts or in_all >= attempts * _ROUNDS:
                kind = WeightsError if answered else Unreachable
                raise kind(f"{target.name}: cannot be fetched from {url} ({failure}); {_by_hand(target)}") from failure
            pause = min(max(0.5 * 2 ** (failures - 1), failure.pause), _LONGEST_PAUSE)
            note(f"{target.name}: {failure}; trying again in {pause:g} s")
            sleep(pause)
        except _Refused as refusal:
            raise WeightsError(f"{target.name}: {url} answers {refusal}; {_by_hand(target)}") from refusal


class _Refused(Exception):
    """The server's answer will not change."""


def _receive(url: str, file: BinaryIO, size: int, progress: Callable[[int], None], timeout: float) -> None:
    """Append what one connection brings, at most to ``size``. Raises _Retry if it ends early or goes wrong."""
    have = _length(file)
    headers = {"User-Agent": f"codeformer/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with _connection(urllib.request.Request(url, headers=headers), file, timeout) as response:
        if getattr(response, "status", 200) == 206:
            start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
            if not start or int(start[1]) != have:
                file.truncate(0)
                raise _Retry("the server sent another part than was asked for")
        elif have:  # the whole file again: it does not do ranges
            file.truncate(0)
            have = 0
        file.seek(have)
        progress(have)
        read = getattr(response, "read1", response.read)  # what has come, where read() waits until its block is full
        begun, had = time.monotonic(), have
        while have < size:
            try:
                block = read(min(_BLOCK, size - have))
            except (OSError, http.client.HTTPException) as error:
                file.flush()
                raise _Retry(f"the connection broke after {have} of {size} bytes ({reason(error)})") from error
            if not block:
                file.flush()
                raise _Retry(f"the connection ended after {have} of {size} bytes")
            file.write(block)
            have += len(block)
            progress(have)
            passed = time.monotonic() - begun
            if passed >= timeout and have < size:
                if have - had < _SLOWEST * passed:
                    file.flush()
                    raise _Retry(f"the server sends less than {_SLOWEST} bytes a second, {have} of {size} are here")
                begun, had = time.monotonic(), have
        if response.read(1):
            file.truncate(0)
            raise _Retry(f"the server sends more than the {size} bytes of the published file")
    file.flush()


@contextmanager
def _connection(request: urllib.request.Request, file: BinaryIO, timeout: float) -> Iterator[Any]:
    try:
        # An opener of our own reads the environment's proxies now; urlopen's is the process's, made once.
        opener = urllib.request.build_opener()
        response = _within(_PATIENCE * timeout, lambda: opener.open(request, timeout=timeout))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # our part is longer than the server's file
            file.truncate(0)
            raise _Retry("the server's file ends before the part that is here does", at_end=True) from error
        what = f"HTTP {error.code} {error.reason}".strip()
        if error.code in _RETRY_STATUSES:
            asked = error.headers.get("Retry-After") or ""
            raise _Retry(what, pause=float(asked) if asked.isdigit() else 0.0) from error
        raise _Refused(what) from error
    except urllib.error.URLError as error:
        cause = error.reason if isinstance(error.reason, BaseException) else error
        raise _Retry(f"no connection: {reason(cause)}", answered=False) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Retry(f"no connection: {reason(error)}", answered=False) from error
    with response:
        yield response


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return what the call returns, or raise TimeoutError when it takes too long.

    A timeout of the socket begins anew with every byte, and looking up a name has none. The thread that is given up
    ends with its connection, or with the process.
    """
    done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    given_up = threading.Event()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:
            done.put((None, error))
        else:
            done.put((result, None))
            if given_up.is_set():
                result.close()

    threading.Thread(target=run, name="codeformer-connect", daemon=True).start()
    try:
        result, error = done.get(timeout=seconds)
    except queue.Empty:
        given_up.set()
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return result


@contextmanager
def _only_writer(part: Path, wait: Callable[[], None]) -> Iterator[BinaryIO]:
    """``part``, opened for reading and writing by this process alone (where the system has locks)."""
    while True:
        with os.fdopen(open_own(part, os.O_RDWR), "r+b") as file:
            lock(file, wait)
            if _is_still(part, file):  # whoever held the lock may have renamed the file that we opened
                yield file
                return


def _is_still(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _length(file: BinaryIO) -> int:
    file.flush()
    return os.fstat(file.fileno()).st_size


def _require_space(folder: Path, wanted: int) -> None:
    if shutil.disk_usage(folder).free < wanted:
        raise OSError(errno.ENOSPC, f"{wanted / 1e6:.0f} MB more are needed there")


def _by_hand(target: Path) -> str:
    return f"or fetch it by other means and put it at {shown(target)}"
