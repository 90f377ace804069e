"""What a CUDA graph does, on a CPU: it runs the same operations on the same memory again.

A tape writes down every operation of a step below autograd. Playing it runs them in order, each
into the tensors that it wrote when it was recorded; Python is not asked again. So whatever a
step would get wrong in a CUDA graph by reading a number of the host's, a tensor made anew for
every call, or a value of the device's, it gets wrong on a tape as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas_sweeps.train.recorded import Means

aten = torch.ops.aten
# What makes the host wait for a GPU: reading a value, a shape that depends on values, and a
# tensor made of Python numbers, which is copied there.
WAITS = (
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.equal,
    aten.lift_fresh,
)


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what runs inside of it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.played: list[tuple[Any, tuple[Any, ...], dict[str, Any], object]] = []
        self.waits: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        by_mask = func.overloadpacket is aten.index and any(
            t is not None and t.dtype == torch.bool for t in args[1]
        )
        if func.overloadpacket in WAITS or by_mask:
            self.waits.append(str(func))
        self.played.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def play(self) -> None:
        for func, args, kwargs, out in self.played:
            returns = func._schema.returns
            written = [r for r in returns if r.alias_info and r.alias_info.is_write]
            if not written and any(r.alias_info for r in returns):
                continue  # a view: it shows what is in its memory now
            again = func(*args, **kwargs)
            if not written:
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor):
                        old.copy_(new)


class Tapes:
    """A recorder of tapes, or with ``refuse`` one that finds something in every step."""

    def __init__(self, refuse: bool = False) -> None:
        self.refuse, self.recorded, self.replays = refuse, 0, 0

    def rehearse(self, step: Callable[[], Means]) -> tuple[Means, str | None]:
        with Tape() as tape:  # also where it refuses: a mode changes which kernels torch picks
            means = step()
        return means, "it refuses all" if self.refuse else (tape.waits or [None])[0]

    def record(
        self, step: Callable[[], Means], generators: Sequence[torch.Generator]
    ) -> tuple[Means, Callable[[], None]]:
        with Tape() as tape:
            means = step()
        self.recorded += 1

        def again() -> None:
            self.replays += 1
            tape.play()

        return means, again
