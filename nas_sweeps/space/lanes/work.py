"""What the launches of one call share, forwards and backwards."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nas_sweeps.space.lanes.shape import TRITON_TYPE, Shape, products_of
from nas_sweeps.space.lanes.table import INPUTS
from nas_sweeps.space.lanes.weights import Layout, Packed


class Maps(NamedTuple):
    """What the backward pass needs of the forward pass: [.., pixel, channel], but the last two."""

    X: Tensor  # the two inputs
    OUT: Tensor  # all living nodes side by side
    Z: Tensor  # what depthwise filters gave, by lane
    U: Tensor  # P z, by lane; Z itself where kernels multiply again
    Y: Tensor  # between the halves of separable convolutions
    M: Tensor  # pooled maps
    IDX: Tensor  # which pixel of its window a maximum was
    MEAN: Tensor  # of every lane, [lane, channel]
    RSTD: Tensor


class Work:
    """A call's table, sizes, weights, and the arguments that many launches have in common."""

    def __init__(
        self,
        layout: Layout,
        shape: Shape,
        training: bool,
        packed: Packed,
        weights: Tensor,
        drop: Tensor | None,
    ) -> None:
        self.layout, self.table, self.shape = layout, layout.table, shape
        self.training, self.packed = training, packed
        self.device = packed.P.device
        self.weights = weights.detach().to(shape.sums).flatten().contiguous()
        self.TAB, self.PTAB, self.LIST, self.lanes_of_weight = self.table.on(self.device)
        self.drop = drop is not None
        self.F = packed.P if drop is None else drop.to(shape.sums)  # any tensor, where unread
        self.L, self.LT = len(self.table.blocks), len(self.table.lanes)
        self.OC = shape.nodes * shape.channels
        acc = TRITON_TYPE[shape.sums]
        self.common = {
            "C": shape.channels,
            "CB": shape.block,
            "ACC": acc,
            "num_warps": 4,
            "enable_fp_fusion": True,  # said, because Triton's default is about to change
        }
        # Without a product it is one variant, however products are rounded.
        self.dot = {"DOT": shape.dot, "PREC": products_of(shape.maps) if shape.dot else "ieee"}
        self.at_node = {
            "PIX": shape.out_height * shape.out_width,
            "NODES": shape.nodes,
            "DROP": self.drop,
        }
        self.big = {"H": shape.height, "W": shape.width}  # what inputs have
        self.small = {"H": shape.out_height, "W": shape.out_width}  # what nodes have
        self.out = {"HO": shape.out_height, "WO": shape.out_width}

    def new(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        """Room for maps, or for what else a type is given for."""
        return torch.empty(size, dtype=dtype or self.shape.maps, device=self.device)

    def sums(self, *size: int) -> Tensor:
        """Room for sums."""
        return self.new(*size, dtype=self.shape.sums)

    def states(self, maps: Maps, state: int | None) -> tuple[Tensor, int, dict[str, Any]]:
        """Where the maps lie that filters read: tensor, step from one to the next, sizes.

        None stands for what second halves read.
        """
        C, shape = self.shape.channels, self.shape
        if state is None:
            return maps.Y, shape.pixels * C, {**self.small, "SIDE": 1, "STR": 1}
        if state < INPUTS:
            return maps.X, shape.pixels_in * C, {**self.big, "SIDE": 1, "STR": shape.stride}
        return maps.OUT, C, {**self.small, "SIDE": shape.nodes, "STR": 1}
