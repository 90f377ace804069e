"""Which form of its network a trial is computed in, on a device."""

from __future__ import annotations

import os

import torch

from nas_sweeps import methods
from nas_sweeps.space.form import SWITCH, Choice, choose_form, require_known
from nas_sweeps.train.recorded import default_recorder
from nas_sweeps.trial import SearchTrial, Trial


def check_switches(on_cpu: bool) -> None:
    """Refuse environment variables that no trial could follow, before one starts.

    Args:
        on_cpu: whether some trials are to run without a GPU; what others can have is known where
            they run.

    Raises:
        ValueError: a switch has another value than it may have, or asks for what a CPU has not.
    """
    cpu = torch.device("cpu")
    default_recorder(cpu)
    if on_cpu:
        choose_form(cpu)
    require_known(os.environ.get(SWITCH))


def form_of(trial: Trial, device: torch.device) -> Choice:
    """The form, and why. Raises ``ValueError`` as ``choose_form``."""
    if not isinstance(trial, SearchTrial):
        return choose_form(device)
    method = methods.build(trial.method)
    return choose_form(
        device,
        supernet=True,
        differentiated_twice=method.order == "second" and method.hvp == "exact",
        partial_channels=method.partial_channels,
    )
