"""Cross-entropy and its long-tailed variants, by the names that a recipe gives them.

Formulas and their sources stand in ``functions``, which needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from nas_sweeps.losses.constants import (
    DEFERRED,
    EFFECTIVE_BETA,
    FOCAL_GAMMA,
    LDAM_MARGIN,
    LDAM_SCALE,
    SMOOTHING_HEAD,
)
from nas_sweeps.losses.contract import LOSSES, Loss, LossFunction, register
from nas_sweeps.progress import Progress
from nas_sweeps.trial import Chosen, Fraction, NonNegative, Rate, name_and_knobs

if TYPE_CHECKING:
    from torch import Tensor

Inside = Annotated[float, Gt(0), Lt(1)]


@register("ce")
@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropy(Loss):
    """Mean cross-entropy, whose labels may be smoothed (Szegedy et al. 2016, arXiv 1512.00567)."""

    smoothing: Fraction = 0.0  # the share of a label that all K classes have alike

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """Counts do not matter."""
        from torch.nn.functional import cross_entropy

        return lambda logits, labels, progress: cross_entropy(
            logits, labels, label_smoothing=self.smoothing
        )


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
class EffectiveNumber(Loss):
    """Weights proportional to (1 - beta) / (1 - beta^n) (Cui et al. 2019, arXiv 1901.05555)."""

    needs_counts: ClassVar[bool] = True
    beta: Inside = EFFECTIVE_BETA

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """Class weights that sum to the number of classes."""
        from nas_sweeps.losses.functions import class_weights, weighted

        loss = weighted(class_weights("effective", counts, self.beta))
        return lambda logits, labels, progress: loss(logits, labels)


@register("drw")
@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred(Loss):
    """Cross-entropy, weighted as ``effective`` in the last epochs (arXiv 1906.07413, DRW).

    The learning rate is that of the recipe; LDAM's own falls by 100 where the weights begin.
    """

    needs_counts: ClassVar[bool] = True
    after: Annotated[float, Ge(0), Le(1)] = DEFERRED  # the share of epochs without weights
    beta: Inside = EFFECTIVE_BETA

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """Class weights that sum to the number of classes."""
        from torch.nn.functional import cross_entropy

        from nas_sweeps.losses.functions import class_weights, deferred

        weights_K = deferred(class_weights("effective", counts, self.beta), self.after)
        return lambda logits, labels, progress: cross_entropy(
            logits, labels, weights_K(logits, progress)
        )


@register("focal")
@dataclass(frozen=True, slots=True, kw_only=True)
class Focal(Loss):
    """Hard images count more (Lin et al. 2017, arXiv 1708.02002; LDAM losses.py)."""

    gamma: NonNegative = FOCAL_GAMMA

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """Counts do not matter."""
        from nas_sweeps.losses.functions import focal

        return lambda logits, labels, progress: focal(logits, labels, self.gamma)


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
    """Margins that grow as classes get rare (arXiv 1906.07413; LDAM losses.py).

    ``{ldam: {after: 0.8}}`` is LDAM-DRW: weighted as ``effective`` in the last epochs.
    """

    needs_counts: ClassVar[bool] = True
    head: ClassVar[Literal["linear", "cosine"]] = "cosine"
    margin: Rate = LDAM_MARGIN  # of the rarest class
    scale: Rate = LDAM_SCALE  # of the cosines
    after: Annotated[float, Ge(0), Le(1)] = 1.0  # the share of epochs without weights

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """Margins proportional to n^(-1/4)."""
        from torch.nn.functional import cross_entropy

        from nas_sweeps.losses.functions import (
            class_weights,
            deferred,
            ldam_logits,
            ldam_margins,
        )

        scaled = ldam_logits(ldam_margins(counts, self.margin), self.scale)
        if self.after == 1:
            return lambda logits, labels, progress: cross_entropy(scaled(logits, labels), labels)
        weights_K = deferred(class_weights("effective", counts), self.after)
        return lambda logits, labels, progress: cross_entropy(
            scaled(logits, labels), labels, weights_K(logits, progress)
        )


@register("logit_adjust")
@dataclass(frozen=True, slots=True, kw_only=True)
class LogitAdjusted(Loss):
    """Cross-entropy of logits plus tau times log priors (arXiv 2007.07314)."""

    needs_counts: ClassVar[bool] = True
    tau: Rate = 1.0

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """Priors as the counts have it."""
        from nas_sweeps.losses.functions import logit_adjusted

        loss = logit_adjusted(counts, self.tau)
        return lambda logits, labels, progress: loss(logits, labels)


@register("balanced_softmax")
@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedSoftmax(Loss):
    """A softmax in which a class counts as often as it has images (arXiv 2007.10740, Eq 4).

    The same function as ``logit_adjust`` at tau 1: counts are priors times a constant.
    """

    needs_counts: ClassVar[bool] = True

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """Priors as the counts have it."""
        from nas_sweeps.losses.functions import logit_adjusted

        loss = logit_adjusted(counts)
        return lambda logits, labels, progress: loss(logits, labels)


@register("label_aware_smoothing")
@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAwareSmoothing(Loss):
    """Labels that are smoothed more where a class has more images (MiSLAS, arXiv 2104.00466)."""

    needs_counts: ClassVar[bool] = True
    smoothing_head: Fraction = SMOOTHING_HEAD  # of the largest class
    smoothing_tail: Fraction = 0.0  # of the smallest
    shape: Literal["concave", "linear", "convex"] = "concave"

    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """How much of a label a class gives away follows its count."""
        from nas_sweeps.losses.functions import label_aware_smoothed, smoothing_by_label

        smoothing = smoothing_by_label(counts, self.smoothing_head, self.smoothing_tail, self.shape)
        loss = label_aware_smoothed(smoothing)
        return lambda logits, labels, progress: loss(logits, labels)


def supervised_loss(
    chosen: Chosen, counts: Sequence[int], progress: Progress
) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that a recipe names, of logits (B, K) and labels (B,).

    Half-precision logits are raised to float32 first.

    Args:
        chosen: a registered name, or one with knobs.
        counts: of the training images in each class, in the split that the loss is used on.
        progress: of the training; its tensor is read at every call.

    Raises:
        ValueError: an unknown name; a class without images, for a loss that needs its count.
    """
    from nas_sweeps.losses.functions import full

    name, knobs = name_and_knobs(chosen)
    loss = LOSSES.build(name, knobs)
    if loss.needs_counts and min(counts) < 1:
        empty = [k for k, n in enumerate(counts) if n < 1]
        raise ValueError(
            f"loss: '{name}' weighs classes by their counts, and class {empty[0]} has no training "
            "image; choose 'ce', or raise mu or n_max"
        )
    prepared = loss.prepare(counts)

    return lambda logits_BK, labels_B: prepared(full(logits_BK), labels_B, progress)
