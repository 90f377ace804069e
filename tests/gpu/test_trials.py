"""Steps of trials by kernels: recorded, repeated, compiled ahead, and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from nas_sweeps.space import arithmetic, operations
from nas_sweeps.space.arithmetic import WrongArithmetic
from nas_sweeps.space.lanes import cell
from nas_sweeps.space.lanes.backward import Gradients
from nas_sweeps.train.recorded import CudaGraphs, Means
from nas_sweeps.train.retrain import RetrainRun
from nas_sweeps.train.warming import warm_up_run
from tests.train.tiny_runs import make

CUDA = torch.device("cuda")
SIZES = {"channels": 16, "image_size": 32}  # of kernels that the other tests have too
RUNS = ["darts", "darts second fd", "ssf_nas", "ssf_nas joint", "plain", "all the trimmings"]
pytestmark = pytest.mark.gpu


class Called(CudaGraphs):
    """Replays by calling, with the same optimisers on the same stream."""

    def record(
        self, step: Callable[[], Means], generators: Sequence[torch.Generator]
    ) -> tuple[Means, Callable[[], None]]:
        return self._beside(step), lambda: self._beside(step) and None


def finished(name: str, recorder: CudaGraphs | None = None) -> dict[str, Tensor]:
    """Weights and alphas after an epoch: enough steps to record one and to replay it.

    A recording reads its rate from a float32 tensor, so the rate is one that float32 holds.
    """
    run = make(name, recorder, device=CUDA, **SIZES, lr=2.0**-5)
    run.run_epoch()
    assert run.step._recordings
    assert not run.step._refused
    if isinstance(run, RetrainRun):
        return dict(run.network.state_dict())
    alphas = {f"alpha {k}": alpha.detach() for k, alpha in enumerate(run.alphas)}
    # The probe of SSF-NAS has a rate of 0.1.
    kept = {n: v for n, v in run.model.state_dict().items() if "classifier" not in n}
    return kept | alphas


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_step_gives_the_bits_of_one_that_is_called(name: str) -> None:
    graphed, called = finished(name), finished(name, Called())
    assert [n for n, v in graphed.items() if not torch.equal(v, called[n])] == []


@pytest.mark.parametrize("name", ["darts", "ssf_nas", "all the trimmings"])
def test_the_same_trial_twice_gives_the_same_bits(name: str) -> None:
    one, two = finished(name), finished(name)
    assert [n for n, v in one.items() if not torch.equal(v, two[n])] == []


@pytest.mark.parametrize("name", RUNS)
def test_kernels_are_what_computes_a_trial(name: str) -> None:
    run = make(name, device=CUDA, **SIZES)
    assert (run.network if isinstance(run, RetrainRun) else run.model.supernet).form == "triton"


@pytest.mark.parametrize(("name", "precision"), [("darts", "bf16"), ("all the trimmings", "tf32")])
def test_a_warm_trial_compiles_nothing_of_its_own(
    name: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was compiled without a device is what the device then asks for."""
    import triton

    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    forget_kernels()
    run = make(name, device=CUDA, **SIZES, precision=precision)
    told: list[str] = []
    warm_up_run(run, told.append)
    assert told[0].startswith("compiling ")
    before = set(tmp_path.rglob("*.cubin"))
    assert before
    run.run_epoch()
    assert set(tmp_path.rglob("*.cubin")) == before


def forget_kernels() -> None:
    """What this process has loaded, so that it asks the cache again."""
    from triton.runtime.jit import JITFunction

    from nas_sweeps.space.lanes import filter_gradients, filters, mixing

    for module in (filter_gradients, filters, mixing):
        for kernel in vars(module).values():
            if isinstance(kernel, JITFunction):
                kernel.device_caches.clear()


@pytest.mark.parametrize("kind", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("form", ["plain", "triton"])
def test_the_arithmetic_check_passes(kind: str, form: str) -> None:
    assert arithmetic.check(CUDA, kind, form).comparisons > 50  # type: ignore[arg-type]


def test_the_arithmetic_check_finds_a_pool_whose_gradient_is_shifted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a pixel, on the device alone: what torch 2.11 does to channels-last maps."""

    class Shifted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> Tensor:
            return slope.roll(1, dims=-1) if slope.is_cuda else slope

    right = operations.average
    monkeypatch.setattr(operations, "average", lambda x, *rest: right(Shifted.apply(x), *rest))
    with pytest.raises(WrongArithmetic, match=r"avg_pool_3x3, gradient of the input, cuda"):
        arithmetic.check(CUDA, "fp32", "plain")


@pytest.mark.parametrize("field", ["X", "P"])
def test_the_arithmetic_check_finds_a_kernel_that_gives_a_wrong_gradient(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = cell.run_backward

    def wrong(*arguments: Any) -> Gradients:
        found = right(*arguments)
        value = getattr(found, field)
        return found if value is None else found._replace(**{field: 1.5 * value.roll(1, -1)})

    monkeypatch.setattr(cell, "run_backward", wrong)
    with pytest.raises(WrongArithmetic, match="triton"):
        arithmetic.check(CUDA, "fp32", "triton")
