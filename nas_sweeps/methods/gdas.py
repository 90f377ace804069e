"""GDAS: one operation an edge, sampled anew for every batch (arXiv 1910.04465).

All operations are computed here, those with weight 0 too, so the gradient of an operation's
weight is the exact one. GDAS' own code leaves them out and takes, for those, the gradient of
adding a constant to the node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nas_sweeps.methods.contract import EdgeWeights, Parameters, register
from nas_sweeps.methods.darts import DARTS
from nas_sweeps.progress import Progress
from nas_sweeps.trial import Rate

if TYPE_CHECKING:
    from torch import Generator, Tensor


@register("gdas")
@dataclass(frozen=True, slots=True, kw_only=True)
class GDAS(DARTS):
    """Gumbel-softmax with hard samples and straight-through gradients, of falling temperature.

    Without noise the supernet runs the likeliest operation of every edge; a genotype is read
    from the probabilities.
    """

    # A finite difference, or a second pass, would meet another sample.
    order: Literal["first"] = "first"
    tau_max: Rate = 10.0  # the paper; AutoDL-Projects GDAS.py falls linearly, epoch by epoch,
    tau_min: Rate = 0.1  # from the one in the first epoch to the other in the last

    def edge_weights(self, parameters: Parameters, progress: Progress) -> EdgeWeights:
        """One 1 in each row, with the gradient of the softmax at the present temperature."""
        tau = self.tau_max - (self.tau_max - self.tau_min) * progress.fraction
        draws = progress.generator
        normal = _sampled(parameters["normal"], tau, draws)
        return normal, _sampled(parameters["reduce"], tau, draws)

    def strengths(self, parameters: Parameters, progress: Progress) -> EdgeWeights:
        """The probabilities of operations: a softmax."""
        return DARTS.edge_weights(self, parameters, progress)


def _sampled(alpha_EO: Tensor, tau: Tensor, draws: Generator | None) -> Tensor:
    import torch

    logits_EO = alpha_EO.log_softmax(-1)
    if draws is not None:
        logits_EO = logits_EO - torch.empty_like(alpha_EO).exponential_(generator=draws).log()
    soft_EO = (logits_EO / tau).softmax(-1)
    hard_EO = torch.zeros_like(soft_EO).scatter(-1, logits_EO.argmax(-1, keepdim=True), 1.0)
    return hard_EO + (soft_EO - soft_EO.detach())
