"""What is left follows from what was measured, and is unknown until something was."""

from __future__ import annotations

from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.cost.epochs import parts_of
from nas_sweeps.cost.forecast import remaining_s
from nas_sweeps.cost.rates import Images, Rates, Sample, work_of
from nas_sweeps.schedule import Scheduler
from nas_sweeps.trial import ClassifierStage, Data, Distribution, RetrainRecipe, SearchTrial
from tests.cost.conftest import grid_of, searches

RAN = searches(grid_of(search__seeds=[0, 1]))
DARTS, OTHER = RAN["darts", "balance", 0], RAN["fairdarts", "exp", 0]


def sample(trial: SearchTrial, epoch_s: float, **facts: Any) -> Sample:
    values: dict[str, Any] = {"images": 100.0, "image_s": 0.0, "epoch_s": epoch_s} | facts
    kind, _ = parts_of(trial)[0]
    return Sample(kind=kind, work=work_of(trial.data, trial.recipe), **values)


def live() -> Rates:
    rates = Rates()
    rates.roughly = True
    return rates


def of_trial(rates: Rates, trial: SearchTrial) -> float | None:
    return rates.left_s(trial, (), 0)


def test_nothing_is_known_before_anything_was_measured() -> None:
    assert of_trial(Rates(), DARTS) is None
    planned = ns.plan(grid_of())
    assert remaining_s(Scheduler(planned), Rates(), {}, {}, 1) is None


def test_a_trial_without_epochs_takes_what_is_beside_epochs() -> None:
    (untrained,) = ns.plan(grid_of(search__methods=["random"], search__distributions=["balance"]))
    assert isinstance(untrained, SearchTrial)
    assert of_trial(Rates(), untrained) is None, "nothing like it was measured"
    known = Rates(overhead_s={"search": 3.0})
    assert of_trial(known, untrained) == 3.0
    assert known.left_s(untrained, (), 0, 5.0) == 0.0


def test_the_nearest_kind_that_was_measured_counts() -> None:
    rates = live()
    rates.add(sample(DARTS, 2.0))
    rates.add(sample(DARTS, 4.0))
    assert of_trial(rates, DARTS) == 30.0
    assert of_trial(rates, OTHER) == 30.0, "of the same phase, better than nothing"
    rates.add(sample(OTHER, 30.0))
    assert of_trial(rates, OTHER) == 300.0
    assert of_trial(rates, DARTS) == 30.0


def test_a_run_takes_what_a_plan_would_not() -> None:
    wider = searches(grid_of(search__recipe={"epochs": 10, "channels": 32}))["darts", "balance", 0]
    rates = Rates()
    rates.add(sample(DARTS, 2.0))
    assert rates.cost(wider) is None
    rates = live()
    rates.add(sample(DARTS, 2.0))
    found = rates.cost(wider)
    assert found is not None
    assert found.seconds.mid == 20.0
    rates.add(sample(wider, 7.0))
    assert of_trial(rates, wider) == 70.0


def test_the_epochs_of_a_trial_that_runs_count_as_they_come() -> None:
    rates = Rates()
    rates.add(sample(DARTS, 2.0), "the trial")
    rates.add(sample(DARTS, 6.0), "another")
    assert of_trial(rates, DARTS) == 40.0
    rates.add(sample(DARTS, 4.0), "the trial")
    assert of_trial(rates, DARTS) == 50.0, "its mean is another now"


def test_an_epoch_that_is_late_takes_nothing_from_the_later_ones() -> None:
    rates = Rates()
    assert rates.left_s(DARTS, (), 7, 1.0) is None
    rates.add(sample(DARTS, 10.0))
    assert rates.left_s(DARTS, (), 8, 4.0) == 16.0
    assert rates.left_s(DARTS, (), 8, 500.0) == 10.0
    assert rates.left_s(DARTS, (), 9, 500.0) == 0.0
    assert rates.left_s(DARTS, (), 10, 4.0) == 0.0


@pytest.mark.parametrize(("slots", "seconds"), [(1, 200.0), (2, 100.0), (8, 50.0)])
def test_what_runs_keeps_its_slot_and_what_waits_shares_them(slots: int, seconds: float) -> None:
    planned = ns.plan(grid_of(search__methods=["darts"], search__distributions=["balance"],
                              search__seeds=[0, 1, 2, 3]))  # fmt: skip
    rates = Rates(overhead_s={"search": 10.0})
    rates.add(sample(DARTS, 4.0))
    assert remaining_s(Scheduler(planned), rates, {}, {}, slots) == seconds


def test_a_retrain_waits_for_the_search_that_runs() -> None:
    planned = ns.plan(grid_of(search__methods=["darts"], search__distributions=["balance"],
                              retrain__winners="each", retrain__recipe={"epochs": 2}))  # fmt: skip
    (search,) = planned.searches
    rates = Rates()
    rates.add(sample(DARTS, 4.0))
    kind, _ = parts_of(planned.retrains[0])[0]
    work = work_of(search.data, planned.retrains[0].recipe)
    rates.add(Sample(kind=kind, work=work, images=1.0, epoch_s=3.0, image_s=0.0))
    scheduler = Scheduler(planned, elsewhere={search.trial_id})
    running = {search.trial_id: ("search", 25.0)}
    assert remaining_s(scheduler, rates, {}, running, slots=4) == 25 + 2 * 3  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stage", "recipe", "images"),
    [
        ("train", {}, 20_431),
        ("train", {"sampler": "over"}, 20_431),
        ("train", {"sampler": "under"}, 5_000),
        ("train", {"sampler": "under", "images": "search_half"}, 2_500),
        ("pretrain", {"sampler": "under"}, 20_431),
        ("classifier", {"sampler": "under", "classifier_stage": ClassifierStage()}, 20_431),
        ("classifier", {"classifier_stage": ClassifierStage(sampler="under")}, 5_000),
    ],
)
def test_an_epoch_is_as_long_as_its_sampler_makes_it(
    stage: str, recipe: dict[str, Any], images: float
) -> None:
    data, exp = Data(dataset="cifar10", label="cifar10"), Distribution(kind="exp", mu=0.1)
    assert Images().in_epoch(data, exp, RetrainRecipe(**recipe), stage) == images
