"""How a trial is computed: as its phase says, or as a test has it.

``NAS_SWEEPS_RUNS=package.module:NAME`` names a dict that is asked in place of the phases, in this
process and in those that it starts. Tests of all that happens around a run do so, see
``nas_sweeps.testing.fake``.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nas_sweeps.data.splits import DataSplits
from nas_sweeps.phases import phase_named
from nas_sweeps.train.common import Run
from nas_sweeps.trial import Trial

StateOf = Callable[[str], dict[str, Any]]  # of a run that is done, by its trial's id
SWITCH = "NAS_SWEEPS_RUNS"


@dataclass(frozen=True)
class RunKind:
    """How the trials of a phase are computed.

    Attributes:
        make: the run of a trial, as ``Phase.make_run`` has it.
        networks: whether it computes networks, so that the device's arithmetic is checked before.
        note: for the trial's log.
    """

    make: Callable[[Any, Callable[[], DataSplits], torch.device, StateOf], Run]
    networks: bool = True
    note: str | None = None


def run_kind(trial: Trial) -> RunKind:
    """How this trial is computed here. Raises ``ValueError`` for a bad ``NAS_SWEEPS_RUNS``."""
    where = os.environ.get(SWITCH)
    if where is None:
        phase = phase_named(trial.phase)
        return RunKind(phase.make_run, phase.networks)
    try:
        kind = pkgutil.resolve_name(where)[trial.phase]
    except (ValueError, ImportError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{SWITCH}: '{where}' has no run for a {trial.phase} trial ({error!r}); unset it, or "
            "name a dict by phase as package.module:NAME"
        ) from error
    assert isinstance(kind, RunKind)
    return kind
