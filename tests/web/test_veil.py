"""Paths of the server: nobody sees them, nobody opens them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codeformer.web.options import ServerOptions
from codeformer.web.veil import PUBLIC, Veil
from codeformer.web.words import SENTENCES, WORDS, language_of, sentence
from tests.web.serving import Running, httpx, served


def _put(server: Running, data: bytes, name: str = "a.png") -> str:
    answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": (name, data)}, trust_env=False)
    (path,) = answer.json()
    return str(path)


def _join(server: Running, path: str, *kinds: str) -> httpx.Response:
    """What the page sends when pictures have come."""
    config = httpx.get(f"{server.url}/config", trust_env=False).json()
    names = {one["id"]: one["props"].get("elem_id") for one in config["components"]}
    (number,) = [
        one["id"] for one in config["dependencies"] if [names[i] for i in one["inputs"]][:1] == ["restore-files"]
    ]
    file = {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    body = {"data": [[file], 0.5, 1, False], "fn_index": number, "session_hash": "abcdef", "trigger_id": 1}
    return httpx.post(
        f"{server.url}/gradio_api/queue/join",
        content=json.dumps(body),
        headers=[("content-type", kind) for kind in kinds or ("application/json",)],
        timeout=60,
        trust_env=False,
    )


def test_an_upload_has_another_name_outside(server: Running, photo: bytes) -> None:
    path = _put(server, photo)
    assert path.startswith(f"{PUBLIC}/")
    where = f"{server.url}/gradio_api/file={path}"
    assert httpx.get(where, trust_env=False).content == photo
    part = httpx.get(where, headers={"Range": "bytes=1-3"}, trust_env=False)
    assert (part.status_code, part.content) == (206, b"PNG")
    assert _join(server, path).status_code == 200


@pytest.mark.parametrize(
    "kinds",
    [
        ("application/json",),
        ("application/x+json",),
        ("text/plain",),
        ("",),
        ("application/json", "multipart/form-data"),
    ],
)
def test_no_other_file_is_opened(server: Running, photo: bytes, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    """Mounted into another application, Gradio opens every file that a browser names."""
    (tmp_path / "secret.png").write_bytes(photo)
    known = _put(server, photo)
    for path in (
        str(tmp_path / "secret.png"),
        f"{PUBLIC}/../secret.png",
        f"{known}/../../a",
        "http://127.0.0.1:1/a.png",
    ):
        answer = _join(server, path, *kinds)
        assert (answer.status_code, answer.json()["error"]) == (403, "not a file of this page"), path


@pytest.mark.parametrize(
    "path",
    [
        "file=/etc/passwd",
        "file%3D/etc/passwd",
        "file=/files/%2e%2e/%2e%2e/etc/passwd",
        "file=http://example.org/",
        "file=https://example.org/",
        "file/etc/passwd",
        "proxy=https://example.org/",
        "vibe-code",
        "runs",
        "openapi.json",
    ],
)
def test_addresses_that_are_refused(server: Running, path: str) -> None:
    where = httpx.URL(server.url).copy_with(raw_path=f"/gradio_api/{path}".encode())
    assert httpx.get(where, trust_env=False).status_code == 403


def test_the_folder_of_a_proxy_is_no_way_around(server_options: ServerOptions) -> None:
    """Gradio takes --root_path off a path by itself, if a proxy has left it there or a client has put it twice."""
    with served(replace(server_options, root_path="/faces")) as running:
        for path in ("file=http://127.0.0.1:1/", "file=/etc/passwd", "runs"):
            answer = httpx.get(f"{running.url}/faces/gradio_api/{path}", trust_env=False)
            assert (answer.status_code, answer.json()["error"]) == (403, "not a file of this page"), path


def _through(folder: Path, body: bytes, kind: str, chunks: int = 1) -> tuple[dict[bytes, bytes], bytes]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        length = (b"content-length", str(len(body)).encode())
        head = [(b"content-type", kind.encode()), *([length] if chunks == 1 else [])]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for number in range(chunks):
            await send({"type": "http.response.body", "body": body, "more_body": number < chunks - 1})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/gradio_api/queue/data", "method": "GET", "headers": []}
    asyncio.run(Veil(app, folder)(scope, None, send))  # type: ignore[arg-type]
    return dict(sent[0]["headers"]), b"".join(one["body"] for one in sent[1:])


@pytest.mark.parametrize("name", ["page", "my page", "Bühne", 'a"b', "C:\\Users\\me"])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream; charset=utf-8"])
def test_every_way_to_write_a_path(tmp_path: Path, name: str, kind: str) -> None:
    from urllib.parse import quote

    folder = tmp_path / name
    said = {"path": f"{folder}/x/y.png", "url": f"/gradio_api/file={quote(str(folder) + '/x/y.png', safe='/')}"}
    for ascii_only in (True, False):
        body = json.dumps(said, ensure_ascii=ascii_only).encode()
        head, seen = _through(folder, body, kind)
        assert json.loads(seen) == {"path": "/files/x/y.png", "url": "/gradio_api/file=/files/x/y.png"}
        assert int(head[b"content-length"]) == len(seen)
        assert _through(folder, body, kind, chunks=2)[1] == seen * 2


def test_pictures_are_left_as_they_are(tmp_path: Path) -> None:
    body = b"\x89PNG" + str(tmp_path).encode()
    assert _through(tmp_path, body, "image/png")[1] == body


def test_all_languages_have_all_words() -> None:
    import string

    for table in (WORDS, SENTENCES):
        english = table["en"]
        for words in table.values():
            assert list(words) == list(english)
            assert all(words.values())
    for key, text in SENTENCES["en"].items():
        fields = sorted(str(part[1]) for part in string.Formatter().parse(text) if part[1])
        for words in SENTENCES.values():
            assert sorted(str(part[1]) for part in string.Formatter().parse(words[key]) if part[1]) == fields


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("de", "de"),
        ("de-CH,de;q=0.9,en;q=0.8", "de"),
        ("fr,de;q=0.9", "en"),
        ("zh-CN,zh;q=0.9", "zh-CN"),
        ("zh", "zh-CN"),
        ("zh-TW", "en"),
        ("*", "en"),
        ("den", "en"),
    ],
)
def test_languages(accepted: str | None, language: str) -> None:
    assert language_of(accepted) == language
    assert sentence(language, "frames_of", done=1, total=2)
