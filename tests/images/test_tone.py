"""Toned prints are known as a whole, and their faces get the tone that they have."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from codeformer.images.colour import luma, to_ycc
from codeformer.images.picture import Picture
from codeformer.images.tone import in_own_colours, mean_tone, tone_in
from codeformer.video.source import Frame
from codeformer.video.toning import film_tone

TONES = {
    "sepia": lambda y: (y**0.8, y * 0.85 + 0.02, y**1.3 * 0.75),
    "faint": lambda y: (y + 0.012, y, y - 0.015),
    "yellowed": lambda y: (y * 0.95 + 0.03, y * 0.92, y * 0.75),
    "selenium": lambda y: (y * 0.97 + 0.03, y * 0.97, y * 0.95 + 0.04),
}


def dyed(rgb: np.ndarray, tone: str) -> np.ndarray:
    y = luma(rgb.astype(np.float32) / 255)
    return np.rint(np.stack(TONES[tone](y), axis=-1).clip(0, 1) * 255).astype(np.uint8)


def as_jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize("how", ["plain", "jpeg", "noise"])
def test_a_toned_print_is_known_and_keeps_its_colours(astronaut: np.ndarray, tone: str, how: str) -> None:
    rgb = dyed(astronaut, tone)
    if how == "jpeg":
        rgb = as_jpeg(rgb, 40)
    elif how == "noise":
        noise = np.random.default_rng(0).normal(0, 10, rgb.shape)
        rgb = np.clip(rgb + noise, 0, 255).astype(np.uint8)
    found = tone_in(Picture(rgb))
    assert found is not None
    back = found.of(dyed(astronaut, "faint").astype(np.float32) / 255)  # another face, of the same brightnesses
    np.testing.assert_allclose(luma(back), luma(dyed(astronaut, "faint").astype(np.float32) / 255), atol=2e-3)
    wanted = to_ycc(dyed(astronaut, tone).astype(np.float32) / 255)[..., 1:]
    assert np.abs(to_ycc(back)[..., 1:] - wanted).mean() < (0.008 if tone == "sepia" else 0.005)


def test_pictures_in_colour_are_none(astronaut: np.ndarray) -> None:
    assert tone_in(Picture(astronaut)) is None
    assert tone_in(Picture(np.ascontiguousarray(astronaut[60:200, 150:290]))) is None, "a face alone"
    assert tone_in(Picture(astronaut), always=True) is not None
    warm = np.clip(astronaut * np.array([1.1, 0.95, 0.7]), 0, 255).astype(np.uint8)
    assert tone_in(Picture(warm)) is None


def test_a_small_coloured_face_in_a_grey_panorama_is_colour(astronaut: np.ndarray) -> None:
    wide = np.full((200, 4000, 3), 128, np.uint8)
    wide[...] = np.linspace(60, 200, 4000, dtype=np.uint8)[None, :, None]
    face = cv2.resize(astronaut[60:200, 150:290], (100, 100), interpolation=cv2.INTER_AREA)
    for x in range(100, 3900, 300):
        wide[50:150, x : x + 100] = face
    assert tone_in(Picture(wide)) is None


def test_grey_is_no_tone(astronaut: np.ndarray) -> None:
    grey = np.repeat(np.asarray(Image.fromarray(astronaut).convert("L"))[..., None], 3, axis=2)
    assert tone_in(Picture(grey)) is None and tone_in(Picture(grey, grey=True)) is None
    assert tone_in(Picture(as_jpeg(grey, 60))) is None


def test_paint_and_what_is_not_seen_do_not_count(astronaut: np.ndarray) -> None:
    sepia = dyed(astronaut, "sepia")
    mask = np.zeros((512, 512), np.float32)
    mask[100:200, 150:300] = 1
    painted = sepia.copy()
    painted[mask > 0] = (0, 255, 0)
    assert tone_in(Picture(painted)) is None
    found = tone_in(Picture(painted), mask)
    assert found is not None
    assert np.abs(found.of(sepia.astype(np.float32) / 255) - sepia / 255).mean() < 0.01
    alpha = np.where(mask > 0, 0, 255).astype(np.uint8)
    assert tone_in(Picture(painted, alpha)) is not None
    hidden = np.where(mask[..., None] > 0, astronaut, np.uint8(0))
    assert tone_in(Picture(hidden, (255 * mask).astype(np.uint8))) is None, "a cut-out of a picture in colour"


def test_own_colours(astronaut: np.ndarray) -> None:
    output = astronaut.astype(np.float32) / 255
    assert in_own_colours(output, grey=False, tone=None) is output
    grey = in_own_colours(output, grey=True, tone=None)
    assert (grey == grey[..., :1]).all()
    sepia = tone_in(Picture(dyed(astronaut, "sepia")))
    assert sepia is not None
    toned = in_own_colours(output, grey=False, tone=sepia)
    np.testing.assert_allclose(toned, sepia.of(grey), atol=1e-5)
    np.testing.assert_allclose(mean_tone([sepia, sepia]).chroma, sepia.chroma)


@dataclass
class Film:
    """A film of given frames."""

    pictures: list[np.ndarray]

    def __post_init__(self) -> None:
        self.info = SimpleNamespace(frames=len(self.pictures), rate=Fraction(25), path=Path("x.mp4"))

    def frames(self, first: int = 0) -> Iterator[Frame]:
        for index in range(first, len(self.pictures)):
            yield Frame(index, index, 1, self.pictures[index])


def test_a_film_is_judged_as_a_whole(astronaut: np.ndarray) -> None:
    small = cv2.resize(astronaut, (128, 128), interpolation=cv2.INTER_AREA)
    sepia, black = dyed(small, "sepia"), np.zeros_like(small)
    assert film_tone(Film([black, sepia, sepia, black]), "auto") is not None  # type: ignore[arg-type]
    assert film_tone(Film([sepia] * 20 + [small] * 20), "auto") is None, "a look back in sepia"  # type: ignore[arg-type]
    assert film_tone(Film([black, black]), "auto") is None  # type: ignore[arg-type]
    assert film_tone(Film([sepia]), "free") is None  # type: ignore[arg-type]
    assert film_tone(Film([small]), "keep") is not None  # type: ignore[arg-type]
    tones = film_tone(Film([sepia] * 9), "auto"), tone_in(Picture(sepia))
    assert tones[0] is not None and tones[1] is not None  # type: ignore[arg-type]
    np.testing.assert_allclose(tones[0].chroma, tones[1].chroma)


def test_the_tone_is_part_of_what_a_picture_is(astronaut: np.ndarray) -> None:
    """In another colour space the tone is the same."""
    from codeformer.images.profile import made_of, to_xyz
    from codeformer.images.space import in_space, space_in

    icc = made_of("wide", (1.8,), to_xyz((0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), (0.3457, 0.3585)))
    space = space_in(icc)
    assert space is not None
    sepia = Picture(dyed(astronaut, "sepia"))
    wide = replace(sepia, rgb=in_space(sepia.rgb, space, np.uint16), icc=icc)
    one, other = tone_in(sepia), tone_in(wide)
    assert one is not None and other is not None
    assert np.abs(one.chroma - other.chroma).max() < 0.01
