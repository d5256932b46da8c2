"""Only regular files are read, and nothing is written through a planted link."""

import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeformer.errors import OutputError
from codeformer.files.atomic import write_atomic
from codeformer.files.digest import sha256_of
from codeformer.files.lock import hold
from codeformer.files.opening import (
    is_name_below,
    open_own,
    open_regular,
    read_regular,
    remove_below,
    require_regular,
    status_below,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")


def quickly(call: Callable[[], object]) -> object:
    """What the call returns or raises, which it must do at once: a pipe would make it wait for ever."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert outcome, "it hangs"
    return outcome[0]


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "to zero").symlink_to("/dev/zero")
    (tmp_path / "to pipe").symlink_to(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        cases = {"pipe": "pipe", "to pipe": "pipe", "to zero": "device", "socket": "socket", "/dev/zero": "device"}
        cases |= {".": "folder", "missing": "No such file"}
        if sys.platform == "linux":
            (tmp_path / "to proc").symlink_to("/proc/self/environ")
            cases |= {"to proc": "kernel", "/proc/kmsg": "kernel", "/sys/kernel/mm/hugepages": "folder"}
        for name, words in cases.items():
            for opener in (open_regular, require_regular, sha256_of, lambda path: read_regular(path, 9)):
                error = quickly(lambda opener=opener, name=name: opener(tmp_path / name))
                assert isinstance(error, OSError) and words in str(error.strerror), (name, error)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular(tmp_path / "link", 3) == b"abc"
    with pytest.raises(OSError, match="more than 2 bytes"):
        read_regular(tmp_path / "file", 2)


def test_files_of_our_own_are_neither_links_nor_second_names(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    os.link(victim, tmp_path / "second")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "second", "pipe"):
        for call in (
            lambda name=name: open_own(tmp_path / name, os.O_WRONLY),
            lambda name=name: hold(tmp_path / name, "busy"),
        ):
            assert isinstance(quickly(call), OSError), name
    assert victim.read_bytes() == b"precious" and not (tmp_path / "made").exists()


def test_nothing_below_a_root_leads_out_of_it(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (outside / "deeper").mkdir(parents=True)
    (outside / "victim").write_bytes(b"precious")
    root.mkdir()
    (root / "out").symlink_to(outside)
    (root / "result").symlink_to(outside / "victim")
    for name in ("out/victim", "out/new", "out/deeper/new", "../outside/victim", "a/../../outside/victim"):
        with pytest.raises(OutputError):
            write_atomic(root / name, b"evil", below=root)
        with pytest.raises(OSError, match=r"link|does not lie below"):
            status_below(root, name)
        with pytest.raises(OSError, match=r"link|does not lie below"):
            remove_below(root, name)
    with pytest.raises(OutputError, match="folder out is a link"):
        write_atomic(root / "out" / "x", b"evil", below=root)
    with pytest.raises(OSError, match="is a link"):
        status_below(root, "result")
    write_atomic(root / "result", b"new", below=root)
    assert not (root / "result").is_symlink() and (root / "result").read_bytes() == b"new"
    write_atomic(root / "a" / "b" / "c", b"new", below=root)
    assert status_below(root, "a/b/c").st_size == 3
    remove_below(root, "a/b/c")
    assert not (root / "a/b/c").exists()
    assert sorted(p.name for p in outside.rglob("*")) == ["deeper", "victim"]
    assert (outside / "victim").read_bytes() == b"precious"


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    write_atomic(tmp_path / "results" / "a" / "x", b"1", below=tmp_path / "results")
    assert (tmp_path / "disk" / "a" / "x").read_bytes() == b"1"


@pytest.mark.parametrize("below", [True, False])
def test_a_planted_temporary_file_is_not_written_through(tmp_path: Path, below: bool) -> None:
    """The temporary file's name can be foretold; what lies there before us is not used."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x").write_bytes(b"old")
    names: list[str] = []
    real = os.open

    def spy(path: object, *args: object, **kwargs: object) -> int:
        if str(path).endswith(".tmp"):
            names.append(Path(str(path)).name)
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", spy)
        write_atomic(folder / "x", b"1", below=folder if below else None)
    planted = folder / names[0]
    for plant in (lambda: planted.symlink_to(victim), lambda: os.link(victim, planted), lambda: os.mkfifo(planted)):
        plant()
        quickly(lambda: write_atomic(folder / "x", b"2", below=folder if below else None))
        assert (folder / "x").read_bytes() == b"2" and victim.read_bytes() == b"precious"
        planted.unlink()
        (folder / "x").write_bytes(b"old")


@given(st.text(max_size=20))
def test_names_below_stay_below(text: str) -> None:
    if is_name_below(text):
        inside = os.path.normpath(os.path.join("/root/folder", text))  # noqa: PTH118
        assert inside == "/root/folder" or inside.startswith("/root/folder/")


def test_what_is_no_name_below() -> None:
    for name in ("..", "../x", "a/../../x", "/x", "//x", "", "a\0b", 5, None, "."):
        assert not is_name_below(name), name
    for name in ("a", "a/b.png", "..a", "a..b/c"):
        assert is_name_below(name), name
