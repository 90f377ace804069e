"""The variants of a step: ways to compute the same thing, of which the first is the reference.

``plain`` is the reference: one module after another in torch's default memory layout, and an
architecture step that, like ``loss.backward()`` in DARTS architect.py, computes the gradients of
the weights too. ``alphas only`` is plain but for those gradients, ``channels last`` but for the
layout, ``and alphas only`` is both, ``and compiled`` is that under ``torch.compile``. ``ours`` is
the form that a trial has on the device (``space/form.py``): ``arranged`` on a CPU, ``triton`` on
CUDA, where ``arranged`` is measured beside it. On CUDA ``… graphed`` are the same recorded as CUDA
graphs, which is what a trial there runs.
Tasks of whole trials (``trials.py``) have channels-last maps and gradients of alphas alone in every
variant, as trials have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nas_sweeps.bench.options import Options
from nas_sweeps.space.form import Form, choose_form

OF_TRIALS = ("ssf_nas", "retrain_darts", "test_pass")


@dataclass(frozen=True)
class Variant:
    """One way to compute the same thing."""

    name: str
    form: Form | None = "plain"  # None: what a trial has on the device
    channels_last: bool = True
    alphas_only: bool = True
    compiled: bool = False
    graphed: bool = False

    def form_on(self, device: str, supernet: bool) -> Form:
        """Its form there. Raises ValueError where NAS_SWEEPS_FORM asks for what cannot be."""
        if self.form is not None:
            return self.form
        return choose_form(torch.device(device), supernet=supernet).form


PLAIN = Variant("plain", channels_last=False, alphas_only=False)
OURS = Variant("ours", form=None)
ARRANGED = Variant("arranged", form="arranged")
ALPHAS_ONLY = Variant("alphas only", channels_last=False)
SUPERNETS = (
    PLAIN,
    ALPHAS_ONLY,
    Variant("channels last", alphas_only=False),
    Variant("and alphas only"),
    OURS,
)
COMPILED = Variant("and compiled", compiled=True)
GRAPHED = Variant("and graphed", graphed=True)
OURS_GRAPHED = Variant("ours, graphed", form=None, graphed=True)
PLAIN_GRAPHED = Variant("plain, graphed", channels_last=False, graphed=True)
# They dispatch nothing to count.
UNCOUNTED = {v.name for v in (COMPILED, GRAPHED, PLAIN_GRAPHED, OURS_GRAPHED)}
NETWORKS = (PLAIN, OURS)  # on a CPU an evaluation network has one form, in two layouts


def variants(options: Options, task: str) -> tuple[Variant, ...]:
    """Those that a task knows; the first is what ratios are taken against.

    Raises:
        ValueError: none of those asked for is among them.
    """
    first, *others = _known(options, task)
    chosen = [one for one in others if one.name in options.only or not options.only]
    if not chosen:
        names = ", ".join(f"'{one.name}'" for one in others)
        raise ValueError(f"--variant: unknown '{options.only[0]}'; {task} has {names}")
    return (first, *chosen) if options.reference else tuple(chosen)


def _known(options: Options, task: str) -> tuple[Variant, ...]:
    cuda = options.device == "cuda"
    if task in OF_TRIALS:
        return (PLAIN, OURS) if not cuda else (PLAIN, PLAIN_GRAPHED, OURS, OURS_GRAPHED)
    if task == "retrain":
        return *NETWORKS, *((PLAIN_GRAPHED, OURS_GRAPHED) if cuda else ())
    compiled = (COMPILED,) if options.compile else ()
    if task == "evaluation":  # without gradients there is less to choose from
        return PLAIN, Variant("channels last"), *compiled, OURS
    *plain, ours = SUPERNETS
    if cuda:
        return *plain, *compiled, GRAPHED, ARRANGED, ours, OURS_GRAPHED
    return *plain, *compiled, ours
