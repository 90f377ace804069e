"""One Ray session, with logical GPUs, for all tests that need one, and fake trials on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    import nas_sweeps.sweep.ray_tune  # noqa: F401  it sets what Ray reads when it is imported

    # isort: split
    import ray

    ray.init(
        address="local",  # never a cluster that happens to run here
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=40,
    )
    yield
    ray.shutdown()


@pytest.fixture
def fake_actors(fake_runs: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """``fake_runs`` in the actors of the session, which began with another environment.

    Returns:
        What they get in their environment. A test may add to it before its run.
    """
    from nas_sweeps.sweep.entry import run_in_worker
    from tests.faked import SWITCH

    given = dict(SWITCH)

    def run_faked(*arguments: Any) -> Any:
        os.environ.update(given)
        return run_in_worker(*arguments)

    monkeypatch.setattr("nas_sweeps.sweep.ray_tune.run_in_worker", run_faked)
    return given
