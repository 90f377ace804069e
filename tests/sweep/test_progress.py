"""What a run tells of itself: the view's numbers, and lines where there is no view."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

import nas_sweeps as ns
from nas_sweeps.schedule import Scheduler, outcome_of
from nas_sweeps.store import Result
from nas_sweeps.sweep import progress
from nas_sweeps.sweep.progress import Progress
from nas_sweeps.trial import Trial

GRID = ns.Grid.from_dict(
    {
        "data": {"dataset": "digits"},
        "search": {
            "methods": ["darts"],
            "distributions": ["balance"],
            "seeds": [0, 1, 2],
            "recipe": {"epochs": 4},
            "resources": {"gpus": 0.5},
        },
        "retrain": {"winners": "none", "genotypes": ["DARTS_V2"], "recipe": {"epochs": 2}},
    }
)
ROW = {"stage": "search", "epochs_total": 4, "loss_weights": 1.5, "accuracy_balanced": 0.5}


class Watched:
    """A run whose clock the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.file = io.StringIO()
        self.chain = Scheduler(ns.plan(GRID))
        console = Console(file=self.file, width=40)
        self.progress = Progress(self.chain, console, GRID.resources)

    def start(self) -> Trial:
        work = self.chain.next_task()
        assert work is not None
        self.progress.started(work)
        return work.trial

    def epoch(self, trial: Trial, number: int, epoch_s: float) -> None:
        self.now += epoch_s
        self.progress.epoch(trial, ROW | {"epoch": number, "epoch_s": epoch_s})

    def settle(self, trial: Trial, **facts: object) -> None:
        values = {"state": "failed", "error_class": "ValueError", "error_message": "no"} | facts
        time = "2025-01-01T00:00:00+00:00"
        result = Result(
            trial_id=trial.trial_id,
            phase=trial.phase,
            attempt=1,
            started_at=time,
            finished_at=time,
            **values,  # type: ignore[arg-type]
        )
        self.chain.settle(trial.trial_id, outcome_of(result))
        self.progress.settled(trial, result)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_what_is_left_is_measured_and_counts_down(watched: Watched) -> None:
    retrain = watched.start()  # released from the start, so it goes first
    assert watched.progress.snapshot().left_s is None
    watched.epoch(retrain, 1, 6.0)
    search = watched.start()
    assert watched.progress.snapshot().left_s is None, "no search was measured"
    watched.epoch(search, 1, 10.0)
    shot = watched.progress.snapshot()
    assert [trial.left_s for trial in shot.running] == [0.0, 30.0]
    assert shot.left_s == (0 + 30 + 2 * 40) / 2, "two at once"
    watched.now += 4
    assert watched.progress.snapshot().running[1].left_s == 26.0


def test_what_is_spent_is_the_time_that_trials_occupy_their_resources(watched: Watched) -> None:
    watched.settle(watched.start())
    search = watched.start()
    watched.now += 3600
    assert watched.progress.snapshot().spent.gpu_hours == 0.5
    watched.settle(search)
    watched.now += 3600
    shot = watched.progress.snapshot()
    assert (shot.spent.hours, shot.spent.gpu_hours) == (1.0, 0.5)
    assert shot.counts["search"] == {
        "done": 0,
        "failed": 1,
        "running": 0,
        "waiting": 2,
        "blocked": 0,
    }


def test_without_a_terminal_everything_is_a_line(watched: Watched) -> None:
    retrain = watched.start()
    with watched.progress:
        watched.epoch(retrain, 1, 6.0)
        watched.progress.again(retrain, "WorkerLost: it died")
    epoch, again = watched.file.getvalue().splitlines()
    assert epoch.startswith("retrain DARTS_V2 balance s0")
    assert "search     1/4" in epoch
    assert again.endswith("| tried again: WorkerLost: it died")


def test_a_failure_is_one_line_with_its_first_cause(watched: Watched) -> None:
    trial = watched.start()
    watched.settle(trial, error_message="no room\nand a long story")
    (line,) = watched.file.getvalue().splitlines()
    assert line.endswith(f"| FAILED ValueError: no room (trial {trial.trial_id})")
