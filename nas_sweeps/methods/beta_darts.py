"""Beta-DARTS: DARTS with a regulariser that keeps alpha from growing apart (arXiv 2203.01665)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas_sweeps.methods.contract import EdgeWeights, Parameters, register
from nas_sweeps.methods.darts import DARTS
from nas_sweeps.progress import Progress
from nas_sweeps.trial import NonNegative

if TYPE_CHECKING:
    from torch import Tensor


@register("beta_darts")
@dataclass(frozen=True, slots=True, kw_only=True)
class BetaDARTS(DARTS):
    """The weight of the regulariser rises with the epoch, from 0."""

    # By how much it rises in an epoch. Beta-DARTS optimizers/darts/architect.py: 50 * epoch / 100,
    # in searches of 100 epochs, so that it comes to 50.
    beta_weight: NonNegative = 0.5

    def regulariser(
        self, parameters: Parameters, weights: EdgeWeights, progress: Progress
    ) -> Tensor:
        """beta_weight * epoch * mean over all edges of logsumexp of alpha (its mlc_loss)."""
        import torch

        alphas = torch.cat([parameters["normal"], parameters["reduce"]])
        return self.beta_weight * progress.epoch * alphas.logsumexp(-1).mean()
