"""What the program does with the memory it has freed."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from codeformer.memory import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
def work():
    for _ in range(20):
        [np.ones(3_000_000, np.float32) for _ in range(3)]
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(word: str, **environment: str) -> tuple[int, int]:
    own = ("GLIBC_TUNABLES", "LD_PRELOAD")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k not in own}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, word], env=clean | environment, capture_output=True, text=True, check=True
    )
    kept, faults = map(int, done.stdout.split())
    return kept, faults


@pytest.mark.skipif(sys.platform != "linux", reason="the GNU C library")
def test_freed_memory_is_used_again_instead_of_fetched_anew() -> None:
    kept, faults = run("keep")
    if not kept:
        pytest.skip("not the GNU C library")
    _, before = run("leave")
    assert before > 10_000, "60 arrays of 12 MB, page by page"
    assert faults < before / 20


@pytest.mark.skipif(sys.platform != "linux", reason="the GNU C library")
@pytest.mark.parametrize(("name", "value"), [("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")])
def test_what_the_user_has_set_stays(name: str, value: str) -> None:
    if not run("keep")[0]:
        pytest.skip("not the GNU C library")
    assert run("keep", **{name: value})[0] == 0
