"""Losses: supervised ones by the name that a recipe gives them, and those of the search's steps.

No torch at import: ``functions`` holds what needs it.
"""

from __future__ import annotations

from nas_sweeps.losses.contract import LOSSES, Head, Loss, LossFunction, register
from nas_sweeps.losses.steps import BarlowTwins, Joint, Seen, StepLoss, Supervised
from nas_sweeps.losses.supervised import supervised_loss
from nas_sweeps.progress import Progress

__all__ = [
    "LOSSES",
    "BarlowTwins",
    "Head",
    "Joint",
    "Loss",
    "LossFunction",
    "Progress",
    "Seen",
    "StepLoss",
    "Supervised",
    "get",
    "names",
    "register",
    "supervised_loss",
]

names = LOSSES.names
get = LOSSES.get
