"""The candidate operations of an edge, and the layers that surround cells.

Source: DARTS operations.py. No convolution has a bias, BatchNorm keeps torch's eps 1e-5 and
momentum 0.1, and no ReLU works in place (an in-place ReLU would change the state that other
edges read). Shapes: B images, C channels, H x W pixels; stride 2 gives ceil(H/2) x ceil(W/2).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

    Maps of odd size get a row or column of zeros at their end, so both halves agree in size
    (the reference fails there).
    """

    def __init__(self, channels_in: int, channels: int, *, affine: bool) -> None:
        super().__init__()
        assert channels % 2 == 0, "every reducing layer follows a doubling of channels"
        self.even = nn.Conv2d(channels_in, channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(channels_in, channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = F.relu(x_BCHW)
        height, width = x_BCHW.shape[2:]
        shifted_BCHW = x_BCHW[:, :, 1:, 1:]
        if height % 2 or width % 2:
            shifted_BCHW = F.pad(shifted_BCHW, (0, width % 2, 0, height % 2))
        halves_BCHW = torch.cat([self.even(x_BCHW), self.odd(shifted_BCHW)], dim=1)
        out: Tensor = self.norm(halves_BCHW)
        return out


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    if stride == 1:
        return nn.Identity()
    return FactorizedReduce(channels, channels, affine=affine)


def _max_pool(stride: int) -> nn.Module:
    return nn.MaxPool2d(3, stride, padding=1)


def _avg_pool(stride: int) -> nn.Module:
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


_POOLS = {"max_pool_3x3": _max_pool, "avg_pool_3x3": _avg_pool}
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
