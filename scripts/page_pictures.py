"""Make pictures of the page: every tab at the widths of a desk and of a phone.

    python scripts/page_pictures.py OUT

Starts ``codeformer web`` on a free port, uploads a picture of ``inputs/`` and drives a Chromium with Playwright
(``pip install '.[web-test]'``; Debian's ``chromium`` is found by itself).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PHOTO = ROOT / "inputs" / "whole_imgs" / "01_grace_hopper.jpg"
GREY = ROOT / "inputs" / "whole_imgs" / "02_grace_hopper_grey.jpg"
WIDTHS = {"desk": (1360, 900), "phone": (390, 844)}
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
TABS = ("Restore", "Colorize", "Inpaint", "Upscale", "Film")


@contextmanager
def server(*words: str) -> Iterator[str]:
    """Run the server; yield its address."""
    command = [sys.executable, "-m", "codeformer", "web", "--port", "0", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "serving on " in line:
                yield line.split("serving on ")[1].split(" ")[0]
                break
    finally:
        process.terminate()
        process.wait(60)


def restore(page: Any) -> None:
    """Put a picture on the first tab, and wait for both sides."""
    page.locator("#restore-files input[type=file]").set_input_files(str(PHOTO))
    page.locator("#restore-view img").nth(1).wait_for()
    page.locator("#restore-faces img").first.wait_for()


def colorize(page: Any) -> None:
    """As :func:`restore`."""
    page.locator("#colorize-files input[type=file]").set_input_files(str(GREY))
    page.locator("#colorize-view img").nth(1).wait_for()
    page.locator("#colorize-faces img").first.wait_for()


def inpaint(page: Any) -> None:
    """Paint a stroke and fill it."""
    from playwright.sync_api import TimeoutError

    page.set_default_timeout(90_000)  # what is painted on is drawn by software here, slowly
    page.locator("#inpaint-files input[type=file]").set_input_files(str(PHOTO))
    page.wait_for_timeout(3500)
    box = page.locator("#inpaint-editor canvas").first.bounding_box()
    x, y = box["x"] + box["width"] * 0.45, box["y"] + box["height"] * 0.42
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y + 10, steps=2)
    page.mouse.move(x + 45, y + 4, steps=2)
    page.mouse.up()
    for _ in range(8):  # the first may come before the editor has the stroke
        page.wait_for_timeout(500)
        page.locator("#inpaint-go").click()
        with suppress(TimeoutError):
            page.locator("#inpaint-view img").nth(1).wait_for(timeout=10_000)
            break
    page.locator("#inpaint-view img").nth(1).wait_for()


def nothing(page: Any) -> None:
    """Leave the tab as it is."""


DO: dict[str, Callable[[Any], None]] = {
    "Restore": restore,
    "Colorize": colorize,
    "Inpaint": inpaint,
    "Upscale": nothing,
    "Film": nothing,
}


def main() -> None:
    """Make the pictures."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description="Make pictures of the page.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--url", help="a server that runs already")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        if args.url:
            pictures(browser, args.url, args.out)
        else:
            with server() as url:
                pictures(browser, url, args.out)
        browser.close()


def pictures(browser: Any, url: str, out: Path) -> None:
    """Make the pictures of a server's page."""
    for width, (x, y) in WIDTHS.items():
        page = browser.new_page(viewport={"width": x, "height": y}, locale="en-US")
        asked: list[str] = []
        page.on("request", lambda one, asked=asked: asked.append(one.url))
        page.goto(url)
        page.locator("#restore-files").wait_for()
        for tab in TABS:
            if page.get_by_role("tab", name=tab).count() and page.get_by_role("tab", name=tab).first.is_visible():
                page.get_by_role("tab", name=tab).first.click()
            else:  # a narrow page has the last tabs in a menu
                page.locator(".overflow-menu button").first.click()
                page.locator(".overflow-dropdown button", has_text=tab).first.click()
            DO[tab](page)
            page.wait_for_timeout(3500)
            page.screenshot(path=out / f"{tab.lower()}_{width}.png", full_page=True)
        page.close()
        if elsewhere := [one for one in asked if not one.startswith((url, "data:", "blob:"))]:
            print("asked elsewhere:", *elsewhere, sep="\n  ", file=sys.stderr)


if __name__ == "__main__":
    main()
