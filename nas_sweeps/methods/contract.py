"""What the search loop asks of a method, and the registry of methods. No torch at import.

A method is a frozen dataclass: its fields are its knobs (flat scalars with ranges), its
functions answer four questions. Registering it makes it appear in grid files::

    @register("sharp_darts")
    @dataclass(frozen=True, slots=True, kw_only=True)
    class SharpDARTS(Method):
        temperature: Annotated[float, Gt(0)] = 0.5

        def initial_alpha(self, edges, generator):
            import torch

            return 1e-3 * torch.randn(edges, len(self.operations), generator=generator)

        def edge_weights(self, alpha_EO):
            return (alpha_EO / self.temperature).softmax(-1)

        def discretise(self, weights_normal, weights_reduce):
            return discretise(weights_normal, weights_reduce, self.operations, rule="darts_top2")

Another package offers one through the entry-point group ``nas_sweeps.methods``:
``sharp_darts = "their_package:SharpDARTS"``.

Shapes: E edges of a cell (14), O operations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from nas_sweeps.space.discretise import Discretised
from nas_sweeps.space.genotype import OPERATIONS, Operation
from nas_sweeps.trial import Barlow, Fraction, NonNegative, Rate

if TYPE_CHECKING:
    from torch import Generator, Tensor

Objective = Literal["supervised", "barlow", "joint"]
Rows = Sequence[Sequence[float]]  # edge weights as plain numbers: E rows of O columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(ABC):
    """A differentiable architecture search. Fields are knobs, all part of a trial's identity."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "allow_inf_nan": False}
    pretrain: ClassVar[bool] = False  # whether its retraining starts self-supervised by default

    arch_lr: Rate = 3e-4  # the paper; DARTS train_search.py --arch_learning_rate
    arch_beta1: Fraction = 0.5  # DARTS architect.py: Adam
    arch_beta2: Fraction = 0.999
    arch_weight_decay: NonNegative = 1e-3  # DARTS --arch_weight_decay; L2, not decoupled
    order: Literal["first", "second"] = "first"  # the paper does not say which; DARTS --unrolled
    hvp: Literal["fd", "exact"] = "fd"  # of order=second; DARTS architect.py takes differences

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The candidates on every edge: the columns of alpha."""
        return OPERATIONS

    @property
    def weight_objective(self) -> Objective:
        """What the weight step minimises on T. ``joint``: supervised + joint_weight * barlow."""
        return "supervised"

    @property
    def arch_objective(self) -> Objective:
        """What the architecture step minimises on V, before the regulariser is added."""
        return "supervised"

    @property
    def barlow(self) -> Barlow | None:
        """The self-supervised loss and projector, where an objective uses them."""
        return None

    @property
    def joint_weight(self) -> float:
        """Of the objective ``joint``: how much ``barlow`` counts beside the supervised loss."""
        return 1.0

    @property
    def probe_lr(self) -> float:
        """SGD's rate for the classifier where ``weight_objective`` is ``barlow``."""
        return 0.1

    @abstractmethod
    def initial_alpha(self, edges: int, generator: Generator) -> Tensor:
        """Architecture parameters of one cell kind before training: float32, (edges, O)."""

    @abstractmethod
    def edge_weights(self, alpha_EO: Tensor) -> Tensor:
        """The differentiable weights (E, O) with which operations are mixed on an edge."""

    def regulariser(self, weights: Sequence[Tensor]) -> Tensor | float:
        """Added to the architecture loss, already weighted; ``weights`` holds every cell kind."""
        return 0.0

    @abstractmethod
    def discretise(self, weights_normal: Rows, weights_reduce: Rows) -> Discretised:
        """Edge weights after the last epoch, as nested lists of floats, to a genotype."""


M = TypeVar("M", bound=Method)
REGISTRY: dict[str, type[Method]] = {}


def register(name: str) -> Callable[[type[M]], type[M]]:
    """Class decorator, outermost: makes a method known under ``name``.

    Raises:
        ValueError: when another method has the name already.
    """

    def add(method: type[M]) -> type[M]:
        if REGISTRY.setdefault(name, method) is not method:
            raise ValueError(f"method '{name}' is registered twice; rename one of them")
        return method

    return add
