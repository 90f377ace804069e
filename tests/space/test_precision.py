"""A precision sets every switch that rounds products, and leaves none of them behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import torch

from nas_sweeps.space.precision import precision

CPU = torch.device("cpu")
backends = torch.backends
SWITCHES = {
    "cuda.matmul": backends.cuda.matmul,
    "cudnn.conv": backends.cudnn.conv,
    "mkldnn.matmul": backends.mkldnn.matmul,
    "mkldnn.conv": backends.mkldnn.conv,
}


def older() -> tuple[str | None, bool | None]:
    matmul = cudnn = None
    with suppress(RuntimeError):  # torch refuses to say where both kinds of switch were used
        matmul = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        cudnn = backends.cudnn.allow_tf32
    return matmul, cudnn


def now() -> tuple[dict[str, str], tuple[str | None, bool | None], bool]:
    switches = {name: switch.fp32_precision for name, switch in SWITCHES.items()}
    return switches, older(), torch.is_autocast_enabled("cpu")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before, (matmul, cudnn), _ = now()
    yield
    torch.set_float32_matmul_precision(matmul or "highest")
    backends.cudnn.allow_tf32 = True if cudnn is None else cudnn
    for name, value in before.items():
        SWITCHES[name].fp32_precision = value


def nothing() -> None:
    pass


def medium() -> None:
    torch.set_float32_matmul_precision("medium")


def cudnn_off() -> None:
    backends.cudnn.allow_tf32 = False


def both_kinds() -> None:
    torch.set_float32_matmul_precision("medium")
    backends.cuda.matmul.allow_tf32 = False
    backends.mkldnn.conv.fp32_precision = "bf16"


@pytest.mark.parametrize("kind", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("somebody_has_set", [nothing, medium, cudnn_off, both_kinds])
def test_every_switch_is_set_and_put_back(somebody_has_set: Callable[[], None], kind: str) -> None:
    somebody_has_set()
    before = now()
    with suppress(KeyError), precision(kind, CPU):
        switches, (matmul, cudnn), autocast = now()
        raise KeyError
    on_cuda = "ieee" if kind == "fp32" else "tf32"
    assert switches == {
        "cuda.matmul": on_cuda,
        "cudnn.conv": on_cuda,
        "mkldnn.matmul": "ieee",
        "mkldnn.conv": "ieee",
    }
    assert (matmul, cudnn) == ("highest" if kind == "fp32" else "high", kind != "fp32")
    assert autocast == (kind == "bf16")
    assert now() == before


def test_fp32_is_fp32_grade_whatever_was_set_before() -> None:
    torch.set_float32_matmul_precision("medium")  # on some CPUs, products of bfloat16
    a, b = torch.randn(64, 64), torch.randn(64, 64)
    with precision("fp32", CPU):
        error = (a @ b - (a.double() @ b.double())).abs().max()
    assert error < 1e-4


def test_bf16_rounds_products_and_nothing_else() -> None:
    a, b = torch.randn(64, 64), torch.randn(64, 64)
    with precision("bf16", CPU):
        assert (a @ b).dtype == torch.bfloat16
        assert (a + b).dtype == torch.float32
