"""What a run tells of itself: what its store says, and what its driver alone knows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

import nas_sweeps as ns
from nas_sweeps.schedule import Task
from nas_sweeps.sweep.progress import Progress
from nas_sweeps.sweep.run import run
from nas_sweeps.watch.follow import Follower
from tests.sweep.tiny import TINY
from tests.watch.test_follow import FIRST, Run

WORK = Task(trial=FIRST)


@pytest.fixture
def working(tmp_path: Path) -> Iterator[Run]:
    with Run(tmp_path) as running:
        yield running


def test_every_epoch_of_a_run_is_a_line_and_the_last_ones_too(
    tmp_path: Path, fake_runs: None
) -> None:
    """Trials of a millisecond: all of them end between two looks."""
    file = io.StringIO()
    grid = ns.Grid.from_dict(TINY)
    done = run(grid, tmp_path, executor="inline", console=Console(file=file, width=40))
    assert done.complete
    lines = file.getvalue().splitlines()
    frames = ns.load(tmp_path)
    assert len([line for line in lines if "| loss " in line]) == len(frames.epochs)
    assert len([line for line in lines if "| done, " in line]) == len(frames.trials)
    for name in {line.split(" | ")[0] for line in lines}:
        told = [line for line in lines if line.startswith(name)]
        epochs = [int(line.split(" | ")[1].split("/")[0].split()[1]) for line in told[:-1]]
        assert epochs == list(range(1, len(epochs) + 1))
        assert "| done, " in told[-1]


def test_what_the_driver_alone_knows_follows_what_the_store_says(working: Run) -> None:
    file = io.StringIO()
    with Progress(Follower(working.store), Console(file=file, width=40)) as progress:
        assert progress.showing.shown.notes == ("the executor is starting",)
        progress.started(WORK)
        working.begin(FIRST)
        working.epochs(FIRST, 2)
        progress.again(FIRST, "WorkerLost: it died")
    first, second, again = file.getvalue().splitlines()
    assert first.startswith("search darts exp mu=0.4 s0")
    assert "search     1/4" in first
    assert "search     2/4" in second
    assert again.endswith("| tried again: WorkerLost: it died")


def test_an_epoch_is_told_while_the_trial_runs(working: Run) -> None:
    file = io.StringIO()
    with Progress(Follower(working.store), Console(file=file, width=40)) as progress:
        progress.started(WORK)
        working.begin(FIRST)
        working.epochs(FIRST, 1)
        for _ in range(100):
            if "1/4" in file.getvalue():
                break
            progress._over.wait(0.1)
        assert "1/4" in file.getvalue()
        assert progress.notes == ()


def test_a_store_that_does_not_answer_costs_no_line(
    working: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, original = io.StringIO(), Follower._files

    def fails_once(self: Follower, trial_id: str):
        monkeypatch.setattr(Follower, "_files", original)
        raise OSError("stale file handle")

    progress = Progress(Follower(working.store), Console(file=file, width=40))
    with progress.showing:
        progress.started(WORK)
        working.begin(FIRST)
        working.epochs(FIRST, 1)
        working.end(FIRST)
        progress.settled(FIRST, working.store.result(FIRST.trial_id))  # type: ignore[arg-type]
        monkeypatch.setattr(Follower, "_files", fails_once)
        progress._look()
        progress._look()
    said = file.getvalue().splitlines()
    assert ["stale file handle" in line for line in said] == [True, False, False]
    assert "| done, " in said[-1]
    assert progress._handed_out == {}, "nothing more is expected of it"
