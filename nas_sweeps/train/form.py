"""Which form of its network a trial is computed in, on a device."""

from __future__ import annotations

import torch

from nas_sweeps import methods
from nas_sweeps.space.form import Choice, choose_form
from nas_sweeps.trial import SearchTrial, Trial


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
