"""What is timed when nothing was measured, and how a short epoch becomes a whole one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nas_sweeps as ns
from nas_sweeps.cost import calibrate as room
from nas_sweeps.cost.calibrate import REPEATS, calibrate
from nas_sweeps.cost.forecast import forecast
from nas_sweeps.cost.rates import Rates, Sample
from nas_sweeps.data.splits import DataSplits, prepare
from nas_sweeps.grid import Grid
from nas_sweeps.schedule import Scheduler
from nas_sweeps.train.search import SearchRun
from nas_sweeps.trial import Distribution, SearchTrial
from tests.sweep.tiny import TINY

STEP_S, TEST_S, PRETRAIN_S = 0.01, 0.003, 0.02  # by the image


def tiny(**search: Any) -> Grid:
    data = TINY["data"] | {"n_max": 100, "test_n_max": 12}
    section = TINY["search"] | {"methods": ["darts"]} | search
    barlow = {"epochs": 2, "dim": 8, "hidden": 8}
    retrain = TINY["retrain"] | {"pretrain": ["none", "barlow"], "barlow": barlow}
    return Grid.from_dict(TINY | {"data": data, "search": section, "retrain": retrain})


class Noted(Rates):
    """Rates that know nothing at first, and what was added to them."""

    def __init__(self) -> None:
        super().__init__()
        self.samples: list[Sample] = []

    def add(self, sample: Sample, owner: object = None) -> None:
        self.samples.append(sample)
        super().add(sample, owner)


def test_a_warm_up_is_timed_and_then_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short run that ended in its warm-up would say nothing of an architecture step."""
    ran: list[str] = []
    epoch = SearchRun.run_epoch

    def noted(run: SearchRun) -> dict[str, Any]:
        row = epoch(run)
        ran.append(row["stage"])
        return row

    monkeypatch.setattr(SearchRun, "run_epoch", noted)
    recipe = {"channels": 2, "layers": 3, "epochs": 40, "batch_size": 8}
    knobs = {"partial_channels": 2, "warmup_epochs": 30}
    grid = tiny(methods=[{"pc_darts": knobs}], recipe=recipe)
    (search,) = ns.plan(grid).searches
    known = Noted()
    list(calibrate(grid, Scheduler(ns.plan(grid), chosen=lambda entry: entry == search), known))
    assert ran == ["warmup"] * (1 + REPEATS) + ["search"] * (1 + REPEATS)
    assert [s.kind.stage for s in known.samples] == ["warmup"] * REPEATS + ["search"] * REPEATS
    cost = known.cost(search)
    assert cost is not None
    means = [
        sum(s.epoch_s for s in part) / REPEATS
        for part in (known.samples[:REPEATS], known.samples[REPEATS:])
    ]
    assert cost.seconds.mid == pytest.approx(
        30 * means[0] + 10 * means[1] + known.overhead_s["search"]
    )


class Clockwork:
    """A run whose every image takes the same time."""

    def __init__(self, stages: list[str], images: int, tested: int) -> None:
        self.stages, self.images, self.tested = stages, images, tested
        self.epochs_done, self.epochs_total = 0, len(stages)

    def run_epoch(self) -> dict[str, Any]:
        stage = self.stages[self.epochs_done]
        self.epochs_done += 1
        each = PRETRAIN_S if stage == "pretrain" else STEP_S
        test_s = 0.0 if stage == "pretrain" else TEST_S * self.tested
        slow = 100 if self.epochs_done == 1 else 1  # to warm up
        epoch_s = slow * (each * self.images + test_s)
        return {"stage": stage, "epoch_s": epoch_s, "images_per_s": 1 / (slow * each)}

    def outcome(self) -> None:
        return None


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(entry: Any, part: DataSplits, device: torch.device) -> Clockwork:
        test, v = len(part.test_labels), len(part.v_index)
        if isinstance(entry, SearchTrial):
            return Clockwork(["search"] * (1 + REPEATS), len(part.t_index) + v, test + v)
        pretrained = ["pretrain"] * (1 + REPEATS) if entry.recipe.pretrain else []
        then = "finetune" if pretrained else "train"
        stages = [*pretrained, *[then] * (1 + REPEATS)]
        return Clockwork(stages, len(part.full_index), test)

    monkeypatch.setattr(room, "_short_run", make)


def test_what_nobody_measured_is_timed_once_for_all_distributions_and_seeds(
    clockwork: None,
) -> None:
    grid = tiny(seeds=2, distributions=["balance", {"exp": 0.5}])
    scheduler, rates = Scheduler(ns.plan(grid)), Rates()
    assert list(calibrate(grid, scheduler, rates)) == [
        "timing search darts on the CPU",
        "timing retrain darts on the CPU",
        "timing retrain darts + barlow on the CPU",
    ]
    found = forecast(scheduler, rates)
    assert found.complete
    assert found.trials == 2 * 2 * 3
    costs = [cost for line in found.lines for cost in line.costs]
    assert all(cost.timed and cost.samples == REPEATS for cost in costs)
    balance, exp = (s for s in ns.plan(grid).searches if s.seed == 0)
    assert rates.cost(balance).seconds.mid > rates.cost(exp).seconds.mid > 0
    assert not list(calibrate(grid, scheduler, rates)), "it is known now"


def test_real_steps_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "REPEATS", 1)
    search = TINY["search"] | {"methods": ["darts"]}
    retrain = TINY["retrain"] | {"pretrain": ["barlow"], "barlow": {"dim": 8, "hidden": 8}}
    grid = Grid.from_dict(TINY | {"search": search, "retrain": retrain})
    scheduler, timed = Scheduler(ns.plan(grid)), Noted()
    list(calibrate(grid, scheduler, timed))
    assert [s.kind.stage for s in timed.samples] == ["search", "pretrain", "finetune"]
    assert all(sample.epoch_s > 0 and sample.image_s > 0 for sample in timed.samples)
    assert all(overhead > 0 for overhead in timed.overhead_s.values())


def test_no_cpu_is_timed_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    grid = tiny(resources={"gpus": 1})
    with pytest.raises(ValueError, match="a search trial takes a GPU, and torch sees none"):
        list(calibrate(grid, Scheduler(ns.plan(grid)), Rates()))


def test_a_short_epoch_becomes_a_whole_one(clockwork: None) -> None:
    grid = tiny(recipe=TINY["search"]["recipe"] | {"epochs": 5, "test_every": 2})  # type: ignore[index]
    scheduler, rates = Scheduler(ns.plan(grid)), Rates()
    list(calibrate(grid, scheduler, rates))
    rates.overhead_s.clear()
    data, where = ns.plan(grid).searches[0].data, Distribution(kind="exp", mu=0.4)
    whole = prepare(data, where, grid.places, "cpu")
    full, half = len(whole.full_index), len(whole.v_index)
    assert full > 8 * 2 * 4, "or the short epoch was no part of it"
    tests = len(whole.test_labels)

    search, plain, barlow = (rates.cost(entry) for entry in ns.plan(grid))
    steps = -(-len(whole.t_index) // 8)
    training = 5 * STEP_S * (len(whole.t_index) + steps * 8)
    assert search.seconds.mid == pytest.approx(training + 3 * TEST_S * (tests + half))
    one = STEP_S * full + TEST_S * tests
    assert plain.seconds.mid == pytest.approx(one)
    assert barlow.seconds.mid == pytest.approx(one + 2 * PRETRAIN_S * (full // 8 * 8))


def test_only_what_is_unknown_is_timed(clockwork: None) -> None:
    grid = tiny()
    scheduler, rates = Scheduler(ns.plan(grid)), Rates()
    list(calibrate(grid, scheduler, rates))
    both = tiny(methods=["darts", "fairdarts"])
    lines = list(calibrate(both, Scheduler(ns.plan(both)), rates))
    assert [line.split(" on ")[0] for line in lines] == [
        "timing search fairdarts",
        "timing retrain fairdarts",
        "timing retrain fairdarts + barlow",
    ]
