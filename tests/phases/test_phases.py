"""Phases: the shipped contract, and that ours are registered as others' are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from nas_sweeps.cost.simulate import Room, Task, simulate
from nas_sweeps.grid import Grid, Plan, plan
from nas_sweeps.grid.sections import PhaseSection
from nas_sweeps.phases import PHASES, Phase, in_order, phase_of_id
from nas_sweeps.schedule import Outcome, Scheduler
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.store import Store
from nas_sweeps.store.records import State
from nas_sweeps.sweep.checkpoint import state_of
from nas_sweeps.testing import PhaseContract
from nas_sweeps.trial import Origin, Resources, RetrainTrial, SearchTrial, trial_from_json


@pytest.mark.parametrize("name", PHASES.names())
class TestOurs(PhaseContract):
    pass


def test_a_phase_stands_behind_the_one_that_it_goes_on_from() -> None:
    assert in_order() == ("search", "retrain")


def test_the_prefix_of_an_id_tells_its_phase() -> None:
    assert phase_of_id("s-fb178769b3878306") == "search"
    assert phase_of_id("r-fb178769b3878306") == "retrain"
    assert phase_of_id("z-fb178769b3878306") == "unknown"


# A third phase, in this process alone: each retrain once more, or the best of its seeds.


class AgainSection(PhaseSection):
    together: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AgainTrial(RetrainTrial):
    prefix: ClassVar[str] = "a"
    phase: Literal["again"] = "again"  # type: ignore[assignment]
    source: str


class Again(Phase):
    spec, section, after = AgainTrial, AgainSection, "retrain"

    def slots(self, section: Any, grid: Grid, before: Any) -> Iterator[Any]:
        cells: dict[object, list[Any]] = {}
        for slot in before:
            cells.setdefault(slot.parents if section.together else slot, []).append(slot)
        for cell in cells.values():
            keys = tuple(slot.key for slot in cell)
            yield replace(cell[0], phase="again", parents=keys, genotype=None)

    def trial(self, slot: Any, genotype: Any, parent: Any, **_: Any) -> Any:
        return super().trial(slot, genotype, parent, source=parent.trial_id)


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> None:
    PHASES.names()
    monkeypatch.setitem(PHASES.known, "again", Again)


def study(again: Any = None, **retrain: Any) -> Plan:
    tree: dict[str, Any] = {
        "data": {"dataset": "digits"},
        "search": {"methods": ["darts"], "distributions": ["balance"], "seeds": 2},
        "retrain": retrain,
    }
    return plan(Grid.from_dict(tree | ({} if again is None else {"again": again})))


V1, V2 = PUBLISHED["DARTS_V1"], PUBLISHED["DARTS_V2"]
FAILED = Outcome(state=State.FAILED)


def done(genotype: Any = V1, accuracy: float | None = None) -> Outcome:
    return Outcome(state=State.DONE, genotype=genotype, accuracy_validation=accuracy)


def next_trial(scheduler: Scheduler) -> Any:
    task = scheduler.next_task()
    assert task is not None
    return task.trial


@pytest.mark.usefixtures("again")
def test_the_latest_phase_goes_first_and_knows_whom_it_goes_on_from() -> None:
    scheduler = Scheduler(study(again={}))
    first, second = next_trial(scheduler), next_trial(scheduler)
    scheduler.settle(first.trial_id, done(V1))
    retrain = next_trial(scheduler)
    scheduler.settle(second.trial_id, done(V2))
    assert scheduler.next_phase == "retrain"
    scheduler.settle(retrain.trial_id, done(V1))
    assert scheduler.next_phase == "again"
    task = scheduler.next_task()
    assert task is not None
    assert (task.trial.source, task.trial.genotype) == (retrain.trial_id, V1)  # type: ignore[attr-defined]
    assert task.origins == (Origin(method="darts", search_id=retrain.trial_id, seed=0),)
    assert scheduler.next_phase == "retrain"


@pytest.mark.usefixtures("again")
def test_what_cannot_be_blocks_everything_after_it() -> None:
    of = study(again={})
    scheduler = Scheduler(of)
    first, second = next_trial(scheduler), next_trial(scheduler)
    scheduler.settle(first.trial_id, FAILED)
    assert scheduler.blocked == (of.retrains[0], of.by_phase["again"][0])
    scheduler.settle(second.trial_id, done())
    scheduler.settle(next_trial(scheduler).trial_id, FAILED)
    assert scheduler.finished
    assert [of["blocked"] for of in scheduler.counts().values()] == [0, 1, 2]  # type: ignore[index]


@pytest.mark.usefixtures("again")
def test_what_two_slots_share_is_gone_on_from_once() -> None:
    """Both searches find one cell, so there is one retrain, settled before the second ends."""
    scheduler = Scheduler(study(again={}))
    first, second = next_trial(scheduler), next_trial(scheduler)
    scheduler.settle(first.trial_id, done())
    scheduler.settle(next_trial(scheduler).trial_id, done())
    scheduler.settle(next_trial(scheduler).trial_id, done())
    scheduler.settle(second.trial_id, done())
    assert scheduler.finished
    assert [of["done"] for of in scheduler.counts().values()] == [2, 2, 2]  # type: ignore[index]


@pytest.mark.usefixtures("again")
def test_of_several_parents_the_best_is_gone_on_from() -> None:
    scheduler = Scheduler(study(again={"together": True}, seeds=3))
    scheduler.settle(next_trial(scheduler).trial_id, done())
    retrains = [next_trial(scheduler) for _ in range(3)]
    for trial, outcome in zip(retrains, (done(V1, 0.2), done(V1, 0.6), FAILED), strict=True):
        assert scheduler.next_phase == "search"
        scheduler.settle(trial.trial_id, outcome)
    assert next_trial(scheduler).source == retrains[1].trial_id


@pytest.mark.usefixtures("again")
def test_a_later_run_takes_only_the_rest_of_three_phases() -> None:
    of, settled, taken = study(again={}), dict[str, Outcome](), list[str]()
    while (task := Scheduler(of, settled).next_task()) is not None:
        settled[task.trial.trial_id] = done(V1 if not settled else V2)
        taken.append(task.phase)
    assert taken == ["search", "retrain", "again"] * 2


@pytest.mark.usefixtures("again")
def test_a_phase_without_a_section_leaves_a_grid_as_it_was() -> None:
    search = {"methods": ["darts"], "distributions": ["balance"]}
    tree: dict[str, Any] = {"data": {"dataset": "digits"}, "search": search}
    grid = Grid.from_dict(tree)
    assert "again" not in json.loads(grid.to_json())
    assert grid.phases == ("search", "retrain")
    assert Grid.from_dict(tree | {"again": None}).phases == ("search", "retrain", "again")


@pytest.mark.usefixtures("again")
def test_a_simulated_day_has_three_phases() -> None:
    tasks = [Task("search", 1.0), Task("retrain", 2.0, (0,)), Task("again", 4.0, (1,))]
    tasks += [Task("search", 1.0)]
    needs = dict.fromkeys(in_order(), Resources())
    found = simulate(tasks, needs, Room(((1.0, 0.0),)))
    assert found.starts_s == (0.0, 1.0, 3.0, 7.0)
    assert found.path_bound_s == 7.0


def test_a_phase_that_comes_after_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class RoundTrial(AgainTrial):
        prefix = "b"

    class Round(Again):
        spec, after = RoundTrial, "round"

    PHASES.names()
    monkeypatch.setitem(PHASES.known, "round", Round)
    with pytest.raises(ValueError, match="phase 'round' comes after itself"):
        in_order()


def test_names_and_prefixes_that_are_taken_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class SecondSearch(Again):
        spec = SearchTrial  # type: ignore[assignment]

    PHASES.names()
    monkeypatch.setitem(PHASES.known, "second", SecondSearch)
    with pytest.raises(ValueError, match="'search' and 'second' both begin ids with 's-'"):
        in_order()
    monkeypatch.delitem(PHASES.known, "second")
    monkeypatch.setitem(PHASES.known, "data", Again)
    with pytest.raises(ValueError, match="phase 'data': a grid has something else"):
        study()


def test_weights_that_are_gone_are_a_clear_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trial r-gone, which this one goes on from, has no check"):
        state_of(Store(tmp_path), "r-gone")


def test_a_trial_of_a_phase_that_is_not_installed_says_so() -> None:
    with pytest.raises(ValueError, match="'again'; another phase is known where the package"):
        trial_from_json('{"phase": "again"}')
