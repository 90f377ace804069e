from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_sweeps.publish import read_json
from nas_sweeps.store import Origin, Result, State, Store, ledger

GONE = 2**22 + 1  # beyond Linux's largest pid


def test_the_ledger_imports_no_torch_ray_or_tables() -> None:
    code = "import sys, nas_sweeps.store; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "ray", "pandas", "pyarrow"} & set(loaded.stdout.split())


def test_create_refuses_a_file_in_the_way_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="file in the way"):
            Store(path).create()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_create_refuses_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.create()
    store.layout.trials.chmod(0o500)
    with pytest.raises(ValueError, match="cannot be written to"):
        store.create()


def test_a_store_that_is_not_there_yet_has_no_trials(tmp_path: Path) -> None:
    assert Store(tmp_path / "none").states() == {}
    assert Store(tmp_path / "none").results() == {}


def test_a_spec_is_written_once_and_read_back(lab: Any) -> None:
    trial = lab.search(variant="order=second")
    lab.store.ask(trial, variant="something else")
    assert lab.store.spec(trial.trial_id) == trial
    asked = read_json(lab.store.layout.trial(trial.trial_id).spec)
    assert asked is not None
    assert asked["variant"] == "order=second"


def test_asking_again_heals_a_torn_spec(lab: Any) -> None:
    trial = lab.search()
    lab.store.layout.trial(trial.trial_id).spec.write_text('{"spec": {')
    with pytest.warns(UserWarning, match=r"trial\.json"):
        lab.store.ask(trial)
    assert lab.store.spec(trial.trial_id) == trial


def test_an_unknown_trial_is_a_users_mistake(lab: Any) -> None:
    with pytest.raises(ValueError, match="s-none"):
        lab.store.spec("s-none")


def test_states_follow_a_trial_from_asked_to_done(lab: Any) -> None:
    store, trial = lab.store, lab.search()
    seen = [store.states()[trial.trial_id]]
    attempt = store.begin(trial.trial_id)
    seen.append(store.states()[trial.trial_id])
    store.finish(trial.trial_id, lab.result(trial, attempt))
    seen += [store.states()[trial.trial_id], Store(store.root).states()[trial.trial_id]]
    assert seen == [State.WAITING, State.RUNNING, State.DONE, State.DONE]
    assert [state.settled for state in seen] == [False, False, True, True]


def test_a_result_is_read_back_whole(lab: Any) -> None:
    trial = lab.search()
    result = lab.result(
        trial,
        metrics={"accuracy_tail": 0.5, "macs": 3},
        genotype_facts={"rule": "darts_top2", "threshold": None, "gap_normal": 0.1},
        cost={"wall_s": 1.25},
        versions={"python": "3.11"},
        host="näme",
    )
    assert lab.store.finish(trial.trial_id, result)
    assert Store(lab.store.root).result(trial.trial_id) == result


def test_a_metric_that_is_not_a_number_does_not_lose_the_result(lab: Any) -> None:
    trial = lab.search()
    lab.store.finish(trial.trial_id, lab.result(trial, metrics={"accuracy_medium": math.nan}))
    assert math.isnan(lab.store.result(trial.trial_id).metrics["accuracy_medium"])


def test_a_metric_without_a_column_is_our_error(lab: Any) -> None:
    trial = lab.search()
    with pytest.raises(AssertionError, match="acuracy"):
        lab.store.finish(trial.trial_id, lab.result(trial, metrics={"acuracy": 1.0}))


def test_a_dead_process_of_this_host_counts_as_waiting(lab: Any) -> None:
    trial = lab.search()
    lab.store.begin(trial.trial_id, pid=GONE)
    assert lab.store.state(trial.trial_id) is State.WAITING


def test_a_stale_heartbeat_of_another_host_counts_as_waiting(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = lab.search()
    lab.store.begin(trial.trial_id, host="elsewhere", pid=GONE)
    assert lab.store.state(trial.trial_id) is State.RUNNING
    later = ledger._now() + timedelta(seconds=ledger.STALE_S + 1)
    monkeypatch.setattr(ledger, "_now", lambda: later)
    assert lab.store.state(trial.trial_id) is State.WAITING


def test_a_beat_keeps_an_attempt_alive(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = lab.search()
    lab.store.begin(trial.trial_id)
    later = ledger._now() + timedelta(seconds=ledger.STALE_S + 1)
    monkeypatch.setattr(ledger, "_now", lambda: later)
    assert lab.store.state(trial.trial_id) is State.WAITING
    assert lab.store.beat(trial.trial_id, 1)
    assert lab.store.state(trial.trial_id) is State.RUNNING


def test_an_overtaken_worker_learns_it_and_cannot_settle_the_trial(lab: Any) -> None:
    store, trial = lab.store, lab.search()
    first = store.begin(trial.trial_id)
    second = store.begin(trial.trial_id, host="elsewhere", pid=7)
    assert (first, second) == (1, 2)
    assert not store.beat(trial.trial_id, first)
    assert store.beat(trial.trial_id, second)
    assert not store.finish(trial.trial_id, lab.result(trial, first, state="failed"))
    assert store.result(trial.trial_id) is None
    assert store.finish(trial.trial_id, lab.result(trial, second))


def test_done_is_final(lab: Any) -> None:
    store, trial = lab.store, lab.search()
    first = lab.result(trial, store.begin(trial.trial_id), host="first")
    store.finish(trial.trial_id, first)
    again = lab.result(trial, store.begin(trial.trial_id), state="failed")
    assert not store.finish(trial.trial_id, again)
    assert store.result(trial.trial_id) == first


def test_a_failed_trial_can_be_tried_again(lab: Any) -> None:
    store, trial = lab.store, lab.search()
    failure = lab.result(trial, store.begin(trial.trial_id), state="failed")
    store.finish(trial.trial_id, failure)
    assert store.states()[trial.trial_id] is State.FAILED
    attempt = store.begin(trial.trial_id)
    assert store.states()[trial.trial_id] is State.RUNNING
    assert store.finish(trial.trial_id, lab.result(trial, attempt))
    assert store.states()[trial.trial_id] is State.DONE


def test_a_driver_can_settle_for_workers_that_died(lab: Any) -> None:
    store, trial = lab.store, lab.search()
    for _ in range(3):
        store.begin(trial.trial_id)
    assert store.finish(trial.trial_id, lab.result(trial, None, state="failed"))
    assert store.result(trial.trial_id).attempt == 3


def test_linking_twice_is_linking_once(lab: Any) -> None:
    a = Origin(method="darts", variant="order=second", search_id="s-1", seed=3)
    b = Origin(method="DARTS_V2")
    trial = lab.retrain(0, a, b, a, replace(b))
    assert set(lab.store.origins(trial.trial_id)) == {a, b}
    assert len(lab.store.origins(trial.trial_id)) == 2


def test_a_torn_origin_hides_no_other_and_is_healed(lab: Any) -> None:
    a, b = Origin(method="a"), Origin(method="b")
    trial = lab.retrain(0, a, b)
    torn = lab.store.layout.trial(trial.trial_id).origins / f"{a.key}.json"
    torn.write_text("{")
    with pytest.warns(UserWarning, match=a.key):
        assert lab.store.origins(trial.trial_id) == (b,)
    with pytest.warns(UserWarning, match=a.key):
        lab.store.link(trial.trial_id, a)
    assert set(lab.store.origins(trial.trial_id)) == {a, b}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"state": "done"}', '{"trial_id": 1, "state": "gone", "attempt": "x"}'],
)
def test_a_corrupt_result_is_not_settled_and_hides_no_other(lab: Any, content: str) -> None:
    bad, good = lab.search(0), lab.search(1)
    for trial in (bad, good):
        lab.store.finish(trial.trial_id, lab.result(trial))
    lab.store.layout.trial(bad.trial_id).result.write_text(content)
    with pytest.warns(UserWarning, match=r"result\.json"):
        states = lab.store.states()
    assert states == {bad.trial_id: State.WAITING, good.trial_id: State.DONE}
    with pytest.warns(UserWarning, match=bad.trial_id):
        assert list(lab.store.results()) == [good.trial_id]


@pytest.mark.parametrize("content", ["{", "{}", '{"attempt": 1, "pid": "x", "heartbeat": "?"}'])
def test_a_corrupt_attempt_can_be_begun_again(lab: Any, content: str) -> None:
    trial = lab.search()
    lab.store.begin(trial.trial_id)
    lab.store.layout.trial(trial.trial_id).attempt.write_text(content)
    with pytest.warns(UserWarning, match=r"attempt\.json"):
        assert lab.store.states() == {trial.trial_id: State.WAITING}
    with pytest.warns(UserWarning, match=r"attempt\.json"):
        assert lab.store.begin(trial.trial_id) == 1
    assert lab.store.state(trial.trial_id) is State.RUNNING


def test_strange_entries_in_the_store_are_no_trials(lab: Any) -> None:
    trial = lab.search()
    (lab.store.layout.trials / ".s-hidden").mkdir()
    (lab.store.layout.trials / "lost+found").mkdir()
    (lab.store.layout.trials / "s-file").touch()
    assert list(lab.store.states()) == [trial.trial_id]


def test_grids_are_kept_once_each_and_come_latest_first(lab: Any) -> None:
    first = lab.store.keep_grid('{"name": "a"}')
    os.utime(first, (0, 0))
    lab.store.keep_grid('{"name": "b"}')
    assert lab.store.keep_grid('{"name": "a"}') == first
    assert [grid["name"] for grid in lab.store.grids()] == ["b", "a"]


STEPS = st.tuples(
    st.sampled_from(["ask", "begin", "beat", "done", "failed", "late", "restart"]),
    st.integers(0, 2),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_any_order_of_steps_ends_in_the_same_done_set(steps: list[tuple[str, int]]) -> None:
    """Against a model: done exactly when an attempt that was not overtaken said so first."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.create()
        attempts, done = dict.fromkeys(range(3), 0), set[int]()
        for step, i in steps:
            trial_id = f"s-{i}"
            if step == "restart":  # the driver is killed and started anew
                store = Store(folder)
            elif step == "begin":
                attempts[i] += 1
                assert store.begin(trial_id) == attempts[i]
            elif step == "beat":
                assert store.beat(trial_id, max(1, attempts[i])) == (attempts[i] > 0)
                assert not store.beat(trial_id, attempts[i] - 1)
            elif attempts[i] and step in ("done", "failed", "late"):
                state, attempt = step.replace("late", "done"), attempts[i] - (step == "late")
                written = store.finish(trial_id, ended(trial_id, state, attempt))
                assert written == (step != "late" and i not in done)
                done |= {i} if step == "done" else set()
            assert {t for t, s in store.states().items() if s is State.DONE} == {
                f"s-{k}" for k in done
            }
        for i in set(range(3)) - done:  # the rest, whatever happened before
            attempt = store.begin(f"s-{i}")
            assert store.finish(f"s-{i}", ended(f"s-{i}", "done", attempt))
        assert set(store.results()) == {"s-0", "s-1", "s-2"}
        assert all(result.state == "done" for result in store.results().values())


def ended(trial_id: str, state: Any, attempt: int) -> Result:
    time = "2025-01-01T00:00:00+00:00"
    return Result(
        trial_id=trial_id,
        phase="search",
        state=state,
        attempt=attempt,
        started_at=time,
        finished_at=time,
    )
