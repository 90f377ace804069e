"""Samplers: which training images a pass goes through, and in which order. No torch at import.

A sampler is a frozen dataclass below ``Sampler``; its name is what ``recipe.sampler`` may say::

    @register("head_first")
    @dataclass(frozen=True, slots=True, kw_only=True)
    class HeadFirst(Sampler):
        def order(self, labels_N, generator):
            return labels_N.argsort(stable=True)

Another package offers one through the entry-point group ``nas_sweeps.samplers``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

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
        """Positions in ``labels_N``, shape (N,): what one pass goes through.

        As many as there are images, some perhaps twice and some not at all, drawn from
        ``generator`` alone. Both tensors are int64 and lie on the generator's device.
        """


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


def _permutation(length: int, generator: Generator) -> Tensor:
    import torch

    return torch.randperm(length, generator=generator, device=generator.device)
