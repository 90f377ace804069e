"""DARTS: softmax over eight operations (the paper, Eq 1-4; DARTS model_search.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nas_sweeps.methods.contract import (
    EdgeWeights,
    Method,
    Parameters,
    Rows,
    register,
)
from nas_sweeps.progress import Progress
from nas_sweeps.space.discretise import Discretised, discretise

if TYPE_CHECKING:
    from torch import Generator, Tensor


@register("darts")
@dataclass(frozen=True, slots=True, kw_only=True)
class DARTS(Method):
    """Operations compete on an edge; first or second order by the knob ``order``."""

    # DARTS model_search.py keeps two edges a node; eq4_argmax is the paper's Eq 4 to the letter,
    # in which `none` competes and may empty a cell.
    rule: Literal["darts_top2", "eq4_argmax"] = "darts_top2"
    fallback: Literal["top2", "error"] = "top2"  # ours: what an emptied cell becomes

    def initial_parameters(self, edges: int, generator: Generator) -> dict[str, Tensor]:
        """Almost equal: 1e-3 times standard normal numbers (DARTS model_search.py)."""
        import torch

        shape, on = (edges, len(self.operations)), generator.device
        return {
            cell: 1e-3 * torch.randn(shape, generator=generator, device=on)
            for cell in ("normal", "reduce")
        }

    def edge_weights(self, parameters: Parameters, progress: Progress) -> EdgeWeights:
        """Softmax over the operations of an edge (the paper, Eq 1)."""
        return parameters["normal"].softmax(-1), parameters["reduce"].softmax(-1)

    def discretise(self, normal: Rows, reduce: Rows) -> Discretised:
        """The genotype by ``rule``, on the softmax weights with ``none`` still among them."""
        return discretise(normal, reduce, self.operations, rule=self.rule, fallback=self.fallback)
