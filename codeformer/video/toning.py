"""Whether a film is toned, as sepia is: judged by some frames of all of it, so that no frame differs from the next."""

from __future__ import annotations

from contextlib import closing

from codeformer.errors import InputError
from codeformer.images.colour import is_grey
from codeformer.images.tone import Tone, mean_tone, tone_in
from codeformer.options import TonePolicy
from codeformer.video.source import Film

_LOOKS = 7  # frames, evenly spread


def film_tone(film: Film, policy: TonePolicy) -> Tone | None:
    """Return the tone that a film's faces keep; None where it is in colour or in grey.

    A film is toned if none of its frames that are looked at is in colour. Frames without any colour, such as black
    ones, do not count.
    """
    if policy == "free":
        return None
    tones = []
    count = film.info.frames or 1
    for look in range(min(_LOOKS, count)):
        try:
            with closing(film.frames(count * (2 * look + 1) // (2 * _LOOKS) if count > _LOOKS else look)) as frames:  # type: ignore[type-var]
                frame = next(frames, None)
        except InputError:  # the film's end is missing, which the reading of all of it will say
            continue
        if frame is None:
            continue
        picture = frame.picture()
        tone = tone_in(picture, always=policy == "keep")
        if tone is not None:
            tones.append(tone)
        elif not is_grey(frame.rgb):
            return None
    return mean_tone(tones) if tones else None
