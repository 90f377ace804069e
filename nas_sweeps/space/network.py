"""The evaluation network of a genotype, trained from scratch.

Shapes: B images, C channels, H x W pixels, F features, K classes.
Source: DARTS model.py and utils.py; cells as wide as their living nodes and drop path on
nodes: FairDARTS model.py.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cached_property, reduce
from itertools import groupby
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas_sweeps.space.form import Form
from nas_sweeps.space.genotype import EDGES, Genotype, alive_nodes
from nas_sweeps.space.lanes.table import Operation, Table, build_table
from nas_sweeps.space.layout import CellPlan, reductions, stack_cells
from nas_sweeps.space.operations import build_operation, build_preprocess, build_stem
from nas_sweeps.space.plain import PlainSupernet
from nas_sweeps.space.supernet import Supernet

AUXILIARY = "auxiliary"  # name of the head's module: its parameters are not the model's
# AvgPool(5, stride 3) and a 2x2 convolution leave nothing of maps below 8 x 8.
AUXILIARY_MIN_SIDE = 8


class DropPath:
    """Zeroes whole images with a probability, scaled to keep the mean (DARTS utils.py)."""

    def __init__(self, probability: float | Tensor, generator: torch.Generator | None) -> None:
        self._keep, self._generator = 1 - probability, generator

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.factors(x_BCHW, len(x_BCHW), 1, 1, 1)

    def factors(self, like: Tensor, *size: int) -> Tensor:
        """Zeros, and 1 / (1 - probability) for what is kept."""
        kept = like.new_empty(size).bernoulli_(self._keep, generator=self._generator)
        return kept / self._keep


class Cell(nn.Module):
    """One cell of a genotype; the output concatenates its living nodes."""

    def __init__(
        self, genotype: Genotype, plan: CellPlan, drop_path_on: Literal["edge", "node"]
    ) -> None:
        super().__init__()
        self.drop_path_on, self.reduction = drop_path_on, plan.reduction
        self.preprocess0 = build_preprocess(
            plan.before_last, plan.channels, shrink=plan.after_reduction, affine=True
        )
        self.preprocess1 = build_preprocess(plan.last, plan.channels, shrink=False, affine=True)
        self.genotype_edges = genotype.cell(plan.reduction)  # canonical: sorted by node
        self.edges = nn.ModuleDict(
            {
                f"{source}_{node}_{operation}": _build(operation, source, plan)
                for operation, source, node in self.genotype_edges
            }
        )

    @cached_property
    def table(self) -> Table:
        """The operations as lanes, for the form that kernels compute.

        Drop path has a row of factors for every operation but identities, or for every node.
        """
        nodes = list(alive_nodes(self.genotype_edges))
        out: list[Operation] = []
        for (_, source, node), module in zip(self.genotype_edges, self.edges.values(), strict=True):
            spared = isinstance(module, nn.Identity)
            on_edge = -1 if spared else sum(one.drop >= 0 for one in out)
            drop = nodes.index(node) if self.drop_path_on == "node" else on_edge
            out.append(Operation(module, source, node, drop=drop))
        return build_table(out, 0)

    def run_lanes(self, s0_BCHW: Tensor, s1_BCHW: Tensor, drop: DropPath | None) -> Tensor:
        """What ``forward`` computes, by kernels."""
        from nas_sweeps.space.lanes.cell import run_cell  # Triton is imported where it is used

        s0_BCHW, s1_BCHW = self.preprocess0(s0_BCHW), self.preprocess1(s1_BCHW)
        rows = max(lane.drop for lane in self.table.lanes) + 1
        factors = drop.factors(s0_BCHW, rows, len(s0_BCHW)) if drop and rows else None
        stride = 2 if self.reduction else 1
        return run_cell(self.table, s0_BCHW, s1_BCHW, stride, drop=factors)

    def forward(self, s0_BCHW: Tensor, s1_BCHW: Tensor, drop: DropPath | None) -> Tensor:
        on_edge = drop if self.drop_path_on == "edge" else None
        on_node = drop if self.drop_path_on == "node" else None
        states = {0: self.preprocess0(s0_BCHW), 1: self.preprocess1(s1_BCHW)}
        pairs = zip(self.genotype_edges, self.edges.values(), strict=True)
        for node, incoming in groupby(pairs, key=lambda pair: pair[0][2]):
            outs = [_run(module, states[edge[1]], on_edge) for edge, module in incoming]
            total_BCHW = reduce(torch.add, outs)
            states[node] = on_node(total_BCHW) if on_node else total_BCHW
        return torch.cat([state for node, state in states.items() if node > 1], dim=1)


def _build(operation: str, source: int, plan: CellPlan) -> nn.Module:
    stride = 2 if plan.reduction and source < 2 else 1
    return build_operation(operation, plan.channels, stride, affine=True, pool_norm=False)


def _run(module: nn.Module, x_BCHW: Tensor, drop: DropPath | None) -> Tensor:
    out_BCHW: Tensor = module(x_BCHW)
    if drop is None or isinstance(module, nn.Identity):  # DARTS spares identities
        return out_BCHW
    return drop(out_BCHW)


class AuxiliaryHead(nn.Module):
    """A second classifier on the maps of the last reduction, for training only.

    Maps above 10 x 10 leave the last convolution with more than one pixel, and these are
    averaged; at 8 x 8, the maps of 32 x 32 images, this is exactly the head of DARTS.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride=3)
        self.reduce = nn.Conv2d(channels, 128, 1, bias=False)
        self.reduce_norm = nn.BatchNorm2d(128)
        self.flatten = nn.Conv2d(128, 768, 2, bias=False)
        self.flatten_norm = nn.BatchNorm2d(768)
        self.classifier: nn.Module = nn.Linear(768, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        height, width = x_BCHW.shape[2:]
        if min(height, width) < AUXILIARY_MIN_SIDE:
            raise ValueError(
                f"auxiliary head: these images leave it maps of {height}x{width} pixels and it "
                f"needs 8x8; train on images of at least 29x29 pixels or switch the head off"
            )
        x_BCHW = self.pool(F.relu(x_BCHW))
        x_BCHW = F.relu(self.reduce_norm(self.reduce(x_BCHW)))
        x_BCHW = F.relu(self.flatten_norm(self.flatten(x_BCHW)))
        logits_BK: Tensor = self.classifier(x_BCHW.mean(dim=(2, 3)))
        return logits_BK


class Network(nn.Module):
    """Stem, ``layers`` cells of a genotype, global average pool and a linear classifier.

    Args:
        genotype: its cells may have any number of edges per node, also several
            operations on one edge, and nodes without inputs, which take no channels.
        channels: of the nodes in the first cells (C0); doubled at cells L//3 and 2L//3.
        layers: number of cells L, at least 3.
        num_classes: outputs of the classifier.
        auxiliary: add an ``AuxiliaryHead`` on the output of cell 2L//3.
        drop_path_on: ``edge`` drops outputs of edges except identities (DARTS), ``node``
            drops sums of nodes (FairDARTS).
        in_channels: of the images.

    Attributes:
        form: how cells are computed: ``plain``, or ``triton`` on CUDA (``form.py``).

    Raises:
        ValueError: fewer than three layers.
    """

    form: Form = "plain"

    def __init__(
        self,
        genotype: Genotype,
        channels: int,
        layers: int,
        num_classes: int,
        *,
        auxiliary: bool = False,
        drop_path_on: Literal["edge", "node"] = "edge",
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.genotype = genotype
        widths = len(alive_nodes(genotype.normal)), len(alive_nodes(genotype.reduce))
        plans, self.feature_dim = stack_cells(channels, layers, *widths)
        self.stem = build_stem(in_channels, plans[0].last)
        self.cells = nn.ModuleList(Cell(genotype, plan, drop_path_on) for plan in plans)
        self.classifier: nn.Module = nn.Linear(self.feature_dim, num_classes)
        self.auxiliary: AuxiliaryHead | None = None
        self.auxiliary_at = reductions(layers)[1]
        if auxiliary:
            auxiliary_in = plans[self.auxiliary_at].channels * widths[1]
            self.auxiliary = AuxiliaryHead(auxiliary_in, num_classes)

    def features(
        self,
        x_BCHW: Tensor,
        drop_path: float | Tensor = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Pooled features (B, F), with F = ``feature_dim``; arguments as in ``forward``."""
        return self._trunk(x_BCHW, drop_path, generator)[0]

    def forward(
        self,
        x_BCHW: Tensor,
        drop_path: float | Tensor = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (B, K), and in training those of the auxiliary head, if there is one.

        Args:
            x_BCHW: normalised images.
            drop_path: probability in [0, 1) of dropping a path per image; in training only. A
                scalar tensor on the images' device is not looked at, so drops are drawn at 0 too.
            generator: source of the drops, on the device of ``x_BCHW``.

        Raises:
            ValueError: ``drop_path`` outside [0, 1), or images too small for the auxiliary head.
        """
        pooled_BF, maps_BCHW = self._trunk(x_BCHW, drop_path, generator)
        auxiliary_BK = None
        if self.training and self.auxiliary is not None:
            auxiliary_BK = self.auxiliary(maps_BCHW)
        return self.classifier(pooled_BF), auxiliary_BK

    def _trunk(
        self, x_BCHW: Tensor, drop_path: float | Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Pooled features, and the maps that the auxiliary head reads."""
        if not isinstance(drop_path, Tensor) and not 0 <= drop_path < 1:
            raise ValueError(f"drop_path={drop_path}: must be at least 0 and below 1")
        drops = self.training and (isinstance(drop_path, Tensor) or drop_path > 0)
        drop = DropPath(drop_path, generator) if drops else None
        s0_BCHW = s1_BCHW = self.stem(x_BCHW)
        maps_BCHW = s1_BCHW
        for index, cell in enumerate(self.cells):
            assert isinstance(cell, Cell)
            run = cell.run_lanes if self.form == "triton" else cell
            s0_BCHW, s1_BCHW = s1_BCHW, run(s0_BCHW, s1_BCHW, drop)
            if index == self.auxiliary_at:
                maps_BCHW = s1_BCHW
        return s1_BCHW.mean(dim=(2, 3)), maps_BCHW


def count_params(module: nn.Module) -> int:
    """Number of weights, without an auxiliary head (the convention of DARTS utils.py)."""
    return sum(
        parameter.numel()
        for name, parameter in module.named_parameters()
        if not name.startswith(f"{AUXILIARY}.")
    )


def count_macs(module: Network | PlainSupernet, image_size: int) -> int:
    """Multiply-accumulates of convolutions and linear layers in testing one square image."""
    twin = deepcopy(module).eval().to("meta")  # shapes are enough, and the original stays as it is
    if isinstance(twin, Supernet | Network):
        twin.form = "plain"  # the others compute the same in other products
    stem_weight = twin.stem.get_parameter("0.weight")
    inputs = [stem_weight.new_zeros(1, stem_weight.shape[1], image_size, image_size)]
    if isinstance(twin, PlainSupernet):
        inputs += [stem_weight.new_zeros(len(EDGES), len(twin.columns))] * 2
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(*inputs)
    flops: int = counter.get_total_flops()  # two a multiply-accumulate
    return flops // 2
