"""For tests: contracts for methods, losses, samplers, data sets and executors; a run of no time.

The contract tests need pytest.

In a test file of yours::

    import pytest
    from nas_sweeps.testing import MethodContract


    @pytest.mark.parametrize("name", ["sharp_darts"])
    class TestSharpDARTS(MethodContract):
        pass

The names are those that an entry point of yours, or your module when it is imported, registers.

``FakeRun`` trains nothing and takes a millisecond an epoch: see ``nas_sweeps.testing.fake``.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "nas_sweeps.testing.datasets",
    "nas_sweeps.testing.losses",
    "nas_sweeps.testing.methods",
    "nas_sweeps.testing.pools",
    "nas_sweeps.testing.samplers",
)

from nas_sweeps.testing.datasets import DatasetContract  # noqa: E402  what they assert is shown
from nas_sweeps.testing.fake import FakeRetrain, FakeRun, FakeSearch  # noqa: E402
from nas_sweeps.testing.losses import LossContract  # noqa: E402
from nas_sweeps.testing.methods import MethodContract  # noqa: E402
from nas_sweeps.testing.pools import PoolContract  # noqa: E402
from nas_sweeps.testing.samplers import SamplerContract  # noqa: E402

__all__ = [
    "DatasetContract",
    "FakeRetrain",
    "FakeRun",
    "FakeSearch",
    "LossContract",
    "MethodContract",
    "PoolContract",
    "SamplerContract",
]
