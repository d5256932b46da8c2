"""The configurations of docs/web.md in a real nginx: the page, its token and uploads lead through it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codeformer.web.options import ServerOptions
from tests.web.serving import FIELDS, httpx, pixels, png, served, until

_NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
_TOKEN = "correct-horse"
pytestmark = pytest.mark.skipif(_NGINX is None, reason="nginx is not installed: apt-get install nginx-light")


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@contextmanager
def _proxy(block: str, upstream: str, folder: Path) -> Iterator[str]:
    port = _free_port()
    block = block.replace("http://127.0.0.1:7860", upstream)
    if block.startswith("location"):
        block = f"server {{\n listen 443 ssl;\n{block}\n}}"
    block = block.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid;\ndaemon off;\nmaster_process off;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{block}\n}}\n"
    )
    words = [str(_NGINX), "-e", f"{folder}/log", "-c", f"{folder}/nginx.conf"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port) or process.poll() is not None, 20)
        assert process.poll() is None, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(("number", "root_path"), [(0, ""), (1, "/faces")])
def test_a_page_and_an_upload_through_nginx(
    number: int, root_path: str, server_options: ServerOptions, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "web.md").read_text(encoding="utf-8")
    block = re.findall(r"```nginx\n(.*?)```", page, re.S)[number]
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    data = png(noise)
    assert len(data) > 1 << 20, "more than nginx takes by itself"
    options = replace(server_options, token=_TOKEN, root_path=root_path)
    with served(options) as server, _proxy(block, server.url, tmp_path) as site:
        base = site + root_path
        with httpx.Client(trust_env=False, timeout=60) as client:
            answer = client.get(f"{base}/?token={_TOKEN}", follow_redirects=True)
            assert (answer.status_code, str(answer.url)) == (200, f"{base}/")
            assert {cookie.path for cookie in client.cookies.jar} == {root_path or "/"}
            assert f'"root":"{base}"' in answer.text.replace(" ", "")
            assert client.get(f"{base}/theme.css").status_code == 200, "by the cookie"
            assert client.get(f"{base}/openapi.json").json().get("servers") == (
                [{"url": root_path}] if root_path else None
            )
            fields = {**FIELDS, "ext": "png"}
            answer = client.post(f"{base}/api/restore", files={"picture": ("a.png", data)}, data=fields)
            assert answer.status_code == 200, answer.text
            assert pixels(answer.content).shape == noise.shape


@pytest.mark.parametrize("root_path", ["faces", "/faces/", "/", "/a//b", "//evil.example", "/a b", "/a;b"])
def test_folders_that_are_refused(root_path: str) -> None:
    from codeformer.errors import UsageError

    with pytest.raises(UsageError, match="--root_path must begin with /"):
        ServerOptions(root_path=root_path)
