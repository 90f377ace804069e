"""Samples from the tables of stores: what epochs and trials took there."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from nas_sweeps.chain import PHASES
from nas_sweeps.estimate.rates import Images, Rates, Sample, share_of, work_of
from nas_sweeps.live.pace import kind_at, parts_of
from nas_sweeps.store import Store, load
from nas_sweeps.store.frames import Frames
from nas_sweeps.trial import Origin, Trial, trial_from_json

PAUSE_S = 120.0  # a longer time between two trials is no overhead: it is another run
_COLUMNS = {
    "trials": ["spec", "origins", "state", "wall_s", "attempt", "device", "host"],
    "epochs": ["epoch", "epoch_s", "images_per_s"],
    "classes": ["train_count"],
    "attempts": ["attempt", "epochs_done", "state", "started_at", "heartbeat", "device", "host"],
    "genotypes": list[str](),
}


@dataclass(frozen=True)
class Measured:
    """What stores have to say about time."""

    rates: Rates
    trials: int  # that were measured
    devices: tuple[str, ...]  # they ran on
    hosts: tuple[str, ...]
    epochs_done: dict[str, int]  # by trial
    elsewhere: Counter[str]  # trials of other kinds of device, which were left out


def measure(stores: Iterable[Store], gpus: bool) -> Measured:
    """Everything that trials on GPUs, or on CPUs, took.

    Where there are several models of GPU, those that ran last count.

    Raises:
        ValueError: there is no store.
    """
    frames = load(list(stores), columns=_COLUMNS)
    attempts = frames.arrow("attempts").to_pylist()
    devices = _devices(attempts)
    meant, elsewhere = _meant(devices, attempts, gpus)
    images = Images()
    samples: list[Sample] = []
    trials = {row["trial_id"]: row for row in _trials(frames) if row["trial_id"] in meant}
    _count_images(frames, trials, images)
    for trial_id, epochs in _by_trial(frames.arrow("epochs")):
        if trial_id in trials:
            samples += _samples(trials[trial_id], epochs, images)
    used = [trials[t] for t, _ in _by_trial(frames.arrow("epochs")) if t in trials]
    return Measured(
        Rates(samples, images, _overhead(frames, trials, attempts)),
        len(used),
        tuple(sorted({devices[row["trial_id"]] for row in used})),
        tuple(sorted({row["host"] for row in used if row["host"]})),
        {t: n for a in attempts if (n := a["epochs_done"]) for t in [a["trial_id"]]},
        elsewhere,
    )


def _devices(attempts: list[dict[str, Any]]) -> dict[str, str]:
    """Of each trial, that of its latest attempt."""
    return {a["trial_id"]: a["device"] for a in attempts if a["device"]}


def _meant(
    devices: dict[str, str], attempts: list[dict[str, Any]], gpus: bool
) -> tuple[set[str], Counter[str]]:
    """Trials on the kind of device that is asked for, and how many ran on another."""
    fitting = {t for t, device in devices.items() if (device != "cpu") == gpus}
    latest = max(
        (a for a in attempts if a["trial_id"] in fitting and a["started_at"]),
        key=lambda a: a["started_at"],
        default=None,
    )
    chosen = devices[latest["trial_id"]] if latest else None
    meant = {t for t in fitting if devices[t] == chosen}
    return meant, Counter(device for t, device in devices.items() if t not in meant)


def _trials(frames: Frames) -> Iterator[dict[str, Any]]:
    """Rows of trials whose spec can be read, with the trial itself."""
    for row in frames.arrow("trials").to_pylist():
        try:
            row["trial"] = trial_from_json(row["spec"] or "")
            origins = json.loads(row["origins"] or "[]")
            row["origins"] = [Origin.from_json(origin) for origin in origins]
        except ValueError:
            continue
        yield row


def _count_images(frames: Frames, trials: dict[str, dict[str, Any]], images: Images) -> None:
    for trial_id, rows in _by_trial(frames.arrow("classes")):
        if trial_id in trials:
            trial: Trial = trials[trial_id]["trial"]
            counts = [n for n in rows["train_count"] if n is not None]
            if counts:
                images.add(trial.data, trial.distribution, max(counts), len(counts), sum(counts))


def _samples(row: dict[str, Any], epochs: dict[str, list[Any]], images: Images) -> Iterator[Sample]:
    """One for each stage that the trial has epochs of."""
    trial: Trial = row["trial"]
    parts = parts_of(trial, row["origins"])
    there = (images.of(trial.data, trial.distribution) or 0) * share_of(trial.recipe)
    by_kind: dict[Any, list[tuple[float, float]]] = {}
    each = zip(epochs["epoch"], epochs["epoch_s"], epochs["images_per_s"], strict=True)
    for epoch, epoch_s, images_per_s in each:
        if epoch_s and epoch_s > 0:
            pace = 1 / images_per_s if images_per_s else 0.0
            by_kind.setdefault(kind_at(parts, epoch), []).append((epoch_s, pace))
    for kind, measured in by_kind.items():
        yield Sample(
            kind=kind,
            work=work_of(trial.data, trial.recipe),
            images=there,
            epoch_s=statistics.fmean(seconds for seconds, _ in measured),
            image_s=statistics.fmean(pace for _, pace in measured),
        )


def _overhead(
    frames: Frames, trials: dict[str, dict[str, Any]], attempts: list[dict[str, Any]]
) -> dict[str, float]:
    """Median seconds of a trial beside its epochs, and from one trial to the next."""
    spent = {
        trial_id: sum(s for s in epochs["epoch_s"] if s)
        for trial_id, epochs in _by_trial(frames.arrow("epochs"))
    }
    gap = _gap([a for a in attempts if a["trial_id"] in trials])
    found: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for trial_id, row in trials.items():
        if row["state"] == "done" and row["attempt"] == 1 and row["wall_s"]:
            beside = row["wall_s"] - spent.get(trial_id, row["wall_s"])
            found[row["trial"].phase].append(max(0.0, beside))
    return {p: gap + (statistics.median(all_of) if all_of else 0.0) for p, all_of in found.items()}


def _gap(attempts: list[dict[str, Any]]) -> float:
    """From the end of a trial to the start of the one that takes its place."""
    whole = [a for a in attempts if a["started_at"] and a["heartbeat"] and a["state"] == "done"]
    events: list[tuple[datetime, bool]] = [(a["started_at"], True) for a in whole]
    events += [(a["heartbeat"], False) for a in whole]
    free: list[datetime] = []
    gaps: list[float] = []
    for when, starts in sorted(events):
        if not starts:
            free.append(when)
        elif free and (gap := (when - free.pop(0)).total_seconds()) < PAUSE_S:
            gaps.append(gap)
    return statistics.median(gaps) if gaps else 0.0


def _by_trial(table: pa.Table) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    """A table that is sorted by trial, cut into its trials: columns by name."""
    ids = table["trial_id"].to_pylist()
    columns = {name: table[name].to_pylist() for name in table.column_names if name != "trial_id"}
    start = 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or ids[end] != ids[start]:
            yield ids[start], {name: values[start:end] for name, values in columns.items()}
            start = end
