"""The epochs that a trial is made of, by what their time depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from nas_sweeps import methods
from nas_sweeps.grid import Entry
from nas_sweeps.phases import phase_named
from nas_sweeps.trial import MethodSpec, Origin


class Kind(NamedTuple):
    """What makes two epochs take about the same time, from the coarsest to the finest."""

    phase: str
    stage: str
    method: str  # with its variant: steps of second order take several times as long
    distribution: str  # of which the number of images depends


Part = tuple[Kind, int]  # so many epochs of a kind
Parts = tuple[Part, ...]  # a whole trial, or what is left of one


def parts_of(entry: Entry, origins: Iterable[Origin] = ()) -> Parts:
    """A trial's epochs by kind. ``origins`` are those of a trial that others led to."""
    phase, where = phase_named(entry.phase), str(entry.distribution)
    method, variant, *_ = phase.labels(entry, islice(origins, 1))
    searched: MethodSpec | None = getattr(entry, "method", None)
    if searched is not None:  # real numbers, which may be tuned, change nothing of the work
        knobs = tuple(k for k in searched.knobs if not isinstance(k[1], float))
        variant = methods.variant(replace(searched, knobs=knobs))
    stages = phase.stages(entry)
    return tuple((Kind(entry.phase, stage, f"{method} {variant}", where), n) for stage, n in stages)


def after(parts: Parts, epochs_done: int) -> Parts:
    """What is left of a trial."""
    left: list[Part] = []
    for kind, epochs in parts:
        skipped = min(epochs, epochs_done)
        epochs_done -= skipped
        if epochs > skipped:
            left.append((kind, epochs - skipped))
    return tuple(left)
