"""Schedules by hand, the bounds every one keeps, and the order of the real chain."""

from __future__ import annotations

import heapq
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_sweeps.cost.simulate import Room, Schedule, Task, simulate
from nas_sweeps.grid import Grid, Plan, plan
from nas_sweeps.schedule import Outcome, Scheduler
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.space.published import published
from nas_sweeps.trial import Resources

ONE_GPU = {"search": Resources(gpus=1), "retrain": Resources(gpus=1)}


def on(gpus: float, *tasks: Task, needs: dict[str, Resources] = ONE_GPU, **room: int) -> Schedule:
    return simulate(tasks, needs, Room(((math.inf, gpus),), **room))


def search(seconds: float) -> Task:
    return Task("search", seconds)


def retrain(seconds: float, *parents: int) -> Task:
    return Task("retrain", seconds, parents)


def test_a_schedule_by_hand() -> None:
    # slot 1: search 3, its retrain 4; slot 2: search 5, search 2, then the two retrains
    made = on(2, search(3), search(5), search(2), retrain(4, 0), retrain(1, 1), retrain(6, 2))
    assert made.starts_s == (0, 0, 6, 3, 5, 8)
    assert made.wall_s == 14
    assert made.work_bound_s == 21 / 2
    assert made.path_bound_s == 8


def test_a_released_retrain_goes_before_new_searches() -> None:
    made = on(1, search(1), search(1), search(1), retrain(10, 0))
    assert made.starts_s == (0, 11, 12, 1)


def test_published_genotypes_go_first_of_all() -> None:
    assert on(1, search(1), retrain(5)).starts_s == (5, 0)


def test_the_best_of_seeds_waits_for_all_of_them() -> None:
    made = on(3, search(1), search(2), search(7), retrain(1, 0, 1, 2))
    assert made.starts_s[-1] == 7
    assert made.wall_s == made.path_bound_s == 8


def test_what_is_next_is_not_overtaken_by_what_is_smaller() -> None:
    needs = {"search": Resources(gpus=0.5), "retrain": Resources(gpus=1)}
    made = on(1, search(1), search(4), search(1), retrain(1, 0), needs=needs)
    assert made.starts_s == (0, 0, 5, 4), "the retrain needs the whole device, the search waits"


@pytest.mark.parametrize(("share", "at_once"), [(1, 2), (2, 1), (0.5, 4), (0.4, 4), (0.3, 6)])
def test_fractions_share_a_device_and_do_not_span_two(share: float, at_once: int) -> None:
    needs = dict.fromkeys(("search", "retrain"), Resources(gpus=share))
    assert Room(((math.inf, 2.0),)).holds(needs["search"]) == at_once
    made = on(2, *[search(1)] * (at_once + 1), needs=needs)
    assert made.starts_s == (0,) * at_once + (1,)


def test_cpus_and_slots_bind_as_gpus_do() -> None:
    needs = dict.fromkeys(("search", "retrain"), Resources(cpus=2))
    two_nodes = Room(((3.0, 0.0), (5.0, 0.0)))
    assert two_nodes.holds(needs["search"]) == 3
    assert simulate([search(1)] * 6, needs, two_nodes).wall_s == 2
    one_at_a_time = simulate([search(1)] * 6, needs, Room(two_nodes.nodes, slots=1))
    assert one_at_a_time.wall_s == one_at_a_time.work_bound_s == 6


def test_nothing_takes_no_time_and_what_fits_nowhere_is_refused() -> None:
    assert on(1).wall_s == on(1).bound_s == 0
    with pytest.raises(ValueError, match="no node has room for a search trial"):
        on(0, search(1))


@st.composite
def task_lists(draw: st.DrawFn) -> list[Task]:
    seconds = st.integers(1, 50)
    searches = [search(s) for s in draw(st.lists(seconds, min_size=1, max_size=12))]
    places = st.lists(st.integers(0, len(searches) - 1), max_size=3, unique=True)
    children = draw(st.lists(st.tuples(seconds, places), max_size=15))
    return searches + [retrain(s, *parents) for s, parents in children]


@given(task_lists(), st.integers(1, 6))
def test_no_schedule_beats_the_bounds_or_breaks_grahams(tasks: list[Task], slots: int) -> None:
    made = simulate(tasks, ONE_GPU, Room(((math.inf, float(slots)),)))
    work = sum(task.seconds for task in tasks)
    assert made.bound_s <= made.wall_s + 1e-9
    assert made.wall_s <= work / slots + (1 - 1 / slots) * made.path_bound_s + 1e-9
    ends = [start + task.seconds for start, task in zip(made.starts_s, tasks, strict=True)]
    assert made.wall_s == max(ends)
    for start, task in zip(made.starts_s, tasks, strict=True):
        assert all(ends[parent] <= start for parent in task.parents)
    for start in made.starts_s:
        running = [s for s, e in zip(made.starts_s, ends, strict=True) if s <= start < e]
        assert len(running) <= slots


def grid_of(winners: str, seeds: int, retrain_seeds: int) -> Plan:
    tree = {
        "name": "g",
        "data": {"dataset": "digits"},
        "search": {
            "methods": ["darts", "fairdarts"],
            "distributions": ["balance"],
            "seeds": list(range(seeds)),
        },
        "retrain": {
            "winners": winners,
            "seeds": list(range(retrain_seeds)),
            "genotypes": ["DARTS_V2"],
        },
    }
    return plan(Grid.from_dict(tree))


def cell(number: int) -> Genotype:
    """Never the same twice, so no retrain is shared."""
    normal = published("DARTS_V2").normal
    kinds = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5", "skip_connect")
    edges = [(kinds[number // 5**k % 5], *edge[1:]) for k, edge in enumerate(normal)]
    return Genotype(tuple(edges), published("DARTS_V2").reduce)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["each", "best_of_seeds"]),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_the_real_chain_starts_the_same_trials_in_the_same_order(
    winners: str, seeds: int, retrain_seeds: int, slots: int, random: object
) -> None:
    planned = grid_of(winners, seeds, retrain_seeds)
    scheduler = Scheduler(planned)
    left = [entry for entry, _ in scheduler.left()]
    assert left == list(planned)
    places = {search.trial_id: i for i, search in enumerate(planned.searches)}
    tasks = [
        Task(
            "search" if i < len(planned.searches) else "retrain",
            1 + random.random(),  # type: ignore[attr-defined]
            tuple(places[parent] for parent in getattr(entry, "parents", ())),
        )
        for i, entry in enumerate(left)
    ]
    made = simulate(tasks, ONE_GPU, Room(((math.inf, float(slots)),)))

    genotypes = {t: cell(i) for i, t in enumerate(places)}
    number = dict(places)  # of each trial's task, by which ties are settled here as there
    for i, slot in enumerate(planned.retrains, len(places)):
        for genotype in [slot.genotype] if slot.genotype else [genotypes[p] for p in slot.parents]:
            number[slot.resolve(genotype).trial_id] = i
    now, real, live = 0.0, [], []
    while not scheduler.finished:
        while len(live) < slots and (work := scheduler.next_task()) is not None:
            trial_id = work.trial.trial_id
            real.append(now)
            i = number[trial_id]
            heapq.heappush(live, (now + tasks[i].seconds, i, trial_id))
        now, _, trial_id = heapq.heappop(live)
        scheduler.settle(trial_id, Outcome(state="done", genotype=genotypes.get(trial_id)))
    assert now == pytest.approx(made.wall_s)
    assert sorted(made.starts_s) == pytest.approx(real)
