"""Which form computes a network, and what is said of a switch that cannot be followed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nas_sweeps as ns
from nas_sweeps.space import form
from nas_sweeps.space.form import choose_form
from nas_sweeps.train.form import check_switches

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture(autouse=True)
def _no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(form.SWITCH, raising=False)


def capable(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


def test_a_cpu_has_its_own_form_for_supernets_alone() -> None:
    assert choose_form(CPU, supernet=True).form == "arranged"
    chosen = choose_form(CPU)
    assert chosen.form == "plain"
    assert "cpu device" in chosen.reason


def test_a_gpu_computes_by_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    capable(monkeypatch, (9, 0))
    assert choose_form(CUDA).form == choose_form(CUDA, supernet=True).form == "triton"


@pytest.mark.parametrize("supernet", [False, True])
def test_without_what_kernels_need_a_gpu_computes_plainly(
    supernet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    capable(monkeypatch, (7, 5))
    chosen = choose_form(CUDA, supernet=supernet)
    assert chosen.form == "plain"
    assert "8.0, and this GPU has 7.5" in chosen.reason
    capable(monkeypatch, (9, 0))
    twice = choose_form(CUDA, supernet=supernet, differentiated_twice=True)
    assert twice.form == "plain"
    assert "hvp: exact" in twice.reason
    assert choose_form(CUDA, supernet=supernet, partial_channels=4).form == "plain"
    monkeypatch.setattr(form.importlib.util, "find_spec", lambda name: None)
    assert choose_form(CUDA, supernet=supernet).reason == "Triton is not installed"


def test_a_switch_is_followed_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(form.SWITCH, "plain")
    assert choose_form(CPU, supernet=True).form == "plain"
    monkeypatch.setenv(form.SWITCH, "arranged")
    assert choose_form(CPU, supernet=True).form == "arranged"
    assert choose_form(CPU).form == "plain"  # retraining has no such form
    monkeypatch.setenv(form.SWITCH, "triton")
    with pytest.raises(ValueError, match=r"NAS_SWEEPS_FORM=triton: the kernels need CUDA"):
        choose_form(CPU, supernet=True)
    with pytest.raises(ValueError, match="unset it, or use plain"):
        check_switches(on_cpu=True)
    check_switches(on_cpu=False)  # whether a GPU can is known where it is
    monkeypatch.setenv(form.SWITCH, "fast")
    with pytest.raises(ValueError, match=r"unknown form 'fast'; choose from plain, arranged"):
        check_switches(on_cpu=False)


def test_a_run_refuses_a_switch_before_there_is_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(form.SWITCH, "triton")
    grid = ns.load_grid("experiments/quickstart.yaml")
    with pytest.raises(ValueError, match="the kernels need CUDA"):
        ns.run(grid, tmp_path / "store", executor="inline", console="none")
    assert not (tmp_path / "store").exists()
