"""What ``precision`` means: one word for how products are rounded, in a recipe and everywhere.

``fp32``
    Products and sums of float32 numbers in float32. TF32, which cuDNN takes by itself, is off,
    and so is what somebody's ``torch.set_float32_matmul_precision`` has set for a CPU. A form
    whose kernels are written in Triton takes ``tf32x3``: three TF32 products, which are one of
    float32 but for its last bits.
``tf32``
    Maps, weights and sums are float32; CUDA may round the factors of a product to TF32 (10 bits
    after the point). On a CPU it is ``fp32``.
``bf16``
    Torch's autocast: convolutions and matrix products take and give bfloat16 (7 bits); weights,
    statistics and losses stay float32. What it leaves to float32 is as in ``tf32``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from nas_sweeps.trial import Precision


@contextmanager
def precision(kind: Precision, device: torch.device) -> Iterator[None]:
    """Inside, products are rounded as ``kind`` says; after, every switch is as it was.

    Autocast's cache stays off: it would keep the weights of the first step for as long as the
    context is open, however often an optimiser changes them in place.
    """
    with _switches(tf32=kind != "fp32"):
        bf16 = kind == "bf16"
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            yield


@contextmanager
def _switches(tf32: bool) -> Iterator[None]:
    """Torch has an older and a newer set of them over one state, and reading the older one raises
    where they disagree. So both are set, and both are put back."""
    older, newer = _older(), {switch: switch.fp32_precision for switch in _newer()}
    try:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        for switch in newer:
            on_cpu = switch in (_MKLDNN.matmul, _MKLDNN.conv)
            switch.fp32_precision = "tf32" if tf32 and not on_cpu else "ieee"
        yield
    finally:
        matmul, cudnn = older
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = cudnn
        for switch, value in newer.items():
            switch.fp32_precision = value


_MKLDNN: Any = torch.backends.mkldnn


def _newer() -> list[Any]:
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return [cuda.matmul, cudnn.conv, _MKLDNN.matmul, _MKLDNN.conv]  # type: ignore[attr-defined]


def _older() -> tuple[str | None, bool | None]:
    """Torch's older settings; None where the newer ones hold what these cannot say."""
    matmul: str | None = None
    cudnn: bool | None = None
    with suppress(RuntimeError):
        matmul = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        cudnn = torch.backends.cudnn.allow_tf32
    return matmul, cudnn
