"""Who the faces of a film are: each track is described a few times, and is then known over cuts and stretches.

A description is 128 numbers (:mod:`codeformer.faces.person`). Those of one track are averaged, which makes them surer
than a single frame's. What a stretch knows at its end is written into its record as JSON, and the next stretch begins
with that and nothing else, so that an interrupted film comes out as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from codeformer.arrays import Floats
from codeformer.errors import UsageError
from codeformer.faces.identity import dlib_models
from codeformer.faces.person import Person, Recogniser, describe_faces
from codeformer.options import PERSON_DISTANCE
from codeformer.pipeline.engine import Engine
from codeformer.video.source import Frame
from codeformer.video.tracking import Tracked

Entry = dict[str, Any]

_FIRST = (0, 2, 5)  # which appearances of a new track are described, ...
_THEN = 12  # ... and from there on every so many
_MISSED = 4  # frames in which a face may be missed at the border of two stretches
_STAYS = 0.05  # a track that was taken for the person stays it until it is this much beyond the limit


@dataclass(eq=False)
class _Known:
    """What is known of a track: the sum of its descriptions, their number, and where it was seen last."""

    total: Floats
    count: int = 0
    seen: int = 0
    wanted: bool = True  # without a person every track is
    distance: float | None = None
    frame: int = -1
    at: tuple[float, float] = (0.0, 0.0)
    size: float = 0.0
    over: bool = False  # the film has cut since

    def entry(self, track: int) -> Entry:
        """Return the same as JSON."""
        return {
            "track": track,
            "mean": [round(float(value), 5) for value in self.total / self.count],
            "count": self.count,
            "seen": self.seen,
            "wanted": self.wanted,
            "distance": None if self.distance is None else round(self.distance, 3),
            "frame": self.frame,
            "at": [round(value, 1) for value in self.at],
            "size": round(self.size, 1),
            "over": self.over,
        }


@dataclass(eq=False)
class People:
    """The tracks of one stretch.

    Attributes:
        recogniser: describes faces.
        person: whose tracks are wanted; None: everybody's.
        carried: what the stretch before knew of the tracks that may go on, see :meth:`at_end`.
        first: the stretch's first frame.
        last: the frame after its last one.
    """

    recogniser: Recogniser
    person: Person | None
    carried: list[Entry]
    first: int
    last: int
    _known: dict[int, _Known] = field(default_factory=dict)
    _end: list[Entry] | None = None

    def look(self, frame: Frame, shown_until: int, tracked: Sequence[Tracked]) -> None:
        """Take the tracks of a frame in, and describe those whose turn it is.

        What lies before the stretch's border is passed over: the stretch before has looked at it.

        Args:
            frame: the frame.
            shown_until: the last frame that shows the same picture.
            tracked: the faces that were detected in it.
        """
        if shown_until < self.first - 1:
            return
        due = []
        for one in tracked:
            known = self._known.setdefault(one.track, _Known(np.zeros(128)))
            adopted = known.count == 0 and self._adopt(known, one, frame.index)
            if not adopted:
                if known.seen in _FIRST or known.seen % _THEN == 0:
                    due.append((known, one.face))
                known.seen += 1
            known.frame, known.at, known.size = shown_until, one.face.centre, max(one.face.width, one.face.height)
        if due:
            descriptions = describe_faces(frame.picture(), [face for _, face in due], self.recogniser)
            for (known, _), description in zip(due, descriptions, strict=True):
                self._add(known, description)
        if self._end is None and shown_until >= self.last - 1:
            self._end = self._entries()

    def wanted(self, track: int) -> bool:
        """Return whether a track is taken for the person's; without a person every one is."""
        if self.person is None:
            return True
        return track in self._known and self._known[track].count > 0 and self._known[track].wanted

    def at_end(self) -> list[Entry]:
        """Return what was known of the tracks when the stretch's last frame was looked at, as JSON."""
        return self._entries() if self._end is None else self._end

    def new_scene(self, index: int) -> None:
        """End all tracks, where the film cuts before the frame ``index`` of this stretch."""
        if index >= self.first:
            self.carried = []
            for known in self._known.values():
                known.over = True

    def _entries(self) -> list[Entry]:
        return [known.entry(track) for track, known in self._known.items() if known.count]

    def _add(self, known: _Known, description: Floats) -> None:
        known.total = known.total + description
        known.count += 1
        if self.person is not None:
            far = self.person.distance(known.total / known.count)
            known.distance = far
            known.wanted = far <= self.person.limit + (_STAYS if known.wanted and known.count > 1 else 0.0)

    def _adopt(self, known: _Known, one: Tracked, index: int) -> bool:
        """Give a track what the stretch before knew of it. Return whether this frame is looked at already.

        It is the track that ended there. One that was missed at the border may come back some frames later.
        """
        x, y = one.face.centre
        near = [(math.dist(entry["at"], (x, y)), i) for i, entry in enumerate(self.carried)]
        distance, best = min(near, default=(math.inf, 0))
        if index > self.first + _MISSED or not near or distance >= 0.5 * self.carried[best]["size"]:
            return False
        entry = self.carried.pop(best)
        known.total, known.count = np.array(entry["mean"]) * entry["count"], entry["count"]
        known.seen, known.wanted, known.distance = entry["seen"], entry["wanted"], entry["distance"]
        return bool(index <= entry["frame"])


def people_of(engine: Engine, carried: Sequence[Entry], first: int, last: int) -> People | None:
    """Return who is known at the beginning of a stretch, or None where nobody looks: no package for it is installed.

    Args:
        engine: whose recogniser looks, and whose person is wanted.
        carried: what the stretch before knew at its end.
        first: the stretch's first frame.
        last: the frame after its last one.
    """
    if engine.recogniser is None:
        return None
    may_go_on = [entry for entry in carried if not entry["over"] and entry["frame"] >= first - 1 - _MISSED]
    return People(engine.recogniser, engine.person, may_go_on, first, last)


def with_recogniser(engine: Engine) -> Engine:
    """Return the engine with a network that tells people apart, where the package for it is installed."""
    if engine.recogniser is not None:
        return engine
    device = engine.restorer.device
    try:  # the network is PyTorch's, whatever runs the faces
        where = str(device) if device.type in ("cpu", "cuda", "mps") else "cpu"
        return replace(engine, recogniser=Recogniser(where, "a film's people"))
    except UsageError:
        return engine


def tells_apart() -> bool:
    """Return whether the package for :func:`with_recogniser` is installed."""
    try:
        dlib_models("a film's people")
    except UsageError:
        return False
    return True


def entries_of(record: Mapping[str, Any]) -> list[Entry]:
    """Return what a stretch's record says of its people: nothing, where it has another shape."""
    entries = record.get("people", [])
    return entries if isinstance(entries, list) and all(_is_entry(one) for one in entries) else []


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    numbers = all(isinstance(entry.get(key), int | float) for key in ("track", "count", "seen", "frame", "size"))
    at, mean = entry.get("at"), entry.get("mean")
    lists = isinstance(at, list) and isinstance(mean, list) and (len(at), len(mean)) == (2, 128)
    far = entry.get("distance", "")
    said = all(isinstance(entry.get(key), bool) for key in ("wanted", "over")) and (
        far is None or isinstance(far, int | float)
    )
    return numbers and lists and said and all(isinstance(value, int | float) for value in (*(at or ()), *(mean or ())))


def numbered(tracks: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Return for each track of a film who it is: the same number for the same face, from 1 by first appearance.

    Args:
        tracks: each with its ``first`` and ``last`` frame, and ``mean`` and ``count`` of its descriptions, if it has
            any. Tracks that are seen at the same time are different people, however alike.
    """
    result: list[int | None] = []
    totals: list[tuple[Floats, int, list[tuple[int, int]]]] = []
    for track in tracks:
        if "mean" not in track:
            result.append(None)
            continue
        mean, count, span = np.array(track["mean"]), int(track["count"]), (int(track["first"]), int(track["last"]))
        free = [
            (float(np.linalg.norm(total / number - mean)), i)
            for i, (total, number, spans) in enumerate(totals)
            if not any(a <= span[1] and span[0] <= b for a, b in spans)
        ]
        far, best = min(free, default=(math.inf, 0))
        if far <= PERSON_DISTANCE:
            total, number, spans = totals[best]
            totals[best] = (total + mean * count, number + count, [*spans, span])
            result.append(best + 1)
        else:
            totals.append((mean * count, count, [span]))
            result.append(len(totals))
    return result
