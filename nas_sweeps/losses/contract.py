"""What the loops ask of a supervised loss, and the registry of losses. No torch at import.

A loss is a frozen dataclass below ``Loss``; its name is what ``recipe.loss`` may say, and its
fields are knobs, ``loss: {smoothed: {share: 0.2}}``, every one with a default::

    @register("smoothed")
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Smoothed(Loss):
        share: Annotated[float, Ge(0), Lt(1)] = 0.1

        def prepare(self, counts):
            from torch.nn.functional import cross_entropy

            return lambda logits, labels, progress: cross_entropy(
                logits, labels, label_smoothing=self.share
            )

Another package offers one through the entry-point group ``nas_sweeps.losses``.

Shapes: B batch, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nas_sweeps.progress import Progress
from nas_sweeps.registry import Registry
from nas_sweeps.trial import Chosen, Classifier, name_and_knobs

if TYPE_CHECKING:
    from torch import Tensor

LossFunction = Callable[["Tensor", "Tensor", Progress], "Tensor"]  # logits (B, K), labels (B,)
Head = Classifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss(ABC):
    """A loss on labels, chosen by name in a recipe of the search or of the retraining."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "allow_inf_nan": False}
    needs_counts: ClassVar[bool] = False  # whether every class must have a training image
    # ``cosine``: it takes cosines, in [-1, 1], and scales them itself.
    head: ClassVar[Literal["linear", "cosine"]] = "linear"

    @abstractmethod
    def prepare(self, counts: Sequence[int]) -> LossFunction:
        """The loss for training images of which a class has so many: the split it is used on.

        The function returns a scalar. It is called with float32 logits at least, and with the
        progress of the epochs that use labels.
        """


LOSSES: Registry[Loss] = Registry("loss", Loss, "nas_sweeps.losses")
register = LOSSES.register


def head_of(loss: Chosen) -> Head:
    """The classifier that a recipe's loss asks for. Raises ``ValueError`` for an unknown loss."""
    head: Head = LOSSES.get(name_and_knobs(loss)[0]).head
    return head
