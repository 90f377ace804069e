"""What another machine learns from a store alone, and that it reads no more than it must."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from threading import current_thread, main_thread
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import nas_sweeps as ns
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.store import Origin, Result, Store
from nas_sweeps.store import driver as driver_module
from nas_sweeps.store.layout import Writer
from nas_sweeps.store.lease import Lease
from nas_sweeps.store.ledger import Attempt, grid_digest
from nas_sweeps.tables import compaction
from nas_sweeps.tables.compaction import write_classes, write_epochs
from nas_sweeps.trial import RetrainTrial, Trial
from nas_sweeps.watch import follow, known
from nas_sweeps.watch.follow import Follower
from nas_sweeps.watch.status import watch

GRID = ns.Grid.from_dict(
    {
        "name": "watched",
        "data": {"dataset": "digits"},
        "search": {
            "methods": ["darts"],
            "distributions": [{"exp": 0.4}],
            "seeds": [0, 1],
            "recipe": {"epochs": 4},
        },
        "retrain": {"recipe": {"epochs": 2}},
    }
)
FIRST, SECOND = ns.plan(GRID).searches
GENOTYPE = PUBLISHED["DARTS_V2"]
TIME = "2025-01-01T00:00:00+00:00"


class Run:
    """A run as its driver and its workers write it, step by step."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.store.create()
        self.store.keep_grid(GRID.to_json())
        self.lease = Lease(self.store.layout, GRID.name, grid=grid_digest(GRID.to_json()))
        self.attempts: dict[str, Attempt] = {}

    def __enter__(self) -> Run:
        self.lease.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.lease.__exit__()

    def begin(self, trial: Trial, *origins: Origin) -> None:
        self.store.register(trial)
        for origin in origins:
            self.store.add_origin(trial.trial_id, origin)
        self.attempts[trial.trial_id] = self.store.begin(trial.trial_id)

    def epochs(self, trial: Trial, count: int, epoch_s: float = 10.0) -> None:
        row = {"stage": "search", "loss_weights": 1.5, "accuracy_balanced": 0.5, "epoch_s": epoch_s}
        attempt = self.attempts[trial.trial_id]
        write_epochs(attempt.files, [row | {"epoch": n} for n in range(1, count + 1)])
        attempt.publish(epochs_done=count, cost={"wall_s": count * epoch_s, "gpu_hours": 0.0})

    def end(self, trial: Trial, **facts: Any) -> None:
        attempt = self.attempts[trial.trial_id]
        values: dict[str, Any] = {
            "state": "done",
            "genotype": [[list(e) for e in cell] for cell in (GENOTYPE.normal, GENOTYPE.reduce)],
            "metrics": {"accuracy_balanced": 0.5},
            "cost": {"wall_s": 3600.0, "gpu_hours": 0.5},
        } | facts
        result = Result(
            trial_id=trial.trial_id,
            phase=trial.phase,
            attempt=attempt.number,
            started_at=TIME,
            finished_at=TIME,
            **values,
        )
        assert attempt.finish(result)


@pytest.fixture
def run(tmp_path: Path):
    with Run(tmp_path / "it's a store") as running:
        yield running


def retrain_of(search: Trial) -> tuple[RetrainTrial, Origin]:
    slot = ns.plan(GRID).retrains[0]
    return slot.resolve(GENOTYPE), Origin(method="darts", search_id=search.trial_id, seed=0)


def test_a_run_is_followed_from_its_plan_to_its_end(run: Run) -> None:
    follower = Follower(run.store)
    assert follower.poll() == []
    shot = follower.snapshot()
    assert shot.counts["search"]["waiting"] == 2
    assert shot.left_s is None, "nothing was measured"
    assert "grid 'watched'" in shot.notes[0]

    run.begin(FIRST)
    assert [news.kind for news in follower.poll()] == ["started"]
    (line,) = follower.snapshot().running
    assert (line.name, line.row) == ("search darts exp mu=0.4 s0", None)

    run.epochs(FIRST, 1)
    (news,) = follower.poll()
    assert (news.kind, news.trial.name) == ("epoch", "search darts exp mu=0.4 s0")
    assert "1/4" in follower.text_of(news)
    shot = follower.snapshot()
    assert shot.running[0].left_s == pytest.approx(30, abs=5)
    assert shot.left_s is None, "no retrain was measured"

    run.end(FIRST)
    (news,) = follower.poll()
    assert news.kind == "done"
    assert follower.text_of(news) == "done, bal-acc 50.0, 3600 s; search 1/2, retrain 0/2"
    shot = follower.snapshot()
    assert shot.running == ()
    assert (shot.spent.hours, shot.spent.gpu_hours) == (1.0, 0.5)

    retrain, origin = retrain_of(FIRST)
    run.begin(retrain, origin)
    run.epochs(retrain, 1, epoch_s=7.0)
    *_, news = follower.poll()
    assert (news.kind, news.trial.name) == ("epoch", "retrain darts exp mu=0.4 s0 of s0")
    # One more epoch of 7 s here, and after it the other search (4 of 10 s) and its retrain.
    assert follower.snapshot().left_s == pytest.approx(7 + 40 + 14, abs=5)


def test_a_failure_is_news_with_its_cause(run: Run) -> None:
    run.begin(FIRST)
    follower = Follower(run.store)
    follower.poll()
    error = {"error_class": "ValueError", "error_message": "no\nsuch thing", "genotype": None}
    run.end(FIRST, state="failed", metrics={}, **error)
    (news,) = follower.poll()
    assert news.kind == "failed"
    assert follower.text_of(news) == f"FAILED ValueError: no (trial {FIRST.trial_id})"
    shot = follower.snapshot()
    assert shot.counts["retrain"]["blocked"] == 1
    assert "1 failed" in shot.notes[-1]
    assert Follower(run.store).poll() == [], "what was there before is no news"


def test_only_folders_that_changed_are_read_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.begin(FIRST)
    run.begin(SECOND)
    monkeypatch.setattr(follow, "RACY_NS", 0)
    read: list[str] = []
    original = known.Known.read
    monkeypatch.setattr(
        known.Known,
        "read",
        lambda self, files, rates: read.append(files.trial_id) or original(self, files, rates),
    )
    follower = Follower(run.store)
    follower.poll()
    assert sorted(read) == sorted([FIRST.trial_id, SECOND.trial_id])
    read.clear()
    follower.poll()
    assert read == []
    run.epochs(SECOND, 1)
    follower.poll()
    assert read == [SECOND.trial_id]


def test_epochs_are_news_once_however_often_a_trial_is_begun(run: Run) -> None:
    def epochs(follower: Follower, *trial_ids: str) -> list[int]:
        return [n.row["epoch"] for n in follower.poll(list(trial_ids) or None) if n.row]

    run.begin(FIRST)
    run.epochs(FIRST, 1)
    follower = Follower(run.store)
    follower.poll()
    run.epochs(FIRST, 2)
    assert epochs(follower) == [2]
    run.epochs(FIRST, 3)  # and its worker dies before anybody looks
    run.begin(FIRST)
    assert epochs(follower) == []
    run.attempts[FIRST.trial_id].beat(epochs_from=3, epochs_done=3)
    run.epochs(FIRST, 4)
    run.end(FIRST)
    assert epochs(follower) == [3, 4], "rows of the last look before the end too"
    run.begin(SECOND)
    run.epochs(SECOND, 3)
    assert epochs(follower, FIRST.trial_id) == [], "a driver names those that it has handed out"
    assert epochs(follower, SECOND.trial_id) == [1, 2, 3]
    run.begin(SECOND)  # no checkpoint was whole: it starts again
    run.epochs(SECOND, 1)
    assert epochs(follower) == [1]


def test_a_note_of_an_attempt_is_news_once(run: Run) -> None:
    follower = Follower(run.store)
    follower.poll()
    run.begin(FIRST)
    run.attempts[FIRST.trial_id].beat(note="the newest checkpoint is damaged")
    said = [(news.kind, follower.text_of(news)) for news in follower.poll()]
    assert said == [("started", ""), ("note", "the newest checkpoint is damaged")]
    run.epochs(FIRST, 1)
    assert [news.kind for news in follower.poll()] == ["epoch"]


def test_failures_that_are_tried_again_are_to_do(run: Run) -> None:
    run.begin(FIRST)
    lost = {"error_class": "WorkerLost", "transient": True, "genotype": None, "metrics": {}}
    run.end(FIRST, state="failed", **lost)
    for retry, waiting in (("none", 1), ("lost", 2)):
        follower = Follower(run.store, retry=retry)  # type: ignore[arg-type]
        follower.poll()
        assert follower.snapshot().counts["search"]["waiting"] == waiting


def test_trials_that_have_ended_are_not_opened(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.begin(FIRST)
    run.epochs(FIRST, 4)
    row = {"class_index": 0, "class_name": "zero", "train_count": 9, "recall": 0.5}
    write_classes(run.attempts[FIRST.trial_id].files, [row])
    run.end(FIRST)
    monkeypatch.setattr(compaction, "_RACY_NS", -(10**12))
    compaction.compact(run.store)
    read: list[str] = []
    original = type(run.store.layout.files).read
    monkeypatch.setattr(
        type(run.store.layout.files),
        "read",
        lambda self, key: read.append(key) or original(self, key),
    )
    follower = Follower(run.store)
    follower.poll()
    shot = follower.snapshot()
    assert (shot.counts["search"]["done"], shot.spent.hours) == (1, 1.0)
    assert not [key for key in read if key.startswith("trials/")]


def test_watching_writes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.begin(FIRST)
    kind, written = type(run.store.layout.files), []
    for name in ("publish", "append", "remove", "clean_up", "now"):
        original = getattr(kind, name)

        def noted(*arguments: object, original: Any = original, **options: object) -> object:
            written.extend([arguments] if current_thread() is main_thread() else [])
            return original(*arguments, **options)

        monkeypatch.setattr(kind, name, noted)
    follower = Follower(run.store)
    follower.poll()
    follower.snapshot()
    assert written == []


def test_a_store_without_a_readable_grid_counts_its_trials(run: Run) -> None:
    (file,) = run.store.layout.grids()
    file.publish_json({"of": "another version"})
    run.begin(FIRST)
    follower = Follower(run.store)
    follower.poll()
    assert follower.snapshot().counts["search"]["running"] == 1
    assert sum(follower.snapshot().counts["retrain"].values()) == 0


def test_a_driver_with_another_clock_is_seen_to_live_by_its_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    record = {"host": "elsewhere", "pid": 1, "doing": "x", "held": True}
    file = store.layout.driver(Writer(1, "abcdef"))
    file.publish_json(record)
    clock = [1000.0]
    times = SimpleNamespace(
        time_ns=lambda: file.files.mtime_ns(file.key) + 7200 * 10**9, monotonic=lambda: clock[0]
    )
    monkeypatch.setattr(driver_module, "time", times)
    looking = driver_module.DriverMonitor(store.layout)
    assert looking.driver() is None
    assert looking.doubtful
    clock[0] += 5
    file.publish_json(record | {"heartbeat": "later"})
    assert looking.driver() is not None
    clock[0] += 3600
    assert looking.driver() is None, "an hour without a beat"
    assert not looking.doubtful


def watched(store: Store, *steps: Callable[[], object]) -> list[str]:
    """What a watch prints where there is no terminal, while one step happens a poll."""
    file, todo = io.StringIO(), list(steps)
    watch(store, Console(file=file, width=40), 5.0, wait=lambda s: todo.pop(0)() and None)
    return file.getvalue().splitlines()


def test_a_watch_prints_every_epoch_and_ends_with_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.__enter__()
    run.begin(FIRST)
    text = watched(
        run.store,
        lambda: run.epochs(FIRST, 2),
        lambda: run.end(FIRST),
        lambda: run.__exit__(),
    )
    assert text[0] == "search 0/2, retrain 0/2, 0.00 trial-hours without a GPU in this store"
    assert "works on it" in text[1]
    assert "| search     1/4" in text[2]
    assert "| search     2/4" in text[3]
    assert "| done, bal-acc 50.0" in text[4]
    assert text[5].startswith("search 1/2, retrain 0/2")
    assert text[6] == f"no run works on {run.store} now"
    assert len(text) == 7


def test_ctrl_c_leaves_a_watch_without_a_word(run: Run) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert len(watched(run.store, interrupted)) == 2


def test_a_store_that_does_not_answer_for_a_while_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.__enter__()
    original = follow.Follower._changed
    failures = [OSError("stale file handle"), None, None]

    def flaky(self: Follower):
        failure = failures.pop(0)
        if failure:
            raise failure
        return original(self)

    monkeypatch.setattr(follow.Follower, "_changed", flaky)
    text = watched(run.store, lambda: None, lambda: None, lambda: run.__exit__())
    assert any("stale file handle" in line for line in text)
    assert text[-1] == f"no run works on {run.store} now"


def test_watching_no_store_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no store"):
        watch(Store(tmp_path / "none"), Console(file=io.StringIO()), 5.0)
