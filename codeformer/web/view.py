"""What several tabs of the page show: both sides of the slider, links, and errors in the command line's words."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from gradio import Error as PageError

from codeformer.errors import CodeFormerError
from codeformer.web.desk import Desk, Desks, shown
from codeformer.web.service import words_of


def told(do: Callable[..., Any], *words: Any) -> Any:
    """Call something; what goes wrong is said on the page, in the words of the command line."""
    try:
        return do(*words)
    except CodeFormerError as error:
        raise PageError(
            html.escape(words_of(error)), title="codeformer", duration=None, print_exception=False
        ) from error


def parts(desk: Desk, desks: Desks, *, wait: bool = False) -> list[Any]:
    """Return both sides of the slider, the notes and the report of the picture in view.

    Args:
        desk: the visitor's.
        desks: all.
        wait: show the picture as it came on both sides; the work takes long and wants a button.
    """
    sheet = desk.sheet
    told(desks.open, desk, sheet)
    assert sheet.picture is not None
    if wait:
        before = shown(sheet.picture)
        return [(before, before), "", desks.report(desk, sheet)]
    picture, notes = told(desks.render, desk, sheet)
    size = (picture.rgb.shape[1], picture.rgb.shape[0])
    said = "\n\n".join(html.escape(note) for note in notes)
    return [(shown(sheet.picture, size), shown(picture)), said, desks.report(desk, sheet)]


def links_of(desk: Desk) -> str:
    """Return what can be downloaded."""
    one = f"./desks/{desk.key}/{desk.at}"
    name = html.escape(f"{desk.sheet.stem}.png")
    links = [f'<a href="{one}" download>{name}</a>']
    if len(desk.sheets) > 1:
        links.append(f'<a href="./desks/{desk.key}/all.zip" download>{len(desk.sheets)} pictures (ZIP)</a>')
    links.append(f'<a class="plain" href="{one}?inline=1" target="_blank">100 %</a>')
    return "".join(links)
