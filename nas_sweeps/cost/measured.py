"""Samples from the tables of stores: what epochs and trials took there."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from nas_sweeps.cost.epochs import parts_of
from nas_sweeps.cost.rates import Images, Rates, Sample, work_of
from nas_sweeps.store import Store
from nas_sweeps.store.records import AttemptState, State
from nas_sweeps.tables import load
from nas_sweeps.trial import Origin, Resources, Trial, trial_from_json

PAUSE_S = 120.0  # a longer time between two trials is no overhead: it is another run
_COLUMNS = {
    "trials": ["phase", "spec", "origins", "state", "wall_s", "gpu_hours", "attempt", "host"],
    "epochs": ["stage", "epoch_s", "images_per_s"],
    "classes": ["train_count"],
    "attempts": ["state", "started_at", "heartbeat", "device"],
    "genotypes": list[str](),
}


@dataclass(frozen=True)
class Measured:
    """What stores have to say about time."""

    rates: Rates
    trials: int  # that were measured
    devices: tuple[str, ...]  # they ran on
    hosts: tuple[str, ...]
    elsewhere: Counter[str]  # trials of other kinds of device, which were left out
    past: dict[str, Past]  # every trial, on whatever device


@dataclass(frozen=True)
class Past:
    """What a trial took; zeros while it has not ended."""

    phase: str
    wall_s: float
    gpu_hours: float


def measure(stores: Iterable[Store], needs: Mapping[str, Resources]) -> Measured:
    """Everything that trials took on the kind of device that their phase asks for now.

    Where there are several models of GPU, the one that ran last counts.

    Raises:
        ValueError: there is no store.
    """
    frames = load(list(stores), columns=_COLUMNS)
    attempts = frames.arrow("attempts").to_pylist()
    rows = frames.arrow("trials").to_pylist()
    devices = _devices(attempts)
    phases = {row["trial_id"]: row["phase"] for row in rows}
    meant, elsewhere = _meant(devices, phases, attempts, needs)
    trials = {row["trial_id"]: row for row in _readable(rows) if row["trial_id"] in meant}
    stages = [row for row in _stages(frames.arrow("epochs")) if row["trial_id"] in trials]
    # Of any device: they follow each other.
    whole = [a for a in attempts if a["state"] == AttemptState.DONE]
    rates = Rates(_images(frames.arrow("classes"), trials), _overhead(stages, trials, _gap(whole)))
    for row in stages:
        of = trials[row["trial_id"]]
        rates.add(_sample(of["trial"], of["origins"], row, rates.images), row["trial_id"])
    used = {row["trial_id"]: trials[row["trial_id"]] for row in stages}
    used |= {t: row for t, row in trials.items() if row["wall_s"] and not parts_of(row["trial"])}
    return Measured(
        rates,
        len(used),
        tuple(sorted({devices[trial_id] for trial_id in used})),
        tuple(sorted({row["host"] for row in used.values() if row["host"]})),
        elsewhere,
        {
            row["trial_id"]: Past(row["phase"], row["wall_s"] or 0.0, row["gpu_hours"] or 0.0)
            for row in rows
        },
    )


def observe(rates: Rates, trial: Trial, origins: Iterable[Origin], epochs: pa.Table) -> None:
    """Count the epochs of a trial that runs, in the place of those that it had before."""
    for row in _stages(epochs):
        rates.add(_sample(trial, origins, row, rates.images), trial.trial_id)


def epochs_begun(store: Store) -> dict[str, int]:
    """Finished epochs of each trial of a store that has some."""
    columns = {name: list[str]() for name in _COLUMNS} | {"attempts": ["epochs_done"]}
    rows = load(store, columns=columns).arrow("attempts").to_pylist()
    done: dict[str, int] = {}
    for row in rows:
        done[row["trial_id"]] = max(done.get(row["trial_id"], 0), row["epochs_done"] or 0)
    return done


def _devices(attempts: list[dict[str, Any]]) -> dict[str, str]:
    """The device of each trial's latest attempt."""
    return {a["trial_id"]: a["device"] for a in attempts if a["device"]}


def _meant(
    devices: dict[str, str],
    phases: dict[str, str],
    attempts: list[dict[str, Any]],
    needs: Mapping[str, Resources],
) -> tuple[set[str], Counter[str]]:
    """Trials on the kind of device that is asked for, and how many ran on another."""
    on_gpu = [a for a in attempts if a["device"] not in (None, "cpu") and a["started_at"]]
    latest = max(on_gpu, key=lambda a: a["started_at"], default={"device": None})["device"]
    wanted = {phase: latest if needs[phase].gpus else "cpu" for phase in needs}
    meant = {t for t, device in devices.items() if device == wanted.get(phases[t])}
    return meant, Counter(device for t, device in devices.items() if t not in meant)


def _readable(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of trials whose spec can be read, with the trial itself."""
    for row in rows:
        try:
            row["trial"] = trial_from_json(row["spec"] or "")
            origins = json.loads(row["origins"] or "[]")
            row["origins"] = [Origin.from_json(origin) for origin in origins]
        except ValueError:
            continue
        yield row


def _stages(epochs: pa.Table) -> list[dict[str, Any]]:
    """Mean epoch of each stage of each trial, and how many there were."""
    epochs = epochs.filter(pc.greater(epochs["epoch_s"], 0))
    epochs = epochs.append_column("image_s", pc.divide(1.0, epochs["images_per_s"]))
    for i, name in enumerate(epochs.column_names):
        if pa.types.is_dictionary(epochs.schema.field(name).type):
            epochs = epochs.set_column(i, name, epochs[name].cast(pa.string()))
    wanted = [("epoch_s", "mean"), ("epoch_s", "sum"), ("image_s", "mean")]
    grouped = epochs.group_by(["trial_id", "stage"], use_threads=False).aggregate(wanted)
    return grouped.to_pylist()  # type: ignore[no-any-return]


def _images(classes: pa.Table, trials: dict[str, dict[str, Any]]) -> Images:
    images = Images()
    classes = classes.set_column(0, "trial_id", classes["trial_id"].cast(pa.string()))
    wanted = [("train_count", of) for of in ("max", "sum", "count")]
    for row in classes.group_by("trial_id").aggregate(wanted).to_pylist():
        if row["trial_id"] in trials and row["train_count_count"]:
            trial: Trial = trials[row["trial_id"]]["trial"]
            largest, total, k = (row[f"train_count_{of}"] for of in ("max", "sum", "count"))
            images.add(trial.data, trial.distribution, largest, k, total)
    return images


def _sample(
    trial: Trial, origins: Iterable[Origin], stage: dict[str, Any], images: Images
) -> Sample:
    kinds = [kind for kind, _ in parts_of(trial, origins)]
    there = images.in_epoch(trial.data, trial.distribution, trial.recipe, stage["stage"])
    return Sample(
        kind=kinds[0]._replace(stage=stage["stage"]),
        work=work_of(trial.data, trial.recipe),
        images=there or 0.0,
        epoch_s=stage["epoch_s_mean"],
        image_s=stage["image_s_mean"] or 0.0,
    )


def _overhead(
    stages: list[dict[str, Any]], trials: dict[str, dict[str, Any]], gap: float
) -> dict[str, float]:
    """Median seconds of a trial beside its epochs, by phase, and from one to the next."""
    spent: Counter[str] = Counter()
    for row in stages:
        spent[row["trial_id"]] += row["epoch_s_sum"]
    found: dict[str, list[float]] = {row["trial"].phase: [] for row in trials.values()}
    for trial_id, row in trials.items():
        if row["state"] != State.DONE or row["attempt"] != 1 or not row["wall_s"]:
            continue
        if spent[trial_id] or not parts_of(row["trial"]):
            found[row["trial"].phase].append(max(0.0, row["wall_s"] - spent[trial_id]))
    return {p: gap + (statistics.median(all_of) if all_of else 0.0) for p, all_of in found.items()}


def _gap(attempts: list[dict[str, Any]]) -> float:
    """From the end of a trial to the start of the one that takes its place."""
    events: list[tuple[datetime, bool]] = [(a["started_at"], True) for a in attempts]
    events += [(a["heartbeat"], False) for a in attempts]
    free: list[datetime] = []
    gaps: list[float] = []
    for when, starts in sorted(events):
        if not starts:
            free.append(when)
        elif free and (gap := (when - free.pop(0)).total_seconds()) < PAUSE_S:
            gaps.append(gap)
    return statistics.median(gaps) if gaps else 0.0
