"""Kernels against modules, in float64 by Triton's interpreter: the algebra is exact."""

from __future__ import annotations

import pytest
import torch

from nas_sweeps.space.lanes.cell import run_cell
from tests.space.lanes.cells import MIXED, Case, compute, inputs_of, make, worst_difference

EXACT = 1e-11  # rounding of float64 through four nodes; a wrong term is far above

GENOTYPE = (  # node 3 has no inputs; two operations on one edge
    ("sep_conv_3x3", 0, 2),
    ("max_pool_3x3", 0, 2),
    ("skip_connect", 1, 2),
    ("dil_conv_3x3", 2, 4),
    ("avg_pool_3x3", 1, 4),
    ("skip_connect", 2, 5),
    ("sep_conv_5x5", 4, 5),
)
FEW = (  # every kind of lane once more, of the other sizes; a node that reads another
    ("sep_conv_5x5", 0, 2),
    ("dil_conv_3x3", 1, 2),
    ("max_pool_3x3", 0, 2),
    ("avg_pool_3x3", 2, 3),
    ("skip_connect", 1, 3),
)
CASES = {
    "stride 1": Case(),
    "stride 2": Case(stride=2, side=(6, 4)),
    "stride 2, odd sizes": Case(FEW, stride=2, side=(5, 7), batch=2),
    "channels that are no power of two": Case(FEW, channels=3),
    "two blocks of channels": Case(FEW, channels=20, side=(3, 3), batch=2),
    "stored products, stride 2": Case(FEW, channels=6, stride=2),
    "running statistics": Case(FEW, training=False),
    "a genotype": Case(GENOTYPE, affine=True, pool_norm=False, weighted=False),
    "a genotype, stride 2, drop path": Case(
        GENOTYPE, affine=True, pool_norm=False, weighted=False, drop=True, stride=2
    ),
    "a genotype, running statistics, 3 channels": Case(
        GENOTYPE, 3, affine=True, pool_norm=False, weighted=False, training=False
    ),
    "nothing to learn": Case((("max_pool_3x3", 0, 2), ("skip_connect", 1, 2)), pool_norm=False),
    "one operation": Case((("dil_conv_5x5", 0, 2),)),
    "one image": Case(FEW, batch=1),
}


EVERYTHING = pytest.param("stride 1", marks=pytest.mark.system)  # by far the longest


@pytest.mark.parametrize("name", [EVERYTHING, *(name for name in CASES if name != "stride 1")])
def test_outputs_and_all_gradients_are_those_of_the_modules(name: str) -> None:
    case = CASES[name]
    plain, lanes = make(case)
    expected = compute(plain, case, kernels=False)
    assert worst_difference(compute(lanes, case, kernels=True), expected) < EXACT


@pytest.mark.small_tiles
@pytest.mark.parametrize("stride", [1, 2])
def test_many_tiles_give_what_one_gives(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas_sweeps.space.lanes import backward, shape

    for module in (shape, backward):
        monkeypatch.setattr(module, "VALUES", 64)
    monkeypatch.setattr(shape, "PROGRAMS", 4)  # several tiles a program
    case = Case(MIXED[:4], side=(5, 4), stride=stride, batch=3)
    plain, lanes = make(case)
    expected = compute(plain, case, kernels=False)
    assert worst_difference(compute(lanes, case, kernels=True), expected) < EXACT


def test_the_same_call_gives_the_same_bits() -> None:
    case = Case(FEW)
    one, two = (compute(make(case)[1], case, kernels=True) for _ in range(2))
    assert torch.equal(one.out, two.out)
    assert torch.equal(one.weights, two.weights)
    assert all(torch.equal(one.parameters[n], two.parameters[n]) for n in one.parameters)


def test_gradients_of_edge_weights_alone_are_the_same() -> None:
    """An architecture step asks for nothing else, and kernels leave out what it does not need."""
    case = CASES["stride 2"]
    expected = compute(make(case)[0], case, kernels=False)
    _, lanes = make(case)
    states, weights, _ = inputs_of(case)
    assert weights is not None
    for parameter in lanes.parameters():
        parameter.requires_grad_(False)
    out = run_cell(lanes.table(), states[0], states[1], 2, weights.requires_grad_())
    seed = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad(out, [weights], seed)
    torch.testing.assert_close(gradient, expected.weights, rtol=EXACT, atol=EXACT)


def test_weights_given_in_place_of_the_modules_own_are_used() -> None:
    """The second order computes losses at other weights, and at statistics of their own."""
    case = Case(MIXED[:4])
    plain, lanes = make(case)
    states, weights, _ = inputs_of(case)
    other = {n: p.detach() * 1.5 + 0.1 for n, p in plain.named_parameters()}
    buffers = {n: b.clone() for n, b in lanes.named_buffers()}
    before = {n: b.clone() for n, b in lanes.named_buffers()}
    table = lanes.table()

    class Call(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = lanes

        def forward(self) -> torch.Tensor:
            return run_cell(table, states[0], states[1], 1, weights)

    state = {f"cell.{n}": t for n, t in (other | buffers).items()}
    out = torch.func.functional_call(Call(), state, ())
    expected = torch.func.functional_call(plain, other, (states, weights, None))
    torch.testing.assert_close(out, expected, rtol=EXACT, atol=EXACT)
    assert all(torch.equal(b, before[n]) for n, b in lanes.named_buffers())
    assert not all(torch.equal(b, before[n]) for n, b in buffers.items())


def test_gradients_lie_as_their_parameters_do() -> None:
    """Fused optimisers go through both as they lie in memory."""
    case = CASES["a genotype"]
    _, lanes = make(case)
    lanes.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compute(lanes, case, kernels=True)
    for parameter in lanes.parameters():
        assert parameter.grad is not None
        longer = [
            (a, b)
            for a, b, size in zip(
                parameter.stride(), parameter.grad.stride(), parameter.shape, strict=True
            )
            if size > 1
        ]
        assert all(a == b for a, b in longer)


def test_a_cell_cannot_be_differentiated_twice() -> None:
    case = CASES["one operation"]
    _, lanes = make(case)
    states, weights, _ = inputs_of(case)
    assert weights is not None
    out = run_cell(lanes.table(), states[0], states[1], 1, weights.requires_grad_())
    (slope,) = torch.autograd.grad(out.square().sum(), [weights], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_bfloat16_maps_are_as_near_as_bfloat16_is() -> None:
    case = Case(MIXED[:4], channels=3)  # the interpreter cannot multiply bfloat16, a library can
    plain, lanes = (cell.float() for cell in make(case))
    states, weights, _ = inputs_of(case)
    assert weights is not None
    states = [s.float() for s in states]
    expected = plain(states, weights.float(), None)
    with torch.autocast("cpu", torch.bfloat16):
        out = run_cell(lanes.table(), states[0], states[1], 1, weights.float())
    assert out.dtype == torch.bfloat16
    error = float((out.float() - expected).detach().norm() / expected.detach().norm())
    assert error < 2e-2  # 2^-8 for each of a handful of roundings
