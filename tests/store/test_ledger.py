from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_sweeps.store import Origin, Result, State, Store, ledger, trial_files
from nas_sweeps.store.layout import Writer
from nas_sweeps.store.ledger import AlreadyDone, Attempt, Overtaken
from nas_sweeps.tables.compaction import write_epochs
from nas_sweeps.tables.reading import load
from nas_sweeps.trial import Data, Distribution, MethodSpec, SearchRecipe, SearchTrial

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
    (tmp_path / "s").chmod(0o500)
    with pytest.raises(ValueError, match="cannot be written to"):
        store.create()


def test_a_store_that_is_not_there_yet_has_no_trials(tmp_path: Path) -> None:
    assert Store(tmp_path / "none").states() == {}
    assert Store(tmp_path / "none").results() == {}


def test_a_spec_is_written_once_and_read_back(lab: Any) -> None:
    trial = lab.search(variant="order=second")
    lab.store.register(trial, variant="something else")
    assert lab.store.spec(trial.trial_id) == trial
    asked = lab.store.layout.trial(trial.trial_id).spec.read_json()
    assert asked is not None
    assert asked["variant"] == "order=second"


def test_asking_again_heals_a_torn_spec(lab: Any) -> None:
    trial = lab.search()
    lab.file(trial, "spec").write_text('{"spec": {')
    with pytest.warns(UserWarning, match=r"trial\.json"):
        lab.store.register(trial)
    assert lab.store.spec(trial.trial_id) == trial


def test_a_spec_that_is_none_names_its_file_and_the_trial(lab: Any) -> None:
    trial = lab.search()
    lab.file(trial, "spec").write_text('{"spec": {"phase": "search"}}')
    with (
        pytest.warns(UserWarning, match=r"trial\.json"),
        pytest.raises(ValueError, match=trial.trial_id),
    ):
        lab.store.spec(trial.trial_id)


def test_an_unknown_trial_is_a_users_mistake(lab: Any) -> None:
    with pytest.raises(ValueError, match="s-none"):
        lab.store.spec("s-none")


def test_states_follow_a_trial_from_asked_to_done(lab: Any) -> None:
    store, trial = lab.store, lab.search()
    seen = [store.states()[trial.trial_id]]
    attempt = store.begin(trial.trial_id)
    seen.append(store.states()[trial.trial_id])
    attempt.finish(lab.result(trial))
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
    assert lab.begin(trial).finish(result)
    assert Store(lab.store.root).result(trial.trial_id) == result


def test_a_metric_that_is_not_a_number_does_not_lose_the_result(lab: Any) -> None:
    trial = lab.search()
    lab.begin(trial).finish(lab.result(trial, metrics={"accuracy_medium": math.nan}))
    assert math.isnan(lab.store.result(trial.trial_id).metrics["accuracy_medium"])


def test_a_metric_without_a_column_is_our_error(lab: Any) -> None:
    trial = lab.search()
    with pytest.raises(AssertionError, match="acuracy"):
        lab.begin(trial).finish(lab.result(trial, metrics={"acuracy": 1.0}))


def test_a_dead_process_of_this_host_counts_as_waiting(lab: Any) -> None:
    trial = lab.search()
    lab.begin(trial, pid=GONE)
    assert lab.store.state(trial.trial_id) is State.WAITING


def test_a_stale_heartbeat_of_another_host_counts_as_waiting(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = lab.search()
    lab.begin(trial, host="elsewhere", pid=GONE)
    assert lab.store.state(trial.trial_id) is State.RUNNING
    for module in (ledger, trial_files):
        monkeypatch.setattr(module, "now", later)
    assert lab.store.state(trial.trial_id) is State.WAITING


def later() -> str:
    return (datetime.now(UTC) + timedelta(seconds=trial_files.STALE_S + 1)).isoformat()


def test_a_beat_keeps_an_attempt_alive(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = lab.search()
    attempt = lab.begin(trial)
    for module in (ledger, trial_files):
        monkeypatch.setattr(module, "now", later)
    assert lab.store.state(trial.trial_id) is State.WAITING
    attempt.beat()
    assert lab.store.state(trial.trial_id) is State.RUNNING


def test_an_attempt_that_was_asked_to_stop_runs_no_more(lab: Any) -> None:
    trial = lab.search()
    lab.begin(trial).publish(state="stopped")
    assert lab.store.state(trial.trial_id) is State.WAITING


def test_an_overtaken_worker_learns_it_and_cannot_settle_the_trial(lab: Any) -> None:
    store, trial = lab.store, lab.search()
    first, second = store.begin(trial.trial_id), Store(store.root).begin(trial.trial_id)
    assert (first.number, second.number) == (1, 2)
    with pytest.raises(Overtaken):
        first.beat()
    second.beat()
    assert not first.finish(lab.result(trial, 1, state="failed"))
    assert store.result(trial.trial_id) is None
    assert second.finish(lab.result(trial, 2))


def test_what_an_overtaken_worker_writes_all_the_same_is_read_by_nobody(lab: Any) -> None:
    """Frozen between its look and its write, and woken after its successor had finished."""
    trial = lab.search()
    frozen = lab.begin(trial)
    lab.epochs(trial, (0.1,))
    lab.finish(trial, accuracy=0.75)
    before = ns_rows(lab)
    late = lab.result(trial, 1, metrics={"accuracy_balanced": 0.5})
    frozen.files.result.publish_json(asdict(late))
    write_epochs(frozen.files, [{"stage": "search", "epoch": 1, "accuracy_balanced": 0.9}])
    frozen.files.record.publish_json(asdict(frozen.record))
    assert ns_rows(lab) == before
    assert lab.store.result(trial.trial_id).attempt == 2


def ns_rows(lab: Any) -> list[Any]:
    frames = load(lab.store)
    rows = frames.trials[["trial_id", "state", "attempt", "accuracy_balanced"]].values.tolist()
    return [*rows, *frames.epochs[["epoch", "accuracy_balanced"]].values.tolist()]


def test_two_workers_that_begin_at_once_are_told_apart(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both listed the folder before either wrote: one number, two tokens, one speaks."""
    trial = lab.search()
    one = lab.begin(trial)
    other = Attempt(lab.store, trial.trial_id, Writer(1, "ffffff"), one.record)
    other.publish()
    assert one.writer != other.writer
    with pytest.raises(Overtaken):
        min(one, other, key=lambda attempt: attempt.writer).check()
    max(one, other, key=lambda attempt: attempt.writer).check()


def test_done_is_final(lab: Any) -> None:
    store, trial = lab.store, lab.search()
    result = lab.result(trial, 1, host="first")
    store.begin(trial.trial_id).finish(result)
    with pytest.raises(AlreadyDone):
        store.begin(trial.trial_id)
    assert store.result(trial.trial_id) == result


def test_an_attempt_begun_while_another_finished_steps_back(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, trial = lab.store, lab.search()
    first = store.begin(trial.trial_id)
    result = lab.result(trial, 1)
    publish = Attempt.publish

    def finish_first(self: Attempt, **facts: Any) -> None:
        if self.number == 2:
            first.finish(result)
        publish(self, **facts)

    monkeypatch.setattr(Attempt, "publish", finish_first)
    with pytest.raises(AlreadyDone):
        store.begin(trial.trial_id)
    assert store.result(trial.trial_id) == result


def test_a_failed_trial_can_be_tried_again(lab: Any) -> None:
    store, trial = lab.store, lab.search()
    store.begin(trial.trial_id).finish(lab.result(trial, 1, state="failed"))
    assert store.states()[trial.trial_id] is State.FAILED
    attempt = store.begin(trial.trial_id)
    assert store.states()[trial.trial_id] is State.RUNNING
    assert attempt.finish(lab.result(trial, 2))
    assert store.states()[trial.trial_id] is State.DONE


def test_a_driver_settles_for_workers_that_died_and_overtakes_them(lab: Any) -> None:
    store, trial = lab.store, lab.search()
    for _ in range(3):
        last = store.begin(trial.trial_id)
    result = store.mark_failed(trial, "WorkerLost", "its worker died")
    assert (result.state, result.attempt, result.transient) == ("failed", 4, True)
    with pytest.raises(Overtaken):
        last.beat()
    assert [a.state for a in load(store).attempts.itertuples()] == ["lost"] * 3 + ["failed"]


def test_condemning_a_trial_that_was_done_after_all_changes_nothing(lab: Any) -> None:
    trial = lab.finish(lab.search())
    assert lab.store.mark_failed(trial, "WorkerLost", "so it seemed").state == "done"


def test_a_reopened_trial_keeps_its_rows_and_is_to_do_again(lab: Any) -> None:
    trial = lab.finish(lab.search())
    assert lab.store.states()[trial.trial_id] is State.DONE
    lab.store.reopen(trial.trial_id)
    assert lab.store.states()[trial.trial_id] is State.WAITING
    assert lab.file(trial, "epochs").exists()


def test_a_trial_is_found_by_the_beginning_of_its_id(lab: Any) -> None:
    trial = lab.search()
    assert lab.store.find(trial.trial_id[:6]) == trial.trial_id
    for start in ("s-", "r-"):
        lab.search(1)
        with pytest.raises(ValueError, match=f"no one trial '{start}'"):
            lab.store.find(start)


def test_a_store_of_an_earlier_version_is_refused_not_misread(tmp_path: Path) -> None:
    (tmp_path / "trials" / "s-0123").mkdir(parents=True)
    (tmp_path / "trials" / "s-0123" / "result.json").write_text("{}")
    for ask in (Store(tmp_path).create, Store(tmp_path).require):
        with pytest.raises(ValueError, match="another version"):
            ask()


@pytest.mark.parametrize("mark", [None, "", "{", '{"store": "nas_sweeps", "layout": 2'])
def test_a_damaged_mark_hides_no_trial_and_is_written_again(lab: Any, mark: str | None) -> None:
    trial = lab.finish(lab.search())
    path = lab.root / "store.json"
    path.unlink()
    if mark is not None:
        path.write_text(mark)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Store(lab.root).require().states() == {trial.trial_id: State.DONE}
        Store(lab.root).create()
    assert Store(lab.root).layout.mark.read_json() == {"store": "nas_sweeps", "layout": 2}


def test_a_store_of_a_later_version_is_refused(lab: Any) -> None:
    lab.store.layout.mark.publish_json({"store": "nas_sweeps", "layout": 3})
    with pytest.raises(ValueError, match="another version"):
        load(lab.store)


def test_a_store_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Store(" ")


def test_linking_twice_is_linking_once(lab: Any) -> None:
    a = Origin(method="darts", variant="order=second", search_id="s-1", seed=3)
    b = Origin(method="DARTS_V2")
    trial = lab.retrain(0, a, b, a, replace(b))
    assert set(lab.store.origins(trial.trial_id)) == {a, b}
    assert len(lab.store.origins(trial.trial_id)) == 2


@pytest.mark.parametrize("damage", [lambda _: "{", lambda text: text.replace("sealed", "{ealed")])
def test_a_damaged_origin_hides_no_other_and_is_healed(
    lab: Any, damage: Callable[[str], str]
) -> None:
    a, b = Origin(method="a"), Origin(method="b")
    trial = lab.retrain(0, a, b)
    corrupt = Path(lab.store.layout.trial(trial.trial_id).origin(a.key))
    corrupt.write_text(damage(corrupt.read_text()))
    with pytest.warns(UserWarning, match=a.key):
        assert lab.store.origins(trial.trial_id) == (b,)
    with pytest.warns(UserWarning, match=a.key):
        lab.store.add_origin(trial.trial_id, a)
    assert set(lab.store.origins(trial.trial_id)) == {a, b}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"state": "done"}', '{"trial_id": 1, "state": "gone", "attempt": "x"}'],
)
def test_a_corrupt_result_is_not_settled_and_hides_no_other(lab: Any, content: str) -> None:
    bad, good = lab.search(0), lab.search(1)
    for trial in (bad, good):
        lab.begin(trial).finish(lab.result(trial))
    lab.file(bad, "result").write_text(content)
    with pytest.warns(UserWarning, match=r"result\.json"):
        states = lab.store.states()
    assert states == {bad.trial_id: State.WAITING, good.trial_id: State.DONE}
    with pytest.warns(UserWarning, match=bad.trial_id):
        assert list(lab.store.results()) == [good.trial_id]


@pytest.mark.parametrize("content", ["{", "{}", '{"host": 1, "pid": "x", "heartbeat": "?"}'])
def test_after_a_corrupt_attempt_the_next_one_begins(lab: Any, content: str) -> None:
    trial = lab.search()
    lab.begin(trial)
    lab.file(trial, "record").write_text(content)
    with pytest.warns(UserWarning, match=r"attempt\.json"):
        assert lab.store.states() == {trial.trial_id: State.WAITING}
    with pytest.warns(UserWarning, match=r"attempt\.json"):
        assert lab.store.begin(trial.trial_id).number == 2
    assert lab.store.state(trial.trial_id) is State.RUNNING


def test_strange_entries_in_the_store_are_no_trials(lab: Any) -> None:
    trial = lab.search()
    (lab.root / "trials" / ".s-hidden").mkdir()
    (lab.root / "trials" / "lost+found").mkdir()
    (lab.root / "trials" / "s-file").touch()
    assert list(lab.store.states()) == [trial.trial_id]


def test_grids_are_kept_once_each_and_come_latest_first(lab: Any) -> None:
    first = lab.store.keep_grid('{"name": "a"}')
    os.utime(first, (0, 0))
    lab.store.keep_grid('{"name": "b"}')
    assert lab.store.keep_grid('{"name": "a"}') == first
    assert [grid["name"] for grid in lab.store.grids()] == ["b", "a"]


STEPS = st.tuples(
    st.sampled_from(["begin", "beat", "done", "failed", "late", "condemn", "reopen", "restart"]),
    st.integers(0, 2),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_any_order_of_steps_ends_in_the_same_done_set(steps: list[tuple[str, int]]) -> None:
    """Against a model: done exactly when the newest attempt said so."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.create()
        trials = [SEARCH | {"seed": seed} for seed in range(3)]
        specs = [SearchTrial(**fields) for fields in trials]
        ids = [trial.trial_id for trial in specs]
        attempts: dict[int, list[Attempt]] = {i: [] for i in range(3)}
        done: set[int] = set()
        for step, i in steps:
            mine = attempts[i]
            if step == "restart":  # the driver is killed and started anew
                store = Store(folder)
            elif step == "begin" and i in done:
                with pytest.raises(AlreadyDone):
                    store.begin(ids[i])
            elif step == "begin":
                mine.append(store.begin(ids[i]))
            elif step == "condemn":
                assert (store.mark_failed(specs[i], "Lost", "").state == "done") == (i in done)
                mine.clear()
            elif step == "reopen":
                store.reopen(ids[i])
                done.discard(i)
            elif step == "beat" and mine:
                mine[-1].beat()
            elif step == "late" and len(mine) > 1:
                assert not mine[-2].finish(ended(mine[-2], "done"))
            elif step in ("done", "failed") and mine and i not in done:
                assert mine[-1].finish(ended(mine[-1], step))
                done |= {i} if step == "done" else set()
            assert {t for t, s in store.states().items() if s is State.DONE} == {
                ids[k] for k in done
            }
        for i in set(range(3)) - done:  # the rest, whatever happened before
            attempt = store.begin(ids[i])
            assert attempt.finish(ended(attempt, "done"))
        assert set(store.results()) == set(ids)
        assert all(result.state == "done" for result in store.results().values())


SEARCH: dict[str, Any] = {
    "data": Data(dataset="digits", label="digits"),
    "distribution": Distribution(kind="balance"),
    "method": MethodSpec(name="darts"),
    "recipe": SearchRecipe(),
}


def ended(attempt: Attempt, state: Any) -> Result:
    time = "2025-01-01T00:00:00+00:00"
    return Result(
        trial_id=attempt.trial_id,
        phase="search",
        state=state,
        attempt=attempt.number,
        started_at=time,
        finished_at=time,
    )
