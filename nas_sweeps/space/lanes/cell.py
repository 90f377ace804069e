"""A cell by kernels: the schedule of launches, forwards and backwards, as one autograd function.

Forwards, for the two inputs and then for each node once it is there: all its depthwise filters,
the folding of their BatchNorm, the second halves of separable convolutions, pools; then the next
node as the sum of its lanes. Backwards the nodes in reverse. Partial sums are added in a fixed
order and nothing is added by atomics, so equal inputs give equal bits. Shapes: B images, C channels,
H x W pixels; maps are [pixel, channel], which is what channels-last memory holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from nas_sweeps.space.lanes import filters, mixing
from nas_sweeps.space.lanes.table import INPUTS, Node, Range, Source, Table
from nas_sweeps.space.lanes.weights import Layout, Packed

DOT_CHANNELS = (16, 64)  # P fits into registers; below 16 tensor cores cannot multiply
_TRITON_TYPE = {torch.float32: tl.float32, torch.float64: tl.float64}
cdiv = triton.cdiv


@dataclass(frozen=True)
class Shape:
    """Sizes of one cell for one batch, and how they are cut into programs."""

    batch: int
    channels: int
    height: int  # of the inputs
    width: int
    stride: int
    nodes: int  # living ones: the output has nodes * channels channels
    maps: torch.dtype
    sums: torch.dtype
    products: str  # Triton's input_precision

    @property
    def out_height(self) -> int:
        return cdiv(self.height, self.stride)

    @property
    def out_width(self) -> int:
        return cdiv(self.width, self.stride)

    @property
    def pixels(self) -> int:
        return self.batch * self.out_height * self.out_width

    @property
    def pixels_in(self) -> int:
        return self.batch * self.height * self.width

    @property
    def dot(self) -> bool:
        """Whether kernels multiply by P themselves, all channels at once."""
        low = DOT_CHANNELS[0] if _compiled() else 1
        power = self.channels & (self.channels - 1) == 0
        return power and low <= self.channels <= DOT_CHANNELS[1]

    @property
    def block(self) -> int:
        """Channels of a program: all of them, or blocks that waste little."""
        if self.dot:
            return self.channels
        whole = int(triton.next_power_of_2(self.channels))
        if whole <= DOT_CHANNELS[1] and 3 * whole <= 4 * self.channels:
            return whole
        return min(16, whole)

    @property
    def blocks(self) -> int:
        return int(cdiv(self.channels, self.block))

    @property
    def rows(self) -> int:
        """Pixels of a program that stays at its pixels: about 2,048 values a program."""
        return max(16, 2048 // self.block)

    @property
    def tiles(self) -> int:
        return int(cdiv(self.pixels, self.rows))

    def chunks(self, lanes: int) -> int:
        """Programs a lane in reductions: several tiles each where there are programs enough."""
        per = max(1, min(8, self.tiles * lanes // 1056))  # eight programs on each of 132 SMs
        return int(cdiv(self.tiles, per))

    def along(self, width: int, height: int) -> tuple[dict[str, int], int, int]:
        """Widths of tiles of four rows, their number, and rows of tiles in an image."""
        wide = int(triton.next_power_of_2(width))
        many = max(16, wide)
        rows = int(cdiv(height, 4))
        return {"BW": wide, "BP": many}, int(cdiv(self.batch, many // wide)) * rows, rows


def _compiled() -> bool:
    return not triton.knobs.runtime.interpret


class Saved(NamedTuple):
    """What the backward pass needs of the forward pass."""

    X: Tensor
    OUT: Tensor
    Z: Tensor
    U: Tensor
    Y: Tensor
    M: Tensor
    IDX: Tensor
    MEAN: Tensor
    RSTD: Tensor


def run_cell(
    table: Table,
    s0_BCHW: Tensor,
    s1_BCHW: Tensor,
    stride: int,
    weights: Tensor | None,
    drop: Tensor | None,
) -> Tensor:
    """The output of a cell: (B, living nodes x C, ceil(H / stride), ceil(W / stride)).

    Args:
        s0_BCHW, s1_BCHW: the two states after preprocessing.
        stride: of the operations that read them.
        weights: of edges, (14, O) or flat; None where all are one.
        drop: factors of drop path, one row of B for every lane that has one; None without it.
    """
    norms = [lane.norm for lane in table.lanes if lane.norm is not None]
    assert all(norm.eps == 1e-5 for norm in norms), "the kernels hold torch's default"
    training = not norms or norms[0].training
    layout = Layout.of(table, s0_BCHW.shape[1])
    kept = weights if weights is not None else s0_BCHW.new_ones(1)
    out: Tensor = _Cell.apply(
        layout, stride, training, drop, s0_BCHW, s1_BCHW, kept, *layout.parameters()
    )
    return out


class _Cell(Function):
    @staticmethod
    def forward(
        ctx: Any, layout: Layout, stride: int, training: bool, drop: Tensor | None,
        s0: Tensor, s1: Tensor, weights: Tensor, *parameters: Tensor,
    ) -> Tensor:  # fmt: skip
        kind = s0.device.type
        maps = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else s0.dtype
        with torch.autocast(kind, enabled=False):
            shape = Shape(
                *s0.shape, stride, len(layout.table.nodes), maps, sums_of(maps), products_of(maps)
            )
            packed = layout.pack(parameters, shape.sums, maps)
            work = _Work(layout, shape, training, packed, drop)
            work.weights = weights.detach().to(shape.sums).flatten().contiguous()
            saved = work.forward(s0, s1)
        ctx.work, ctx.layout, ctx.shape_of_weights = work, layout, weights.shape
        ctx.save_for_backward(*saved)
        ctx.types = (s0.dtype, s1.dtype, weights.dtype)
        OUT = saved.OUT.view(shape.batch, shape.out_height, shape.out_width, -1)
        return OUT.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        work: _Work = ctx.work
        needs = ctx.needs_input_grad
        with torch.autocast(grad.device.type, enabled=False):
            result = work.backward(
                Saved(*ctx.saved_tensors), grad, inputs=needs[4] or needs[5], learn=any(needs[7:])
            )
            s0 = s1 = weights = None
            if result.DX is not None:
                shape = work.shape
                views = result.DX.view(INPUTS, shape.batch, shape.height, shape.width, -1)
                s0, s1 = (v.permute(0, 3, 1, 2) for v in views)
            if needs[6] and work.table.weight_lanes:
                of = work.lanes_of_weight
                weights = result.DW[of[:, 0]] + result.DW[of[:, 1]]
                weights = weights.view(ctx.shape_of_weights).to(ctx.types[2])
            rest: Sequence[Tensor | None] = [None] * len(needs[7:])
            if result.DP is not None and result.DF is not None:
                rest = ctx.layout.gradients(result.DP, result.DF, result.DG, result.DB)
        return None, None, None, None, s0, s1, weights, *rest


def sums_of(maps: torch.dtype) -> torch.dtype:
    """Sums, moments and weights are float64 for float64 maps, else float32."""
    return torch.float64 if maps == torch.float64 else torch.float32


def products_of(maps: torch.dtype) -> str:
    """How Triton multiplies: as ``precision`` has set torch to multiply.

    float32 without TF32 is three TF32 products, which keep float32's digits.
    """
    if maps == torch.float64:
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


class _Gradients(NamedTuple):
    DX: Tensor | None
    DW: Tensor
    DP: Tensor | None
    DF: Tensor | None
    DG: Tensor
    DB: Tensor


class _Work:
    """The launches of one call, forwards and backwards."""

    weights: Tensor

    def __init__(
        self, layout: Layout, shape: Shape, training: bool, packed: Packed, drop: Tensor | None
    ) -> None:
        table = layout.table
        self.layout, self.table, self.shape, self.training, self.packed = (
            layout, table, shape, training, packed
        )
        self.device = packed.P.device
        self.TAB, self.PTAB, self.LIST, self.lanes_of_weight = table.on(self.device)
        self.drop = drop
        self.F = packed.P if drop is None else drop.to(shape.sums)
        self.L, self.LT = len(table.blocks), len(table.lanes)
        self.OC = shape.nodes * shape.channels
        acc = _TRITON_TYPE[shape.sums]
        self.common = {"C": shape.channels, "CB": shape.block, "ACC": acc, "num_warps": 4}
        self.dot = {"DOT": shape.dot, "PREC": shape.products}
        self.nodes = {
            "PIX": shape.out_height * shape.out_width, "OC": self.OC, "DROP": drop is not None
        }  # fmt: skip
        self.big = {"H": shape.height, "W": shape.width}  # what inputs have
        self.small = {"H": shape.out_height, "W": shape.out_width}  # what nodes have
        self.out = {"HO": shape.out_height, "WO": shape.out_width}
        self.tile, self.G, self.NG = shape.along(shape.out_width, shape.out_height)
        self.on: Callable[[], Any] = (
            (lambda: torch.cuda.device(self.device)) if self.device.type == "cuda" else nullcontext
        )

    def new(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.empty(size, dtype=dtype or self.shape.maps, device=self.device)

    # Forwards

    def forward(self, s0: Tensor, s1: Tensor) -> Saved:
        shape, table = self.shape, self.table
        C, N = shape.channels, shape.pixels
        X = self.new(INPUTS, shape.pixels_in, C)
        torch.stack(
            [s.permute(0, 2, 3, 1).reshape(-1, C).to(shape.maps) for s in (s0, s1)], out=X
        )
        Z = self.new(self.L, N, C)
        U = Z if shape.dot else torch.empty_like(Z)
        Y = self.new(sum(lane.rectified for lane in table.blocks), N, C)
        M = self.new(len(table.pool_rows), N, C)
        IDX = self.new(len(table.pool_rows), N, C, dtype=torch.int8)
        OUT = self.new(N, self.OC)
        MEAN, VAR = self.layout.statistics(self.training, self.packed.G)
        RSTD, self.SCALE, self.SHIFT = (self.new(self.LT, C, dtype=shape.sums) for _ in range(3))
        self.T = self.G if shape.dot else shape.tiles
        self.PART = self.new(max(self.L, 1), self.T, 3, C, dtype=shape.sums)
        self.POOLPART = self.new(max(len(M), 1), shape.tiles, 3, C, dtype=shape.sums)
        saved = Saved(X, OUT, Z, U, Y, M, IDX, MEAN, RSTD)
        with self.on():
            for group in table.groups:
                self._depthwise(saved, group.first, group.sources[0])
                self._fold(saved, VAR, group.halves)
                self._rectify(saved, group.halves)
                self._depthwise(saved, group.second, None)
                self._pool(saved, group.pools, group.sources[0])
                self._fold(saved, VAR, group.ready)
                for node in table.nodes:
                    if node.node == group.sources[-1] + 1:
                        self._mix(saved, node)
        if self.training:
            self.layout.update(MEAN, VAR)
        del self.PART, self.POOLPART, self.SCALE, self.SHIFT
        return saved

    def _states(self, saved: Saved, state: int) -> tuple[Tensor, int, dict[str, int], int]:
        """Where the states of a group lie: tensor, step from one to the next, sizes, stride."""
        C, shape = self.shape.channels, self.shape
        if state < INPUTS:
            return saved.X, shape.pixels_in * C, {**self.big, "RS": C}, shape.stride
        return saved.OUT, C, {**self.small, "RS": self.OC}, 1

    def _depthwise(self, saved: Saved, lanes: Range, state: int | None) -> None:
        """z of these lanes, and the moments of P z (whose map is stored where it must be)."""
        lo, hi = lanes
        if lo == hi:
            return
        C, shape = self.shape.channels, self.shape
        if state is None:  # second halves
            X, step, size, stride = saved.Y, shape.pixels * C, {**self.small, "RS": C}, 1
        else:
            X, step, size, stride = self._states(saved, state)
        filters.depthwise[(self.G, hi - lo, shape.blocks)](
            X, step, self.packed.F, self.packed.P, saved.Z, self.PART, self.TAB, lo, shape.batch,
            self.NG, self.T, STR=stride, RELU=state is not None,
            STATS=shape.dot and self.training, PREC=shape.products,
            **size, **self.out, **self.tile, **self.common,
        )  # fmt: skip
        if shape.dot:
            return
        torch.bmm(saved.Z[lo:hi], self.packed.P_maps[lo:hi].mT, out=saved.U[lo:hi])
        if self.training:
            mixing.moments[(shape.tiles, hi - lo, shape.blocks)](
                saved.U, self.PART, self.TAB, lo, shape.pixels, self.T, BLOCK=shape.rows, **self.common
            )

    def _pool(self, saved: Saved, pools: Range, state: int) -> None:
        lo, hi = pools
        if lo == hi:
            return
        X, step, size, stride = self._states(saved, state)
        shape = self.shape
        filters.pool[(shape.tiles, hi - lo, shape.blocks)](
            X, step, saved.M, saved.IDX, self.POOLPART, self.PTAB, lo, shape.pixels, shape.tiles,
            STR=stride, STATS=self.training, BLOCK=shape.rows, **size, **self.out, **self.common,
        )  # fmt: skip

    def _fold(self, saved: Saved, VAR: Tensor, lanes: Range) -> None:
        lo, hi = lanes
        if lo == hi:
            return
        packed, shape = self.packed, self.shape
        mixing.fold[(hi - lo, shape.blocks)](
            self.PART, self.POOLPART, self.TAB, self.LIST, self.weights, packed.G, packed.B,
            saved.MEAN, VAR, saved.RSTD, self.SCALE, self.SHIFT, lo, self.T, shape.tiles, self.L,
            TRAIN=self.training, TB=max(1, 1024 // shape.block), **self.common,
        )  # fmt: skip

    def _rectify(self, saved: Saved, halves: Range) -> None:
        lo, hi = halves
        if lo == hi:
            return
        shape = self.shape
        mixing.rectify[(shape.tiles, hi - lo, shape.blocks)](
            saved.U, self.packed.P, self.SCALE, self.SHIFT, saved.Y, self.TAB, self.LIST, lo,
            shape.pixels, BLOCK=shape.rows, **self.common, **self.dot,
        )  # fmt: skip

    def _mix(self, saved: Saved, node: Node) -> None:
        shape = self.shape
        lo, mid, hi = node.blocks[0], node.plain[0], node.plain[1]
        mixing.mix[(shape.tiles, shape.blocks)](
            saved.U, self.packed.P, saved.M, saved.X, saved.OUT, self.SCALE, self.SHIFT, self.F,
            self.TAB, self.LIST, lo, mid, hi, node.column, shape.pixels, shape.batch,
            BLOCK=shape.rows, **self.nodes, **self.common, **self.dot,
        )  # fmt: skip

    # Backwards

    def backward(self, saved: Saved, grad: Tensor, inputs: bool, learn: bool) -> _Gradients:
        """Gradients of the inputs, where wanted, of edge weights, and of parameters (``learn``)."""
        shape, table = self.shape, self.table
        C, N = shape.channels, shape.pixels
        D = self.new(N, self.OC)
        D.copy_(grad.permute(0, 2, 3, 1).reshape(N, self.OC))
        every = inputs or learn  # else nothing reads what flows to the inputs
        self.DZ = self.new(self.L, N, C)
        self.DU = self.DZ if shape.dot else torch.empty_like(self.DZ)
        self.DH = self.new(len(saved.Y), N, C)
        self.DM = self.new(len(saved.M), N, C)
        self.A, self.PS, self.Q = (self.new(self.LT, C, dtype=shape.sums) for _ in range(3))
        DG, DB = (self.new(self.LT, C, dtype=shape.sums) for _ in range(2))
        DW = torch.zeros(self.LT + 1, dtype=shape.sums, device=self.device)
        self.chunks = shape.chunks(max(1, self.L // 3))
        self.PER = int(cdiv(shape.tiles, self.chunks))
        self.PART = self.new(self.LT, self.chunks, 2, C, dtype=shape.sums)
        GP = None
        if learn and shape.dot:
            GP = self.new(self.chunks, self.L, C, C, dtype=shape.sums)
        elif learn:
            GP = self.new(1, self.L, C, C, dtype=shape.maps)
        DX = self.new(INPUTS, shape.pixels_in, C) if inputs else None
        with self.on():
            of = {source.state: source for source in table.sources}
            for node in reversed(table.nodes):
                if node is not table.nodes[-1]:  # what later nodes read of it is complete
                    self._state_gradient(saved, D, of[node.node], None)
                self._back_node(saved, D, node, every, GP, (DG, DB, DW))
            if DX is not None:
                for source in table.sources[:INPUTS]:
                    self._state_gradient(saved, D, source, DX)
            DF = self._filters(saved) if learn else None
        DP = None if GP is None else GP.sum(0, dtype=shape.sums)
        return _Gradients(DX, DW, DP, DF, DG, DB)

    def _back_node(
        self, saved: Saved, D: Tensor, node: Node, every: bool, GP: Tensor | None,
        slopes: tuple[Tensor, Tensor, Tensor],
    ) -> None:  # fmt: skip
        (lo, mid), hi = node.blocks, node.plain[1]
        self._slopes(saved, D, (lo, hi), slopes, first=False)
        blocks = mid - lo if every else node.inner_blocks
        self._pointwise(saved, D, (lo, lo + blocks), GP, first=False)
        seconds = node.seconds[1] - node.seconds[0] if every else node.inner_seconds
        halves = node.halves[1] - node.halves[0] if every else node.inner_halves
        if seconds:
            shape = self.shape
            filters.second_gradient[(self.G, seconds, shape.blocks)](
                self.DZ, saved.Y, self.packed.F, self.DH, self.TAB, self.LIST, node.seconds[0],
                shape.batch, self.NG, **self.small, **self.tile, **self.common,
            )  # fmt: skip
            span = node.halves[0], node.halves[0] + halves
            self._slopes(saved, self.DH, span, slopes, first=True)
            self._pointwise(saved, self.DH, span, GP, first=True)

    def _slopes(
        self, saved: Saved, D: Tensor, lanes: Range, out: tuple[Tensor, Tensor, Tensor], first: bool
    ) -> None:
        lo, hi = lanes
        if lo == hi:
            return
        shape, packed = self.shape, self.packed
        mixing.sums[(self.chunks, hi - lo, shape.blocks)](
            D, saved.U, packed.P, saved.M, saved.X, saved.OUT, self.F, self.PART, self.TAB,
            self.LIST, lo, shape.pixels, shape.batch, self.chunks, self.PER, self.L, FIRST=first,
            BLOCK=shape.rows, **self.nodes, **self.common, **self.dot,
        )  # fmt: skip
        whole = int(triton.next_power_of_2(shape.channels))
        mixing.slopes[(hi - lo,)](
            self.PART, self.TAB, self.LIST, self.weights, packed.G, packed.B, saved.MEAN,
            saved.RSTD, self.A, self.PS, self.Q, *out, lo, shape.pixels, self.chunks,
            TRAIN=self.training, C=shape.channels, CP=whole, TB=max(1, 1024 // whole),
            ACC=self.common["ACC"], num_warps=4,
        )  # fmt: skip

    def _pointwise(
        self, saved: Saved, D: Tensor, lanes: Range, GP: Tensor | None, first: bool
    ) -> None:
        lo, hi = lanes
        if lo == hi:
            return
        shape, packed = self.shape, self.packed
        mixing.pointwise_gradient[(self.chunks, hi - lo, shape.blocks)](
            D, saved.U, packed.P, self.A, self.PS, self.Q, self.F, self.DU,
            self.PART if GP is None else GP, self.TAB, self.LIST, lo, shape.pixels, shape.batch,
            self.PER, self.L, FIRST=first, WG=GP is not None, BLOCK=shape.rows,
            **self.nodes, **self.common, **self.dot,
        )  # fmt: skip
        if shape.dot:
            return
        for lane in self.table.list[lo:hi]:
            torch.mm(self.DU[lane], packed.P_maps[lane], out=self.DZ[lane])
            if GP is not None:
                torch.mm(self.DU[lane].T, saved.Z[lane], out=GP[0, lane])

    def _state_gradient(self, saved: Saved, D: Tensor, source: Source, DX: Tensor | None) -> None:
        """The gradient of a state: an input's into DX, a node's added to D."""
        shape = self.shape
        pools = [m for m in (source.largest, source.mean) if m >= 0]
        C = shape.channels
        for m in pools:
            mixing.pool_gradient[(shape.tiles, 1, shape.blocks)](
                D, saved.M, self.A, self.PS, self.Q, self.F, self.DM, self.TAB, self.LIST, self.PTAB,
                m, shape.pixels, shape.batch, BLOCK=shape.rows, **self.nodes, **self.common,
            )  # fmt: skip
        rest = (self.DZ, self.packed.F, self.DM, saved.IDX)
        k = source.kinds
        if DX is not None and shape.stride == 2:
            rows = max(16, 1024 // shape.block)
            filters.strided_gradient[(cdiv(shape.pixels, rows), 4, shape.blocks)](
                saved.X[source.state], *rest, DX[source.state], self.TAB, *k, source.largest,
                source.mean, shape.batch, BLOCK=rows, **self.big, **self.out, **self.common,
            )  # fmt: skip
            return
        if DX is not None:
            X, O, step = saved.X[source.state], DX[source.state], C
        else:
            column = next(n.column for n in self.table.nodes if n.node == source.state)
            X, O, step = saved.OUT[:, column * C :], D[:, column * C :], self.OC
        filters.input_gradient[(self.G, shape.blocks)](
            X, *rest, D, self.A, self.F, O, self.TAB, self.LIST, *k[:5], source.largest,
            source.mean, *source.identities, shape.batch, self.NG, RS=step, OC=self.OC,
            ADD=DX is None, DROP=self.drop is not None, **self.small, **self.tile, **self.common,
        )  # fmt: skip

    def _filters(self, saved: Saved) -> Tensor:
        """Gradients of all depthwise filters, (taps, C)."""
        shape, C, taps = self.shape, self.shape.channels, self.table.taps
        per = max(1, min(64, self.G // 8))
        chunks = int(cdiv(self.G, per))
        GW = self.new(chunks, max(taps, 1), C, dtype=shape.sums)
        inputs = [g for g in self.table.groups if g.sources[0] < INPUTS]
        nodes = [g for g in self.table.groups if g.sources[0] >= INPUTS]
        spans: list[tuple[Range, int | None]] = [(_hull([g.first for g in inputs]), 0)]
        spans += [(_hull([g.first for g in nodes]), INPUTS)]
        spans += [(_hull([g.second for g in self.table.groups]), None)]
        for (lo, hi), state in spans:
            if lo == hi:
                continue
            if state is None:
                X, step, size, stride = saved.Y, shape.pixels * C, {**self.small, "RS": C}, 1
            else:
                X, step, size, stride = self._states(saved, state)
            filters.filter_gradient[(chunks, (hi - lo) * 5, shape.blocks)](
                X, step, self.DZ, GW, self.TAB, lo, shape.batch, self.NG, self.G, per,
                max(taps, 1), STR=stride, RELU=state is not None, **size, **self.out, **self.tile,
                **self.common,
            )  # fmt: skip
        return GW.sum(0)


def _hull(spans: Sequence[Range]) -> Range:
    """The range that these, which follow each other, make together."""
    full = [span for span in spans if span[0] < span[1]]
    return (full[0][0], full[-1][1]) if full else (0, 0)
