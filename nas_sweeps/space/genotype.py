"""Genotypes: the discrete cells that a search ends with. Pure Python: no torch.

A cell has two input nodes (0 and 1: the outputs of the two cells before it) and four
intermediate nodes (2 to 5). An edge is ``(operation, source, node)`` with
``source < node``; a node is the sum of its incoming edges.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

Operation = Literal[
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)  # canonical order: the columns of alpha
CELLS: tuple[Literal["normal", "reduce"], ...] = ("normal", "reduce")
NODES = (2, 3, 4, 5)
EDGES: tuple[tuple[int, int], ...] = tuple((j, i) for i in NODES for j in range(i))  # rows of alpha
Edge = tuple[Operation, int, int]


def prune(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """Drop, repeatedly, every edge that leaves an intermediate node without inputs."""
    kept = tuple(edges)
    while True:
        alive = {0, 1} | {node for _, _, node in kept}
        after = tuple(edge for edge in kept if edge[1] in alive)
        if after == kept:
            return kept
        kept = after


def _canonical(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    return tuple(sorted(prune(edges), key=lambda e: (e[2], e[1], OPERATIONS.index(e[0]))))


@dataclass(frozen=True, slots=True)
class Genotype:
    """A normal and a reduction cell, pruned and in canonical order.

    Two genotypes are equal, and share their ``genotype_id``, exactly when they describe
    the same network.

    Raises:
        ValueError: an unknown operation, ``none`` as an operation, an impossible edge,
            an edge named twice, or a cell in which no node is left.
    """

    normal: tuple[Edge, ...]
    reduce: tuple[Edge, ...]

    def __post_init__(self) -> None:
        for cell in CELLS:
            edges = tuple((str(o), int(j), int(i)) for o, j, i in getattr(self, cell))
            for operation, source, node in edges:
                if operation not in OPERATIONS or operation == "none":
                    known = ", ".join(OPERATIONS[1:])
                    raise ValueError(
                        f"{cell}: unknown operation '{operation}'; choose from {known}"
                    )
                if (source, node) not in EDGES:
                    raise ValueError(f"{cell}: there is no edge from node {source} to node {node}")
            if len(set(edges)) < len(edges):
                raise ValueError(f"{cell}: an operation is named twice on one edge")
            kept = _canonical(edges)  # type: ignore[arg-type]
            if not kept:
                raise ValueError(f"{cell}: no edge leads from the inputs to a node")
            object.__setattr__(self, cell, kept)

    @property
    def genotype_id(self) -> str:
        """16 hexadecimal digits that name this pair of cells everywhere."""
        text = json.dumps(self.to_json(), separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> list[list[list[Any]]]:
        """``[normal, reduce]``, each a list of ``[operation, source, node]``."""
        return [[list(edge) for edge in cell] for cell in (self.normal, self.reduce)]

    @classmethod
    def from_json(cls, value: Any) -> Genotype:
        """Read back ``to_json``. Raises ``ValueError`` for anything else."""
        try:
            normal, reduce = (tuple((o, j, i) for o, j, i in cell) for cell in value)
            return cls(normal, reduce)
        except TypeError as error:
            raise ValueError(f"not a genotype: {error}") from None

    def cell(self, reduction: bool) -> tuple[Edge, ...]:
        """The edges of the reduction or the normal cell."""
        return self.reduce if reduction else self.normal

    def count(self, operation: str, *, reduction: bool = False) -> int:
        """How often a cell uses an operation."""
        return sum(edge[0] == operation for edge in self.cell(reduction))


def alive_nodes(edges: Iterable[Edge]) -> tuple[int, ...]:
    """The intermediate nodes that have an input: the cell's output concatenates these."""
    return tuple(sorted({node for _, _, node in edges}))
