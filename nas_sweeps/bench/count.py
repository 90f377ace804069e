"""What a step asks of the machine: operations, FLOPs and bytes, counted while it runs.

*Operations* are those that torch dispatches, without views and without memory that is only
reserved. On CUDA each is about one kernel launch; a CUDA graph launches them all at once.

*FLOPs* are counted by the formulas of torch's ``FlopCounterMode``: two per multiply-accumulate of
convolutions and matrix products, and none for anything else. Its formula for the gradient of a
convolution takes no heed of groups and would count a depthwise filter C times, so it is replaced
here. The mode itself also follows modules, which takes six times as long as the step.

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
from torch.utils.flop_counter import flop_registry


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
    with _Counting() as done:
        step()
    return Work(done.operations, done.flops / 1e9, done.bytes / 1e9)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations, self.flops, self.bytes = 0, 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = list(_tensors([args, kwargs]))
        outputs = list(_tensors(out))
        if _works(func, inputs, outputs):
            self.operations += 1
            self.bytes += sum(map(_held, inputs)) + sum(map(_held, outputs))
        if formula := FORMULAS.get(func.overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
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


def _forward(x: Tensor, weight: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    return 2 * out_val.numel() * prod(weight.shape[1:])


def _convolution_backward(slope: Tensor, x: Tensor, weight: Tensor, *rest: Any, **_: Any) -> int:
    wanted: Sequence[bool] = rest[-1]
    return 2 * slope.numel() * prod(weight.shape[1:]) * sum(wanted[:2])


_aten = torch.ops.aten
FORMULAS: dict[Any, Callable[..., int]] = flop_registry | {
    _aten.convolution_backward: _convolution_backward,
    _aten.conv2d: _forward,  # in inference mode torch dispatches these two whole
    _aten.linear: _forward,
}
