"""Depthwise convolutions of one map by many filters, with a backward pass that stays fast.

On a CPU torch's depthwise convolution (oneDNN) is as fast forward as memory allows, whatever the
filter; backward it is so for 3x3 without dilation only, and up to thirty times slower for the
others. So the gradients are put in terms of what is fast:

* of the input, stride 1: the same convolution of the output's gradient with the filter turned
  by 180 degrees;
* of a filter with dilation 2: pixels of different parity never meet, so the four parity maps
  are four images without dilation;
* of a 5x5 filter: its taps are those of four 3x3 filters that read shifted maps.

Elsewhere (another device, autocast, small maps, a gradient that is itself differentiated) torch's
own gradients are used. Shapes: B images, C channels, H x W pixels;
filters are (C, 1, k, k), padded so that stride 1 keeps the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

SMALL = 2**14  # values of a map; below, one call of torch's takes less time than three of ours


class Filter(NamedTuple):
    """One depthwise convolution (C, 1, k, k); a dilated one has stride 1 or reads every pixel."""

    weight: Tensor
    stride: int = 1
    dilation: int = 1


def depthwise(x_BCHW: Tensor, filters: Sequence[Filter]) -> list[Tensor]:
    """The map convolved with each filter."""
    if x_BCHW.device.type != "cpu" or torch.is_autocast_enabled(x_BCHW.device.type):
        return [_convolve(x_BCHW, *one) for one in filters]
    shapes = tuple((one.stride, one.dilation) for one in filters)
    return list(_Depthwise.apply(shapes, x_BCHW, *(one.weight for one in filters)))


class _Depthwise(Function):
    @staticmethod
    def forward(
        ctx: Any, shapes: tuple[tuple[int, int], ...], x: Tensor, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.shapes = shapes
        ctx.save_for_backward(x, *weights)
        return tuple(_convolve(x, w, *shape) for w, shape in zip(weights, shapes, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        wanted = [False, *ctx.needs_input_grad[1:]]
        filters = [Filter(w, *shape) for w, shape in zip(weights, ctx.shapes, strict=True)]
        pairs = list(zip(grads, filters, strict=True))
        d_x = _sum([_input_gradient(x, d, one) for d, one in pairs]) if wanted[1] else None
        d_weights = [
            _filter_gradient(x, d, one) if needed else None
            for (d, one), needed in zip(pairs, wanted[2:], strict=True)
        ]
        return None, d_x, *d_weights


def _convolve(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))


def _sum(parts: list[Tensor]) -> Tensor:
    total, *others = parts
    for part in others:
        total = total + part if torch.is_grad_enabled() else total.add_(part)
    return total


def _input_gradient(x: Tensor, d: Tensor, one: Filter) -> Tensor:
    if one.stride == 1 and not torch.is_grad_enabled():
        return _convolve(d, one.weight.flip(2, 3), 1, one.dilation)
    return _torch_gradients(x, d, one, wanted=0)


def _filter_gradient(x: Tensor, d: Tensor, one: Filter) -> Tensor:
    side = one.weight.shape[-1]
    fast = one.stride > 1 or (side, one.dilation) == (3, 1) or x.numel() < SMALL
    if fast or torch.is_grad_enabled():
        return _torch_gradients(x, d, one, wanted=1)
    if one.dilation == 2:
        return _filter_gradient(_parities(x), _parities(d), Filter(one.weight))
    return _five_from_three(x, d, one.weight)


def _torch_gradients(x: Tensor, d: Tensor, one: Filter, wanted: int, padding: int = -1) -> Tensor:
    """Torch's gradient of the input (0) or of the filter (1)."""
    side = one.weight.shape[-1]
    pad = [one.dilation * (side // 2) if padding < 0 else padding] * 2
    stride, dilation = [one.stride] * 2, [one.dilation] * 2
    mask = [wanted == 0, wanted == 1, False]
    gradients = torch.ops.aten.convolution_backward(
        d, x, one.weight, None, stride, pad, dilation, False, [0, 0], len(one.weight), mask
    )
    gradient: Tensor = gradients[wanted]
    return gradient


def _parities(x_BCHW: Tensor) -> Tensor:
    """The maps of even and odd rows and columns, as 4B images; odd sizes end in zeros."""
    height, width = x_BCHW.shape[2:]
    if height % 2 or width % 2:
        x_BCHW = F.pad(x_BCHW, (0, width % 2, 0, height % 2))
    parts = [x_BCHW[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


def _five_from_three(x: Tensor, d: Tensor, weight: Tensor) -> Tensor:
    """The gradient of a 5x5 filter, four 3x3 blocks that overlap nowhere in a 6x6 one."""
    height, width = x.shape[2:]
    padded = F.pad(x, (2, 3, 2, 3))
    blocks = weight.new_empty(len(weight), 1, 6, 6)
    three = Filter(weight[:, :, :3, :3])
    for i in (0, 3):
        for j in (0, 3):
            window = padded[:, :, i : i + height + 2, j : j + width + 2]
            window = window.contiguous(memory_format=torch.channels_last)
            block = _torch_gradients(window, d, three, wanted=1, padding=0)
            blocks[:, :, i : i + 3, j : j + 3] = block
    return blocks[:, :, :5, :5]
