"""Kernels are compiled ahead of time, for a chip that is not here.

Collected by ``test_ready.py`` in a process in which Triton compiles and does not interpret.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

import triton

from nas_sweeps.space.arithmetic import needs
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.space.lanes import ready
from nas_sweeps.space.lanes.ready import Need, needed, warm_up
from nas_sweeps.space.lanes.warm import Compiled, Target, Variant, compile_all
from nas_sweeps.space.network import Network
from nas_sweeps.space.supernet import Supernet

CPU, HOPPER = torch.device("cpu"), Target(90)
SKIPS = Genotype(
    normal=(("skip_connect", 0, 2), ("skip_connect", 1, 2)),
    reduce=(("max_pool_3x3", 0, 2), ("max_pool_3x3", 1, 2)),
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path / "triton"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


def need(operations: Sequence[str] = ("skip_connect", "sep_conv_3x3"), **of: Any) -> Need:
    net = Supernet(4, 3, 10, operations)
    net.form = "triton"
    default: dict[str, Any] = {"batch": 3, "tested": 5, "image": (3, 8, 8), "kind": "tf32"}
    return Need(**{"net": net} | default | of)


def small() -> Need:
    net = Network(SKIPS, 4, 3, 10)
    net.form = "triton"
    return need(net=net)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many kernels each compilation was asked for; nothing is compiled."""
    counts: list[int] = []

    def note(
        wanted: Sequence[Variant], target: Target, workers: int, on_each: Callable[..., None]
    ) -> list[Compiled]:
        assert target == HOPPER
        counts.append(len(wanted))
        on_each(1, None)
        return []

    monkeypatch.setattr(ready, "compile_all", note)
    return counts


def test_a_machine_compiles_once_and_later_trials_do_not_even_look(
    compiled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    warmed = warm_up([need()], CPU, target=HOPPER, tell=told.append)
    assert warmed is not None
    assert compiled == [warmed.kernels]
    assert told[0] == f"compiling {warmed.kernels} kernels, once for this machine"
    assert len(told) == 2
    monkeypatch.setattr(ready, "needed", lambda *_: pytest.fail("it looked"))
    assert warm_up([need()], CPU, target=HOPPER, tell=told.append) is None
    assert len(told) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "bf16"},
        {"batch": 4},
        {"image": (3, 16, 16)},
        {"operations": ("skip_connect", "dil_conv_3x3")},
    ],
)
def test_what_is_compiled_otherwise_is_compiled_again(
    other: dict[str, Any], compiled: list[int]
) -> None:
    warm_up([need()], CPU, target=HOPPER)
    warm_up([need(**other)], CPU, target=HOPPER)
    assert len(compiled) == 2


def test_where_the_cache_cannot_be_written_a_trial_goes_on(
    compiled: list[int], tmp_path: Path
) -> None:
    (tmp_path / "triton").write_text("a file where the folder should be")
    told: list[str] = []
    assert warm_up([need()], CPU, target=HOPPER, tell=told.append) is None
    assert "Triton's cache folder" in told[0]
    assert compiled == []


def test_a_second_process_waits_for_the_first_and_compiles_nothing(
    compiled: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "POLL_S", 0.05)
    folder = tmp_path / "triton" / "nas_sweeps"
    folder.mkdir(parents=True)
    code = (
        "import sys, filelock\n"
        "with filelock.FileLock(sys.argv[1]):\n    print('held', flush=True)\n    input()"
    )
    command = [sys.executable, "-c", code, str(folder / "compiling.lock")]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "held\n"
        marker = folder / f"{ready._digest([need()], HOPPER)}.json"
        told: list[str] = []

        def between() -> None:
            if first.poll() is None:
                marker.write_text("{}")
                first.communicate("\n")

        done = warm_up([need()], CPU, target=HOPPER, tell=told.append, between=between)
    assert done is None
    assert told == ["waiting for kernels that another process of this machine compiles"]
    assert compiled == []


def test_whoever_is_stopped_meanwhile_leaves_no_marker(compiled: list[int]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warm_up([need()], CPU, target=HOPPER, between=stop)
    assert warm_up([need()], CPU, target=HOPPER) is not None


def types_of(variants: Sequence[Variant]) -> set[torch.dtype]:
    return {a[0] for v in variants for a in v.arguments if isinstance(a, tuple)}


def test_precision_decides_types_of_maps_and_how_products_are_rounded() -> None:
    found = {kind: needed(need(kind=kind), CPU) for kind in ("fp32", "tf32", "bf16")}
    unmultiplied = {None, "ieee"}  # of kernels without a product
    products = {
        kind: {dict(v.keywords).get("PREC") for v in variants} - unmultiplied
        for kind, variants in found.items()
    }
    assert products == {"fp32": {"tf32x3"}, "tf32": {"tf32"}, "bf16": {"tf32"}}
    assert torch.bfloat16 in types_of(found["bf16"])
    assert torch.bfloat16 not in types_of(found["tf32"])


def test_training_testing_and_both_steps_of_a_search_are_there() -> None:
    keywords = [(v.name, dict(v.keywords)) for v in needed(need(), CPU)]
    assert {k["TRAIN"] for n, k in keywords if n == "fold"} == {True, False}
    assert {k["WG"] for n, k in keywords if n == "pointwise_gradient"} == {True, False}
    untested = needed(need(tested=0), CPU)
    assert {dict(v.keywords)["TRAIN"] for v in untested if v.name == "fold"} == {True}


def test_drop_path_is_another_kernel() -> None:
    dropped = needed(small()._replace(drop_path=True), CPU)
    assert {dict(v.keywords)["DROP"] for v in dropped if v.name == "mix"} == {True, False}


def test_the_network_is_left_as_it_was() -> None:
    one = small()
    needed(one, CPU)
    assert one.net.training
    assert all(p.requires_grad and p.device == CPU for p in one.net.parameters())


def test_a_kernel_that_does_not_compile_is_named(tmp_path: Path) -> None:
    one = needed(small(), CPU)[0]
    broken = one._replace(keywords=tuple(k for k in one.keywords if k[0] != "C"))
    with pytest.raises(RuntimeError, match=rf"{one.name}.* does not compile"):
        compile_all([broken], HOPPER)


def test_the_arithmetic_check_tells_its_kernels() -> None:
    names = {v.name for one in needs("bf16") for v in needed(one, CPU)}
    assert {"fold", "mix", "strided_gradient", "filter_gradient"} <= names


@pytest.mark.slow
def test_all_of_a_small_supernet_compile(tmp_path: Path) -> None:
    warmed = warm_up([need()], CPU, target=HOPPER)
    assert warmed is not None
    assert len(list((tmp_path / "triton").rglob("*.cubin"))) == warmed.kernels
