"""On a machine with a GPU, all kernels of these tests are compiled first, by all its cores."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    if torch.cuda.is_available():
        from nas_sweeps.space.lanes.ready import warm_up
        from tests.gpu.kernels import needs

        warm_up(needs(), torch.device("cuda"), tell=print)
