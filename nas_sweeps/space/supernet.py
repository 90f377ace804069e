"""The supernet that users run: the plain one's function and modules, computed state by state.

``plain.PlainSupernet`` says what is computed. Here the same modules hold the same weights under
the same names, but no operation is called as a module. A cell goes through its states in order,
and what leaves one state is computed at once, for all edges that read it:

    x   ReLU of it, max pool, average pool: once, whatever the number of edges
    z   depthwise convolutions of the ReLU, one per edge and operation (``depthwise.py``)
    y   relu(A z + b): pointwise convolution and BatchNorm of a separable convolution's first
        half; z again, by the depthwise convolution of its second half
    +   A z, BatchNorm and the edge weight inside A, added to the node it belongs to
        (``folded.py`` derives A and b); pools and the identity likewise, with a diagonal A

``none`` is nothing. Pooled maps are alike on all edges that leave a state with the same stride,
so they are measured once, but every edge keeps running statistics of its own.

Shapes: B images, C channels, H x W pixels, E edges leaving a state, O operations, L lanes (one
operation of one edge each), K channels of a lane's map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_sweeps.space.depthwise import Filter, depthwise
from nas_sweeps.space.folded import (
    Folded,
    Lane,
    Moments,
    accumulate,
    fold,
    measure,
    rectify,
)
from nas_sweeps.space.form import Form, require_known
from nas_sweeps.space.genotype import EDGES, NODES
from nas_sweeps.space.operations import (
    DepthwiseSeparable,
    DilConv,
    FactorizedReduce,
    Pool,
    SepConv,
    even_and_odd,
)
from nas_sweeps.space.plain import MixedEdge as MixedEdge
from nas_sweeps.space.plain import PlainSupernet, SearchCell

SEPARABLE = ("sep_conv_3x3", "sep_conv_5x5")
DILATED = ("dil_conv_3x3", "dil_conv_5x5")


class Supernet(PlainSupernet):
    """The supernet in every form; ``arranged`` is faster than plain with less than half its memory.

    Cells with partial channels are computed by the plain form, whatever ``form`` says.

    Attributes:
        form: how cells are computed (``form.py``). ``plain`` calls the modules one by one, which
            hooks on them can see.
    """

    form: Form = "arranged"

    def _run_cell(
        self, cell: SearchCell, s0_BCHW: Tensor, s1_BCHW: Tensor, weights_EO: Tensor
    ) -> Tensor:
        if self.form == "plain" or self.partial_channels > 1:
            return super()._run_cell(cell, s0_BCHW, s1_BCHW, weights_EO)
        if self.form == "arranged":
            return run_cell(cell, s0_BCHW, s1_BCHW, weights_EO, self.operations)
        require_known(self.form)
        from nas_sweeps.space.lanes import cell as lanes  # Triton is imported where it is used

        states = cell.preprocess0(s0_BCHW), cell.preprocess1(s1_BCHW)
        return lanes.run_cell(cell.table, *states, 2 if cell.reduction else 1, weights_EO)


def run_cell(
    cell: SearchCell,
    s0_BCHW: Tensor,
    s1_BCHW: Tensor,
    weights_EO: Tensor,
    operations: Sequence[str],
) -> Tensor:
    """The output of a cell, (B, 4C, H, W)."""
    states = [_last(cell.preprocess0(s0_BCHW)), _last(cell.preprocess1(s1_BCHW))]
    sums = [NodeSum() for _ in NODES]
    of_edge = weights_EO.unbind()
    for source in range(NODES[-1]):
        if source > 1:
            states.append(sums[source - NODES[0]].finish())
        leaving = [row for row, edge in enumerate(EDGES) if edge[0] == source]
        fan = OutEdges(
            x_BCHW=states[source],
            edges=[_edge(cell, row) for row in leaving],
            nodes=[sums[EDGES[row][1] - NODES[0]] for row in leaving],
            # Stacked, not indexed by the list, which a GPU would have to be sent every time.
            weights=dict(zip(operations, _by_operation(of_edge, leaving), strict=True)),
            stride=2 if cell.reduction and source < 2 else 1,
        )
        _leave(fan)
    return torch.cat([*states[2:], sums[-1].finish()], dim=1)


def _by_operation(of_edge: Sequence[Tensor], edges: Sequence[int]) -> tuple[Tensor, ...]:
    """The weights (E,) of every operation on these edges."""
    return torch.stack([of_edge[row] for row in edges], dim=1).unbind()


class NodeSum:
    """The sum of the edges into one node, while it grows."""

    def __init__(self) -> None:
        self.total_BCHW: Tensor | None = None
        self.shifts_C: list[Tensor] = []

    def finish(self) -> Tensor:
        assert self.total_BCHW is not None, "every list of operations has a real one"
        if not self.shifts_C:
            return self.total_BCHW
        shift_C = torch.stack(self.shifts_C).sum(0).to(self.total_BCHW.dtype)
        return self.total_BCHW + shift_C[:, None, None]


class OutEdges(NamedTuple):
    """One state and the edges that leave it."""

    x_BCHW: Tensor
    edges: list[MixedEdge]
    nodes: list[NodeSum]  # where each edge leads
    weights: dict[str, Tensor]  # (E,) of every operation
    stride: int

    def modules(self, operation: str) -> list[nn.Module]:
        """The module of one operation on every edge; none where the list leaves it out."""
        return [edge[operation] for edge in self.edges if operation in edge]


def _leave(fan: OutEdges) -> None:
    """Add all operations of all edges that leave a state to the nodes they lead to."""
    pixels_BCHW = F.relu(fan.x_BCHW)
    lanes = [*_pools(fan), *_skips(fan, pixels_BCHW), *_convolutions(fan, pixels_BCHW)]
    totals = accumulate([node.total_BCHW for node in fan.nodes], lanes)
    for node, total_BCHW in zip(fan.nodes, totals, strict=True):
        node.total_BCHW = total_BCHW


def _pools(fan: OutEdges) -> list[Lane]:
    """One pooled map for all edges: BatchNorm makes w BN(z) a diagonal A and a shift."""
    lanes = []
    for operation in ("max_pool_3x3", "avg_pool_3x3"):
        pools = [m for m in fan.modules(operation) if isinstance(m, Pool)]
        if pools:
            norms = [_norm(pool.norm) for pool in pools]
            maps, moments = _measure([_last(pools[0].pool(fan.x_BCHW))], norms, dense=False)
            maps = maps * len(pools)
            lanes += _lanes(fan, maps, fold(norms, moments, None, fan.weights[operation]))
    return lanes


def _skips(fan: OutEdges, pixels_BCHW: Tensor) -> list[Lane]:
    """The identity; or, with stride 2, one gather of pixels for all factorized reductions."""
    if "skip_connect" not in fan.weights:
        return []
    weights_E = fan.weights["skip_connect"]
    if fan.stride == 1:
        channels = fan.x_BCHW.shape[1]
        return [Lane(fan.x_BCHW, e, w.expand(channels)) for e, w in enumerate(weights_E)]
    reduces = [m for m in fan.modules("skip_connect") if isinstance(m, FactorizedReduce)]
    norms = [reduce.norm for reduce in reduces]
    maps, moments = _measure([_two_pixels(pixels_BCHW)], norms, dense=True)
    maps = maps * len(reduces)
    p_LCK = torch.stack([_two_halves(reduce) for reduce in reduces])
    return _lanes(fan, maps, fold(norms, moments, p_LCK, weights_E))


def _two_pixels(x_BCHW: Tensor) -> Tensor:
    """The pixels at even places and, as further channels, their lower right neighbours."""
    return _last(torch.cat(even_and_odd(x_BCHW), dim=1))


def _two_halves(reduce: FactorizedReduce) -> Tensor:
    """Both convolutions as one matrix (C, 2C) on such pairs of pixels."""
    even, odd = reduce.even.weight.flatten(1), reduce.odd.weight.flatten(1)
    channels = even.shape[1]
    return torch.cat([F.pad(even, (0, channels)), F.pad(odd, (channels, 0))])


def _convolutions(fan: OutEdges, pixels_BCHW: Tensor) -> list[Lane]:
    """Separable and dilated convolutions: all depthwise filters of the state, then GEMMs."""
    separable = [(o, m) for o in SEPARABLE for m in fan.modules(o) if isinstance(m, SepConv)]
    dilated = [(o, m) for o in DILATED for m in fan.modules(o) if isinstance(m, DilConv)]
    if not separable + dilated:
        return []
    weights_L = torch.cat([fan.weights[o] for o in (*SEPARABLE, *DILATED) if o in fan.weights])
    first = depthwise(pixels_BCHW, [_filter(m.first) for _, m in separable])
    second = _second_halves(first, [m for _, m in separable])
    wide = _dilated(fan, pixels_BCHW, [m for _, m in dilated])
    blocks = [m.second for _, m in separable] + [m for _, m in dilated]
    maps, (a_LCK, b_LC) = _folded(blocks, second + wide, weights_L)
    return _lanes(fan, maps, (a_LCK, b_LC))


def _second_halves(maps_BCHW: list[Tensor], modules: list[SepConv]) -> list[Tensor]:
    """From the first depthwise outputs of separable convolutions to their second ones."""
    if not modules:
        return []
    maps_BCHW, (a_LCK, b_LC) = _folded([m.first for m in modules], maps_BCHW, None)
    outs_BCHW = rectify(maps_BCHW, a_LCK, b_LC)
    return [
        depthwise(y_BCHW, [_filter(m.second)])[0]
        for y_BCHW, m in zip(outs_BCHW, modules, strict=True)
    ]


def _dilated(fan: OutEdges, pixels_BCHW: Tensor, modules: list[DilConv]) -> list[Tensor]:
    """Dilated convolutions. With stride 2 they meet every second pixel only, undilated."""
    if not modules:
        return []
    if fan.stride == 1:
        return depthwise(pixels_BCHW, [_filter(m) for m in modules])
    every_second_BCHW = _last(pixels_BCHW[:, :, ::2, ::2])
    return depthwise(every_second_BCHW, [Filter(m.depthwise.weight) for m in modules])


def _folded(
    blocks: Sequence[DepthwiseSeparable], maps_BCHW: list[Tensor], weights_L: Tensor | None
) -> tuple[list[Tensor], Folded]:
    """Pointwise convolution and BatchNorm of every block, as A and b for its map."""
    norms = [block.norm for block in blocks]
    p_LCK = torch.stack([block.pointwise.weight.flatten(1) for block in blocks])
    maps_BCHW, moments = _measure(maps_BCHW, norms, dense=True)
    return maps_BCHW, fold(norms, moments, p_LCK, weights_L)


def _measure(
    maps_BCHW: list[Tensor], norms: Sequence[nn.BatchNorm2d], *, dense: bool
) -> tuple[list[Tensor], Moments | None]:
    """Moments for training; in eval mode the norms have statistics already."""
    return measure(maps_BCHW, dense=dense) if norms[0].training else (maps_BCHW, None)


def _lanes(fan: OutEdges, maps_BCHW: Sequence[Tensor], folded: Folded) -> list[Lane]:
    """Lanes in the order operation by operation, each over all edges of the fan."""
    lanes = []
    for lane, (z_BCHW, factor, b_C) in enumerate(zip(maps_BCHW, *folded, strict=True)):
        edge = lane % len(fan.edges)
        fan.nodes[edge].shifts_C.append(b_C)
        lanes.append(Lane(z_BCHW, edge, factor))
    return lanes


def _filter(block: DepthwiseSeparable) -> Filter:
    conv = block.depthwise
    return Filter(conv.weight, conv.stride[0], conv.dilation[0])


def _norm(module: nn.Module) -> nn.BatchNorm2d:
    assert isinstance(module, nn.BatchNorm2d), "a supernet's pools are normalised"
    return module


def _edge(cell: SearchCell, row: int) -> MixedEdge:
    source, node = EDGES[row]
    edge = cell.edges[f"{source}_{node}"]
    assert isinstance(edge, MixedEdge)
    return edge


def _last(x_BCHW: Tensor) -> Tensor:
    """Channels last in memory: where rows of pixels are a matrix without a copy."""
    return x_BCHW.contiguous(memory_format=torch.channels_last)
