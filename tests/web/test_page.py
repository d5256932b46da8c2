"""The page in a real Chromium: what a visitor does with the mouse."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeformer.images.picture import Picture, write_picture
from tests.web.serving import Running, httpx, pixels

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
pytestmark = pytest.mark.skipif(_CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()


class Visitor:
    """Somebody in front of a browser, with cookies of their own."""

    def __init__(self, browser: Any, url: str) -> None:
        self.url = url
        self.context = browser.new_context(viewport={"width": 1300, "height": 900}, locale="en-US")
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)
        self.page.locator("#restore-files").wait_for()

    def upload(self, field: str, *paths: Path) -> None:
        """Choose files; once more if the page was not ready to take them."""
        where = self.page.locator(f"#{field}")
        for _ in range(5):
            where.locator("input[type=file]").set_input_files([str(path) for path in paths])
            try:
                where.locator("tr.file").first.wait_for(timeout=4000)
                return
            except sync_api.TimeoutError:
                continue
        raise AssertionError("the page takes no file")

    def sides(self, tab: str) -> list[str]:
        self.page.locator(f"#{tab}-view img").nth(1).wait_for()
        return [image.get_attribute("src") for image in self.page.locator(f"#{tab}-view img").all()[:2]]

    def download(self, which: int = 0) -> tuple[str, bytes]:
        with self.page.expect_download() as waiting:
            self.page.locator(".links a:visible").nth(which).click()
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()

    def changed(self, tab: str, before: list[str]) -> list[str]:
        for _ in range(300):
            if (now := self.sides(tab)) != before:
                return now
            self.page.wait_for_timeout(100)
        raise AssertionError("the slider did not change")


@pytest.fixture
def visitor(browser: Any, server: Running) -> Iterator[Visitor]:
    visitor = Visitor(browser, server.url)
    yield visitor
    visitor.context.close()


@pytest.fixture(scope="module")
def portrait_file(portrait: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "my portrait.png"
    write_picture(Picture(portrait), path)
    return path


def test_restore_move_w_switch_the_face_off_download(
    visitor: Visitor, portrait_file: Path, portrait: np.ndarray
) -> None:
    visitor.upload("restore-files", portrait_file)
    first = visitor.sides("restore")
    assert first[0] != first[1]
    name, data = visitor.download()
    assert name == "my portrait.png"
    assert (pixels(data) != portrait).any()
    w = visitor.page.locator("#restore-w input[type=range]")
    w.focus()
    for _ in range(5):
        visitor.page.keyboard.press("ArrowRight")
    second = visitor.changed("restore", first)
    assert second[0] == first[0], "before stays"
    visitor.page.locator("#restore-faces button.thumbnail-item, #restore-faces .gallery-item").first.click()
    visitor.page.get_by_text("1 off").wait_for()
    visitor.changed("restore", second)
    assert (pixels(visitor.download()[1]) == portrait).all()
    assert [url for url in visitor.asked if not url.startswith((visitor.url, "data:", "blob:"))] == []


def test_several_pictures_as_a_zip(visitor: Visitor, portrait_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jpg"
    shutil.copy(portrait_file, other)
    visitor.upload("restore-files", portrait_file, other)
    visitor.sides("restore")
    _, data = visitor.download(1)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert sorted(archive.namelist()) == ["my portrait.png", "other.png", "results.json"]


def test_a_text_is_refused_in_the_words_of_the_command_line(visitor: Visitor, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("only some words")
    visitor.upload("restore-files", tmp_path / "notes.png")
    said = visitor.page.locator(".toast-body")
    said.wait_for()
    assert "notes.png: is text, not a picture" in said.inner_text()
    assert "/" not in said.inner_text().replace("and/or", "")


def test_paint_a_mask_and_fill_it(visitor: Visitor, portrait_file: Path, portrait: np.ndarray) -> None:
    page = visitor.page
    page.get_by_role("tab", name="Inpaint").first.click()
    visitor.upload("inpaint-files", portrait_file)
    page.wait_for_timeout(3500)  # the editor shows nothing else when it is ready
    box = page.locator("#inpaint-editor canvas").first.bounding_box()
    x, y = box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=10)
    page.mouse.up()
    page.wait_for_timeout(500)
    page.locator("#inpaint-go").click()
    visitor.sides("inpaint")
    name, data = visitor.download()
    assert name == "my portrait.png"
    changed = (pixels(data) != portrait).any(axis=2)
    assert 0 < changed.mean() < 0.2, "what was painted, and nothing else"
    assert changed[110:130, 115:150].any(), "where it was painted"


def test_a_film_to_the_end(visitor: Visitor, film: bytes, tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(film)
    page = visitor.page
    page.get_by_role("tab", name="Film").first.click()
    page.locator("#film-start").wait_for()
    visitor.upload("film-file", tmp_path / "holiday.mp4")
    page.locator("#film-start").click()
    page.locator("#film-state video").wait_for(timeout=120_000)
    assert "done, 24 of 24 frames" in page.locator("#film-state").inner_text()
    page.wait_for_function("document.querySelector('#film-state video').readyState >= 2")
    assert visitor.download()[0] == "holiday.mp4"


def test_two_visitors_see_nothing_of_each_other(
    browser: Any, server: Running, portrait_file: Path, portrait: np.ndarray, tmp_path: Path
) -> None:
    write_picture(Picture(np.ascontiguousarray(portrait[:, ::-1])), tmp_path / "mirrored.png")
    one, two = Visitor(browser, server.url), Visitor(browser, server.url)
    one.upload("restore-files", portrait_file)
    two.upload("restore-files", tmp_path / "mirrored.png")
    own, other = one.sides("restore"), two.sides("restore")
    assert not set(own) & set(other)
    assert "mirrored" not in one.page.content()
    assert "my portrait" not in two.page.content()
    assert two.download()[0] == "mirrored.png"
    two.context.close()
    link = one.page.locator(".links a:visible").first.get_attribute("href")
    one.context.close()
    for _ in range(100):  # the page is gone, and with it what was uploaded
        if httpx.get(f"{server.url}/{link}", trust_env=False).status_code == 404:
            return
        one_moment()
    raise AssertionError("the upload is still there")


def one_moment() -> None:
    import time

    time.sleep(0.1)
