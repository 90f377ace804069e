"""Deadlines and budgets: what starts, what stops, and what is said of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.cost.measured import measure
from nas_sweeps.schedule import Task, replay
from nas_sweeps.store import Store
from nas_sweeps.sweep.limits import SLURM_END, Limiter, Limits
from nas_sweeps.sweep.run import run
from nas_sweeps.testing import fake
from nas_sweeps.trial import Resources
from tests.sweep.test_job import PLAN, Scripted, new_job
from tests.sweep.tiny import TINY
from tests.verbs import cli

NEEDS = {"search": Resources(), "retrain": Resources()}


def grid(epochs: int = 1, seeds: int = 1) -> ns.Grid:
    recipe = TINY["search"]["recipe"] | {"epochs": epochs}  # type: ignore[index]
    search = TINY["search"] | {"seeds": list(range(seeds)), "recipe": recipe}  # type: ignore[operator]
    return ns.Grid.from_dict(TINY | {"search": search})


def inline(store: Path, a_grid: ns.Grid, **options: Any) -> Any:
    return run(a_grid, store, executor="inline", console="none", **options)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("11h30m", 41400),
        ("90m", 5400),
        ("1d2h3m4s", 93784),
        (timedelta(hours=2), 7200),
    ],
)
def test_a_deadline_is_so_long_from_now(written: Any, seconds: int) -> None:
    until = Limits.of(written).until
    assert until is not None
    assert until - time.time() == pytest.approx(seconds, abs=5)


def test_a_deadline_is_an_instant_by_the_clock_of_this_machine_or_of_its_own_zone() -> None:
    assert Limits.of("2126-11-27T08:00").until == datetime(2126, 11, 27, 8).timestamp()
    assert (
        Limits.of("2126-11-27T08:00+02:00").until
        == datetime(2126, 11, 27, 6, tzinfo=UTC).timestamp()
    )
    assert not Limits.of("none")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"deadline": "soon"}, "--deadline 'soon': write a duration such as 11h30m"),
        ({"deadline": "5"}, "--deadline '5': write"),
        ({"deadline": ""}, "--deadline '': write"),
        ({"deadline": "0s"}, "--deadline: .* is over"),
        ({"deadline": "2001-01-01T00:00"}, "--deadline: 2001-01-01T00:00.* is over"),
        ({"deadline": "9999999999d"}, "--deadline '9999999999d'"),
        ({"budget": 0.0}, "--budget 0: it must be above 0"),
        ({"budget": float("nan")}, "--budget nan"),
        ({"budget": 1.0, "rate": -2.0}, "--rate -2"),
        ({"rate": 2.5}, "--rate: .* give that too"),
    ],
)
def test_limits_that_make_no_sense_are_refused_before_anything_is_made(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        inline(tmp_path / "store", grid(), **options)
    assert not (tmp_path / "store").exists()


def test_money_is_hours_by_their_price() -> None:
    assert Limits.of("none", budget=30, rate=2.5).hours == 12


def test_in_slurm_the_end_of_the_job_is_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    end = int(time.time()) + 36000
    monkeypatch.setenv(SLURM_END, str(end))
    found = Limits.of()
    assert found.until == end - 120, "two minutes for checkpoints"
    assert "--deadline none switches it off" in found.why
    assert Limits.of("none").until is None
    short = int(time.time()) + 100
    monkeypatch.setenv(SLURM_END, str(short))
    assert Limits.of().until == pytest.approx(short - 10, abs=1), "a tenth of a short job"


@pytest.mark.parametrize("said", ["", "1600000000", "UNLIMITED", "-5", "9" * 30])
def test_what_is_no_end_of_a_slurm_job_is_said_and_left(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SLURM_END, said)
    with pytest.warns(UserWarning, match="no deadline from Slurm"):
        assert not Limits.of()


@pytest.mark.usefixtures("fake_runs")
def test_at_the_deadline_what_runs_stops_at_a_checkpoint_and_the_same_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inline(tmp_path / "before", grid()).complete  # all that takes time to import is there
    tmp_path /= "store"
    monkeypatch.setenv(fake.STEP_S, "0.05")
    summary = inline(tmp_path, grid(epochs=30), deadline=timedelta(seconds=2))
    assert "the deadline, " in summary.stopped
    assert summary.left.trials == 4
    assert not summary.left.complete, "retrains were never measured"
    assert [of["running"] for of in summary.counts.values()] == [0, 0]
    attempts = ns.load(tmp_path).attempts
    assert attempts.state.tolist() == ["stopped"]
    monkeypatch.setenv(fake.STEP_S, "0")
    assert inline(tmp_path, grid(epochs=30)).complete
    assert ns.load(tmp_path).attempts.epochs_from.max() == attempts.epochs_done[0] > 0


@pytest.mark.usefixtures("fake_runs")
def test_what_is_spent_is_the_time_of_trials_by_what_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fake.STEP_S, "0.02")
    began = time.monotonic()
    summary = inline(tmp_path, grid(epochs=2000), budget=3.0, rate=3.0 * 3600 / 0.5)
    assert time.monotonic() - began >= 0.5
    assert summary.stopped == "the budget is spent: 0.0001389 CPU-hours"
    assert ns.load(tmp_path).attempts.state.tolist() == ["stopped"]


@pytest.mark.usefixtures("fake_runs")
def test_what_trials_should_take_is_what_the_cost_model_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fake.STEP_S, "0.01")
    assert inline(tmp_path, grid()).complete
    monkeypatch.setenv(fake.STEP_S, "0")
    store = Store(tmp_path)
    limiter = Limiter(Limits(until=time.time() + 1000), NEEDS, store)
    assert "nothing starts that is not expected to end by then" in limiter.begin()[0]
    work = replay(ns.plan(grid(seeds=2)), store).peek()
    assert work is not None
    expected = measure([store], NEEDS).rates.cost(work.trial).seconds.mid  # type: ignore[union-attr]
    assert limiter.expected_s(work) == expected > 0.04
    assert limiter.allows(work, 990)
    assert not limiter.allows(work, 1010)
    again = inline(tmp_path, grid(epochs=5000), deadline=timedelta(seconds=60))
    assert "nothing that is left is expected to end" in again.stopped
    assert (again.started, again.left.trials) == (0, 4)
    assert again.left.complete, "all of it was measured"


def test_a_budget_keeps_what_running_trials_are_still_to_take() -> None:
    works = [Task(trial=trial) for trial in PLAN.searches[:3]]
    limiter = Limiter(Limits(hours=2.5), {"search": Resources(gpus=1)}, Store("nowhere"))
    limiter.expected_s = lambda work: 3600.0  # type: ignore[method-assign]
    assert limiter.unit == "GPU-hours"
    for work in works[:2]:
        assert limiter.allows(work, 3600.0)
        limiter.started(work)
    assert not limiter.allows(works[2], 3600.0)
    assert limiter.allows(works[2], 1700.0)
    assert limiter.reached() is None


class Paced(Limiter):
    """Searches take an hour, retrains a minute, and so far."""

    def begin(self) -> list[str]:
        return []

    def expected_s(self, work: Task) -> float | None:
        return 3600.0 if work.phase == "search" else 60.0

    def ended(self, work: Task, result: Any) -> None: ...


def test_what_no_longer_fits_is_held_back_and_what_is_shorter_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    now = time.time()
    limiter = Paced(Limits(until=now + 5000), NEEDS, store)

    def later(pool: Scripted) -> None:
        limiter.limits = Limits(until=now + 600)

    job = new_job(store, limiter=limiter, slots=1)
    job.run(Scripted(store, later))
    states = job.scheduler.counts()
    assert (states["search"]["done"], states["retrain"]["done"]) == (1, 1)
    assert (states["search"]["waiting"], states["search"]["running"]) == (3, 0)
    assert job.limited
    assert job.stopping == "nothing that is left is expected to end within the limits"


@pytest.mark.usefixtures("fake_runs")
def test_the_command_line_says_its_limits_and_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "grid.json"
    file.write_text(grid(epochs=2000).to_json())
    monkeypatch.setenv(fake.STEP_S, "0.02")
    monkeypatch.setenv(SLURM_END, str(int(time.time()) + 2))
    where = ["--store", tmp_path / "store", "--executor", "inline"]
    done = cli("run", file, *where, "--budget", "1")
    assert done.returncode == 143
    assert "Slurm ends this job at " in done.stdout
    assert "budget 1 CPU-hours" in done.stdout
    assert "nothing like some search trials was measured" in done.stdout
    assert "stopped: the deadline, " in done.stderr
    assert "left: 4 trials; nothing like them was measured" in done.stderr
    wrong = cli("run", file, *where, "--deadline", "tomorrow")
    assert (wrong.returncode, "--deadline 'tomorrow'" in wrong.stderr) == (2, True)
