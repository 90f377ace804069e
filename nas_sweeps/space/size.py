"""How large an evaluation network is, counted from its genotype alone. No torch.

``network.py`` counts the same of a network that is there.
"""

from __future__ import annotations

from dataclasses import dataclass

from nas_sweeps.space.genotype import Genotype, alive_nodes
from nas_sweeps.space.layout import CellPlan, stack_cells

CLASSES, SIDE = 10, 32  # of CIFAR-10, where the field states sizes
_RGB = 3


@dataclass(frozen=True, slots=True)
class Size:
    """``num_params``: weights; ``macs``: multiply-accumulates of one image."""

    num_params: int
    macs: int

    def __add__(self, other: Size) -> Size:
        return Size(self.num_params + other.num_params, self.macs + other.macs)


def size_of(
    genotype: Genotype, channels: int, layers: int, classes: int = CLASSES, side: int = SIDE
) -> Size:
    """The size of a genotype's network with a linear classifier.

    Args:
        channels, layers: as of ``Network``.
        classes: outputs.
        side: of the square images, in pixels.

    Raises:
        ValueError: fewer than three layers.
    """
    widths = len(alive_nodes(genotype.normal)), len(alive_nodes(genotype.reduce))
    plans, features = stack_cells(channels, layers, *widths)
    total = _conv(_RGB * 9, plans[0].last, side)
    for plan in plans:
        out = -(-side // 2) if plan.reduction else side
        total += _cell(genotype, plan, side, out)
        side = out
    return total + Size(features * classes + classes, features * classes)


def _cell(genotype: Genotype, plan: CellPlan, side: int, out: int) -> Size:
    """Maps of ``side`` pixels come in, and of ``out`` leave."""
    width = plan.channels
    total = _conv(plan.before_last, width, side) + _conv(plan.last, width, side)
    for operation, source, _ in genotype.cell(plan.reduction):
        kind, _, kernel = operation.rpartition("_")
        if operation == "skip_connect" and plan.reduction and source < 2:
            total += _conv(width, width, out)
        elif kind in ("sep_conv", "dil_conv"):
            area = int(kernel[0]) ** 2
            once = _conv(width + area, width, out)  # pointwise, and depthwise
            total += once + once if kind == "sep_conv" else once
    return total


def _conv(inputs: int, outputs: int, side: int) -> Size:
    """A convolution that reads so many numbers for each it writes, and its BatchNorm."""
    weights = inputs * outputs
    return Size(weights + 2 * outputs, weights * side**2)
