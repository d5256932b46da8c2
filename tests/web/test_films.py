"""Films as jobs."""

from __future__ import annotations

import io
import time
from pathlib import Path

import av
import pytest

from tests.web.serving import FIELDS, Running, httpx, pixels, until

_FIELDS = {"parsing": "none", "upscale": "1", "stretch": "6"}


def _post(server: Running, film: bytes, name: str = "my film.mp4", **more: str) -> httpx.Response:
    fields = {k: v for k, v in FIELDS.items() if k != "landmarks"} | more
    return httpx.post(f"{server.url}/api/films", files={"film": (name, film)}, data=fields, timeout=60, trust_env=False)


def _job(server: Running, key: str) -> dict[str, object]:
    return httpx.get(f"{server.url}/api/jobs/{key}", timeout=60, trust_env=False).json()


def test_a_film_to_the_end(server: Running, film: bytes) -> None:
    answer = _post(server, film, w="0.4")
    assert answer.status_code == 202, answer.text
    key = answer.json()["id"]
    early = httpx.get(f"{server.url}/api/jobs/{key}/result", trust_env=False)
    assert early.status_code == 409
    until(lambda: _job(server, key)["state"] not in ("waiting", "running"))
    job = _job(server, key)
    assert job["state"] == "done", job
    assert (job["frames"], job["total"]) == (24, 24)
    result = httpx.get(f"{server.url}{job['result']}", timeout=60, trust_env=False)
    assert (
        'filename="my film.mp4"'
        in result.headers["content-disposition"].replace("*=utf-8''my%20film", '="my film') + '"'
    )
    with av.open(io.BytesIO(result.content)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 24
    folder = server.service.films.get(key).folder  # type: ignore[union-attr]
    assert str(server.service.root) not in str(job)
    assert httpx.delete(f"{server.url}/api/jobs/{key}", timeout=60, trust_env=False).status_code == 204
    assert not folder.exists()
    assert httpx.get(f"{server.url}/api/jobs/{key}", trust_env=False).status_code == 404


@pytest.mark.slow
def test_a_killed_job_goes_on(server: Running, film: bytes) -> None:
    key = _post(server, film).json()["id"]
    job = server.service.films.get(key)
    assert job is not None
    until(lambda: job.process is not None and job.done > 0)
    assert job.process is not None
    job.process.kill()
    until(lambda: job.state == "failed")
    assert "was killed" in str(_job(server, key)["error"])
    assert httpx.post(f"{server.url}/api/jobs/{key}", trust_env=False).json()["state"] in ("waiting", "running")
    until(lambda: job.state == "done")
    assert httpx.delete(f"{server.url}/api/jobs/{key}", timeout=60, trust_env=False).status_code == 204


@pytest.mark.slow
def test_a_cancelled_job_goes_on(server: Running, film: bytes) -> None:
    key = _post(server, film).json()["id"]
    job = server.service.films.get(key)
    assert job is not None
    until(lambda: job.process is not None)
    httpx.post(f"{server.url}/api/jobs/{key}/cancel", trust_env=False)
    until(lambda: job.state in ("cancelled", "done"))
    assert job.state == "cancelled", job.describe()
    httpx.post(f"{server.url}/api/jobs/{key}", trust_env=False)
    until(lambda: job.state == "done")
    server.service.films.remove(job)


@pytest.mark.slow
def test_a_preview(server: Running, film: bytes) -> None:
    key = _post(server, film, preview="2").json()["id"]
    until(lambda: _job(server, key)["state"] not in ("waiting", "running"))
    job = _job(server, key)
    assert job["state"] == "done", job
    result = httpx.get(f"{server.url}{job['result']}", timeout=60, trust_env=False)
    assert result.content.startswith(b"PK")
    assert job["notes"] == ["2 frames, before and after, in the preview"]
    frame = httpx.get(f"{server.url}/api/jobs/{key}/frames/2", timeout=60, trust_env=False)
    assert pixels(frame.content).shape == (160, 320, 3)
    assert httpx.get(f"{server.url}/api/jobs/{key}/frames/3", trust_env=False).status_code == 404


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("en", "running, 10 of 40 frames, 2.0 frames/s, 0:15 left"),
        ("de", "läuft, 10 von 40 Bildern, 2.0 Bilder/s, noch 0:15"),
        ("zh-CN", "处理中, 10 / 40 帧, 2.0 帧/秒, 剩余 0:15"),
    ],
)
def test_the_line_on_the_page(language: str, line: str, tmp_path: Path) -> None:
    from codeformer.web.film_tab import clock, film_state
    from codeformer.web.films import FilmJob

    job = FilmJob("key", tmp_path, tmp_path / "upload.mp4", "a<b>.mp4", {}, "running", 10, 40)
    job._began = (time.monotonic() - 5, 0)
    assert f"<p><b>a&lt;b&gt;.mp4</b>: {line}</p>" in film_state(job, language)
    assert clock(3723) == "1:02:03"


@pytest.mark.parametrize(
    ("data", "fields", "says"),
    [
        (b"only some words", {}, "f.mp4"),
        (None, {"temporal": "much"}, "--temporal must be one of"),
        (None, {"start": "5", "end": "2"}, "--end must come after --start"),
        (None, {"w": "3"}, "--fidelity_weight must lie in [0, 1]"),
    ],
)
def test_what_is_no_film(server: Running, film: bytes, data: bytes | None, fields: dict[str, str], says: str) -> None:
    before = list(Path(server.service.root / "films").glob("*"))
    answer = _post(server, film if data is None else data, "../f.mp4", **fields)
    assert answer.status_code == 422
    assert says in answer.json()["error"]
    assert str(server.service.root) not in answer.text
    assert list(Path(server.service.root / "films").glob("*")) == before
