"""Several drivers on one store: parts of a plan, who may work beside whom, and one result a trial.

Two drivers at a time are two processes, with fake runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.grid.shards import Shard
from nas_sweeps.store import State, Store
from nas_sweeps.store.claims import Claims
from nas_sweeps.store.lease import Lease, StoreLocked
from nas_sweeps.store.ledger import grid_digest
from nas_sweeps.sweep import job
from nas_sweeps.sweep import run as the_run
from nas_sweeps.sweep.worker import run_trial
from nas_sweeps.testing import fake
from nas_sweeps.trial import Resources

RECIPE = {"channels": 2, "layers": 3, "epochs": 1, "batch_size": 8}


@pytest.fixture(autouse=True)
def fake_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_SWEEPS_RUNS", f"{fake.__name__}:RUNS")


def grid_of(seeds: int = 3, **retrain: Any) -> ns.Grid:
    return ns.Grid.from_dict(
        {
            "name": "parts",
            "data": {"dataset": "digits", "n_max": 40, "test_n_max": 3},
            "search": {
                "methods": ["darts", "fairdarts"],
                "distributions": ["balance", {"exp": 0.4}],
                "seeds": seeds,
                "recipe": RECIPE,
            },
            "retrain": {"recipe": RECIPE} | retrain,
        }
    )


# --- parts of a plan ---


@pytest.mark.parametrize("winners", ["each", "best_of_seeds"])
@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_parts_are_the_plan_once_and_split_no_chain(of: int, winners: str) -> None:
    whole = ns.plan(grid_of(winners=winners, genotypes=["DARTS_V2"]))
    parts = [Shard(number, of).part(whole) for number in range(1, of + 1)]
    assert sorted(e.key for part in parts for e in part) == sorted(e.key for e in whole)
    for part in parts:
        there = {entry.key for entry in part.searches}
        assert all(set(slot.parents) <= there for slot in part.retrains)
        assert [e for e in whole if e in set(part)] == list(part), "in the plan's order"
    sizes = [len(part.searches) for part in parts]
    assert max(sizes) - min(sizes) <= (1 if winners == "each" else 3)


def test_a_study_is_in_one_part() -> None:
    span = {"arch_lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    tree = {
        "data": {"dataset": "digits"},
        "search": {"methods": [{"darts": span}], "distributions": ["balance", {"exp": 0.4}]},
        "tune": {"trials": 5, "parallel": 2},
    }
    whole = ns.plan(ns.Grid.from_dict(tree))
    for number in (1, 2):
        part = Shard(number, 2).part(whole)
        studies = {slot.study.name for slot in part.searches}
        assert len(studies) == 1
        assert len(part.searches) == 6
        assert {slot.origin.study for slot in part.retrains} == studies


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "1/2/3", "-1/2"])
def test_what_is_no_part_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match=f"--shard {text}: .*1/4, 2/4, 3/4 and 4/4"):
        Shard.read(text)


# --- who may work beside whom ---


def lease(store: Store, shard: str | None, grid: str = "g") -> Lease:
    return Lease(store.layout, "parts", grid=grid, shard=shard)


@pytest.mark.parametrize(
    ("first", "second", "grid", "why"),
    [
        ("1/2", "1/2", "g", "another part than 1/2 could run beside it"),
        ("1/2", "2/3", "g", "the parts of one store are of one number, and that is 2 there"),
        ("1/2", None, "g", "take a part as it did, --shard 2/2 say"),
        (None, "1/2", "g", "it has no --shard, so it wants the store alone"),
        ("1/2", "2/2", "h", "parts of another grid, or of one that is set otherwise"),
    ],
)
def test_who_does_not_go_with_a_driver_that_lives_is_refused(
    tmp_path: Path, first: str | None, second: str | None, grid: str, why: str
) -> None:
    store = Store(tmp_path)
    store.create()
    with lease(store, first) as there:
        with pytest.raises(StoreLocked, match=why), lease(store, second, grid):
            pass
        assert there.holds()
    with lease(store, second, grid):
        pass


def test_parts_of_one_grid_hold_the_store_together(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    with lease(store, "1/2") as one:
        assert one.alone
        with lease(store, "2/2") as two:
            assert not two.alone
            assert one.holds()
            assert two.holds()
            assert one.compacts()
            assert not two.compacts(), "the oldest does"
        assert one.holds()


def test_who_ends_after_the_one_that_writes_the_tables_writes_them_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    one, two = lease(store, "1/2"), lease(store, "2/2")
    with one:
        two.__enter__()
        one.tell(ending=True)
    assert two.compacts()
    two.__exit__(None, None, None)


# --- one trial that two of them want ---


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Store, Claims, Claims]]:
    store = Store(tmp_path)
    store.create()
    with lease(store, "1/2") as one, lease(store, "2/2") as two:
        assert one.writer is not None
        assert two.writer is not None
        yield store, Claims(store.layout, one.writer), Claims(store.layout, two.writer)


def test_of_two_that_claim_a_trial_one_has_it(pair: tuple[Store, Claims, Claims]) -> None:
    _, one, two = pair
    assert one.taken("r-0") is None
    assert two.taken("r-0") == 0
    assert one.taken("r-0") is None, "it goes on having it"
    assert two.taken("r-1") is None


def test_the_claim_of_a_driver_that_has_left_holds_nobody_up(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    with lease(store, "1/2") as one:
        assert one.writer is not None
        assert Claims(store.layout, one.writer).taken("r-0") is None
    with lease(store, "2/2") as two:
        assert two.writer is not None
        assert Claims(store.layout, two.writer).taken("r-0") is None


# --- runs ---


def run(store: Path, shard: str | None, grid: ns.Grid | None = None) -> the_run.Summary:
    return ns.run(grid or grid_of(), store, executor="inline", console="none", shard=shard)


def rows(store: Path) -> list[tuple[Any, ...]]:
    """What does not say when and by whom."""
    trials = ns.load(store).trials
    parts = trials[["trial_id", "state", "accuracy_balanced", "genotype_id", "attempt"]]
    return sorted(parts.itertuples(index=False, name=None))


def test_parts_one_after_the_other_are_the_whole(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", None)
    parts = [run(tmp_path / "parts", f"{n}/3") for n in (1, 2, 3)]
    assert all(part.complete for part in parts)
    assert sum(part.started for part in parts) == whole.started == 24
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert run(tmp_path / "parts", None).started == 0


COMMAND = """
import sys, nas_sweeps as ns
from nas_sweeps.sweep import job
from tests.sweep.test_shards import grid_of
job.CLAIMED_S = 0.2
summary = ns.run(grid_of(4), sys.argv[1], executor="inline", console="none", shard=sys.argv[2])
print(summary.started, summary.complete)
"""


def driver(store: Path, shard: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(store), shard],
        env=os.environ | env,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.system
def test_two_side_by_side_are_the_whole_also_when_one_is_killed(tmp_path: Path) -> None:
    store = tmp_path / "parts"
    one = driver(store, "1/2")
    two = driver(store, "2/2", **{fake.STEP_S: "0.05"})
    limit = time.monotonic() + 120
    while sum(s == State.DONE for s in Store(store).states().values()) < 3:
        assert time.monotonic() < limit, "nothing is done"
        time.sleep(0.05)
    two.kill()
    two.wait()
    again = driver(store, "2/2")
    told = [process.communicate(timeout=120)[0].split() for process in (one, again)]
    assert [complete for _, complete in told] == ["True", "True"]
    run(tmp_path / "whole", None, grid_of(4))
    mine, whole = rows(store), rows(tmp_path / "whole")
    assert [row[:-1] for row in mine] == [row[:-1] for row in whole]
    assert sum(row[-1] > 1 for row in mine) <= 1, "but the one that was killed, each once"


def test_a_trial_that_another_driver_runs_is_waited_for_and_not_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "CLAIMED_S", 0.1)
    grid = grid_of(winners="none", genotypes=["DARTS_V1", "DARTS_V2"])
    (slot, *_) = Shard(2, 2).part(ns.plan(grid)).retrains
    trial, store = slot.resolve(slot.genotype), Store(tmp_path)
    store.create()
    digest = grid_digest(grid.to_json())
    with lease(store, "1/2", digest) as other:
        assert other.writer is not None
        store.register(trial)
        assert Claims(store.layout, other.writer).taken(trial.trial_id) is None
        late = threading.Timer(2.0, lambda: run_trial(trial, store, grid.places, Resources()))
        late.start()
        summary = run(tmp_path, "2/2", grid)
        late.join()
    assert summary.complete
    attempts = ns.load(tmp_path).attempts
    assert (attempts.trial_id == trial.trial_id).sum() == 1
    assert summary.started == summary.counts["search"][State.DONE] + 1, "of two retrains one"


def test_more_trials_than_a_driver_works_through_are_refused_with_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(the_run, "MAX_A_DRIVER", 20)
    with pytest.raises(ValueError, match=r"24 trials are more .* --shard 1/2 to --shard 2/2"):
        run(tmp_path / "s", None)
    assert not (tmp_path / "s").exists()
    assert run(tmp_path / "s", "1/2").complete


def test_a_part_has_the_rules_of_its_plan() -> None:
    a_grid = grid_of(stop={"collapse": {"not_finite": True}})
    whole = ns.plan(a_grid)
    assert whole.stops
    assert Shard(1, 1).part(whole) == whole
    assert Shard(2, 3).part(whole).stops == whole.stops
