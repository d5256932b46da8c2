"""What several tabs of the page show: both sides of the slider, links, and errors in the command line's words."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from gradio import Error as PageError

from codeformer.errors import CodeFormerError
from codeformer.images.picture import Picture
from codeformer.web.desk import Desk, Desks, shown
from codeformer.web.service import words_of
from codeformer.web.words import sentence


def told(do: Callable[..., Any], *words: Any, language: str = "en") -> Any:
    """Call something; what goes wrong is said on the page, in the words of the command line."""
    try:
        return do(*words)
    except CodeFormerError as error:
        raise refusal(words_of(error)) from error
    except Exception as error:
        text = sentence(language, "failed_here", kind=type(error).__name__)
        raise PageError(text, title="codeformer", duration=None) from error


def refusal(text: str) -> PageError:
    """Return what makes the page say that something is wrong."""
    return PageError(html.escape(text), title="codeformer", duration=None, print_exception=False)


def parts(desk: Desk, desks: Desks, *, wait: bool = False) -> list[Any]:
    """Return both sides of the slider, the notes and the report of the picture in view.

    Args:
        desk: the visitor's.
        desks: all.
        wait: show the picture as it came on both sides; the work takes long and wants a button.
    """
    return list(told(_parts, desk, desks, wait, language=desk.language))


def _parts(desk: Desk, desks: Desks, wait: bool) -> list[Any]:
    sheet = desk.sheet
    desks.open(desk, sheet)
    assert sheet.picture is not None
    if wait:
        before = desk.show_before(sheet.picture, _size(sheet.picture))
        return [(before, before), "", desks.report(desk, sheet)]
    picture, notes = desks.render(desk, sheet)
    said = "\n\n".join(html.escape(note) for note in notes)
    sides = (desk.show_before(sheet.picture, _size(picture)), desk.show(shown(picture)))
    return [sides, said, desks.report(desk, sheet)]


def _size(picture: Picture) -> tuple[int, int]:
    return picture.rgb.shape[1], picture.rgb.shape[0]


def links_of(desk: Desk) -> str:
    """Return what can be downloaded."""
    one = f"./desks/{desk.key}/{desk.at}"
    name = html.escape(f"{desk.sheet.stem}.png")
    links = [f'<a href="{one}" download>{name}</a>']
    if len(desk.sheets) > 1:
        every = desk.say("all", count=len(desk.sheets))
        links.append(f'<a href="./desks/{desk.key}/all.zip" download>{every}</a>')
    links.append(f'<a class="plain" href="{one}?inline=1" target="_blank">{desk.say("whole")}</a>')
    return "".join(links)
