"""How cells are stacked: which of them reduce, and how wide each one is. No torch."""

from __future__ import annotations

from dataclasses import dataclass

STEM_MULTIPLIER = 3  # DARTS model.py: the stem has three times the initial channels


@dataclass(frozen=True, slots=True)
class CellPlan:
    """One cell of the stack: the channels it reads and the channels of each of its nodes."""

    before_last: int  # channels of the output of the cell before the last one
    last: int  # channels of the output of the last cell
    channels: int
    reduction: bool
    after_reduction: bool  # the cell before halved the maps, so ``before_last`` must shrink


def reductions(layers: int) -> tuple[int, int]:
    """The two cells that halve the maps and double the channels (DARTS model_search.py).

    Raises:
        ValueError: fewer than three layers, where the two cells would coincide or the
            network would hold no normal cell.
    """
    if layers < 3:
        raise ValueError(f"layers={layers}: two reduction cells and a normal one need at least 3")
    return layers // 3, 2 * layers // 3


def stack_cells(
    channels: int, layers: int, width_normal: int, width_reduce: int
) -> tuple[list[CellPlan], int]:
    """Plan ``layers`` cells whose outputs concatenate ``width`` nodes each.

    Returns the plans and the channels of the last output. Raises ``ValueError`` for fewer
    than three layers.
    """
    reduce_at = reductions(layers)
    before_last = last = STEM_MULTIPLIER * channels
    plans: list[CellPlan] = []
    for index in range(layers):
        reduction = index in reduce_at
        channels *= 2 if reduction else 1
        plans.append(CellPlan(before_last, last, channels, reduction, index - 1 in reduce_at))
        before_last, last = last, channels * (width_reduce if reduction else width_normal)
    return plans, last
