"""Samplers: which training images a pass goes through, and in which order. No torch at import.

A sampler is a frozen dataclass below ``Sampler``; its name is what ``recipe.sampler`` may say, and
its fields are knobs, ``sampler: {effective: {beta: 0.999}}``, every one with a default::

    @register("head_first")
    @dataclass(frozen=True, slots=True, kw_only=True)
    class HeadFirst(Sampler):
        def order(self, labels_N, generator):
            return labels_N.argsort(stable=True)

Another package offers one through the entry-point group ``nas_sweeps.samplers``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Gt, Lt

from nas_sweeps.registry import Registry

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler(ABC):
    """The order of the images that weights are trained on with their labels.

    It has no say in batches of V, on which the architecture is chosen, nor where no label is
    read.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "allow_inf_nan": False}

    @abstractmethod
    def order(self, labels_N: Tensor, generator: Generator) -> Tensor:
        """Positions in ``labels_N``: what one pass goes through.

        As many as ``length`` says, some perhaps twice and some not at all, drawn from
        ``generator`` alone. Both tensors are int64 and lie on the generator's device.
        """

    def length(self, counts: Sequence[int]) -> int:
        """How many images a pass has, where a class has so many: by default as many as there are.

        Steps and seconds of an epoch follow it.
        """
        return sum(counts)


SAMPLERS: Registry[Sampler] = Registry("sampler", Sampler, "nas_sweeps.samplers")
register = SAMPLERS.register


@register("shuffle")
@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffle(Sampler):
    """Every image once."""

    def order(self, labels_N: Tensor, generator: Generator) -> Tensor:
        """A random permutation."""
        return _permutation(len(labels_N), generator)


@register("balanced")
@dataclass(frozen=True, slots=True, kw_only=True)
class Balanced(Sampler):
    """Every class equally often, and every image of a class as often as any other.

    Of N images in K classes, a pass holds N // K of each class, and one more of N % K classes
    that are drawn anew. A class's images are each taken equally often or once less; which are
    taken once more is drawn anew. (Class-balanced sampling with replacement, as in arXiv
    1910.09217, has these counts on average only.)
    """

    def order(self, labels_N: Tensor, generator: Generator) -> Tensor:
        """A random permutation of such a pass."""
        import torch

        classes = torch.unique(labels_N).tolist()
        each, over = divmod(len(labels_N), len(classes))
        more = set(_permutation(len(classes), generator)[:over].tolist())
        parts = []
        for k, label in enumerate(classes):
            own = (labels_N == label).nonzero().flatten()
            quota = each + (k in more)
            whole, rest = divmod(quota, len(own))
            parts += [own] * whole + [own[_permutation(len(own), generator)[:rest]]]
        taken = torch.cat(parts)
        return taken[_permutation(len(taken), generator)]


@dataclass(frozen=True, slots=True, kw_only=True)
class WithReplacement(Sampler):
    """Images drawn one by one with replacement; a pass is as long as without a sampler."""

    @abstractmethod
    def share(self, counts_K: Tensor) -> Tensor:
        """How likely a class is, up to a constant; counts (K,) are float64 and above 0."""

    def order(self, labels_N: Tensor, generator: Generator) -> Tensor:
        """Every image of a class is as likely as any other of it."""
        import torch

        counts_K = labels_N.bincount().double()
        share_K = torch.where(counts_K > 0, self.share(counts_K.clamp(min=1)), 0.0)
        weights_N = (share_K / counts_K.clamp(min=1))[labels_N]
        return weights_N.multinomial(len(labels_N), replacement=True, generator=generator)


@register("over")
@dataclass(frozen=True, slots=True, kw_only=True)
class Over(WithReplacement):
    """Every class as likely as any other: over-sampling (Buda et al. 2018, arXiv 1710.05381).

    A pass is as long as without a sampler; ``balanced`` has these counts exactly.
    """

    def share(self, counts_K: Tensor) -> Tensor:
        """All alike."""
        import torch

        return torch.ones_like(counts_K)


@register("sqrt")
@dataclass(frozen=True, slots=True, kw_only=True)
class SquareRoot(WithReplacement):
    """A class is as likely as the root of its count (Mahajan et al. 2018, arXiv 1805.00932).

    A pass is as long as without a sampler.
    """

    def share(self, counts_K: Tensor) -> Tensor:
        """Half way, in exponents, from the counts to equal classes."""
        return counts_K.sqrt()


@register("effective")
@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveNumber(WithReplacement):
    """An image is as likely as (1 - beta) / (1 - beta^n), n that of its class (LDAM utils.py).

    So classes are nearly as likely as each other, the largest a little more. A pass is as long as
    without a sampler.
    """

    beta: Annotated[float, Gt(0), Lt(1)] = 0.9999  # LDAM utils.py; arXiv 1901.05555

    def share(self, counts_K: Tensor) -> Tensor:
        """A class has n such images."""
        import math

        return counts_K * (1 - self.beta) / -(counts_K * math.log(self.beta)).expm1()


@register("under")
@dataclass(frozen=True, slots=True, kw_only=True)
class Under(Sampler):
    """As many images of every class as the smallest has: under-sampling (arXiv 1710.05381).

    Which images of a larger class, is drawn anew for every pass, without replacement. A pass is
    K times the smallest class long, so an epoch has fewer steps.
    """

    def order(self, labels_N: Tensor, generator: Generator) -> Tensor:
        """A random permutation of such a pass."""
        import torch

        counts_K = labels_N.bincount()
        smallest = int(counts_K[counts_K > 0].min())
        shuffled_N = _permutation(len(labels_N), generator)
        labels = labels_N[shuffled_N]
        parts = [shuffled_N[labels == k][:smallest] for k in torch.unique(labels_N).tolist()]
        taken = torch.cat(parts)
        return taken[_permutation(len(taken), generator)]

    def length(self, counts: Sequence[int]) -> int:
        """The smallest class that has images, times the classes that have."""
        there = [n for n in counts if n]
        return min(there) * len(there)


def _permutation(length: int, generator: Generator) -> Tensor:
    import torch

    return torch.randperm(length, generator=generator, device=generator.device)
