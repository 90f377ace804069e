"""What a person reads: of a plan that was measured, of one that was not, and after a run."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

import nas_sweeps as ns
from nas_sweeps.cli.estimate_view import EstimateOptions, estimate_view, kept_text, latest_text
from nas_sweeps.cli.views import plan_view, status_view
from nas_sweeps.cost.rates import Interval
from nas_sweeps.cost.record import EstimateRecord
from nas_sweeps.cost.simulate import Room
from nas_sweeps.grid import Grid
from nas_sweeps.schedule import replay
from nas_sweeps.store import Store
from nas_sweeps.store.layout import Writer
from nas_sweeps.sweep.executor import Ended, Executor, Pool, Setting
from nas_sweeps.sweep.run import run
from nas_sweeps.trial import Resources, SearchTrial
from tests.cost.conftest import Shop, grid_of, searches


def told(grid: Grid, store: Store, width: int = 100, **question: object) -> str:
    scheduler = replay(ns.plan(grid), store)
    asked = EstimateOptions(**({"slots": 1} | question))  # type: ignore[arg-type]
    return printed(estimate_view(grid, scheduler, store, asked), width)


def printed(parts: object, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    for part in parts:  # type: ignore[attr-defined]
        console.print(part, soft_wrap=isinstance(part, str))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.fixture
def measured(shop: Shop) -> Shop:
    """36 s a search, and 72 s."""
    for seed in (0, 1):
        ran = searches(grid_of(search__seeds=2))
        for (method, _, of), search in ran.items():
            if of == seed:
                shop.search(search, 3.6 if method == "darts" else 7.2)
    return shop


def test_nothing_measured_names_the_two_ways(tmp_path: Path) -> None:
    text = told(grid_of(), Store(tmp_path / "none"))
    assert "no estimate" in text
    assert "--from STORE" in text
    assert "--calibrate" in text
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_told_is_named_and_nothing_is_added_up(measured: Shop) -> None:
    text = told(grid_of(search__seeds=[2, 3, 4], retrain__winners="each"), measured.store)
    assert "no estimate in all" in text
    assert "retrain darts (6)" in text
    assert "wall time" not in text


def test_an_estimate_says_work_clock_bounds_and_from_how_many_trials(measured: Shop) -> None:
    grid = grid_of(search__seeds=4)  # 4 + 4 are left
    text = told(grid, measured.store, slots=2, cpus=8)
    assert "measured: 8 trials" in text
    assert "7m12s (7m12s–7m12s) of 8 trials; 0.12 CPU-hours" in text
    assert "on 8 CPUs, 2 trials at once" in text
    assert "work / slots 3m36s, longest chain 72s" in text
    assert "2 trials" in text


def test_a_price_is_that_of_the_work_and_of_the_whole_cluster(measured: Shop) -> None:
    grid = grid_of(search__seeds=[2, 3])
    text = told(grid, measured.store, slots=None, cpus=16, rate=100)
    assert "price     12.00 (12.00–12.00) at 100 a CPU-hour" in text  # 4 x 36 s + 4 x 72 s
    assert "32.00 if all 16 CPUs" in text  # 72 s of 16


def test_another_cluster_and_another_store_may_be_asked_about(shop: Shop, tmp_path: Path) -> None:
    gpus = {"search__resources": {"gpus": 0.5}}
    ran = searches(grid_of(**gpus))
    for search in ran.values():
        shop.search(search, 360.0, device="H9000")
    here = Store(tmp_path / "here")
    text = told(grid_of(**gpus), here, source=str(shop.store), gpus=1, slots=None)
    assert "on H9000 of n1" in text
    assert "on 1 GPU, 2 trials at once" in text
    assert "2 GPU-hours" in text  # 4 searches of an hour on half a device
    assert not Path(here.root).exists()


def test_gpus_that_no_trial_takes_bound_nothing_and_that_is_said(measured: Shop) -> None:
    text = told(grid_of(search__seeds=4), measured.store, gpus=64, slots=None)
    assert "on 64 GPUs, 8 trials at once" in text
    assert "no trial takes a GPU: --cpus N" in text


def test_a_cluster_without_room_is_said_and_the_work_still_told(shop: Shop) -> None:
    gpus = {"search__resources": {"gpus": 2}, "search__seeds": 2}
    shop.search(searches(grid_of(**gpus))["darts", "balance", 0], 360.0, device="H9000")
    text = told(grid_of(**gpus), shop.store, gpus=1)
    assert "GPU-hours" in text
    assert "no node has room for a search trial" in text


def test_a_settled_plan_has_no_estimate(measured: Shop) -> None:
    assert told(grid_of(search__seeds=2), measured.store).strip() == "nothing is left to run"
    with pytest.raises(ValueError, match="nowhere"):
        list(plan_view(grid_of(), measured.store, False, EstimateOptions(source="nowhere")))


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_estimate_fits_the_terminal(measured: Shop, width: int) -> None:
    grid = grid_of(search__seeds=3)
    parts = plan_view(grid, measured.store, False, EstimateOptions(slots=1))
    boxes = [row for row in printed(parts, width).splitlines() if row[:1] in "┏┃┡│├└"]
    assert boxes
    assert max(map(len, boxes)) <= width


def kept(**facts: object) -> EstimateRecord:
    begun = EstimateRecord(grid="d", began="2025-01-02", trials=12, wall_s=Interval(720, 600, 900))
    return replace(begun, **facts)  # type: ignore[arg-type]


def test_a_run_that_ended_says_how_wrong_the_estimate_was() -> None:
    assert kept_text(kept(), runs=True) == "estimated 12m (10m–15m) for 12 trials"
    assert "did not come to its end" in kept_text(kept(), runs=False)
    longer = kept(took_s=792.0, done=12)
    assert kept_text(longer, runs=False).endswith("took 13m: 10% more than estimated")
    shorter = kept(took_s=360.0, done=12)
    assert kept_text(shorter, runs=False).endswith("took 6m: 50% less than estimated")
    part = kept(took_s=300.0, done=5, done_s=200.0, done_took_s=250.0)
    assert kept_text(part, runs=False).endswith(
        "did 5 of them, in 4m10s of work where 3m20s was estimated: 25% more than estimated"
    )
    assert "none of them" in kept_text(kept(took_s=1.0), runs=False)


def test_the_latest_run_of_a_grid_speaks_and_damage_does_not(shop: Shop) -> None:
    layout = shop.store.layout
    kept(began="2025-01-02", took_s=720.0, done=12).publish(layout, Writer(2, "aaaaaa"))
    kept(began="2025-01-03").publish(layout, Writer(1, "bbbbbb"))
    kept(began="2025-01-04", grid="e").publish(layout, Writer(3, "cccccc"))
    layout.estimate(Writer(4, "dddddd")).publish(b"{")
    with pytest.warns(UserWarning, match="estimates"):
        said = [latest_text(layout, grid) for grid in ("d", "f")]
    assert said == [kept_text(kept(), runs=False), None]


@dataclass(frozen=True, kw_only=True)
class Instant(Executor):
    """Trials end at once; after some of them, somebody stops the run."""

    stop_after: int = 99

    def pool(self, setting: Setting) -> Pool:
        return InstantPool(setting.store, self.stop_after)


class InstantPool(Pool):
    def __init__(self, store: Store, stop_after: int) -> None:
        self.store, self.left, self.started = store, stop_after, list[str]()

    def room(self) -> Room:
        return Room(((8.0, 0.0),), slots=2)

    def start(self, trial_id: str, resources: Resources) -> None:
        self.started.append(trial_id)

    def ended(self, timeout_s: float) -> list[Ended]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        trial = self.store.spec(self.started.pop(0))
        assert isinstance(trial, SearchTrial)
        Shop(self.store).search(trial, 3.0)
        return [Ended(trial.trial_id)]


def test_a_run_keeps_its_estimate_and_status_says_how_wrong_it_was(
    measured: Shop, tmp_path: Path
) -> None:
    grid, there = grid_of(search__seeds=[5]), tmp_path / "there"
    assert run(grid, there, executor=Instant(), console="none", source=measured.store.root).complete
    (writer,) = Store(there).layout.estimates()
    found = EstimateRecord.read(Store(there).layout, writer)
    assert found is not None
    assert (found.trials, found.done) == (4, 4)
    assert found.wall_s.mid == pytest.approx((2 * 36 + 2 * 72) / 2)
    assert found.done_s == pytest.approx(2 * 36 + 2 * 72)
    assert found.took_s is not None
    assert 0 < found.done_took_s <= 2 * found.took_s  # two at once
    assert "for 4 trials, took" in printed(status_view(str(there)))
    assert run(grid, there, executor=Instant(), console="none").started == 0
    assert Store(there).layout.estimates() == [writer], "nothing to do is no estimate"


def test_a_run_that_was_stopped_counts_what_it_did(
    measured: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=count(step=9.0).__next__)  # seconds pass as it is looked at
    monkeypatch.setattr("nas_sweeps.sweep.estimate.time", clock)
    grid, there = grid_of(search__seeds=[5]), tmp_path / "there"
    source = measured.store.root
    with pytest.raises(KeyboardInterrupt):
        run(grid, there, executor=Instant(stop_after=1), console="none", source=source)
    assert "that run did 1 of them, in 18s of work where 36s was estimated: 50% less" in printed(
        status_view(str(there))
    )
    assert run(grid, there, executor=Instant(), console="none", source=source).complete
    assert "for 3 trials, took" in printed(status_view(str(there)))


def test_a_first_run_has_nothing_to_estimate_from(tmp_path: Path) -> None:
    assert run(grid_of(), tmp_path / "s", executor=Instant(), console="none").complete
    assert not Store(tmp_path / "s").layout.estimates()
    assert "estimated" not in printed(status_view(str(tmp_path / "s")))


def test_a_store_to_measure_from_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no store"):
        run(grid_of(), tmp_path / "s", executor="inline", source=tmp_path / "none")
    with pytest.raises(ValueError, match="is no store"):
        told(grid_of(), Store(tmp_path / "s"), source=str(tmp_path / "none"))
