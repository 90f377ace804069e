"""Stop rules: by the numbers, and what a grid may say of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nas_sweeps as ns
from nas_sweeps.grid import GridError
from nas_sweeps.schedule import Outcome, Scheduler
from nas_sweeps.store.files import open_files
from nas_sweeps.store.index import _settled_of, index_of
from nas_sweeps.store.layout import Layout
from nas_sweeps.store.records import SCHEMA_VERSION, Settled, State
from nas_sweeps.store.terms import Terms
from nas_sweeps.tuning import study
from nas_sweeps.tuning.stop import Collapse, Peer, Pruned, Stop, collapsed, compare
from nas_sweeps.tuning.study import Told, _state
from tests.sweep.tiny import TINY


def done(*values: list[float]) -> dict[str, Peer]:
    curves = [dict(enumerate(curve, start=1)) for curve in values]
    return {f"s-{i}": Peer(i, curve, "done") for i, curve in enumerate(curves)}


def epochs(*values: float) -> dict[int, float]:
    return dict(enumerate(values, start=1))


MEDIAN = Stop(rule="median", after_epochs=2, startup=3)
FLAT = done(*([value] * 6 for value in (0.1, 0.2, 0.3)))


@pytest.mark.parametrize(
    ("curve", "prunes"),
    [
        ([0.1], False),  # before after_epochs
        ([0.1, 0.1], True),
        ([0.1, 0.2], False),  # equal to the median is not below it
        ([0.25, 0.1], False),  # its best so far counts
        ([0.1] * 5, True),
        ([0.1] * 6, False),  # nothing is left of it
    ],
)
def test_median(curve: list[float], prunes: bool) -> None:
    found = compare(MEDIAN, "search", 6, 3, epochs(*curve), FLAT)
    assert (found is not None) == prunes
    if found is not None:
        assert found.epoch == len(curve)
        assert found.peers == {"s-0": 0.1, "s-1": 0.2, "s-2": 0.3}
        assert found.by == "search median after_epochs=2 startup=3"
        assert "0.1000 against 0.2000, the median of 3 done" in found.why


def test_median_waits_for_enough_that_are_done() -> None:
    ended = {**FLAT, "s-0": replace_ended(FLAT["s-0"], "pruned")}
    assert compare(MEDIAN, "search", 6, 3, epochs(0.0, 0.0), ended) is None
    assert compare(replace(MEDIAN, startup=2), "search", 6, 3, epochs(0.0, 0.0), ended)


def replace_ended(peer: Peer, ended: Any) -> Peer:
    return peer._replace(ended=ended)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=0, max_size=9), st.floats(0, 1), st.integers(1, 12))
def test_asha_keeps_the_best_third_at_each_rung(
    others: list[float], value: float, epoch: int
) -> None:
    """arXiv 1810.05934: of n at a rung, n // 3 go on; the best alone where these are none."""
    stop, place = Stop(rule="asha", after_epochs=2), len(others)
    peers = {f"s-{i}": Peer(i, dict.fromkeys(range(1, 12), v)) for i, v in enumerate(others)}
    found = compare(stop, "search", 12, place, dict.fromkeys(range(1, epoch + 1), value), peers)
    ranked = sorted([*others, value], reverse=True)
    kept = ranked[max(1, len(ranked) // 3) - 1]
    assert (found is not None) == (epoch in (2, 6) and value < kept)


def test_hyperband_compares_trials_of_a_bracket_alone() -> None:
    """A trial of a later bracket is not compared at the first rung, and no trial with one."""
    stop = Stop(rule="hyperband", after_epochs=1)
    best = done(*([1.0] * 9 for _ in range(12)))
    pruned_at = {}
    for place in range(12, 36):
        curve: dict[int, float] = {}
        for epoch in range(1, 9):
            curve[epoch] = 0.5
            if compare(stop, "search", 9, place, curve, best):
                break
        pruned_at[place] = max(curve)
    # Brackets begin at epochs 1, 3 and 9, at which the trial has ended.
    assert set(pruned_at.values()) == {1, 3, 8}


def test_peers_are_compared_at_equal_epochs() -> None:
    short = {f"s-{i}": Peer(i, epochs(0.9)) for i in range(3)}
    assert compare(Stop(rule="asha", after_epochs=2), "search", 6, 3, epochs(0, 0), short) is None
    late = {f"s-{i}": Peer(i, epochs(0.1, 0.1, 0.9), "done") for i in range(3)}
    assert compare(MEDIAN, "search", 6, 3, epochs(0.2, 0.2), late) is None


def test_collapse_is_off_by_default_and_waits_for_after_epochs() -> None:
    row = {"epoch": 5, "num_skip_normal": 8, "alpha_entropy_normal": 0, "alpha_entropy_reduce": 0}
    assert collapsed(Stop(), "search", row) is None
    assert not Stop()
    one = Stop(collapse=Collapse(skip_connections=0))
    assert one
    assert one.reasons("search") == {"search collapse skip_connections=0 after_epochs=5"}
    assert collapsed(one, "search", row | {"epoch": 4}) is None
    assert collapsed(one, "search", row | {"num_skip_normal": 0}) is None
    assert collapsed(one, "search", row)
    entropy = Stop(collapse=Collapse(alpha_entropy=0.5))
    assert collapsed(entropy, "search", row)
    assert collapsed(entropy, "search", row | {"alpha_entropy_reduce": 0.6}) is None
    assert collapsed(entropy, "search", {"epoch": 9}) is None, "a method without alphas"


def test_what_was_decided_is_read_as_it_was_written(tmp_path: Any) -> None:
    record = Pruned(by="b", why="w", epoch=2, value=0.1, peers={"s-1": 0.2}, curve={1: 0.3, 2: 0.1})
    assert Pruned.from_json(record.to_json()) == record
    settled = Settled(state=State.PRUNED, **Settled.facts(record))
    other = Settled(state=State.DONE, accuracy_validation=0.5, accuracy_macro_validation=0.25)
    index = index_of({"a": settled, "b": other}) | {"schema": SCHEMA_VERSION}
    assert _settled_of(index) == {"a": settled, "b": other}
    for row in index["settled"].values():  # as schema 8 had it
        del row[3]
    plain = replace(other, accuracy_macro_validation=None)
    assert _settled_of(index | {"schema": 8}) == {"a": settled, "b": plain}
    terms = Terms(
        stop=Stop(rule="asha", collapse=Collapse(not_finite=True)), number=3, peers={"a": 1}
    )
    file = Layout(open_files(tmp_path)).trial("s-1").terms("0001-3f9a2c")
    assert Terms.read(file) is None
    terms.publish(file)
    assert Terms.read(file) == terms


def test_optuna_is_told_that_a_proposal_was_pruned() -> None:
    told = [Told((), 0.5), Told((), None), Told((), None, pruned=((1, 0.1),))]
    states = [_state(one, [0.5] if one.objective else None).name for one in told]
    assert states == ["COMPLETE", "FAIL", "PRUNED"]


def test_a_study_passes_on_what_its_pruned_proposals_came_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of_study = grid(
        search={"methods": [{"darts": {"arch_lr": {"low": 1e-4, "high": 1e-2}}}]},
        tune={"trials": 4, "startup": 1, "parallel": 1},
    )
    seen: list[Any] = []
    ask = study._known
    monkeypatch.setattr(study, "_known", lambda *told: seen.append(ask(*told)) or seen[-1])
    scheduler, curve = Scheduler(ns.plan(of_study)), ((1, 0.1), (2, 0.3))
    outcomes = [Outcome(state=State.PRUNED, curve=curve), Outcome(state=State.FAILED)]
    for outcome in outcomes:
        task = scheduler.next_task()
        assert task is not None
        scheduler.settle(task.trial.trial_id, outcome)
    pruned, failed, _ = seen[-1].trials
    assert (pruned.state.name, pruned.intermediate_values) == ("PRUNED", dict(curve))
    assert (failed.state.name, failed.intermediate_values) == ("FAIL", {})


# In a grid


def grid(**sections: dict[str, Any]) -> ns.Grid:
    return ns.Grid.from_dict(
        TINY | {name: TINY.get(name, {}) | more for name, more in sections.items()}
    )


RECIPE = TINY["search"]["recipe"] | {"epochs": 9}
TUNED = {
    "methods": [{"darts": {"arch_lr": {"low": 1e-4, "high": 1e-2}}}],
    "recipe": RECIPE | {"test_every": 1},
}


def test_peers_are_compared_by_what_their_study_maximises() -> None:
    asha: dict[str, Any] = TUNED | {"stop": {"rule": "asha", "after_epochs": 2}}
    of = grid(search=asha, tune={"trials": 2})
    stop = of.stop("search")
    assert stop.compares == "accuracy_macro_validation"
    assert stop.compared("search").endswith(" measure=accuracy_macro_validation")
    assert ns.Grid.from_json(of.to_json()).stop("search") == stop
    plain = grid(search=asha, tune={"trials": 2, "objective": "accuracy_validation"})
    assert plain.stop("search").compares == "accuracy_validation"
    untuned = grid(search=asha | {"methods": ["darts"]}).stop("search")
    assert untuned.compares == "accuracy_validation"
    before = "search asha after_epochs=2 reduction_factor=3"  # as stores have it
    assert {untuned.compared("search"), plain.stop("search").compared("search")} == {before}
    asked = asha["stop"] | {"measure": "accuracy_macro_validation"}
    macro = grid(search=asha | {"methods": ["darts"], "stop": asked}).stop("search")
    assert macro.compares == "accuracy_macro_validation"


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"search": {"stop": "medan"}},
         "grid: search.stop.rule: unknown choice 'medan'; choose from none, median, asha, "
         "hyperband (did you mean median?)"),
        ({"search": {"stop": 3}},
         "grid: search.stop: 3 is no rule; write {rule: median, after_epochs: 5}"),
        ({"search": {"stop": {"rule": "asha"}}},
         "grid: search.stop.after_epochs: no trial is left to stop after 5 of 1 epochs "
         "(search.recipe.epochs); write a smaller number"),
        ({"search": {"stop": "asha", "recipe": RECIPE | {"test_every": 10}}},
         "grid: search.stop.rule: compares what is measured after epoch 5 and before the last, and "
         "search.recipe.test_every: 10 measures nothing there; lower it"),
        ({"search": {"stop": {"collapse": {"skips": 3}}}},
         "grid: search.stop.collapse.skips: unknown setting 'skips'; choose from skip_connections, "
         "alpha_entropy, not_finite"),
        ({"retrain": {"stop": {"collapse": {"alpha_entropy": 0.1}}}},
         "grid: retrain.stop.collapse.alpha_entropy: is of searches: a retrain has its cells"),
        ({"search": TUNED | {"stop": {"rule": "asha", "measure": "accuracy_validation"}},
          "tune": {"trials": 2}},
         "grid: tune.objective: is accuracy_macro_validation, and search.stop.measure: "
         "accuracy_validation would give up what the study looks for: write one for both, or leave "
         "measure out"),
        ({"search": {"stop": {"rule": "asha", "measure": "accuracy_tail"}}},
         "grid: search.stop.measure: unknown choice 'accuracy_tail'; choose from "
         "accuracy_validation, accuracy_macro_validation (did you mean accuracy_validation?)"),
        ({"retrain": {"stop": "median"}},
         "grid: retrain.stop.rule: compares by accuracy on V, and a retrain on all training "
         "images measures nothing but the test set, on which nothing may be decided: write "
         "retrain.recipe.images: search_half, which holds V out, or leave the rule out"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(sections: Any, line: str) -> None:
    with pytest.raises(GridError) as refused:
        grid(**sections)
    assert str(refused.value).splitlines() == [line]


def test_a_rule_is_part_of_no_identity_and_of_the_grid() -> None:
    stop = {"rule": "asha", "after_epochs": 2, "collapse": {"skip_connections": 2}}
    plain, ruled = grid(search={"recipe": RECIPE}), grid(search={"recipe": RECIPE, "stop": stop})
    assert '"stop"' not in plain.to_json()
    assert ns.Grid.from_json(ruled.to_json()) == ruled
    assert list(ns.plan(plain)) == list(ns.plan(ruled))
    assert ns.plan(ruled).reasons == {
        "search asha after_epochs=2 reduction_factor=3",
        "search collapse skip_connections=2 after_epochs=2",
    }
    held_out = {"images": "search_half", "epochs": 9}
    retrains = grid(retrain={"recipe": TINY["retrain"]["recipe"] | held_out, "stop": "median"})
    assert ns.Grid.from_json(retrains.to_json()) == retrains
