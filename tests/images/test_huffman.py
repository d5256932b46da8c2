"""The walk through a JPEG's Huffman codes gives the answers of the plain one, a bit and a symbol at a time."""

from __future__ import annotations

import io
import re
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from codeformer.images import huffman, jpeg
from tests.mutations import faults, mutate

SOS, DHT, DQT, DRI = 0xDA, 0xC4, 0xDB, 0xDD

ONE = bytes([1, *[0] * 15])  # the counts of a table with one code, a bit 0


def plain_fault(data: bytes) -> jpeg.Fault | None:
    """What `jpeg.fault_in` is to find: one symbol after the other, with the codes as strings of 0 and 1."""
    layout = jpeg.layout_of(data)
    if layout.frame is None or layout.frame.marker not in (0xC0, 0xC1) or len(layout.scans) != 1:
        return None
    frame = layout.frame.body
    try:
        _, height, width, count = struct.unpack_from(">BHHB", frame)
        components = {frame[6 + 3 * i]: (*divmod(frame[7 + 3 * i], 16), frame[8 + 3 * i]) for i in range(count)}
        scan = next(one.body for one in layout.segments if one.marker == SOS)
        every = next((struct.unpack_from(">H", one.body)[0] for one in layout.segments if one.marker == DRI), 0)
        codes = {kind: codes for one in layout.segments if one.marker == DHT for kind, codes in code_tables(one.body)}
        steps = {name: step for one in layout.segments if one.marker == DQT for name, step in first_steps(one.body)}
        blocks = []
        for i in range(scan[0]):
            across, down, quantizer = components[scan[1 + 2 * i]]
            first, others = divmod(scan[2 + 2 * i], 16)
            limit = int(1024 * 1.25 / steps[quantizer]) + 2
            blocks += [(i, codes[first], codes[16 + others], limit)] * (across * down if scan[0] > 1 else 1)
        single = scan[0] == 1
        columns = -(-width // (8 * (1 if single else max(one[0] for one in components.values()))))
        tall = 8 * (1 if single else max(one[1] for one in components.values()))
        total = columns * -(-height // tall)
        if not blocks or not total:
            return None
    except (struct.error, LookupError, ValueError, ZeroDivisionError):
        return None
    done = 0
    for part in re.split(rb"\xff[\xd0-\xd7]", data[slice(*layout.scans[0])]):
        wanted = min(every or total, total - done)
        good, left = plain_walk("".join(f"{one:08b}" for one in part.replace(b"\xff\0", b"\xff")), blocks, wanted)
        done += good
        if good < wanted or left >= 16:
            return jpeg.Fault(min(done, total - 1) // columns * tall, height)
    return None if done == total else jpeg.Fault((done - 1) // columns * tall, height)


def code_tables(body: bytes) -> list[tuple[int, dict[str, int]]]:
    tables = []
    while len(body) >= 17:
        symbols = iter(body[17 : 17 + sum(body[1:17])])
        codes: dict[str, int] = {}
        code = 0
        for length in range(1, 17):
            for _, symbol in zip(range(body[length]), symbols, strict=False):
                if code < 1 << length:
                    codes[f"{code:0{length}b}"] = symbol
                code += 1
            code *= 2
        tables.append((body[0], codes))
        body = body[17 + sum(body[1:17]) :]
    return tables


def first_steps(body: bytes) -> list[tuple[int, int]]:
    steps = []
    while body:
        wide = body[0] >> 4
        steps.append((body[0] & 15, struct.unpack_from(">H" if wide else ">B", body, 1)[0]))
        body = body[1 + 64 * (1 + wide) :]
    return steps


def plain_walk(bits: str, blocks: list[Any], wanted: int) -> tuple[int, int]:
    """How many units are sound, and how many bits are left."""
    position = 0
    means = dict.fromkeys((one[0] for one in blocks), 0)
    for unit in range(wanted):
        for component, first, others, limit in blocks:
            known = 0
            while known < 64:
                codes = others if known else first
                length = next((n for n in range(1, 17) if bits[position : position + n] in codes), 0)
                if not length:
                    return unit, 0
                symbol = codes[bits[position : position + length]]
                size = symbol & 15 if known else symbol
                position += length + size
                if position > len(bits) or (not known and size > 11):
                    return unit, 0
                if not known and size:
                    number = int(bits[position - size : position], 2)
                    means[component] += number if number >> size - 1 else number - (1 << size) + 1
                    if abs(means[component]) > limit:
                        return unit, 0
                if known == 0:
                    known = 1
                elif symbol == 0:
                    known = 64
                else:
                    known += (symbol >> 4) + 1
                    if known > 64:
                        return unit, 0
    return wanted, len(bits) - position


@st.composite
def jpegs(draw: st.DrawFn, astronaut: np.ndarray) -> bytes:
    """Files of all ways to code them, of pictures from flat to nothing but noise."""
    height, width = draw(st.integers(8, 200)), draw(st.integers(8, 200))
    rgb = astronaut[draw(st.integers(0, 300)) :, draw(st.integers(0, 300)) :][:height, :width].copy()
    noisy = draw(st.sampled_from((0, 0, height // 3, height)))  # rows with numbers up to the 64th in each block
    rgb[:noisy] = np.random.default_rng(noisy).integers(0, 256, rgb[:noisy].shape)
    flat = draw(st.sampled_from((0, width // 2)))
    rgb[:, :flat] = 200
    options: dict[str, Any] = {"quality": draw(st.integers(5, 98)), "optimize": draw(st.booleans())}
    options |= draw(st.sampled_from(({}, {}, {"restart_marker_blocks": 1}, {"restart_marker_blocks": 7})))
    image = Image.fromarray(rgb)
    if draw(st.sampled_from((True, True, True, False))):
        options["subsampling"] = draw(st.integers(0, 2))
    else:
        image = image.convert(draw(st.sampled_from(("L", "CMYK"))))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_the_answers_are_those_of_the_plain_walk(astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {True: 0, False: 0}

    @settings(max_examples=150, derandomize=True)
    @given(st.data())
    def any_of_them(data: st.DataObject) -> None:
        whole = data.draw(jpegs(astronaut))
        # Long files are read piece by piece: here, too
        monkeypatch.setattr(huffman, "_PIECE", data.draw(st.sampled_from((1 << 17, 1 << 17, 3000, 1))))
        assert jpeg.fault_in(whole, jpeg.layout_of(whole)) is None
        head = jpeg.layout_of(whole).scans[0][0]
        entropy = data.draw(faults(len(whole) - head, head=0))
        for bad in (
            whole[:head] + mutate(whole[head:], entropy),
            mutate(whole, data.draw(faults(len(whole), head=head))),
        ):
            expected = plain_fault(bad)
            assert jpeg.fault_in(bad, jpeg.layout_of(bad)) == expected
            found[expected is None] += 1

    any_of_them()
    assert min(found.values()) > 50, "some are whole, some are not"


@st.composite
def tables(draw: st.DrawFn, symbols: tuple[int, ...]) -> bytes:
    """Huffman tables of few and short codes, so that bits by chance go far."""
    chosen = draw(st.lists(st.sampled_from(symbols) | st.integers(0, 255), min_size=1, max_size=6))
    counts = [0] * 16
    for length in draw(st.lists(st.integers(1, 4) | st.integers(1, 16), min_size=len(chosen), max_size=len(chosen))):
        counts[length - 1] += 1
    return bytes(counts + chosen)


@settings(max_examples=400, derandomize=True)
@given(
    first=tables((0, 0, 1, 2, 11, 12, 16)),
    others=tables((0, 0, 0xF0, 0xF0, 0x10, 0x01, 0x12, 0xEF)),
    content=st.binary(max_size=80),
    total=st.integers(1, 40),
    limit=st.sampled_from((2, 3000, 10**6)),
)
@example(first=ONE + b"\x0c", others=ONE + b"\0", content=bytes(4), total=2, limit=10**6)  # a number of 12 bits
@example(first=ONE + b"\0", others=ONE + b"\xf0", content=bytes(4), total=2, limit=9)  # 16 numbers a bit, 64 nowhere
def test_any_tables_mean_what_the_plain_walk_makes_of_them(
    first: bytes, others: bytes, content: bytes, total: int, limit: int
) -> None:
    blocks = [(0, *(code_tables(b"\0" + one)[0][1] for one in (first, others)), limit)]
    good, left = plain_walk("".join(f"{one:08b}" for one in content), blocks, total)
    expected = good, good == total and left < 16
    assert huffman.sound_units([content], [huffman.Block(0, first, others, limit)], 0, total) == expected
