"""What a request must be like before anything looks at it: small enough, and from somebody who may ask."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from codeformer.web.options import ServerOptions, is_loopback

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]
_COOKIE = "codeformer_token"
_SLACK = 100_000  # bytes of a form around its files


class _TooLargeError(Exception):
    """More came than may."""


class Guard:
    """An ASGI application around another one: 401 without the token, 403 for a foreign name, 413 for what is too large.

    A browser shows the token once, as ``?token=...``, and then by a cookie.
    """

    def __init__(self, app: _App, server: ServerOptions) -> None:
        """Guard ``app``."""
        self._app = app
        self._server = server

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if await self._refused(scope, headers, send):
            return
        limit = self._server.max_bytes + _SLACK
        said = headers.get("content-length", "0")
        if said.isdigit() and int(said) > limit:
            await _answer(send, 413, self._too_large())
            return
        came, began, over = 0, False, False

        async def counted() -> MutableMapping[str, Any]:
            nonlocal came, over
            message = await receive()
            if message["type"] == "http.request":
                came += len(message.get("body", b""))
                if came > limit:
                    over = True
                    raise _TooLargeError
            return message

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal began
            if not over:  # else it is what the application makes of the broken body
                began = True
                await send(message)

        with suppress(_TooLargeError):
            await self._app(scope, counted, noted)
        if over and not began:
            await _answer(send, 413, self._too_large())

    async def _refused(self, scope: _Scope, headers: dict[str, str], send: _Send) -> bool:
        token = self._server.token
        if token is None:
            # A foreign page can make a browser call its own name at this address, and would then read the answers
            name = headers.get("host", "").rsplit(":", 1)[0].strip("[]") or "127.0.0.1"
            if is_loopback(name):
                return False
            text = f"{name!r} is not a name of this machine: give the server a --token to be reached by other names"
            await _answer(send, 403, text)
            return True
        if scope["path"] == "/healthz":
            return False
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if scope["method"] == "GET" and _is(token, *query.pop("token", [])):
            rest = urlencode(query, doseq=True)
            # Relative, because a proxy may have taken a folder off the path
            where = "./" + quote(scope["path"].rsplit("/", 1)[-1]) + (f"?{rest}" if rest else "")
            path = self._server.root_path or "/"
            cookie = f"{_COOKIE}={token}; Path={path}; HttpOnly; SameSite=Strict"
            if not token.isalnum():
                made: SimpleCookie = SimpleCookie()
                made[_COOKIE] = token
                cookie = f"{made[_COOKIE].OutputString()}; Path={path}; HttpOnly; SameSite=Strict"
            await _answer(send, 303, "", [("location", where), ("set-cookie", cookie)])
            return True
        kind, _, shown = headers.get("authorization", "").partition(" ")
        bearer = shown.strip() if kind.lower() == "bearer" else ""
        if _is(token, bearer, _cookie(headers)):
            return False
        text = "give the server's token: Authorization: Bearer TOKEN, or ?token=TOKEN in a browser"
        await _answer(send, 401, text, [("www-authenticate", "Bearer")])
        return True

    def _too_large(self) -> str:
        return f"the upload is larger than {self._server.max_mb} MB, this server's limit (--max_mb)"


def _is(token: str, *shown: str) -> bool:
    return any(hmac.compare_digest(token.encode(), one.encode()) for one in shown)


def _cookie(headers: dict[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


async def _answer(send: _Send, status: int, text: str, headers: list[tuple[str, str]] | None = None) -> None:
    body = json.dumps({"error": text, "kind": "RefusedError"}).encode() if text else b""
    lines = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
    both = [(name.encode(), value.encode("latin-1")) for name, value in (*lines, *(headers or []))]
    await send({"type": "http.response.start", "status": status, "headers": both})
    await send({"type": "http.response.body", "body": body})
