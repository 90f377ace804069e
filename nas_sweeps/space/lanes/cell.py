"""A cell by kernels, as one autograd function of its inputs, edge weights and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from nas_sweeps.space.lanes.backward import run_backward
from nas_sweeps.space.lanes.forward import run_forward
from nas_sweeps.space.lanes.launch import type_of_noted_maps
from nas_sweeps.space.lanes.shape import Shape
from nas_sweeps.space.lanes.table import INPUTS, Table
from nas_sweeps.space.lanes.weights import Layout
from nas_sweeps.space.lanes.work import Maps, Work


def run_cell(
    table: Table,
    s0_BCHW: Tensor,
    s1_BCHW: Tensor,
    stride: int,
    weights: Tensor | None = None,
    drop: Tensor | None = None,
) -> Tensor:
    """The output of a cell: (B, living nodes x C, ceil(H / stride), ceil(W / stride)).

    In training it updates the running statistics of the cell's norms. It can be differentiated
    once. Maps have the type of autocast where it is on, else that of the inputs.

    Args:
        table: of the cell's operations.
        s0_BCHW, s1_BCHW: the two states after preprocessing.
        stride: of the operations that read them.
        weights: of edges, (14, O) or flat; None where all are one.
        drop: factors of drop path, (rows, B) with a row for every lane that has one, or None.
    """
    norms = [lane.norm for lane in table.lanes if lane.norm is not None]
    assert all(norm.eps == 1e-5 for norm in norms), "the kernels hold torch's default"
    training = not norms or norms[0].training
    layout = Layout.of(table, s0_BCHW.shape[1])
    kept = weights if weights is not None else s0_BCHW.new_ones(1)
    out_BCHW: Tensor = _Cell.apply(
        layout, stride, training, drop, s0_BCHW, s1_BCHW, kept, *layout.parameters()
    )
    return out_BCHW


def _map_type(s_BCHW: Tensor) -> torch.dtype:
    kind = s_BCHW.device.type
    if kind == "meta":
        return type_of_noted_maps() or s_BCHW.dtype
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return s_BCHW.dtype


def _device(device: torch.device) -> Any:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class _Cell(Function):
    @staticmethod
    def forward(
        ctx: Any,
        layout: Layout,
        stride: int,
        training: bool,
        drop: Tensor | None,
        s0: Tensor,
        s1: Tensor,
        weights: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        maps_type = _map_type(s0)
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            batch, channels, height, width = s0.shape
            nodes = len(layout.table.nodes)
            shape = Shape(batch, channels, height, width, stride, nodes, maps_type)
            packed = layout.pack(parameters, s0.device, shape.sums, shape.maps)
            work = Work(layout, shape, training, packed, weights, drop)
            with _device(s0.device):
                maps = run_forward(work, s0, s1)
        ctx.work, ctx.given = work, (s0.dtype, s1.dtype, weights)
        ctx.save_for_backward(*maps)
        out = maps.OUT.view(shape.batch, shape.out_height, shape.out_width, work.OC)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        work: Work = ctx.work
        _, _, _, _, *inputs, of_weights = ctx.needs_input_grad[:7]
        learn = any(ctx.needs_input_grad[7:])
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            with _device(grad.device):
                found = run_backward(work, Maps(*ctx.saved_tensors), grad, any(inputs), learn)
            states: Sequence[Tensor | None] = (None, None)
            if found.X is not None:
                shape = work.shape
                views = found.X.view(INPUTS, shape.batch, shape.height, shape.width, -1)
                types = ctx.given[:2]
                states = [v.permute(0, 3, 1, 2).to(t) for v, t in zip(views, types, strict=True)]
            weights = None
            if of_weights:
                one, other = work.lanes_of_weight.unbind(1)
                like = ctx.given[2]
                weights = (found.W[one] + found.W[other]).view(like.shape).to(like.dtype)
            rest: Sequence[Tensor | None] = [None] * len(ctx.needs_input_grad[7:])
            if found.P is not None and found.F is not None:
                rest = work.layout.gradients(found.P, found.F, found.G, found.B)
        return None, None, None, None, *states, weights, *rest
