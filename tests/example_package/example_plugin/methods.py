"""DARTS that keeps, of the edges into a node, the two that the supernet misses most on V."""

from dataclasses import dataclass

from nas_sweeps.methods import Searched
from nas_sweeps.methods.darts import DARTS
from nas_sweeps.space.discretise import Discretised


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedDARTS(DARTS):
    def finish(self, search: Searched) -> Discretised:
        strengths = []
        for cell, rows in enumerate(search.strengths):
            missed = []
            for edge in range(len(rows)):
                masked = [weights.clone() for weights in search.edge_weights]
                masked[cell][edge] = 0
                missed.append(1 - search.accuracy(tuple(masked)))
            strengths.append([[m * w for w in row] for m, row in zip(missed, rows, strict=True)])
        return self.discretise(*strengths)
