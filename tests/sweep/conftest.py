"""One Ray session, with logical GPUs, for all tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    from nas_sweeps.sweep import ray_tune

    ray_tune.ray.init(
        address="local",  # never a cluster that happens to run here
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=40,
    )
    yield
    ray_tune.ray.shutdown()
