"""What lies on the visitors' desks, and a film's process as the server hears it: without a server."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from codeformer.images.picture import Picture, write_picture
from codeformer.web.desk import Desks
from codeformer.web.films import FilmJob


def test_a_desk_that_somebody_works_at_is_kept(tmp_path: Path) -> None:
    service: Any = SimpleNamespace(root=tmp_path, most_pixels=lambda scale: 10_000)
    desks = Desks(service, tmp_path / "pages")
    write_picture(Picture(np.zeros((8, 8, 3), np.uint8)), tmp_path / "x.png")
    used, left = (desks.lay(None, [(tmp_path / "x.png", "x.png")]) for _ in range(2))
    used.asked -= 4000
    left.asked -= 4000
    desks.open(used, used.sheet)
    desks.lay(None, [(tmp_path / "x.png", "x.png")])
    assert desks.get(used.key) is used and used.sheet.source.exists()
    assert desks.get(left.key) is None and not left.folder.exists()


def test_what_a_library_prints_is_no_message_of_a_film(tmp_path: Path) -> None:
    job = FilmJob("key", tmp_path, tmp_path / "upload.mp4", "anna.mp4", {})
    for line in ("12", "null", "[1]", '"done"', "no JSON"):
        job.hear(line)
    job.hear('{"done": 3, "total": 9}')
    assert (job.done, job.total, job.error, job.notes) == (3, 9, None, [])
