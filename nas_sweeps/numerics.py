"""What decides how the sums of a trial are rounded. No torch: filled in by ``sweep.machine``.

A trial's identity says what is computed; two machines that compute it may still round
differently. Results are equal to the last bit only where these values are equal too, and on a
GPU not even there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """What decides how an attempt's sums are rounded. None where an older version did not say.

    Attributes:
        device_kind: cpu or cuda.
        device_model: the processor with its vector instructions as torch uses them, or the GPU.
        threads: of torch, on the CPU.
        precision: fp32, tf32 or bf16, as the recipe asks.
        form: how the network was computed: plain (one module after another), arranged (state by
            state) or triton; compiled in searches of old that used a compiled CPU kernel.
        torch: its version.
        triton: its version; None where it was not used.
    """

    device_kind: str | None
    device_model: str | None
    threads: int | None
    precision: str | None
    form: str | None
    torch: str | None
    triton: str | None = None

    @property
    def known(self) -> bool:
        """Whether everything was recorded, so that equal values mean equal rounding."""
        values = (getattr(self, f.name) for f in fields(self) if f.name != "triton")
        return None not in values

    def columns(self) -> dict[str, Any]:
        """The values by their columns of the tables."""
        named = {"torch": "torch_version", "triton": "triton_version"}
        return {named.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}


# The columns of ``trials`` and ``attempts`` that are equal where rounding is.
COLUMNS = (
    *("device_kind", "device_model", "threads", "precision", "form"),
    *("torch_version", "triton_version"),
)


def changes(history: Sequence[Numerics]) -> str:
    """What did not stay the same, such as ``threads: 1, then 2``; empty where all did."""
    return "; ".join(_changes(history))


def _changes(history: Sequence[Numerics]) -> Iterator[str]:
    for field in fields(Numerics):
        values = [getattr(one, field.name) for one in history]
        unset = "none" if field.name == "triton" else UNKNOWN
        texts = dict.fromkeys(unset if value is None else str(value) for value in values)
        if len(texts) > 1:
            yield f"{field.name}: {', then '.join(texts)}"
