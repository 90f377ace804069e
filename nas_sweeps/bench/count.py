"""What a step asks of the machine: operations, FLOPs and bytes, counted while it runs.

*Operations* are those that torch dispatches, without views and without memory that is only
reserved. On CUDA each is about one kernel launch; a CUDA graph launches them all at once.

*FLOPs* are counted by torch's ``FlopCounterMode``: two per multiply-accumulate of convolutions and
matrix products, and none for anything else. Its formula for the gradient of a convolution takes
no heed of groups and would count a depthwise filter C times, so it is replaced here.

*Bytes* are those of every operation's inputs, read once each, and of its outputs, written once;
a broadcast or strided input counts what it holds in memory, at most. An operation that reads
something twice moves more, and what stays in a cache between two operations moves less.

The *floor* of a step is the longer of both: its FLOPs at the rate of a large matrix product, its
bytes at that of a large copy. Both rates are measured in the same run, by the same clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

Size = Sequence[int]


@dataclass(frozen=True)
class Work:
    """What one step asks of the machine."""

    operations: int
    gflop: float
    gbyte: float

    def floor_s(self, gemm_gflops: float, copy_gbytes: float) -> float:
        """Seconds that no machine of these rates can undercut, if nothing stays in caches."""
        return max(self.gflop / gemm_gflops, self.gbyte / copy_gbytes)


def count(step: Callable[[], object]) -> Work:
    """Run a step and count."""
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as flops, _Bytes() as moved:
        step()
    return Work(moved.operations, flops.get_total_flops() / 1e9, moved.total / 1e9)


class _Bytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations, self.total = 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = list(_tensors([args, kwargs]))
        outputs = list(_tensors(out))
        if _works(func, inputs, outputs):
            self.operations += 1
            self.total += sum(map(_held, inputs)) + sum(map(_held, outputs))
        return out


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _works(func: Any, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    """Whether an operation computes: views share memory, and ``empty`` only reserves it."""
    if func._schema.is_mutable:
        return True
    given = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    shared = [tensor.untyped_storage().data_ptr() in given for tensor in outputs]
    return not all(shared) and "empty" not in func.__name__


def _held(tensor: Tensor) -> int:
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


# FLOPs by shapes, as ``FlopCounterMode`` asks for them


def _convolution_backward(slope: Size, x: Size, weight: Size, *rest: Any, **out: Any) -> int:
    wanted: Sequence[bool] = rest[-1]
    return 2 * prod(slope) * prod(weight[1:]) * sum(wanted[:2])


FORMULAS: dict[Any, Any] = {torch.ops.aten.convolution_backward: _convolution_backward}
