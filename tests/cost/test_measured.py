"""What trials are taken to last, from a store in which every second is known."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

import nas_sweeps as ns
from nas_sweeps.cost import measured
from nas_sweeps.cost.forecast import forecast
from nas_sweeps.cost.measured import _gap, epochs_begun, measure
from nas_sweeps.cost.rates import ASSUMED_SPREAD, Interval
from nas_sweeps.grid import Grid
from nas_sweeps.schedule import Scheduler
from nas_sweeps.trial import Resources
from tests.cost.conftest import Shop, grid_of, searches

CPUS = {"search": Resources(), "retrain": Resources()}
GPUS = {"search": Resources(gpus=0.5), "retrain": Resources(gpus=1)}


def cost(shop: Shop, grid: Grid, *of: object, gpus: bool = False):
    return measure([shop.store], GPUS if gpus else CPUS).rates.cost(searches(grid)[of])  # type: ignore[index]


def test_a_trial_takes_its_epochs_and_what_is_beside_them(shop: Shop) -> None:
    ran = searches(grid_of())
    shop.search(ran["darts", "balance", 0], 3.0, beside=7.0)
    more = grid_of(search__seeds=[1], search__recipe={"epochs": 20, "lr": 0.1})
    found = cost(shop, more, "darts", "balance", 1)
    assert found.seconds.mid == pytest.approx(20 * 3 + 7)
    assert (found.samples, found.step) == (1, 0)


def test_another_distribution_counts_images(shop: Shop) -> None:
    ran = searches(grid_of())
    shop.search(ran["darts", "balance", 0], 5.0, image_s=0.02)  # 200 images: 4 s, and 1 s of tests
    found = cost(shop, grid_of(), "darts", "exp", 0)
    images = sum(math.floor(100 * 0.1**rank + 1e-9) for rank in (0, 1))
    assert found.seconds.mid == pytest.approx(10 * (1 + images * 0.02))
    assert found.step == 1


def test_another_method_comes_before_nothing_and_another_recipe_never(shop: Shop) -> None:
    ran = searches(grid_of())
    shop.search(ran["darts", "balance", 0], 3.0)
    assert cost(shop, grid_of(), "fairdarts", "balance", 0).step == 2
    shop.search(ran["fairdarts", "balance", 0], 9.0)
    assert cost(shop, grid_of(), "fairdarts", "balance", 0).seconds.mid == pytest.approx(90)
    wider = grid_of(search__recipe={"epochs": 10, "channels": 32})
    assert cost(shop, wider, "darts", "balance", 0) is None
    smaller = grid_of(data__image_size=8)
    assert cost(shop, smaller, "darts", "balance", 0) is None


def test_only_the_kind_of_device_that_is_asked_for_counts(shop: Shop) -> None:
    ran = searches(grid_of(search__seeds=2))
    shop.search(ran["darts", "balance", 0], 3.0)
    assert cost(shop, grid_of(), "darts", "balance", 0, gpus=True) is None
    assert measure([shop.store], GPUS).elsewhere == {"cpu": 1}
    shop.search(ran["darts", "balance", 1], 1.0, device="H9000")
    assert cost(shop, grid_of(), "darts", "balance", 0, gpus=True).seconds.mid == 10
    assert cost(shop, grid_of(), "darts", "balance", 0).seconds.mid == 30


def test_each_phase_asks_for_its_own_kind_of_device(shop: Shop) -> None:
    grid = grid_of(retrain__winners="each")
    shop.search(searches(grid)["darts", "balance", 0], 1.0, device="H9000")
    shop.retrain(ns.plan(grid).retrains[0], {"train": (150, 1.0)})
    rates = measure([shop.store], CPUS | {"search": GPUS["search"]}).rates
    assert rates.cost(searches(grid)["darts", "balance", 0]) is not None
    assert rates.cost(ns.plan(grid).retrains[0]) is not None


def test_stages_of_a_retrain_are_measured_apart(shop: Shop) -> None:
    barlow = {"winners": "each", "pretrain": ["barlow"]}
    ran = grid_of(**{f"retrain__{k}": v for k, v in barlow.items()}, retrain__barlow={"epochs": 2})
    slot = ns.plan(ran).retrains[0]
    shop.retrain(slot, {"pretrain": (2, 10.0), "finetune": (150, 1.0)})
    rates = measure([shop.store], CPUS).rates
    assert rates.cost(slot).seconds.mid == pytest.approx(2 * 10 + 150)  # type: ignore[union-attr]
    longer = {f"retrain__{k}": v for k, v in barlow.items()} | {"retrain__barlow": {"epochs": 7}}
    planned = ns.plan(grid_of(**longer)).retrains[0]
    assert rates.cost(planned).seconds.mid == pytest.approx(7 * 10 + 150)  # type: ignore[union-attr]


def test_the_interval_is_that_of_the_next_trial_after_those_measured(shop: Shop) -> None:
    ran = searches(grid_of(search__seeds=5))
    seconds = (2.0, 3.0, 4.0, 3.0)
    for seed, each in enumerate(seconds):
        shop.search(ran["darts", "balance", seed], each)
    found = cost(shop, grid_of(search__seeds=5), "darts", "balance", 4)
    logs = [math.log(s) for s in seconds]
    sd = math.sqrt(sum((x - sum(logs) / 4) ** 2 for x in logs) / 3)
    width = math.exp(1.638 * sd * math.sqrt(1 + 1 / 4))  # t of 3 degrees of freedom, 90 %
    assert found.seconds.mid == pytest.approx(30)
    assert found.seconds.low == pytest.approx(30 / width, rel=1e-3)
    assert found.seconds.high == pytest.approx(30 * width, rel=1e-3)


def test_from_one_trial_alone_the_spread_is_assumed_and_that_is_told(shop: Shop) -> None:
    shop.search(searches(grid_of())["darts", "balance", 0], 3.0)
    rates = measure([shop.store], CPUS).rates
    assert not rates.spread_known
    found = rates.cost(searches(grid_of())["darts", "balance", 0])
    assert found is not None
    width = math.exp(1.28155 * ASSUMED_SPREAD * math.sqrt(2))
    assert found.seconds.high == pytest.approx(30 * width, rel=1e-4)


def test_a_forecast_adds_up_what_is_left(shop: Shop) -> None:
    ran = searches(grid_of())
    for seconds, (_, search) in zip((2.0, 1.0, 4.0, 3.0), ran.items(), strict=True):
        shop.search(search, seconds)
    planned = ns.plan(grid_of(search__seeds=2, retrain__winners="each"))
    found = forecast(Scheduler(planned), measure([shop.store], CPUS).rates)
    by_line = {(line.phase, line.method): line for line in found.lines}
    assert by_line["search", "darts"].work.mid == pytest.approx(2 * (20 + 10))
    assert by_line["search", "fairdarts"].work.mid == pytest.approx(2 * (40 + 30))
    assert by_line["retrain", "darts"].unknown == 4
    assert not found.complete
    assert (found.trials, found.unreleased) == (16, 8)
    half = {"search": Resources(gpus=0.5), "retrain": Resources(gpus=1)}
    assert found.hours(half, "gpus").mid == pytest.approx(200 / 3600 / 2)


def test_epochs_that_are_done_are_not_estimated_again(shop: Shop) -> None:
    ran = searches(grid_of(search__seeds=2))
    shop.search(ran["darts", "balance", 0], 3.0)
    begun = ran["darts", "balance", 1]
    shop.store.register(begun)
    shop.store.begin(begun.trial_id, device="cpu", epochs_done=4)
    rates, done = measure([shop.store], CPUS).rates, epochs_begun(shop.store)
    assert done[begun.trial_id] == 4
    assert rates.cost(begun, done[begun.trial_id]).seconds.mid == pytest.approx(18)  # type: ignore[union-attr]


def test_what_lies_between_two_trials_on_a_slot_is_part_of_their_cost() -> None:
    def ran(start: float, end: float) -> dict[str, datetime]:
        day = datetime(2025, 1, 2, tzinfo=UTC)
        times = {"started_at": start, "heartbeat": end}
        return {name: day + timedelta(seconds=s) for name, s in times.items()}

    two_slots = [ran(0, 10), ran(0, 20), ran(13, 40), ran(22, 50), ran(44, 60)]
    assert _gap(two_slots) == 3, "of 3, 2 and 4"
    assert _gap([*two_slots, ran(90_000, 90_010)]) == 3, "another day is another run"
    assert _gap([ran(0, 10)]) == 0


def test_a_trial_of_another_device_is_no_pause_between_two(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grid_of(retrain__winners="each")
    shop.search(searches(grid)["darts", "balance", 0], 1.0, device="H9000")
    shop.retrain(ns.plan(grid).retrains[0], {"train": (150, 1.0)})
    monkeypatch.setattr(measured, "_gap", lambda attempts: float(len(attempts)))
    assert measure([shop.store], CPUS).rates.overhead_s["retrain"] == 2, "both attempts count"


def test_a_trial_that_trains_nothing_is_measured_as_a_whole(shop: Shop) -> None:
    (untrained,) = ns.plan(grid_of(search__methods=["random"], search__distributions=["balance"]))
    shop.search(untrained, 1.0, beside=7.0)
    found = measure([shop.store], CPUS)
    assert found.trials == 1
    assert found.rates.cost(untrained).seconds.mid == 7.0  # type: ignore[union-attr]


def test_bands_add_as_if_all_erred_the_same_way() -> None:
    assert Interval(10, 8, 13) + Interval(1, 0.5, 3) == Interval(11, 8.5, 16)
    assert Interval(10, 8, 13) * 2 == Interval(20, 16, 26)
