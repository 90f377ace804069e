"""The run that tests of orchestration use is a ``Run`` like the real ones, and quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.sweep.run import run
from nas_sweeps.testing import FakeRetrain, FakeRun, FakeSearch
from nas_sweeps.testing.tiny import finish, through_a_file
from nas_sweeps.train import runs
from nas_sweeps.train.common import Run, TrainingDiverged
from tests.sweep.tiny import TINY
from tests.train.tiny_runs import SEARCHES, make, retrain_trial, search_trial

PHASES = ["pc_darts", "plain", "barlow then all", "search half"]


def fake(name: str, **recipe: Any) -> FakeRun[Any]:
    """A fake run of the trial that the real tiny run of this name has."""
    if name in SEARCHES:
        return FakeSearch(search_trial(name, **recipe))
    return FakeRetrain(retrain_trial(name, **recipe))


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", PHASES)
def test_its_rows_and_its_outcome_have_what_those_of_the_real_run_have(name: str) -> None:
    real, faked = make(name), fake(name)
    assert faked.epochs_total == real.epochs_total
    columns: list[list[set[str]]] = [[], []]
    for each, found in zip((real, faked), columns, strict=True):
        while each.epochs_done < each.epochs_total:
            row = each.run_epoch()
            found.append(set(row) | {f"stage={row['stage']}"})
    assert columns[0] == columns[1]
    outcomes = real.outcome(), faked.outcome()
    assert len({frozenset(o.metrics) for o in outcomes}) == 1
    assert len({frozenset(o.facts) for o in outcomes}) == 1
    assert len({len(o.classes) for o in outcomes}) == 1
    assert set(outcomes[0].classes[0]) == set(outcomes[1].classes[0])


@pytest.mark.parametrize("name", PHASES)
def test_it_goes_on_from_every_step_with_the_same_bits(name: str) -> None:
    whole = fake(name)
    rows = finish(whole)
    stopped: Run = fake(name)
    seen, stops = [], 0
    while stopped.epochs_done < stopped.epochs_total:
        calls = iter([None])

        def at_the_second_call(calls: Any = calls) -> None:
            if next(calls, Stop) is Stop:
                raise Stop

        try:
            row = stopped.run_epoch(at_the_second_call)
            seen.append({k: v for k, v in row.items() if k in rows[0] or k in rows[-1]})
        except Stop:
            stops += 1
        again = fake(name)
        again.load_state_dict(through_a_file(stopped.state_dict()))
        stopped = again
    times = ("epoch_s", "images_per_s", "peak_mem_gib")
    assert [{k: v for k, v in row.items() if k not in times} for row in seen] == rows
    assert stops >= whole.epochs_total
    assert stopped.outcome() == whole.outcome()


def test_a_step_that_is_lost_changes_every_later_number() -> None:
    whole, lacking = fake("plain"), fake("plain")
    lacking.steps = 1
    for row, other in zip(finish(whole), finish(lacking), strict=True):
        assert row["loss_weights"] != other["loss_weights"]


def test_it_diverges_and_fails_when_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingDiverged, match="lower the recipe's lr"):
        fake("darts", lr=1e30).run_epoch()
    monkeypatch.setenv("NAS_SWEEPS_FAKE_FAILS", "darts,retrain")
    for name in ("darts", "plain"):
        with pytest.raises(RuntimeError, match="NAS_SWEEPS_FAKE_FAILS names"):
            fake(name).run_epoch()
    assert fake("fairdarts").run_epoch()["epoch"] == 1


def test_a_registry_that_cannot_be_used_fails_a_trial_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(runs.SWITCH, "nas_sweeps.testing.fake:NO_SUCH")
    only = "phase == 'search' and method == 'darts'"
    run(ns.Grid.from_dict(TINY), tmp_path, executor="inline", console="none", only=only)
    (said,) = ns.load(tmp_path).trials.error_message
    assert "NAS_SWEEPS_RUNS: 'nas_sweeps.testing.fake:NO_SUCH' has no run for a search" in said
    assert "unset it" in said


@pytest.mark.usefixtures("fake_runs")
def test_a_trials_log_says_that_nothing_was_trained(tmp_path: Path) -> None:
    assert run(ns.Grid.from_dict(TINY), tmp_path, executor="inline", console="none").complete
    logs = [path.read_text() for path in tmp_path.glob("trials/*/*.log.txt")]
    assert len(logs) == 4
    assert all("nothing is trained" in log for log in logs)
