"""What a search has found so far: for its tables, and for a method to read a genotype from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nas_sweeps.data.splits import DataSplits
from nas_sweeps.methods import EdgeWeights, Method, Parameters, Progress, Rows, Searched
from nas_sweeps.space.discretise import Discretised
from nas_sweeps.train.common import Row, evaluating, plain_batches, validate
from nas_sweeps.train.objective import SearchModel


@dataclass(frozen=True)
class Reading:
    """A search as it stands: everything here is computed from its present state, without noise."""

    method: Method
    parameters: Parameters
    progress: Progress  # without a generator
    model: SearchModel
    bundle: DataSplits
    generator: torch.Generator  # for whatever the method draws at the end

    @torch.no_grad()
    def edge_weights(self) -> EdgeWeights:
        """Those that the supernet is tested with."""
        return self.method.edge_weights(self.parameters, self.progress)

    @torch.no_grad()
    def strengths(self) -> EdgeWeights:
        """How strong every operation is on every edge."""
        return self.method.strengths(self.parameters, self.progress)

    def at(self, edge_weights: EdgeWeights) -> Callable[[Tensor], Tensor]:
        """The supernet's logits with these edge weights."""

        def logits(x_BCHW: Tensor) -> Tensor:
            out: Tensor = self.model.supernet(x_BCHW, *edge_weights)
            return out

        return logits

    def columns(self) -> Row:
        """Columns of an epoch's row; none for a genotype that the method refuses."""
        try:
            found = self.method.discretise(*self._rows())
        except ValueError:
            return {}
        return _columns(found)

    def searched(self) -> Searched:
        """What the method may read its genotype from."""

        def accuracy_at(edge_weights: EdgeWeights) -> float:
            with evaluating(self.model):
                return validate(self.at(edge_weights), self.bundle)["accuracy_validation"]

        return Searched(
            parameters=self.parameters,
            edge_weights=self.edge_weights(),
            strengths=self._rows(),
            supernet=self.model.supernet,
            accuracy=accuracy_at,
            validation=lambda: plain_batches(self.bundle, self.bundle.v_index),
            generator=self.generator,
        )

    def _rows(self) -> tuple[Rows, Rows]:
        normal, reduce = (w.double().tolist() for w in self.strengths())
        return normal, reduce


def _columns(found: Discretised) -> Row:
    genotype = found.genotype
    return {
        "alpha_entropy_normal": found.entropy_normal,
        "alpha_entropy_reduce": found.entropy_reduce,
        "margin_normal": found.margin_normal,
        "margin_reduce": found.margin_reduce,
        "num_skip_normal": genotype.count("skip_connect"),
        "num_skip_reduce": genotype.count("skip_connect", reduction=True),
        "genotype_id": genotype.genotype_id,
        "genotype": json.dumps(genotype.to_json()),
    }
