"""Random search: a genotype drawn from the trial's seed, and nothing trained.

The baseline that a search has to beat. Each trial is one genotype, so k seeds in the grid are k
samples, every one of which is retrained; their mean and the best of them are what to compare
with. A trial needs no sample's number beside its seed, and a grid grows by samples as by seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nas_sweeps.methods.contract import EdgeWeights, Method, Parameters, Rows, register
from nas_sweeps.progress import Progress
from nas_sweeps.space.discretise import Discretised, discretise
from nas_sweeps.space.genotype import OPERATIONS, Operation

if TYPE_CHECKING:
    from torch import Generator, Tensor


@register("random")
@dataclass(frozen=True, slots=True, kw_only=True)
class Random(Method):
    """Two edges a node and one of seven operations on each, every choice equally likely.

    That is what the rule of DARTS reads from numbers that are independent and alike: which
    operation is the largest of an edge says nothing about how large it is, and every pair of
    edges is as likely as any other to have the two largest.
    """

    trains: ClassVar[bool] = False

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The seven that compute something."""
        return OPERATIONS[1:]

    def initial_parameters(self, edges: int, generator: Generator) -> dict[str, Tensor]:
        """Uniform in [0, 1)."""
        import torch

        shape, on = (edges, len(self.operations)), generator.device
        return {
            cell: torch.rand(shape, generator=generator, device=on) for cell in ("normal", "reduce")
        }

    def edge_weights(self, parameters: Parameters, progress: Progress) -> EdgeWeights:
        """The softmax over the operations of an edge, as in DARTS."""
        return parameters["normal"].softmax(-1), parameters["reduce"].softmax(-1)

    def discretise(self, normal: Rows, reduce: Rows) -> Discretised:
        """The two edges of a node with the largest numbers, and the operations these belong to."""
        return discretise(normal, reduce, self.operations, rule="darts_top2")
