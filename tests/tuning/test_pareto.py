"""Two objectives: accuracy against size, and what becomes of the Pareto set."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nas_sweeps as ns
from nas_sweeps.grid import Grid, GridError, Plan, plan
from nas_sweeps.grid.tuned import pareto_set, spread, tried
from nas_sweeps.schedule import Outcome, Scheduler, Task
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.space.size import size_of
from nas_sweeps.store.records import State
from nas_sweeps.sweep.run import run
from nas_sweeps.tuning import Told
from tests.sweep.tiny import TINY
from tests.verbs import cli

BOTH = ["accuracy_validation", "num_params"]
LR = {"low": 0.0, "high": 1.0, "default": 0.5}
SMALL = Genotype((("skip_connect", 0, 2),), (("skip_connect", 1, 2),))
MIDDLE = Genotype((("sep_conv_3x3", 0, 2),), (("skip_connect", 1, 2),))
LARGE = Genotype((("sep_conv_5x5", 0, 2),), (("sep_conv_5x5", 1, 2),))


def grid(retrain: Any = None, seeds: int = 2, **tune: Any) -> Grid:
    return Grid.from_dict(
        {
            "data": {"dataset": "digits"},
            "search": {
                "methods": ["darts"],
                "distributions": ["balance"],
                "seeds": seeds,
                "recipe": {"lr": LR | {"low": 1e-6}},
            },
            "tune": {"trials": 12, "startup": 3, "parallel": 3, "objective": BOTH} | tune,
            "retrain": {"recipe": {"channels": 8, "layers": 5}} | (retrain or {}),
        }
    )


def outcome(task: Task) -> Outcome:
    """A high rate finds large and good cells; just below a step it is no better, and larger."""
    trial: Any = task.trial
    if task.phase == "retrain":
        return Outcome(state=State.DONE, genotype=trial.genotype)
    lr = trial.recipe.lr
    genotype = LARGE if lr > 0.6 else MIDDLE if lr > 0.3 else SMALL
    return Outcome(state=State.DONE, genotype=genotype, accuracy_validation=lr)


def worked(of: Plan, shuffle: random.Random | None = None) -> tuple[list[Task], Scheduler]:
    scheduler, taken, live = Scheduler(of), list[Task](), list[Task]()
    while not scheduler.finished:
        while len(live) < 3 and (task := scheduler.next_task()) is not None:
            taken.append(task)
            live.append(task)
        ended = live.pop(shuffle.randrange(len(live)) if shuffle else 0)
        scheduler.settle(ended.trial.trial_id, outcome(ended))
    return taken, scheduler


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_every_point_of_the_pareto_set_is_searched_with_every_seed(sampler: str) -> None:
    _, scheduler = worked(plan(grid(sampler=sampler, pareto="all")))
    ((study, found),) = tried(scheduler.known()).items()
    best: dict[float, Any] = {}
    for one in found:  # by hand: sizes are three, and of each the best is a point
        assert one.objective is not None
        assert one.cost in {size_of(g, 8, 5).num_params for g in (SMALL, MIDDLE, LARGE)}
        if one.objective > best.get(one.cost, found[0]).objective or one.cost not in best:
            best[one.cost] = one
    expected = {
        one.number
        for one in best.values()
        if not any(o.objective > one.objective and o.cost < one.cost for o in best.values())
    }
    assert len(expected) > 1, "else there is nothing to see here"
    won: dict[Any, set[int]] = {}
    for to, origin in scheduler.links():
        if origin.study == study.name and origin.point is not None and to.startswith("s-"):
            assert origin.variant == f"tuned=12 #{origin.point}"
            won.setdefault(origin.point, set()).add(to)  # type: ignore[arg-type]
    assert set(won) == expected
    assert {len(ids) for ids in won.values()} == {2}, "one for each seed"


def test_each_point_is_retrained_and_named() -> None:
    _, scheduler = worked(plan(grid()))
    points = {o.variant for to, o in scheduler.links() if to.startswith("s-") and o.point}
    retrained = [(to, o) for to, o in scheduler.links() if to.startswith("r-")]
    assert {origin.variant for _, origin in retrained} == points
    assert len(points) > 1
    assert {origin.study for _, origin in retrained} == {plan(grid()).searches[0].study.name}
    assert scheduler.blocked == ()
    assert scheduler.counts()["search"][State.DONE] == 12 + 5 * 2


def test_neither_order_nor_a_new_process_changes_the_set() -> None:
    of = plan(grid(sampler="nsga2"))
    taken, scheduler = worked(of)
    shuffled, other = worked(of, random.Random(5))
    assert {t.trial.trial_id for t in shuffled} == {t.trial.trial_id for t in taken}
    assert sorted(map(str, other.links())) == sorted(map(str, scheduler.links()))


def test_no_more_points_are_gone_on_with_than_were_asked_for() -> None:
    one = [e for e in plan(grid(pareto=1)).searches if e.number is None]
    assert len(one) == 2
    assert len([e for e in plan(grid()).searches if e.number is None]) == 5 * 2
    _, scheduler = worked(plan(grid(pareto=1)))
    best = max(tried(scheduler.known()).popitem()[1], key=lambda o: o.objective or 0)
    assert {o.point for _, o in scheduler.links() if o.proposal is None} - {None} == {best.number}


def test_a_study_of_one_objective_is_another_and_named_as_ever() -> None:
    one, two = (plan(grid(objective=o)).searches[0].study for o in ("accuracy_validation", BOTH))
    assert one != two
    assert (one.cost, one.network, two.network) == ("", None, (8, 5))
    assert "pareto" not in grid(objective="accuracy_validation").to_json()


def test_a_resolved_grid_plans_the_same() -> None:
    made = grid(pareto="all")
    again = Grid.from_json(made.to_json())
    assert again == made
    assert list(plan(again)) == list(plan(made))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_a_pareto_set_is_what_nothing_beats(measured: list[tuple[int, int]]) -> None:
    points = [(n, float(value), float(cost)) for n, (value, cost) in enumerate(measured)]
    found = pareto_set(points)

    def beaten(n: int) -> bool:
        (_, value, cost) = points[n]
        return any(v >= value and c <= cost and (v, c) != (value, cost) for _, v, c in points)

    assert {measured[n] for n in found} == {measured[n] for n, *_ in points if not beaten(n)}
    assert len({measured[n] for n in found}) == len(found), "of equals one"
    assert [measured[n][0] for n in found] == sorted((measured[n][0] for n in found), reverse=True)


def test_points_are_spread_over_the_set() -> None:
    assert spread([7, 3, 5], 5) == [7, 3, 5]
    assert spread(list(range(9)), 5) == [0, 2, 4, 6, 8]
    assert spread(list(range(9)), 2) == [0, 8]
    assert spread(list(range(9)), 1) == [0]


def test_retrains_have_points_too() -> None:
    recipe = {"channels": {"low": 4, "high": 16}, "layers": 5}
    tune = {"trials": 6, "objective": ["macs", "accuracy_validation"], "startup": 3}
    tree = {
        "data": {"dataset": "digits"},
        "search": {"methods": ["darts"], "distributions": ["balance"]},
        "retrain": {"recipe": recipe, "tune": tune},
    }
    scheduler = Scheduler(plan(Grid.from_dict(tree)))
    while (task := scheduler.next_task()) is not None:
        trial: Any = task.trial
        found = getattr(trial, "genotype", MIDDLE)
        accuracy = trial.recipe.channels / 100
        outcome = Outcome(state=State.DONE, genotype=found, accuracy_validation=accuracy)
        scheduler.settle(trial.trial_id, outcome)
    ((study, values),) = tried(scheduler.known()).items()
    assert study.objectives == ("accuracy_validation", "macs")
    assert all(
        one.cost == size_of(MIDDLE, dict(one.values)["recipe.channels"], 5).macs  # type: ignore[arg-type]
        for one in values
    )
    finals = {o.recipe: o.point for _, o in scheduler.links() if o.point is not None}
    assert len(finals) == 5, "more channels are better and dearer: all six are in the set"
    assert all(name == f"tuned=6 #{point}" for name, point in finals.items())


def test_a_store_names_the_points(tmp_path: Path, fake_runs: None) -> None:
    search = TINY["search"] | {
        "methods": [{"darts": {"arch_lr": {"low": 1e-4, "high": 1e-2}}}],
        "seeds": 2,
    }
    tune = {"trials": 6, "startup": 3, "objective": BOTH, "pareto": "all"}
    made = ns.Grid.from_dict(TINY | {"search": search, "tune": tune})
    assert run(made, tmp_path, executor="inline", console="none").complete
    trials = ns.load(tmp_path).trials
    winners = trials[(trials.phase == "search") & (trials.role == "winner")]
    retrained = trials[trials.phase == "retrain"]
    assert set(retrained.variant) == set(winners.variant)
    named = winners.variant.str.extract(r"^tuned=6 #(\d)$")[0].astype(int)
    assert (named == winners.proposal).all()
    said = cli("status", tmp_path)
    assert said.returncode == 0
    assert "6 of 6 proposals tried; Pareto set #" in " ".join(said.stdout.split())
    assert run(made, tmp_path, executor="inline", console="none").started == 0
    assert cli("report", tmp_path, "-o", tmp_path.parent / "page").returncode == 0


# Mistakes


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ({"sampler": "cmaes"}, "tune.sampler: cmaes follows one objective, and there are two"),
        ({"objective": ["accuracy_validation", "accuracy_tail"]}, "accuracy_tail is measured on a"),
        ({"objective": ["num_params", "macs"]}, "tune.objective: name accuracy_validation or"),
        ({"objective": "macs"}, "tune.objective: name accuracy_validation or"),
        ({"objective": ["accuracy_validation"] * 2}, "tune.objective: name accuracy_validation or"),
        ({"objective": [*BOTH, "macs"]}, "tune.objective: name accuracy_validation or"),
        ({"objective": ["accuracy_validation", "flops"]}, "unknown objective 'flops'; choose from"),
        ({"objective": "accuracy_validation", "pareto": 3}, "tune.pareto: is of two objectives"),
        ({"pareto": 0}, "tune.pareto"),
    ],
)
def test_mistakes_are_told(tune: dict[str, Any], said: str) -> None:
    with pytest.raises(GridError) as refused:
        grid(**tune)
    assert said in str(refused.value)


@pytest.mark.parametrize("phase", ["search", "retrain"])
def test_a_stop_rule_knows_one_objective(phase: str) -> None:
    tree: dict[str, Any] = {
        "data": {"dataset": "digits"},
        "search": {"methods": ["darts"], "distributions": ["balance"]},
        "retrain": {"recipe": {"images": "search_half"}},
    }
    tree[phase]["recipe"] = tree[phase].get("recipe", {}) | {"lr": LR | {"low": 1e-6}}
    tune = {"trials": 4, "objective": BOTH}
    tree |= {"tune": tune} if phase == "search" else {"retrain": tree["retrain"] | {"tune": tune}}
    tree[phase]["stop"] = {"collapse": {"not_finite": True}}
    Grid.from_dict(tree)
    tree[phase]["stop"] = {"rule": "asha"}
    place = "tune" if phase == "search" else "retrain.tune"
    said = rf"{place}.objective: there are two objectives, and {phase}.stop.rule: asha compares"
    with pytest.raises(GridError, match=said) as raised:
        Grid.from_dict(tree)
    assert str(raised.value).count("\n") == 0, "one message"


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_collapsed_proposal_leaves_two_objectives_tellable(sampler: str) -> None:
    (study,) = {e.study for e in plan(grid(sampler=sampler, startup=2)).searches}
    told = [Told(study.defaults(), 0.5, 1e5)]
    for number in range(1, 6):
        collapsed = number % 2
        values = study.propose(told, [])
        told.append(Told(values, None, None, ()) if collapsed else Told(values, 0.4, 9e4))
    assert len({one.values for one in told}) == 6
