"""``--engine ray`` on clusters that lose a node, or whose object store is too small for what it is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from codeformer.options import RayOptions
from codeformer.run.inputs import NamedInput
from codeformer.run.ray_cluster import _prepare
from codeformer.run.ray_pool import Sent, lost_input, ray_outcomes
from codeformer.run.tally import Outcome
from tests.run import ray_jobs

pytestmark = pytest.mark.slow

STORE = 80 << 20  # bytes: about the least that Ray takes


@contextmanager
def nodes(count: int) -> Iterator[tuple[RayOptions, list[Any]]]:
    """Start a cluster of nodes with a core each, on this machine; the first one stays."""
    _prepare("local")
    utils = pytest.importorskip("ray.cluster_utils")
    one = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    cluster = utils.Cluster(initialize_head=True, head_node_args=one)
    try:
        others = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(count - 1)]
        yield RayOptions(cluster.address, workers=count), [cluster, *others]
    finally:
        cluster.shutdown()


def test_a_lost_node_loses_nothing(tmp_path: Path) -> None:
    """Its worker starts nowhere else, and the other one does its block too."""
    names = [f"tick{number}" for number in range(30)]
    jobs = (Sent(NamedInput(Path(f"{name}.png"), name, f"/{name}.png")) for name in [*names, "bad"])
    outcomes: list[Outcome] = []
    with nodes(2) as (options, (cluster, other)):
        for outcome in ray_outcomes(jobs, partial(ray_jobs.make, tmp_path), options, lost_input, block=2):
            outcomes.append(outcome)
            if len(outcomes) == 4:
                cluster.remove_node(other, allow_graceful=False)
    assert sorted(one.path.stem for one in outcomes) == sorted([*names, "bad"]), "nothing lost, nothing twice"
    assert [one.path.stem for one in outcomes if one.error] == ["bad"]
    assert len(set((tmp_path / "nodes").read_text().split())) == 2, "both nodes have worked"


def test_an_object_store_that_is_full_loses_nothing() -> None:
    """The blocks together are twice as large as the store, which spills to the disk."""
    names = [f"{number}" for number in range(160)]
    with nodes(1) as (options, _):
        jobs = (ray_jobs.heavy(name) for name in names)
        found = list(ray_outcomes(jobs, ray_jobs.weigh, options, _lost, block=4))
    assert sorted(one.path.name for one in found) == sorted(names) and not any(one.error for one in found)


def _lost(job: tuple[str, bytes], error: Exception) -> Outcome:
    raise AssertionError(f"{job[0]} was lost")
