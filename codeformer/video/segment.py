"""One stretch of a film through all stages: a chain of generators over frames, each looking a little ahead.

A stretch is worked on with a few frames of its neighbours on both sides, from which tracks, landmarks and codes are
averaged across its borders. What comes out depends on those frames alone, so a stretch is the same whether the run
was interrupted before it or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from codeformer.arrays import Crop
from codeformer.faces.choose import choose
from codeformer.faces.face import Face
from codeformer.images.colour import to_grey
from codeformer.images.picture import Picture
from codeformer.pipeline.batches import in_batches
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.compose import compose
from codeformer.pipeline.crops import AlignedFace, align, find
from codeformer.pipeline.engine import Engine
from codeformer.pipeline.read_ahead import calls_ahead
from codeformer.tasks.base import Study
from codeformer.video import temporal
from codeformer.video.people import People
from codeformer.video.source import Frame
from codeformer.video.tracking import (
    Scene,
    Tracked,
    Trail,
    associate,
    between,
    follow,
    moved,
    next_scene,
    smooth_landmarks,
)

_WINDOW = 16  # frames that wait for a full batch, or as many as that has faces
_WINDOW_BYTES = 400_000_000  # beyond the first frames of a window, for their pixels
_FIRST_BATCH = 8  # faces of a film's first batch on a GPU: the network begins while others are still prepared


@dataclass(frozen=True)
class Steadiness:
    """How many distinct frames each side are looked at; 0 turns a measure off."""

    landmarks: int = 0
    bridge: int = 0  # frames without a detection that are filled in
    crops: int = 0
    codes: int = 0

    @property
    def reach(self) -> int:
        """Frames before and after a stretch that its own frames depend on. At least one, to carry tracks over."""
        return max(1, self.landmarks + self.bridge + self.margin)

    @property
    def margin(self) -> int:
        """Frames before and after a stretch whose crops its own frames depend on."""
        return self.crops + self.codes


#: By the name of ``--temporal``.
MODES: dict[str, Steadiness] = {
    "off": Steadiness(),
    "landmarks": Steadiness(landmarks=6, bridge=4),
    "codes": Steadiness(landmarks=6, bridge=4, codes=3),
    "auto": Steadiness(landmarks=6, bridge=4, crops=3, codes=3),
}


@dataclass(frozen=True, eq=False)
class Seen:
    """A frame and the faces that the detector found in it."""

    frame: Frame
    faces: tuple[Face, ...]


@dataclass(eq=False)
class Item:
    """A distinct frame inside the window, filled in from stage to stage."""

    seen: Seen
    position: int
    repeats: list[Frame] = field(default_factory=list)  # frames equal to this one, shown after it
    tracked: list[Tracked] = field(default_factory=list)
    aligned: list[AlignedFace] = field(default_factory=list)
    looks: list[temporal.Look] = field(default_factory=list)  # of the aligned faces
    encoded: list[Any] = field(default_factory=list)
    votes: list[temporal.Vote] = field(default_factory=list)  # outlive ``encoded``, whose features are large
    restored: list[Crop] = field(default_factory=list)  # what the network gave
    codes: list[Any] = field(default_factory=list)

    def shown_in(self, first: int, last: int) -> bool:
        """Return whether the frame, or one of its repeats, has an index from ``first`` to ``last - 1``."""
        end = self.repeats[-1].index if self.repeats else self.seen.frame.index
        return end >= first and self.seen.frame.index < last


@dataclass(frozen=True, eq=False)
class Done:
    """A frame of the stretch, ready to be pasted.

    Attributes:
        frame: the frame.
        aligned: its faces that the network has seen.
        restored: what the network made of each.
        tracked: all its faces.
        same: show the frame before again.
    """

    frame: Frame
    aligned: tuple[AlignedFace, ...] = ()
    restored: tuple[Crop, ...] = ()
    tracked: tuple[Tracked, ...] = ()
    same: bool = False


def restore_stretch(
    frames: Iterable[Seen],
    first: int,
    last: int,
    engine: Engine,
    steady: Steadiness,
    clock: Clock,
    people: People | None = None,
) -> Iterator[Done]:
    """Yield the frames ``first`` to ``last - 1`` with their faces restored, in order.

    Args:
        frames: those and up to ``steady.reach`` before and after, in order.
        first: the first frame of the stretch.
        last: the frame after its last one.
        engine: the networks and options.
        steady: how far each frame looks around.
        clock: gets the time of aligning.
        people: says who the tracks are; None where nobody asks.
    """
    return restore_items(prepare_items(frames, first, last, engine, steady, clock, people), first, last, engine, steady)


def prepare_items(
    frames: Iterable[Seen],
    first: int,
    last: int,
    engine: Engine,
    steady: Steadiness,
    clock: Clock,
    people: People | None = None,
    threads: int = 0,
) -> Iterator[Item]:
    """Yield what :func:`restore_items` takes, the stretch and its margin: all that is done before the network.

    Arguments as for :func:`restore_stretch`, and ``threads``: how many steady the crops; 0 for the caller's alone.
    """
    items = (
        _aligned(item, engine, clock, people)
        for item in with_tracks(distinct(frames), steady, people)
        if item.shown_in(first - steady.margin, last + steady.margin)
    )
    if not steady.crops:
        return items
    around = _with_neighbours(items, steady.crops)
    return calls_ahead((partial(_with_steady_crops, *one) for one in around), threads, threads=max(1, threads))


def restore_items(
    items: Iterable[Item],
    first: int,
    last: int,
    engine: Engine,
    steady: Steadiness,
    ends: Callable[[], bool] = lambda: False,
) -> Iterator[Done]:
    """Yield the frames ``first`` to ``last - 1`` with what the network made of their faces.

    On a GPU the first and the last batches of a film are smaller.

    Args:
        items: what :func:`prepare_items` gives for the same stretch.
        first: the first frame of the stretch.
        last: the frame after its last one.
        engine: the networks and options.
        steady: how far each frame looks around.
        ends: asked when the items are over: whether the film is, too.
    """
    on_cpu = engine.restorer.device.type == "cpu"
    batch = _FIRST_BATCH if first == 0 and not on_cpu else None
    items = _encoded(items, engine, lambda item: item.shown_in(first - steady.codes, last + steady.codes), batch)
    items = (_with_codes(*one) for one in _with_neighbours(items, steady.codes))
    items = _decoded((item for item in items if item.shown_in(first, last)), engine, batch, None if on_cpu else ends)
    for item in items:
        frame = item.seen.frame
        result = (tuple(item.aligned), tuple(item.restored), tuple(item.tracked))
        shown = False
        for one in (frame, *item.repeats):
            if first <= one.index < last:
                # The first one shown of a run of equal frames carries the pixels, also if the run began before
                yield Done(one, same=True, tracked=result[2]) if shown else Done(one, *result)
                shown = True


def distinct(frames: Iterable[Seen]) -> Iterator[Item]:
    """Yield an item for each run of equal frames."""
    item: Item | None = None
    for seen in frames:
        if item is not None and seen.frame.same:
            item.repeats.append(seen.frame)
            continue
        if item is not None:
            yield item
        item = Item(seen, 0 if item is None else item.position + 1)
    if item is not None:
        yield item


def with_tracks(items: Iterable[Item], steady: Steadiness, people: People | None = None) -> Iterator[Item]:
    """Yield items whose faces have tracks, gaps bridged and landmarks smoothed: some items later, by ``steady``."""
    window: deque[Item] = deque()
    trails: list[Trail] = []
    scene: Scene | None = None
    count = 0
    ready = 0  # items at the window's beginning that were handed out; they stay as neighbours
    for item in items:
        scene_before = scene
        scene, new = next_scene(scene, item.seen.frame.rgb)
        if new:
            trails = []
            if people is not None and scene_before is not None:
                people.new_scene(item.seen.frame.index)
        window.append(item)
        by_position = {other.position: other for other in window}
        matches = associate(trails, item.seen.faces, item.position)
        for j, face in enumerate(item.seen.faces):
            trail = trails[matches[j]] if j in matches else None
            if trail is None:
                count += 1
            track = count if trail is None else trail.track
            item.tracked.append(Tracked(track, face, j))
            if trail is not None:
                for gap in range(trail.position + 1, item.position):
                    share = (gap - trail.position) / (item.position - trail.position)
                    by_position[gap].tracked.append(Tracked(track, between(trail.face, face, share), None))
                trails[matches[j]] = follow(trail, track, face, item.position)
            else:
                trails.append(follow(None, track, face, item.position))
        if people is not None:
            frame, until = item.seen.frame, item.repeats[-1].index if item.repeats else item.seen.frame.index
            people.look(frame, until, [one for one in item.tracked if one.found is not None])
        trails = [trail for trail in trails if item.position - trail.position <= steady.bridge]
        if len(window) > ready + steady.bridge + steady.landmarks:
            yield _smoothed(window, ready, steady.landmarks)
            ready += 1
            if ready > steady.landmarks:
                window.popleft()
                ready -= 1
    while ready < len(window):
        yield _smoothed(window, ready, steady.landmarks)
        ready += 1
        if ready > steady.landmarks:
            window.popleft()
            ready -= 1


def _smoothed(window: Sequence[Item], index: int, radius: int) -> Item:
    """Return the item with smoothed landmarks; its neighbours keep what was detected."""
    item = window[index]
    if not radius:
        return item
    neighbours = [window[i] for i in range(max(0, index - radius), min(len(window), index + radius + 1))]
    result = []
    for one in item.tracked:
        same = [(other.position, t.face) for other in neighbours for t in other.tracked if t.track == one.track]
        points = np.stack([face.landmarks for _, face in same])
        positions = np.array([position for position, _ in same])
        result.append(replace(one, face=moved(one.face, smooth_landmarks(points, positions, item.position, radius))))
    return replace(item, tracked=result)


def _aligned(item: Item, engine: Engine, clock: Clock, people: People | None) -> Item:
    """Return the item with the crops of its chosen faces."""
    with clock.timed("align"):
        study = Study(item.seen.frame.picture(), tone=engine.film_tone)
        faces = [one.face for one in item.tracked]
        height, width = study.picture.rgb.shape[:2]
        among = None
        if people is not None:
            among = {number for number, one in enumerate(item.tracked, 1) if people.wanted(one.track)}
        numbers = choose(faces, engine.work.faces, width, height, among)
        aligned = align(study, faces, numbers, engine.task, engine.restorer.size)
        return replace(item, aligned=aligned, looks=[temporal.Look(one.crop.pixels) for one in aligned])


def _with_neighbours(items: Iterable[Item], radius: int) -> Iterator[tuple[Item, Sequence[Item]]]:
    """Yield each item with its neighbours: up to ``radius`` items before and after it."""
    window: deque[Item] = deque()
    ready = 0
    for item in items:
        window.append(item)
        if len(window) > ready + radius:
            yield window[ready], [other for other in window if other is not window[ready]]
            ready += 1
            if ready > radius:
                window.popleft()
                ready -= 1
    while ready < len(window):
        around = [window[i] for i in range(max(0, ready - radius), min(len(window), ready + radius + 1)) if i != ready]
        yield window[ready], around
        ready += 1


def _partners(item: Item, neighbours: Sequence[Item], one: AlignedFace) -> list[tuple[Item, int]]:
    """Return where the same track's face lies in the neighbours: (item, index among its aligned faces)."""
    track = item.tracked[one.number - 1].track
    return [
        (other, index)
        for other in neighbours
        for index, theirs in enumerate(other.aligned)
        if other.tracked[theirs.number - 1].track == track
    ]


def _with_steady_crops(item: Item, neighbours: Sequence[Item]) -> Item:
    """Return the item with crops for the network from which the noise of single frames is averaged away."""
    result = []
    for one, look in zip(item.aligned, item.looks, strict=True):
        others = [other.looks[index] for other, index in _partners(item, neighbours, one)]
        steady = temporal.steady_crop(look, others)
        result.append(replace(one, source=steady if one.crop.tone is None else to_grey(steady)))
    return replace(item, aligned=result)


def _in_batches(
    items: Iterable[Item],
    faces: int,
    first: int | None,
    *,
    wanted: Callable[[Item], bool] | None = None,
    ends: Callable[[], bool] | None = None,
) -> Iterator[list[Item]]:
    """Yield groups of items that have a batch of ``faces``, counting those that are ``wanted``."""

    def is_full(group: list[Item]) -> bool:
        pixels = sum(item.seen.frame.rgb.nbytes for item in group)
        return len(group) >= _WINDOW and (len(group) >= faces or pixels >= _WINDOW_BYTES)

    def count(item: Item) -> int:
        return len(item.aligned) if wanted is None or wanted(item) else 0

    return in_batches(items, count, faces, is_full, first, ends)


def _encoded(
    items: Iterable[Item], engine: Engine, wanted: Callable[[Item], bool], first: int | None
) -> Iterator[Item]:
    restorer = engine.restorer
    for group in _in_batches(items, restorer.batch_size, first, wanted=wanted):
        chosen = [(item, one) for item in group if wanted(item) for one in item.aligned]
        if chosen:
            encoded = restorer.encode([one.source for _, one in chosen])
            for index, (item, _) in enumerate(chosen):
                item.encoded.append(encoded.select(index))
                item.votes.append(temporal.Vote(encoded.logits[index]))
        yield from group


def _with_codes(item: Item, neighbours: Sequence[Item]) -> Item:
    """Return the item with the codes of its faces: the likeliest over each track's neighbouring frames."""
    codes, aligned = [], []
    for number, one in enumerate(item.aligned):
        partners = _partners(item, neighbours, one)
        # Whether a face has colour must not change from frame to frame either
        votes = [one.crop.grey, *(other.aligned[index].crop.grey for other, index in partners)]
        aligned.append(replace(one, crop=replace(one.crop, grey=2 * sum(votes) > len(votes))))
        if number >= len(item.votes):
            continue
        cast, weights = [item.votes[number]], [1.0]
        for other, index in partners:
            if index < len(other.votes):
                cast.append(other.votes[index])
                weights.append(temporal.alikeness(item.looks[number], other.looks[index]))
        average = temporal.average_logits(cast, weights) if len(cast) > 1 else cast[0].logits
        codes.append(average.argmax(-1))
    result = replace(item, codes=codes, aligned=aligned)
    item.encoded = []  # from here on it is a neighbour only
    return result


def _decoded(
    items: Iterable[Item], engine: Engine, begin: int | None, ends: Callable[[], bool] | None
) -> Iterator[Item]:
    for group in _in_batches(items, engine.restorer.batch_size, begin, ends=ends):
        chosen = [(item, index) for item in group for index in range(len(item.aligned))]
        if chosen:
            first, *others = [item.encoded[index] for item, index in chosen]
            together = first.joined(others)
            codes = first.stacked([item.codes[index] for item, index in chosen])
            outputs = engine.restorer.decode(together, codes, w=engine.work.w, adain=engine.adain)
            for (item, _), output in zip(chosen, outputs, strict=True):
                item.restored.append(output)
        for item in group:
            yield replace(item, encoded=[], codes=[])


def find_in_frame(frame: Frame, engine: Engine) -> Seen:
    """Return the frame with its faces."""
    faces = find(Study(frame.picture()), engine.detector, engine.work.faces, turned_views=False)
    return Seen(frame, tuple(faces))


def paste(done: Done, engine: Engine, clock: Clock) -> Picture:
    """Return the frame at the output's scale with its faces in place, of the film's depth."""
    faces = [one.face for one in done.tracked]
    study = Study(done.frame.picture())
    with clock.timed("paste"):
        crops = [engine.task.finish(one.crop, output) for one, output in zip(done.aligned, done.restored, strict=True)]
    picture, _ = compose(study, faces, done.aligned, crops, engine.composition, clock)
    return picture
