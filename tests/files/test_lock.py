"""The one lock: who gets it, who waits, and that it goes with a killed process."""

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from codeformer.errors import OutputError
from codeformer.files.atomic import write_atomic
from codeformer.files.lock import hold, lock

fcntl = pytest.importorskip("fcntl")


def test_only_one_holds_it(tmp_path: Path) -> None:
    first = hold(tmp_path / "lock", "busy")
    with pytest.raises(OutputError, match="busy"):
        hold(tmp_path / "lock", "busy")
    first.close()
    hold(tmp_path / "lock", "busy").close()


def test_a_killed_process_gives_it_up(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from codeformer.files.lock import hold\n"
        "file = hold(Path(sys.argv[1]), 'busy'); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path / "lock"], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(OutputError):
            hold(tmp_path / "lock", "busy")
        other.kill()
        other.wait()
    hold(tmp_path / "lock", "busy").close()


def test_who_waits_gets_it_afterwards(tmp_path: Path) -> None:
    first = hold(tmp_path / "lock", "busy")
    with (tmp_path / "lock").open("rb") as second:
        assert lock(second, wait=lambda: threading.Timer(0.05, first.close).start()) is True
        assert first.closed


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    hold(tmp_path / "lock", "busy").close()
    with (tmp_path / "lock").open("rb") as file:
        assert lock(file) is None
    write_atomic(tmp_path / "data", b"x")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"data": b"x", "lock": b""}
