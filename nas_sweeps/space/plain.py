"""The plain supernet: every edge is a weighted sum of every operation (paper Eq 1 and 5).

One module per operation, named ``cells.<cell>.edges.<source>_<node>.<operation>``, called one
after another. It is the oracle: ``supernet.Supernet``, which users run, computes the same from
the same modules in another order, and the tests and the benchmark hold the two together.
Shapes: B images, C channels, H x W pixels, E edges, O operations, F features, K classes.
Source: DARTS model_search.py; seven operations without ``none``: FairDARTS model_search.py;
partial channels: PC-DARTS model_search.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, reduce
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_sweeps.space.genotype import EDGES, NODES, OPERATIONS
from nas_sweeps.space.lanes.table import Operation, Table, build_table
from nas_sweeps.space.layout import CellPlan, stack_cells
from nas_sweeps.space.operations import build_operation, build_preprocess, build_stem

EdgeWeights = Sequence[Sequence[Tensor]]  # scalars, by edge and operation
BYPASS = "bypass"  # the last column of weights where channels are partial


class MixedEdge(nn.ModuleDict):
    """All operations of one edge, by name. ``none`` adds nothing, so it has no module.

    With partial channels, K, the operations see the first C/K channels; the others pass them by,
    pooled where the operations halve the maps, with a weight of their own. Both are put one
    after the other, and then a channel of each K-th follows another.
    """

    def __init__(
        self, operations: Sequence[str], channels: int, stride: int, partial: int = 1
    ) -> None:
        seen = channels // partial
        super().__init__(
            {
                name: build_operation(name, seen, stride, affine=False, pool_norm=True)
                for name in operations
                if name != "none"
            }
        )
        self.columns = [column for column, name in enumerate(operations) if name != "none"]
        self.seen, self.stride, self.partial = seen, stride, partial

    def forward(self, x_BCHW: Tensor, weights_O: Sequence[Tensor]) -> Tensor:
        if self.partial == 1:
            return self._mixed(x_BCHW, weights_O)
        passed_BCHW = x_BCHW[:, self.seen :]
        if self.stride == 2:  # PC-DARTS has maps of even sides alone, where ceil_mode is nothing
            passed_BCHW = F.max_pool2d(passed_BCHW, 2, ceil_mode=True)
        mixed_BCHW = self._mixed(x_BCHW[:, : self.seen], weights_O)
        both_BCHW = torch.cat([mixed_BCHW, weights_O[-1] * passed_BCHW], dim=1)
        return F.channel_shuffle(both_BCHW, self.partial)

    def _mixed(self, x_BCHW: Tensor, weights_O: Sequence[Tensor]) -> Tensor:
        total_BCHW: Tensor | None = None
        for column, operation in zip(self.columns, self.values(), strict=True):
            out_BCHW, weight = operation(x_BCHW), weights_O[column]
            if total_BCHW is None:
                total_BCHW = weight * out_BCHW
            else:  # one pass over memory where a product and a sum need two
                total_BCHW = torch.addcmul(total_BCHW, out_BCHW, weight)
        assert total_BCHW is not None, "a supernet refuses a list without a real operation"
        return total_BCHW


class SearchCell(nn.Module):
    """Two preprocessed inputs, four nodes, 14 mixed edges; the output has 4C channels."""

    def __init__(self, plan: CellPlan, operations: Sequence[str], partial: int = 1) -> None:
        super().__init__()
        self.reduction = plan.reduction
        self.columns = len(operations)  # of the edge weights
        self.preprocess0 = build_preprocess(
            plan.before_last, plan.channels, shrink=plan.after_reduction, affine=False
        )
        self.preprocess1 = build_preprocess(plan.last, plan.channels, shrink=False, affine=False)
        self.edges = nn.ModuleDict()
        for source, node in EDGES:
            stride = 2 if plan.reduction and source < 2 else 1
            self.edges[f"{source}_{node}"] = MixedEdge(operations, plan.channels, stride, partial)

    @cached_property
    def table(self) -> Table:
        """The operations of all edges as lanes, for the form that kernels compute."""
        return build_table(list(self._operations()), len(EDGES) * self.columns)

    def _operations(self) -> Iterator[Operation]:
        for row, (source, node) in enumerate(EDGES):
            edge = self.edges[f"{source}_{node}"]
            assert isinstance(edge, MixedEdge)
            for column, module in zip(edge.columns, edge.values(), strict=True):
                yield Operation(module, source, node, weight=row * self.columns + column)

    def forward(self, s0_BCHW: Tensor, s1_BCHW: Tensor, weights_EO: EdgeWeights) -> Tensor:
        states = [self.preprocess0(s0_BCHW), self.preprocess1(s1_BCHW)]
        mixed = zip(EDGES, self.edges.values(), weights_EO, strict=True)
        for _, incoming in groupby(mixed, key=lambda item: item[0][1]):
            states.append(_sum(edge(states[j], row_O) for (j, _), edge, row_O in incoming))
        return torch.cat(states[2:], dim=1)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, terms)


class PlainSupernet(nn.Module):
    """Stem, ``layers`` search cells, global average pool and a linear classifier.

    The architecture parameters are not in the module: callers pass the weights that they
    make of them, so no optimiser of the network's weights can touch them.

    Args:
        channels: of the nodes in the first cells (C0); doubled at cells L//3 and 2L//3.
        layers: number of cells L, at least 3.
        num_classes: outputs of the classifier.
        operations: columns of the edge weights, from ``OPERATIONS`` and in any order.
        in_channels: of the images.
        partial_channels: K: operations see 1/K of an edge's channels.

    Attributes:
        columns: of the edge weights: the operations, and ``BYPASS`` where channels are partial.

    Raises:
        ValueError: fewer than three layers; an operation unknown, named twice, or no
            operation beside ``none``; channels that ``partial_channels`` does not divide.
    """

    def __init__(
        self,
        channels: int,
        layers: int,
        num_classes: int,
        operations: Sequence[str] = OPERATIONS,
        in_channels: int = 3,
        partial_channels: int = 1,
    ) -> None:
        super().__init__()
        if channels % partial_channels:
            raise ValueError(f"channels={channels}: must be a multiple of {partial_channels}")
        self.operations = _checked(operations)
        self.partial_channels = partial_channels
        self.columns = (*self.operations, *([BYPASS] if partial_channels > 1 else []))
        plans, self.feature_dim = stack_cells(channels, layers, len(NODES), len(NODES))
        self.stem = build_stem(in_channels, plans[0].last)
        self.cells = nn.ModuleList(
            SearchCell(plan, self.operations, partial_channels) for plan in plans
        )
        self.classifier: nn.Module = nn.Linear(self.feature_dim, num_classes)

    def features(
        self, x_BCHW: Tensor, weights_normal_EO: Tensor, weights_reduce_EO: Tensor
    ) -> Tensor:
        """Pooled features (B, F), with F = ``feature_dim``.

        Both weights have shape (14, O): rows as ``EDGES``, columns as ``columns``. The column
        of ``none`` receives a zero gradient.

        Raises:
            ValueError: weights of another shape.
        """
        self._check_shape("weights_normal_EO", weights_normal_EO)
        self._check_shape("weights_reduce_EO", weights_reduce_EO)
        s0_BCHW = s1_BCHW = self.stem(x_BCHW)
        for cell in self.cells:
            assert isinstance(cell, SearchCell)
            weights_EO = weights_reduce_EO if cell.reduction else weights_normal_EO
            s0_BCHW, s1_BCHW = s1_BCHW, self._run_cell(cell, s0_BCHW, s1_BCHW, weights_EO)
        pooled_BF: Tensor = s1_BCHW.mean(dim=(2, 3))
        return pooled_BF

    def forward(
        self, x_BCHW: Tensor, weights_normal_EO: Tensor, weights_reduce_EO: Tensor
    ) -> Tensor:
        """Logits (B, K); arguments and errors as in ``features``."""
        logits_BK: Tensor = self.classifier(
            self.features(x_BCHW, weights_normal_EO, weights_reduce_EO)
        )
        return logits_BK

    def _run_cell(
        self, cell: SearchCell, s0_BCHW: Tensor, s1_BCHW: Tensor, weights_EO: Tensor
    ) -> Tensor:
        scalars = [row_O.unbind() for row_O in weights_EO.unbind()]
        out_BCHW: Tensor = cell(s0_BCHW, s1_BCHW, scalars)
        return out_BCHW

    def _check_shape(self, name: str, weights_EO: Tensor) -> None:
        expected = (len(EDGES), len(self.columns))
        if weights_EO.shape != expected:
            raise ValueError(
                f"{name}: shape {tuple(weights_EO.shape)}, but the supernet has {expected[0]} "
                f"edges and {expected[1]} columns ({', '.join(self.columns)})"
            )


def _checked(operations: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in operations if name not in OPERATIONS]
    if unknown:
        raise ValueError(f"unknown operation '{unknown[0]}'; choose from {', '.join(OPERATIONS)}")
    if len(set(operations)) < len(operations):
        raise ValueError(f"operations: one is named twice in {', '.join(operations)}")
    if not set(operations) - {"none"}:
        raise ValueError("operations: name at least one beside none")
    return tuple(operations)
