"""A device that computes something else trains nothing: its trials fail, and say why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import nas_sweeps as ns
from nas_sweeps.space import operations, verified
from nas_sweeps.store import Store
from nas_sweeps.sweep.failures import ALIKE
from nas_sweeps.sweep.run import run
from tests.sweep.tiny import TINY


@pytest.fixture(autouse=True)
def _new_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAS_SWEEPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verified, "_passed", set())


@pytest.fixture
def _wrong_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    def average(x: Tensor, stride: int) -> Tensor:
        out = F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        return out if x.dtype == torch.float64 else out.roll(1, -1)

    monkeypatch.setattr(operations, "average", average)


@pytest.mark.usefixtures("_wrong_pools")
def test_a_wrong_operation_fails_trials_by_its_name_and_stops_the_run(tmp_path: Path) -> None:
    grid = ns.Grid.from_dict(TINY | {"search": TINY["search"] | {"seeds": [0, 1]}})
    summary = run(grid, tmp_path / "store", executor="inline", console="none")
    assert not summary.complete
    assert summary.started == ALIKE, "not tried again, and no fourth one"
    assert "WrongArithmetic: avg_pool_#x#, output, cpu, channels_last: " in summary.stopped
    trials = ns.load(tmp_path / "store").trials
    failed = trials[trials.state == "failed"]
    assert failed.error_message.str.startswith("avg_pool_3x3, output, cpu, channels_last: ").all()
    assert set(failed.error_class) == {"WrongArithmetic"}
    results = [Store(tmp_path / "store").result(trial) for trial in failed.trial_id]
    assert not any(result.transient for result in results)


@pytest.mark.system
def test_a_sound_device_is_checked_once_for_all_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks, right = [], verified.check

    def check(*subject: object) -> object:
        checks.append(subject[1:3])
        return right(*subject)

    monkeypatch.setattr(verified, "check", check)
    for name in ("one", "two"):
        grid = ns.Grid.from_dict(TINY)
        assert run(grid, tmp_path / name, executor="inline", console="none").complete
        verified._passed.clear()  # as in a new process
    assert checks == [("fp32", "arranged"), ("fp32", "plain")]  # of searches and of retraining
    assert len(list((tmp_path / "cache" / "arithmetic").iterdir())) == 2
