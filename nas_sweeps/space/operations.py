"""The candidate operations of an edge, and the layers that surround cells.

Source: DARTS operations.py. No convolution has a bias, BatchNorm keeps torch's eps 1e-5 and
momentum 0.1, and no ReLU works in place (an in-place ReLU would change the state that other
edges read). Shapes: B images, C channels, H x W pixels; stride 2 gives ceil(H/2) x ceil(W/2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from nas_sweeps.space.genotype import OPERATIONS


class Zero(nn.Module):
    """``none``: no connection."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.zeros_like(x_BCHW[:, :, :: self.stride, :: self.stride])


class Pool(nn.Module):
    """3x3 pooling, followed in a supernet by BatchNorm so that it competes at equal scale."""

    def __init__(self, pool: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.pool = pool
        self.norm = norm

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = self.norm(self.pool(x_BCHW))
        return out


class AveragePool(nn.Module):
    """3x3 average of the pixels under the window that are in the map."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return average(x_BCHW, self.stride)


def average(x_BCHW: Tensor, stride: int) -> Tensor:
    """``AveragePool`` as a function; differentiable any number of times."""
    out: Tensor = _Average.apply(x_BCHW, stride)
    return out


class _Average(Function):
    """Forward torch pools with padding right. Its own backward is not to be trusted everywhere,
    so the gradient is the sum of the shares of the windows that a pixel lies in."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, stride: int) -> Tensor:
        ctx.stride, ctx.size = stride, x_BCHW.shape
        ctx.layout = _layout(x_BCHW)
        return F.avg_pool2d(x_BCHW, 3, stride, padding=1, count_include_pad=False)

    @staticmethod
    def backward(ctx: Any, d_BCHW: Tensor) -> tuple[Tensor, None]:
        # Counted on the device every time: a recorded step may not be sent numbers of the host's.
        inside = d_BCHW.new_ones(1, 1, *ctx.size[2:])
        shares = d_BCHW / F.avg_pool2d(inside, 3, ctx.stride, padding=1, divisor_override=1)
        if ctx.stride > 1:  # each at the centre of its window
            centres = shares.new_zeros(ctx.size).contiguous(memory_format=ctx.layout)
            centres[:, :, :: ctx.stride, :: ctx.stride] = shares
            shares = centres
        return _sum_of_windows(shares), None


class _SumOfWindows(Function):
    """3x3 sums with stride 1: a symmetric linear map, so forward and backward are the same."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor) -> Tensor:
        return F.avg_pool2d(x_BCHW, 3, 1, padding=1, divisor_override=1)

    @staticmethod
    def backward(ctx: Any, d_BCHW: Tensor) -> Tensor:
        return _sum_of_windows(d_BCHW)


def _sum_of_windows(x_BCHW: Tensor) -> Tensor:
    out: Tensor = _SumOfWindows.apply(x_BCHW)
    return out


def _layout(x_BCHW: Tensor) -> torch.memory_format:
    last = x_BCHW.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


class DepthwiseSeparable(nn.Module):
    """ReLU, depthwise k x k convolution, pointwise convolution, BatchNorm."""

    def __init__(
        self, channels: int, kernel: int, stride: int, *, dilation: int = 1, affine: bool
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels,
            channels,
            kernel,
            stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=channels,
            bias=False,
        )
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = self.norm(self.pointwise(self.depthwise(F.relu(x_BCHW))))
        return out


class SepConv(nn.Module):
    """``sep_conv``: two depthwise separable convolutions, the first one strided."""

    def __init__(self, channels: int, kernel: int, stride: int, *, affine: bool) -> None:
        super().__init__()
        self.first = DepthwiseSeparable(channels, kernel, stride, affine=affine)
        self.second = DepthwiseSeparable(channels, kernel, 1, affine=affine)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x_BCHW))
        return out


class DilConv(DepthwiseSeparable):
    """``dil_conv``: one depthwise separable convolution with dilation 2."""

    def __init__(self, channels: int, kernel: int, stride: int, *, affine: bool) -> None:
        super().__init__(channels, kernel, stride, dilation=2, affine=affine)


class ReluConvNorm(nn.Module):
    """ReLU, 1x1 convolution, BatchNorm: brings a cell's input to its channels."""

    def __init__(self, channels_in: int, channels: int, *, affine: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(F.relu(x_BCHW)))
        return out


class FactorizedReduce(nn.Module):
    """Halve the maps with two 1x1 convolutions, the second on pixels shifted by (1, 1).

    The pixels are gathered first, and the convolutions have stride 1.

    Maps of odd size get a row or column of zeros at their end, so both halves agree in size
    (the reference fails there).
    """

    def __init__(self, channels_in: int, channels: int, *, affine: bool) -> None:
        super().__init__()
        assert channels % 2 == 0, "every reducing layer follows a doubling of channels"
        self.even = nn.Conv2d(channels_in, channels // 2, 1, bias=False)
        self.odd = nn.Conv2d(channels_in, channels // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        even_BCHW, odd_BCHW = even_and_odd(x_BCHW)
        halves_BCHW = torch.cat([self.even(F.relu(even_BCHW)), self.odd(F.relu(odd_BCHW))], dim=1)
        out: Tensor = self.norm(halves_BCHW)
        return out


def even_and_odd(x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels at even places, and those one below and to the right; zeros past the end."""
    height, width = x_BCHW.shape[2:]
    odd_BCHW = _every_second(x_BCHW, 1)
    if height % 2 or width % 2:
        odd_BCHW = F.pad(odd_BCHW, (0, width % 2, 0, height % 2))
    return _every_second(x_BCHW, 0), odd_BCHW


def _every_second(x_BCHW: Tensor, first: int) -> Tensor:
    """Every second pixel of both sides. The gradient has the layout of the map: that of a slice
    is contiguous in the slice's own order of dimensions, and a gradient in another layout than
    its map is copied by every operation that meets it."""
    if _layout(x_BCHW) is torch.contiguous_format:
        return x_BCHW[:, :, first::2, first::2]
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)
    return x_BHWC[:, first::2, first::2].permute(0, 3, 1, 2)


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    if stride == 1:
        return nn.Identity()
    return FactorizedReduce(channels, channels, affine=affine)


def _max_pool(stride: int) -> nn.Module:
    return nn.MaxPool2d(3, stride, padding=1)


_POOLS: dict[str, Callable[[int], nn.Module]] = {
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": AveragePool,
}
_OTHERS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "none": lambda channels, stride, affine: Zero(stride),
    "skip_connect": _skip,
    "sep_conv_3x3": lambda channels, stride, affine: SepConv(channels, 3, stride, affine=affine),
    "sep_conv_5x5": lambda channels, stride, affine: SepConv(channels, 5, stride, affine=affine),
    "dil_conv_3x3": lambda channels, stride, affine: DilConv(channels, 3, stride, affine=affine),
    "dil_conv_5x5": lambda channels, stride, affine: DilConv(channels, 5, stride, affine=affine),
}


def build_operation(
    name: str, channels: int, stride: int, *, affine: bool, pool_norm: bool
) -> nn.Module:
    """Build one operation that keeps ``channels`` and divides height and width by ``stride``.

    Args:
        name: one of ``OPERATIONS``.
        channels: of the input and of the output; even where ``stride`` is 2.
        stride: 1 or 2.
        affine: whether BatchNorm has a learnable scale and shift (evaluation networks).
        pool_norm: whether pooling is followed by a BatchNorm without affine (supernets).

    Raises:
        ValueError: the operation is unknown.
    """
    if name in _POOLS:
        norm = nn.BatchNorm2d(channels, affine=False) if pool_norm else nn.Identity()
        return Pool(_POOLS[name](stride), norm)
    if name not in _OTHERS:
        raise ValueError(f"unknown operation '{name}'; choose from {', '.join(OPERATIONS)}")
    return _OTHERS[name](channels, stride, affine)


def build_stem(in_channels: int, channels: int) -> nn.Sequential:
    """3x3 convolution and affine BatchNorm, without ReLU (DARTS model.py)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
    )


def build_preprocess(channels_in: int, channels: int, *, shrink: bool, affine: bool) -> nn.Module:
    """Bring a cell's input to ``channels``, halving its maps where ``shrink``."""
    layer = FactorizedReduce if shrink else ReluConvNorm
    return layer(channels_in, channels, affine=affine)
