"""Colour operations on batches, with a factor for each image. Images are float in [0, 1].

The formulas and constants are torchvision's (transforms/functional), without its rounding to
integers. Shapes: B images, 3 channels, H x W pixels.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

# ColorJitter(0.4, 0.4, 0.2, 0.1) with p = 0.8: facebookresearch/barlowtwins main.py.
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1
JITTER_P = 0.8
SOLARIZE_FROM = 128 / 255
LUMA = (0.2989, 0.587, 0.114)


def gray(x_B3HW: Tensor) -> Tensor:
    """Luminance, shape (B, 1, H, W)."""
    red, green, blue = x_B3HW.unbind(1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).unsqueeze(1)


def solarize(x_B3HW: Tensor, where_B111: Tensor) -> Tensor:
    """Invert the bright values of the images where ``where_B111`` is true."""
    inverted = (x_B3HW >= SOLARIZE_FROM) & where_B111
    return torch.lerp(x_B3HW, 1.0 - x_B3HW, inverted.float())  # faster than torch.where on a CPU


def brightness(x_B3HW: Tensor, factor_B111: Tensor) -> Tensor:
    """Scale towards black (0) or beyond the original (1)."""
    return (x_B3HW * factor_B111).clamp_(0.0, 1.0)


def contrast(x_B3HW: Tensor, factor_B111: Tensor) -> Tensor:
    """Blend with the mean luminance of the image."""
    mean_B111 = gray(x_B3HW).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean_B111, x_B3HW, factor_B111).clamp_(0.0, 1.0)


def saturation(x_B3HW: Tensor, factor_B111: Tensor) -> Tensor:
    """Blend with the luminance of each pixel."""
    return torch.lerp(gray(x_B3HW), x_B3HW, factor_B111).clamp_(0.0, 1.0)


def hue(x_B3HW: Tensor, turn_B111: Tensor) -> Tensor:
    """Rotate the hue by a share of the full circle, in [-0.5, 0.5]; value and chroma stay.

    HSV without the detour: hue h in sixths of the circle, then each channel is
    value - chroma * clamp(2 - distance, 0, 1), where distance is that from h to the channel's
    opposite on a circle of circumference 6.
    """
    red, green, blue = x_B3HW.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    per_chroma = chroma.clamp(min=1e-12).reciprocal_()  # gray pixels: every difference is 0
    sixths = (red - green).mul_(per_chroma).add_(4.0)  # blue is largest, unless one of these is
    sixths.lerp_((blue - red).mul_(per_chroma).add_(2.0), (value == green).float())
    sixths.lerp_((green - blue).mul_(per_chroma), (value == red).float())
    sixths += turn_B111[:, 0] * 6.0
    out_B3HW = torch.empty_like(x_B3HW)
    for channel, opposite in enumerate((3.0, 5.0, 1.0)):  # cyan, magenta, yellow... in sixths
        away = (sixths - opposite).abs_()
        share = torch.minimum(away, (away - 6.0).abs_()).neg_().add_(2.0).clamp_(0.0, 1.0)
        torch.sub(value, share.mul_(chroma), out=out_B3HW[:, channel])
    return out_B3HW


OPERATIONS = (brightness, contrast, saturation, hue)


def jitter(x_B3HW: Tensor, generator: torch.Generator) -> Tensor:
    """ColorJitter: the four operations in random order, on four images of five.

    Each image draws its own factors and whether it is changed. Orders: four neighbours share a
    random order and start it at different places, so each image's order is uniform over all
    24 and, with no look at the drawn values, exactly a quarter of the batch needs each
    operation in each round.
    """
    batch, device = len(x_B3HW), x_B3HW.device
    blocks = -(-batch // 4)
    factors_4N = _factors(4 * blocks, generator, device)
    drawn = torch.randint(24, (blocks,), generator=generator, device=device)
    turn_N4 = _orders(device)[drawn]  # the round in which a block's first image gets an operation
    first_N = torch.arange(0, 4 * blocks, 4, device=device)
    x_B3HW = F.pad(x_B3HW, (0, 0, 0, 0, 0, 0, 0, 4 * blocks - batch))
    for turn in range(4):
        for column, operation in enumerate(OPERATIONS):
            at_N = first_N + (turn - turn_N4[:, column]) % 4
            factor = factors_4N[column, at_N].view(-1, 1, 1, 1)
            x_B3HW.index_copy_(0, at_N, operation(x_B3HW[at_N], factor))
    return x_B3HW[:batch]


def _factors(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """One factor an operation and image, (4, count); neutral where an image is not changed."""
    spread, neutral = _ranges(device)
    draws = torch.rand(5, count, generator=generator, device=device)
    factors = neutral + spread * (2.0 * draws[:4] - 1.0)
    return torch.where(draws[4] < JITTER_P, factors, neutral)


@lru_cache(maxsize=16)
def _ranges(device: torch.device) -> tuple[Tensor, Tensor]:
    spread = torch.tensor([BRIGHTNESS, CONTRAST, SATURATION, HUE]).view(4, 1)
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0]).view(4, 1)
    return spread.to(device), neutral.to(device)


@lru_cache(maxsize=16)
def _orders(device: torch.device) -> Tensor:
    return torch.tensor(list(permutations(range(4)))).to(device)
