"""How far a training has come: what methods and losses that change with it are told. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Progress(NamedTuple):
    """The place of a training step.

    A step on a GPU is recorded once and replayed, so what changes from epoch to epoch is a
    tensor: compute with it (``torch.where`` in place of ``if``) and never ask for its value.
    """

    epoch: Tensor  # finished epochs: a float64 scalar on the training's device, 0 in the first
    epochs: int  # in all
    # On the same device, for methods that sample. None where no noise is wanted: in tests of the
    # supernet, in tables, and where a genotype is read.
    generator: Generator | None = None

    @property
    def fraction(self) -> Tensor:
        """From 0 in the first epoch to 1 in the last (0 where there is only one)."""
        return self.epoch / max(1, self.epochs - 1)
