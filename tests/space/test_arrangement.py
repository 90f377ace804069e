"""The arranged supernet computes what the plain one does: the oracle's numbers, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from nas_sweeps.space.genotype import OPERATIONS
from nas_sweeps.space.plain import PlainSupernet
from nas_sweeps.space.supernet import Supernet
from nas_sweeps.train.bilevel import first_order, second_order
from nas_sweeps.train.search import frozen_statistics

Activation = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Maps this small are slower on more, and much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def softmax(alpha: Tensor) -> Tensor:
    return alpha.softmax(-1)


class Case(NamedTuple):
    operations: Sequence[str] = OPERATIONS
    activation: Activation = softmax
    channels: int = 2
    layers: int = 3
    batch: int = 3
    side: tuple[int, int] = (8, 8)


CASES = {
    "softmax8": Case(),
    "sigmoid7": Case(OPERATIONS[1:], torch.sigmoid),
    "wide": Case(channels=4, side=(12, 12), batch=2),
    "deep": Case(layers=6, side=(12, 12)),
    "odd": Case(side=(11, 9)),
    "one image": Case(batch=1, side=(13, 13)),
    "two images": Case(batch=2, layers=4, side=(10, 7)),
    "one pixel at the end": Case(batch=3, side=(4, 4)),
    "no convolutions": Case(("skip_connect", "max_pool_3x3", "none")),
    "only one kind": Case(("dil_conv_5x5",)),
    "separable alone": Case(("sep_conv_5x5", "none", "sep_conv_3x3")),
    "another order": Case(OPERATIONS[::-1], torch.sigmoid),
}


class Twins:
    """A plain and an arranged supernet with the same weights and one batch."""

    def __init__(self, case: Case, dtype: torch.dtype = torch.float64) -> None:
        torch.manual_seed(0)
        self.case = case
        size = case.channels, case.layers, 5, case.operations
        self.plain: PlainSupernet = PlainSupernet(*size).to(dtype)
        self.arranged = Supernet(*size).to(dtype)
        self.arranged.load_state_dict(self.plain.state_dict())
        images = torch.randn(2, case.batch, 3, *case.side, dtype=torch.float64).to(dtype)
        self.batches = [x.to(memory_format=torch.channels_last) for x in images]
        labels = torch.randint(5, (2, case.batch))
        self.labels = list(labels)
        alphas = torch.randn(2, 14, len(case.operations), dtype=torch.float64).to(dtype)
        self.alphas = [alpha.requires_grad_() for alpha in alphas]

    def logits(self, net: PlainSupernet, alphas: Sequence[Tensor], which: int = 0) -> Tensor:
        out: Tensor = net(self.batches[which], *(self.case.activation(a) for a in alphas))
        return out

    def loss(self, net: PlainSupernet, which: int = 0) -> Tensor:
        return F.cross_entropy(self.logits(net, self.alphas, which), self.labels[which])

    def loss_at(
        self, net: PlainSupernet, which: int
    ) -> Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]:
        names = [name for name, _ in net.named_parameters()]

        def at(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
            mixing = tuple(self.case.activation(alpha) for alpha in alphas)
            state = dict(zip(names, weights, strict=True))
            logits = functional_call(net, state, (self.batches[which], *mixing))
            return F.cross_entropy(logits, self.labels[which])

        return at


def agree(ours: Sequence[Tensor], oracle: Sequence[Tensor], names: Sequence[str]) -> None:
    """Equal but for rounding, measured against the largest gradient of the whole network.

    Behind a BatchNorm some gradients vanish but for rounding; none is compared with itself.
    """
    scale = max(tensor.abs().max().item() for tensor in oracle)
    for name, a, b in zip(names, ours, oracle, strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-8, atol=1e-10 * scale, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("name", CASES)
def test_logits_every_gradient_and_every_statistic_are_the_oracles(
    name: str, every_map_is_large: None
) -> None:
    twins = Twins(CASES[name])
    losses, gradients = [], []
    for net in (twins.arranged, twins.plain):
        loss = twins.loss(net)
        leaves = [*twins.alphas, *net.parameters()]
        losses.append(loss)
        gradients.append(torch.autograd.grad(loss, leaves))
    names = ["alpha normal", "alpha reduce", *(n for n, _ in twins.plain.named_parameters())]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)
    agree(*gradients, names)
    buffers = dict(twins.arranged.named_buffers())
    for key, buffer in twins.plain.named_buffers():
        torch.testing.assert_close(buffers[key], buffer, rtol=1e-10, atol=1e-12, msg=key)


@pytest.mark.parametrize("name", ["softmax8", "sigmoid7", "odd", "one image"])
def test_eval_mode_uses_each_edges_own_running_statistics(name: str) -> None:
    twins = Twins(CASES[name])
    with torch.no_grad():
        for key, buffer in twins.plain.named_buffers():
            if key.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    twins.arranged.load_state_dict(twins.plain.state_dict())
    before = {k: v.clone() for k, v in twins.arranged.state_dict().items()}
    gradients, outs = [], []
    for net in (twins.arranged.eval(), twins.plain.eval()):
        outs.append(twins.logits(net, twins.alphas))
        loss = F.cross_entropy(outs[-1], twins.labels[0])
        gradients.append(torch.autograd.grad(loss, [*twins.alphas, *net.parameters()]))
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-11, atol=1e-12)
    agree(*gradients, [str(i) for i in range(len(gradients[0]))])
    assert all(torch.equal(before[k], v) for k, v in twins.arranged.state_dict().items())


def test_inference_mode_tests_images() -> None:
    twins = Twins(CASES["softmax8"])
    with torch.inference_mode():
        ours, oracle = (twins.logits(n.eval(), twins.alphas) for n in (twins.arranged, twins.plain))
    torch.testing.assert_close(ours, oracle)


@pytest.mark.parametrize("name", ["softmax8", "sigmoid7", "odd"])
@pytest.mark.parametrize("order", ["first", "fd", "exact"])
def test_architecture_gradients_of_either_order_are_the_oracles(
    name: str, order: str, every_map_is_large: None
) -> None:
    twins, results = Twins(CASES[name]), []
    for net in (twins.arranged, twins.plain):
        weights = list(net.parameters())
        train, val = twins.loss_at(net, 0), twins.loss_at(net, 1)
        if order == "first":
            results.append(first_order(val, weights, twins.alphas))
            continue
        # A radius that crosses no kink of a ReLU: there the two sides round differently.
        results.append(
            second_order(
                train,
                val,
                weights,
                twins.alphas,
                buffers=[0.1 * w.detach() for w in weights],
                lr=0.025,
                momentum=0.9,
                weight_decay=3e-4,
                hvp="exact" if order == "exact" else "fd",
                radius=1e-4,
            )
        )
    rtol, atol = (1e-6, 1e-8) if order == "fd" else (1e-9, 1e-12)
    torch.testing.assert_close(results[0], results[1], rtol=rtol, atol=atol)


def test_same_seed_gives_the_same_weights_under_the_same_names() -> None:
    states = []
    for kind in (PlainSupernet, Supernet):
        torch.manual_seed(3)
        states.append(kind(4, 4, 7).state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    Supernet(4, 4, 7).load_state_dict(states[0], strict=True)
    PlainSupernet(4, 4, 7).load_state_dict(states[1], strict=True)


def test_frozen_statistics_stay_but_their_batches_are_counted() -> None:
    twins = Twins(CASES["softmax8"])
    before = {k: v.clone() for k, v in twins.arranged.named_buffers()}
    for net in (twins.arranged, twins.plain):
        with frozen_statistics(net, True):
            twins.loss(net)
    plain = dict(twins.plain.named_buffers())
    for key, buffer in twins.arranged.named_buffers():
        assert torch.equal(buffer, plain[key])
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(buffer, before[key])


def test_statistics_move_by_each_norms_own_momentum() -> None:
    twins = Twins(CASES["softmax8"])
    for net in (twins.arranged, twins.plain):
        for number, norm in enumerate(m for m in net.modules() if isinstance(m, _BatchNorm)):
            norm.momentum = 0.05 * (number % 7)
        twins.loss(net)
    plain = dict(twins.plain.named_buffers())
    for key, buffer in twins.arranged.named_buffers():
        torch.testing.assert_close(buffer, plain[key], rtol=1e-10, atol=1e-12, msg=key)


def test_a_batch_of_one_pixel_is_refused_by_both() -> None:
    twins = Twins(Case(batch=1, side=(4, 4)))
    for net in (twins.plain, twins.arranged):
        with pytest.raises(ValueError, match=r"one value per channel|more than 1 value"):
            twins.loss(net)


def test_float32_is_as_near_to_float64_as_the_plain_form_is(every_map_is_large: None) -> None:
    case = Case(channels=4, batch=8, side=(16, 16))
    exact, single = Twins(case), Twins(case, torch.float32)
    truth = torch.autograd.grad(exact.loss(exact.plain), exact.alphas)
    errors = []
    for net in (single.arranged, single.plain):
        found = torch.autograd.grad(single.loss(net), single.alphas)
        pairs = zip(found, truth, strict=True)
        errors.append(max(float((a.double() - b).norm() / b.norm()) for a, b in pairs))
    assert errors[0] < 1e-3
    assert errors[0] < 20 * errors[1]


def test_bfloat16_autocast_runs_and_resembles_float32() -> None:
    twins = Twins(Case(channels=4, batch=8, side=(16, 16)), torch.float32)
    full = twins.loss(twins.plain)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        loss = twins.loss(twins.arranged)
        gradients = torch.autograd.grad(loss, [*twins.alphas, *twins.arranged.parameters()])
    assert loss.item() == pytest.approx(full.item(), rel=0.05)
    assert all(g.isfinite().all() and g.dtype == torch.float32 for g in gradients)


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """Adds up the memory that a forward pass keeps for its backward pass."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}
        super().__init__(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self.storages.values())


def test_a_forward_pass_keeps_less_than_half_of_what_the_plain_one_keeps() -> None:
    twins, kept = Twins(Case(channels=8, batch=8, side=(16, 16)), torch.float32), []
    for net in (twins.arranged, twins.plain):
        saved = Saved()
        with saved:
            loss = twins.loss(net)
        kept.append(saved.bytes)
        del loss
    assert kept[0] < kept[1] / 2


def test_architecture_step_computes_no_gradient_of_a_filter(
    monkeypatch: pytest.MonkeyPatch, every_map_is_large: None
) -> None:
    from nas_sweeps.space import depthwise

    twins, computed = Twins(CASES["softmax8"]), []
    original = depthwise._filter_gradient
    monkeypatch.setattr(
        depthwise, "_filter_gradient", lambda *a: computed.append(1) or original(*a)
    )
    first_order(twins.loss_at(twins.arranged, 0), list(twins.arranged.parameters()), twins.alphas)
    assert not computed
    torch.autograd.grad(twins.loss(twins.arranged), list(twins.arranged.parameters()))
    assert computed


def test_every_map_of_the_arrangement_has_its_channels_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nas_sweeps.space import supernet

    seen: list[bool] = []

    def accumulate(totals: object, lanes: list[supernet.Lane]) -> object:
        seen.extend(
            lane.map_BKHW.is_contiguous(memory_format=torch.channels_last) for lane in lanes
        )
        return original(totals, lanes)  # type: ignore[arg-type]

    original = supernet.accumulate
    monkeypatch.setattr(supernet, "accumulate", accumulate)
    twins = Twins(Case(channels=4), torch.float32)
    twins.loss(twins.arranged)
    assert seen
    assert all(seen)


def test_a_replaced_classifier_is_used() -> None:
    twins = Twins(CASES["softmax8"])
    twins.arranged.classifier = nn.Linear(twins.arranged.feature_dim, 9).double()
    assert twins.logits(twins.arranged, twins.alphas).shape == (3, 9)
