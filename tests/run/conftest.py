"""A cluster of Ray that tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from codeformer.extras import installed
from codeformer.options import RayOptions
from codeformer.run import ray_cluster


@pytest.fixture
def ray() -> None:
    """Ray is installed, and not imported here, as it is not before a run."""
    if not installed("ray"):
        pytest.skip("Ray is not installed: pip install '.[ray]'")


@pytest.fixture(scope="package")
def shared() -> Iterator[RayOptions]:
    """One cluster for the tests that leave it as it was."""
    if not installed("ray"):
        pytest.skip("Ray is not installed: pip install '.[ray]'")
    with ray_cluster.local_cluster(RayOptions(workers=2)) as address:
        yield RayOptions(address, workers=2)
