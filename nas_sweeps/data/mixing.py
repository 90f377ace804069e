"""Images of a batch mixed in pairs, on their device, without waiting for it.

Every image is mixed with the one before it in the batch, the first with the last. A pass is
shuffled, so that is a random pairing, as a permutation drawn anew would be. One share is drawn for
a whole batch, as in the papers' own code. Shapes: B images, 3 channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nas_sweeps.trial import RetrainRecipe, SearchRecipe


class Mixed(NamedTuple):
    """A mixed batch."""

    images_B3SS: Tensor
    share: Tensor  # scalar: how much of each image is its own; the rest is its partner's


def partner_of(values_B: Tensor) -> Tensor:
    """What each image's partner has: that of the image before it."""
    return values_B.roll(1, 0)


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed: ``mixup`` or ``cutmix``, by Beta(a, a), with a probability."""

    cut: bool
    a: float
    probability: float = 1.0

    @classmethod
    def of(cls, recipe: SearchRecipe | RetrainRecipe) -> Mixing | None:
        """That of a recipe; None where nothing is mixed."""
        a = recipe.cutmix or recipe.mixup
        return cls(bool(recipe.cutmix), a, recipe.mix_probability) if a else None

    def __call__(self, x_B3SS: Tensor, generator: torch.Generator) -> Mixed:
        """Mix a batch of normalised images."""
        share = beta(self.a, generator, x_B3SS.device)
        if self.probability < 1:
            drawn = torch.rand((), generator=generator, device=x_B3SS.device)
            share = torch.where(drawn < self.probability, share, 1.0)
        if not self.cut:
            return mixup(x_B3SS, share)
        return cutmix(x_B3SS, share, generator)


def beta(a: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """A draw from Beta(a, a), a float64 scalar: X / (X + Y) of two draws from Gamma(a)."""
    parts = torch.full((2,), a, dtype=torch.float64, device=device)
    parts = torch._standard_gamma(parts, generator=generator)
    return parts[0] / parts.sum()


def mixup(x_B3SS: Tensor, share: Tensor) -> Mixed:
    """share times an image plus the rest of its partner (Zhang et al. 2018, arXiv 1710.09412)."""
    share = share.to(x_B3SS.dtype)
    return Mixed(torch.lerp(partner_of(x_B3SS), x_B3SS, share), share)


def cutmix(x_B3SS: Tensor, share: Tensor, generator: torch.Generator) -> Mixed:
    """A box of the partner in each image (Yun et al. 2019, arXiv 1905.04899, Eq 2).

    Its sides are sqrt(1 - share) of the image's, rounded down, its centre is uniform over the
    pixels, and the borders clip it; the share that is returned is what the box leaves (CutMix
    train.py).
    """
    size, device = x_B3SS.shape[-1], x_B3SS.device
    half = (size * (1 - share).sqrt()).floor() // 2
    centre_2 = torch.randint(size, (2,), generator=generator, device=device)
    along_S = torch.arange(size, device=device)
    first_2, last_2 = centre_2 - half, centre_2 + half
    inside_2S = (along_S >= first_2[:, None]) & (along_S < last_2[:, None])
    box_SS = inside_2S[0][:, None] & inside_2S[1][None, :]
    left = 1 - box_SS.to(x_B3SS.dtype).mean()
    return Mixed(torch.where(box_SS, partner_of(x_B3SS), x_B3SS), left)


def on_pairs(
    loss: Callable[[Tensor, Tensor], Tensor], share: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss on mixed images: by their shares, that on own labels and that on the partners'."""

    def mixed(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        own, other = loss(logits_BK, labels_B), loss(logits_BK, partner_of(labels_B))
        return share * own + (1 - share) * other

    return mixed
