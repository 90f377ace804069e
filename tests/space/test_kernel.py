from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas_sweeps.space import kernel
from nas_sweeps.space.depthwise import Filter, depthwise


@pytest.fixture(autouse=True)
def _choose_anew() -> Iterator[None]:
    kernel._chosen.cache_clear()
    kernel.follow(None)
    yield
    kernel._chosen.cache_clear()
    kernel.follow(None)


def torchs(x: Tensor, filters: list[Filter]) -> list[Tensor]:
    return [torch.conv2d(x, w, None, s, d * (w.shape[-1] // 2), d, len(w)) for w, s, d in filters]


def case(shape: tuple[int, ...], dtype: torch.dtype, strides: tuple[int, ...]) -> list[Tensor]:
    """A map and filters of every side and dilation."""
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype).to(memory_format=torch.channels_last)
    sides = [side for side in (3, 5) for _ in (1, 2) for _ in strides]
    weights = [torch.randn(shape[1], 1, side, side, dtype=dtype) for side in sides]
    return [tensor.requires_grad_() for tensor in (x, *weights)]


def filters_of(weights: list[Tensor], strides: tuple[int, ...]) -> list[Filter]:
    shapes = [(s, d) for _ in (3, 5) for d in (1, 2) for s in strides]
    return [Filter(w, *shape) for w, shape in zip(weights, shapes, strict=True)]


SHAPES = [(2, 3, 5, 7), (1, 16, 8, 8), (3, 20, 9, 11), (2, 1, 1, 1), (5, 33, 12, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_those_of_torch_in_either_form(
    shape: tuple[int, ...], dtype: torch.dtype, form: kernel.Form
) -> None:
    leaves = case(shape, dtype, (1, 2))
    filters = filters_of(leaves[1:], (1, 2))
    slopes = [torch.randn_like(out) for out in torchs(leaves[0], filters)]
    found, truth = (
        torch.autograd.grad(convolve(leaves[0], filters), leaves, slopes)
        for convolve in (depthwise, torchs)
    )
    rtol, atol = (1e-4, 1e-4) if dtype == torch.float32 else (1e-10, 1e-10)
    torch.testing.assert_close(found, truth, rtol=rtol, atol=atol)


def test_second_derivatives_are_those_of_torch(form: kernel.Form) -> None:
    leaves = case((2, 3, 6, 5), torch.float64, (1,))
    filters = filters_of(leaves[1:], (1,))
    seconds = []
    for convolve in (depthwise, torchs):
        loss = sum((out.pow(3).sum() for out in convolve(leaves[0], filters)), torch.zeros(()))
        firsts = torch.autograd.grad(loss, leaves, create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in firsts), leaves))
    torch.testing.assert_close(*seconds, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["compiled"], indirect=True)
def test_bits_do_not_depend_on_the_number_of_threads(form: kernel.Form) -> None:
    leaves, before = case((5, 6, 7, 8), torch.float32, (1, 2)), torch.get_num_threads()
    filters = filters_of(leaves[1:], (1, 2))
    slopes = [torch.randn_like(out) for out in torchs(leaves[0], filters)]
    found, weights = [], [one.weight.detach() for one in filters]
    forms = [n for w, s, d in filters for n in (w.shape[-1], s, d)]
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            given = leaves[0].detach(), weights, forms, slopes
            found.append([kernel.input_gradient(*given), *kernel.filter_gradients(*given)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("form", ["compiled"], indirect=True)
def test_a_trial_that_began_in_plain_pytorch_goes_on_in_it(form: kernel.Form) -> None:
    assert kernel.follow("plain")
    assert kernel.form() == "plain"
    assert kernel.follow("compiled")
    assert kernel.form() == "compiled"
    kernel.follow("plain")
    assert kernel.follow(None)
    assert kernel.form() == "compiled"


def chosen(caplog: pytest.LogCaptureFixture) -> str:
    """What the log says of the choice, which must be plain and said once."""
    with caplog.at_level(logging.INFO, "nas_sweeps.space"):
        assert kernel.form() == "plain"
        assert kernel.form() == "plain"
    assert not kernel.follow("compiled")
    (record,) = caplog.records
    return record.getMessage()


def test_nothing_is_compiled_unasked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.delenv("NAS_SWEEPS_KERNEL", raising=False)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert "no kernel is built" in chosen(caplog)
    assert not list(tmp_path.iterdir())


def test_off_is_off(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("NAS_SWEEPS_KERNEL", "off")
    assert chosen(caplog) == "depthwise: plain PyTorch, because NAS_SWEEPS_KERNEL is off"


def test_a_wrong_choice_says_what_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NAS_SWEEPS_KERNEL", "yes")
    assert "is 'yes'; it can be auto, on or off" in chosen(caplog)


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("no-such-compiler", "'no-such-compiler' was not found (set CXX)"),
        ("false", "'false' failed"),
    ],
)
def test_without_a_compiler_that_works_it_is_plain_pytorch(
    compiler: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("NAS_SWEEPS_KERNEL", "on")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    assert reason in chosen(caplog)
    assert not list(tmp_path.iterdir())


def test_a_build_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("NAS_SWEEPS_KERNEL", "on")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(kernel, "BUILD_S", 0.01)
    monkeypatch.setattr(kernel.shutil, "which", lambda tool: tool)
    assert "took longer than" in chosen(caplog)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_to_is_plain_pytorch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("NAS_SWEEPS_KERNEL", "on")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(file))
    monkeypatch.setattr(kernel.shutil, "which", lambda tool: tool)
    assert str(file) in chosen(caplog)


def test_a_damaged_library_is_plain_pytorch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.delenv("NAS_SWEEPS_KERNEL", raising=False)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    kernel.library().write_text("no library")
    assert str(tmp_path) in chosen(caplog)
