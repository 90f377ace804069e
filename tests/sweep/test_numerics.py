"""What decides rounding is recorded with every attempt, kept, and told where it changes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

import nas_sweeps as ns
from nas_sweeps.numerics import COLUMNS, Numerics, changes
from nas_sweeps.store import Store
from nas_sweeps.sweep import machine
from nas_sweeps.sweep.run import run
from nas_sweeps.testing import FakeSearch
from tests.sweep.tiny import TINY

RECIPE = TINY["search"]["recipe"] | {"epochs": 2}


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def grid(cpus: int, **retrain: object) -> ns.Grid:
    search = TINY["search"] | {"methods": ["darts"], "recipe": RECIPE}
    search["resources"] = {"cpus": cpus}
    return ns.Grid.from_dict(TINY | {"search": search, "retrain": TINY["retrain"] | retrain})


def interrupted(store: Path, monkeypatch: pytest.MonkeyPatch, cpus: int) -> None:
    """Run the search's first epoch with so many threads."""
    original = FakeSearch.run_epoch

    def one_epoch(self: FakeSearch, *between: object) -> object:
        if self.epochs_done == 1:
            raise KeyboardInterrupt
        return original(self, *between)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(FakeSearch, "run_epoch", one_epoch)
        with pytest.raises(KeyboardInterrupt):
            run(grid(cpus, winners="none"), store, executor="inline", console="none")


def continued(store: Path, cpus: int) -> str:
    """Run the rest; what the terminal shows."""
    page = io.StringIO()
    console = Console(file=page, width=200, no_color=True)
    assert run(grid(cpus, winners="none"), store, executor="inline", console=console).complete
    return page.getvalue()


def test_every_attempt_and_result_says_under_which_numerics(tmp_path: Path) -> None:
    assert run(grid(1), tmp_path, executor="inline", console="none").complete
    frames = ns.load(tmp_path)
    trials, attempts = (f.set_index("trial_id") for f in (frames.trials, frames.attempts))
    for table in (trials, attempts):
        assert table.device_kind.eq("cpu").all()
        assert table.device_model.str.len().gt(3).all()
        assert table.threads.eq(1).all()
        assert table.precision.eq("fp32").all()
        assert table.torch_version.eq(torch.__version__).all()
        assert table.triton_version.isna().all()
        forms = dict(zip(trials.phase, table.form[trials.index], strict=True))
        assert forms == {"search": "arranged", "retrain": "plain"}
    assert trials.numerics_changed.eq("").all()
    results = Store(tmp_path).results().values()
    assert all(result.numerics is not None and result.numerics.known for result in results)
    assert set(COLUMNS) <= set(trials) & set(attempts)


@pytest.mark.usefixtures("fake_runs")
def test_a_continued_trial_keeps_the_threads_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cpu_count", lambda: 2)
    interrupted(tmp_path, monkeypatch, cpus=2)
    assert "round" not in continued(tmp_path, cpus=1)
    frames = ns.load(tmp_path)
    assert frames.attempts.threads.tolist() == [2, 2]
    assert frames.trials.numerics_changed.tolist() == [""]
    assert frames.attempts.note.isna().all()


@pytest.mark.usefixtures("fake_runs")
def test_a_trial_that_cannot_keep_them_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cpu_count", lambda: 2)
    interrupted(tmp_path, monkeypatch, cpus=2)
    monkeypatch.setattr(machine, "cpu_count", lambda: 1)
    said = continued(tmp_path, cpus=1)
    frames = ns.load(tmp_path)
    assert frames.attempts.threads.tolist() == [2, 1]
    assert frames.trials.numerics_changed.tolist() == ["threads: 2, then 1"]
    for text in (said, frames.attempts.note[1]):
        assert "began with 2 threads and goes on with 1" in text
        assert "does not round as when it began: threads: 2, then 1" in text
    log = Store(tmp_path).layout.trial(frames.trials.trial_id[0]).newest
    assert log is not None
    assert "began with 2 threads" in log.log.read().decode()


def test_changes_are_those_of_the_whole_history() -> None:
    first = Numerics(
        device_kind="cpu",
        device_model="a",
        threads=1,
        precision="fp32",
        form="plain",
        torch="2.15.0",
    )
    second = Numerics(
        device_kind="cpu",
        device_model="a",
        threads=2,
        precision="fp32",
        form="triton",
        torch="2.15.0",
        triton="3.5",
    )
    assert changes([first]) == changes([]) == ""
    said = "threads: 1, then 2; form: plain, then triton; triton: none, then 3.5"
    assert changes([first, second]) == changes([first, second, first]) == said
