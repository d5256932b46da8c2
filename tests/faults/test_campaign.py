"""The campaign of faults, one round of each family; ``python -m tests.faults`` tries more and prints a table."""

import os
from pathlib import Path

import pytest

if os.name != "posix":
    pytest.skip("signals, limits and links of POSIX", allow_module_level=True)

from tests.faults.__main__ import table
from tests.faults.place import Place, Trial
from tests.faults.trials import FAMILIES


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_everything_holds(tmp_path: Path, family: str) -> None:
    trials = list(FAMILIES[family](Place(tmp_path, seed=1), 1))
    assert trials and not [trial for trial in trials if trial.lost], table(trials)


def test_the_table_counts() -> None:
    trials = [Trial("a", "1"), Trial("a", "2", "hangs"), Trial("b", "1")]
    rows = [line.split() for line in table(trials).splitlines()]
    assert rows[1:] == [["a", "2", "1", "1"], ["b", "1", "1", "0"], ["all", "3", "2", "1"]]
