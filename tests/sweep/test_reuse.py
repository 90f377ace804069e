"""A process that runs one trial after another: the same bits as a new one, and no memory kept."""

from __future__ import annotations

import gc
import logging
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch

import nas_sweeps as ns
from nas_sweeps.losses import LOSSES, Loss
from nas_sweeps.space.published import published
from nas_sweeps.store import State, Store
from nas_sweeps.store.trial_files import all_checkpoints
from nas_sweeps.sweep import reuse
from nas_sweeps.sweep.checkpoint import read
from nas_sweeps.sweep.own_classes import Used, pack, unpack
from nas_sweeps.sweep.reuse import DEVICE_MIB, GROWTH_MIB, Held, Reuse, UsedUp, give_back
from nas_sweeps.sweep.worker import run_trial
from nas_sweeps.testing.tiny import tensors
from nas_sweeps.trial import Resources, RetrainRecipe, RetrainTrial, Trial
from tests.sweep.tiny import TINY

TIMES = ["epoch_s", "images_per_s", "peak_mem_gib"]
RECIPE = TINY["search"]["recipe"]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def trials(*more: dict[str, Any]) -> list[tuple[Trial, int]]:
    """Searches and a retrain that differ in all that is a whole process's, with their threads."""
    fairdarts = {"methods": ["fairdarts"], "recipe": RECIPE | {"precision": "tf32"}}
    grids = [({"methods": ["darts"]}, 1), (fairdarts, 1), *((search, 2) for search in more)]
    found: list[tuple[Trial, int]] = []
    for search, threads in grids:
        plan = ns.plan(ns.Grid.from_dict(TINY | {"search": TINY["search"] | search}))
        found.append((plan.searches[0], threads))
    like = found[0][0]
    retrain = RetrainTrial(
        data=like.data,
        distribution=like.distribution,
        genotype=published("DARTS_V2"),
        recipe=RetrainRecipe(**RECIPE, cutmix=1.0, ema=0.9),
        seed=0,
    )
    return [*found, (retrain, 2)]


def store_of(folder: Path, asked: list[tuple[Trial, int]]) -> Store:
    store = Store(folder)
    store.create()
    for trial, _ in asked:
        store.register(trial)
    return store


def run_here(store: Store, trial: Trial, threads: int) -> None:
    result = run_trial(trial, store, ns.Grid.from_dict(TINY).places, Resources(cpus=threads))
    assert result is not None
    assert result.state == State.DONE, result.traceback
    give_back()


def run_anew(store: Store, trial: Trial, threads: int) -> None:
    command = [sys.executable, "-m", "nas_sweeps.sweep.worker", store.root, trial.trial_id]
    done = subprocess.run([*command, f"--cpus={threads}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def learnt(store: Store, trial: Trial) -> list[torch.Tensor]:
    """Every tensor of the last checkpoint: weights, alpha, optimisers, generators."""
    files = store.layout.trial(trial.trial_id)
    return tensors(read(all_checkpoints(files)[0]).run)


def assert_equal(a: Store, b: Store, asked: list[tuple[Trial, int]]) -> None:
    for trial, _ in asked:
        pairs = list(zip(learnt(a, trial), learnt(b, trial), strict=True))
        assert pairs
        assert all(torch.equal(x, y) for x, y in pairs), trial
    ids = [trial.trial_id for trial, _ in asked]
    rows = [ns.load(s).epochs.drop(columns=TIMES).astype({"trial_id": str}) for s in (a, b)]
    first, second = (r[r.trial_id.isin(ids)].reset_index(drop=True) for r in rows)
    pd.testing.assert_frame_equal(first, second, check_categorical=False)


@pytest.mark.system
def test_a_trial_has_the_bits_of_one_alone_whatever_ran_before_it_in_its_process(
    tmp_path: Path,
) -> None:
    """Other methods, precisions, threads and phases, in two orders; the last of the first order,
    with all others before it, against a new process."""
    asked = trials()
    there, back, alone = (store_of(tmp_path / name, asked) for name in ("there", "back", "alone"))
    for one in asked:
        run_here(there, *one)
    for one in reversed(asked):
        run_here(back, *one)
    assert_equal(there, back, asked)
    run_anew(alone, *asked[-1])
    assert_equal(there, alone, asked[-1:])


@pytest.mark.slow
def test_each_trial_has_the_bits_of_one_in_a_new_process(tmp_path: Path) -> None:
    asked = trials(
        {"methods": ["gdas"], "seeds": [3]},
        {"methods": [{"ssf_nas": {"barlow_dim": 8, "barlow_hidden": 8}}]},
    )
    shuffled = random.Random(0).sample(asked, len(asked))
    warm, cold = store_of(tmp_path / "warm", asked), store_of(tmp_path / "cold", asked)
    for one in shuffled:
        run_here(warm, *one)
        run_anew(cold, *one)
    assert_equal(warm, cold, asked)


def alive() -> int:
    """Tensors that this process holds; a trial that ended has none."""
    return sum(type(found) in (torch.Tensor, torch.nn.Parameter) for found in gc.get_objects())


@pytest.mark.system
def test_nothing_of_a_trial_is_held_when_it_has_ended(tmp_path: Path) -> None:
    """After the first, which fills tables of constants, no tensor more and no logger."""
    first, second, third = asked = [(trial, 1) for trial, _ in trials()[:1] * 3]
    counts = []
    for number, one in enumerate((first, second, third)):
        run_here(store_of(tmp_path / str(number), asked[:1]), *one)
        counts.append((alive(), len(logging.root.manager.loggerDict)))
    assert counts[0] == counts[1] == counts[2]


# When no other trial is to run in a process


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Reuse:
    """One that did not begin with these tests, whose memory others may have used."""
    monkeypatch.setattr(gc, "freeze", lambda: None)
    process = Reuse()
    process.begin()
    assert process.end() is None
    return process


def holding(monkeypatch: pytest.MonkeyPatch, **more: float) -> None:
    now = reuse.held()._asdict()
    found = Held(**{name: value + more.get(name, 0.0) for name, value in now.items()})
    monkeypatch.setattr(reuse, "held", lambda: found)


def test_a_trial_that_failed_is_the_last_of_its_process(process: Reuse) -> None:
    process.begin()
    assert process.end(failed=True) == "its trial failed"


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"allocated": DEVICE_MIB + 1, "reserved": DEVICE_MIB + 1}, "are still allocated"),
        ({"reserved": DEVICE_MIB + 1}, "of the GPU 0 MiB are still allocated and 65 reserved"),
        ({"private": GROWTH_MIB + 100}, "MiB since its first trial; 512 are allowed"),
    ],
)
def test_memory_that_is_not_given_back_ends_a_process(
    held: dict[str, float], said: str, process: Reuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.begin()
    holding(monkeypatch, **held)
    assert said in str(process.end())


def test_memory_of_a_trial_is_given_back_and_a_little_that_stays_is_no_matter(
    process: Reuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "GROWTH_MIB", 64.0)
    process.begin()
    kept = [torch.ones(2**25)]  # 128 MiB
    assert "since its first trial" in str(process.end())
    kept.clear()
    process.begin()
    assert process.end() is None
    process.begin()
    holding(monkeypatch, allocated=1.0, reserved=DEVICE_MIB / 2, private=16.0)
    assert process.end() is None


def test_settings_that_a_trial_changes_end_its_process(
    process: Reuse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a class of the user's may do."""
    process.begin()
    monkeypatch.setenv("OF_A_LIBRARY", "1")  # which was not set before
    assert process.end() is None
    process.begin()
    monkeypatch.setenv("OF_A_LIBRARY", "2")
    monkeypatch.chdir(tmp_path)
    assert process.end() == "its trial changed the working directory, $OF_A_LIBRARY"
    process.begin()
    torch.set_default_dtype(torch.float64)
    try:
        assert process.end() == "its trial changed torch's default dtype"
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_process_that_is_used_up_says_so_to_its_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(reuse, "PROCESS", Reuse())
    reuse.require_reusable()
    with pytest.raises(UsedUp, match="no other trial runs in this process: its trial failed"):
        reuse.require_reusable(failed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting(Loss):
    """A loss of a script that remembers what it has seen."""

    seen: ClassVar[list[str]] = []

    def prepare(self, counts: Sequence[int]) -> Any:
        raise NotImplementedError


def test_a_class_of_a_script_forgets_what_an_earlier_trial_left_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(LOSSES.known, "counting", Counting)
    packed = pack((Used(LOSSES.group, "counting"),))
    for _ in range(2):
        unpack(packed)
        there: Any = LOSSES.known["counting"]
        assert there.seen == []
        there.seen.append("an image")
