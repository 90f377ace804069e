"""The steps that are timed, for every variant (``variants.py``).

B images, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from nas_sweeps.bench.options import Options
from nas_sweeps.bench.trials import trial_step
from nas_sweeps.bench.variants import OF_TRIALS, Variant
from nas_sweeps.space.genotype import EDGES
from nas_sweeps.space.network import Network, count_macs
from nas_sweeps.space.precision import precision
from nas_sweeps.space.published import published
from nas_sweeps.space.supernet import Supernet
from nas_sweeps.train.bilevel import LossAt, first_order, second_order
from nas_sweeps.train.common import clip_and_step, set_gradients
from nas_sweeps.train.recorded import REHEARSALS, CudaGraphs, Means
from nas_sweeps.train.recorded import Step as Recorded

Step = Callable[[], object]
Net = TypeVar("Net", bound=nn.Module)
PASSES = {  # forward passes, counting a backward pass as two
    "first_order": 6,
    "second_order": 12,
    "evaluation": 1,
    "retrain": 3,
    "ssf_nas": 12,
    "retrain_darts": 3,
    "test_pass": 1,
}
LR, MOMENTUM, DECAY = 0.025, 0.9, 3e-4  # DARTS train_search.py


class Search:
    """A supernet, two batches and optimisers, as ``train.search`` has them."""

    def __init__(self, options: Options, variant: Variant) -> None:
        torch.manual_seed(0)
        self.variant = variant
        net = Supernet(options.channels, options.layers, 10)
        net.form = variant.form_on(options.device, supernet=True)
        self.net = _placed(net, options, variant)
        self.names = [name for name, _ in self.net.named_parameters()]
        self.weights: list[Tensor] = list(self.net.parameters())
        self.alphas = [
            (1e-3 * torch.randn(len(EDGES), 8, device=options.device)).requires_grad_()
            for _ in ("normal", "reduce")
        ]
        self.sgd = _sgd(self.weights, variant)
        self.adam = torch.optim.Adam(
            self.alphas,
            3e-4,
            betas=(0.5, 0.999),
            weight_decay=1e-3,
            fused=variant.graphed or None,
            capturable=variant.graphed,
        )
        self.images, self.labels = zip(
            *(_batch(options, variant, options.batch) for _ in "tv"), strict=True
        )
        self.call = torch.compile(self.net) if variant.compiled else self.net

    def first_order(self) -> None:
        """A bilevel step: alphas on the validation batch, then weights on the training batch."""
        if self.variant.alphas_only:
            gradients = first_order(self._loss(1), self.weights, self.alphas)
        else:
            gradients = _everything(self._loss(1), self.weights, self.alphas)[0]
        self._move(gradients)
        loss = self._loss(0)(self.weights, [alpha.detach() for alpha in self.alphas])
        clip_and_step(loss, self.weights, self.sgd, 5.0)

    def second_order(self) -> None:
        """The architecture step through one unrolled step of SGD, by finite differences."""
        train, val = self._loss(0), self._loss(1)
        buffers = [self.sgd.state[w].get("momentum_buffer") for w in self.weights]
        if self.variant.alphas_only:
            gradients = second_order(
                train,
                val,
                self.weights,
                self.alphas,
                buffers=buffers,
                lr=LR,
                momentum=MOMENTUM,
                weight_decay=DECAY,
            )
        else:
            gradients = _reference_second_order(train, val, self.weights, self.alphas)
        self._move(gradients)

    @torch.inference_mode()
    def evaluation(self) -> Tensor:
        """Logits of a batch in eval mode."""
        self.net.eval()
        mixing = [alpha.softmax(-1) for alpha in self.alphas]
        logits: Tensor = self.call(self.images[0], *mixing)
        self.net.train()
        return logits

    def _loss(self, which: int) -> LossAt:
        def at(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
            state = dict(zip(self.names, weights, strict=True))
            mixing = tuple(alpha.softmax(-1) for alpha in alphas)
            if self.variant.compiled:  # functional calls would compile anew
                logits = self.call(self.images[which], *mixing)
            else:
                logits = functional_call(self.net, state, (self.images[which], *mixing))
            return F.cross_entropy(logits, self.labels[which])

        return at

    def _move(self, gradients: Sequence[Tensor]) -> None:
        set_gradients(self.alphas, gradients)
        self.adam.step()


def _everything(
    loss: LossAt, weights: Sequence[Tensor], alphas: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of the alphas and of the weights, as ``loss.backward()`` makes them."""
    leaves = [w.detach().requires_grad_() for w in weights]
    both = torch.autograd.grad(loss(leaves, alphas), [*alphas, *leaves])
    return list(both[: len(alphas)]), list(both[len(alphas) :])


def _reference_second_order(
    train: LossAt, val: LossAt, weights: Sequence[Tensor], alphas: Sequence[Tensor]
) -> list[Tensor]:
    """DARTS architect.py, before SGD's first step: four passes with all gradients each."""
    weights = [w.detach() for w in weights]
    slopes = _everything(train, weights, alphas)[1]
    unrolled = [w - LR * (g + DECAY * w) for w, g in zip(weights, slopes, strict=True)]
    direct, v = _everything(val, unrolled, alphas)
    epsilon = 0.01 / nn.utils.get_total_norm(v)
    sides = []
    for sign in (1, -1):
        moved = [w + sign * epsilon * x for w, x in zip(weights, v, strict=True)]
        sides.append(_everything(train, moved, alphas)[0])
    mixed = [(p - n) / (2 * epsilon) for p, n in zip(*sides, strict=True)]
    return [g - LR * h for g, h in zip(direct, mixed, strict=True)]


class Retrain:
    """An evaluation network with its auxiliary head and drop path, one step of training."""

    def __init__(self, options: Options, variant: Variant) -> None:
        torch.manual_seed(0)
        net = Network(
            published("DARTS_V2"),
            options.retrain_channels,
            options.retrain_layers,
            10,
            auxiliary=True,
        )
        net.form = variant.form_on(options.device, supernet=False)
        self.net = _placed(net, options, variant)
        self.images, self.labels = _batch(options, variant, options.retrain_batch)
        self.sgd = _sgd(self.net.parameters(), variant)

    def step(self) -> None:
        logits, auxiliary = self.net(self.images, 0.2)
        loss = F.cross_entropy(logits, self.labels)
        if auxiliary is not None:
            loss = loss + 0.4 * F.cross_entropy(auxiliary, self.labels)
        clip_and_step(loss, list(self.net.parameters()), self.sgd, 5.0)


def make_step(options: Options, task: str, variant: Variant) -> Step:
    """The step of one variant, ready to be called again and again."""
    if task in OF_TRIALS:
        return trial_step(options, task, variant)
    owner = Retrain(options, variant) if task == "retrain" else Search(options, variant)
    step: Step = getattr(owner, "step" if task == "retrain" else task)
    if variant.graphed:
        step = _graphed(step, owner.sgd, options)

    def in_its_precision() -> object:
        with precision(options.precision, torch.device(options.device)):
            return step()

    return in_its_precision


def _graphed(step: Step, sgd: torch.optim.Optimizer, options: Options) -> Step:
    """Recorded by its first call, after the rehearsals."""

    def body(index: Tensor) -> Means:
        step()
        return {}

    recorded = Recorded(body, CudaGraphs(), [sgd], [])
    index = torch.zeros(1, device=options.device)
    calls = iter([REHEARSALS + 1])

    def call() -> None:
        for _ in range(next(calls, 1)):
            recorded(index)

    return call


def images_of(options: Options, task: str) -> int:
    """How many images one step trains or tests on: a bilevel step takes two batches."""
    if task == "test_pass":
        return options.test_images
    if task == "retrain_darts":
        return options.darts_batch
    batch = options.retrain_batch if task == "retrain" else options.batch
    return batch * (2 if task in ("first_order", "second_order", "ssf_nas", "packing") else 1)


def gflop(options: Options, task: str) -> float:
    """Counted from multiply-accumulates of convolutions and linear layers, two operations each.

    A step of SSF-NAS takes two views of each batch; its projector is not counted.
    """
    net: Network | Supernet
    if task == "retrain":
        net = Network(published("DARTS_V2"), options.retrain_channels, options.retrain_layers, 10)
    elif task == "retrain_darts":
        net = Network(published("DARTS_V2"), options.darts_channels, options.darts_layers, 10)
    else:
        net = Supernet(options.channels, options.layers, 10)
    images = {"retrain": options.retrain_batch, "retrain_darts": options.darts_batch}
    images["test_pass"] = options.test_images
    macs = count_macs(net, options.image_size)
    return 2e-9 * macs * images.get(task, options.batch) * PASSES[task]


def _placed(net: Net, options: Options, variant: Variant) -> Net:
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    return net.to(options.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def _sgd(weights: Iterable[Tensor], variant: Variant) -> torch.optim.Optimizer:
    fused = variant.graphed or None  # the form that can be recorded
    return torch.optim.SGD(weights, LR, momentum=MOMENTUM, weight_decay=DECAY, fused=fused)


def _batch(options: Options, variant: Variant, batch: int) -> tuple[Tensor, Tensor]:
    side = options.image_size
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    images_B3SS = torch.randn(batch, 3, side, side, device=options.device)
    labels_B = torch.randint(10, (batch,), device=options.device)
    return images_B3SS.to(memory_format=layout), labels_B
