"""From edge weights to a genotype. Pure Python: no torch.

Weights are what a method makes of its architecture parameters (softmax or sigmoid):
non-negative, one row per edge in the order of ``EDGES``, one column per operation.
``none`` is never part of a genotype; ties go to the smaller index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from nas_sweeps.space.genotype import EDGES, NODES, OPERATIONS, Edge, Genotype, Operation, prune

Weights = Sequence[Sequence[float]]
Rule = Literal["darts_top2", "eq4_argmax", "threshold_sparse", "threshold_edge"]
Fallback = Literal["top2", "relative", "error"]
Ranked = list[tuple[float, Operation]]  # the candidates of an edge, heaviest first

TOP2_EDGES = 2 * len(NODES)
FAIR_THRESHOLD = 0.85  # FairDARTS utils.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Discretised:
    """A genotype and how clearly the weights spoke for it.

    ``gap``: the largest distance of a weight from the one-hot row at its edge's maximum.
    ``margin``: mean over edges of the heaviest minus the second operation, ``none`` aside.
    ``entropy``: mean over edges of the entropy in nats of the row normalised to sum 1.
    """

    genotype: Genotype
    rule: Rule
    threshold: float | None  # as asked; None where the rule has none
    fallback_used: bool  # the rule left too few edges in one of the cells
    gap_normal: float
    gap_reduce: float
    margin_normal: float
    margin_reduce: float
    entropy_normal: float
    entropy_reduce: float


def darts_top2(weights: Weights, operations: Sequence[str]) -> list[Edge]:
    """Per node the two edges with the heaviest operation, stronger first.

    Source: DARTS model_search.py. Weights are compared as they come: an edge on which
    ``none`` took most of a softmax ranks low.
    """
    return [(edge[0][1], *EDGES[row]) for row, edge in _two_per_node(_rank(weights, operations))]


def eq4_argmax(weights: Weights, operations: Sequence[str]) -> list[Edge]:
    """The heaviest operation on every edge; an edge where that is ``none`` is left out.

    Source: the paper, Eq 4, to the letter. Leaves up to five edges into a node.
    """
    names = [operations[row.index(max(row))] for row in _checked(weights, operations)]
    return [
        (cast(Operation, name), *edge)
        for name, edge in zip(names, EDGES, strict=True)
        if name != "none"
    ]


def fair_threshold(
    weights: Weights,
    operations: Sequence[str],
    threshold: float = FAIR_THRESHOLD,
    variant: Literal["sparse", "edge"] = "sparse",
) -> list[Edge]:
    """Keep operations of weight ``threshold`` or more (FairDARTS utils.py).

    ``sparse``: of the two strongest edges of a node, the heaviest operation each.
    ``edge``: on every edge up to two operations, weaker first, which the network then adds;
    here a tie goes to the larger column, as the reference's ``argsort`` has it.
    """
    ranked = _rank(weights, operations)
    if variant == "sparse":
        kept = [(row, edge[:1]) for row, edge in _two_per_node(ranked)]
    else:
        kept = [(row, sorted(edge, key=_weight)[-2:]) for row, edge in enumerate(ranked)]
    return [
        (operation, *EDGES[row])
        for row, candidates in kept
        for weight, operation in candidates
        if weight >= threshold
    ]


def discretise(
    weights_normal: Weights,
    weights_reduce: Weights,
    operations: Sequence[str],
    *,
    rule: Rule,
    threshold: float = FAIR_THRESHOLD,
    fallback: Fallback = "top2",
    min_edges: int = 1,
) -> Discretised:
    """Read a genotype from the weights of both cells by ``rule``.

    A cell that keeps fewer than ``min_edges`` edges, edges from dead nodes not counted,
    takes the fallback: ``top2`` reads that cell by ``darts_top2``; ``relative`` lowers its
    threshold to the largest value at which every node has an edge and the cell
    ``min_edges``; ``error`` raises.

    Raises:
        ValueError: weights of a wrong shape, negative or not finite; unknown operations;
            ``min_edges`` outside 1..8; ``relative`` with a rule that has no threshold; too
            few edges under fallback ``error``.
    """
    thresholded = rule in ("threshold_sparse", "threshold_edge")
    if not 1 <= min_edges <= TOP2_EDGES:
        raise ValueError(f"min_edges={min_edges}: must be from 1 to {TOP2_EDGES}, two per node")
    if fallback == "relative" and not thresholded:
        raise ValueError(
            f"fallback 'relative' lowers a threshold and rule '{rule}' has none; "
            "choose fallback top2 or error"
        )
    cells: dict[str, tuple[Edge, ...]] = {}
    fallback_used = False
    for cell, weights in (("normal", weights_normal), ("reduce", weights_reduce)):
        edges = prune(_apply(rule, weights, operations, threshold))
        if len(edges) < min_edges:
            if fallback == "error":
                raise ValueError(
                    f"{cell} cell: rule '{rule}' keeps {len(edges)} edges, fewer than "
                    f"{min_edges}; search longer, lower the threshold or choose fallback top2"
                )
            edges = _fall_back(fallback, rule, weights, operations, min_edges)
            fallback_used = True
        cells[cell] = edges
    return Discretised(
        genotype=Genotype(**cells),
        rule=rule,
        threshold=threshold if thresholded else None,
        fallback_used=fallback_used,
        gap_normal=_gap(weights_normal),
        gap_reduce=_gap(weights_reduce),
        margin_normal=_margin(_rank(weights_normal, operations)),
        margin_reduce=_margin(_rank(weights_reduce, operations)),
        entropy_normal=_entropy(weights_normal),
        entropy_reduce=_entropy(weights_reduce),
    )


def _apply(rule: Rule, weights: Weights, operations: Sequence[str], threshold: float) -> list[Edge]:
    match rule:
        case "darts_top2":
            return darts_top2(weights, operations)
        case "eq4_argmax":
            return eq4_argmax(weights, operations)
        case "threshold_sparse":
            return fair_threshold(weights, operations, threshold, "sparse")
        case "threshold_edge":
            return fair_threshold(weights, operations, threshold, "edge")
    raise ValueError(f"unknown rule '{rule}'; choose from {', '.join(get_args(Rule))}")


def _fall_back(
    fallback: Fallback, rule: Rule, weights: Weights, operations: Sequence[str], min_edges: int
) -> tuple[Edge, ...]:
    if fallback == "top2":
        return tuple(darts_top2(weights, operations))
    for threshold in sorted({value for row in weights for value in row}, reverse=True):
        edges = prune(_apply(rule, weights, operations, threshold))
        if len({node for _, _, node in edges}) == len(NODES) and len(edges) >= min_edges:
            return edges
    raise AssertionError("at the smallest weight every node keeps two edges")


def _weight(candidate: tuple[float, Operation]) -> float:
    return candidate[0]


def _rank(weights: Weights, operations: Sequence[str]) -> list[Ranked]:
    """Per edge its operations but ``none``, heaviest first."""
    return [
        sorted(
            (
                (value, cast(Operation, name))
                for value, name in zip(row, operations, strict=True)
                if name != "none"
            ),
            key=_weight,
            reverse=True,
        )
        for row in _checked(weights, operations)
    ]


def _two_per_node(ranked: list[Ranked]) -> list[tuple[int, Ranked]]:
    """(row, candidates) of the two strongest edges of each node, stronger first."""
    kept: list[tuple[int, Ranked]] = []
    for node in NODES:
        incoming = [(row, ranked[row]) for row, edge in enumerate(EDGES) if edge[1] == node]
        kept += sorted(incoming, key=lambda item: -item[1][0][0])[:2]
    return kept


def _gap(weights: Weights) -> float:
    """Largest distance of a weight from the one-hot row at its edge's maximum."""
    return max(
        abs(value - (column == row.index(max(row))))
        for row in weights
        for column, value in enumerate(row)
    )


def _margin(ranked: list[Ranked]) -> float:
    """Mean over edges of the heaviest minus the second operation (0 where there is none)."""
    tops = ([value for value, _ in edge] + [0.0] for edge in ranked)
    return sum(top[0] - top[1] for top in tops) / len(ranked)


def _entropy(weights: Weights) -> float:
    """Mean over edges of the entropy in nats of the normalised row; a row of zeros is uniform."""
    return sum(_row_entropy(row) for row in weights) / len(weights)


def _row_entropy(row: Sequence[float]) -> float:
    total = sum(row)
    if total == 0:
        return math.log(len(row))
    return -sum(value / total * math.log(value / total) for value in row if value / total > 0)


def _checked(weights: Weights, operations: Sequence[str]) -> list[list[float]]:
    """The weights as lists, refused with a ``ValueError`` if no rule could read them."""
    unknown = [name for name in operations if name not in OPERATIONS]
    if unknown or not set(operations) - {"none"}:
        raise ValueError(f"operations {list(operations)}: choose from {', '.join(OPERATIONS)}")
    rows = [[float(value) for value in row] for row in weights]
    widths = {len(row) for row in rows}
    if len(rows) != len(EDGES) or widths != {len(operations)}:
        raise ValueError(
            f"edge weights: {len(rows)} rows of {sorted(widths)} numbers, but a cell has "
            f"{len(EDGES)} edges and there are {len(operations)} operations"
        )
    for row, (source, node) in zip(rows, EDGES, strict=True):
        if not all(math.isfinite(value) and value >= 0 for value in row):
            raise ValueError(
                f"edge {source} to {node}: weights {row} must be finite and not negative; "
                "did the search diverge?"
            )
    return rows
