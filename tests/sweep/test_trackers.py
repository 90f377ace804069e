"""Trackers: told what a follower finds, by their own clients, and never worth a sweep."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.store import Origin, Store
from nas_sweeps.store.records import Result, State
from nas_sweeps.sweep.run import run
from nas_sweeps.trial import Data, Distribution, RetrainRecipe, RetrainTrial
from nas_sweeps.watch import trackers
from nas_sweeps.watch.known import Known, News
from nas_sweeps.watch.trackers import Tracking
from tests.sweep.tiny import TINY

ONE = TINY | {"search": TINY["search"] | {"methods": ["darts"]}, "retrain": {"winners": "none"}}


class Recorder:
    """In the place of a tracker's client."""

    def __init__(self, fails_at: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails_at = fails_at

    def start(self, trial_id: str, name: str, parameters: dict[str, Any]) -> None:
        self._note("start", trial_id, name, parameters)

    def log(self, trial_id: str, step: int, numbers: dict[str, float]) -> None:
        self._note("log", trial_id, step, numbers)

    def end(self, trial_id: str, failed: bool) -> None:
        self._note("end", trial_id, failed)

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
def known() -> Known:
    trial = RetrainTrial(
        data=Data(dataset="digits", label="digits"),
        distribution=Distribution(kind="exp", mu=0.1),
        genotype=Genotype((("skip_connect", 0, 2),), (("skip_connect", 0, 2),)),
        recipe=RetrainRecipe(epochs=3),
        seed=1,
    )
    origins = (Origin(method="dar/ts\n'x'", search_id="s-1", seed=0),)
    name = "retrain dar/ts\n'x' exp mu=0.1 s1"
    return Known(trial.trial_id, trial.phase, name, trial, origins)


def ending(known: Known, state: State) -> News:
    time = "2025-01-01T00:00:00+00:00"
    result = Result(
        trial_id=known.trial_id,
        phase="retrain",
        state=state,
        attempt=1,
        started_at=time,
        finished_at=time,
    )  # type: ignore[arg-type]
    return News(kind=result.state, trial=known, result=result)


# In a run


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_tensorboard_gets_every_epoch_and_a_tracker_that_fails_ends_alone(
    executor: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fakes = ["ray_session", "fake_actors"] if executor == "ray" else ["fake_runs"]
    for fixture in fakes:
        request.getfixturevalue(fixture)
    failing = Recorder(fails_at="log")
    monkeypatch.setattr(trackers, "find_spec", lambda package: package)
    monkeypatch.setitem(trackers.KINDS, "wandb", lambda store: failing)
    recipe = ONE["search"]["recipe"] | {"epochs": 2}
    grid = ns.Grid.from_dict(ONE | {"search": ONE["search"] | {"recipe": recipe}})
    with pytest.warns(UserWarning, match="--track wandb ends here, .* the server is gone"):
        done = run(
            grid, tmp_path, executor=executor, console="none", track=["wandb", "tensorboard"]
        )
    assert done.complete
    assert [call[0] for call in failing.calls] == ["start", "log"]
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert folder.name.startswith("search_darts_exp_mu=0.4_s0_s-")
    drawn = {(step, tag): value for step, tag, value in events(folder)}
    rows = ns.load(tmp_path).epochs
    for row in rows.to_dict("records"):
        for name in ("loss_weights", "accuracy_balanced", "num_skip_normal", "arch_lr"):
            assert drawn[row["epoch"], name] == pytest.approx(row[name])
    assert {step for step, _ in drawn if step} == {1, 2}


def test_nothing_is_tracked_unless_asked_for() -> None:
    assert trackers.trackers((), Store("none")) == []


# What a tracker is told


def test_a_tracker_is_told_of_a_trial_by_epoch(known: Known) -> None:
    recorder = Recorder()
    tracking = Tracking("wandb", recorder)
    row = {"loss_weights": 1.5, "stage": "train", "genotype": "[]", "edge_weights": [1.0]}
    row |= {"epoch": 7, "lr": nan, "arch_lr": inf, "accuracy_balanced": None, "flag": True}
    tracking.tell(News(kind="started", trial=known))
    tracking.tell(News(kind="epoch", trial=known, row=row))
    tracking.tell(News(kind="note", trial=known))
    tracking.tell(ending(known, State.FAILED))
    tracking.close()
    start, told, end = recorder.calls
    assert start[:3] == ("start", known.trial_id, known.name)
    assert told == ("log", known.trial_id, 7, {"epoch": 7, "loss_weights": 1.5})
    assert end == ("end", known.trial_id, True)


def test_a_trial_that_is_begun_again_is_the_same_until_it_ends(known: Known) -> None:
    recorder = Recorder()
    tracking = Tracking("mlflow", recorder)
    for _ in range(2):
        tracking.tell(News(kind="started", trial=known))
    tracking.tell(ending(known, State.DONE))
    tracking.tell(News(kind="started", trial=known))
    tracking.close()
    assert [(call[0], call[-1]) for call in recorder.calls if call[0] == "end"] == [
        ("end", False),
        ("end", True),  # it had not ended when the run did
    ]
    assert len(recorder.calls) == 4


def test_parameters_are_short_and_flat(known: Known, tmp_path: Path) -> None:
    parameters = trackers.parameters_of(known)
    assert parameters["trial_id"] == known.trial_id
    assert parameters["recipe.epochs"] == 3
    assert parameters["distribution.mu"] == 0.1
    assert all(len(str(value)) <= 250 for value in parameters.values())
    assert json.dumps(parameters)
    board = trackers.TensorBoard(Store(tmp_path))
    board.start(known.trial_id, known.name, parameters)
    board.end(known.trial_id, False)
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert list(folder.iterdir()), "no name may lead elsewhere"


# What is refused


@pytest.mark.parametrize(("name", "package"), trackers._PACKAGES.items())
def test_a_missing_package_is_named_before_anything_runs(
    name: Any, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda asked: None)
    with pytest.raises(ValueError, match=rf"needs {package}.*pip install 'nas_sweeps\[{name}\]'"):
        run(ns.Grid.from_dict(ONE), tmp_path / "s", executor="ray", console="none", track=[name])
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("track", "store", "said"),
    [
        (["tensorbord"], "s", "no tracker 'tensorbord'; choose from tensorboard, wandb"),
        (["tensorboard"], "s3://b/x", "a store on a file system"),
    ],
)
def test_what_cannot_be_tracked_is_refused(track: Any, store: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        trackers.require(track, store)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_cannot_be_set_up_says_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the package is missing; a missing login or server ends the same way."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=f"^--track {name}: .*; (log in|set MLFLOW)"):
        trackers.trackers([name], Store(tmp_path))


def test_a_tracker_is_made_once(tmp_path: Path) -> None:
    made = trackers.trackers(["tensorboard", "tensorboard"], Store(tmp_path))
    assert [tracking.name for tracking in made] == ["tensorboard"]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_client_that_is_installed_takes_what_it_is_told(
    name: str, known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trackers.find_spec(trackers._PACKAGES[name]) is None:
        pytest.skip(f"{name} is an extra that is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    (tracking,) = trackers.trackers([name], Store(tmp_path))
    other = Known("s-2", "search", "another beside it")
    for trial in (known, other):
        tracking.tell(News(kind="started", trial=trial))
    for epoch in (1, 2):
        row = {"epoch": epoch, "loss_weights": 1.0 / epoch}
        for trial in (known, other):
            tracking.tell(News(kind="epoch", trial=trial, row=row))
    tracking.tell(ending(known, State.DONE))
    tracking.close()
    assert not tracking._broken
    assert any((tmp_path / "mlruns" if name == "mlflow" else tmp_path / "wandb").rglob("*"))
