from __future__ import annotations

import pytest
import torch
from golden_fill import checksum, fill, goldens, inp
from torch import nn

from nas_sweeps.space.genotype import OPERATIONS
from nas_sweeps.space.operations import FactorizedReduce, build_operation

GOLDEN = goldens()["ops_C4_inp_2_4_8_trainmode"]


@pytest.mark.parametrize("mode", ["search", "eval"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_has_the_golden_output(name: str, stride: int, mode: str) -> None:
    golden = GOLDEN[f"{name}/s{stride}/{mode}"]
    affine, pool_norm = mode == "eval", mode == "search"
    operation = fill(build_operation(name, 4, stride, affine=affine, pool_norm=pool_norm))
    out = operation(inp(2, 4, 8))
    assert list(out.shape) == golden["shape"]
    expected = (golden["sum"], golden["wsum"], golden["norm"])
    assert checksum(out) == pytest.approx(expected, rel=1e-8, abs=1e-9)
    assert sum(p.numel() for p in operation.parameters()) == golden["params"]


def test_factorized_reduce_has_the_golden_output() -> None:
    golden = GOLDEN["FactorizedReduce_4_6"]
    out = fill(FactorizedReduce(4, 6, affine=False))(inp(2, 4, 8))
    assert list(out.shape) == golden["shape"]
    expected = (golden["sum"], golden["wsum"], golden["norm"])
    assert checksum(out) == pytest.approx(expected, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("side", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_agree_on_the_size_of_their_output(name: str, stride: int, side: int) -> None:
    operation = build_operation(name, 4, stride, affine=False, pool_norm=True)
    halved = -(-side // stride)
    assert operation(torch.randn(2, 4, side, side + 1)).shape == (
        2,
        4,
        halved,
        -(-(side + 1) // stride),
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_leaves_its_input_unchanged(name: str) -> None:
    x = inp(2, 4, 8)
    fill(build_operation(name, 4, 2, affine=False, pool_norm=True))(x)
    assert torch.equal(x, inp(2, 4, 8))


def test_affine_reaches_every_norm_of_an_operation() -> None:
    for affine in (False, True):
        for name in OPERATIONS:
            operation = build_operation(name, 4, 2, affine=affine, pool_norm=False)
            norms = [m for m in operation.modules() if isinstance(m, nn.BatchNorm2d)]
            assert all(norm.affine == affine for norm in norms)


def test_unknown_operation_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"unknown operation 'sep_conv_7x7'.*dil_conv_5x5"):
        build_operation("sep_conv_7x7", 4, 1, affine=False, pool_norm=True)
