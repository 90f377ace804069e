"""Trackers: told of our trials by Ray's own callbacks, and never worth a sweep."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from math import inf, nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.store import Origin, Store
from nas_sweeps.sweep import ray_tune, trackers, tracking
from nas_sweeps.sweep.run import run
from nas_sweeps.trial import Data, Distribution, RetrainRecipe, RetrainTrial, Trial
from tests.sweep.tiny import TINY

ONE = TINY | {"search": TINY["search"] | {"methods": ["darts"]}, "retrain": {"winners": "none"}}


class Recorder:
    """In the place of one of Ray's callbacks."""

    def __init__(self, fails_at: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails_at = fails_at

    def setup(self) -> None:
        self._note("setup")

    def log_trial_start(self, trial: Any) -> None:
        self._note("start", str(trial), trial.trial_id, trial.config)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self._note("result", str(trial), result)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self._note("end", str(trial), failed)

    def on_experiment_end(self, trials: Any) -> None:
        self._note("over")

    def _note(self, what: str, *facts: Any) -> None:
        self.calls.append((what, *facts))
        if what == self.fails_at:
            raise RuntimeError("the server is gone")


def events(folder: Path) -> Iterator[tuple[int, str, float]]:
    """(step, tag, value) of the scalars in TensorBoard's files in a folder."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob("events.out.tfevents.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    yield event.step, value.tag, value.simple_value


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Store, Trial]:
    store = Store(tmp_path / "a study")
    store.create()
    trial = RetrainTrial(
        data=Data(dataset="digits", label="digits"),
        distribution=Distribution(kind="exp", mu=0.1),
        genotype=Genotype((("skip_connect", 0, 2),), (("skip_connect", 0, 2),)),
        recipe=RetrainRecipe(epochs=3),
        seed=1,
    )
    store.ask(trial)
    store.link(trial.trial_id, Origin(method="dar/ts\n'x'", search_id="s-1", seed=0))
    return store, trial


def tune_trial(trial: Trial) -> Any:
    return SimpleNamespace(trial_id="tune_1", config={"trial_id": trial.trial_id})


# In a run


def test_tensorboard_gets_every_epoch_and_a_tracker_that_fails_ends_alone(
    tmp_path: Path, ray_session: None, fake_actors: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failing = trackers._ray_callback, Recorder(fails_at="result")
    monkeypatch.setattr(tracking, "find_spec", lambda package: package)
    monkeypatch.setattr(
        trackers, "_ray_callback", lambda n, study: failing if n == "wandb" else real(n, study)
    )
    recipe = ONE["search"]["recipe"] | {"epochs": 2}
    grid = ns.Grid.from_dict(ONE | {"search": ONE["search"] | {"recipe": recipe}})
    with pytest.warns(UserWarning, match="--track wandb ends here, .* the server is gone"):
        done = run(grid, tmp_path, console="none", track=["wandb", "tensorboard"])
    assert done.complete
    assert [call[0] for call in failing.calls] == ["setup", "start", "result"]
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert folder.name.startswith("search_darts_exp_mu=0.4_s0_s-")
    drawn = {(step, tag.rpartition("/")[2]): value for step, tag, value in events(folder)}
    rows = ns.load(tmp_path).epochs
    for row in rows.to_dict("records"):
        for name in ("loss_weights", "accuracy_balanced", "num_skip_normal", "arch_lr"):
            assert drawn[row["epoch"], name] == pytest.approx(row[name])
    assert {step for step, _ in drawn if step} == {1, 2}
    assert not (tmp_path / ".tune").exists()


def test_nothing_is_tracked_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_ray_callback", None)
    assert trackers.callbacks((), Store("none")) == []


# What a tracker is told


def test_a_tracker_is_told_of_our_trials_by_epoch(asked: tuple[Store, Trial]) -> None:
    store, trial = asked
    recorder, tunes = Recorder(), tune_trial(trial)
    callback = trackers.TrackerCallback("wandb", recorder, store)
    callback.on_trial_start(0, [], tunes)
    row = {"loss_weights": 1.5, "stage": "train", "genotype": "[]", "edge_weights": [1.0]}
    row |= {"epoch": 7, "lr": nan, "arch_lr": inf, "accuracy_balanced": None, "flag": True}
    result = {"epoch": 7, "row": trackers.numbers(row), "training_iteration": 2}
    callback.on_trial_result(2, [], tunes, result)
    callback.on_trial_complete(3, [], tunes)
    callback.on_trial_result(4, [], tunes, result)  # too late
    callback.on_experiment_end([])
    start, told, end, over = recorder.calls
    name = "retrain dar/ts\n'x' exp mu=0.1 s1"
    assert start[:3] == ("start", name, trial.trial_id)
    assert told == ("result", name, {"epoch": 7, "loss_weights": 1.5, "training_iteration": 7})
    assert end == ("end", name, True)  # it has no result: its worker died
    assert over == ("over",)
    assert [path.parent for path in Path(store.root).glob("wandb/*")] == [
        Path(store.root) / "wandb"
    ]


def test_parameters_are_short_and_flat(asked: tuple[Store, Trial]) -> None:
    store, trial = asked
    tracked = trackers.tracked_trial(trial, store, Path("here"))
    assert tracked.config["trial_id"] == trial.trial_id
    assert tracked.config["recipe.epochs"] == 3
    assert tracked.config["distribution.mu"] == 0.1
    assert all(len(str(value)) <= 250 for value in tracked.config.values())
    assert json.dumps(tracked.config)
    assert Path(tracked.local_path).parent == Path("here"), "no name may lead elsewhere"


def test_a_callback_pickles_to_nothing(asked: tuple[Store, Trial]) -> None:
    assert trackers.TrackerCallback("mlflow", object(), asked[0]).__getstate__() == {}


# What is refused


@pytest.mark.parametrize(("name", "package"), tracking._PACKAGES.items())
def test_a_missing_package_is_named_before_anything_runs(
    name: Any, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda asked: None)
    with pytest.raises(ValueError, match=rf"needs {package}.*pip install 'nas_sweeps\[{name}\]'"):
        run(ns.Grid.from_dict(ONE), tmp_path / "s", executor="ray", console="none", track=[name])
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("track", "on_ray", "store", "said"),
    [
        (["tensorboard"], False, "s", "--track tensorboard .* --executor ray"),
        (["tensorbord"], True, "s", "no tracker 'tensorbord'; choose from tensorboard, wandb"),
        (["tensorboard"], True, "s3://b/x", "a store on a file system"),
    ],
)
def test_what_cannot_be_tracked_is_refused(track: Any, on_ray: bool, store: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tracking.require(track, on_ray, store)


@pytest.mark.filterwarnings("ignore:Exception ignored in. <function WandbLoggerCallback.__del__")
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_cannot_be_set_up_says_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the package is missing; a missing login or server ends the same way."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=f"^--track {name}: .*; (log in|set MLFLOW)"):
        trackers.callbacks([name], Store(tmp_path))


def test_a_callback_is_made_once_for_each_tracker(tmp_path: Path) -> None:
    made = trackers.callbacks(["tensorboard", "tensorboard"], Store(tmp_path))
    assert [type(c.inner).__name__ for c in made] == ["TBXLoggerCallback"]
    assert ray_tune.callbacks is trackers.callbacks
