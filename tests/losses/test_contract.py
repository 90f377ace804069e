"""What every registered loss promises the loops."""

from __future__ import annotations

import pytest

from nas_sweeps.losses import names
from nas_sweeps.testing import LossContract


@pytest.mark.parametrize("name", names())
class TestEveryLoss(LossContract):
    pass
