"""A cluster of Ray that tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

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
    root = str(Path(__file__).parents[2])
    with pytest.MonkeyPatch.context() as patch:  # workers import `tests`, in whatever folder a test before was
        patch.setenv("PYTHONPATH", root, prepend=os.pathsep)
        with ray_cluster.local_cluster(RayOptions(workers=2)) as address:
            yield RayOptions(address, workers=2)
