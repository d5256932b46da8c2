"""What the words after an option are read as: argparse types that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def number_or(word: str, value: int | None = None) -> Callable[[str], int | None]:
    """Return an argparse type: an integer, or ``word``, which gives ``value``."""

    def parse(text: str) -> int | None:
        if text == word:
            return value
        try:
            return int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is neither {word} nor a whole number") from None

    return parse


def parse_landmarks(text: str) -> tuple[tuple[float, float], ...]:
    """Return an argparse type: five points "x,y x,y x,y x,y x,y" in picture pixels."""
    try:
        points = [tuple(float(value) for value in point.split(",")) for point in text.replace(";", " ").split()]
        if len(points) != 5:
            raise ValueError
        return tuple((x, y) for x, y in points)
    except ValueError:
        message = f'{text!r} is not five points "x,y x,y x,y x,y x,y": left eye, right eye, nose, mouth corners'
        raise argparse.ArgumentTypeError(message) from None


def decimal(text: str) -> float:
    """Read a number as an argparse type; ``0,7`` is ``0.7``, as half of the world writes it."""
    try:
        return float(text.replace(",", ".", 1) if "." not in text else text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number: write it like 0.7") from None
