"""Faces side by side on a CPU: several threads run the network, each on one face and with few cores.

The layers of a small network keep one core busy and hardly a second one: on two cores the bundled network takes 136 ms
for a face with both, and 141 ms for two faces with a core each (``scripts/benchmark.py --stage network``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from codeformer.environment import memory

T = TypeVar("T")
S = TypeVar("S")

_PARAMETERS_PER_CORE = 12_000_000  # the bundled network has 10 million, the published one 94 million
_STARTING = threading.Lock()  # PyTorch's number is the process's, and changes for a moment
_SHARE_OF_MEMORY = 4  # faces together take no more than one fourth of it


@dataclass(frozen=True)
class CorePlan:
    """How a CPU's cores are divided: so many faces at a time, each with so many cores.

    What a face's bytes are depends on its cores, and so on the network and the machine alone, not on how many faces
    there are.
    """

    faces: int
    cores: int


def plan_for(net: nn.Module, cores: int, bytes_per_face: int) -> CorePlan:
    """Return how to divide the cores for a network: as many faces as keep them busy, and fit into the memory.

    Args:
        net: the network.
        cores: how many cores it may use.
        bytes_per_face: what a face takes of the memory while it is in the network.
    """
    parameters = sum(one.numel() for one in net.parameters())
    own = max(1, min(cores, -(-parameters // _PARAMETERS_PER_CORE)))
    fitting = memory() // _SHARE_OF_MEMORY // max(1, bytes_per_face)
    faces = max(1, min(cores // own, fitting))
    return CorePlan(faces, cores // faces)


class SideBySide:
    """Threads that each run PyTorch with their own number of cores, as long as this object lives."""

    def __init__(self, plan: CorePlan) -> None:
        self._pool = ThreadPoolExecutor(plan.faces, "face-network")
        started = threading.Barrier(plan.faces + 1)

        def start() -> None:
            torch.get_num_threads()  # or its first work would take the process's number
            torch.set_num_threads(plan.cores)  # of this thread, and of those that begin before it is set back
            started.wait()

        with _STARTING:
            every = torch.get_num_threads()
            try:
                begun = [self._pool.submit(start) for _ in range(plan.faces)]
                started.wait()
                for one in begun:
                    one.result()
            except BaseException:  # the system has not so many threads, or Ctrl-C: whoever waits must not wait for ever
                started.abort()
                self._pool.shutdown(wait=False)
                raise
            finally:
                torch.set_num_threads(every)

    def each(self, run: Callable[[Sequence[S]], list[T]], items: Sequence[S]) -> list[T]:
        """Return what ``run`` gives for each item by itself, in order.

        What the first of them raises is raised, after the others have ended: their memory is free then.
        """
        begun = [self._pool.submit(run, items[i : i + 1]) for i in range(len(items))]
        errors = [error for one in begun if (error := one.exception()) is not None]
        if errors:
            raise errors[0]
        return [result for one in begun for result in one.result()]
