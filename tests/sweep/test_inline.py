"""The promises of a run, kept by the executor that needs no cluster.

Its trials are fake: real ones are in test_executors.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import nas_sweeps as ns
from nas_sweeps.schedule import replay
from nas_sweeps.space.discretise import Discretised
from nas_sweeps.store import Store
from nas_sweeps.store.files import LocalFiles
from nas_sweeps.sweep import job, worker
from nas_sweeps.sweep.failures import ALIKE
from nas_sweeps.sweep.inline import InlinePool
from nas_sweeps.sweep.run import run
from nas_sweeps.testing import FakeRetrain, FakeSearch, fake
from nas_sweeps.trial import Trial
from tests.faked import faked

pytestmark = pytest.mark.usefixtures("fake_runs")
TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"dataset": "digits", "image_size": 8, "n_max": 10, "test_n_max": 3},
    "search": {
        "methods": ["darts", {"ssf_nas": {"barlow_dim": 8, "barlow_hidden": 8}}],
        "distributions": [{"exp": 0.4}],
        "seeds": [0],
        "recipe": {"channels": 2, "layers": 3, "epochs": 2, "batch_size": 8},
    },
    "retrain": {
        "recipe": {"channels": 2, "layers": 3, "epochs": 2, "batch_size": 8},
        "barlow": {"epochs": 1, "dim": 8, "hidden": 8},
    },
}
TIMES = ["epoch_s", "images_per_s", "peak_mem_gib"]


def grid(**search: object) -> ns.Grid:
    return ns.Grid.from_dict(TINY | {"search": TINY["search"] | search})


def run_inline(store: Path, a_grid: ns.Grid | None = None, **options: object):
    return run(a_grid or grid(), store, executor="inline", console="none", **options)


def timeless(store: Path) -> pd.DataFrame:
    return ns.load(store).epochs.drop(columns=TIMES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("finished") / "a store"
    with faked():
        assert run_inline(store).complete
    return store


def test_a_run_does_every_planned_trial(finished: Path) -> None:
    frames = ns.load(finished)
    assert frames.trials.state.tolist() == ["done"] * 4
    assert frames.trials.groupby("phase").size().to_dict() == {"retrain": 2, "search": 2}
    assert sorted(frames.trials.method) == ["darts", "darts", "ssf_nas", "ssf_nas"]
    assert frames.trials.accuracy_balanced.between(0, 1).all()
    assert (frames.trials.num_params > 0).all()
    assert frames.trials.git_sha.isna().all() or frames.trials.git_sha.str.len().ge(12).all()
    counted = frames.epochs.groupby("trial_id", observed=True).epoch.agg(list)
    assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in counted)
    assert frames.classes.groupby("trial_id", observed=True).size().tolist() == [10] * 4


def test_a_retrain_knows_the_search_that_found_its_genotype(finished: Path) -> None:
    trials = ns.load(finished).trials.set_index("trial_id")
    for _, retrain in trials[trials.phase == "retrain"].iterrows():
        (parent,) = retrain.parents
        assert trials.genotype_id[parent] == retrain.genotype_id
        assert trials.method[parent] == retrain.method


def test_every_genotype_can_be_read_back_from_its_table(finished: Path) -> None:
    from nas_sweeps.space.genotype import Genotype

    frames = ns.load(finished)
    for genotype_id, rows in frames.genotypes.groupby("genotype_id"):
        cells = {
            cell: tuple(zip(part.operation, part.source, part.node, strict=True))
            for cell, part in rows.groupby("cell")
        }
        assert Genotype(cells["normal"], cells["reduce"]).genotype_id == genotype_id


def test_a_second_run_starts_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InlinePool, "start", lambda *_: pytest.fail("it ran"))
    before = {p: p.stat().st_mtime_ns for p in (finished / "trials").rglob("*") if p.is_file()}
    summary = run_inline(finished)
    assert summary.started == 0
    assert summary.complete
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_new_seed_runs_only_what_is_new(finished: Path, tmp_path: Path) -> None:
    store = tmp_path / "grown"
    shutil.copytree(finished, store)
    summary = run_inline(store, grid(methods=["darts"], seeds=[0, 1]))
    assert summary.started == 2
    assert len(ns.load(store).trials) == 6


def test_another_name_and_other_resources_run_nothing_anew(finished: Path, tmp_path: Path) -> None:
    store = tmp_path / "same trials"
    shutil.copytree(finished, store)
    before = {p: p.read_bytes() for p in (store / "trials").rglob("*") if p.is_file()}
    other = TINY | {"name": "another name"}
    for phase in ("search", "retrain"):
        other[phase] = TINY[phase] | {"resources": {"cpus": 2}}
    assert run_inline(store, ns.Grid.from_dict(other)).started == 0
    assert before == {p: p.read_bytes() for p in before}


def test_a_stopped_run_goes_on_after_its_last_epoch_with_the_same_bits(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = []
    original = FakeSearch.run_epoch

    def stops_in_the_second(self: FakeSearch, *between: object) -> dict:
        epochs.append(self.epochs_done)
        if epochs == [0, 1]:
            raise KeyboardInterrupt
        return original(self, *between)

    monkeypatch.setattr(FakeSearch, "run_epoch", stops_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_inline(tmp_path)
    assert not ns.load(tmp_path).trials.state.eq("done").any()
    summary = run_inline(tmp_path)
    assert summary.complete
    assert epochs == [0, 1, 1, 0, 1], "the first epoch of the stopped search ran once"
    pd.testing.assert_frame_equal(timeless(tmp_path), timeless(finished))
    metrics = ["trial_id", "accuracy_balanced", "macro_f1", "genotype_id"]
    pd.testing.assert_frame_equal(
        ns.load(tmp_path).trials[metrics], ns.load(finished).trials[metrics]
    )


def test_a_failed_search_blocks_only_its_own_retrain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = FakeSearch.run_epoch

    def fails(self: FakeSearch, *between: object) -> dict:
        if self.trial.method.name == "darts":
            raise RuntimeError("no such luck")
        return original(self, *between)

    monkeypatch.setattr(FakeSearch, "run_epoch", fails)
    summary = run_inline(tmp_path)
    assert not summary.complete
    assert summary.counts["search"]["failed"] == 1
    assert summary.counts["retrain"] == {
        "done": 1,
        "pruned": 0,
        "failed": 0,
        "running": 0,
        "waiting": 0,
        "blocked": 1,
        "cancelled": 0,
    }
    trials = ns.load(tmp_path).trials
    failed = trials[trials.state == "failed"].iloc[0]
    assert (failed.error_class, failed.error_message) == ("RuntimeError", "no such luck")
    log = Store(tmp_path).layout.trial(failed.trial_id).newest.log.read().decode()
    assert "Traceback" in log
    assert run_inline(tmp_path).started == 0, "a failure is not retried unless asked"
    monkeypatch.undo()
    again = run_inline(tmp_path, retry="failed")
    assert again.complete
    assert again.started == 2


def test_two_searches_that_find_one_genotype_share_its_retrain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from nas_sweeps.space.published import published

    original = FakeSearch.discretise

    def the_same(self: FakeSearch) -> tuple[Discretised, list[float]]:
        found, weights = original(self)
        return replace(found, genotype=published("DARTS_V1")), weights

    monkeypatch.setattr(FakeSearch, "discretise", the_same)
    two = grid(methods=["darts", "fairdarts"])
    assert run_inline(tmp_path, two).complete
    frames = ns.load(tmp_path)
    (retrain,) = frames.trials[frames.trials.phase == "retrain"].itertuples()
    assert retrain.method == "darts+fairdarts"
    assert len(retrain.parents) == 2
    assert ns.attributed(frames).method.tolist() == ["darts", "fairdarts"]
    assert ns.summarise(frames).index.tolist() == ["darts", "fairdarts"]


def test_a_gpu_that_is_not_there_is_refused_before_anything_runs(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(
        ValueError, match=r"search.resources.gpus: 1 asked .* torch sees it, has more than 0"
    ):
        run_inline(tmp_path, grid(resources={"gpus": 1}))
    assert not (tmp_path / "trials").exists()


def test_the_store_keeps_the_grid_for_other_machines(finished: Path) -> None:
    (kept,) = Store(finished).grids()
    again = ns.Grid.from_dict(kept)
    assert ns.plan(again) == ns.plan(grid())
    assert replay(ns.plan(again), Store(finished)).finished


def run_one(store: Store, trial: Trial, **options: object):
    resources = grid().resources(trial.phase)
    return worker.run_trial(trial, store, grid().places, resources, **options)


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Store, Trial]:
    """A store in which one search is asked for."""
    store = Store(tmp_path / "asked")
    store.create()
    (trial,) = ns.plan(grid(methods=["darts"])).searches
    store.register(trial)
    return store, trial


def test_an_overtaken_attempt_publishes_nothing_more(asked: tuple[Store, Trial]) -> None:
    store, trial = asked
    files = []

    def a_later_attempt_begins() -> None:
        names = store.layout.trial(trial.trial_id).names
        if not files and any(name.endswith(".epochs.parquet") for name in names):
            store.begin(trial.trial_id)
            files.append(store.layout.trial(trial.trial_id).names)

    assert run_one(store, trial, stop_reason=a_later_attempt_begins) is None
    assert store.result(trial.trial_id) is None
    after = store.layout.trial(trial.trial_id).names
    assert [n for n in after if n not in files[0]] == []


def test_a_worker_that_is_asked_to_stop_goes_on_from_the_very_step(
    asked: tuple[Store, Trial], finished: Path
) -> None:
    """Stopped every second step, it ends with the bits of a run never stopped."""
    store, trial = asked
    for _ in range(20):
        asked_at = iter([None, None, "enough"])
        result = run_one(store, trial, stop_reason=lambda say=asked_at: next(say, None))
        if result is not None:
            break
    assert result is not None, "it makes no progress"
    reference = ns.load(finished)
    wanted = reference.epochs[reference.epochs.trial_id == trial.trial_id]
    pd.testing.assert_frame_equal(
        timeless(Path(store.root)),
        wanted.drop(columns=TIMES).reset_index(drop=True),
        check_categorical=False,
    )
    *stopped, last = ns.load(store).attempts.state.tolist()
    assert (set(stopped), last) == ({"stopped"}, "done")
    assert len(stopped) > 2
    assert result.genotype is not None


def checkpoints(store: Path) -> list[Path]:
    return sorted(store.glob("trials/*/*.checkpoint.pt"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("harm", [flip, truncate])
def test_a_damaged_checkpoint_costs_at_most_its_own_epochs(
    harm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before is used; with none left, the trial starts anew. The bits are the same."""
    every = harm is truncate
    original, epochs = FakeSearch.run_epoch, []

    def stops_in_the_third(self: FakeSearch, *between: object) -> dict:
        epochs.append(self.epochs_done)
        if self.epochs_done == 2:
            raise KeyboardInterrupt
        return original(self, *between)

    one = {"methods": ["darts"], "recipe": TINY["search"]["recipe"] | {"epochs": 3}}
    undisturbed, store = tmp_path / "undisturbed", tmp_path / "store"
    nothing = {"retrain": {"winners": "none"}}
    a_grid = ns.Grid.from_dict(TINY | {"search": TINY["search"] | one} | nothing)
    run_inline(undisturbed, a_grid)
    monkeypatch.setattr(FakeSearch, "run_epoch", stops_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_inline(store, a_grid)
    monkeypatch.setattr(FakeSearch, "run_epoch", original)
    earlier, latest = checkpoints(store)
    for path in (earlier, latest) if every else (latest,):
        harm(path)
    summary = run_inline(store, a_grid)
    assert summary.complete
    frames = ns.load(store)
    assert frames.attempts.epochs_from.tolist() == [0, 0 if every else 1]
    pd.testing.assert_frame_equal(timeless(store), timeless(undisturbed))
    log = Store(store).layout.trial(frames.trials.trial_id[0]).attempts[1].log.read().decode()
    assert "cannot be used" in log
    said = "it starts again" if every else "going on from epoch 1"
    assert said in frames.attempts.note[1]


def test_lost_files_of_a_done_trial_are_written_again_from_its_checkpoint(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store)
    shutil.rmtree(store / "tables")
    first, second = sorted(store.glob("trials/*/*.epochs.parquet"))[:2]
    flip(first)
    second.unlink()
    spec = sorted(store.glob("trials/*/trial.json"))[-1]
    truncate(spec)
    with pytest.warns(UserWarning, match=r"epochs\.parquet"):
        assert len(timeless(store)) < len(timeless(finished))
    for kind in (FakeSearch, FakeRetrain):
        monkeypatch.setattr(kind, "run_epoch", lambda *_: pytest.fail("an epoch was computed"))
    with pytest.warns(UserWarning, match=r"epochs\.parquet"):
        assert run_inline(store).complete
    pd.testing.assert_frame_equal(timeless(store), timeless(finished))
    columns = ["trial_id", "method", "distribution", "mu", "seed", "spec", "accuracy_balanced"]
    pd.testing.assert_frame_equal(ns.load(store).trials[columns], ns.load(finished).trials[columns])


def test_lost_rows_are_written_again_although_the_search_before_them_has_to_end_first(
    finished: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store)
    shutil.rmtree(store / "tables")
    flip(sorted(store.glob("trials/r-*/*.epochs.parquet"))[0])
    for result in store.glob("trials/s-*/*.result.json"):
        truncate(result)
    with pytest.warns(UserWarning, match=r"epochs\.parquet"):
        assert run_inline(store).complete
    pd.testing.assert_frame_equal(timeless(store), timeless(finished))


# Failures


class Flaky:
    """``run_epoch`` that raises at first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> None:
        self.left, original = times, FakeSearch.run_epoch

        def run_epoch(run: FakeSearch, *between: object) -> dict:
            if self.left > 0:
                self.left -= 1
                raise error
            return original(run, *between)

        monkeypatch.setattr(FakeSearch, "run_epoch", run_epoch)
        monkeypatch.setattr(job, "PAUSE_S", 0.0)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("AWS Error SLOW_DOWN"),
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        ConnectionResetError(),
    ],
)
def test_what_is_nobodys_mistake_is_tried_again_from_the_checkpoint(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Flaky(monkeypatch, error, times=2)
    only_search = "phase == 'search' and method == 'darts'"
    assert run_inline(tmp_path, only=only_search).complete
    attempts = ns.load(tmp_path).attempts
    assert attempts.state.tolist() == ["failed", "failed", "done"]
    assert attempts.error_class.tolist()[:2] == [type(error).__name__] * 2
    assert (attempts.wall_s > 0).all()


@pytest.mark.parametrize(
    "error", [ValueError("bad shape"), FileNotFoundError(2, "no images"), PermissionError(13, "")]
)
def test_a_users_mistake_is_recorded_once(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Flaky(monkeypatch, error, times=1)
    summary = run_inline(tmp_path, only="phase == 'search' and method == 'darts'")
    assert summary.counts["search"]["failed"] == 1
    assert ns.load(tmp_path).attempts.state.tolist() == ["failed"]
    assert run_inline(tmp_path, only="phase == 'search' and method == 'darts'").started == 0


def test_retries_end_and_the_next_run_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flaky = Flaky(monkeypatch, MemoryError("no"), times=3)
    options = {"only": "phase == 'search' and method == 'darts'"}
    first = run_inline(tmp_path, max_retries=1, **options)
    assert first.counts["search"]["failed"] == 1
    assert flaky.left == 1
    assert run_inline(tmp_path, retry="none", **options).started == 0
    assert run_inline(tmp_path, max_retries=1, **options).complete


def test_a_store_that_cannot_be_written_to_fails_a_trial_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "PAUSE_S", 0.0)
    publish = LocalFiles.publish

    def no_results(self: LocalFiles, key: str, data: bytes, *, durable: bool = True) -> None:
        if key.startswith("trials/s-") and "result" in key and b'"failed"' not in data:
            raise OSError(errno.ENOSPC, "No space left on device")
        publish(self, key, data, durable=durable)

    monkeypatch.setattr(LocalFiles, "publish", no_results)
    options = {"only": "phase == 'search' and method == 'darts'"}
    summary = run_inline(tmp_path, max_retries=1, **options)
    assert summary.counts["search"]["failed"] == 1
    assert ns.load(tmp_path).trials.error_class.tolist() == ["WorkerLost"]
    assert "No space left" in ns.load(tmp_path).trials.error_message[0]
    monkeypatch.undo()
    monkeypatch.setattr(FakeSearch, "run_epoch", lambda *_: pytest.fail("an epoch was computed"))
    assert run_inline(tmp_path, **options).complete


def test_fail_fast_stops_at_the_first_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Flaky(monkeypatch, ValueError("bad"), times=99)
    summary = run_inline(tmp_path, grid(seeds=[0, 1, 2]), fail_fast=True)
    assert summary.started == 1
    assert "--fail-fast" in summary.stopped
    assert not summary.complete


def test_a_run_stops_when_its_first_trials_all_fail_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Flaky(monkeypatch, ValueError("needs 7 images"), times=99)
    summary = run_inline(tmp_path, grid(seeds=[0, 1, 2]))
    assert summary.started == ALIKE
    assert "needs # images" in summary.stopped
    again = run_inline(tmp_path, grid(seeds=[0, 1, 2]))
    assert again.started == 3, "the same command goes on with the others"


def test_a_run_goes_on_when_its_first_trials_fail_in_different_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(["a", "b", "c", "d", "e", "f"])

    def fails(*_: object) -> dict:
        raise ValueError(f"{next(names)} is wrong")

    monkeypatch.setattr(FakeSearch, "run_epoch", fails)
    assert run_inline(tmp_path, grid(seeds=[0, 1, 2])).started == 6


def test_only_a_part_of_the_grid_is_run_and_counted(tmp_path: Path) -> None:
    summary = run_inline(tmp_path, only="method == 'darts'")
    assert summary.complete
    assert summary.counts["search"]["done"] == summary.counts["retrain"]["done"] == 1
    assert ns.load(tmp_path).trials.method.unique().tolist() == ["darts"]
    rest = run_inline(tmp_path)
    assert (rest.started, rest.complete) == (2, True)


@pytest.mark.parametrize(
    "query",
    [
        "methd == 'darts'",
        "mu <",
        "seed == 99",
        "@__import__('os')",
        "seed",
        "[0, 1]",
        "seed.sum()",
        "1",
        "True",
    ],
)
def test_a_query_that_means_nothing_is_one_message(query: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--only"):
        run_inline(tmp_path / "store", only=query)
    assert not (tmp_path / "store").exists()


def test_a_run_whose_store_was_taken_over_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a night in suspension: it publishes nothing more, also no tables."""
    original = FakeSearch.run_epoch

    def is_taken_over(self: FakeSearch, *between: object) -> dict:
        for path in (tmp_path / "drivers").iterdir():
            path.unlink()
        return original(self, *between)

    monkeypatch.setattr(FakeSearch, "run_epoch", is_taken_over)
    monkeypatch.setenv(fake.STEP_S, "0.4")  # workers look once a second
    summary = run_inline(tmp_path)
    assert "taken this store over" in summary.stopped
    assert not (tmp_path / "tables").exists()
    assert ns.load(tmp_path).attempts.state.tolist() == ["stopped"]


def test_class_counts_that_cannot_be_are_refused_before_anything_runs(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(ValueError, match="needs 2, one for each half"):
        run_inline(store, grid(distributions=[{"exp": 0.4}, {"exp": 0.1}]))
    assert not store.exists()
