"""How often a run that has nothing to do asks its store."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.schedule import outcome_of, replay
from nas_sweeps.store import Result, Store, ledger
from nas_sweeps.store.files import NOTHING_KNOWN, LocalFiles
from nas_sweeps.sweep.job import Job
from nas_sweeps.sweep.run import run
from nas_sweeps.tables.compaction import write_classes, write_epochs
from nas_sweeps.trial import RetrainTrial, Trial
from tests.store.conftest import CELL, OTHER, TIMES
from tests.sweep.tiny import TINY


@dataclass(frozen=True)
class CountingFiles(LocalFiles):
    """Counts what is asked of a store, as an object store would be asked."""

    asked: Counter[tuple[str, str]] = field(default_factory=Counter, compare=False)

    def read(self, key: str) -> bytes:
        self.asked["read", key] += 1
        return super().read(key)

    def publish(self, key: str, data: bytes, *, durable: bool = True) -> None:
        self.asked["publish", key.partition("/")[0]] += 1
        super().publish(key, data, durable=durable)

    def remove(self, key: str) -> None:
        self.asked["remove", key.partition("/")[0]] += 1
        super().remove(key)

    def names(self, folder: str) -> tuple[str, ...]:
        self.asked["names", folder] += 1
        return super().names(folder)

    def tree(self, folder: str, known: Any = NOTHING_KNOWN) -> Any:
        self.asked["tree", folder] += 1
        return super().tree(folder, known)

    def mtime_ns(self, key: str) -> int:
        self.asked["stamp", key.partition("/")[0]] += 1
        return super().mtime_ns(key)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """What all stores that are opened from now on are asked."""
    counter: Counter[tuple[str, str]] = Counter()
    monkeypatch.setattr(
        ledger, "open_files", lambda root: CountingFiles(Path(root).absolute(), counter)
    )
    return counter


def grid(seeds: int) -> ns.Grid:
    search = TINY["search"] | {"methods": ["darts", "fairdarts"], "seeds": list(range(seeds))}
    return ns.Grid.from_dict(TINY | {"search": search})


def settle(store: Store, trial: Trial) -> Result:
    """A trial's files as its worker leaves them. Every other seed finds another cell."""
    attempt = store.begin(trial.trial_id)
    write_epochs(attempt.files, [{"stage": "search", "epoch": 1, "accuracy_balanced": 0.5}])
    row = {"class_index": 0, "class_name": "zero", "train_count": 9, "recall": 0.5}
    write_classes(attempt.files, [row])
    cell = trial.genotype if isinstance(trial, RetrainTrial) else (CELL, OTHER)[trial.seed % 2]
    result = Result(
        trial_id=trial.trial_id,
        phase=trial.phase,
        state="done",
        attempt=attempt.number,
        metrics={"accuracy_balanced": 0.5, "accuracy_validation": 0.25, "epochs": 1},
        genotype=[[list(edge) for edge in c] for c in (cell.normal, cell.reduce)],
        **TIMES,
    )
    assert attempt.finish(result)
    return result


def finished(folder: Path, seeds: int) -> ns.Grid:
    """A store in which everything that a grid plans is done; nothing was trained."""
    store, a_grid = Store(folder), grid(seeds)
    store.create()
    store.keep_grid(a_grid.to_json())
    scheduler = replay(ns.plan(a_grid), store)
    while (work := scheduler.next_task()) is not None:
        store.register(work.trial)
        for origin in work.origins:
            store.add_origin(work.trial.trial_id, origin)
        scheduler.settle(work.trial.trial_id, outcome_of(settle(store, work.trial)))
    for retrain_id, origin in scheduler.links():
        store.add_origin(retrain_id, origin)
    return a_grid


def nothing_to_do(a_grid: ns.Grid, store: Path) -> None:
    summary = run(a_grid, store, executor="inline", console="none")
    assert (summary.started, summary.complete) == (0, True)


def test_a_run_with_nothing_to_do_reads_every_result_once(
    tmp_path: Path, asked: Counter[tuple[str, str]]
) -> None:
    a_grid = finished(tmp_path, seeds=3)
    asked.clear()
    nothing_to_do(a_grid, tmp_path)
    reads = {key: n for (what, key), n in asked.items() if key.endswith(".result.json")}
    assert len(reads) == len(Store(tmp_path).states()) > 6
    assert set(reads.values()) == {1}


def test_what_it_asks_does_not_grow_with_the_trials_of_compacted_tables(
    tmp_path: Path, asked: Counter[tuple[str, str]]
) -> None:
    counts = []
    for seeds in (12, 60):
        folder = tmp_path / str(seeds)
        a_grid = finished(folder, seeds)
        for trial in (folder / "trials").iterdir():
            os.utime(trial, ns=(10**18, 10**18))  # long ago: their times can be trusted
        ns.compact(folder)
        asked.clear()
        nothing_to_do(a_grid, folder)
        names = Counter((what, key.partition("/")[0]) for what, key in asked.elements())
        counts.append(names)
        assert not [key for what, key in asked if key.startswith("trials/")]
        assert asked["read", "tables/index.json"] == asked["tree", "trials"] == 2
        assert not asked["publish", "tables"], "nothing is new in them"
    assert counts[0] == counts[1]
    assert counts[0].total() < 60


def test_the_index_says_what_the_results_say(tmp_path: Path) -> None:
    finished(tmp_path, seeds=2)
    store = Store(tmp_path)
    (failed,) = ns.plan(grid(3)).searches[2:3]
    store.register(failed)
    attempt = store.begin(failed.trial_id)
    how = {"phase": "search", "state": "failed", "transient": True, "attempt": 1}
    assert attempt.finish(Result(trial_id=failed.trial_id, error_class="Lost", **how, **TIMES))
    for trial in (tmp_path / "trials").iterdir():
        os.utime(trial, ns=(10**18, 10**18))
    read = store.settled()
    ns.compact(tmp_path)
    for file in tmp_path.glob("trials/*/*.result.json"):
        file.write_text("its folder is as it was, so nobody looks")
    assert store.settled() == read
    assert read[failed.trial_id].transient
    again = store.begin(failed.trial_id)
    assert failed.trial_id not in store.settled(), "its folder has changed"
    assert again.number == 2


def test_a_retrain_that_a_later_search_finds_too_is_linked_to_both(
    tmp_path: Path, asked: Counter[tuple[str, str]]
) -> None:
    a_grid = finished(tmp_path, seeds=2)
    (origin, *_) = tmp_path.glob("trials/r-*/origin-*.json")
    origin.unlink()
    before = len(list(tmp_path.glob("trials/r-*/origin-*.json")))
    nothing_to_do(a_grid, tmp_path)
    assert origin.exists()
    assert len(list(tmp_path.glob("trials/r-*/origin-*.json"))) == before + 1


def test_rows_that_neither_a_table_nor_the_trial_holds_are_known_to_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the table is one that a plan does not need."""
    a_grid = finished(tmp_path, seeds=1)
    for trial in (tmp_path / "trials").iterdir():
        os.utime(trial, ns=(10**18, 10**18))
    ns.compact(tmp_path)
    first = sorted(tmp_path.glob("trials/s-*/*.epochs.parquet"))[0]
    for path in (first, tmp_path / "tables" / "alphas.parquet"):
        path.write_bytes(path.read_bytes()[:-9])
    opened: list[str] = []
    monkeypatch.setattr(Store, "reopen", lambda self, trial_id: opened.append(trial_id))
    monkeypatch.setattr(Job, "run", lambda *_: None)
    with pytest.warns(UserWarning, match="unreadable"):
        run(a_grid, tmp_path, executor="inline", console="none")
    assert opened == [first.parent.name]
