from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from golden_fill import alphas as golden_alphas
from golden_fill import checksum, fill, goldens, inp
from torch import Tensor, nn
from torch.func import functional_call

from nas_sweeps.space.supernet import Supernet
from nas_sweeps.train.bilevel import _sgd_step, first_order, second_order

HVPS = ("fd", "exact")
LossAt = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def second(train: LossAt, val: LossAt, w: Tensor, a: Tensor, **knobs: Any) -> list[float]:
    defaults: dict[str, Any] = {"buffers": [None], "momentum": 0.9, "weight_decay": 0.0}
    (gradient,) = second_order(train, val, [w], [a], **(defaults | knobs))
    assert not gradient.requires_grad
    values: list[float] = gradient.tolist()
    return values


# P1: one weight, one alpha, quadratic: the difference is exact


def p1_train(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
    return 0.5 * (weights[0] - 2 * alphas[0]).square().sum()


def p1_val(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
    return 0.5 * (weights[0] - 1).square().sum() + 0.05 * alphas[0].square().sum()


def test_first_order_ignores_how_the_weights_react() -> None:
    (gradient,) = first_order(p1_val, [leaf(0.5)], [leaf(0.3)])
    assert gradient.tolist() == pytest.approx([0.03], rel=1e-12)


@pytest.mark.parametrize("hvp", HVPS)
@pytest.mark.parametrize(
    ("lr", "weight_decay", "buffer", "golden"),
    [
        (0.025, 3e-4, 0.2, 0.0048998125),
        (0.025, 3e-4, 0.0, 0.0051248125),
        (0.025, 3e-4, None, 0.0051248125),
        (0.1, 0.0, 0.0, -0.068),
    ],
)
def test_second_order_solves_the_scalar_problem(
    hvp: str, lr: float, weight_decay: float, buffer: float | None, golden: float
) -> None:
    buffers = [None if buffer is None else vector(buffer)]
    knobs = {"lr": lr, "weight_decay": weight_decay, "buffers": buffers, "hvp": hvp}
    assert second(p1_train, p1_val, leaf(0.5), leaf(0.3), **knobs) == pytest.approx(
        [golden], rel=1e-10
    )


# P2: two weights, two alphas, a curved valley


H, A = vector(2, 0.5, 0.5, 1).view(2, 2), vector(1, -1, 0.5, 2).view(2, 2)


def p2_train(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
    away = weights[0] - A @ alphas[0]
    return 0.5 * away @ H @ away


def p2_val(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
    w = weights[0]
    return 0.5 * (w - vector(1, -2)).square().sum() + 0.5 * w @ A @ alphas[0]


def test_first_order_solves_the_planar_problem() -> None:
    (gradient,) = first_order(p2_val, [leaf(0.3, -0.7)], [leaf(0.2, 0.4)])
    assert gradient.tolist() == pytest.approx([-0.025, -0.85], rel=1e-12)


@pytest.mark.parametrize("hvp", HVPS)
def test_second_order_solves_the_planar_problem(hvp: str) -> None:
    knobs = {"lr": 0.025, "weight_decay": 3e-4, "buffers": [vector(0.1, -0.05)], "hvp": hvp}
    found = second(p2_train, p2_val, leaf(0.3, -0.7), leaf(0.2, 0.4), **knobs)
    assert found == pytest.approx([-0.020691995312, -0.724379309375], rel=1e-10)


def test_the_validation_loss_sees_the_unrolled_weights() -> None:
    seen: list[list[float]] = []

    def val(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
        seen.append(weights[0].tolist())
        return p2_val(weights, alphas)

    knobs = {"lr": 0.025, "weight_decay": 3e-4, "buffers": [vector(0.1, -0.05)]}
    second(p2_train, val, leaf(0.3, -0.7), leaf(0.2, 0.4), **knobs)
    assert seen == [pytest.approx([0.29274775, -0.66511975], rel=1e-12)]


# P3: cubic, so the difference depends on its radius


def p3_train(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
    return (weights[0] ** 3 * alphas[0]).sum()


def p3_val(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
    return 0.5 * (weights[0] - 1).square().sum()


@pytest.mark.parametrize(
    ("hvp", "w", "a", "golden"),
    [
        ("fd", (0.5,), (0.3,), (0.039192725,)),
        ("exact", (0.5,), (0.3,), (0.0391875,)),
        ("fd", (0.5, -0.2), (0.3, 0.1), (0.039188331323, 0.014424500831)),
        ("exact", (0.5, -0.2), (0.3, 0.1), (0.0391875, 0.0144144)),
    ],
)
def test_the_two_points_of_the_difference_are_a_hundredth_away_in_norm(
    hvp: str, w: tuple[float, ...], a: tuple[float, ...], golden: tuple[float, ...]
) -> None:
    found = second(p3_train, p3_val, leaf(*w), leaf(*a), lr=0.1, hvp=hvp)
    assert found == pytest.approx(golden, rel=1e-10)


def test_a_smaller_radius_approaches_the_exact_gradient() -> None:
    w, a = leaf(0.5, -0.2), leaf(0.3, 0.1)
    found = second(p3_train, p3_val, w, a, lr=0.1, hvp="fd", radius=1e-5)
    assert found == pytest.approx([0.0391875, 0.0144144], rel=1e-7)


# Promises


@pytest.mark.parametrize("hvp", HVPS)
def test_weights_alphas_and_buffers_are_not_touched(hvp: Literal["fd", "exact"]) -> None:
    w, a, buffer = leaf(0.3, -0.7), leaf(0.2, 0.4), vector(0.1, -0.05)
    before = [t.detach().clone() for t in (w, a, buffer)]
    second_order(
        p2_train,
        p2_val,
        [w],
        [a],
        buffers=[buffer],
        lr=0.025,
        momentum=0.9,
        weight_decay=3e-4,
        hvp=hvp,
    )
    assert all(torch.equal(x, y) for x, y in zip((w, a, buffer), before, strict=True))
    assert w.grad is None
    assert a.grad is None


@pytest.mark.parametrize("hvp", HVPS)
def test_weights_that_a_loss_does_not_use_count_as_zero(hvp: Literal["fd", "exact"]) -> None:
    knobs: dict[str, Any] = {"lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4, "hvp": hvp}
    idle = leaf(4.0, 5.0, 6.0)
    with_idle = second_order(
        p2_train, p2_val, [leaf(0.3, -0.7), idle], [leaf(0.2, 0.4)], buffers=[None, None], **knobs
    )
    without = second_order(
        p2_train, p2_val, [leaf(0.3, -0.7)], [leaf(0.2, 0.4)], buffers=[None], **knobs
    )
    assert with_idle[0].tolist() == pytest.approx(without[0].tolist(), rel=1e-10)


@pytest.mark.parametrize("hvp", HVPS)
def test_a_validation_loss_that_ignores_the_weights_leaves_the_first_order(hvp: str) -> None:
    def val(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
        return alphas[0].square().sum()

    assert second(p1_train, val, leaf(0.5), leaf(0.3), lr=0.1, hvp=hvp) == [0.6]


@pytest.mark.parametrize("hvp", HVPS)
def test_a_training_loss_that_ignores_alpha_leaves_the_first_order(hvp: str) -> None:
    def train(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
        return 0.5 * weights[0].square().sum() + 0 * alphas[0].sum()

    (plain,) = first_order(p1_val, [leaf(0.5)], [leaf(0.3)])
    assert second(train, p1_val, leaf(0.5), leaf(0.3), lr=0.1, hvp=hvp) == plain.tolist()


@pytest.mark.parametrize(
    ("lr", "betas", "golden"),
    [
        (
            3e-4,
            (0.5, 0.999),
            {1: (0.300299999996, -0.099700000001), 3: (0.300899923414, -0.099100025505)},
        ),
        (
            3e-3,
            (0.9, 0.999),
            {1: (0.302999999957, -0.097000000014), 3: (0.308998740105, -0.091000413078)},
        ),
    ],
)
def test_adam_with_coupled_weight_decay_is_the_reference_architecture_optimiser(
    lr: float, betas: tuple[float, float], golden: dict[int, tuple[float, float]]
) -> None:
    alpha = leaf(0.3, -0.1)
    adam = torch.optim.Adam([alpha], lr, betas=betas, weight_decay=1e-3)
    for step in (1, 2, 3):
        alpha.grad = (alpha - vector(1, 2)).detach()
        adam.step()
        if step in golden:
            assert alpha.tolist() == pytest.approx(golden[step], abs=1e-12)


# The supernet


class Problem:
    """The golden supernet: C=4, L=3, 10 classes, softmax over 8 operations, train mode."""

    def __init__(self) -> None:
        self.model = Supernet(4, 3, 10)
        fill(self.model)
        self.names = [name for name, _ in self.model.named_parameters()]
        self.weights: list[Tensor] = list(self.model.parameters())
        self.alphas = [alpha.clone().requires_grad_() for alpha in golden_alphas(8)]
        self.val_losses: list[float] = []

    def train(self, weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
        return self._loss(weights, alphas, inp(4, 3, 16), torch.arange(4))

    def val(self, weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
        loss = self._loss(weights, alphas, inp(4, 3, 16, off=10**6), torch.arange(4, 8))
        self.val_losses.append(loss.item())
        return loss

    def _loss(
        self, weights: Sequence[Tensor], alphas: Sequence[Tensor], x: Tensor, y: Tensor
    ) -> Tensor:
        state = dict(zip(self.names, weights, strict=True))
        state |= {name: b.clone() for name, b in self.model.named_buffers()}
        logits = functional_call(self.model, state, (x, *(a.softmax(-1) for a in alphas)))
        return F.cross_entropy(logits, y)

    def second_order(self, buffer: float | None = None, **knobs: Any) -> list[Tensor]:
        buffers = [None if buffer is None else buffer * w.detach() for w in self.weights]
        knobs |= {"lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4, "buffers": buffers}
        return second_order(self.train, self.val, self.weights, self.alphas, **knobs)


@pytest.fixture
def problem() -> Problem:
    return Problem()


def assert_golden(gradients: list[Tensor], golden: dict[str, Any]) -> None:
    for gradient, flat in zip(gradients, (golden["dan"], golden["dar"]), strict=True):
        expected = torch.tensor(flat, dtype=torch.float64).view(14, 8)
        assert torch.allclose(gradient, expected, rtol=1e-8, atol=1e-12)


def assert_checksums(
    gradients: list[Tensor], golden: Sequence[tuple[float, float]], rel: float
) -> None:
    for gradient, (wsum, norm) in zip(gradients, golden, strict=True):
        assert checksum(gradient)[1:] == pytest.approx((wsum, norm), rel=rel)


def test_first_order_on_the_supernet_is_golden(problem: Problem) -> None:
    gradients = first_order(problem.val, problem.weights, problem.alphas)
    golden = goldens()["supernet"]["first_order_val"]
    assert_golden(gradients, golden)
    assert problem.val_losses == pytest.approx([golden["loss"]], rel=1e-10)


@pytest.mark.parametrize(
    ("buffer", "key"),
    [
        (None, "second_order_exact_xi.025_wd3e-4"),
        (0.1, "second_order_exact_with_momentum_buffer_0.1w"),
    ],
)
def test_exact_second_order_on_the_supernet_is_golden(
    problem: Problem, buffer: float | None, key: str
) -> None:
    golden = goldens()["supernet"][key]
    assert_golden(problem.second_order(buffer, hvp="exact"), golden)
    assert problem.val_losses == pytest.approx([golden["loss"]], rel=1e-10)


def test_the_reference_difference_on_the_supernet_is_golden(problem: Problem) -> None:
    gradients = problem.second_order(hvp="fd")
    golden = ((0.0419771258525, 0.319688103157), (-0.119823158519, 0.294265827073))
    assert_checksums(gradients, golden, rel=1e-8)


def test_a_tiny_radius_in_float64_agrees_with_exact_on_the_supernet(problem: Problem) -> None:
    gradients = problem.second_order(hvp="fd", radius=1e-6)
    golden = ((-0.0302135184628, 0.185356876318), (-0.0543398027788, 0.189610563177))
    assert_checksums(gradients, golden, rel=1e-7)
    exact = goldens()["supernet"]["second_order_exact_xi.025_wd3e-4"]
    for gradient, flat in zip(gradients, (exact["dan"], exact["dar"]), strict=True):
        expected = torch.tensor(flat, dtype=torch.float64).view(14, 8)
        assert torch.allclose(gradient, expected, rtol=0, atol=1e-8)


def test_a_training_loss_that_never_reaches_the_classifier_still_has_a_second_order(
    problem: Problem,
) -> None:
    def features(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
        state = dict(zip(problem.names, weights, strict=True))
        edge_weights = tuple(a.softmax(-1) for a in alphas)
        model: nn.Module = _Features(problem.model)
        prefixed = {f"supernet.{name}": w for name, w in state.items()}
        pooled: Tensor = functional_call(model, prefixed, (inp(4, 3, 16), *edge_weights))
        return pooled.square().mean()

    for hvp in HVPS:
        gradients = second_order(
            features,
            features,
            problem.weights,
            problem.alphas,
            buffers=[None] * len(problem.weights),
            lr=0.025,
            momentum=0.9,
            weight_decay=3e-4,
            hvp=hvp,  # type: ignore[arg-type]
        )
        assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)


class _Features(nn.Module):
    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self.supernet = supernet

    def forward(self, x: Tensor, normal: Tensor, reduce: Tensor) -> Tensor:
        return self.supernet.features(x, normal, reduce)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_step_of_all_weights_at_once_is_that_of_each_in_float64(device: str) -> None:
    """``foreach`` on the device, in layouts that training has: filters by channels, else as is."""
    draw = torch.Generator().manual_seed(0)
    sizes = [(16, 1, 5, 5), (32, 16, 1, 1), (16, 3, 3, 3), (10, 256), (10,)]

    def given() -> list[Tensor]:
        return [torch.randn(size, generator=draw) for size in sizes]

    def placed(values: list[Tensor]) -> list[Tensor]:
        last = torch.channels_last
        return [v.to(device, memory_format=last) if v.dim() == 4 else v.to(device) for v in values]

    weights, slopes, buffers = given(), given(), [None, *given()[1:]]
    moving = [None if b is None else b.to(device) for b in buffers]  # another layout
    rate = torch.tensor(0.1, device=device)
    got = _sgd_step(placed(weights), placed(slopes), moving, rate, 0.9, 0.3)
    for new, w, slope, buffer in zip(got, weights, slopes, buffers, strict=True):
        step = slope.double() + 0.3 * w.double()
        step += 0 if buffer is None else 0.9 * buffer.double()
        expected = w.double() - rate.double().cpu() * step
        torch.testing.assert_close(new.double().cpu(), expected, rtol=1e-6, atol=1e-6)
