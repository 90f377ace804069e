"""The table of a cell: every operation as one or two lanes, in the order that kernels want them.

A lane is (kind of filter, map it reads, node it adds to, edge weight, normalised or not). A dilated
convolution is one lane, a separable one two (the first ends in a map y of its own, which the second
reads), a pool or an identity a plain one. FactorizedReduce is two lanes whose filter takes every
second pixel and whose pointwise product fills one half of the channels; the other half has scale
and shift zero. So a softmax of eight operations, a sigmoid of seven, one sampled operation an edge
and the cell of a genotype differ in their tables alone. No Triton here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from nas_sweeps.space.operations import DepthwiseSeparable, DilConv, FactorizedReduce, Pool, SepConv

ROW = 8  # columns of a lane's row: see mixing.py
DW3, DW5, DIL3, DIL5, EVEN, ODD, POOLED, INPUT, NODE = range(9)
TAPS = {DW3: 9, DW5: 25, DIL3: 9, DIL5: 25, EVEN: 0, ODD: 0}
INPUTS = 2  # states that a cell is given; the others are its nodes


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation between two states, as a cell's modules hold it.

    ``weight`` is its place among the flattened edge weights, or -1 for the constant one; ``drop``
    its row among the factors of drop path, or -1.
    """

    module: nn.Module
    source: int
    node: int
    weight: int = -1
    drop: int = -1


@dataclass(frozen=True, eq=False)
class Lane:
    """A row of the table, with the modules that hold its numbers."""

    kind: int
    source: int  # state
    node: int
    weight: int = -1
    drop: int = -1
    filter: nn.Conv2d | None = None
    pointwise: nn.Conv2d | None = None
    norm: nn.BatchNorm2d | None = None
    half: int = -1  # 0 or 1: of the channels, for FactorizedReduce
    order: int = -1  # pairs the halves of a separable convolution
    second: bool = False  # reads y, not a state

    @property
    def rectified(self) -> bool:
        """Whether it is the first half of a separable convolution."""
        return self.order >= 0 and not self.second

    @property
    def group(self) -> int:
        """What is computed at once: the two inputs are one group, each node is another."""
        return max(self.source, INPUTS - 1)


def lanes_of(operations: Iterable[Operation]) -> list[Lane]:
    """All lanes of these operations, in no particular order.

    Raises:
        TypeError: a module that is none of the space's operations.
    """
    out: list[Lane] = []
    for number, one in enumerate(operations):
        module = one.module
        base = Lane(-1, one.source, one.node, one.weight, one.drop)
        if isinstance(module, SepConv):
            first, second = module.first, module.second
            out.append(_convolution(replace(base, weight=-1, drop=-1, order=number), first))
            out.append(_convolution(replace(base, order=number, second=True), second))
        elif isinstance(module, DilConv):
            out.append(_convolution(base, module))
        elif isinstance(module, FactorizedReduce):
            halves = (EVEN, module.even), (ODD, module.odd)
            for half, (kind, conv) in enumerate(halves):
                out.append(replace(base, kind=kind, pointwise=conv, norm=module.norm, half=half))
        elif isinstance(module, Pool):
            norm = module.norm if isinstance(module.norm, nn.BatchNorm2d) else None
            mean = not isinstance(module.pool, nn.MaxPool2d)
            out.append(replace(base, kind=POOLED, norm=norm, half=int(mean)))
        elif isinstance(module, nn.Identity):
            out.append(replace(base, kind=INPUT if one.source < INPUTS else NODE))
        else:
            raise TypeError(f"{type(module).__name__} is no operation of a cell")
    return out


def _convolution(base: Lane, block: DepthwiseSeparable) -> Lane:
    conv = block.depthwise
    wide, dilated = conv.kernel_size[0] == 5, conv.dilation[0] == 2
    kind = (DIL5 if wide else DIL3) if dilated else (DW5 if wide else DW3)
    return replace(base, kind=kind, filter=conv, pointwise=block.pointwise, norm=block.norm)


Range = tuple[int, int]


@dataclass(frozen=True)
class Group:
    """What is done once the states of a group are there: they are its sources."""

    sources: tuple[int, ...]
    first: Range  # lanes that read these states
    second: Range  # lanes that read what became of the first halves
    halves: Range  # of LIST: the first halves
    ready: Range  # of LIST: all lanes that add to a node
    pools: Range  # of the table of pools


@dataclass(frozen=True)
class Node:
    """Where LIST holds the lanes of a node; those that read a node come before the others."""

    node: int
    column: int  # among the cell's living nodes
    blocks: Range
    plain: Range  # follows ``blocks``
    seconds: Range
    halves: Range
    inner_blocks: int  # how many of each read a node
    inner_seconds: int
    inner_halves: int


@dataclass(frozen=True)
class Source:
    """Where the lanes that read a state are, for its gradient."""

    state: int
    kinds: tuple[int, ...]  # seven borders of the lanes of kinds 0 to 5
    largest: int  # pooled maps, or -1
    mean: int
    identities: Range  # of LIST


@dataclass(frozen=True, eq=False)
class Table:
    """A cell's lanes in order, the numbers that kernels read, and the ranges of every launch."""

    blocks: tuple[Lane, ...]
    plain: tuple[Lane, ...]
    nodes: tuple[Node, ...]
    groups: tuple[Group, ...]
    sources: tuple[Source, ...]
    rows: list[list[int]]
    pool_rows: list[list[int]]
    order: list[int]  # lanes, as launches want them: LIST in kernels
    weight_lanes: list[list[int]]  # the one or two lanes of every edge weight, or the spare one
    taps: int
    tensors: dict[torch.device, tuple[Tensor, Tensor, Tensor, Tensor]] = field(default_factory=dict)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        return self.blocks + self.plain

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows, pools, list and lanes of weights as tensors: sent once, before any recording."""
        if device not in self.tensors:
            pools = self.pool_rows or [[0] * ROW]  # a kernel wants some tensor
            of_weights = torch.tensor(self.weight_lanes, dtype=torch.int64, device=device)
            self.tensors[device] = (
                torch.tensor(self.rows, dtype=torch.int32, device=device),
                torch.tensor(pools, dtype=torch.int32, device=device),
                torch.tensor(self.order, dtype=torch.int32, device=device),
                of_weights.reshape(-1, 2),
            )
        return self.tensors[device]


def build_table(operations: Sequence[Operation], weights: int) -> Table:
    """The table of a cell.

    Args:
        operations: of all edges; ``none`` is left out by the caller.
        weights: how many edge weights there are, 0 where all are one.
    """
    lanes = lanes_of(operations)
    blocks = sorted(
        (lane for lane in lanes if lane.kind <= ODD),
        key=lambda lane: (lane.second, lane.source, lane.kind, lane.node),
    )
    plain = sorted(
        (lane for lane in lanes if lane.kind > ODD),
        key=lambda lane: (lane.source, lane.kind, lane.half, lane.node),
    )
    return _Builder(tuple(blocks), tuple(plain), weights).table()


class _Builder:
    def __init__(self, blocks: tuple[Lane, ...], plain: tuple[Lane, ...], weights: int) -> None:
        self.blocks, self.plain, self.lanes = blocks, plain, blocks + plain
        self.weights, self.order = weights, list[int]()
        self.alive = sorted({lane.node for lane in self.lanes})
        halves = [lane for lane in blocks if lane.rectified]
        self.y = {lane.order: number for number, lane in enumerate(halves)}
        pooled = [(p.source, p.half) for p in plain if p.kind == POOLED]
        self.pools = sorted(set(pooled), key=lambda pool: (max(pool[0], INPUTS - 1), pool))

    def table(self) -> Table:
        groups = tuple(self._group(number) for number in range(INPUTS - 1, max(self.alive)))
        nodes = tuple(self._node(node) for node in self.alive)
        states = [0, 1, *self.alive]
        sources = tuple(self._source(state) for state in states)
        pool_rows = [self._pool_row(*pool) for pool in self.pools]
        rows, taps = self._rows()
        return Table(
            self.blocks, self.plain, nodes, groups, sources, rows, pool_rows,
            self.order or [0], self._weight_lanes(), taps,
        )  # fmt: skip

    def _listed(self, lanes: Iterable[int]) -> Range:
        start = len(self.order)
        self.order += lanes
        return start, len(self.order)

    def _span(self, chosen: Iterable[int]) -> Range:
        numbers = list(chosen)
        return (numbers[0], numbers[-1] + 1) if numbers else (0, 0)

    def _where(self, test: object) -> list[int]:
        assert callable(test)
        return [number for number, lane in enumerate(self.lanes) if test(lane)]

    def _group(self, number: int) -> Group:
        mine = self._where(lambda lane: lane.group == number)
        blocks = [n for n in mine if n < len(self.blocks)]
        first = [n for n in blocks if not self.lanes[n].second]
        second = [n for n in blocks if self.lanes[n].second]
        pools = [n for n, (s, _) in enumerate(self.pools) if max(s, INPUTS - 1) == number]
        return Group(
            sources=(0, 1) if number < INPUTS else (number,),
            first=self._span(first),
            second=self._span(second),
            halves=self._listed(n for n in first if self.lanes[n].rectified),
            ready=self._listed(n for n in mine if not self.lanes[n].rectified),
            pools=self._span(pools),
        )

    def _node(self, node: int) -> Node:
        mine = self._where(lambda lane: lane.node == node)
        mine.sort(key=lambda n: self.lanes[n].source < INPUTS)
        blocks = [n for n in mine if n < len(self.blocks)]
        adding = [n for n in blocks if not self.lanes[n].rectified]
        seconds = [n for n in blocks if self.lanes[n].second]
        halves = [n for n in blocks if self.lanes[n].rectified]

        def inner(numbers: list[int]) -> int:
            return sum(self.lanes[n].source >= INPUTS for n in numbers)

        return Node(
            node, self.alive.index(node), self._listed(adding),
            self._listed(n for n in mine if n >= len(self.blocks)), self._listed(seconds),
            self._listed(halves), inner(adding), inner(seconds), inner(halves),
        )  # fmt: skip

    def _source(self, state: int) -> Source:
        first = self._where(
            lambda lane: lane.source == state and lane.kind <= ODD and not lane.second
        )
        start = first[0] if first else 0
        borders = [start]
        for kind in TAPS:
            borders.append(borders[-1] + sum(self.lanes[n].kind == kind for n in first))
        identities = self._where(lambda lane: lane.source == state and lane.kind in (INPUT, NODE))
        find = {pool: number for number, pool in enumerate(self.pools)}
        return Source(
            state, tuple(borders), find.get((state, 0), -1), find.get((state, 1), -1),
            self._listed(identities),
        )  # fmt: skip

    def _pool_row(self, source: int, mean: int) -> list[int]:
        number = self.pools.index((source, mean))
        readers = self._where(
            lambda lane: lane.kind == POOLED and (lane.source, lane.half) == (source, mean)
        )
        place = self._map(source)
        return [mean, place, number, *self._listed(readers), 0, 0, 0]

    def _map(self, state: int) -> int:
        """The number of a state among the inputs or among the living nodes."""
        return state if state < INPUTS else self.alive.index(state)

    def _rows(self) -> tuple[list[list[int]], int]:
        rows, tap, slot = [], 0, 0
        for lane in self.lanes:
            column = self.alive.index(lane.node)
            if lane.kind <= ODD:
                reads = self.y[lane.order] if lane.second else self._map(lane.source)
                place = self.y[lane.order] if lane.rectified else column
                row = [lane.kind, reads, tap, slot, place]
                tap, slot = tap + TAPS[lane.kind], slot + 1
            else:
                pooled = lane.kind == POOLED
                reads = self.pools.index((lane.source, lane.half)) if pooled else 0
                moments = slot + reads if lane.norm is not None else -1
                row = [lane.kind, reads if pooled else self._map(lane.source), 0, moments, column]
            rows.append([*row, lane.weight, 0, lane.drop])
        return rows, tap

    def _weight_lanes(self) -> list[list[int]]:
        spare = len(self.lanes)
        found: list[list[int]] = [[] for _ in range(self.weights)]
        for number, lane in enumerate(self.lanes):
            if lane.weight >= 0:
                found[lane.weight].append(number)
        return [[*one, spare, spare][:2] for one in found]
