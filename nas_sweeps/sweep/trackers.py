"""TensorBoard, Weights & Biases and MLflow, through Ray's own callbacks.

Ray's callbacks know Tune's trials: their ids are Tune's, their parameters one long JSON text,
their steps count from 1 after each interruption, and an exception in one ends the whole sweep.
Here they are told of our trials instead, by epoch, and one that fails is left alone: the tables
have everything, so no tracker is worth a sweep.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any
from uuid import uuid4

from ray import tune

from nas_sweeps.store import State, Store
from nas_sweeps.store.files import LocalFiles
from nas_sweeps.store.trial_files import read_origins
from nas_sweeps.trial import Trial, trial_from_json
from nas_sweeps.watch.lines import name_of

NEEDS = {  # said where a tracker cannot be set up
    "tensorboard": "it needs tensorboardX, and a folder that it can write to",
    "wandb": "log in with `wandb login`, or set WANDB_MODE=offline",
    "mlflow": "set MLFLOW_TRACKING_URI to a server (the extra mlflow holds the client alone)",
}


@dataclass(eq=False)  # a key by identity, as Tune's trials are
class Tracked:
    """One of our trials in the shape that Ray's callbacks ask of Tune's."""

    trial_id: str
    name: str
    config: dict[str, Any]
    local_path: str  # where a callback may write
    experiment_dir_name: str  # a group of runs
    checkpoint: None = None

    def __str__(self) -> str:
        return self.name

    @property
    def evaluated_params(self) -> dict[str, Any]:
        return self.config

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(parents=True, exist_ok=True)


class TrackerCallback(tune.Callback):
    """Passes a run on to one of Ray's callbacks."""

    def __init__(self, name: str, inner: Any, store: Store) -> None:
        self.name, self.inner, self.store = name, inner, store
        self.folder = _folder(name, store)
        self.live: dict[str, Tracked] = {}  # by Tune's id
        self.broken = False

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks, and restores none of ours."""
        return {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._safely(self._start, trial)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        self._safely(self._result, trial, result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._safely(self._end, trial)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._safely(self._end, trial)

    def on_experiment_end(self, trials: Any, **info: Any) -> None:
        self._safely(self.inner.on_experiment_end, [])

    def _safely(self, call: Callable[..., None], *arguments: Any) -> None:
        if self.broken:
            return
        try:
            call(*arguments)
        except Exception as error:  # whatever a server, a network or a disk comes up with
            self.broken = True
            warnings.warn(
                f"--track {self.name} ends here, the sweep goes on: {error}", stacklevel=2
            )

    def _start(self, trial: Any) -> None:
        tracked = tracked_trial(trial_from_json(trial.config["trial"]), self.store, self.folder)
        self.live[trial.trial_id] = tracked
        if self.name == "wandb":  # its process begins by going there
            tracked.init_local_path()
        self.inner.log_trial_start(tracked)

    def _result(self, trial: Any, result: dict[str, Any]) -> None:
        tracked = self.live.get(trial.trial_id)
        if tracked is not None and "epoch" in result:
            step = {"training_iteration": result["epoch"]}
            self.inner.log_trial_result(result["epoch"], tracked, numbers(result["row"]) | step)

    def _end(self, trial: Any) -> None:
        tracked = self.live.pop(trial.trial_id, None)
        if tracked is not None:
            result = self.store.result(tracked.trial_id)
            failed = result is None or result.state != State.DONE
            self.inner.log_trial_end(tracked, failed=failed)


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """What a tracker can draw of an epoch: finite numbers, no texts and no lists."""
    return {
        key: value
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    }


def _folder(name: str, store: Store) -> Path:
    """Where a tracker may write: into the store, or if that is no folder, beside other scratch."""
    if isinstance(store.layout.files, LocalFiles):
        return Path(store.root) / name
    return Path(tempfile.gettempdir()) / f"nas_sweeps-{uuid4().hex[:8]}"


def tracked_trial(trial: Trial, store: Store, where: Path) -> Tracked:
    """As trackers show it: a name for people, and parameters that are short and flat."""
    name = name_of(trial, read_origins(store.layout.trial(trial.trial_id)))
    folder = re.sub(r"[^\w.+=-]+", "_", f"{name} {trial.trial_id[:8]}")
    return Tracked(
        trial_id=trial.trial_id,
        name=name,
        config={"phase": trial.phase, "trial_id": trial.trial_id} | dict(_flat(trial)),
        local_path=str(where / folder),
        experiment_dir_name=Path(store.root).name,
    )


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for item in fields(value):
        inner, name = getattr(value, item.name), f"{prefix}{item.name.rstrip('_')}"
        if is_dataclass(inner):
            yield from _flat(inner, f"{name}.")
        elif isinstance(inner, str | int | float | bool):
            yield name, inner
        elif inner is not None:
            yield name, str(inner)[:250]  # MLflow's shortest limit


def callbacks(track: Sequence[str], store: Store) -> list[tune.Callback]:
    """A callback for each tracker.

    Raises:
        ValueError: a tracker cannot be used, such as for lack of a login.
    """
    made: list[tune.Callback] = []
    for name in dict.fromkeys(track):
        try:
            inner = _ray_callback(name, Path(store.root).name)
            inner.setup()
        except Exception as error:
            raise ValueError(f"--track {name}: {str(error).strip(' .')}; {NEEDS[name]}") from None
        made.append(TrackerCallback(name, inner, store))
    return made


def _ray_callback(name: str, study: str) -> Any:
    """Ray's own. Servers, projects and logins come from each tracker's own environment."""
    if name == "tensorboard":
        from ray.tune.logger import TBXLoggerCallback

        return TBXLoggerCallback()  # type: ignore[no-untyped-call]
    if name == "wandb":
        from ray.air.integrations.wandb import WandbLoggerCallback

        project = os.environ.get("WANDB_PROJECT", "nas_sweeps")
        return WandbLoggerCallback(project=project, group=study, resume="allow")
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", study)
    return MLflowLoggerCallback(os.environ.get("MLFLOW_TRACKING_URI"), experiment_name=experiment)
