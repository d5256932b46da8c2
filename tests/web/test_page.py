"""The page in a real Chromium: what a visitor does with the mouse."""

from __future__ import annotations

import base64
import io
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeformer.images.picture import Picture, write_picture
from tests.web.serving import Running, httpx, pixels, server_paths, until

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

    def __init__(self, browser: Any, url: str, locale: str = "en-US", width: int = 1300) -> None:
        self.url = url
        self.context = browser.new_context(viewport={"width": width, "height": 900}, locale=locale)
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)
        self.page.locator("#restore-files").wait_for()

    def upload(self, field: str, *paths: Path) -> None:
        """Choose files; once more if the page was not ready to take them."""
        where = self.page.locator(f"#{field}")
        before = self._uploads()
        for _ in range(10):
            where.locator("input[type=file]").set_input_files([str(path) for path in paths])
            for _ in range(20):
                if self._uploads() > before:
                    where.locator("tr.file").first.wait_for()
                    return
                self.page.wait_for_timeout(100)
        raise AssertionError("the page takes no file")

    def _uploads(self) -> int:
        return sum("/gradio_api/upload?" in url for url in self.asked)

    def show(self, name: str) -> None:
        """Go to a tab; a narrow page has the last ones in a menu."""
        tab = self.page.get_by_role("tab", name=name, exact=True).first
        if tab.count() and tab.is_visible():
            tab.click()
        else:
            self.page.locator(".overflow-menu button").first.click()
            self.page.locator(".overflow-dropdown button", has_text=name).first.click()

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
    seen = visitor.page.content()
    visitor.context.close()
    assert [path for path in server_paths(server.service) if path in seen] == []


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
    other = tmp_path / "Ärger, Zoë & 李 (2).jpg"
    shutil.copy(portrait_file, other)
    visitor.upload("restore-files", portrait_file, other)
    visitor.sides("restore")
    _, data = visitor.download(1)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert sorted(archive.namelist()) == ["my portrait.png", "results.json", "Ärger, Zoë & 李 (2).png"]


def test_a_text_is_refused_in_the_words_of_the_command_line(visitor: Visitor, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("only some words")
    visitor.upload("restore-files", tmp_path / "notes.png")
    said = visitor.page.locator(".toast-body")
    said.wait_for()
    assert "notes.png: is text, not a picture" in said.inner_text()
    assert "/" not in said.inner_text().replace("and/or", "")


def test_paste_a_picture(visitor: Visitor, portrait_file: Path) -> None:
    """As after "copy image" in another program."""
    page = visitor.page
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    data = base64.b64encode(portrait_file.read_bytes()).decode()
    page.evaluate(
        """async (data) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const picture = new Blob([bytes], {type: "image/png"});
            await navigator.clipboard.write([new ClipboardItem({"image/png": picture})]);
        }""",
        data,
    )
    visitor.show("Colorize")
    page.locator("#colorize-files").wait_for()
    for _ in range(10):  # the page may not be ready yet
        page.keyboard.press("Control+V")
        with suppress(sync_api.TimeoutError):
            page.locator("#colorize-files tr.file").wait_for(timeout=3000)
            break
    visitor.sides("colorize")
    assert pixels(visitor.download()[1]).shape == (240, 240, 3)


def test_presets_and_the_view_at_100_percent(visitor: Visitor, portrait_file: Path) -> None:
    page = visitor.page
    visitor.upload("restore-files", portrait_file)
    first = visitor.sides("restore")
    page.get_by_label("faithful: w 0.9").check()
    second = visitor.changed("restore", first)
    assert page.locator("#restore-w input[type=number]").input_value() == "0.9"
    page.get_by_label("print: w 0.7, twice as large").check()
    visitor.changed("restore", second)
    page.wait_for_function("document.querySelector('#restore-scale input[type=number]').value === '2'")
    with visitor.context.expect_page() as waiting:
        page.locator(".links a:visible", has_text="100 %").click()
    opened = waiting.value
    opened.wait_for_function("document.images[0]?.complete")
    assert opened.evaluate("[document.images[0].naturalWidth, document.images[0].naturalHeight]") == [480, 480]


@pytest.mark.parametrize(
    ("locale", "tabs", "words"),
    [
        ("de-AT", ("Restaurieren", "Film"), ("treu: w 0,9", "1 an", "1 aus", "noch kein Film: hier ablegen")),
        ("zh-CN", ("修复", "视频"), ("忠实：w 0.9", "1 开启", "1 关闭", "还没有视频：请拖放到这里")),
    ],
)
def test_languages(
    browser: Any, server: Running, portrait_file: Path, locale: str, tabs: tuple[str, str], words: tuple[str, ...]
) -> None:
    visitor = Visitor(browser, server.url, locale)
    page = visitor.page
    visitor.show(tabs[0])
    page.get_by_label(words[0]).wait_for()
    visitor.upload("restore-files", portrait_file)
    page.get_by_text(words[1], exact=True).wait_for()
    page.locator("#restore-faces .thumbnail-item, #restore-faces .gallery-item").first.click()
    page.get_by_text(words[2], exact=True).wait_for()
    visitor.show(tabs[1])
    page.locator("#film-start").click()
    page.locator(".toast-body").wait_for()
    assert words[3] in page.locator(".toast-body").inner_text()
    for english in ("Restore", "Preset", "Fidelity", "Drop", "Cancel", "Preview", "Upload"):
        assert english not in page.locator("main").inner_text(), english
    visitor.context.close()


def test_a_phone(browser: Any, server: Running, portrait_file: Path) -> None:
    """Nothing is wider than the screen, on any tab."""
    visitor = Visitor(browser, server.url, width=390)
    visitor.upload("restore-files", portrait_file)
    visitor.sides("restore")
    for tab in ("Restore", "Colorize", "Inpaint", "Upscale", "Film"):
        visitor.show(tab)
        visitor.page.locator(f"#{tab.lower()}-files, #film-file").filter(visible=True).first.wait_for()
        visitor.page.wait_for_timeout(300)
        wide = visitor.page.evaluate(
            """() => [...document.querySelectorAll("main button, main input, main img, main label, main canvas")]
                .filter((one) => one.offsetParent !== null && !one.closest(".visually-hidden, .overflow-dropdown"))
                .map((one) => [one.outerHTML.slice(0, 120), one.getBoundingClientRect()])
                .filter(([, box]) => box.width > 1 && (box.left < -1 || box.right > innerWidth + 1))
                .map(([text, box]) => `${text}: ${box.left} to ${box.right}`)"""
        )
        assert wide == [], tab
        assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390, tab
    visitor.context.close()


def test_paint_a_mask_and_fill_it(browser: Any, server: Running, portrait_file: Path, portrait: np.ndarray) -> None:
    visitor = Visitor(browser, server.url, width=700)  # what is painted on is drawn by software here, slowly
    page = visitor.page
    page.set_default_timeout(90_000)
    visitor.show("Inpaint")
    visitor.upload("inpaint-files", portrait_file)
    page.wait_for_timeout(3500)  # the editor shows nothing else when it is ready
    box = page.locator("#inpaint-editor canvas").first.bounding_box()
    x, y = box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=3)
    page.mouse.up()
    for _ in range(8):  # the first may come before the editor has the stroke
        page.wait_for_timeout(500)
        page.locator("#inpaint-go").click()
        with suppress(sync_api.TimeoutError):
            page.locator("#inpaint-view img").nth(1).wait_for(timeout=10_000)
            break
    visitor.sides("inpaint")
    name, data = visitor.download()
    assert name == "my portrait.png"
    changed = (pixels(data) != portrait).any(axis=2)
    assert 0 < changed.mean() < 0.2, "what was painted, and nothing else"
    assert changed[110:130, 115:150].any(), "where it was painted"
    visitor.context.close()


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


@pytest.mark.slow
def test_a_film_previewed_cancelled_and_resumed(visitor: Visitor, film: bytes, tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(film)
    page = visitor.page
    state = page.locator("#film-state")
    visitor.show("Film")
    visitor.upload("film-file", tmp_path / "holiday.mp4")
    page.locator("#film-frames input[type=number]").fill("2")
    page.locator("#film-preview").click()
    state.locator("img").nth(1).wait_for(timeout=120_000)
    assert state.locator("img").count() == 2
    page.wait_for_function("[...document.querySelectorAll('#film-state img')].every((one) => one.naturalWidth === 320)")
    page.locator("#film-start").click()
    state.get_by_text("running").wait_for(timeout=60_000)
    page.locator("#film-cancel").click()
    state.get_by_text("cancelled").wait_for(timeout=60_000)
    page.locator("#film-resume").click()
    state.locator("video").wait_for(timeout=170_000)
    assert "done, 24 of 24 frames" in state.inner_text()


def test_two_visitors_see_nothing_of_each_other(
    browser: Any, server: Running, portrait_file: Path, portrait: np.ndarray, tmp_path: Path
) -> None:
    write_picture(Picture(np.ascontiguousarray(portrait[:, ::-1])), tmp_path / "mirrored.png")
    one, two = Visitor(browser, server.url), Visitor(browser, server.url)
    one.upload("restore-files", portrait_file)
    two.upload("restore-files", tmp_path / "mirrored.png")
    own, other = one.sides("restore"), two.sides("restore")
    assert not set(own) & set(other)
    assert httpx.get(own[1], trust_env=False).status_code == 200
    assert "mirrored" not in one.page.content()
    assert "my portrait" not in two.page.content()
    assert two.download()[0] == "mirrored.png"
    two.context.close()
    link = one.page.locator(".links a:visible").first.get_attribute("href")
    one.context.close()
    # The pages are gone, and with them what was uploaded and shown
    until(lambda: httpx.get(f"{server.url}/{link}", trust_env=False).status_code == 404)
    until(lambda: httpx.get(own[1], trust_env=False).status_code == 403)
    until(lambda: not list(Path(server_paths(server.service)[1]).rglob("mirrored.png")))
