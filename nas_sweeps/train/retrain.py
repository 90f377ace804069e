"""The retrain loop: one genotype, trained from scratch, one epoch at a time.

A recipe without ``pretrain`` is one stage, ``train``. With it there are two: ``pretrain``
(Barlow Twins on the same images, unlabelled) and ``finetune`` (labels; all weights, or a linear
head on frozen features). A ``classifier_stage`` comes last. Each stage has an optimiser and a
schedule of its own. Mixing, warm-up, another schedule than a cosine and averaged weights are of
the stage ``train`` or ``finetune``; the classifier stage goes on from the averaged network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nas_sweeps.data.batches import EpochSampler, Order
from nas_sweeps.data.mixing import Mixing
from nas_sweeps.data.splits import DataSplits
from nas_sweeps.losses import BarlowTwins, Progress, StepLoss, Supervised, supervised_loss
from nas_sweeps.losses.contract import head_of
from nas_sweeps.losses.functions import BarlowHead
from nas_sweeps.losses.heads import ScaledClassifier, begin_anew, make_head, scale_cosines
from nas_sweeps.recipes import classifier_of, require_sound
from nas_sweeps.space.network import Network, count_macs, count_params
from nas_sweeps.space.precision import precision
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
    step_schedule,
    validate,
)
from nas_sweeps.train.form import form_of
from nas_sweeps.train.objective import Batch, OnLogits, make_batch
from nas_sweeps.train.optimise import Averages, make_schedule, make_sgd
from nas_sweeps.train.recorded import Means, Recorder, Step, default_recorder
from nas_sweeps.train.stages import Stage, stages_of
from nas_sweeps.trial import RetrainTrial


class Labels(NamedTuple):
    """How a stage learns from labels."""

    loss: OnLogits
    order: Order | None  # of a pass; None: a sampler would see labels that are not read
    scale: float  # of a classifier that gives cosines


class RetrainRun:
    """One retrain trial. Same trial, bundle and threads: same bits, interrupted or not (CPU).

    ``stages`` are what it goes through; None: those of the recipe.

    Raises:
        ValueError: by the first epoch, fewer images than the whole batch Barlow Twins needs.
        TrainingDiverged: a loss is no longer finite at the end of an epoch.
    """

    def __init__(
        self,
        trial: RetrainTrial,
        bundle: DataSplits,
        device: torch.device,
        recorder: Recorder | None = None,
        stages: tuple[Stage, ...] | None = None,
    ) -> None:
        self.trial, self.bundle, self.device = trial, bundle, device
        self.recorder = recorder or default_recorder(device)
        self.recipe = trial.recipe
        require_sound(self.recipe)
        self.mixing = Mixing.of(self.recipe)
        self.stages = stages or stages_of(trial)
        self.epochs_done, self.epochs_total = 0, sum(s.epochs for s in self.stages)
        self.tested: Row = {}  # the last test's numbers
        self.best = 0.0  # accuracy_balanced of the best epoch: for information, never the headline
        half = self.recipe.images == "search_half"
        index = bundle.t_index if half else bundle.full_index
        counts = bundle.t_counts if half else bundle.train_counts
        order = generator(trial.seed, "order", device)
        self.passes = EpochSampler(index, self.recipe.batch_size, order)
        self.draws = generator(trial.seed, "augment", device)
        self.drop_path = torch.zeros((), dtype=torch.float64, device=device)
        self.epoch = torch.zeros_like(self.drop_path)  # finished epochs of the stage
        self.learning = {
            stage: self._labels(stage, bundle.labels[index], counts) for stage in self.stages
        }
        self._make_network()
        self._enter(self.stages[0])
        self.meter = Meter(device)  # of the epoch that is under way or comes next

    def _labels(self, stage: Stage, labels_N: Tensor, counts: Sequence[int]) -> Labels:
        """How a stage learns from labels."""
        loss = self.recipe.loss if stage.loss is None else stage.loss
        order = sampled(stage.sampler or self.recipe.sampler, labels_N)
        return Labels(
            loss=supervised_loss(loss, counts, Progress(self.epoch, stage.epochs)),
            order=order if stage.labelled else None,
            scale=1.0 if head_of(loss) == "cosine" else self.recipe.classifier_scale,
        )

    def _make_network(self) -> None:
        recipe, trial = self.recipe, self.trial
        with seeded(trial.seed, "weights"):
            self.network = Network(
                trial.genotype,
                recipe.channels,
                recipe.layers,
                self.bundle.num_classes,
                auxiliary=recipe.auxiliary > 0,
                drop_path_on=recipe.drop_path_on,
            )
            self.network.form = form_of(trial, self.device).form
            kind, auxiliary = classifier_of(recipe), self.network.auxiliary
            self.network.classifier = make_head(kind, self.network.classifier)
            if auxiliary is not None:
                auxiliary.classifier = make_head(kind, auxiliary.classifier)
            self.barlow = None
            if recipe.pretrain is not None:
                self.barlow = BarlowHead(self.network.feature_dim, recipe.pretrain.barlow)
                self.barlow.to(self.device)
        self.factors: list[Tensor] = []  # of the classes' logits, that one stage alone learns
        if any(stage.scale for stage in self.stages):
            scaled = ScaledClassifier(self.network.classifier, self.bundle.num_classes)
            self.network.classifier, self.factors = scaled, [scaled.scale_K]
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averages = Averages(self.network, recipe.ema) if recipe.ema else None

    def _begin(self) -> None:
        """What happens to the network once, before the first step of a stage."""
        if self.averages is not None and self.stage.by_recipe:
            self.averages.restart()
        elif self.averages is not None and self.stage.labelled:  # on from what was tested
            self.network.load_state_dict(self.averages.network.state_dict())
        if self.stage.anew:
            with seeded(self.trial.seed, "classifier"):
                begin_anew(self.network.classifier)

    def _enter(self, stage: Stage) -> None:
        """A stage's weights, optimiser, schedule and step."""
        self.stage, recipe = stage, self.recipe
        self.supervised = self.learning[stage].loss
        self.weights = self._weights_of(stage)
        scale_cosines(self.network, self.learning[stage].scale)
        fused = self.recorder is not None or None  # the form that can be recorded
        self.sgd = make_sgd(self.weights, recipe, stage, fused)
        self.schedule = make_schedule(self.sgd, recipe, stage)
        self._make_step()

    def _weights_of(self, stage: Stage) -> list[Tensor]:
        if stage.scale:
            return self.factors
        learns = self.network.classifier if stage.frozen else self.network
        weights: list[Tensor] = [
            p for p in learns.parameters() if all(p is not f for f in self.factors)
        ]
        if not stage.labelled:
            assert self.barlow is not None
            weights += self.barlow.parameters()
        return weights

    def _make_step(self) -> None:
        body = self._step if self.stage.labelled else self._pretrain_step
        self.step = Step(body, self.recorder, [self.sgd], [self.draws])

    def _place(self) -> tuple[Stage, int]:
        """The stage that the next epoch belongs to, and the finished epochs of it."""
        done = self.epochs_done
        for stage in self.stages[:-1]:
            if done < stage.epochs:
                return stage, done
            done -= stage.epochs
        return self.stages[-1], done

    # One epoch

    def run_epoch(self, between: Callable[[], None] = nothing) -> Row:
        """Train one epoch, or what is left of it, with ``between`` as ``Run`` has it.

        The row holds the epochs table's columns, less the trial's id.
        """
        epoch, (stage, done), recipe = self.epochs_done + 1, self._place(), self.recipe
        if stage != self.stage:
            self._enter(stage)
            self._begin()
        elif not self.epochs_done and not self.meter.images:  # no step was taken yet
            self._begin()
        pretraining, order = not stage.labelled, self.learning[stage].order
        row: Row = {"stage": stage.name, "lr": self.sgd.param_groups[0]["lr"], "epoch": epoch}
        # From 0 in the first epoch with labels, linearly: DARTS train.py.
        self.drop_path.fill_(recipe.drop_path * done / recipe.epochs)
        self.epoch.fill_(done)
        with self.meter.running(), precision(recipe.precision, self.device):
            for index in self.passes.rest(drop_last=pretraining, order=order):
                for name, value in self.step(index).items():
                    self.meter.add(name, value, len(index))
                self.meter.images += len(index)
                between()
            self.meter.trained()
            if not pretraining and (epoch == self.epochs_total or epoch % recipe.test_every == 0):
                self.tested = self._test(between)
                self.best = max(self.best, self.tested["accuracy_balanced"])
                row |= {k: v for k, v in self.tested.items() if k in EPOCH_ACCURACIES}
            row |= self.meter.row()
        self._turn()
        return row

    def _turn(self) -> None:
        """On to the next epoch."""
        self.epochs_done += 1
        self.passes.next_epoch()
        self.meter = Meter(self.device)
        step_schedule(self.schedule)

    def _step(self, index: Tensor) -> Means:
        recipe = self.recipe
        batch = self._batch(index, Supervised())
        logits, auxiliary = self._logits(batch.images[0])
        loss = batch.supervised(logits, batch.labels_B)
        if auxiliary is not None:
            loss = loss + recipe.auxiliary * batch.supervised(auxiliary, batch.labels_B)
        clip_and_step(loss, self.weights, self.sgd, recipe.grad_clip)
        if self.averages is not None and self.stage.by_recipe:
            self.averages.update()
        return {"loss_weights": loss.detach(), "accuracy_train": batch.accuracy(logits)}

    def _batch(self, index: Tensor, loss: StepLoss) -> Batch:
        recipe = self.recipe
        return make_batch(
            self.bundle,
            index,
            loss,
            self.supervised,
            recipe.augment,
            self.draws,
            recipe.cutout,
            self.mixing if self.stage.by_recipe else None,
            recipe.policy,
        )

    def _logits(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.stage.frozen:
            with evaluating(self.network), torch.no_grad():
                features_BF = self.network.features(x_BCHW)
            return self.network.classifier(features_BF), None
        drop_path = self.drop_path if self.recipe.drop_path else 0.0
        logits: tuple[Tensor, Tensor | None] = self.network(x_BCHW, drop_path, self.draws)
        return logits

    def _pretrain_step(self, index: Tensor) -> Means:
        assert self.barlow is not None
        batch = self._batch(index, BarlowTwins())
        loss = self.barlow(*(self.network.features(view) for view in batch.views))
        clip_and_step(loss, self.weights, self.sgd, self.recipe.grad_clip)
        return {"loss_weights": loss.detach()}

    # What it learned

    def _test(self, between: Callable[[], None]) -> Row:
        averaged = self.averages is not None and self.stage.by_recipe
        network = self.averages.network if self.averages and averaged else self.network

        def logits(x_BCHW: Tensor) -> Tensor:
            out: Tensor = network(x_BCHW)[0]
            return out

        with evaluating(network):
            row = evaluate(logits, self.bundle, between)
            if self.recipe.images == "search_half":
                row |= validate(logits, self.bundle, between)
        return row

    def outcome(self) -> Outcome:
        """Metrics of the last epoch, which are the headline, and the best epoch's accuracy."""
        tested = dict(self.tested)
        recall = tested.pop("recall")
        counts = {
            "accuracy_best": self.best,
            "epochs": self.epochs_done,
            "num_params": count_params(self.network),
            "macs": count_macs(self.network, self.bundle.image_size),
        }
        return Outcome(
            metrics=tested | counts,
            genotype=self.trial.genotype,
            facts={},
            classes=class_rows(recall, self.bundle),
        )

    # Checkpoint

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest depends on, inside an epoch too: tensors and plain values."""
        averages = {"averages": self.averages.state_dict()} if self.averages else {}
        return averages | {
            "epochs_done": self.epochs_done,
            "tested": self.tested,
            "best": self.best,
            "network": self.network.state_dict(),
            "barlow": self.barlow.state_dict() if self.barlow else None,
            "stage": self.stages.index(self.stage),
            "sgd": self.sgd.state_dict(),
            "schedule": self.schedule.state_dict(),
            "draws": self.draws.get_state(),
            "passes": self.passes.state_dict(),
            "meter": self.meter.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s value as if there had been no interruption."""
        self.epochs_done = state["epochs_done"]
        self.tested, self.best = state["tested"], state["best"]
        self.network.load_state_dict(state["network"])
        if self.barlow is not None:
            self.barlow.load_state_dict(state["barlow"])
        if self.averages is not None:
            self.averages.load_state_dict(state["averages"])
        self._enter(self.stages[state["stage"]])
        self.sgd.load_state_dict(state["sgd"])
        self.schedule.load_state_dict(state["schedule"])
        self.draws.set_state(state["draws"].cpu())
        self.passes.load_state_dict(state["passes"])
        self.meter.load_state_dict(state["meter"])
        self._make_step()  # a recording would still read what the optimiser had before
