"""PC-DARTS: operations on a part of the channels, and weights of edges (arXiv 1907.05737).

Its code (PC-DARTS model_search.py) computes a node as

    sum over its edges e of  b_e * shuffle(concat(sum over o of w_eo * o(x_1), x_2)),

where x_1 are the first 1/K of the channels of the edge's source and x_2 the others, halved by a
2x2 max pooling where the operations halve theirs; w is a softmax of alpha over operations, b one
of beta over the edges into the node. The shuffle moves channels and nothing else, so b_e may as
well stand inside: the weight of an operation is b_e * w_eo, and that of what passes by is b_e.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from nas_sweeps.methods.contract import EdgeWeights, Parameters, register
from nas_sweeps.methods.darts import DARTS
from nas_sweeps.progress import Progress
from nas_sweeps.space.genotype import EDGES
from nas_sweeps.trial import Count, Rate

if TYPE_CHECKING:
    from torch import Generator, Tensor

INTO_NODE = [len(list(edges)) for _, edges in groupby(EDGES, key=lambda edge: edge[1])]


@register("pc_darts")
@dataclass(frozen=True, slots=True, kw_only=True)
class PCDARTS(DARTS):
    """A genotype is read from products of both weights, the two best edges of a node.

    Its own recipe is the preset ``pc_darts``.
    """

    arch_lr: Rate = 6e-4  # PC-DARTS train_search.py --arch_learning_rate
    partial_channels: Annotated[int, Ge(2)] = 4  # PC-DARTS model_search.py: k
    warmup_epochs: Count = 15  # PC-DARTS train_search.py: epoch >= 15

    def initial_parameters(self, edges: int, generator: Generator) -> dict[str, Tensor]:
        """Alpha as DARTS has it, and a beta for every edge, likewise 1e-3 times normal numbers."""
        import torch

        alphas = DARTS.initial_parameters(self, edges, generator)
        return alphas | {
            f"beta_{cell}": 1e-3 * torch.randn(edges, generator=generator, device=generator.device)
            for cell in alphas
        }

    def edge_weights(self, parameters: Parameters, progress: Progress) -> EdgeWeights:
        """b_e * w_eo of every operation, and b_e of the channels that pass by."""
        normal = _weights(parameters["normal"], parameters["beta_normal"])
        return normal, _weights(parameters["reduce"], parameters["beta_reduce"])


def _weights(alpha_EO: Tensor, beta_E: Tensor) -> Tensor:
    import torch

    share_E = torch.cat([part.softmax(0) for part in torch.split(beta_E, INTO_NODE)])
    return torch.cat([share_E[:, None] * alpha_EO.softmax(-1), share_E[:, None]], dim=1)
