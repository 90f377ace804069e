"""FairDARTS: independent sigmoid gates and the zero-one loss (the paper, Eq 5 and 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Gt, Lt

from nas_sweeps.methods.contract import (
    EdgeWeights,
    Method,
    Parameters,
    Rows,
    register,
)
from nas_sweeps.progress import Progress
from nas_sweeps.space.discretise import Discretised, discretise
from nas_sweeps.space.genotype import OPERATIONS, Operation
from nas_sweeps.trial import Fraction, NonNegative, Rate

if TYPE_CHECKING:
    from torch import Generator, Tensor


@register("fairdarts")
@dataclass(frozen=True, slots=True, kw_only=True)
class FairDARTS(Method):
    """Operations no longer compete on an edge; a regulariser drives each gate to 0 or 1.

    With ``num_operations=8`` the gate of ``none`` gets no gradient from the task (the output
    is zero whatever its weight), so ``none`` never takes part in discretisation here.
    """

    arch_lr: Rate = 3e-3  # FairDARTS train_search.py; 3e-4 cannot reach 0.85 on long tails
    arch_beta1: Fraction = 0.9  # FairDARTS architect.py
    num_operations: Literal[7, 8] = 7  # FairDARTS genotypes.py has no `none`; the paper lists 8
    zero_one: Literal["l2", "l1"] = "l2"  # FairDARTS separate_loss.py; the paper's Eq 6 is l1
    zero_one_weight: NonNegative = 10.0  # FairDARTS train_search.py --aux_loss_weight
    rule: Literal["threshold_sparse", "threshold_edge", "darts_top2", "eq4_argmax"] = (
        "threshold_sparse"  # FairDARTS utils.py
    )
    threshold: Annotated[float, Gt(0), Lt(1)] = 0.85  # FairDARTS utils.py
    fallback: Literal["top2", "relative", "error"] = "top2"  # ours: FairDARTS fails when empty

    def __post_init__(self) -> None:
        # Said before the search rather than by `discretise` after its last epoch.
        if self.fallback == "relative" and not self.rule.startswith("threshold"):
            raise ValueError(
                f"fallback 'relative' lowers a threshold and rule '{self.rule}' has none; "
                "choose fallback top2 or error"
            )

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The last 7 (without ``none``) or all 8 operations."""
        return OPERATIONS[-self.num_operations :]

    def initial_parameters(self, edges: int, generator: Generator) -> dict[str, Tensor]:
        """Zeros: every gate half open (FairDARTS model_search.py)."""
        import torch

        shape, on = (edges, len(self.operations)), generator.device
        return {cell: torch.zeros(shape, device=on) for cell in ("normal", "reduce")}

    def edge_weights(self, parameters: Parameters, progress: Progress) -> EdgeWeights:
        """A sigmoid for each operation, not normalised over the edge (the paper, Eq 5)."""
        return parameters["normal"].sigmoid(), parameters["reduce"].sigmoid()

    def regulariser(
        self, parameters: Parameters, weights: EdgeWeights, progress: Progress
    ) -> Tensor:
        """The zero-one loss: -mean of (w - 0.5)^2 or \\|w - 0.5\\|, over all entries together."""
        away = [(w - 0.5).square() if self.zero_one == "l2" else (w - 0.5).abs() for w in weights]
        total = sum((entries.sum() for entries in away[1:]), away[0].sum())
        return -self.zero_one_weight / sum(w.numel() for w in weights) * total

    def discretise(self, normal: Rows, reduce: Rows) -> Discretised:
        """The genotype by ``rule``, over the operations that compute something."""
        real = [name for name in self.operations if name != "none"]
        normal, reduce = ([r[-len(real) :] for r in w] for w in (normal, reduce))
        return discretise(
            normal,
            reduce,
            real,
            rule=self.rule,
            threshold=self.threshold,
            fallback=self.fallback,
        )
