"""The promises of a run, kept by the executor that needs no cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

import nas_sweeps as ns
from nas_sweeps.standing import standing
from nas_sweeps.store import Store
from nas_sweeps.sweep import worker
from nas_sweeps.sweep.inline import InlineExecutor
from nas_sweeps.sweep.run import run
from nas_sweeps.train.search import SearchRun

TINY = {
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
    monkeypatch.setattr(InlineExecutor, "run", lambda *_: pytest.fail("it ran"))
    before = {p: p.stat().st_mtime_ns for p in (finished / "trials").rglob("*") if p.is_file()}
    summary = run_inline(finished)
    assert summary.started == 0
    assert summary.complete
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_new_seed_runs_only_what_is_new(finished: Path, tmp_path: Path) -> None:
    import shutil

    store = tmp_path / "grown"
    shutil.copytree(finished, store)
    summary = run_inline(store, grid(methods=["darts"], seeds=[0, 1]))
    assert summary.started == 2
    assert len(ns.load(store).trials) == 6


def test_a_stopped_run_goes_on_after_its_last_epoch_with_the_same_bits(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = []
    original = SearchRun.run_epoch

    def stops_in_the_second(self: SearchRun) -> dict:
        epochs.append(self.epochs_done)
        if epochs == [0, 1]:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(SearchRun, "run_epoch", stops_in_the_second)
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
    original = SearchRun.run_epoch

    def fails(self: SearchRun) -> dict:
        if self.trial.method.name == "darts":
            raise RuntimeError("no such luck")
        return original(self)

    monkeypatch.setattr(SearchRun, "run_epoch", fails)
    summary = run_inline(tmp_path)
    assert not summary.complete
    assert summary.counts["search"]["failed"] == 1
    assert summary.counts["retrain"] == {
        "done": 1,
        "failed": 0,
        "running": 0,
        "waiting": 0,
        "blocked": 1,
    }
    trials = ns.load(tmp_path).trials
    failed = trials[trials.state == "failed"].iloc[0]
    assert (failed.error_class, failed.error_message) == ("RuntimeError", "no such luck")
    log = Store(tmp_path).layout.trial(failed.trial_id).log.read_text()
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

    original = SearchRun.discretise
    monkeypatch.setattr(
        SearchRun,
        "discretise",
        lambda self, strict=True: replace(original(self, strict), genotype=published("DARTS_V1")),
    )
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
    with pytest.raises(ValueError, match=r"search.resources.gpus: 1 asked .* sees no GPU"):
        run_inline(tmp_path, grid(resources={"gpus": 1}))
    assert not any((tmp_path / "trials").iterdir())


def test_the_store_keeps_the_grid_for_other_machines(finished: Path) -> None:
    (kept,) = Store(finished).grids()
    again = ns.Grid.from_dict(kept)
    assert ns.plan(again) == ns.plan(grid())
    assert standing(ns.plan(again), Store(finished)).finished


def test_an_overtaken_attempt_publishes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.create()
    (trial,) = ns.plan(grid(methods=["darts"])).searches
    store.ask(trial)

    def a_later_attempt_begins(row: dict) -> None:
        files = store.layout.trial(trial.trial_id)
        held = json.loads(files.attempt.read_text())
        files.attempt.write_text(json.dumps(held | {"pid": 1, "attempt": held["attempt"] + 1}))

    resources = grid().resources("search")
    result = worker.run_trial(
        trial, store, grid().places, resources, on_epoch=a_later_attempt_begins
    )
    assert result.error_class == "Overtaken"
    assert store.result(trial.trial_id) is None


def test_a_damaged_checkpoint_costs_its_epochs_and_nothing_else(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SearchRun.run_epoch

    def stops_in_the_second(self: SearchRun) -> dict:
        if self.epochs_done == 1:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(SearchRun, "run_epoch", stops_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_inline(tmp_path)
    monkeypatch.undo()
    (checkpoint,) = tmp_path.glob("trials/*/checkpoint.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert run_inline(tmp_path).complete
    assert "cannot be read" in (checkpoint.parent / "log.txt").read_text()
    pd.testing.assert_frame_equal(timeless(tmp_path), timeless(finished))


def test_class_counts_that_cannot_be_are_refused_before_anything_runs(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(ValueError, match="needs 2, one for each half"):
        run_inline(store, grid(distributions=[{"exp": 0.4}, {"exp": 0.1}]))
    assert not store.exists()
