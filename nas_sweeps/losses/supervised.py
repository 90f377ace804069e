"""Cross-entropy and its long-tailed variants, by the names that a recipe gives them.

Formulas and their sources stand in ``functions``, which needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nas_sweeps.losses.contract import LOSSES, Head, Loss, LossFunction, register
from nas_sweeps.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor


@register("ce")
@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropy(Loss):
    """Mean cross-entropy."""

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """Counts do not matter."""
        from torch.nn.functional import cross_entropy

        return lambda logits, labels, progress: cross_entropy(logits, labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted(Loss):
    """Cross-entropy that weighs classes, divided by the sum of the images' weights."""

    needs_counts: ClassVar[bool] = True
    weighting: ClassVar[str]  # of ``functions.class_weights``

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """Class weights that sum to the number of classes."""
        from nas_sweeps.losses.functions import class_weights, weighted

        loss = weighted(class_weights(self.weighting, counts))
        return lambda logits, labels, progress: loss(logits, labels)


@register("inv_freq")
@dataclass(frozen=True, slots=True, kw_only=True)
class InverseFrequency(Weighted):
    """Weights proportional to 1/n."""

    weighting: ClassVar[str] = "inv_freq"


@register("inv_sqrt")
@dataclass(frozen=True, slots=True, kw_only=True)
class InverseRoot(Weighted):
    """Weights proportional to n^(-1/2)."""

    weighting: ClassVar[str] = "inv_sqrt"


@register("effective")
@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveNumber(Weighted):
    """Weights proportional to (1 - beta) / (1 - beta^n), beta 0.9999 (arXiv 1901.05555)."""

    weighting: ClassVar[str] = "effective"


@register("focal")
@dataclass(frozen=True, slots=True, kw_only=True)
class Focal(Loss):
    """Hard images count more (LDAM losses.py)."""

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """Counts do not matter."""
        from nas_sweeps.losses.functions import focal

        return lambda logits, labels, progress: focal(logits, labels)


@register("ghm")
@dataclass(frozen=True, slots=True, kw_only=True)
class GradientHarmonised(Loss):
    """Images with common gradients count less (arXiv 1811.05181)."""

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """Counts do not matter."""
        from nas_sweeps.losses.functions import ghm

        return lambda logits, labels, progress: ghm(logits, labels)


@register("ldam")
@dataclass(frozen=True, slots=True, kw_only=True)
class LDAM(Loss):
    """Margins that grow as classes get rare (LDAM losses.py)."""

    needs_counts: ClassVar[bool] = True
    head: ClassVar[Head] = "cosine"

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """Margins proportional to n^(-1/4)."""
        from nas_sweeps.losses.functions import ldam, ldam_margins

        loss = ldam(ldam_margins(counts))
        return lambda logits, labels, progress: loss(logits, labels)


@register("logit_adjust")
@dataclass(frozen=True, slots=True, kw_only=True)
class LogitAdjusted(Loss):
    """Cross-entropy of logits plus log priors (arXiv 2007.07314, tau 1)."""

    needs_counts: ClassVar[bool] = True

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """Priors as the counts have it."""
        from nas_sweeps.losses.functions import logit_adjusted

        loss = logit_adjusted(counts)
        return lambda logits, labels, progress: loss(logits, labels)


def supervised_loss(
    name: str, counts: Sequence[int], progress: Progress
) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that a recipe names, of logits (B, K) and labels (B,).

    Half-precision logits are raised to float32 first.

    Args:
        name: as registered.
        counts: of the training images in each class, in the split that the loss is used on.
        progress: of the training; its tensor is read at every call.

    Raises:
        ValueError: an unknown name; a class without images, for a loss that needs its count.
    """
    from nas_sweeps.losses.functions import full

    loss = LOSSES.build(name)
    if loss.needs_counts and min(counts) < 1:
        empty = [k for k, n in enumerate(counts) if n < 1]
        raise ValueError(
            f"loss: '{name}' weighs classes by their counts, and class {empty[0]} has no training "
            "image; choose 'ce', or raise mu or n_max"
        )
    prepared = loss.prepare(counts)

    return lambda logits_BK, labels_B: prepared(full(logits_BK), labels_B, progress)
