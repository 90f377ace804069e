"""What the package's own tests are: those of nas_sweeps, with its names."""

import pytest

from nas_sweeps.testing import (
    DatasetContract,
    LossContract,
    MethodContract,
    PoolContract,
    SamplerContract,
)


@pytest.mark.parametrize("name", ["masked_darts"])
class TestMethods(MethodContract):
    pass


@pytest.mark.parametrize("name", ["deferred"])
class TestLosses(LossContract):
    pass


@pytest.mark.parametrize("name", ["with_replacement"])
class TestSamplers(SamplerContract):
    pass


@pytest.mark.parametrize("name", ["stripes"])
class TestDatasets(DatasetContract):
    pass


@pytest.mark.parametrize("name", ["processes"])
class TestExecutors(PoolContract):
    pass
