"""Weights: finding, verifying and fetching them, against a loopback server that misbehaves in every way we know."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from codeformer.errors import OutputError, UsageError, WeightsError
from codeformer.hub import store as hub
from codeformer.hub.catalogue import GROUPS, WEIGHTS, Weights
from codeformer.hub.download import Unreachable, fetch
from codeformer.hub.mirrors import ON_HUGGING_FACE

CONTENT = bytes(range(256)) * 1200  # 300 kB: more than one block
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SMALL = CONTENT[:1000]
SMALL_SHA256 = hashlib.sha256(SMALL).hexdigest()


# --- a server ----------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """Serves ``content`` at every path; each request takes the next behaviour of ``script``, the last one for ever."""

    content: bytes = CONTENT
    script: list[str] = field(default_factory=lambda: ["well"])
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range
    url: str = ""

    def behaviour(self) -> str:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


def handler_of(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            server.requests.append((self.path, asked))
            with contextlib.suppress(OSError):
                self.answer(server.behaviour(), int(asked[6:-1]) if asked else 0)

        def answer(self, behaviour: str, start: int) -> None:
            content = server.content
            kind, _, value = behaviour.partition(":")
            if kind == "trickling lines":
                self.wfile.write(b"HTTP/1.0 200 OK\r\nServer: ")
                for _ in range(2000):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
                return
            if kind == "status":
                self.send_response(int(value))
                self.send_header("Retry-After", "7")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if kind.startswith("no-range"):
                start = 0
            if kind == "wrong":
                content = bytes(reversed(content))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = content[start:]
            length = {"long": len(body) + 999, "short": len(body) // 2}.get(kind, len(body))
            self.send_response(206 if start else 200)
            if start:
                claimed = start + 5 if kind == "shifted" else start
                self.send_header("Content-Range", f"bytes {claimed}-{len(content) - 1}/{len(content)}")
            if kind == "chunked":
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"%x\r\n" % len(body) + body[: len(body) // 2])
                return
            if kind == "endless":
                body += b"more" * 1000
            if kind != "endless":
                self.send_header("Content-Length", str(length))
            self.end_headers()
            if kind.endswith("cut"):
                body = body[: int(value)]
            if kind == "reset":
                self.wfile.write(body[: int(value)])
                self.wfile.flush()
                time.sleep(0.05)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.connection.close()
                return
            if kind == "stall":
                self.wfile.write(body[: int(value)])
                self.wfile.flush()
                time.sleep(1.5)
                return
            if kind == "trickle":
                with contextlib.suppress(OSError):
                    for at in range(len(body)):
                        self.wfile.write(body[at : at + 1])
                        time.sleep(0.05)
                return
            if kind == "slow":
                for at in range(0, len(body), 20_000):
                    self.wfile.write(body[at : at + 20_000])
                    self.wfile.flush()
                    time.sleep(float(value))
                return
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state)) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, no mirror, no weights of the machine, no ./weights of the repository."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("CODEFORMER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


Get = Callable[..., list[str]]


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Get:
    """fetch() of the server's file to tmp_path/there/w.pth; gives its notes. Pauses are noted, not slept."""

    def run(**options: Any) -> list[str]:
        notes: list[str] = []
        fetch(
            f"{server.url}/w.pth",
            tmp_path / "there" / "w.pth",
            **{
                "size": len(CONTENT),
                "sha256": SHA256,
                "note": notes.append,
                "sleep": lambda seconds: notes.append(f"slept {seconds:g}"),
                "timeout": 0.5,
                **options,
            },
        )
        return notes

    return run


def there(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()}


# --- fetching one file -------------------------------------------------------------------------------------------


def test_a_file_arrives_and_nothing_else_stays(get: Get, tmp_path: Path) -> None:
    seen: list[int] = []
    assert get(progress=seen.append) == []
    assert there(tmp_path) == {"w.pth": CONTENT}
    assert seen[0] == 0 and seen[-1] == len(CONTENT) and seen == sorted(seen)


@pytest.mark.parametrize(
    "fault", ["cut:0", "cut:1", "cut:100000", "reset:100000", "short", "long", "chunked", "stall:70000"]
)
def test_a_broken_connection_is_gone_on_with(server: Server, get: Get, tmp_path: Path, fault: str) -> None:
    server.script = [fault, fault, "well"]
    get()
    assert there(tmp_path) == {"w.pth": CONTENT}
    if fault in ("cut:100000", "short"):
        assert server.requests[1][1] == f"bytes={100_000 if fault.startswith('cut') else len(CONTENT) // 2}-"


def test_a_part_of_an_earlier_run_is_gone_on_with(server: Server, get: Get, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "w.pth.part").write_bytes(CONTENT[:123_456])
    seen: list[int] = []
    get(progress=seen.append)
    assert server.requests == [("/w.pth", "bytes=123456-")]
    assert seen[0] == 123_456
    assert there(tmp_path) == {"w.pth": CONTENT}


@pytest.mark.parametrize(
    ("part", "script"),
    [
        (CONTENT[:1000], ["no-range"]),  # sends everything with 200
        (CONTENT[:1000], ["shifted", "well"]),  # sends another range
        (b"x" * 1000, ["well"]),  # what is here is rubbish
        (CONTENT + b"too much", ["well"]),
        (bytes(len(CONTENT)), ["well"]),  # full length, wrong bytes
        (CONTENT[:1000], ["status:416", "well"]),
        (b"x" * 1000, ["no-range"]),
    ],
)
def test_a_part_that_does_not_fit_is_begun_again(
    server: Server, get: Get, tmp_path: Path, part: bytes, script: list[str]
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "w.pth.part").write_bytes(part)
    server.script = script
    get()
    assert there(tmp_path) == {"w.pth": CONTENT}


def test_a_complete_part_needs_no_server(server: Server, get: Get, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "w.pth.part").write_bytes(CONTENT)
    get()
    assert server.requests == []
    assert there(tmp_path) == {"w.pth": CONTENT}


def test_wrong_bytes_never_get_the_name(server: Server, get: Get, tmp_path: Path) -> None:
    server.script = ["wrong"]
    with pytest.raises(WeightsError, match="gives other bytes than were published") as caught:
        get()
    assert there(tmp_path) == {}
    assert len(server.requests) == 2, "once more, but not for ever"
    assert f"{server.url}/w.pth" in str(caught.value) and str(tmp_path / "there" / "w.pth") in str(caught.value)


def test_more_bytes_than_published_are_refused(server: Server, get: Get, tmp_path: Path) -> None:
    server.script = ["endless"]
    with pytest.raises(WeightsError, match="more than the 307200 bytes"):
        get()
    assert there(tmp_path) == {}


def test_a_short_file_ends_after_some_attempts_and_keeps_its_part(server: Server, get: Get, tmp_path: Path) -> None:
    server.script = ["cut:1000"]
    with pytest.raises(WeightsError, match="ended after 5000 of 307200 bytes"):
        get()
    assert len(server.requests) == 5
    assert there(tmp_path) == {"w.pth.part": CONTENT[:5000]}


def test_attempts_that_bring_a_megabyte_do_not_count_as_failed(server: Server, get: Get, tmp_path: Path) -> None:
    server.content = bytes(8 << 20)
    server.script = [f"cut:{1 << 20}"]
    get(size=8 << 20, sha256=hashlib.sha256(server.content).hexdigest(), attempts=2)
    assert len(server.requests) == 8


@pytest.mark.parametrize("missing", [1, 5000])
def test_a_mirrors_short_file_ends_after_two_readings(server: Server, get: Get, tmp_path: Path, missing: int) -> None:
    """Each reading brings megabytes, and the attempt after it none: that alternated for ever."""
    content = bytes(3 << 20)
    server.content = content[:-missing]
    with pytest.raises(WeightsError, match=f"has {len(content) - missing} bytes instead of {len(content)}") as caught:
        get(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    assert [asked for _, asked in server.requests] == [None, f"bytes={len(content) - missing}-"] * 2
    assert server.url in str(caught.value) and "\n" not in str(caught.value)
    assert there(tmp_path) == {}


def test_a_server_that_never_gets_further_ends_too(server: Server, get: Get, tmp_path: Path) -> None:
    """Without ranges every attempt brings the same megabytes."""
    server.content = bytes(4 << 20)
    server.script = [f"no-range cut:{3 << 20}"]
    with pytest.raises(WeightsError, match=f"ended after {3 << 20} of {4 << 20} bytes"):
        get(size=4 << 20, sha256=hashlib.sha256(server.content).hexdigest())
    assert len(server.requests) == 5


def test_many_small_steps_end_too(server: Server, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codeformer.hub.download._ENOUGH", 1)
    server.script = ["cut:1"]
    with pytest.raises(WeightsError, match="ended after 40 of"):
        get(attempts=2)
    assert len(server.requests) == 40


@pytest.mark.parametrize("fault", ["trickle", "trickling lines"])
def test_a_server_that_trickles_is_given_up(server: Server, get: Get, tmp_path: Path, fault: str) -> None:
    server.script = [fault]
    words = "less than 1000 bytes a second" if fault == "trickle" else "no answer within 2 s"
    with pytest.raises(WeightsError, match=words) as caught:
        get(attempts=2)
    assert len(server.requests) == 2 and "\n" not in str(caught.value)
    server.script = ["trickle", "well"]
    get()
    assert there(tmp_path) == {"w.pth": CONTENT}


def test_a_planted_part_is_not_written_through(get: Get, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "w.pth.part").symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError, match="link"):
        get()
    assert (tmp_path / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize("status", [404, 410, 403, 401])
def test_an_answer_that_will_not_change_ends_it_at_once(server: Server, get: Get, tmp_path: Path, status: int) -> None:
    server.script = [f"status:{status}"]
    with pytest.raises(WeightsError, match=f"answers HTTP {status}") as caught:
        get()
    assert len(server.requests) == 1
    assert there(tmp_path) == {} and "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [503, 429, 500])
def test_a_server_that_asks_for_patience_gets_it(server: Server, get: Get, tmp_path: Path, status: int) -> None:
    server.script = [f"status:{status}", "well"]
    notes = get()
    assert "slept 7" in notes, "Retry-After"
    assert there(tmp_path) == {"w.pth": CONTENT}


def test_pauses_grow(server: Server, get: Get) -> None:
    server.script = ["cut:0"]
    notes: list[str] = []
    with pytest.raises(WeightsError):
        get(note=lambda text: None, sleep=lambda seconds: notes.append(f"{seconds:g}"))
    assert notes == ["0.5", "1", "2", "4"]


def test_offline_the_message_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nothing answers there
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/w.pth"
        with pytest.raises(Unreachable) as caught:
            fetch(url, tmp_path / "there" / "w.pth", size=9, sha256=SHA256, sleep=lambda _: None)
    text = str(caught.value)
    assert url in text and str(tmp_path / "there" / "w.pth") in text and "\n" not in text
    assert there(tmp_path) == {}


def test_a_proxy_of_the_environment_is_used(server: Server, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    fetch(
        "http://weights.invalid/w.pth",
        Path("w.pth"),
        size=len(CONTENT),
        sha256=SHA256,
        sleep=lambda _: None,
        attempts=1,
    )
    assert server.requests == [("http://weights.invalid/w.pth", None)]


def test_a_folder_that_cannot_be_written(get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").write_bytes(b"a file")
    with pytest.raises(OutputError, match=r"w\.pth: cannot be written"):
        get()
    (tmp_path / "there").unlink()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OutputError, match="free some space"):
        get()
    assert there(tmp_path) == {}


# --- processes ---------------------------------------------------------------------------------------------------

FETCHER = """
import sys
from pathlib import Path
from codeformer.hub.download import fetch
url, target, size, sha256 = sys.argv[1:]
fetch(url, Path(target), size=int(size), sha256=sha256, note=print)
"""


def fetcher(server: Server, target: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", FETCHER, f"{server.url}/w.pth", str(target), str(len(CONTENT)), SHA256]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_in_the_middle_and_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.script = ["slow:0.1", "well"]
    target = tmp_path / "there" / "w.pth"
    part = target.with_name("w.pth.part")
    process = fetcher(server, target)
    while not part.exists() or part.stat().st_size == 0:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = part.stat().st_size
    assert 0 < kept < len(CONTENT) and not target.exists()
    assert fetcher(server, target).wait() == 0
    assert server.requests[1][1] == f"bytes={kept}-"
    assert there(tmp_path) == {"w.pth": CONTENT}


@pytest.mark.skipif(os.name != "posix", reason="locks")
def test_two_processes_fetch_it_once(server: Server, tmp_path: Path) -> None:
    server.script = ["slow:0.1"]
    target = tmp_path / "there" / "w.pth"
    first = fetcher(server, target)
    while not server.requests:
        time.sleep(0.01)
    second = fetcher(server, target)
    outputs = [process.communicate()[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert b"another process is fetching it" in outputs[1]
    assert len(server.requests) == 1
    assert there(tmp_path) == {"w.pth": CONTENT}


# --- the table ---------------------------------------------------------------------------------------------------


def test_the_table_is_sound() -> None:
    assert len({w.name for w in WEIGHTS}) == len({w.file for w in WEIGHTS}) == len(WEIGHTS)
    assert {w.group for w in WEIGHTS} == set(GROUPS)
    for weights in WEIGHTS:
        assert re.fullmatch(r"[0-9a-f]{64}", weights.sha256)
        assert weights.size > 1_000_000
        assert weights.url.startswith("https://github.com/") and weights.url.endswith("/" + weights.file)
        assert weights.folder in ("CodeFormer", "facelib", "realesrgan")
        assert "https://" in weights.licence
    assert "non-commercial" in hub.WEIGHTS[0].licence
    assert [w.name for w in WEIGHTS if "one public source" in w.note] == ["codeformer_colorization"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, server: Server) -> tuple[Weights, ...]:
    """The table with every file replaced by one of a few bytes that the server has."""
    server.content = SMALL
    table = tuple(replace(w, size=1000, sha256=SMALL_SHA256, url=f"{server.url}/original/{w.file}") for w in WEIGHTS)
    monkeypatch.setattr(hub, "WEIGHTS", table)
    return table


def put(path: Path, content: bytes = SMALL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- finding -----------------------------------------------------------------------------------------------------


def test_the_weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "linux":
        assert hub.weights_dir() == tmp_path / "cache" / "codeformer" / "weights"
    assert hub.weights_dir().parts[-2:] == ("codeformer", "weights")
    monkeypatch.setenv("CODEFORMER_WEIGHTS", str(tmp_path / "mine"))
    assert hub.weights_dir() == tmp_path / "mine"
    assert hub.weights_dir(Path("other")) == Path("other")


@pytest.mark.parametrize("place", ["root/CodeFormer", "root", "cwd/weights/CodeFormer", "cwd/weights"])
def test_a_file_put_there_by_hand_is_found_and_verified(small: object, tmp_path: Path, place: str) -> None:
    path = put(tmp_path / place / "codeformer.pth")
    for name in ("codeformer.pth", "codeformer"):
        found = hub.find(name, tmp_path / "root")
        assert found is not None and found.resolve() == path
    path.write_bytes(CONTENT[1:1001])
    with pytest.raises(WeightsError, match=r"codeformer\.pth: is damaged.*codeformer download codeformer$"):
        hub.find("codeformer", tmp_path / "root")
    path.write_bytes(b"cut")
    with pytest.raises(WeightsError, match="has 3 bytes instead of 1000"):
        hub.find("codeformer", tmp_path / "root")
    assert hub.find("codeformer", tmp_path / "root", verify=False) is not None
    path.unlink()
    assert hub.find("codeformer", tmp_path / "root") is None


def test_a_right_file_wins_over_a_wrong_one(small: object, tmp_path: Path) -> None:
    put(tmp_path / "root" / "facelib" / "parsing_bisenet.pth", b"wrong")
    right = put(tmp_path / "cwd" / "weights" / "facelib" / "parsing_bisenet.pth")
    found = hub.find("bisenet", tmp_path / "root")
    assert found is not None and found.resolve() == right


def test_names_the_table_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="codeformer models"):
        hub.find("codeformer2", tmp_path)


def test_a_verified_file_is_hashed_once_for_each_change(
    small: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def counting(path: Path) -> str:
        hashed.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr("codeformer.hub.verified.sha256_of", counting)
    root = tmp_path / "root"
    path = put(root / "CodeFormer" / "codeformer.pth")
    os.utime(path, (1e9, 1e9))
    assert hub.find("codeformer", root) and hub.find("codeformer", root)
    assert len(hashed) == 1
    path.write_bytes(CONTENT[1:1001])  # the same size
    os.utime(path, (1e9 + 1, 1e9 + 1))
    with pytest.raises(WeightsError):
        hub.find("codeformer", root)
    put(path)
    assert hub.find("codeformer", root), "a file changed just now is not taken from memory"
    put(path, CONTENT[1:1001])
    with pytest.raises(WeightsError):
        hub.find("codeformer", root)
    for rubbish in (b"{", b"[]", b'{"x": 1}', b"\xff"):
        (tmp_path / "cache" / "codeformer" / "verified.json").write_bytes(rubbish)
        put(path)
        assert hub.find("codeformer", root)


def test_verifying_works_where_nothing_can_be_remembered(small: object, tmp_path: Path) -> None:
    path = put(tmp_path / "cwd" / "weights" / "CodeFormer" / "codeformer.pth")
    os.utime(path, (1e9, 1e9))
    (tmp_path / "root").write_bytes(b"no folder")
    assert hub.find("codeformer", tmp_path / "root")


@pytest.mark.skipif(os.name != "posix", reason="owners and links")
@pytest.mark.parametrize("lie", ["beside the weights", "writable by all", "a link", "old times"])
def test_a_cache_is_no_proof(small: object, tmp_path: Path, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of zeros with an entry that says that it is right."""
    root = tmp_path / "root"
    cache = tmp_path / "cache" / "codeformer" / "verified.json"
    path = put(root / "CodeFormer" / "codeformer.pth")
    os.utime(path, (1e9, 1e9))
    assert hub.find("codeformer", root) and cache.is_file()
    assert list((root).rglob("*")) == [root / "CodeFormer", path], "listing writes nothing beside the weights"
    with path.open("r+b") as file:  # in place: the same file, of the same size
        file.write(bytes(1000))
    os.utime(path, (1e9, 1e9))
    if lie != "old times":
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]
        digest = next(entry.sha256 for entry in hub.WEIGHTS if entry.name == "codeformer")
        text = json.dumps({str(path.resolve()): [*stamp, digest]})
        if lie == "beside the weights":
            (root / ".verified.json").write_text(json.dumps({str(path.resolve()): [*stamp[:2], digest]}))
        elif lie == "writable by all":
            cache.write_text(text)
            cache.chmod(0o666)
        else:
            (tmp_path / "elsewhere").write_text(text)
            cache.unlink()
            cache.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WeightsError, match="damaged"):
        hub.find("codeformer", root)
    if lie == "a link":
        assert (tmp_path / "elsewhere").read_text() == text, "and it is not written through"


def test_a_flipped_bit_of_a_bundled_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.bundled_problems() == [], "after replacing a file, write its sha256sum into hub/catalogue.py"
    content = bytearray(hub.bundled("compact").read_bytes())
    content[len(content) // 2] ^= 1  # in a tensor: safetensors reads it
    target = tmp_path / "compact.safetensors"
    target.write_bytes(content)
    right = hub.packaged
    monkeypatch.setattr(hub, "packaged", lambda file: target if file == target.name else right(file))
    assert hub.bundled_problems() == [f"{target}: is damaged, by its SHA-256; reinstall codeformer"]


# --- choosing ----------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package's folder of bundled weights."""
    monkeypatch.setitem(hub.BUNDLED, "compact.safetensors", hashlib.sha256(CONTENT[:1000]).hexdigest())
    monkeypatch.setattr(hub, "__file__", str(tmp_path / "site-packages" / "codeformer" / "hub" / "store.py"))
    return put(tmp_path / "site-packages" / "codeformer" / "weights" / "compact.safetensors").parent


def test_auto_takes_the_published_weights_if_they_are_right(small: object, package: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    choice = hub.resolve_model("auto", "restoration", root)
    assert choice.path == package / "compact.safetensors"
    (note,) = choice.notes
    assert "compact" in note and note.endswith("codeformer download restoration")
    published = put(root / "CodeFormer" / "codeformer.pth")
    assert hub.resolve_model("auto", "restoration", root) == hub.Choice(published, SMALL_SHA256)
    published.write_bytes(b"cut")
    choice = hub.resolve_model("auto", "restoration", root)
    assert choice.path == package / "compact.safetensors" and len(choice.notes) == 1
    assert "has 3 bytes instead of 1000" in choice.notes[0]


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("codeformer.pth", "restoration"),
        ("codeformer_colorization.pth", "colorization"),
        ("codeformer_inpainting.pth", "inpainting"),
    ],
)
def test_official_is_the_groups_own_file_or_an_error(
    small: object, package: Path, tmp_path: Path, file: str, group: str
) -> None:
    root = tmp_path / "root"
    with pytest.raises(WeightsError) as caught:
        hub.resolve_model("official", group, root)
    for part in (file, f"codeformer download {group}", str(root / "CodeFormer" / file), "/original/"):
        assert part in str(caught.value)
    path = put(root / "CodeFormer" / file)
    assert hub.resolve_model("official", group, root) == hub.Choice(path, SMALL_SHA256)
    path.write_bytes(b"cut")
    with pytest.raises(WeightsError, match="has 3 bytes"):
        hub.resolve_model("official", group, root)


def test_compact_and_a_file(small: object, package: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root / "CodeFormer" / "codeformer.pth")
    assert hub.resolve_model("compact", "restoration", root) == hub.Choice(package / "compact.safetensors")
    own = put(tmp_path / "my own.pth")
    assert hub.resolve_model(str(own), "restoration", root) == hub.Choice(own)
    for model in (str(tmp_path / "none.pth"), str(tmp_path)):
        with pytest.raises(WeightsError, match="--model takes"):
            hub.resolve_model(model, "restoration", root)
    inpainting = put(root / "CodeFormer" / "codeformer_inpainting.pth")
    assert hub.resolve_model("codeformer_inpainting", "restoration", root) == hub.Choice(inpainting, SMALL_SHA256)
    with pytest.raises(WeightsError, match="codeformer download codeformer_colorization"):
        hub.resolve_model("codeformer_colorization", "restoration", root)
    with pytest.raises(WeightsError, match="no compact_inpainting"):
        hub.resolve_model("compact_inpainting", "inpainting", root)
    assert hub.resolve_model("compact", "inpainting", root) == hub.Choice(package / "compact.safetensors")
    special = put(package / "compact_inpainting.safetensors")
    assert hub.resolve_model("compact_inpainting", "inpainting", root) == hub.Choice(special)
    assert hub.resolve_model("compact", "inpainting", root) == hub.Choice(special)
    assert hub.resolve_model("compact", "colorization", root) == hub.Choice(package / "compact.safetensors")


def test_a_package_without_its_model_says_so(package: Path) -> None:
    (package / "compact.safetensors").unlink()
    with pytest.raises(WeightsError, match="reinstall codeformer"):
        hub.bundled()


# --- the commands ------------------------------------------------------------------------------------------------


def test_selecting() -> None:
    assert hub.select(["all"]) == list(WEIGHTS)
    assert [w.name for w in hub.select(["bisenet", "restoration", "codeformer.pth"])] == ["codeformer", "bisenet"]
    with pytest.raises(UsageError, match="'restauration'; there are: all, restoration"):
        hub.select(["restauration"])


def test_download_puts_files_where_find_finds_them(small: tuple[Weights, ...], server: Server, tmp_path: Path) -> None:
    root = tmp_path / "root"
    notes: list[str] = []
    paths = hub.download(["restoration", "parsing"], root, note=notes.append)
    assert paths == [
        root / "CodeFormer/codeformer.pth",
        root / "facelib/parsing_parsenet.pth",
        root / "facelib/parsing_bisenet.pth",
    ]
    assert [hub.find(path.name, root) for path in paths] == paths
    asked = len(server.requests)
    assert hub.download(["all"], root, note=notes.append)[0] == paths[0]
    assert len(server.requests) == asked + len(small) - 3, "what is here is not fetched again"
    paths[0].write_bytes(b"cut")
    assert hub.download(["restoration"], root, note=notes.append) == paths[:1]
    assert paths[0].read_bytes() == server.content
    assert any("fetching it again" in note for note in notes)


def test_a_mirror_is_asked_instead_and_verified_just_the_same(
    small: object, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.download(["bisenet"], tmp_path / "a", base_url=f"{server.url}/mirror/")
    monkeypatch.setenv("CODEFORMER_MIRROR", f"{server.url}/other")
    hub.download(["bisenet"], tmp_path / "b")
    assert [path for path, _ in server.requests] == ["/mirror/parsing_bisenet.pth", "/other/parsing_bisenet.pth"]
    folder = put(tmp_path / "usb stick" / "parsing_bisenet.pth").parent
    assert hub.download(["bisenet"], tmp_path / "c", base_url=folder.as_uri())[0].read_bytes() == server.content
    server.content = bytes(1000)
    with pytest.raises(WeightsError, match="other bytes"):
        hub.download(["bisenet"], tmp_path / "d", base_url=server.url)
    with pytest.raises(UsageError, match="--base_url"):
        hub.download(["bisenet"], tmp_path / "d", base_url="ftp://x")


def test_hugging_face_is_asked_where_it_has_a_file(
    small: tuple[Weights, ...], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/hf/")
    paths = hub.download(["all"], tmp_path / "a", base_url="hf")
    assert len(paths) == len(small)
    asked = {path.rpartition("/")[2]: path for path, _ in server.requests}
    for weights in small:
        repository = ON_HUGGING_FACE.get(weights.file)
        place = f"/hf/{repository}/resolve/main/" if repository else "/original/"
        assert asked[weights.file] == place + weights.file
    assert set(ON_HUGGING_FACE) < set(asked)
    server.requests.clear()
    hub.download(["bisenet"], tmp_path / "b", base_url="hf:me/my.weights")
    assert server.requests == [("/hf/me/my.weights/resolve/main/parsing_bisenet.pth", None)]
    server.content = bytes(1000)
    with pytest.raises(WeightsError, match="other bytes"):
        hub.download(["codeformer"], tmp_path / "c", base_url="hf")
    for wrong in ("hf:", "hf:me", "hf:me/../x", "hugging", "hf:a/b/c"):
        with pytest.raises(UsageError, match="--mirror"):
            hub.download(["bisenet"], tmp_path / "d", base_url=wrong)


def test_a_folder_for_a_machine_without_a_network(
    small: tuple[Weights, ...], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is complete, also where this machine has some files; the other machine finds all of them in it."""
    from codeformer.cli import main

    put(tmp_path / "mine" / "CodeFormer" / "codeformer.pth")
    put(Path("weights") / "parsing_bisenet.pth")
    words = ["download", "--all", "--dir", str(tmp_path / "carry"), "--weights_dir", str(tmp_path / "mine")]
    assert main([*words, "--mirror", f"{server.url}/m"]) == 0
    captured = capsys.readouterr()
    places = [tmp_path / "carry" / w.folder / w.file for w in small]
    assert captured.out.splitlines() == [str(path) for path in places]
    assert all(path.read_bytes() == SMALL for path in places)
    assert f"take {tmp_path / 'carry'} to the other machine" in captured.err
    fetched = [path.rpartition("/")[2] for path, _ in server.requests]
    assert fetched == [w.file for w in small if w.file not in ("codeformer.pth", "parsing_bisenet.pth")]
    assert sorted(path.name for path in (tmp_path / "mine").rglob("*.pth")) == ["codeformer.pth"]

    places[0].write_bytes(b"cut")
    server.requests.clear()
    assert main(words) == 0 and places[0].read_bytes() == SMALL and server.requests == []
    Path("weights", "parsing_bisenet.pth").unlink()
    assert {one.state for one in hub.inventory(tmp_path / "carry")} == {"verified"}
    moved = (tmp_path / "carry").rename(tmp_path / "stick")
    assert {one.state for one in hub.inventory(moved)} == {"verified"}


def test_one_missing_file_does_not_stop_the_others(small: tuple[Weights, ...], server: Server, tmp_path: Path) -> None:
    server.script = ["well", "status:404", "well"]
    with pytest.raises(WeightsError) as caught:
        hub.download(["upsampling"], tmp_path / "root")
    assert "RealESRGAN_x4plus.pth" in str(caught.value) and "x2plus" not in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "root" / "realesrgan").iterdir()) == [
        "RealESRGAN_x2plus.pth",
        "realesr-general-x4v3.pth",
    ]


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "codeformer", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        check=False,
    )


def test_the_download_command_refuses_what_is_not_published(server: Server, tmp_path: Path) -> None:
    """With the real table: the server's bytes are not the published ones."""
    mirror = ["--base-url", server.url, "--weights-dir", str(tmp_path / "root")]
    server.script = ["status:404"]
    done = command("download", "bisenet", *mirror)
    assert done.returncode == 4 and done.stdout == ""
    assert "licence of parsing_bisenet.pth: MIT" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("codeformer: error: parsing_bisenet.pth: ")
    assert str(tmp_path / "root" / "facelib" / "parsing_bisenet.pth") in last
    assert command("download", "nonsense", *mirror).returncode == 2
    (tmp_path / "root" / "facelib").rmdir()
    (tmp_path / "root" / "facelib").write_bytes(b"")
    assert command("download", "bisenet", *mirror).returncode == 6


def test_the_commands_list_and_fetch(
    small: object, server: Server, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from codeformer.cli import main

    root = str(tmp_path / "root")
    assert main(["download", "detection", "codeformer", "--weights_dir", root]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        str(Path(root, "CodeFormer", "codeformer.pth")),
        str(Path(root, "facelib", "detection_Resnet50_Final.pth")),
        str(Path(root, "facelib", "detection_mobilenet0.25_Final.pth")),
    ]
    assert "licence of codeformer.pth: NTU S-Lab License 1.0 (non-commercial)" in captured.err
    put(Path(root, "realesrgan", "RealESRGAN_x2plus.pth"), b"wrong")

    assert main(["models", "--json", "--weights_dir", root]) == 0
    data = json.loads(capsys.readouterr().out)
    states = {row["name"]: row["state"] for row in data["models"]}
    assert data["weights_dir"] == root
    assert states["compact"] == "bundled" and states["compact_inpainting"] == "missing"
    assert states["codeformer"] == states["retinaface_resnet50"] == "verified"
    assert states["realesrgan_x2plus"] == "wrong"
    assert states["bisenet"] == "missing"

    assert main(["models", "--weights_dir", root]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["name", "group", "MB", "state", "licence", "where"]
    rows = {line.split()[0]: line for line in table[1:]}
    assert str(package / "compact.safetensors") in rows["compact"]
    assert "verified" in rows["codeformer"] and "NTU S-Lab" in rows["codeformer"]
    assert "codeformer download parsing" in rows["bisenet"]


def test_no_other_command_imports_the_network() -> None:
    """``codeformer --help`` and looking for weights bring no HTTP client in."""
    code = (
        "import sys; from codeformer.hub import store as hub; from codeformer.cli.parser import build_parser; "
        "build_parser();"
        "hub.inventory(); print([m for m in ('urllib.request', 'torch', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_checkout_carries_its_model_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "__file__", str(tmp_path / "checkout" / "codeformer" / "hub" / "store.py"))
    path = put(tmp_path / "checkout" / "weights" / "compact.safetensors")
    with pytest.raises(WeightsError):
        hub.bundled()  # a folder "weights" beside an installed package is somebody else's
    put(tmp_path / "checkout" / "pyproject.toml")
    assert hub.bundled() == path
