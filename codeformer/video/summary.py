"""The report of a film: what each stretch recorded, joined. Pure functions over JSON values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from codeformer.options import FaceOptions
from codeformer.video.people import entries_of, numbered
from codeformer.video.segment import Done

Track = dict[str, Any]


class StretchNotes:
    """What is written down of a stretch while it is worked on."""

    def __init__(self) -> None:
        self.frames = self.repeated = self.faces = self.bridged = 0
        self._tracks: dict[int, Track] = {}
        self._places: list[list[float]] = []  # [frame, track, x, y] of the faces in the latest frame

    def add(self, done: Done) -> None:
        """Take one frame in."""
        self.frames += 1
        self.repeated += done.same
        self.faces += len(done.restored)
        index = done.frame.index
        self._places = []
        for one in done.tracked:
            self.bridged += one.found is None and not done.same
            x, y = one.face.centre
            entry = self._tracks.setdefault(
                one.track, {"track": one.track, "first": index, "frames": 0, "score": 0.0, "box": None}
            )
            if not entry["frames"]:
                entry["box"] = [round(v, 1) for v in one.face.box]
                entry["at"] = [round(x, 1), round(y, 1)]
            entry["last"] = index
            entry["frames"] += 1
            entry["score"] += one.face.score
            entry["end"] = [round(x, 1), round(y, 1)]
            entry["size"] = round(max(one.face.width, one.face.height), 1)

    def record(self) -> dict[str, Any]:
        """Return the notes as JSON."""
        tracks = [{**entry, "score": round(entry["score"], 3)} for entry in self._tracks.values()]
        return {
            "frames": self.frames,
            "repeated": self.repeated,
            "faces": self.faces,
            "bridged": self.bridged,
            "tracks": tracks,
        }


def join_tracks(stretches: Iterable[Mapping[str, Any]]) -> list[Track]:
    """Return the tracks of the whole film from those of its stretches, numbered by first appearance.

    A track that ends with a stretch goes on in the next one with the face that begins nearest to where it ended.
    """
    result: list[Track] = []
    open_tracks: list[Track] = []
    start = 0
    for stretch in stretches:
        fresh: list[Track] = []
        people = {entry["track"]: entry for entry in entries_of(stretch)}
        for entry in stretch["tracks"]:
            before = _continued(entry, open_tracks) if entry["first"] == start else None
            if before is None:
                before = {k: entry[k] for k in ("first", "box")} | {"frames": 0, "score": 0.0}
                result.append(before)
            else:
                open_tracks = [other for other in open_tracks if other is not before]
            before["frames"] += entry["frames"]
            before["score"] += entry["score"]
            before.update({k: entry[k] for k in ("last", "end", "size")})
            known = people.get(entry["track"])
            if known is not None:  # it holds what the stretches before knew of this track
                before.update({k: known[k] for k in ("count", "wanted", "distance")})
                before["mean"] = np.array(known["mean"])  # a quarter of what the list takes
            fresh.append(before)
        start += stretch["frames"]
        open_tracks = [entry for entry in fresh if entry["last"] == start - 1]
    result.sort(key=lambda e: (e["first"], e["box"]))
    return [
        {
            "track": number,
            "person": who,
            "distance": entry.get("distance"),
            "restored": entry.get("wanted", True),
            "first_frame": entry["first"],
            "last_frame": entry["last"],
            "frames": entry["frames"],
            "mean_score": round(entry["score"] / entry["frames"], 3),
            "first_box": entry["box"],
        }
        for number, (entry, who) in enumerate(zip(result, numbered(result), strict=True), 1)
    ]


def told_of_person(tracks: Sequence[Track], faces: FaceOptions) -> list[str]:
    """Return what to say of a film in which one person's faces are wanted."""
    if not faces.person or not tracks:
        return []
    near = [track["distance"] for track in tracks if track["distance"] is not None]
    if not any(track["restored"] for track in tracks):
        nearest = f" (nearest distance {min(near):.2f}; --person_distance {faces.person_distance:g})" if near else ""
        return [f"none of the {len(tracks)} faces that were followed is the person's{nearest}: no face was restored"]
    left = sum(not track["restored"] for track in tracks)
    return (
        [f"{left} of {len(tracks)} faces that were followed are other people's, and stay as they are"] if left else []
    )


def _continued(entry: Track, candidates: Iterable[Track]) -> Track | None:
    near = [
        (abs(c["end"][0] - entry["at"][0]) + abs(c["end"][1] - entry["at"][1]), i, c) for i, c in enumerate(candidates)
    ]
    if not near:
        return None
    distance, _, best = min(near)
    return best if distance < 0.5 * best["size"] else None


def total(stretches: Sequence[Mapping[str, Any]], key: str) -> int:
    """Return the sum over all stretches."""
    return sum(int(stretch[key]) for stretch in stretches)


def problems_of(stretch: Mapping[str, Any]) -> list[str]:
    """Return what went wrong while a stretch was read: so far, and of the last one in the whole film."""
    return [*stretch.get("problems", []), *stretch.get("end", {}).get("problems", [])]
