"""One stretch of a film through all stages: a chain of generators over frames, each looking a little ahead.

A stretch is worked on with a few frames of its neighbours on both sides, from which tracks, landmarks and codes are
averaged across its borders. What comes out depends on those frames alone, so a stretch is the same whether the run
was interrupted before it or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from codeformer.faces.choose import choose
from codeformer.faces.find import Face
from codeformer.images.picture import Picture
from codeformer.pipeline import stages
from codeformer.pipeline.engine import Engine
from codeformer.tasks.base import Study
from codeformer.video import temporal
from codeformer.video.pixels import Pixels
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

T = TypeVar("T")


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
        return max(1, self.landmarks + self.bridge + self.crops + self.codes)


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
class _Item:
    """A distinct frame inside the window, filled in from stage to stage."""

    seen: Seen
    position: int
    repeats: list[Frame] = field(default_factory=list)  # frames equal to this one, shown after it
    tracked: list[Tracked] = field(default_factory=list)
    cuts: list[stages.Cut] = field(default_factory=list)
    encoded: list[Any] = field(default_factory=list)
    logits: list[Any] = field(default_factory=list)  # outlive ``encoded``, whose features are large
    restored: list[np.ndarray] = field(default_factory=list)
    codes: list[Any] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Done:
    """A frame of the stretch with its restored faces, ready to be pasted. ``same``: show the one before again."""

    frame: Frame
    cuts: tuple[stages.Cut, ...] = ()
    restored: tuple[np.ndarray, ...] = ()
    tracked: tuple[Tracked, ...] = ()
    same: bool = False


def restore_stretch(
    frames: Iterable[Seen], first: int, last: int, engine: Engine, steady: Steadiness
) -> Iterator[Done]:
    """Frames ``first`` to ``last - 1`` with their faces restored, in order.

    ``frames``: those and up to ``steady.reach`` before and after, in order.
    """

    def wanted(item: _Item, margin: int) -> bool:
        """Whether the item, or one of its repeats, lies in the stretch or within ``margin`` of it."""
        end = item.repeats[-1].index if item.repeats else item.seen.frame.index
        return end >= first - margin and item.seen.frame.index < last + margin

    items = _tracked(_distinct(frames), steady)
    items = (_cut(item, engine) if wanted(item, steady.crops + steady.codes) else item for item in items)
    if steady.crops:
        items = _with_neighbours(items, steady.crops, _steady_crops)
    items = _encoded(items, engine, lambda item: wanted(item, steady.codes))
    items = _with_neighbours(items, steady.codes, _choose_codes)
    items = _decoded((item for item in items if wanted(item, 0)), engine)
    for item in items:
        frame = item.seen.frame
        result = (tuple(item.cuts), tuple(item.restored), tuple(item.tracked))
        shown = False
        for one in (frame, *item.repeats):
            if first <= one.index < last:
                # The first one shown of a run of equal frames carries the pixels, also if the run began before
                yield Done(one, same=True, tracked=result[2]) if shown else Done(one, *result)
                shown = True


def _distinct(frames: Iterable[Seen]) -> Iterator[_Item]:
    """Runs of equal frames become one item each."""
    item: _Item | None = None
    for seen in frames:
        if item is not None and seen.frame.same:
            item.repeats.append(seen.frame)
            continue
        if item is not None:
            yield item
        item = _Item(seen, 0 if item is None else item.position + 1)
    if item is not None:
        yield item


def _tracked(items: Iterable[_Item], steady: Steadiness) -> Iterator[_Item]:
    """Faces get their tracks, gaps are bridged, landmarks smoothed: ``bridge + landmarks`` items later."""
    window: deque[_Item] = deque()
    trails: list[Trail] = []
    scene: Scene | None = None
    count = 0
    ready = 0  # items at the window's beginning that were handed out; they stay as neighbours
    for item in items:
        scene, cut = next_scene(scene, item.seen.frame.rgb)
        if cut:
            trails = []
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


def _smoothed(window: Sequence[_Item], index: int, radius: int) -> _Item:
    """The item with smoothed landmarks; its neighbours keep what was detected."""
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


def _cut(item: _Item, engine: Engine) -> _Item:
    """The crops of the item's chosen faces."""
    picture = Picture(item.seen.frame.rgb)
    faces = [one.face for one in item.tracked]
    height, width = picture.rgb.shape[:2]
    numbers = choose(faces, engine.work.faces, width, height)
    cuts = stages.cut(engine, Study(picture), faces, numbers)
    return replace(item, cuts=cuts)


def _with_neighbours(items: Iterable[_Item], radius: int, work: Any) -> Iterator[_Item]:
    """``work(item, neighbours)`` for each item, ``neighbours`` being up to ``radius`` items before and after it."""
    window: deque[_Item] = deque()
    ready = 0
    for item in items:
        window.append(item)
        if len(window) > ready + radius:
            yield work(window[ready], [other for other in window if other is not window[ready]])
            ready += 1
            if ready > radius:
                window.popleft()
                ready -= 1
    while ready < len(window):
        around = [window[i] for i in range(max(0, ready - radius), min(len(window), ready + radius + 1)) if i != ready]
        yield work(window[ready], around)
        ready += 1


def _partners(item: _Item, neighbours: Sequence[_Item], cut: stages.Cut) -> list[tuple[_Item, int]]:
    """Where the same track's face lies in the neighbours: (item, index of its cut)."""
    track = item.tracked[cut.number - 1].track
    return [
        (other, index)
        for other in neighbours
        for index, theirs in enumerate(other.cuts)
        if other.tracked[theirs.number - 1].track == track
    ]


def _steady_crops(item: _Item, neighbours: Sequence[_Item]) -> _Item:
    """The crops that the network gets, with the noise of single frames averaged away."""
    cuts = []
    for cut in item.cuts:
        others = [other.cuts[index].crop.pixels for other, index in _partners(item, neighbours, cut)]
        cuts.append(replace(cut, source=temporal.steady_crop(cut.crop.pixels, others)))
    return replace(item, cuts=cuts)


def _batches(items: Iterable[_Item], faces: int, window: int) -> Iterator[list[_Item]]:
    """Groups of items that fill a batch; an item without faces waits for nobody."""
    group: list[_Item] = []
    for item in items:
        group.append(item)
        total = sum(len(one.cuts) for one in group)
        if total == 0 or total >= faces or len(group) >= window:
            yield group
            group = []
    if group:
        yield group


def _encoded(items: Iterable[_Item], engine: Engine, wanted: Any) -> Iterator[_Item]:
    restorer = engine.restorer
    for group in _batches(items, restorer.batch_size, 16):
        chosen = [(item, cut) for item in group if wanted(item) for cut in item.cuts]
        if chosen:
            encoded = restorer.encode([cut.source for _, cut in chosen])
            for index, (item, _) in enumerate(chosen):
                item.encoded.append(encoded.select(index))
                item.logits.append(encoded.logits[index])
        yield from group


def _choose_codes(item: _Item, neighbours: Sequence[_Item]) -> _Item:
    """The codes of each face: the likeliest over its track's neighbouring frames."""
    codes, cuts = [], []
    for number, cut in enumerate(item.cuts):
        partners = _partners(item, neighbours, cut)
        # Whether a face has colour must not change from frame to frame either
        votes = [cut.crop.grey, *(other.cuts[index].crop.grey for other, index in partners)]
        cuts.append(replace(cut, crop=replace(cut.crop, grey=2 * sum(votes) > len(votes))))
        if number >= len(item.logits):
            continue
        logits, weights = [item.logits[number]], [1.0]
        for other, index in partners:
            if index < len(other.logits):
                logits.append(other.logits[index])
                weights.append(temporal.alikeness(cut.crop.pixels, other.cuts[index].crop.pixels))
        average = temporal.average_logits(logits, weights) if len(logits) > 1 else logits[0]
        codes.append(average.argmax(-1))
    result = replace(item, codes=codes, cuts=cuts)
    item.encoded = []  # from here on it is a neighbour only
    return result


def _decoded(items: Iterable[_Item], engine: Engine) -> Iterator[_Item]:
    import torch

    from codeformer.pipeline.restorer import Encoded

    for group in _batches(items, engine.restorer.batch_size, 16):
        chosen = [(item, index) for item in group for index in range(len(item.cuts))]
        if chosen:
            parts = [item.encoded[index] for item, index in chosen]
            together = Encoded(
                torch.cat([part.lq_feat for part in parts]),
                {key: torch.cat([part.features[key] for part in parts]) for key in parts[0].features},
                torch.cat([part.logits for part in parts]),
            )
            codes = torch.stack([item.codes[index] for item, index in chosen])
            outputs = engine.restorer.decode(together, codes, w=engine.work.w, adain=engine.adain)
            for (item, index), output in zip(chosen, outputs, strict=True):
                item.restored.append(engine.task.finish(item.cuts[index].crop, output))
        for item in group:
            yield replace(item, encoded=[], codes=[])


def detect(frame: Frame, before: Seen | None, engine: Engine) -> Seen:
    """The faces of a frame; a frame equal to the one before has the same."""
    if frame.same and before is not None:
        return Seen(frame, before.faces)
    return Seen(frame, tuple(stages.look(engine, Study(Picture(frame.rgb)))))


def paste(done: Done, engine: Engine) -> Pixels:
    """The frame at the output's scale with its faces in place: (H, W, 3) of the film's depth."""
    picture = Picture(done.frame.rgb)
    height, width = picture.rgb.shape[:2]
    canvas = stages.background(engine, picture)
    if not done.cuts:
        result = canvas
    else:
        masks = stages.masks(engine, done.cuts, done.restored)
        scale = (canvas.rgb.shape[1] / width, canvas.rgb.shape[0] / height)
        crops, matrices, _ = stages.upsample_faces(engine, done.cuts, done.restored, scale)
        result = stages.compose(canvas, crops, matrices, masks)
    if engine.work.canvas.draw_box:
        faces = [one.face for one in done.tracked]
        result = stages.draw_boxes(result, faces, engine.work.canvas, (width, height))
    return result.rgb
