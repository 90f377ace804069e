"""Which form of a network computes it: the same function and parameters, fast on another device.

``plain`` calls the modules one by one, in PyTorch alone, on any device: it is the oracle. For
supernets there is ``arranged``, PyTorch ordered for CPUs (``supernet.py``); for CUDA there is
``triton``, kernels over a table of lanes (``lanes/``). Forms differ in rounding only.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Literal, NamedTuple, get_args

import torch

Form = Literal["plain", "arranged", "triton"]
FORMS: tuple[Form, ...] = get_args(Form)
SWITCH = "NAS_SWEEPS_FORM"
CAPABILITY = (8, 0)  # Ampere: the first chip that multiplies TF32 and bfloat16


class Choice(NamedTuple):
    """A form, and why it is this one."""

    form: Form
    reason: str


def choose_form(
    device: torch.device,
    *,
    supernet: bool = False,
    differentiated_twice: bool = False,
    partial_channels: int = 1,
) -> Choice:
    """The fastest form that a network has on a device.

    Args:
        device: that the network is trained on.
        supernet: of a search, not the network of a genotype.
        differentiated_twice: gradients are differentiated themselves (``hvp: exact``), which
            kernels cannot.
        partial_channels: of a supernet, 1 for whole ones.

    Raises:
        ValueError: the environment variable ``NAS_SWEEPS_FORM`` names no form, or kernels that
            cannot run here.
    """
    if partial_channels > 1:
        return Choice("plain", "cells with partial channels have no other form")
    asked = os.environ.get(SWITCH) or None  # an empty one is none
    why_not = _why_no_triton(device, differentiated_twice)
    if asked is not None:
        return Choice(_checked(asked, supernet, why_not), f"{SWITCH} asks for it")
    if device.type == "cpu" and supernet:
        return Choice("arranged", "the fastest on a CPU")
    if why_not is None:
        return Choice("triton", "the fastest on CUDA")
    return Choice("plain", why_not)


def _checked(asked: str, supernet: bool, why_not: str | None) -> Form:
    """The form that was asked for, or plain for a network that does not have it anywhere."""
    require_known(asked)
    if asked == "triton" and why_not is not None:
        raise ValueError(f"{SWITCH}=triton: {why_not}; unset it, or use plain")
    if asked == "arranged" and not supernet:
        return "plain"
    return next(form for form in FORMS if form == asked)


def require_known(asked: str | None) -> None:
    """Raises ``ValueError`` for what names no form; an empty text names none, and is none."""
    if asked and asked not in FORMS:
        raise ValueError(f"{SWITCH}: unknown form '{asked}'; choose from {', '.join(FORMS)}")


def _why_no_triton(device: torch.device, differentiated_twice: bool) -> str | None:
    if device.type != "cuda":
        return f"the kernels need CUDA, and this is a {device.type} device"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < CAPABILITY:
        return f"the kernels need compute capability 8.0, and this GPU has {major}.{minor}"
    if differentiated_twice:
        return "the kernels cannot be differentiated twice (hvp: exact)"
    return None
