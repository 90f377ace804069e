"""The search loop: bilevel optimisation of a supernet, one epoch at a time.

One step (DARTS train_search.py) takes a batch of T and one of V, first moves the architecture
on V at the current weights, then the weights on T at the new architecture. An epoch is one pass
over T. In a method's warm-up epochs a step takes a batch of T alone and moves the weights alone.
Which losses the two steps minimise, how architecture parameters become edge weights, what is
added to the architecture loss and how a genotype is read off is the method's business, none of
this file's.

Where the weights' loss reads no labels the classifier is an online probe: it learns from
detached features with an optimiser of its own, so labels never reach the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import CosineAnnealingLR

from nas_sweeps import methods
from nas_sweeps.data.batches import EpochSampler, InfiniteSampler
from nas_sweeps.data.mixing import Mixing
from nas_sweeps.data.splits import DataSplits
from nas_sweeps.losses import StepLoss, supervised_loss
from nas_sweeps.losses.contract import head_of
from nas_sweeps.losses.heads import scale_cosines
from nas_sweeps.methods import EdgeWeights, Progress
from nas_sweeps.recipes import classifier_of, require_sound
from nas_sweeps.space.genotype import EDGES
from nas_sweeps.space.network import count_macs, count_params
from nas_sweeps.space.precision import precision
from nas_sweeps.space.supernet import Supernet
from nas_sweeps.train.bilevel import first_order, second_order
from nas_sweeps.train.common import (
    EPOCH_ACCURACIES,
    Meter,
    Outcome,
    Row,
    class_rows,
    clip_and_step,
    evaluate,
    evaluating,
    generator,
    nothing,
    sampled,
    seeded,
    set_gradients,
    step_schedule,
    stream,
    validate,
)
from nas_sweeps.train.form import form_of
from nas_sweeps.train.objective import Batch, OnLogits, SearchModel, make_batch
from nas_sweeps.train.reading import Reading
from nas_sweeps.train.recorded import Means, Recorder, Step, default_recorder
from nas_sweeps.trial import SearchTrial

ON_VALIDATION = ("loss_arch", "regulariser")  # measured on the batch of V, the rest on T's


class SearchRun:
    """One search trial. Same trial, bundle and threads: same bits, interrupted or not (CPU).

    Raises:
        ValueError: the method refuses the recipe; or, by the first epoch, there are fewer images
            than the one whole batch that Barlow Twins needs.
        TrainingDiverged: a loss is no longer finite at the end of an epoch.
    """

    def __init__(
        self,
        trial: SearchTrial,
        bundle: DataSplits,
        device: torch.device,
        recorder: Recorder | None = None,
    ) -> None:
        self.trial, self.bundle, self.device = trial, bundle, device
        self.recorder = recorder or default_recorder(device)
        self.recipe = trial.recipe
        self.method = methods.build(trial.method)
        require_sound(self.recipe)
        self.method.check(self.recipe)
        self.mixing = Mixing.of(self.recipe)
        self.epochs_done = 0
        self.epochs_total = trial.recipe.epochs if self.method.trains else 0
        self.tested: Row = {}  # the last test's numbers
        self._make_model()
        self._make_optimisers()
        self._make_streams()
        self.reading = Reading(
            self.method, self.parameters, self.noiseless, self.model, bundle, self.noise
        )
        self._make_step()
        self.meter = Meter(device)  # of the epoch that is under way or comes next

    def _make_model(self) -> None:
        recipe, method, seed = self.recipe, self.method, self.trial.seed
        self.weight_loss, self.arch_loss = method.weight_loss, method.arch_loss
        own_scale = head_of(recipe.loss) == "cosine"
        with seeded(seed, "weights"):
            supernet = Supernet(
                recipe.channels,
                recipe.layers,
                self.bundle.num_classes,
                method.operations,
                partial_channels=method.partial_channels,
            )
            supernet.form = form_of(self.trial, self.device).form
            model = SearchModel(supernet, classifier_of(recipe), (self.weight_loss, self.arch_loss))
            scale_cosines(model, 1.0 if own_scale else recipe.classifier_scale)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        draw = torch.Generator().manual_seed(stream(seed, "alpha"))
        initial = method.initial_parameters(len(EDGES), draw)
        self.parameters = {n: p.to(self.device).requires_grad_() for n, p in initial.items()}
        self.alphas = list(self.parameters.values())

    def _make_optimisers(self) -> None:
        recipe, method = self.recipe, self.method
        named = dict(self.model.named_parameters())
        self.probed = not self.weight_loss.reads_labels
        head = [n for n in named if n.startswith("supernet.classifier.")]
        self.names = [n for n in named if not (self.probed and n in head)]
        self.weights: list[Tensor] = [named[n] for n in self.names]
        fused = self.recorder is not None or None  # the form that can be recorded
        self.sgd = torch.optim.SGD(
            self.weights,
            recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=fused,
        )
        self.adam = torch.optim.Adam(
            self.alphas,
            method.arch_lr,
            betas=(method.arch_beta1, method.arch_beta2),
            weight_decay=method.arch_weight_decay,
            fused=fused,
            capturable=bool(fused),
        )
        self.probe = torch.optim.SGD(
            # A fixed classifier has no weights, and an optimiser without any is refused.
            [named[n] for n in head] or [torch.zeros((), device=self.device)],
            self.weight_loss.probe_lr,
            0.9,
            fused=fused,
        )
        self.schedules = {"sgd": CosineAnnealingLR(self.sgd, recipe.epochs, recipe.lr_min)}
        if self.probed:
            self.schedules["probe"] = CosineAnnealingLR(self.probe, recipe.epochs)

    def _make_streams(self) -> None:
        seed, device = self.trial.seed, self.device
        self.draws = generator(seed, "augment", device)
        self.noise = generator(seed, "noise", device)  # of methods that sample
        epoch = torch.zeros((), dtype=torch.float64, device=device)
        self.progress = Progress(epoch, self.recipe.epochs, self.noise)
        self.noiseless = self.progress._replace(generator=None)
        self.on_t, self.on_v = (
            supervised_loss(self.recipe.loss, counts, self.noiseless)
            for counts in (self.bundle.t_counts, self.bundle.v_counts)
        )
        size = self.recipe.batch_size
        self.passes = EpochSampler(self.bundle.t_index, size, generator(seed, "order", device))
        self.order = None
        if self.weight_loss.reads_labels:
            self.order = sampled(self.recipe.sampler, self.bundle.labels[self.bundle.t_index])
        self.validation = InfiniteSampler(
            self.bundle.v_index, size, generator(seed, "validation", device)
        )

    def _make_step(self) -> None:
        optimisers = [self.sgd, self.probe] if self.probed else [self.sgd]
        self.step = Step(self._step, self.recorder, optimisers, [self.draws, self.noise])

    # One epoch

    def run_epoch(self, between: Callable[[], None] = nothing) -> Row:
        """Train one epoch, or what is left of it, with ``between`` as ``Run`` has it.

        The row holds the epochs table's columns, less the trial's id.
        """
        epoch, recipe = self.epochs_done + 1, self.recipe
        warming = self.epochs_done < self.method.warmup_epochs
        stage = "warmup" if warming else "search"
        row: Row = {"stage": stage, "epoch": epoch, "lr": self.sgd.param_groups[0]["lr"]}
        row["arch_lr"] = 0.0 if warming else self.method.arch_lr
        self.progress.epoch.fill_(self.epochs_done)
        with self.meter.running():
            with precision(recipe.precision, self.device):
                for index in self.passes.rest(self.weight_loss.whole_batches, self.order):
                    # Without a batch of V it is another step, with a recording of its own.
                    held_out = [] if warming else [self.validation.next()]
                    means = self.step(index, *held_out)
                    self._count(means, len(index), sum(map(len, held_out)))
                    between()
                self.meter.trained()
                if epoch % recipe.test_every == 0 or epoch == self.epochs_total:
                    self.tested = self._test(between)
                    row |= {k: v for k, v in self.tested.items() if k in EPOCH_ACCURACIES}
            row |= self._weight_columns() | self.reading.columns()
            row |= self.meter.row()
        self._turn()
        return row

    def _turn(self) -> None:
        """On to the next epoch."""
        self.epochs_done += 1
        self.passes.next_epoch()
        self.meter = Meter(self.device)
        for schedule in self.schedules.values():
            step_schedule(schedule)

    def _step(self, t_index: Tensor, v_index: Tensor | None = None) -> Means:
        """A step; without a batch of V, one of the weights alone."""
        train, means = self._batch(t_index, self.weight_loss, self.on_t, self.mixing), Means()
        if v_index is not None:
            held_out = self._batch(v_index, self.arch_loss, self.on_v)
            means = self._architecture_step(train, held_out)
        with torch.no_grad():
            edge_weights = self._edge_weights(self.alphas)
        loss, features = self.model(self.weight_loss, train, edge_weights)
        means |= {"loss_weights": loss.detach()}
        means |= {"accuracy_train": self._classified(features, train)}
        clip_and_step(loss, self.weights, self.sgd, self.recipe.grad_clip)
        return means

    def _count(self, means: Means, trained: int, held_out: int) -> None:
        for name, value in means.items():
            self.meter.add(name, value, held_out if name in ON_VALIDATION else trained)
        self.meter.images += trained + held_out

    def _classified(self, features: list[Tensor], batch: Batch) -> Tensor:
        """Accuracy on the training batch; a probe learns from its detached features."""
        seen = torch.cat(features).detach()
        labels = batch.labels_B.repeat(len(features))
        logits = self.model.supernet.classifier(seen)
        if self.probed:
            self.probe.zero_grad()
            torch.autograd.backward(batch.supervised(logits, labels))
            self.probe.step()
        right: Tensor = logits.detach().argmax(1) == labels
        return right.double().mean()

    def _architecture_step(self, train: Batch, held_out: Batch) -> Means:
        method, means = self.method, Means()

        def on_training(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
            return self._loss_at(weights, self.weight_loss, train, self._edge_weights(alphas))

        def on_validation(weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
            edge_weights = self._edge_weights(alphas)
            unrolled = method.order == "second"
            loss = self._loss_at(weights, self.arch_loss, held_out, edge_weights, unrolled)
            extra = method.regulariser(self._named(alphas), edge_weights, self.progress)
            means["loss_arch"] = loss.detach()
            means["regulariser"] = extra
            return loss + extra

        with frozen_statistics(self.model, self.recipe.bn_stats_in_arch_step == "freeze"):
            if method.order == "first":
                gradients = first_order(on_validation, self.weights, self.alphas)
            else:
                gradients = second_order(
                    on_training,
                    on_validation,
                    self.weights,
                    self.alphas,
                    buffers=[self.sgd.state[w].get("momentum_buffer") for w in self.weights],
                    lr=self.sgd.param_groups[0]["lr"],
                    momentum=self.recipe.momentum,
                    weight_decay=self.recipe.weight_decay,
                    hvp=method.hvp,
                )
        set_gradients(self.alphas, gradients)
        self.adam.step()
        return means

    def _loss_at(
        self,
        weights: Sequence[Tensor],
        step_loss: StepLoss,
        batch: Batch,
        edge_weights: EdgeWeights,
        unrolled: bool = False,
    ) -> Tensor:
        """The loss at ``weights``; unrolled ones have BatchNorm statistics of their own.

        As in DARTS architect.py, whose unrolled model is a copy, statistics included.
        """
        state = dict(zip(self.names, weights, strict=True))
        if unrolled:
            state |= {name: b.clone() for name, b in self.model.named_buffers()}
        loss: Tensor = functional_call(self.model, state, (step_loss, batch, edge_weights))[0]
        return loss

    def _batch(
        self, index: Tensor, loss: StepLoss, labelled: OnLogits, mixing: Mixing | None = None
    ) -> Batch:
        augment, draws = self.recipe.augment, self.draws
        return make_batch(self.bundle, index, loss, labelled, augment, draws, mixing=mixing)

    def _named(self, alphas: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.parameters, alphas, strict=True))

    def _edge_weights(self, alphas: Sequence[Tensor]) -> EdgeWeights:
        return self.method.edge_weights(self._named(alphas), self.progress)

    # What it found

    def _weight_columns(self) -> Row:
        """How strong every operation is on every edge, flat: cell x edge x operation."""
        flat = torch.stack(self.reading.strengths()).flatten()
        return {"operations": ",".join(self.method.operations), "edge_weights": flat.tolist()}

    def _test(self, between: Callable[[], None]) -> Row:
        logits = self.reading.at(self.reading.edge_weights())
        with evaluating(self.model):
            validation = validate(logits, self.bundle, between)
            return evaluate(logits, self.bundle, between) | validation

    def outcome(self) -> Outcome:
        """Metrics of the last test and the genotype of the last parameters (not of the best)."""
        tested = dict(self.tested)
        recall = tested.pop("recall", None)
        found = self.method.finish(self.reading.searched())
        size = self.bundle.image_size
        counts = {
            "num_params": count_params(self.model.supernet),
            "macs": count_macs(self.model.supernet, size),
        }
        facts = {k: v for k, v in asdict(found).items() if k != "genotype"}
        return Outcome(
            metrics=tested | counts | {"epochs": self.epochs_done},
            genotype=found.genotype,
            facts=facts,
            classes=class_rows(recall, self.bundle) if recall else [],
        )

    # Checkpoint

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest depends on, inside an epoch too: tensors and plain values."""
        return {
            "epochs_done": self.epochs_done,
            "tested": self.tested,
            "model": self.model.state_dict(),
            "alphas": [a.detach() for a in self.alphas],
            "optimisers": [o.state_dict() for o in (self.sgd, self.adam, self.probe)],
            "schedules": {k: s.state_dict() for k, s in self.schedules.items()},
            "draws": self.draws.get_state(),
            "noise": self.noise.get_state(),
            "passes": self.passes.state_dict(),
            "validation": self.validation.state_dict(),
            "meter": self.meter.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s value as if there had been no interruption."""
        self.epochs_done, self.tested = state["epochs_done"], state["tested"]
        self.model.load_state_dict(state["model"])
        for alpha, value in zip(self.alphas, state["alphas"], strict=True):
            alpha.data.copy_(value)
        for optimiser, value in zip(
            (self.sgd, self.adam, self.probe), state["optimisers"], strict=True
        ):
            optimiser.load_state_dict(value)
        for name, schedule in self.schedules.items():
            schedule.load_state_dict(state["schedules"][name])
        self.draws.set_state(state["draws"].cpu())
        if "noise" in state:  # before methods could sample, nothing was drawn from it
            self.noise.set_state(state["noise"].cpu())
        self.passes.load_state_dict(state["passes"])
        self.validation.load_state_dict(state["validation"])
        self.meter.load_state_dict(state["meter"])
        self._make_step()  # a recording would still read what the optimisers had before


@contextmanager
def frozen_statistics(model: nn.Module, frozen: bool) -> Iterator[None]:
    """Keep running statistics inside: with momentum 0 BatchNorm normalises by the batch alone."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)] if frozen else []
    before = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, momentum in zip(norms, before, strict=True):
            m.momentum = momentum
