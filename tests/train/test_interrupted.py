"""Stopping a run, between epochs and at any place inside where one may, changes no bit of it."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nas_sweeps.data import augment
from nas_sweeps.train import common
from nas_sweeps.train.common import Meter
from nas_sweeps.train.retrain import RetrainRun
from nas_sweeps.train.search import SearchRun
from tests.train.tiny_runs import (
    CPU,
    RETRAINS,
    SEARCHES,
    Finished,
    make,
    retrain_run,
    tensors,
    through_a_file,
    timeless,
    undisturbed,
)

# A tiny search calls `between` five times an epoch (four with Barlow Twins): after each of three
# (two) steps, on V and on the test set. A tiny retrain: after each of five steps (four of
# pretraining, without an evaluation) and on the test set.
GO_ON = ("this run", "a new run, state taken inside", "a new run, state taken after")
THIS, INSIDE, AFTER = GO_ON
SEARCH_STOPS = {1: AFTER, 2: THIS, 3: INSIDE, 4: THIS, 6: AFTER, 10: THIS}
OFTEN_STOPPED = ("darts", "fairdarts", "ssf_nas")
RETRAIN_STOPS = {1: AFTER, 3: THIS, 4: INSIDE, 5: AFTER, 6: THIS, 7: AFTER, 10: INSIDE, 12: AFTER}


class Stop(BaseException):
    """Not even an Exception: whatever ``between`` raises must do."""


def scramble(seed: int) -> None:
    """What another process, or another trial in this one, makes of the global generators."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    augment._scale_shift.cache_clear()  # a new process's first use may be in an evaluation


def finish_with_stops(name: str, stops: dict[int, str], **recipe: int) -> Finished:
    """Run to the end, stopped at these calls of ``between`` (counted over the whole run).

    Between epochs, too, a new run takes over.
    """
    run, rows, calls, inside = make(name, **recipe), [], 0, {}

    def between() -> None:
        nonlocal calls, inside
        calls += 1
        if calls in stops:
            inside = through_a_file(run.state_dict()) if stops[calls] == INSIDE else {}
            raise Stop

    while run.epochs_done < run.epochs_total:
        try:
            rows.append(timeless(run.run_epoch(between)))
            way = THIS if run.epochs_done == run.epochs_total else AFTER
        except Stop:
            way = stops[calls]
        scramble(calls)
        if way != THIS:
            state = inside if way == INSIDE else through_a_file(run.state_dict())
            run = make(name, **recipe)
            run.load_state_dict(state)
    return Finished.of(run, rows)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", OFTEN_STOPPED)
def test_a_search_stopped_at_steps_and_in_evaluations_has_the_same_bits(name: str) -> None:
    finish_with_stops(name, SEARCH_STOPS).assert_same_bits(undisturbed(name))


# What is between their epochs is what these have there: one epoch and one stop inside it will do.
# (And of beta_darts not even that: it is darts with a regulariser, which has no state.)
STATE_OF = {
    "darts second fd": "darts",
    "darts second exact": "darts",
    "ssf_nas joint": "ssf_nas",
    "ssf_nas w_only": "ssf_nas",
    "ssf_nas alpha_only": "ssf_nas",
}
SLOW = [pytest.param("beta_darts", marks=pytest.mark.slow)]
STOPPED_ONCE = [n for n in SEARCHES if n not in (*OFTEN_STOPPED, *STATE_OF, "beta_darts")]


@pytest.mark.parametrize("name", [*STOPPED_ONCE, *SLOW])
def test_a_search_stopped_once_and_between_epochs_has_the_same_bits(name: str) -> None:
    finish_with_stops(name, {2: AFTER}).assert_same_bits(undisturbed(name))


@pytest.mark.parametrize("name", STATE_OF)
def test_a_search_stopped_inside_its_epoch_has_the_same_bits(name: str) -> None:
    """Its parts between epochs are those of a search that is stopped there too."""
    assert parts(make(name).state_dict()) <= parts(make(STATE_OF[name]).state_dict())
    finish_with_stops(name, {2: AFTER}, epochs=1).assert_same_bits(undisturbed(name, epochs=1))


@pytest.mark.parametrize("name", ["fairdarts", "plain"])
def test_learning_rates_go_on_along_their_curve_after_a_stop(name: str) -> None:
    """The rate of the epoch after the next: the next one's is in the optimiser."""
    finish_with_stops(name, {}, epochs=3).assert_same_bits(undisturbed(name, epochs=3))


def parts(value: object, path: tuple[object, ...] = ()) -> set[tuple[object, ...]]:
    """Where a state holds anything; a list holds it in one place."""
    inside = value.items() if isinstance(value, dict) else ()
    if isinstance(value, (list, tuple)):
        inside = [("*", part) for part in value]
    return {path}.union(*(parts(part, (*path, name)) for name, part in inside))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", RETRAINS)
def test_a_retrain_stopped_at_steps_and_in_evaluations_has_the_same_bits(name: str) -> None:
    finish_with_stops(name, RETRAIN_STOPS).assert_same_bits(undisturbed(name))


@settings(max_examples=8, deadline=None)
@given(
    name=st.sampled_from(["all the trimmings", "barlow then all", "barlow then linear"]),
    stops=st.dictionaries(st.integers(1, 10), st.sampled_from(GO_ON), max_size=6),
)
@example(name="barlow then linear", stops={4: AFTER, 5: AFTER})  # the ends of two stages
def test_a_retrain_stopped_anywhere_has_the_same_bits(name: str, stops: dict[int, str]) -> None:
    finish_with_stops(name, stops).assert_same_bits(undisturbed(name))


@pytest.mark.parametrize("name", ["ssf_nas", "all the trimmings", "barlow then all"])
def test_training_leaves_the_global_generators_alone(name: str) -> None:
    scramble(5)
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    make(name).run_epoch()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (str(np.random.get_state()), random.getstate()) == before[1:]


def stop_at(run: SearchRun | RetrainRun, call: int) -> None:
    calls = iter(range(1, call))

    def between() -> None:
        if next(calls, None) is None:
            raise Stop

    with pytest.raises(Stop):
        run.run_epoch(between)


@pytest.mark.parametrize("name", ["fairdarts", "search half"])
def test_a_stop_in_an_evaluation_runs_no_training_step_again(name: str, monkeypatch) -> None:
    monkeypatch.setitem(common.EVAL_BATCH, "cpu", 12)
    run = make(name)
    steps: list[str] = []
    run.sgd.register_step_post_hook(lambda *_: steps.append("step"))
    stop_at(run, 3 + 5)  # three steps, three batches of V, and the test set's second
    assert steps == ["step"] * 3
    assert run.epochs_done == 0
    model = run.model if isinstance(run, SearchRun) else run.network
    assert all(module.training for module in model.modules())
    before = [t.clone() for t in tensors(model.state_dict())]
    run.run_epoch()
    assert steps == ["step"] * 3
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(model.state_dict()), strict=True))
    assert run.epochs_done == 1


def test_a_place_inside_an_epoch_costs_a_checkpoint_nothing_but_the_sums() -> None:
    run = retrain_run()
    run.run_epoch()
    between_epochs = through_a_file(run.state_dict())
    stop_at(run, 2)
    inside = through_a_file(run.state_dict())
    sums = inside["meter"]["sums"]
    assert sums.keys() == {"loss_weights", "accuracy_train"}
    size, size_inside = (sum(t.numel() for t in tensors(s)) for s in (between_epochs, inside))
    assert size_inside == size + len(sums)


def test_between_epochs_there_is_nothing_half_done() -> None:
    run = retrain_run()
    run.run_epoch()
    state = run.state_dict()
    assert state["epochs_done"] == 1
    assert state["passes"]["taken"] == 0
    assert state["meter"] == Meter(CPU).state_dict()


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(common, "time", SimpleNamespace(perf_counter=lambda: self.now))


def test_seconds_add_up_over_the_parts_and_leave_out_the_pause(monkeypatch) -> None:
    clock = Clock(monkeypatch)
    whole, first, second = retrain_run(), retrain_run(), retrain_run()

    def stops_after_two() -> None:
        clock.now += 1
        if clock.now == 2:
            raise Stop

    def tick() -> None:
        clock.now += 1

    with pytest.raises(Stop):
        first.run_epoch(stops_after_two)
    clock.now += 1000
    second.load_state_dict(through_a_file(first.state_dict()))
    clock.now += 1000
    for row in (second.run_epoch(tick), whole.run_epoch(tick), first.run_epoch(tick)):
        assert row["epoch_s"] == 6  # five steps and one batch of the test set
        assert row["images_per_s"] == 73 / 5


def test_a_repeated_evaluation_counts_in_the_epoch_but_not_in_throughput(monkeypatch) -> None:
    clock = Clock(monkeypatch)
    meter = Meter(CPU, images=30)
    with meter.running():
        clock.now += 3
        meter.trained()
        clock.now += 4
    clock.now += 1000
    with meter.running():
        meter.trained()
        clock.now += 5
        row = meter.row()
    assert row["epoch_s"] == 12
    assert row["images_per_s"] == 10
