"""Cells of a few operations, computed by modules one by one and by kernels."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas_sweeps.space.lanes.cell import run_cell
from nas_sweeps.space.lanes.table import Operation, Table, build_table
from nas_sweeps.space.operations import build_operation

# Every kind of lane; node 2 is read by two others, node 4 only by the output.
MIXED = (
    ("sep_conv_3x3", 0, 2),
    ("dil_conv_5x5", 1, 2),
    ("max_pool_3x3", 0, 2),
    ("skip_connect", 0, 2),
    ("sep_conv_5x5", 2, 3),
    ("dil_conv_3x3", 1, 3),
    ("avg_pool_3x3", 2, 3),
    ("skip_connect", 1, 3),
    ("avg_pool_3x3", 1, 4),
    ("max_pool_3x3", 2, 4),
    ("skip_connect", 3, 4),
)


class Cell(nn.Module):
    """A sum of operations into nodes; ``weights`` is one for every operation."""

    def __init__(
        self,
        operations: Sequence[tuple[str, int, int]],
        channels: int,
        stride: int,
        affine: bool,
        pool_norm: bool,
    ) -> None:
        super().__init__()
        self.edges, self.stride = operations, stride
        self.operations = nn.ModuleList(
            build_operation(
                name, channels, stride if source < 2 else 1, affine=affine, pool_norm=pool_norm
            )
            for name, source, _ in operations
        )

    def table(self, drop: bool = False, weighted: bool = True) -> Table:
        out = []
        for row, ((_, source, node), module) in enumerate(
            zip(self.edges, self.operations, strict=True)
        ):
            dropped = row if drop and not isinstance(module, nn.Identity) else -1
            weight = row if weighted else -1
            out.append(Operation(module, source, node, weight=weight, drop=dropped))
        return build_table(out, len(out) if weighted else 0)

    def forward(
        self, states: Sequence[Tensor], weights: Tensor | None, drop: Tensor | None
    ) -> Tensor:
        nodes: dict[int, Tensor] = dict(enumerate(states))
        for node in sorted({node for _, _, node in self.edges}):
            total: Tensor | None = None
            for row, (edge, module) in enumerate(zip(self.edges, self.operations, strict=True)):
                if edge[2] != node:
                    continue
                term: Tensor = module(nodes[edge[1]])
                if weights is not None:
                    term = term * weights[row]
                if drop is not None and not isinstance(module, nn.Identity):
                    term = term * drop[row][:, None, None, None]
                total = term if total is None else total + term
            assert total is not None
            nodes[node] = total
        return torch.cat([nodes[n] for n in sorted(nodes) if n > 1], dim=1)


class Case(NamedTuple):
    """What a cell is computed for."""

    operations: Sequence[tuple[str, int, int]] = MIXED
    channels: int = 2
    side: tuple[int, int] = (4, 4)
    stride: int = 1
    affine: bool = False
    pool_norm: bool = True
    weighted: bool = True
    drop: bool = False
    training: bool = True
    batch: int = 3


class Result(NamedTuple):
    """Everything that a cell computes."""

    out: Tensor
    inputs: list[Tensor]
    weights: Tensor
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]


def make(case: Case) -> tuple[Cell, Cell]:
    """Two equal cells in float64, with running statistics and scales that tell."""
    torch.manual_seed(0)
    cell = Cell(case.operations, case.channels, case.stride, case.affine, case.pool_norm).double()
    for module in cell.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_()
    return cell.train(case.training), deepcopy(cell).train(case.training)


def inputs_of(case: Case) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
    """States, edge weights and factors of drop path."""
    draw = torch.Generator().manual_seed(1)
    size = (case.batch, case.channels, *case.side)
    states = [
        torch.randn(size, dtype=torch.float64, generator=draw).to(memory_format=torch.channels_last)
        for _ in range(2)
    ]
    count = len(case.operations)
    weights = torch.randn(count, dtype=torch.float64, generator=draw) if case.weighted else None
    drop = None
    if case.drop:
        kept = torch.rand(count, case.batch, dtype=torch.float64, generator=draw) < 0.6
        drop = kept / torch.tensor(0.6, dtype=torch.float64)
    return states, weights, drop


def compute(cell: Cell, case: Case, kernels: bool) -> Result:
    """Output and all gradients, by modules or by kernels."""
    states, weights, drop = inputs_of(case)
    states = [s.requires_grad_() for s in states]
    if weights is not None:
        weights.requires_grad_()
    if kernels:
        table = cell.table(case.drop, case.weighted)
        out = run_cell(table, states[0], states[1], case.stride, weights, drop)
    else:
        out = cell(states, weights, drop)
    draw = torch.Generator().manual_seed(2)
    seed = torch.randn(out.shape, dtype=out.dtype, generator=draw)
    torch.autograd.backward(out, seed)
    return Result(
        out.detach(),
        [s.grad if s.grad is not None else torch.zeros_like(s) for s in states],
        weights.grad if weights is not None and weights.grad is not None else torch.zeros(1),
        {n: p.grad for n, p in cell.named_parameters() if p.grad is not None},
        {n: b.clone() for n, b in cell.named_buffers()},
    )


def worst_difference(a: Result, b: Result) -> float:
    """The largest relative difference of any tensor; parameters without gradient must agree."""
    assert a.parameters.keys() == b.parameters.keys()
    pairs = [(a.out, b.out), *zip(a.inputs, b.inputs, strict=True), (a.weights, b.weights)]
    pairs += [(a.parameters[n], b.parameters[n]) for n in b.parameters]
    pairs += [(a.buffers[n].double(), b.buffers[n].double()) for n in b.buffers]
    return max(float((x - y).norm() / y.norm().clamp_min(1e-12)) for x, y in pairs)
