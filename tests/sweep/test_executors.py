"""What every executor promises, kept by each of them: once on real trials, then on fake ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import nas_sweeps as ns
from nas_sweeps.store import Store
from nas_sweeps.store.lease import Lease, StoreLocked
from nas_sweeps.sweep import worker
from nas_sweeps.sweep.run import run
from nas_sweeps.testing import PoolContract
from tests.sweep.tiny import TINY

TIMES = ["epoch_s", "images_per_s", "peak_mem_gib"]
GRID = ns.Grid.from_dict(TINY)


@pytest.fixture(params=["inline", "ray"])
def executor(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    return str(request.param)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> ns.Frames:
    store = tmp_path_factory.mktemp("reference")
    assert run(GRID, store, executor="inline", console="none").complete
    return ns.load(store)


@pytest.mark.system
def test_every_trial_is_done_once_with_the_same_bits_and_a_second_run_starts_nothing(
    executor: str, tmp_path: Path, reference: ns.Frames
) -> None:
    first = run(GRID, tmp_path, executor=executor, console="none")
    assert (first.complete, first.started) == (True, 4)
    frames = ns.load(tmp_path)
    pd.testing.assert_frame_equal(
        frames.epochs.drop(columns=TIMES), reference.epochs.drop(columns=TIMES)
    )
    for table in ("classes", "genotypes"):
        pd.testing.assert_frame_equal(getattr(frames, table), getattr(reference, table))
    metrics = [c for c in frames.trials if c.startswith("accuracy")] + ["genotype_id"]
    pd.testing.assert_frame_equal(frames.trials[metrics], reference.trials[metrics])
    assert frames.attempts.state.tolist() == ["done"] * 4
    if executor == "ray":  # whose session has two GPUs, of which these trials ask none
        assert frames.attempts.visible_devices.tolist() == [""] * 4, "each sees none"
    assert run(GRID, tmp_path, executor=executor, console="none").started == 0


@pytest.mark.parametrize("name", ["inline"])
class TestInline(PoolContract):
    own_processes = False


@pytest.mark.system
@pytest.mark.parametrize("name", ["ray"])
@pytest.mark.usefixtures("ray_session")
class TestRay(PoolContract):
    @pytest.fixture
    def given(self, fake_actors: dict[str, str]) -> Callable[[str, str], None]:
        return fake_actors.__setitem__

    @pytest.fixture(autouse=True)
    def in_the_session(self, fake_actors: dict[str, str]) -> None:
        """Its actors began with another environment."""


def test_a_store_that_another_run_holds_is_left_alone(executor: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    with Lease(store.layout, "the other grid"), pytest.raises(StoreLocked, match="the other grid"):
        run(GRID, tmp_path, executor=executor, console="none")
    assert store.states() == {}


@pytest.mark.system
def test_a_worker_that_is_asked_to_stop_goes_on_from_the_very_step(
    tmp_path: Path, reference: ns.Frames
) -> None:
    """A real search, stopped every few steps, ends with the bits of one never stopped."""
    store, trial = Store(tmp_path), ns.plan(GRID).searches[0]
    store.create()
    store.register(trial)
    for _ in range(20):
        asked_at = iter([None, None, None, "enough"])  # an evaluation asks twice
        result = worker.run_trial(
            trial,
            store,
            GRID.places,
            GRID.resources("search"),
            stop_reason=lambda say=asked_at: next(say, None),  # type: ignore[misc]
        )
        if result is not None:
            break
    assert result is not None, "it makes no progress"
    wanted = reference.epochs[reference.epochs.trial_id == trial.trial_id]
    pd.testing.assert_frame_equal(
        ns.load(tmp_path).epochs.drop(columns=TIMES),
        wanted.drop(columns=TIMES).reset_index(drop=True),
        check_categorical=False,
    )
    *stopped, last = ns.load(store).attempts.state.tolist()
    assert (set(stopped), last) == ({"stopped"}, "done")
    assert len(stopped) >= 2
    found = reference.trials.set_index("trial_id").genotype_id[trial.trial_id]
    assert ns.load(store).trials.genotype_id.tolist() == [found]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"executor": "inline: {a: 1}"}, "--executor inline: a: "),
        ({"executor": "ray: {a: 1}"}, "--executor ray: a: "),
        ({"executor": "nope"}, "unknown executor 'nope'; choose from inline, ray"),
        ({"executor": "rey"}, r"\(did you mean ray\?\)"),
        ({"executor": "ray: {address: auto}", "address": "n1:6379"}, "--executor names auto"),
        ({"executor": "inline", "slots": 0}, "slots: 0 "),
        ({"executor": "inline", "max_retries": -1}, "max_retries: -1 "),
    ],
)
def test_what_no_executor_takes_is_refused(
    wrong: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        run(ns.Grid.from_dict(TINY), tmp_path / "store", console="none", **wrong)
    assert not (tmp_path / "store").exists()
