"""How weights are moved and averaged: SGD, the rates of epochs, and moving averages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

from nas_sweeps.space.network import Network
from nas_sweeps.train.stages import Stage
from nas_sweeps.trial import RetrainRecipe

# Smith and Topin 2018, arXiv 1708.07120, as torch's OneCycleLR has it.
CYCLE_RISE = 0.3  # of the epochs
CYCLE_START = 1 / 25  # of the highest rate


def make_sgd(
    weights: Sequence[Tensor], recipe: RetrainRecipe, stage: Stage, fused: bool | None
) -> SGD:
    """The optimiser of a stage. ``fused`` is the form that can be recorded."""
    return SGD(
        weights,
        recipe.lr if stage.lr is None else stage.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=fused,
    )


def make_schedule(sgd: SGD, recipe: RetrainRecipe, stage: Stage) -> LRScheduler:
    """The recipe's rates where a stage is trained by the recipe, else a plain cosine."""
    plain = recipe.schedule == "cosine" and not recipe.warmup_epochs
    if plain or not stage.by_recipe:
        return CosineAnnealingLR(sgd, stage.epochs, recipe.lr_min)
    return LambdaLR(sgd, lambda epoch: rate(recipe, epoch, stage.epochs) / recipe.lr)


def rate(recipe: RetrainRecipe, epoch: int, epochs: int) -> float:
    """The learning rate of an epoch, counted from 0.

    In warm-up epoch e of W it is lr (e + 1) / (W + 1) (Goyal et al. 2017, arXiv 1706.02677, by the
    epoch). Then, t being the share of the other epochs that is over, it falls to lr_min:
    ``cosine`` lr_min + (lr - lr_min) (1 + cos(pi t)) / 2, ``linear`` lr + (lr_min - lr) t.
    ``one_cycle`` rises from lr / 25 to lr in three tenths of the epochs and falls to lr_min in the
    rest, each by half a cosine, an epoch having the rate of its middle.
    """
    warm, low, high = recipe.warmup_epochs, recipe.lr_min, recipe.lr
    if epoch < warm:
        return high * (epoch + 1) / (warm + 1)
    if recipe.schedule == "one_cycle":
        middle = min((epoch + 0.5) / epochs, 1.0)
        if middle < CYCLE_RISE:
            return _by_cosine(CYCLE_START * high, high, middle / CYCLE_RISE)
        return _by_cosine(high, low, (middle - CYCLE_RISE) / (1 - CYCLE_RISE))
    over = (epoch - warm) / (epochs - warm)
    return (
        high + (low - high) * over if recipe.schedule == "linear" else _by_cosine(high, low, over)
    )


def _by_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


class Averages:
    """An exponential moving average of a network's weights and running statistics.

    After step n, counted from 0, it keeps min(decay, (1 + n) / (10 + n)) of itself, so that a short
    training is not an average with its beginning (the rule of TensorFlow's
    ExponentialMovingAverage; such averages are tested since Polyak and Juditsky 1992, and in
    Tarvainen and Valpola 2017, arXiv 1703.01780). torch's AveragedModel asks the device whether a
    step is its first, which cannot be recorded.

    Attributes:
        network: the averaged network, to test with.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = deepcopy(network).requires_grad_(False)
        self._decay = decay
        self._pairs = list(
            zip(self.network.state_dict().values(), network.state_dict().values(), strict=True)
        )
        self._steps = torch.zeros((), device=self._pairs[0][0].device)

    def restart(self) -> None:
        """Begin with the network as it is."""
        for average, value in self._pairs:
            average.copy_(value)
        self._steps.zero_()

    @torch.no_grad()
    def update(self) -> None:
        """Count a step of the network. A function of tensors alone, so it can be recorded."""
        kept = ((1 + self._steps) / (10 + self._steps)).clamp(max=self._decay)
        floats = [pair for pair in self._pairs if pair[0].is_floating_point()]
        old, new = [average for average, _ in floats], [value for _, value in floats]
        steps = torch._foreach_sub(new, old)
        torch._foreach_mul_(steps, 1 - kept)
        torch._foreach_add_(old, steps)
        for average, value in self._pairs:
            if not average.is_floating_point():  # how many batches BatchNorm has seen
                average.copy_(value)
        self._steps.add_(1)

    def state_dict(self) -> dict[str, Any]:
        """The averages, and how many steps they have."""
        return {"network": self.network.state_dict(), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s value."""
        self.network.load_state_dict(state["network"])
        self._steps.copy_(state["steps"])
