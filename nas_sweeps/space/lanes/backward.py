"""The launches of a cell's backward pass: its nodes in reverse.

Of a node: two sums for every lane that adds to it, which give the gradients of edge weights and of
BatchNorm, then dz of every convolution; the same through the first halves of separable ones. Once
all that reads a state is done, its gradient is one launch. Sums are taken in chunks that are added
in a fixed order, so equal inputs give equal bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nas_sweeps.space.lanes import filter_gradients, mixing
from nas_sweeps.space.lanes.launch import launch
from nas_sweeps.space.lanes.shape import PIXELS, VALUES, cdiv, power_of_2
from nas_sweeps.space.lanes.table import INPUTS, Node, Range, Source
from nas_sweeps.space.lanes.work import Maps, Work


class Gradients(NamedTuple):
    """What was asked for; by lane but for the inputs."""

    X: Tensor | None  # of both inputs
    W: Tensor  # of edge weights, and a zero at the end
    P: Tensor | None
    F: Tensor | None  # of filters, by tap
    G: Tensor
    B: Tensor


def run_backward(work: Work, maps: Maps, grad_BCHW: Tensor, inputs: bool, learn: bool) -> Gradients:
    """Gradients of edge weights and, where asked for, of ``inputs`` and parameters (``learn``)."""
    return _Backward(work, maps, grad_BCHW, inputs, learn).run()


class _Backward:
    def __init__(
        self, work: Work, maps: Maps, grad_BCHW: Tensor, inputs: bool, learn: bool
    ) -> None:
        self.work, self.maps = work, maps
        shape = work.shape
        C, N, L = shape.channels, shape.pixels, work.L
        self.D = work.new(N, work.OC)
        self.D.copy_(grad_BCHW.permute(0, 2, 3, 1).reshape(N, work.OC))
        self.every = inputs or learn  # else nothing reads what flows to the inputs
        self.DX = work.new(INPUTS, shape.pixels_in, C) if inputs else None
        self.DZ = work.new(L, N, C)
        self.DU = self.DZ if shape.dot else torch.empty_like(self.DZ)
        self.DH = work.new(len(maps.Y), N, C)
        self.DM = work.new(len(maps.M), N, C)
        self.a, self.p, self.q = (work.sums(work.LT, C) for _ in range(3))
        self.dg, self.db = work.sums(work.LT, C), work.sums(work.LT, C)
        self.dw = torch.zeros(work.LT + 1, dtype=shape.sums, device=work.device)
        self.chunks = shape.chunks(max(1, L // 3))
        self.per = cdiv(shape.tiles, self.chunks)
        self.partial = work.sums(work.LT, self.chunks, 2, C)
        self.dp: Tensor | None = None
        if learn:
            size = (self.chunks if shape.dot else 1, L, C, C)
            self.dp = work.sums(*size) if shape.dot else work.new(*size)

    def run(self) -> Gradients:
        table = self.work.table
        source = {source.state: source for source in table.sources}
        for node in reversed(table.nodes):
            if node is not table.nodes[-1]:  # whatever reads it is done
                self._state(source[node.node])
            self._node(node)
        if self.DX is not None:
            for state in range(INPUTS):
                self._state(source[state])
        learn = self.dp is not None
        dp = self.dp.sum(0, dtype=self.work.shape.sums) if self.dp is not None else None
        return Gradients(self.DX, self.dw, dp, self._filters() if learn else None, self.dg, self.db)

    def _node(self, node: Node) -> None:
        work, shape = self.work, self.work.shape

        def wanted(span: Range, inner: int) -> Range:
            return span if self.every else (span[0], span[0] + inner)

        self._slopes(self.D, (node.blocks[0], node.plain[1]), first=False)
        self._pointwise(self.D, wanted(node.blocks, node.inner_blocks), first=False)
        lo, hi = wanted(node.seconds, node.inner_seconds)
        launch(
            filter_gradients.second_gradient, (shape.row_tiles, hi - lo, shape.blocks),
            self.DZ, self.maps.Y, work.packed.F, self.DH, work.TAB, work.LIST, lo, shape.batch,
            shape.tile_rows, **work.small, **shape.tile, **work.common,
        )  # fmt: skip
        halves = wanted(node.halves, node.inner_halves)
        self._slopes(self.DH, halves, first=True)
        self._pointwise(self.DH, halves, first=True)

    def _slopes(self, D: Tensor, lanes: Range, first: bool) -> None:
        (lo, hi), work, shape, maps = lanes, self.work, self.work.shape, self.maps
        launch(
            mixing.sums, (self.chunks, hi - lo, shape.blocks),
            D, maps.U, work.packed.P, maps.M, maps.X, maps.OUT, work.F, self.partial, work.TAB,
            work.LIST, lo, shape.pixels, shape.batch, self.chunks, self.per, work.L, FIRST=first,
            BLOCK=shape.rows, **work.at_node, **work.common, **work.dot,
        )  # fmt: skip
        whole = power_of_2(shape.channels)
        launch(
            mixing.slopes, (hi - lo,),
            self.partial, work.TAB, work.LIST, work.weights, work.packed.G, work.packed.B,
            maps.MEAN, maps.RSTD, self.a, self.p, self.q, self.dg, self.db, self.dw, lo,
            shape.pixels, self.chunks, TRAIN=work.training, CP=whole, TB=max(1, 1024 // whole),
            **{k: v for k, v in work.common.items() if k != "CB"},
        )  # fmt: skip

    def _pointwise(self, D: Tensor, lanes: Range, first: bool) -> None:
        (lo, hi), work, shape, maps = lanes, self.work, self.work.shape, self.maps
        launch(
            mixing.pointwise_gradient, (self.chunks, hi - lo, shape.blocks),
            D, maps.U, work.packed.P, self.a, self.p, self.q, work.F, self.DU,
            self.partial if self.dp is None else self.dp, work.TAB, work.LIST, lo, shape.pixels,
            shape.batch, self.per, work.L, FIRST=first, WG=self.dp is not None, BLOCK=shape.rows,
            **work.at_node, **work.common, **work.dot,
        )  # fmt: skip
        if shape.dot:
            return
        for lane in work.table.order[lo:hi]:
            torch.mm(self.DU[lane], work.packed.P_maps[lane], out=self.DZ[lane])
            if self.dp is not None:
                torch.mm(self.DU[lane].T, maps.Z[lane], out=self.dp[0, lane])

    def _state(self, source: Source) -> None:
        """The gradient of a state: an input's into DX, a node's added to D."""
        work, shape, maps, C = self.work, self.work.shape, self.maps, self.work.shape.channels
        for m in (source.largest, source.mean):
            launch(
                mixing.pool_gradient, (shape.tiles, int(m >= 0), shape.blocks),
                self.D, maps.M, self.a, self.p, self.q, work.F, self.DM, work.TAB, work.LIST,
                work.PTAB, m, shape.pixels, shape.batch, BLOCK=shape.rows, **work.at_node,
                **work.common,
            )  # fmt: skip
        read = (self.DZ, work.packed.F, self.DM, maps.IDX)
        pools = source.largest, source.mean
        if source.state < INPUTS and shape.stride == 2:
            assert self.DX is not None
            rows = max(PIXELS, VALUES // 2 // shape.block)  # it holds more at once
            for parity in range(4):
                launch(
                    filter_gradients.strided_gradient, (cdiv(shape.pixels, rows), shape.blocks),
                    maps.X[source.state], *read, self.DX[source.state], work.TAB, *source.kinds,
                    *pools, shape.batch, PH=parity // 2, PW=parity % 2, BLOCK=rows, **work.big,
                    **work.out, **work.common,
                )  # fmt: skip
            return
        if source.state < INPUTS:
            assert self.DX is not None
            X, out, side = maps.X[source.state], self.DX[source.state], 1
        else:
            column = next(n.column for n in work.table.nodes if n.node == source.state)
            X, out, side = maps.OUT[:, column * C :], self.D[:, column * C :], shape.nodes
        launch(
            filter_gradients.input_gradient, (shape.row_tiles, shape.blocks),
            X, *read, self.D, self.a, work.F, out, work.TAB, work.LIST, *source.kinds[:5], *pools,
            *source.identities, shape.batch, shape.tile_rows, SIDE=side, NODES=shape.nodes,
            ADD=source.state >= INPUTS, DROP=work.drop, **work.small, **shape.tile, **work.common,
        )  # fmt: skip

    def _filters(self) -> Tensor:
        """Gradients of all depthwise filters, (taps, C)."""
        work, shape, table = self.work, self.work.shape, self.work.table
        taps = max(1, table.taps)
        per = max(1, min(64, shape.row_tiles // 8))
        chunks = cdiv(shape.row_tiles, per)
        partial = work.sums(chunks, taps, shape.channels)
        inputs = [g.first for g in table.groups if g.sources[0] < INPUTS]
        nodes = [g.first for g in table.groups if g.sources[0] >= INPUTS]
        seconds = [g.second for g in table.groups]
        for spans, state in ((inputs, 0), (nodes, INPUTS), (seconds, None)):
            lo, hi = _hull(spans)
            X, step, size = work.states(self.maps, state)
            launch(
                filter_gradients.filter_gradient, (chunks, (hi - lo) * 5, shape.blocks),
                X, step, self.DZ, partial, work.TAB, lo, shape.batch, shape.tile_rows,
                shape.row_tiles, per, taps, RELU=state is not None, **size, **work.out,
                **shape.tile, **work.common,
            )  # fmt: skip
        return partial.sum(0)


def _hull(spans: Sequence[Range]) -> Range:
    """The range that these, which follow each other, make together."""
    full = [span for span in spans if span[0] < span[1]]
    return (full[0][0], full[-1][1]) if full else (0, 0)
