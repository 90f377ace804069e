"""The data sets that need no network keep the contract."""

from __future__ import annotations

import pytest

from nas_sweeps.testing import DatasetContract


@pytest.mark.parametrize("name", ["digits"])
class TestDatasets(DatasetContract):
    pass
