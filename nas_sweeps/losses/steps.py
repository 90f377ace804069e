"""What the two steps of a search minimise, as objects that a method hands to the loop.

``Supervised()`` is the recipe's loss on labels; ``BarlowTwins(...)`` is the paper's Eq 8 and 9 on
two views of unlabelled images; ``Joint(...)`` is the first plus a weight times the second. A
method may bring an object of its own: a subclass of ``StepLoss``. No torch at import.

Shapes: B images, F features, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from nas_sweeps.trial import Barlow

if TYPE_CHECKING:
    from torch import Tensor, nn


class Seen(NamedTuple):
    """What a step's loss is computed from; what it does not ask for is empty."""

    images: tuple[Tensor, ...]  # features (B, F) of the augmented images, once
    views: tuple[Tensor, ...]  # features (B, F) of two further views of them
    labels_B: Tensor
    classify: Callable[[Tensor], Tensor]  # features (B, F) to logits (B, K)
    supervised: Callable[[Tensor, Tensor], Tensor]  # the recipe's loss: logits, labels to scalar
    heads: Mapping[str, Callable[..., Tensor]]  # the modules that ``heads`` made, by name


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLoss(ABC):
    """The loss of a weight step or of an architecture step."""

    reads_images: ClassVar[bool]  # augmented once, as for a supervised loss
    reads_views: ClassVar[bool]  # twice, as for a self-supervised one
    reads_labels: ClassVar[bool]  # if not, the classifier learns beside, from detached features
    whole_batches: ClassVar[bool] = False  # incomplete batches would spoil its statistics

    @property
    def probe_lr(self) -> float:
        """SGD's rate for that classifier."""
        return 0.1

    def heads(self, features: int) -> dict[str, nn.Module]:
        """New modules on features (B, F), trained with the weights, by name.

        Losses of both steps share those of one name.
        """
        return {}

    @abstractmethod
    def __call__(self, seen: Seen) -> Tensor:
        """A scalar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervised(StepLoss):
    """The recipe's loss on labels."""

    reads_images: ClassVar[bool] = True
    reads_views: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = True

    def __call__(self, seen: Seen) -> Tensor:
        return seen.supervised(seen.classify(seen.images[0]), seen.labels_B)


@dataclass(frozen=True, slots=True, kw_only=True)
class BarlowTwins(StepLoss):
    """Barlow Twins, scaled so that it stands beside a cross-entropy."""

    reads_images: ClassVar[bool] = False
    reads_views: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = False
    whole_batches: ClassVar[bool] = True
    barlow: Barlow = field(default_factory=Barlow)
    probe_lr: float = 0.1

    def heads(self, features: int) -> dict[str, nn.Module]:
        """The projector with its loss."""
        from nas_sweeps.losses.functions import BarlowHead

        return {"barlow": BarlowHead(features, self.barlow)}

    def __call__(self, seen: Seen) -> Tensor:
        return seen.heads["barlow"](*seen.views)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint(StepLoss):
    """``Supervised()`` plus ``weight`` times another loss."""

    reads_images: ClassVar[bool] = True
    reads_views: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = True
    whole_batches: ClassVar[bool] = True
    other: StepLoss
    weight: float = 1.0

    def heads(self, features: int) -> dict[str, Any]:
        """Those of the other loss."""
        return self.other.heads(features)

    def __call__(self, seen: Seen) -> Tensor:
        return Supervised()(seen) + self.weight * self.other(seen)
