from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from golden_fill import alphas, checksum, fill, goldens, inp
from torch import Tensor, nn

from nas_sweeps.space.genotype import EDGES, OPERATIONS
from nas_sweeps.space.network import count_macs, count_params
from nas_sweeps.space.operations import build_operation
from nas_sweeps.space.supernet import MixedEdge, Supernet

GOLDEN = goldens()["supernet"]
Activation = Callable[[Tensor], Tensor]
SETUPS: dict[str, tuple[int, Activation]] = {
    "softmax8": (8, lambda alpha: alpha.softmax(dim=-1)),
    "sigmoid7": (7, torch.sigmoid),
    "sigmoid8": (8, torch.sigmoid),
}
# (loss, then wsum and norm of the logits, of dL/dalpha normal and of dL/dalpha reduce)
CHECKSUMS = {
    "softmax8": (
        2.590362574679,
        (-4.6447055587, 3.6280643058),
        (-0.2507456948, 0.1725572651),
        (-0.1390757052, 0.1921430132),
    ),
    "sigmoid7": (
        6.764324311772,
        (-21.8063782502, 24.0676703418),
        (0.4638579950, 0.4006974257),
        (0.4896894299, 1.1985259509),
    ),
    "sigmoid8": (
        7.185507801788,
        (-23.7239331280, 22.2964473964),
        (-0.0627864582, 0.4838245678),
        (-0.0666979105, 1.3075554174),
    ),
}


class Pass:
    """One training forward and the gradients of both alphas, on the golden supernet."""

    def __init__(
        self, setup: str, off: int = 0, labels: range = range(4), dtype: torch.dtype = torch.float64
    ) -> None:
        columns, activation = SETUPS[setup]
        self.net = fill(Supernet(4, 3, 10, OPERATIONS[8 - columns :])).to(dtype)
        leaves = [alpha.to(dtype).requires_grad_() for alpha in alphas(columns)]
        self.weights = [activation(alpha) for alpha in leaves]
        self.logits = self.net(inp(4, 3, 16, off).to(dtype), *self.weights)
        self.loss = F.cross_entropy(self.logits, torch.tensor(labels))
        self.normal, self.reduce = torch.autograd.grad(self.loss, leaves)


@pytest.fixture(scope="module")
def passes() -> dict[str, Pass]:
    return {setup: Pass(setup) for setup in SETUPS}


def close(values: list[float]) -> object:
    return pytest.approx(values, rel=1e-8, abs=1e-11)


@pytest.mark.parametrize("setup", SETUPS)
def test_loss_logits_and_gradients_have_the_golden_checksums(
    setup: str, passes: dict[str, Pass]
) -> None:
    done = passes[setup]
    loss, *tensors = CHECKSUMS[setup]
    assert done.loss.item() == pytest.approx(loss, rel=1e-10)
    for tensor, expected in zip((done.logits, done.normal, done.reduce), tensors, strict=True):
        assert checksum(tensor)[1:] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("setup", ["softmax8", "sigmoid7"])
def test_logits_and_gradients_equal_the_golden_arrays(setup: str, passes: dict[str, Pass]) -> None:
    done, golden = passes[setup], GOLDEN[setup]
    assert done.loss.item() == pytest.approx(golden["loss"], rel=1e-10)
    assert done.logits.flatten().tolist() == close(golden["logits"])
    assert done.normal.flatten().tolist() == close(golden["dan"])
    assert done.reduce.flatten().tolist() == close(golden["dar"])


def test_first_order_gradient_on_the_validation_batch_is_golden() -> None:
    done, golden = Pass("softmax8", off=10**6, labels=range(4, 8)), GOLDEN["first_order_val"]
    assert done.loss.item() == pytest.approx(golden["loss"], rel=1e-10)
    assert done.normal.flatten().tolist() == close(golden["dan"])
    assert done.reduce.flatten().tolist() == close(golden["dar"])
    assert checksum(done.normal)[1:] == pytest.approx((-0.0741371583, 0.1815775940), rel=1e-8)
    assert checksum(done.reduce)[1:] == pytest.approx((-0.0428238892, 0.1715659360), rel=1e-8)


@pytest.mark.parametrize(
    ("key", "momentum_buffer"),
    [
        ("second_order_exact_xi.025_wd3e-4", 0.0),
        ("second_order_exact_with_momentum_buffer_0.1w", 0.1),
    ],
)
def test_gradient_through_one_weight_step_is_golden(key: str, momentum_buffer: float) -> None:
    golden = GOLDEN[key]
    net = fill(Supernet(4, 3, 10))
    leaves = [alpha.requires_grad_() for alpha in alphas(8)]
    weights = dict(net.named_parameters())

    def loss(parameters: dict[str, Tensor], off: int, labels: range) -> Tensor:
        mixing = tuple(alpha.softmax(dim=-1) for alpha in leaves)
        logits = torch.func.functional_call(net, parameters, (inp(4, 3, 16, off), *mixing))
        return F.cross_entropy(logits, torch.tensor(labels))

    step = torch.autograd.grad(loss(weights, 0, range(4)), [*weights.values()], create_graph=True)
    stepped = {
        name: w - 0.025 * (0.9 * momentum_buffer * w.detach() + g + 3e-4 * w.detach())
        for (name, w), g in zip(weights.items(), step, strict=True)
    }
    outer = loss(stepped, 10**6, range(4, 8))
    assert outer.item() == pytest.approx(golden["loss"], rel=1e-10)
    normal, reduce = torch.autograd.grad(outer, leaves)
    assert normal.flatten().tolist() == close(golden["dan"])
    assert reduce.flatten().tolist() == close(golden["dar"])


def test_testing_after_one_training_forward_uses_its_statistics() -> None:
    done = Pass("softmax8")
    logits = done.net.eval()(inp(4, 3, 16), *done.weights)
    expected = GOLDEN["softmax8"]["eval_logits_after_one_train_forward"]
    assert logits.flatten().tolist() == close(expected)
    assert checksum(logits)[1:] == pytest.approx((1.0900711244, 2.4491996506), rel=1e-8)


def test_softmax_gradients_sum_to_zero_on_every_edge(passes: dict[str, Pass]) -> None:
    for gradient in (passes["softmax8"].normal, passes["softmax8"].reduce):
        assert gradient.sum(dim=1).abs().max() < 1e-14


def test_none_receives_a_gradient_of_exactly_zero(passes: dict[str, Pass]) -> None:
    for gradient in (passes["sigmoid8"].normal, passes["sigmoid8"].reduce):
        assert torch.equal(gradient[:, 0], torch.zeros(14, dtype=torch.float64))
        assert (gradient[:, 1:] != 0).all()


def test_training_logits_sum_to_zero_over_the_batch(passes: dict[str, Pass]) -> None:
    for done in passes.values():
        assert done.logits.sum(dim=0).abs().max() < 1e-11


def test_float32_stays_close_to_float64(passes: dict[str, Pass]) -> None:
    single = Pass("softmax8", dtype=torch.float32)
    assert checksum(single.logits)[1] == pytest.approx(-4.6447055587, rel=1e-4)
    assert single.loss.item() == pytest.approx(2.590362574679, rel=1e-5)
    assert (single.normal.double() - passes["softmax8"].normal).abs().max() < 1e-3


def test_mixed_edge_is_the_weighted_sum_of_all_operations() -> None:
    edge = fill(MixedEdge(OPERATIONS, 4, 2))
    weights, x = torch.linspace(0.1, 0.8, 8, dtype=torch.float64), inp(2, 4, 8)
    terms = [
        weight * fill(build_operation(name, 4, 2, affine=False, pool_norm=True))(x)
        for name, weight in zip(OPERATIONS, weights, strict=True)
    ]
    torch.testing.assert_close(edge(x, weights.unbind()), torch.stack(terms).sum(dim=0))


def test_order_of_the_operations_only_permutes_the_columns() -> None:
    x, (normal, reduce) = inp(2, 3, 8), alphas(8)
    straight = fill(Supernet(2, 3, 5))(x, normal, reduce)
    flipped = fill(Supernet(2, 3, 5, OPERATIONS[::-1]))(x, normal.flip(1), reduce.flip(1))
    torch.testing.assert_close(flipped, straight)


@pytest.mark.parametrize("name", goldens()["params"]["supernet"])
def test_parameter_count_is_golden(name: str) -> None:
    channels, layers, classes = (int(part.strip("CLnc")) for part in name.split("_"))
    with torch.device("meta"):
        count = count_params(Supernet(channels, layers, classes))
    assert count == goldens()["params"]["supernet"][name]


def test_default_supernet_has_the_golden_parts() -> None:
    with torch.device("meta"):
        net, seven = Supernet(16, 8, 10), Supernet(16, 8, 10, OPERATIONS[1:])
    assert count_params(net.stem) == 1392
    cells = [45888, 46144, 144000, 137856, 139904, 484608, 460032, 468224]
    assert [count_params(cell) for cell in net.cells] == cells
    assert count_params(net.classifier) == 2570
    assert count_params(seven) == count_params(net) == 1930618
    assert [cell.reduction for cell in net.cells] == [i in (2, 5) for i in range(8)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == 1395
    assert len(norms) == 929
    assert sum(norm.affine for norm in norms) == 1


def test_default_supernet_takes_the_golden_number_of_macs() -> None:
    net = Supernet(16, 8, 10)
    assert count_macs(net, 32) == 300_255_744


def test_parameters_are_named_by_cell_edge_and_operation() -> None:
    names = {name for name, _ in Supernet(2, 3, 5).named_parameters()}
    assert "cells.2.edges.0_3.sep_conv_5x5.first.depthwise.weight" in names
    edges = {name.split(".")[3] for name in names if ".edges." in name}
    assert edges == {f"{source}_{node}" for source, node in EDGES}


def test_channels_last_images_stay_channels_last_in_every_layer() -> None:
    net, strays = Supernet(4, 3, 10), []

    def check(module: nn.Module, inputs: object, out: Tensor) -> None:
        if out.dim() == 4 and not out.is_contiguous(memory_format=torch.channels_last):
            strays.append(type(module).__name__)

    for module in net.modules():
        if not isinstance(module, (Supernet, nn.ModuleList)):
            module.register_forward_hook(check)
    x = torch.randn(2, 3, 16, 16).to(memory_format=torch.channels_last)
    net(x, *(alpha.float() for alpha in alphas(8)))
    assert strays == []


@pytest.mark.parametrize("side", [8, 9, 15])
def test_small_and_odd_images_pass(side: int) -> None:
    net = Supernet(2, 4, 5, in_channels=1)
    weights = [alpha.float() for alpha in alphas(8)]
    x = torch.randn(2, 1, side, side)
    assert net.features(x, *weights).shape == (2, net.feature_dim)
    assert net(x, *weights).shape == (2, 5)


def test_fewer_than_three_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="layers=2"):
        Supernet(4, 2, 10)


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (("none",), "beside none"),
        (("skip_connect", "skip_connect"), "twice"),
        (("skip_connect", "conv"), "unknown operation 'conv'"),
    ],
)
def test_unusable_operation_lists_are_refused(operations: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Supernet(4, 3, 10, operations)


def test_weights_of_another_shape_are_refused_by_name() -> None:
    eight, seven = torch.ones(14, 8), torch.ones(14, 7)
    with pytest.raises(ValueError, match=r"weights_reduce_EO: shape \(14, 7\)"):
        Supernet(2, 3, 10)(torch.randn(2, 3, 8, 8), eight, seven)
