"""What the search loop asks of a method, and the registry of methods. No torch at import.

A method is a frozen dataclass: its fields are its knobs (flat scalars with ranges), its functions
say how architecture parameters begin, how they become edge weights and how a genotype is read.
Registering it makes it appear in grid files::

    @register("sharp_darts")
    @dataclass(frozen=True, slots=True, kw_only=True)
    class SharpDARTS(Method):
        temperature: Annotated[float, Gt(0)] = 0.5

        def initial_parameters(self, edges, generator):
            import torch

            shape = (edges, len(self.operations))
            return {
                cell: 1e-3 * torch.randn(shape, generator=generator)
                for cell in ("normal", "reduce")
            }

        def edge_weights(self, parameters, progress):
            normal, reduce = (alpha / self.temperature for alpha in parameters.values())
            return normal.softmax(-1), reduce.softmax(-1)

        def discretise(self, normal, reduce):
            return discretise(normal, reduce, self.operations, rule="darts_top2")

Another package offers one through the entry-point group ``nas_sweeps.methods``:
``sharp_darts = "their_package:SharpDARTS"``.

Shapes: E edges of a cell (14), O operations, B images, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nas_sweeps.losses.steps import StepLoss, Supervised
from nas_sweeps.progress import Progress
from nas_sweeps.registry import Registry
from nas_sweeps.space.discretise import Discretised
from nas_sweeps.space.genotype import OPERATIONS, Operation
from nas_sweeps.trial import Fraction, NonNegative, Rate, SearchRecipe

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

Rows = Sequence[Sequence[float]]  # weights as plain numbers: E rows of O columns
Parameters = Mapping[str, "Tensor"]
EdgeWeights = tuple["Tensor", "Tensor"]  # of the normal and of the reduction cells


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """A search after its last epoch, for a method that reads more than the weights.

    The supernet is in train mode; whatever ``Method.finish`` does to it, nobody uses it
    afterwards.
    """

    parameters: Parameters
    edge_weights: EdgeWeights  # without noise
    strengths: tuple[Rows, Rows]  # of the normal and of the reduction cells
    supernet: Module  # images (B, 3, H, W) and both edge weights to logits (B, K)
    accuracy: Callable[[EdgeWeights], float]  # of the supernet on V, at any edge weights
    validation: Callable[[], Iterator[tuple[Tensor, Tensor]]]  # V: normalised images and labels
    generator: Generator  # on the device, for whatever is drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(ABC):
    """A differentiable architecture search. Fields are knobs, all part of a trial's identity."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "allow_inf_nan": False}
    pretrain: ClassVar[bool] = False  # whether its retraining starts self-supervised by default
    trains: ClassVar[bool] = True  # False: the genotype is read from the initial parameters

    arch_lr: Rate = 3e-4  # the paper; DARTS train_search.py --arch_learning_rate
    arch_beta1: Fraction = 0.5  # DARTS architect.py: Adam
    arch_beta2: Fraction = 0.999
    arch_weight_decay: NonNegative = 1e-3  # DARTS --arch_weight_decay; L2, not decoupled
    order: Literal["first", "second"] = "first"  # the paper does not say which; DARTS --unrolled
    hvp: Literal["fd", "exact"] = "fd"  # of order=second; DARTS architect.py takes differences

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The candidates on every edge: the columns of edge weights."""
        return OPERATIONS

    @property
    def partial_channels(self) -> int:
        """K: operations see the first 1/K of an edge's channels, the rest passes them by.

        Above 1, edge weights have one more column, the weight of what passes.
        """
        return 1

    @property
    def warmup_epochs(self) -> int:
        """The first epochs, in which the weights alone are trained."""
        return 0

    @property
    def weight_loss(self) -> StepLoss:
        """What the weight step minimises on T."""
        return Supervised()

    @property
    def arch_loss(self) -> StepLoss:
        """What the architecture step minimises on V, before the regulariser is added."""
        return Supervised()

    @abstractmethod
    def initial_parameters(self, edges: int, generator: Generator) -> dict[str, Tensor]:
        """Architecture parameters before training, by name: float32, of any number and shape."""

    @abstractmethod
    def edge_weights(self, parameters: Parameters, progress: Progress) -> EdgeWeights:
        """The differentiable weights with which operations are mixed on the edges of a cell.

        Each (E, O), or (E, O + 1) where channels are partial. A method that samples draws from
        ``progress.generator``, and where that is None gives its weights without noise.
        """

    def regulariser(
        self, parameters: Parameters, weights: EdgeWeights, progress: Progress
    ) -> Tensor | float:
        """Added to the architecture loss, already weighted."""
        return 0.0

    def strengths(self, parameters: Parameters, progress: Progress) -> EdgeWeights:
        """How strong every operation is on every edge, (E, O) each: what ``discretise`` reads.

        By default the edge weights without noise. ``progress`` has no generator.
        """
        normal, reduce = self.edge_weights(parameters, progress)
        operations = len(self.operations)
        return normal[:, :operations], reduce[:, :operations]

    @abstractmethod
    def discretise(self, normal: Rows, reduce: Rows) -> Discretised:
        """Strengths, as nested lists of floats, to a genotype. Called after every epoch."""

    def finish(self, search: Searched) -> Discretised:
        """The genotype that the search ends with. By default ``discretise`` of its strengths."""
        return self.discretise(*search.strengths)

    @property
    def reads(self) -> frozenset[str]:
        """Which of the recipe's settings that deal with labels decide anything in its steps."""
        if not self.trains:
            return frozenset()
        of_weights = {"loss", "sampler", "mixup", "cutmix"} if self.weight_loss.reads_labels else ()
        return frozenset(of_weights) | ({"loss"} if self.arch_loss.reads_labels else frozenset())

    def check(self, recipe: SearchRecipe) -> None:
        """Raises ``ValueError`` for a recipe that this method cannot be searched with."""
        if not self.trains:
            return
        if self.order == "second" and self.hvp == "fd" and recipe.precision != "fp32":
            # The difference moves a weight by about 1e-4 of its size.
            raise ValueError(
                f"takes a finite difference for its second order, which precision "
                f"{recipe.precision} rounds away; use fp32, or hvp: exact"
            )
        if recipe.classifier == "etf" and not self.weight_loss.reads_labels:
            raise ValueError(
                "trains its weights without labels, so that the classifier alone learns from them, "
                "and classifier etf is fixed; choose another classifier"
            )
        if self.warmup_epochs >= recipe.epochs:
            raise ValueError(
                f"trains the weights alone for {self.warmup_epochs} epochs and the recipe has "
                f"{recipe.epochs}, so the architecture would never move; raise epochs or lower "
                "warmup_epochs"
            )
        if recipe.channels % self.partial_channels:
            raise ValueError(
                f"operations see 1/{self.partial_channels} of the channels and the recipe has "
                f"{recipe.channels}; use a multiple of {self.partial_channels}"
            )


METHODS: Registry[Method] = Registry("method", Method, "nas_sweeps.methods")
register = METHODS.register
