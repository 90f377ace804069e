"""Whole networks by kernels, against the golden values and the plain form, in float64."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from golden_fill import alphas, checksum, fill, goldens, inp
from torch import Tensor

from nas_sweeps.space.genotype import OPERATIONS
from nas_sweeps.space.network import DropPath, Network
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.space.supernet import Supernet
from nas_sweeps.train.bilevel import second_order

GOLDEN = goldens()["supernet"]


def golden_pass(columns: int) -> tuple[Supernet, list[Tensor], Tensor, Tensor, list[Tensor]]:
    net = fill(Supernet(4, 3, 10, OPERATIONS[8 - columns :]))
    assert isinstance(net, Supernet)
    net.form = "triton"
    leaves = [alpha.requires_grad_() for alpha in alphas(columns)]
    activate = torch.sigmoid if columns == 7 else lambda alpha: alpha.softmax(-1)
    weights = [activate(alpha) for alpha in leaves]
    logits = net(inp(4, 3, 16), *weights)
    loss = F.cross_entropy(logits, torch.arange(4))
    gradients = torch.autograd.grad(loss, [*leaves, *net.parameters()], allow_unused=True)
    return net, weights, logits, loss, [g for g in gradients if g is not None]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("columns", "name"), [(8, "softmax8"), (7, "sigmoid7")])
def test_a_supernet_has_the_golden_loss_logits_and_gradients(columns: int, name: str) -> None:
    net, weights, logits, loss, gradients = golden_pass(columns)
    golden = GOLDEN[name]
    close = {"rel": 1e-8, "abs": 1e-11}
    assert loss.item() == pytest.approx(golden["loss"], rel=1e-10)
    assert logits.flatten().tolist() == pytest.approx(golden["logits"], **close)
    assert gradients[0].flatten().tolist() == pytest.approx(golden["dan"], **close)
    assert gradients[1].flatten().tolist() == pytest.approx(golden["dar"], **close)
    plain = fill(Supernet(4, 3, 10, OPERATIONS[8 - columns :]))
    assert isinstance(plain, Supernet)
    plain.form = "plain"
    plain_loss = F.cross_entropy(plain(inp(4, 3, 16), *weights), torch.arange(4))
    expected = torch.autograd.grad(plain_loss, list(plain.parameters()))
    for gradient, reference in zip(gradients[2:], expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-9, atol=1e-11)
    if columns == 8:
        tested = net.eval()(inp(4, 3, 16), *weights)
        assert tested.flatten().tolist() == pytest.approx(
            golden["eval_logits_after_one_train_forward"], **close
        )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_second_order_is_that_of_the_plain_form() -> None:
    """Finite differences of a small radius: two sides, unrolled weights, their own statistics."""
    torch.manual_seed(0)
    operations = ("none", "skip_connect", "sep_conv_3x3", "avg_pool_3x3")
    plain = Supernet(2, 3, 4, operations).double()
    plain.form = "plain"
    lanes = deepcopy(plain)
    lanes.form = "triton"
    starts = [torch.randn(14, len(operations), dtype=torch.float64) for _ in range(2)]
    x, y = torch.randn(2, 3, 3, 8, 8, dtype=torch.float64), torch.randint(4, (2, 3))

    def gradients(net: Supernet) -> list[Tensor]:
        leaves = [start.clone().requires_grad_() for start in starts]
        names = [name for name, _ in net.named_parameters()]
        weights = list(net.parameters())

        def loss_on(half: int, own_statistics: bool):  # type: ignore[no-untyped-def]
            def loss(values, points):  # type: ignore[no-untyped-def]
                state = dict(zip(names, values, strict=True))
                if own_statistics:
                    state |= {name: b.clone() for name, b in net.named_buffers()}
                mixing = [point.softmax(-1) for point in points]
                logits = torch.func.functional_call(net, state, (x[half], *mixing))
                return F.cross_entropy(logits, y[half])

            return loss

        return second_order(
            loss_on(0, False), loss_on(1, True), weights, leaves, buffers=[None] * len(weights),
            lr=0.1, momentum=0.9, weight_decay=3e-4, radius=1e-6,
        )  # fmt: skip

    for gradient, reference in zip(gradients(lanes), gradients(plain), strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-6, atol=1e-8)
    statistics = dict(plain.named_buffers())
    for name, buffer in lanes.named_buffers():
        torch.testing.assert_close(buffer, statistics[name], rtol=1e-9, atol=1e-11)


class Shared(DropPath):
    """Draws row by row, in the order in which the plain form asks for each."""

    def __init__(self, probability: float | Tensor, generator: torch.Generator | None) -> None:
        super().__init__(0.4, torch.Generator().manual_seed(5))

    def factors(self, like: Tensor, *size: int) -> Tensor:
        if len(size) == 4:
            return super().factors(like, *size)
        return torch.stack([super(Shared, self).factors(like, size[1]) for _ in range(size[0])])


GENOTYPES = {  # and where drop path is; the last has a node without inputs
    "DARTS_V2": "edge",
    "PC_DARTS": "edge",
    "PDARTS": "node",
    "GDAS_V1": "edge",
    "FairDARTS_c": "node",
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "DARTS_V2" else pytest.mark.slow) for n in GENOTYPES]
)
def test_the_network_of_a_genotype_is_the_plain_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas_sweeps.space.network.DropPath", Shared)
    torch.manual_seed(0)
    where = "node" if GENOTYPES[name] == "node" else "edge"
    plain = Network(PUBLISHED[name], 2, 3, 10, drop_path_on=where).double()
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
    lanes = deepcopy(plain)
    lanes.form = "triton"
    x, y = torch.randn(3, 3, 6, 6, dtype=torch.float64), torch.arange(3)

    def train(net: Network) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        logits = net(x, 0.4)[0]
        loss = F.cross_entropy(logits, y)
        return logits, torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)

    (logits, gradients), (expected, references) = train(lanes), train(plain)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    for gradient, reference in zip(gradients, references, strict=True):
        if reference is None:
            assert gradient is None or not gradient.any()
        else:
            torch.testing.assert_close(gradient, reference, rtol=1e-8, atol=1e-10)
    statistics = dict(plain.named_buffers())
    for key, buffer in lanes.named_buffers():
        torch.testing.assert_close(buffer, statistics[key], rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        tested = lanes.eval()(x)[0]
        torch.testing.assert_close(tested, plain.eval()(x)[0], rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["train", "fresh_eval"])
def test_a_network_has_the_golden_logits(mode: str) -> None:
    key = f"FairDARTS_a/C4/L3/{mode}"
    golden = goldens()["evalnet_inp_4_3_32"][key]["logits"]
    net = fill(Network(PUBLISHED["FairDARTS_a"], 4, 3, 10))
    assert isinstance(net, Network)
    net.form = "triton"
    with torch.no_grad():
        logits = net.train(mode == "train")(inp(4, 3, 32))[0]
    expected = (golden["sum"], golden["wsum"], golden["norm"])
    assert checksum(logits) == pytest.approx(expected, rel=1e-8, abs=1e-10)
