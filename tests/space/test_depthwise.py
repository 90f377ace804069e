"""Gradients of depthwise convolutions, rearranged for speed, are those of torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas_sweeps.space.depthwise import Filter, depthwise


def torchs(x: Tensor, filters: list[Filter]) -> list[Tensor]:
    return [torch.conv2d(x, w, None, s, d * (w.shape[-1] // 2), d, len(w)) for w, s, d in filters]


def case(shape: tuple[int, ...], dtype: torch.dtype, strides: tuple[int, ...]) -> list[Tensor]:
    """A map and filters of every side and dilation."""
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype).to(memory_format=torch.channels_last)
    sides = [side for side in (3, 5) for _ in (1, 2) for _ in strides]
    weights = [torch.randn(shape[1], 1, side, side, dtype=dtype) for side in sides]
    return [tensor.requires_grad_() for tensor in (x, *weights)]


def filters_of(weights: list[Tensor], strides: tuple[int, ...]) -> list[Filter]:
    shapes = [(s, d) for _ in (3, 5) for d in (1, 2) for s in strides]
    return [Filter(w, *shape) for w, shape in zip(weights, shapes, strict=True)]


SHAPES = [(2, 3, 5, 7), (1, 16, 8, 8), (3, 20, 9, 11), (2, 1, 1, 1), (5, 33, 12, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_those_of_torch(
    shape: tuple[int, ...], dtype: torch.dtype, every_map_is_large: None
) -> None:
    leaves = case(shape, dtype, (1, 2))
    filters = filters_of(leaves[1:], (1, 2))
    slopes = [torch.randn_like(out) for out in torchs(leaves[0], filters)]
    found, truth = (
        torch.autograd.grad(convolve(leaves[0], filters), leaves, slopes)
        for convolve in (depthwise, torchs)
    )
    rtol, atol = (1e-4, 1e-4) if dtype == torch.float32 else (1e-10, 1e-10)
    torch.testing.assert_close(found, truth, rtol=rtol, atol=atol)


def test_second_derivatives_are_those_of_torch(every_map_is_large: None) -> None:
    leaves = case((2, 3, 6, 5), torch.float64, (1,))
    filters = filters_of(leaves[1:], (1,))
    seconds = []
    for convolve in (depthwise, torchs):
        loss = sum((out.pow(3).sum() for out in convolve(leaves[0], filters)), torch.zeros(()))
        firsts = torch.autograd.grad(loss, leaves, create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in firsts), leaves))
    torch.testing.assert_close(*seconds, rtol=1e-9, atol=1e-9)
