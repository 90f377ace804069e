"""What kernels read in one piece, gathered from a cell's modules, and gradients taken apart again.

Modules keep their parameters under their names, so a checkpoint fits every form of the network, and
a loss can be computed at other weights than the module's own (``torch.func.functional_call``). The
pieces: P [lane, C, C], pointwise products; F [tap, C], depthwise filters; G and B [lane, C],
BatchNorm's scale and shift; MEAN and VAR [lane, C], its running statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas_sweeps.space.lanes.table import Lane, Table


class Packed(NamedTuple):
    """One call's weights; all in the type of sums but ``P_maps``, which has that of maps."""

    P: Tensor
    P_maps: Tensor
    F: Tensor
    G: Tensor
    B: Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """Which parameter is where. Parameters come as filters, pointwise, scales, shifts."""

    table: Table
    channels: int
    filters: tuple[Lane, ...]
    norms: tuple[nn.BatchNorm2d, ...]  # those with scale and shift, each once

    @classmethod
    def of(cls, table: Table, channels: int) -> Layout:
        norms = {id(x.norm): x.norm for x in table.lanes if x.norm is not None and x.norm.affine}
        filters = tuple(lane for lane in table.blocks if lane.filter is not None)
        return cls(table, channels, filters, tuple(norms.values()))

    def parameters(self) -> list[Tensor]:
        """The parameters that the modules hold now."""
        filters = [lane.filter.weight for lane in self.filters if lane.filter is not None]
        products = [x.pointwise.weight for x in self.table.blocks if x.pointwise is not None]
        return [*filters, *products, *(n.weight for n in self.norms), *(n.bias for n in self.norms)]

    def _parts(self, tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], ...]:
        """Filters, pointwise, scales, shifts."""
        cuts = [len(self.filters), len(self.table.blocks), len(self.norms), len(self.norms)]
        out, start = [], 0
        for size in cuts:
            out.append(tensors[start : start + size])
            start += size
        return tuple(out)

    def pack(
        self,
        parameters: Sequence[Tensor],
        device: torch.device,
        sums: torch.dtype,
        maps: torch.dtype,
    ) -> Packed:
        """All pieces, on the device that the parameters are on, if there are any."""
        C = self.channels
        filters, products, scales, shifts = self._parts([p.detach().to(sums) for p in parameters])
        none = torch.zeros(C - C // 2, C, dtype=sums, device=device)
        F = torch.cat([w.flatten(1).t() for w in filters]) if filters else none
        rows: list[Tensor] = []
        for lane, w in zip(self.table.blocks, products, strict=True):
            rows += _halves(lane, w.flatten(1), none[: C - len(w)])
        P = torch.cat(rows or [none[:0]]).view(-1, C, C)
        by_norm = {id(n): pair for n, *pair in zip(self.norms, scales, shifts, strict=True)}
        ones, zeros = torch.ones(C, dtype=sums, device=device), none[0]
        G: list[Tensor] = []
        B: list[Tensor] = []
        for lane in self.table.lanes:
            g, b = by_norm.get(id(lane.norm), (ones, zeros))
            G += _halves(lane, _own(lane, g), zeros[: C // 2])
            B += _halves(lane, _own(lane, b), zeros[: C // 2])
        return Packed(P, P.to(maps), F, torch.cat(G).view(-1, C), torch.cat(B).view(-1, C))

    def gradients(self, DP: Tensor, DF: Tensor, DG: Tensor, DB: Tensor) -> list[Tensor]:
        """Those of every parameter, each as contiguous as the parameter is."""
        C = self.channels
        out: list[Tensor] = []
        turned = dict(self._turned(DF))
        place = dict.fromkeys(turned, 0)
        for lane in self.filters:
            taps = _taps(lane)
            rows, start = turned[taps], place[taps]
            place[taps] += 1
            assert lane.filter is not None
            out.append(rows[start].view(lane.filter.weight.shape))
        for number, lane in enumerate(self.table.blocks):
            assert lane.pointwise is not None
            own = _own(lane, DP[number])
            out.append(own.reshape(len(own), C, 1, 1))
        return (
            out
            + [self._of_norm(n, DG) for n in self.norms]
            + [self._of_norm(n, DB) for n in self.norms]
        )

    def _turned(self, DF: Tensor) -> list[tuple[int, Tensor]]:
        """Filters of one size as (filter, C, taps), from rows of taps in order of lanes."""
        sizes = [_taps(lane) for lane in self.filters]
        rows = torch.split(DF[: sum(sizes)], sizes)
        return [
            (taps, torch.stack([r for r in rows if len(r) == taps]).mT.contiguous())
            for taps in sorted(set(sizes))
        ]

    def _of_norm(self, norm: nn.BatchNorm2d, rows: Tensor) -> Tensor:
        own = [_own(x, rows[k]) for k, x in enumerate(self.table.lanes) if x.norm is norm]
        return own[0] if len(own) == 1 else torch.cat(own)

    def statistics(self, training: bool, like: Tensor) -> tuple[Tensor, Tensor]:
        """MEAN and VAR: the running ones, or room for those of a batch."""
        lanes, C = self.table.lanes, self.channels
        if training:
            return torch.empty_like(like), torch.empty_like(like)
        zeros, ones = torch.zeros_like(like[0]), torch.ones_like(like[0])
        means = [zeros if x.norm is None else _there(x.norm.running_mean).to(like) for x in lanes]
        variances = [ones if x.norm is None else _there(x.norm.running_var).to(like) for x in lanes]
        return torch.cat(means).view(-1, C), torch.cat(variances).view(-1, C)

    def update(self, mean: Tensor, variance: Tensor) -> None:
        """Running statistics towards those of the batch, as BatchNorm in training."""
        norms = {id(x.norm): x.norm for x in self.table.lanes if x.norm is not None}
        if not norms:
            return
        momentum = {n.momentum for n in norms.values()}
        assert len(momentum) == 1, "the norms of a cell share one momentum"
        (share,) = momentum
        assert share is not None, "norms average exponentially"
        buffers: list[Tensor] = []
        values: list[Tensor] = []
        for number, lane in enumerate(self.table.lanes):
            if lane.norm is not None:
                for buffer, rows in (
                    (lane.norm.running_mean, mean),
                    (lane.norm.running_var, variance),
                ):
                    own = _there(buffer)
                    buffers.append(_own(lane, own))
                    values.append(_own(lane, rows[number]).to(own.dtype))
        torch._foreach_lerp_(buffers, values, share)
        torch._foreach_add_([_there(n.num_batches_tracked) for n in norms.values()], 1)


def _taps(lane: Lane) -> int:
    assert lane.filter is not None
    return lane.filter.weight[0].numel()


def _own(lane: Lane, rows: Tensor) -> Tensor:
    """The channels that a lane fills, of C."""
    if lane.pointwise is None or lane.half < 0:
        return rows
    middle = len(rows) // 2
    return rows[middle:] if lane.half else rows[:middle]


def _halves(lane: Lane, own: Tensor, none: Tensor) -> list[Tensor]:
    """A lane's own rows, and zeros for the other half where it fills one."""
    if lane.pointwise is None or lane.half < 0:
        return [own]
    return [none, own] if lane.half else [own, none]


def _there(buffer: Tensor | None) -> Tensor:
    assert buffer is not None, "the space's norms track statistics"
    return buffer
