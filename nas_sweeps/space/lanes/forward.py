"""The launches of a cell's forward pass.

For the two inputs, and then for each node once it is there: all its depthwise filters, the folding
of their BatchNorm, the second halves of separable convolutions, pools; then the next node as the
sum of its lanes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nas_sweeps.space.lanes import filters, mixing
from nas_sweeps.space.lanes.launch import launch
from nas_sweeps.space.lanes.table import INPUTS, Node, Range
from nas_sweeps.space.lanes.work import Maps, Work


def run_forward(work: Work, s0_BCHW: Tensor, s1_BCHW: Tensor) -> Maps:
    """All maps of a cell; running statistics are updated in training."""
    shape, table = work.shape, work.table
    C, N = shape.channels, shape.pixels
    X = work.new(INPUTS, shape.pixels_in, C)
    for x, s in zip(X, (s0_BCHW, s1_BCHW), strict=True):
        x.copy_(s.permute(0, 2, 3, 1).reshape(-1, C))
    Z = work.new(work.L, N, C)
    pools = len(table.pool_rows)
    mean, variance = work.layout.statistics(work.training, work.packed.G)
    maps = Maps(
        X=X,
        OUT=work.new(N, work.OC),
        Z=Z,
        U=Z if shape.dot else torch.empty_like(Z),
        Y=work.new(sum(lane.rectified for lane in table.blocks), N, C),
        M=work.new(pools, N, C),
        IDX=work.new(pools, N, C, dtype=torch.int8),
        MEAN=mean,
        RSTD=work.sums(work.LT, C),
    )
    _Forward(work, maps, variance).run()
    if work.training:
        work.layout.update(mean, variance)
    return maps


class _Forward:
    def __init__(self, work: Work, maps: Maps, variance: Tensor) -> None:
        self.work, self.maps, self.variance = work, maps, variance
        shape = work.shape
        C = shape.channels
        self.scale, self.shift = work.sums(work.LT, C), work.sums(work.LT, C)
        self.tiles = shape.row_tiles if shape.dot else shape.tiles  # of whoever takes moments
        self.partial = work.sums(work.L, self.tiles, 3, C)
        self.of_pools = work.sums(len(maps.M), shape.tiles, 3, C)

    def run(self) -> None:
        for group in self.work.table.groups:
            state = group.sources[0]
            self._depthwise(group.first, state)
            self._fold(group.halves)
            self._rectify(group.halves)
            self._depthwise(group.second, None)
            self._pool(group.pools, state)
            self._fold(group.ready)
            for node in self.work.table.nodes:
                if node.node == group.sources[-1] + 1:
                    self._mix(node)

    def _depthwise(self, lanes: Range, state: int | None) -> None:
        """z of these lanes, and the moments of P z (whose map is stored where it must be)."""
        (lo, hi), work, shape, maps = lanes, self.work, self.work.shape, self.maps
        X, step, size = work.states(maps, state)
        moments = shape.dot and work.training
        launch(
            filters.depthwise, (shape.row_tiles, hi - lo, shape.blocks),
            X, step, work.packed.F, work.packed.P, maps.Z, self.partial, work.TAB, lo, shape.batch,
            shape.tile_rows, self.tiles, RELU=state is not None,
            STATS=moments, PREC=work.dot["PREC"] if moments else "ieee",
            **size, **work.out, **shape.tile, **work.common,
        )  # fmt: skip
        if shape.dot or lo == hi:
            return
        torch.bmm(maps.Z[lo:hi], work.packed.P_maps[lo:hi].mT, out=maps.U[lo:hi])
        if work.training:
            launch(
                mixing.moments, (shape.tiles, hi - lo, shape.blocks),
                maps.U, self.partial, work.TAB, lo, shape.pixels, self.tiles, BLOCK=shape.rows,
                **work.common,
            )  # fmt: skip

    def _pool(self, pools: Range, state: int) -> None:
        (lo, hi), work, shape, maps = pools, self.work, self.work.shape, self.maps
        X, step, size = work.states(maps, state)
        launch(
            filters.pool, (shape.tiles, hi - lo, shape.blocks),
            X, step, maps.M, maps.IDX, self.of_pools, work.PTAB, lo, shape.pixels, shape.tiles,
            STATS=work.training, BLOCK=shape.rows, **size, **work.out, **work.common,
        )  # fmt: skip

    def _fold(self, lanes: Range) -> None:
        (lo, hi), work, shape, maps = lanes, self.work, self.work.shape, self.maps
        launch(
            mixing.fold, (hi - lo, shape.blocks),
            self.partial, self.of_pools, work.TAB, work.LIST, work.weights, work.packed.G,
            work.packed.B, maps.MEAN, self.variance, maps.RSTD, self.scale, self.shift, lo,
            self.tiles, shape.tiles, work.L, TRAIN=work.training, TB=max(1, 1024 // shape.block),
            **work.common,
        )  # fmt: skip

    def _rectify(self, halves: Range) -> None:
        (lo, hi), work, shape, maps = halves, self.work, self.work.shape, self.maps
        launch(
            mixing.rectify, (shape.tiles, hi - lo, shape.blocks),
            maps.U, work.packed.P, self.scale, self.shift, maps.Y, work.TAB, work.LIST, lo,
            shape.pixels, BLOCK=shape.rows, **work.common, **work.dot,
        )  # fmt: skip

    def _mix(self, node: Node) -> None:
        work, shape, maps = self.work, self.work.shape, self.maps
        launch(
            mixing.mix, (shape.tiles, shape.blocks),
            maps.U, work.packed.P, maps.M, maps.X, maps.OUT, self.scale, self.shift, work.F,
            work.TAB, work.LIST, *node.blocks, node.plain[1], node.column, shape.pixels,
            shape.batch, BLOCK=shape.rows, **work.at_node, **work.common, **work.dot,
        )  # fmt: skip
