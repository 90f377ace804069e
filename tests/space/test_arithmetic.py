"""The arithmetic check passes what is right, and finds and names what is wrong."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from nas_sweeps.space import arithmetic, comparison, folded, operations, supernet
from nas_sweeps.space.arithmetic import LIMITS, WrongArithmetic, check

CPU = torch.device("cpu")


def looked_at_as_in_training(x: Tensor) -> bool:
    """Faults of layout spare the reference: float64 in torch's default layout."""
    return x.dtype != torch.float64 and x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("form", ["plain", "arranged"])
def test_a_sound_device_passes_with_room_to_spare(form: str) -> None:
    before = torch.random.get_rng_state()
    checked = check(CPU, "fp32", form)
    assert checked.comparisons > 500
    assert 0 < checked.worst.size < LIMITS["fp32"][checked.worst.kind] / 3
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("form", "channels"), [(f, c) for f, all_of in arithmetic.CHANNELS.items() for c in all_of]
)
def test_both_sides_of_a_comparison_start_from_the_same_numbers(form: str, channels: int) -> None:
    for ours, plain in (
        comparison.supernets(form, channels),
        comparison.networks(form, channels),
    ):
        assert ours.form == form or form == "arranged"
        assert getattr(plain, "form", "plain") == "plain"
        theirs = plain.state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_kernels_pass_by_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of a CUDA device, but for the device; both ways to multiply channels."""
    monkeypatch.setattr(arithmetic, "SUPERNETS", ((3, (9, 7)),))
    monkeypatch.setattr(arithmetic, "NETWORKS", ((2, (29, 30)),))
    checked = check(CPU, "fp32", "triton")
    assert 0 < checked.worst.size < LIMITS["fp32"][checked.worst.kind] / 3


def test_every_operation_is_looked_at_forward_and_backward() -> None:
    seen = {
        (error.what, error.quantity)
        for one in comparison.operations_alone(4)
        for error in comparison.compare_operation(one, 3, (9, 9), CPU, torch.float32, 1)
    }
    for name in operations.OPERATIONS[1:]:
        assert (name, "output") in seen
        assert (name, "gradient of the input") in seen
        assert (name, "gradient of the weights") in seen or "pool" in name
    for cell in (comparison.GENOTYPE.normal, comparison.GENOTYPE.reduce):
        assert {operation for operation, _, _ in cell} == set(operations.OPERATIONS[1:])


class ShiftedPool(Function):
    """Torch's average pooling as it was on CUDA: the gradient forgets the padding."""

    @staticmethod
    def forward(ctx, x, stride):
        ctx.stride, ctx.size, ctx.wrong = stride, x.shape, looked_at_as_in_training(x)
        return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)

    @staticmethod
    def backward(ctx, d):
        _, channels, height, width = ctx.size
        counts = F.avg_pool2d(d.new_ones(1, 1, height, width), 3, ctx.stride, 1, divisor_override=1)
        ones = d.new_ones(channels, 1, 3, 3)
        full = F.conv_transpose2d(d / counts, ones, stride=ctx.stride, groups=channels)
        full = F.pad(
            full, (0, max(0, width + 2 - full.shape[3]), 0, max(0, height + 2 - full.shape[2]))
        )
        start = 0 if ctx.wrong else 1
        return full[:, :, start : start + height, start : start + width].contiguous(), None


def test_a_pool_whose_gradient_is_shifted_by_a_pixel_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operations, "average", ShiftedPool.apply)
    with pytest.raises(WrongArithmetic) as caught:
        check(CPU, "fp32", "arranged")
    assert re.match(
        r"avg_pool_3x3, gradient of the input, cpu, channels_last: \d\d+ % off; "
        rf"torch {re.escape(torch.__version__)}",
        str(caught.value),
    )


class StridedConvolution(Function):
    """A 1x1 convolution whose gradient of the weight is that of other memory."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight)

    @staticmethod
    def backward(ctx, d):
        x, weight = ctx.saved_tensors
        d_x = torch.nn.grad.conv2d_input(x.shape, weight, d)
        d_weight = torch.nn.grad.conv2d_weight(x, weight.shape, d)
        return d_x, 1.3 * d_weight.roll(1, 0) if x.dtype != torch.float64 else d_weight


def test_a_reduction_whose_weights_get_a_wrong_gradient_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forward(self: operations.FactorizedReduce, x: Tensor) -> Tensor:
        even, odd = operations.even_and_odd(F.relu(x))
        halves = [
            StridedConvolution.apply(even, self.even.weight),
            StridedConvolution.apply(odd, self.odd.weight),
        ]
        return self.norm(torch.cat(halves, dim=1))

    monkeypatch.setattr(operations.FactorizedReduce, "forward", forward)
    with pytest.raises(WrongArithmetic, match=r"^skip_connect, gradient of the weights, cpu"):
        check(CPU, "tf32", "plain")


def test_a_wrong_running_statistic_of_a_form_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = folded._track

    def biased(norms, mean_LC, variance_LC, count):
        right(norms, mean_LC, variance_LC * (count - 1) / count, count)

    monkeypatch.setattr(folded, "_track", biased)
    with pytest.raises(
        WrongArithmetic,
        match=r"in the arranged supernet of \w+ alone, 4 channels, running statistics, cpu, chan",
    ):
        check(CPU, "fp32", "arranged")
    monkeypatch.setattr(arithmetic, "_alone", lambda *_: iter(()))
    check(CPU, "fp32", "plain")


def test_an_operation_that_a_form_computes_wrongly_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arithmetic, "_alone", lambda *_: iter(()))
    right = supernet._two_halves
    monkeypatch.setattr(supernet, "_two_halves", lambda reduce: right(reduce).flip(1))
    with pytest.raises(
        WrongArithmetic,
        match=r"^the arranged supernet of skip_connect alone, 4 channels, logits, cpu",
    ):
        check(CPU, "bf16", "arranged")


def test_numbers_that_are_none_are_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(x: Tensor, stride: int) -> Tensor:
        out = F.avg_pool2d(x, 3, stride, 1)
        return out * float("nan") if looked_at_as_in_training(x) else out

    monkeypatch.setattr(operations, "average", broken)
    with pytest.raises(WrongArithmetic, match=r"^avg_pool_3x3, output.*: out of all proportion"):
        check(CPU, "fp32", "plain")
