"""The scheduler: each trial once, retrains first, nothing left behind, whatever the order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_sweeps.grid import Grid, Plan, plan
from nas_sweeps.schedule import Outcome, Scheduler, Task
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.store.records import State
from nas_sweeps.trial import Origin

V1, V2, SNAS = PUBLISHED["DARTS_V1"], PUBLISHED["DARTS_V2"], PUBLISHED["SNAS"]
FAILED = Outcome(state="failed")
PRUNED = Outcome(state="pruned")


def planned(methods: int = 1, seeds: int = 1, **retrain: Any) -> Plan:
    names = ["darts", "fairdarts", {"darts": {"order": "second"}}]
    search = {"methods": names[:methods], "distributions": ["balance"], "seeds": seeds}
    tree = {"data": {"dataset": "digits"}, "search": search, "retrain": retrain}
    return plan(Grid.from_dict(tree))


def done(genotype: Genotype = V1, accuracy: float | None = None) -> Outcome:
    return Outcome(state="done", genotype=genotype, accuracy_validation=accuracy)


def next_task(scheduler: Scheduler) -> Task:
    task = scheduler.next_task()
    assert task is not None
    return task


def all_tasks(scheduler: Scheduler) -> list[str]:
    taken = []
    while (task := scheduler.next_task()) is not None:
        taken.append(task.trial.trial_id)
    return taken


def ids(of: Plan) -> list[str]:
    return [trial.trial_id for trial in of.searches]


def test_searches_come_in_plan_order_and_each_once() -> None:
    of = planned(methods=2, seeds=3)
    assert all_tasks(Scheduler(of)) == ids(of)


def test_a_done_search_releases_its_retrain_before_the_next_search() -> None:
    of = planned(seeds=3)
    scheduler = Scheduler(of)
    first, second = next_task(scheduler), next_task(scheduler)
    assert (first.phase, first.origins) == ("search", ())
    scheduler.settle(second.trial.trial_id, done(V2))
    assert scheduler.next_phase == "retrain"
    task = next_task(scheduler)
    assert task.phase == "retrain"
    assert task.trial == of.retrains[1].resolve(V2)
    assert task.origins == (Origin(method="darts", search_id=ids(of)[1], seed=1),)
    assert scheduler.next_phase == "search"
    assert next_task(scheduler).trial == of.searches[2]
    assert scheduler.next_phase is None


def test_what_is_left_names_a_shared_retrain_once_and_only_when_it_is_known() -> None:
    of = planned(methods=2, seeds=1)
    scheduler = Scheduler(of, {trial_id: done(V1) for trial_id in ids(of)})
    assert [trial_id for _, trial_id in scheduler.left()] == [of.retrains[0].resolve(V1).trial_id]
    scheduler = Scheduler(of, {ids(of)[0]: done(V1)})
    known = of.retrains[0].resolve(V1).trial_id
    assert [trial_id for _, trial_id in scheduler.left()] == [ids(of)[1], known, None]
    scheduler = Scheduler(of, {ids(of)[0]: FAILED})
    assert [trial_id for _, trial_id in scheduler.left()] == [ids(of)[1], None]


def test_nothing_ready_is_not_the_end_while_a_search_is_live() -> None:
    scheduler = Scheduler(planned())
    search = next_task(scheduler)
    assert scheduler.next_task() is None
    assert not scheduler.finished
    assert scheduler.live == (search.trial,)
    scheduler.settle(search.trial.trial_id, done())
    assert not scheduler.finished
    retrain = next_task(scheduler)
    scheduler.settle(retrain.trial.trial_id, done())
    assert scheduler.finished
    assert scheduler.next_task() is None


def test_a_failed_search_blocks_its_own_retrains_only() -> None:
    of = planned(seeds=2)
    scheduler = Scheduler(of)
    first, second = next_task(scheduler), next_task(scheduler)
    scheduler.settle(first.trial.trial_id, FAILED)
    scheduler.settle(second.trial.trial_id, done())
    assert scheduler.blocked == (of.retrains[0],)
    assert next_task(scheduler).trial == of.retrains[1].resolve(V1)


def test_a_failed_retrain_blocks_nothing() -> None:
    scheduler = Scheduler(planned(seeds=2))
    for task in (next_task(scheduler), next_task(scheduler)):
        scheduler.settle(task.trial.trial_id, done(V1 if task.trial.seed else V2))
    scheduler.settle(next_task(scheduler).trial.trial_id, FAILED)
    scheduler.settle(next_task(scheduler).trial.trial_id, done())
    assert scheduler.finished
    assert scheduler.counts()["retrain"] == {
        "done": 1, "pruned": 0, "failed": 1, "running": 0, "waiting": 0, "blocked": 0,
        "cancelled": 0,
    }  # fmt: skip


def test_two_searches_that_find_one_cell_share_its_retrain() -> None:
    of = planned(methods=3)
    scheduler = Scheduler(of)
    tasks = [next_task(scheduler) for _ in of.searches]
    scheduler.settle(tasks[0].trial.trial_id, done(V1))
    scheduler.settle(tasks[1].trial.trial_id, done(V1))
    retrain = next_task(scheduler)
    assert [origin.method for origin in retrain.origins] == ["darts", "fairdarts"]
    scheduler.settle(tasks[2].trial.trial_id, done(V1))  # while that retrain is live
    assert scheduler.next_task() is None
    scheduler.settle(retrain.trial.trial_id, done())
    assert scheduler.finished
    assert [(to, o.method, o.variant) for to, o in scheduler.links()] == [
        (retrain.trial.trial_id, "darts", ""),
        (retrain.trial.trial_id, "fairdarts", ""),
        (retrain.trial.trial_id, "darts", "order=second"),
    ]
    assert scheduler.counts()["retrain"]["done"] == 3


def test_published_genotypes_are_ready_at_once_and_share_with_searches() -> None:
    of = planned(genotypes=["DARTS_V1"])
    scheduler = Scheduler(of)
    retrain, search = next_task(scheduler), next_task(scheduler)
    assert (retrain.phase, retrain.origins) == ("retrain", (Origin(method="DARTS_V1"),))
    scheduler.settle(search.trial.trial_id, done(V1))
    assert scheduler.next_task() is None
    assert len(scheduler.links()) == 2


@pytest.mark.parametrize(
    ("outcomes", "winner"),
    [
        ([done(V1, 0.2), done(V2, 0.5), done(SNAS, 0.4)], 1),
        ([done(V1, 0.5), done(V2, 0.5), done(SNAS, 0.4)], 0),
        ([FAILED, done(V2, 0.1), done(SNAS, 0.4)], 2),
        ([done(V1), done(V2, float("nan")), done(SNAS, 0.0)], 2),
        ([done(V1), done(V2), FAILED], 0),
        ([PRUNED, done(V2, 0.1), PRUNED], 1),
        ([FAILED, FAILED, FAILED], None),
    ],
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_best_of_seeds_retrains_the_best_once_all_seeds_are_settled(
    outcomes: list[Outcome], winner: int | None, order: tuple[int, ...]
) -> None:
    of = planned(seeds=3, winners="best_of_seeds")
    scheduler = Scheduler(of)
    all_tasks(scheduler)
    for index in order:
        assert scheduler.next_phase is None
        assert scheduler.blocked == ()
        scheduler.settle(ids(of)[index], outcomes[index])
    if winner is None:
        assert scheduler.finished
        assert scheduler.blocked == of.retrains
    else:
        task = next_task(scheduler)
        assert task.trial.genotype == outcomes[winner].genotype  # type: ignore[union-attr]
        assert task.origins == (Origin(method="darts", search_id=ids(of)[winner], seed=winner),)


def test_what_could_only_follow_pruned_searches_is_pruned_with_them() -> None:
    of = planned(seeds=2, winners="best_of_seeds")
    scheduler = Scheduler(of)
    all_tasks(scheduler)
    scheduler.settle(ids(of)[0], PRUNED)
    assert scheduler.counts()["retrain"]["waiting"] == 1
    scheduler.settle(ids(of)[1], PRUNED)
    assert scheduler.finished
    assert scheduler.blocked == ()
    assert scheduler.counts()["retrain"]["pruned"] == 1
    assert scheduler.counts()["search"]["pruned"] == 2
    mixed = Scheduler(of, {ids(of)[0]: PRUNED, ids(of)[1]: FAILED})
    assert mixed.blocked == of.retrains, "one that failed may yet find something"


def test_a_second_run_takes_only_the_rest_and_still_reports_every_link() -> None:
    of = planned(seeds=2)
    first, second = (slot.resolve(V1) for slot in of.retrains)
    assert first == second
    settled = {ids(of)[0]: done(V1), first.trial_id: done(), "s-of-another-grid": FAILED}
    scheduler = Scheduler(of, settled)
    origin = Origin(method="darts", search_id=ids(of)[0], seed=0)
    assert scheduler.links() == [(first.trial_id, origin)]
    assert all_tasks(scheduler) == ids(of)[1:]
    scheduler.settle(ids(of)[1], done(V1))
    assert scheduler.finished
    assert len(scheduler.links()) == 2


def test_a_finished_plan_starts_nothing() -> None:
    of = planned()
    settled = {ids(of)[0]: done(V1), of.retrains[0].resolve(V1).trial_id: done()}
    scheduler = Scheduler(of, settled)
    assert scheduler.finished
    assert scheduler.next_task() is None
    assert scheduler.counts() == {
        phase: dict.fromkeys(State, 0) | {State.DONE: 1} for phase in ("search", "retrain")
    }


def test_settling_what_is_not_running_is_our_mistake() -> None:
    scheduler = Scheduler(planned())
    with pytest.raises(AssertionError):
        scheduler.settle("s-unknown", FAILED)


outcomes = st.one_of(
    st.just(FAILED),
    st.builds(
        done, st.sampled_from([V1, V2, SNAS]), st.sampled_from([None, 0.1, 0.5, float("nan")])
    ),
)


class Oracle:
    """What must be ready, by definition rather than by bookkeeping."""

    def __init__(self, of: Plan, settled: dict[str, Outcome]) -> None:
        self.plan, self.settled = of, settled

    def target(self, slot: Any) -> str | None:
        """The retrain a slot leads to; None before it is known; "" if it is blocked."""
        if slot.genotype is not None:
            return str(slot.resolve(slot.genotype).trial_id)
        found = [self.settled.get(parent) for parent in slot.parents]
        if None in found:
            return None
        best: Outcome | None = None
        for outcome in found:
            if outcome.state == "done" and (best is None or rank(outcome) > rank(best)):
                best = outcome
        return str(slot.resolve(best.genotype).trial_id) if best else ""

    def ready(self, taken: set[str]) -> set[str]:
        targets = {self.target(slot) for slot in self.plan.retrains} - {None, ""}
        return {t for t in targets if t} - taken - set(self.settled)


def rank(outcome: Outcome) -> float:
    accuracy = outcome.accuracy_validation
    return -1.0 if accuracy is None or accuracy != accuracy else accuracy


PLANS = [
    planned(methods=m, seeds=s, winners=w, pretrain=p, genotypes=g)
    for m, s, w, p, g in [
        (3, 3, "each", "by_method", []),
        (2, 3, "best_of_seeds", ["none", "barlow"], ["DARTS_V1"]),
        (2, 2, "each", ["none", "barlow"], ["DARTS_V2", "SNAS"]),
        (2, 2, "none", "by_method", []),
        (0, 1, "each", "by_method", ["DARTS_V1", "DARTS_V2"]),
    ]
]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), of=st.sampled_from(PLANS))
def test_any_order_of_events_takes_each_trial_once_or_blocks_it(
    data: st.DataObject, of: Plan
) -> None:
    before = data.draw(st.dictionaries(st.sampled_from(ids(of) or ["s-none"]), outcomes))
    oracle = Oracle(of, dict(before))
    for slot in of.retrains:  # some retrains of the earlier run are settled too
        if oracle.target(slot) and data.draw(st.booleans()):
            oracle.settled[str(oracle.target(slot))] = data.draw(outcomes)
    earlier = set(oracle.settled)
    scheduler, taken, live = Scheduler(of, dict(oracle.settled)), set[str](), list[str]()
    while not scheduler.finished:
        if not live or (scheduler.next_phase and data.draw(st.booleans())):
            ready = oracle.ready(taken)
            task = next_task(scheduler)  # never None while something must be ready
            trial_id = task.trial.trial_id
            assert (task.phase == "retrain") == bool(ready)
            assert trial_id not in taken | earlier
            assert trial_id in (ready or set(ids(of)))
            taken.add(trial_id)
            live.append(trial_id)
        else:
            trial_id = live.pop(data.draw(st.integers(0, len(live) - 1)))
            oracle.settled[trial_id] = data.draw(outcomes)
            scheduler.settle(trial_id, oracle.settled[trial_id])
        for phase, total in (("search", of.searches), ("retrain", of.retrains)):
            assert sum(scheduler.counts()[phase].values()) == len(total)  # type: ignore[index]

    targets = [oracle.target(slot) for slot in of.retrains]
    assert live == []
    assert scheduler.next_task() is None
    assert taken | earlier >= set(ids(of)) | {t for t in targets if t}
    assert taken <= set(ids(of)) | {t for t in targets if t}
    assert None not in targets
    assert list(scheduler.blocked) == [
        slot for slot, to in zip(of.retrains, targets, strict=True) if to == ""
    ]
    assert {to for to, _ in scheduler.links()} == {t for t in targets if t}


def test_a_cancelled_search_is_not_run_and_what_waits_for_it_waits() -> None:
    of = planned(methods=2)
    scheduler = Scheduler(of)
    assert scheduler.cancel(lambda entry: entry == of.searches[0]) == set()
    assert all_tasks(scheduler) == ids(of)[1:]
    counts = scheduler.counts()
    assert (counts["search"]["cancelled"], counts["search"]["running"]) == (1, 1)
    assert counts["retrain"]["waiting"] == 2
    assert [entry for entry, _ in scheduler.left()] == list(of.retrains)


def test_a_trial_that_something_else_asks_for_is_not_cancelled() -> None:
    """Two searches find the same cell: its retrain is cancelled for one of them, then for both."""
    of = planned(methods=2)
    scheduler = Scheduler(of, {trial_id: done(V1) for trial_id in ids(of)})
    scheduler.cancel(lambda entry: entry == of.retrains[0])
    assert scheduler.next_phase == "retrain"
    running = next_task(scheduler).trial.trial_id
    assert scheduler.cancel(lambda entry: entry == of.retrains[1]) == {running}
    scheduler.drop(running)
    assert scheduler.finished
    assert scheduler.counts()["retrain"]["cancelled"] == 2


def test_a_trial_that_was_left_is_ready_again_when_another_search_finds_it() -> None:
    of = planned(methods=2)
    scheduler = Scheduler(of)
    first, second = next_task(scheduler), next_task(scheduler)
    scheduler.settle(first.trial.trial_id, done(V1))
    assert scheduler.cancel(lambda entry: entry == of.retrains[0]) == set()
    assert scheduler.next_phase is None
    scheduler.settle(second.trial.trial_id, done(V1))
    assert next_task(scheduler).trial == of.retrains[0].resolve(V1)


def test_a_trial_that_ends_without_an_outcome_waits_for_the_next_run() -> None:
    of = planned()
    scheduler = Scheduler(of)
    taken = next_task(scheduler)
    scheduler.drop(taken.trial.trial_id)
    assert scheduler.finished
    assert scheduler.counts()["search"]["waiting"] == 1
