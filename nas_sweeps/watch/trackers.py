"""TensorBoard, Weights & Biases and MLflow, by their own clients, told what a follower finds.

A tracker that fails is left alone: the tables have everything, so none is worth a sweep. Servers,
projects and logins come from each tracker's own environment.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from nas_sweeps.choices import TRACKERS
from nas_sweeps.store.ledger import Store
from nas_sweeps.store.records import State
from nas_sweeps.trial import Trial
from nas_sweeps.watch.known import Known, News

_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
NEEDS = {  # said where a tracker cannot be set up
    "tensorboard": "it needs tensorboardX, and a folder that it can write to",
    "wandb": "log in with `wandb login`, or set WANDB_MODE=offline",
    "mlflow": "set MLFLOW_TRACKING_URI to a server (the extra mlflow holds the client alone)",
}
Numbers = dict[str, float]


class Tracker(Protocol):
    """What is asked of a tracker. Trials come by their ids, and an epoch is a step."""

    def start(self, trial_id: str, name: str, parameters: dict[str, Any]) -> None: ...
    def log(self, trial_id: str, step: int, numbers: Numbers) -> None: ...
    def end(self, trial_id: str, failed: bool) -> None: ...


class TensorBoard:
    """A folder of events for each trial, in the store."""

    def __init__(self, store: Store) -> None:
        from tensorboardX import SummaryWriter

        self.folder, self._open = Path(store.root) / "tensorboard", SummaryWriter
        self.folder.mkdir(parents=True, exist_ok=True)
        self._writers: dict[str, Any] = {}

    def start(self, trial_id: str, name: str, parameters: dict[str, Any]) -> None:
        folder = re.sub(r"[^\w.+=-]+", "_", f"{name} {trial_id[:8]}")
        writer = self._writers[trial_id] = self._open(str(self.folder / folder))
        rows = (f"| {key} | {value} |" for key, value in parameters.items())
        writer.add_text("trial", "\n".join(["| parameter | value |", "|---|---|", *rows]))

    def log(self, trial_id: str, step: int, numbers: Numbers) -> None:
        for key, value in numbers.items():
            self._writers[trial_id].add_scalar(key, value, step)
        self._writers[trial_id].flush()

    def end(self, trial_id: str, failed: bool) -> None:
        self._writers.pop(trial_id).close()


class WeightsAndBiases:
    """A run for each trial, which the same trial goes on with after an interruption."""

    def __init__(self, store: Store) -> None:
        import wandb

        offline = os.environ.get("WANDB_MODE") in ("offline", "disabled")
        if not offline and wandb.api.api_key is None:
            raise ValueError("nobody is logged in")
        self._init, self.study = wandb.init, Path(store.root).name
        local = "://" not in store.root
        self.folder = store.root if local else tempfile.mkdtemp(prefix="nas_sweeps-")
        self._runs: dict[str, Any] = {}

    def start(self, trial_id: str, name: str, parameters: dict[str, Any]) -> None:
        self._runs[trial_id] = self._init(
            project=os.environ.get("WANDB_PROJECT", "nas_sweeps"),
            group=self.study,
            id=trial_id,
            name=name,
            config=parameters,
            dir=self.folder,
            resume="allow",
            reinit="create_new",  # trials run beside each other
        )

    def log(self, trial_id: str, step: int, numbers: Numbers) -> None:
        self._runs[trial_id].log(numbers, step=step)

    def end(self, trial_id: str, failed: bool) -> None:
        self._runs.pop(trial_id).finish(exit_code=int(failed))


class MLflow:
    """A run for each time that a trial is begun."""

    def __init__(self, store: Store) -> None:
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", Path(store.root).name)
        there = self.client.get_experiment_by_name(name)
        self.experiment = there.experiment_id if there else self.client.create_experiment(name)
        self._runs: dict[str, str] = {}

    def start(self, trial_id: str, name: str, parameters: dict[str, Any]) -> None:
        from mlflow.entities import Param

        tags = {"trial_id": trial_id}
        run = self.client.create_run(self.experiment, run_name=name, tags=tags)
        self._runs[trial_id] = run.info.run_id
        params = [Param(key, str(value)) for key, value in parameters.items()]
        self.client.log_batch(run.info.run_id, params=params)

    def log(self, trial_id: str, step: int, numbers: Numbers) -> None:
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        metrics = [Metric(key, value, now, step) for key, value in numbers.items()]
        self.client.log_batch(self._runs[trial_id], metrics=metrics)

    def end(self, trial_id: str, failed: bool) -> None:
        self.client.set_terminated(self._runs.pop(trial_id), "FAILED" if failed else "FINISHED")


KINDS: dict[str, Callable[[Store], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


class Tracking:
    """Tells a tracker what happens to trials, until it fails."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name, self.tracker = name, tracker
        self._open: set[str] = set()  # trials
        self._broken = False

    def tell(self, news: News) -> None:
        """Tell the tracker of a trial's beginning, an epoch, or its ending."""
        trial, trial_id = news.trial, news.trial.trial_id
        if trial_id not in self._open and (news.kind == "started" or news.row is not None):
            self._open.add(trial_id)
            self._safely(self.tracker.start, trial_id, trial.name, parameters_of(trial))
        if news.row is not None:
            self._safely(self.tracker.log, trial_id, news.row["epoch"], numbers(news.row))
        if news.result is not None:
            self._end(trial_id, news.result.state == State.FAILED)

    def close(self) -> None:
        """Close the runs of trials that have not ended."""
        for trial_id in sorted(self._open):
            self._end(trial_id, failed=True)

    def _end(self, trial_id: str, failed: bool) -> None:
        if trial_id in self._open:
            self._open.discard(trial_id)
            self._safely(self.tracker.end, trial_id, failed)

    def _safely(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._broken:
            return
        try:
            call(*arguments)
        except Exception as error:  # whatever a server, a network or a disk comes up with
            self._broken = True
            warnings.warn(
                f"--track {self.name} ends here, the sweep goes on: {error}", stacklevel=2
            )


def numbers(row: Any) -> Numbers:
    """What a tracker can draw of an epoch: finite numbers, no texts and no lists."""
    return {
        key: value
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    }


def parameters_of(trial: Known) -> dict[str, Any]:
    """What was asked, short and flat."""
    parameters: dict[str, Any] = {"phase": trial.phase, "trial_id": trial.trial_id}
    return parameters | (dict(_flat(trial.trial)) if trial.trial else {})


def _flat(value: Trial | Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for item in fields(value):
        inner, name = getattr(value, item.name), f"{prefix}{item.name.rstrip('_')}"
        if is_dataclass(inner):
            yield from _flat(inner, f"{name}.")
        elif isinstance(inner, str | int | float | bool):
            yield name, inner
        elif inner is not None:
            yield name, str(inner)[:250]  # MLflow's shortest limit


def require(track: Sequence[str], store: str) -> None:
    """Refuse what could not be tracked, before anything runs.

    Raises:
        ValueError: no such tracker, its package is missing, or it cannot write into this store.
    """
    for name in track:
        if name not in TRACKERS:
            raise ValueError(f"track: no tracker '{name}'; choose from {', '.join(TRACKERS)}")
        if find_spec(_PACKAGES[name]) is None:
            raise ValueError(
                f"--track {name}: it needs {_PACKAGES[name]}, which is not installed: "
                f"pip install 'nas_sweeps[{name}]'"
            )
        if name == "tensorboard" and "://" in store:
            raise ValueError(
                "--track tensorboard writes files into the store, which must be a folder for that; "
                "use another tracker, or a store on a file system"
            )


def trackers(track: Sequence[str], store: Store) -> list[Tracking]:
    """Each tracker, once.

    Raises:
        ValueError: a tracker cannot be used, such as for lack of a login.
    """
    made = []
    for name in dict.fromkeys(track):
        try:
            made.append(Tracking(name, KINDS[name](store)))
        except Exception as error:
            raise ValueError(f"--track {name}: {str(error).strip(' .')}; {NEEDS[name]}") from None
    return made
