"""The clock, the batches and the thread that works ahead: what pictures and films share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeformer.pipeline.batches import in_batches
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.read_ahead import calls_ahead, items_ahead


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A stopwatch that the test moves on: its only element is the time."""
    now = [0.0]
    monkeypatch.setattr("codeformer.pipeline.clock.time.perf_counter", lambda: now[0])
    return now


def test_a_step_inside_of_another_counts_for_itself_alone(ticks: list[float]) -> None:
    clock = Clock()
    with clock.timed("restore"):
        ticks[0] += 1
        with clock.timed("align"):
            ticks[0] += 10
        with clock.timed("align"):
            ticks[0] += 20
            with clock.timed("read"):
                ticks[0] += 100
        ticks[0] += 2
    with clock.timed("restore"):
        ticks[0] += 5
    assert clock.seconds == {"align": 30, "read": 100, "restore": 8}


def test_the_step_that_failed_is_known_and_its_time_counts(ticks: list[float]) -> None:
    clock = Clock()
    with pytest.raises(ValueError), clock.timed("paste"):
        ticks[0] += 3
        raise ValueError
    assert clock.step == "paste" and clock.seconds == {"paste": 3}


def test_waiting_for_items_counts_and_working_on_them_does_not(ticks: list[float]) -> None:
    def source() -> Iterator[int]:
        for i in range(3):
            ticks[0] += 1
            yield i

    clock = Clock()
    for _ in clock.over("read", source()):
        ticks[0] += 50
    assert clock.seconds == {"read": 3}


@given(st.lists(st.integers(0, 6), max_size=30), st.integers(1, 8), st.integers(1, 5))
def test_batches_are_full_or_have_a_reason(faces: list[int], wanted: int, most: int) -> None:
    groups = list(in_batches(faces, lambda count: count, wanted, lambda group: len(group) >= most))
    assert [one for group in groups for one in group] == faces
    for group in groups:
        assert len(group) <= most and sum(group[:-1]) < wanted
        assert all(sum(group[: i + 1]) for i in range(len(group) - 1)), "what waits for nothing goes on at once"
    for group in groups[:-1]:
        assert sum(group) >= wanted or len(group) == most or sum(group) == 0


def test_the_first_batches_may_be_smaller() -> None:
    groups = list(in_batches([1] * 30 + [0] + [1] * 5, lambda count: count, 16, lambda group: False, 4))
    assert [len(group) for group in groups] == [4, 8, 16, 8]
    assert [len(group) for group in in_batches([1] * 7, lambda count: count, 3, lambda group: False, 8)] == [3, 3, 1]


@pytest.mark.parametrize(
    ("count", "ends", "sizes"),
    [
        (32, True, [16, 8, 8]),
        (40, True, [16, 16, 8]),
        (37, True, [16, 16, 5]),
        (31, True, [16, 8, 7]),
        (32, False, [16, 16]),
    ],
)
def test_the_last_batch_may_be_halved(count: int, ends: bool, sizes: list[int]) -> None:
    asked: list[int] = []
    taken = iter(range(count))
    groups = in_batches(taken, lambda _: 1, 16, lambda group: False, ends=lambda: asked.append(next(taken, -1)) or ends)
    assert [len(group) for group in groups] == sizes
    assert asked == [-1], "asked once, when the items are over"


@pytest.mark.parametrize("depth", [3, 8])
def test_several_threads_make_results_in_order(depth: int) -> None:
    meet = threading.Barrier(3)

    def call(i: int) -> int:
        if i < 3:
            meet.wait(timeout=20)  # broken, and so an error here, unless three calls are made at a time
        return i

    assert list(calls_ahead((lambda i=i: call(i) for i in range(9)), depth, threads=3)) == list(range(9))  # type: ignore[misc]


def test_nothing_more_is_begun_when_memory_is_full() -> None:
    made: list[int] = []
    calls = (lambda i=i: made.append(i) or i for i in range(100))  # type: ignore[misc]
    seen = []
    for result in calls_ahead(calls, 50, is_full=lambda results: len(results) >= 3):
        seen.append(result)
        assert len(made) - len(seen) <= 50
        if len(made) == 100:
            break
    assert seen[:3] == [0, 1, 2]


@pytest.mark.parametrize("keep", [False, True])
def test_what_was_begun_before_an_interruption_may_be_kept(keep: bool) -> None:
    def calls() -> Iterator[Callable[[], int]]:
        yield lambda: 1
        yield lambda: 2
        raise KeyboardInterrupt

    results = calls_ahead(calls(), 5, keep=keep)
    if keep:
        assert [next(results), next(results)] == [1, 2]
    with pytest.raises(KeyboardInterrupt):
        next(results)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_no_more_is_made_than_was_asked_for(depth: int) -> None:
    made = []
    results = calls_ahead((lambda i=i: made.append(i) or i for i in range(100)), depth)  # type: ignore[misc]
    assert next(results) == 0
    assert [next(results) for _ in range(4)] == [1, 2, 3, 4]
    results.close()
    assert len(made) <= 5 + depth
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("codeformer-ahead")]


def test_an_error_comes_in_its_place_and_the_source_is_closed() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from (1, 2)
            raise ValueError("third")
        finally:
            closed.set()

    stream = items_ahead(source(), 2)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(ValueError, match="third"):
        next(stream)
    assert closed.is_set()

    closed.clear()
    stream = items_ahead(source(), 2)
    next(stream)
    stream.close()
    assert closed.is_set()
