"""Between browsers and Gradio: paths of the server under another name, and no other file than the page's own.

Gradio names every upload and every picture on the page by its path on the server, and takes such paths back from the
browser. Outside this module its folder is called ``/files``. A path that does not begin so is refused: mounted into
another application, Gradio would open any file of the server, and fetch addresses from elsewhere. For the same reason
only those of Gradio's paths are answered that the page asks for.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

PUBLIC = "/files"
_GRADIO = "/gradio_api/"
_USED = {"app_id", "cancel", "component_server", "file", "heartbeat", "info", "queue", "reset"}
_USED |= {"startup-events", "theme.css", "upload", "upload_progress"}
_OWN = ("/api/", "/desks/")  # answers of ours, which are large and name nothing of the server
_REWRITTEN = (b"application/json", b"text/event-stream", b"text/html", b"text/plain")


class _ForeignPathError(Exception):
    """A path that is not one of the page's."""


class Veil:
    """An ASGI application around the page's."""

    def __init__(self, app: _App, folder: Path, *secret: Path) -> None:
        """Hide paths.

        Args:
            app: the application with the page.
            folder: Gradio's, called ``/files`` outside.
            secret: further folders, whose names are left out of answers.
        """
        self._app = app
        self._folder = str(folder)
        pairs = [(form, PUBLIC.encode()) for form in _forms(folder)]
        pairs += [(form, b"") for path in secret for form in _forms(path)]
        self._names = dict(sorted(pairs, key=lambda pair: -len(pair[0])))
        self._pattern = re.compile(b"|".join(map(re.escape, self._names)))

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Translate a request and its answer."""
        if scope["type"] != "http" or scope["path"].startswith(_OWN):
            await self._app(scope, receive, send)
            return
        try:
            scope = self._asked(scope)
            if scope["method"] == "POST" and not _is_form(scope):
                scope, receive = await self._sent(scope, receive)
        except _ForeignPathError:
            await _refuse(send)
            return
        await self._app(scope, receive, self._hiding(send))

    def _asked(self, scope: _Scope) -> _Scope:
        if not scope["path"].startswith(_GRADIO):
            if _GRADIO in scope["path"]:  # below --root_path, which Gradio takes off by itself
                raise _ForeignPathError
            return scope
        name, sign, rest = re.split("([/=]|$)", scope["path"].removeprefix(_GRADIO), maxsplit=1)
        if name not in _USED:
            raise _ForeignPathError
        if name != "file":
            return scope
        if sign != "=":
            raise _ForeignPathError
        path = f"{_GRADIO}file={self._inner(rest)}"
        return {**scope, "path": path, "raw_path": quote(path).encode()}

    def _inner(self, path: str) -> str:
        """Return the server's path of a file of the page. Raises _ForeignPathError."""
        if not path.startswith(PUBLIC + "/") or ".." in re.split(r"[/\\]", path) or "\0" in path:
            raise _ForeignPathError
        return self._folder + path.removeprefix(PUBLIC)

    async def _sent(self, scope: _Scope, receive: _Receive) -> tuple[_Scope, _Receive]:
        """Return a request with the server's paths in its JSON. Raises _ForeignPathError."""
        parts, more = [], True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the client left
                break
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(parts)
        with suppress(ValueError, RecursionError):  # Gradio refuses what does not parse as JSON
            body = json.dumps(self._translated(json.loads(body))).encode()
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
        whole: list[_Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> _Message:
            return whole.pop() if whole else await receive()

        return {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}, again

    def _translated(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._translated(one) for one in value]
        if isinstance(value, dict):
            pairs = {name: self._translated(one) for name, one in value.items()}
            if isinstance(pairs.get("path"), str) and pairs["path"]:
                pairs["path"] = self._inner(pairs["path"])
            return pairs
        return value

    def _hiding(self, send: _Send) -> _Send:
        held: list[_Message] = []
        rewrites = False

        async def hidden(message: _Message) -> None:
            nonlocal rewrites
            if message["type"] == "http.response.start":
                headers = {name.lower(): value for name, value in message["headers"]}
                kind = headers.get(b"content-type", b"")
                rewrites = kind.startswith(_REWRITTEN) and b"content-encoding" not in headers
                if rewrites and b"content-length" in headers:
                    held.append(message)  # until its length is known
                    return
            elif message["type"] == "http.response.body" and rewrites and message.get("body"):
                message = {**message, "body": self._hidden(message["body"])}
            if held:
                start = held.pop()
                rest = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
                if not message.get("more_body", False):
                    rest.append((b"content-length", str(len(message.get("body", b""))).encode()))
                await send({**start, "headers": rest})
            await send(message)

        return hidden

    def _hidden(self, body: bytes) -> bytes:
        return self._pattern.sub(lambda found: self._names[found[0]], body)


def _forms(folder: Path) -> set[bytes]:
    """Return how a path may be written in JSON and in addresses."""
    forms = set()
    for path in {str(folder), os.path.realpath(folder)}:
        forms |= {json.dumps(path)[1:-1], json.dumps(path, ensure_ascii=False)[1:-1], quote(path), quote(path, ":/\\")}
    return {form.encode() for form in forms}


def _is_form(scope: _Scope) -> bool:
    # Of several such headers the application reads the first
    kind = next((value for name, value in scope["headers"] if name.lower() == b"content-type"), b"")
    return bool(kind.lower().startswith(b"multipart/form-data"))


async def _refuse(send: _Send) -> None:
    body = json.dumps({"error": "not a file of this page", "kind": "RefusedError"}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
