"""Films: streamed reading, faces tracked and restored steadily over time, resumable writing.

How a film goes through it::

    reader ─ detect ─ track ─ temporal (smooth landmarks, filter crops, average codes) ─ paste ─ packets ─ mux

``reader`` gives frames with their timestamps, ``segment`` restores one stretch of them, ``work`` keeps finished
stretches on disk, and ``mux`` joins them with the input's sound, subtitles, chapters and metadata. ``film`` is the
whole. Nothing heavy is imported here.
"""
