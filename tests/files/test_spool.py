"""What a run sets aside on the disk behaves as what Python holds in memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer.files.spool import SeenSet, Spool, Table, in_order, packed_text, unpacked_text

texts = st.text(st.characters(codec=None), max_size=8)  # lone surrogates too: paths have them


@given(st.lists(texts))
@settings(deadline=None)
def test_seen_is_a_set(keys: list[str]) -> None:
    seen, known = SeenSet(), set[str]()
    for key in keys:
        assert seen.add(packed_text(key)) is (key not in known)
        known.add(key)
        assert packed_text(key) in seen
    assert packed_text("not " + "".join(keys)) not in seen


@given(st.lists(texts))
@settings(deadline=None)
def test_a_spool_is_a_sequence(items: list[str]) -> None:
    spool = Spool(packed_text, unpacked_text, items)
    assert list(spool) == items and len(spool) == len(items) and list(spool[1:]) == items[1:]
    if items:
        assert spool[-1] == items[-1] and spool[0] == items[0]
    with pytest.raises(IndexError):
        spool[len(items)]


def test_a_spool_of_many() -> None:
    spool = Spool(packed_text, unpacked_text, map(str, range(2500)))
    assert list(spool) == list(map(str, range(2500)))


@given(st.dictionaries(texts, texts))
@settings(max_examples=50, deadline=None)
def test_a_table_is_a_dict(pairs: dict[str, str]) -> None:
    table = Table(pairs.items())
    assert {key: table[key] for key in pairs} == pairs and len(table) == len(pairs)
    assert set(table) == {key for key in pairs if key}  # no path is empty
    assert table.get("none of them" * 3) is None
    for key in pairs:
        del table[key]
    assert len(table) == 0


@given(st.lists(st.text(min_size=1, max_size=5), unique=True), st.integers(1, 4))
@settings(deadline=None)
def test_names_are_sorted_in_memory_as_on_the_disk(names: list[str], most: int) -> None:
    assert list(in_order(names, most)) == sorted(names)
