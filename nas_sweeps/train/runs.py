"""How the trials of each phase are computed: one registry that every maker of runs asks.

``NAS_SWEEPS_RUNS=package.module:NAME`` puts another registry in its place, in this process and in
those that it starts. Tests of all that happens around a run do so, see ``nas_sweeps.testing.fake``.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nas_sweeps.data.bundle import Bundle
from nas_sweeps.train.common import Run
from nas_sweeps.train.retrain import RetrainRun
from nas_sweeps.train.search import SearchRun
from nas_sweeps.trial import Trial

SWITCH = "NAS_SWEEPS_RUNS"


@dataclass(frozen=True)
class RunKind:
    """How the trials of a phase are computed.

    Attributes:
        make: the run of a trial on a device. It asks for the trial's images if it needs them.
        networks: whether it computes networks, so that the device's arithmetic is checked before.
        note: for the trial's log.
    """

    make: Callable[[Any, Callable[[], Bundle], torch.device], Run]
    networks: bool = True
    note: str | None = None


RUNS: Mapping[str, RunKind] = {
    "search": RunKind(lambda trial, images, device: SearchRun(trial, images(), device)),
    "retrain": RunKind(lambda trial, images, device: RetrainRun(trial, images(), device)),
}


def run_kind(trial: Trial) -> RunKind:
    """How this trial is computed here. Raises ``ValueError`` for a bad ``NAS_SWEEPS_RUNS``."""
    where = os.environ.get(SWITCH)
    if where is None:
        return RUNS[trial.phase]
    try:
        kind = pkgutil.resolve_name(where)[trial.phase]
    except (ValueError, ImportError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{SWITCH}: '{where}' has no run for a {trial.phase} trial ({error!r}); unset it, or "
            "name a dict by phase as package.module:NAME"
        ) from error
    assert isinstance(kind, RunKind)
    return kind
