"""What a retraining goes through: stretches of epochs with one loss and one set of weights."""

from __future__ import annotations

from dataclasses import dataclass

from nas_sweeps.trial import Chosen, RetrainTrial


@dataclass(frozen=True)
class Stage:
    """A stretch of epochs, with an optimiser and a schedule of its own.

    Attributes:
        frozen: only the classifier learns, on features of the network as it is tested.
        loss: None: the recipe's.
        sampler: None: the recipe's.
        lr: where the rate begins; None: the recipe's.
        scale: of the classifier, only the factors of its logits learn.
        anew: the classifier begins anew.
    """

    name: str  # pretrain, finetune, train, classifier, or what another phase calls it
    epochs: int
    frozen: bool = False
    loss: Chosen | None = None
    sampler: Chosen | None = None
    lr: float | None = None
    scale: bool = False
    anew: bool = False

    @property
    def labelled(self) -> bool:
        """Whether it reads labels."""
        return self.name != "pretrain"

    @property
    def by_recipe(self) -> bool:
        """Whether the recipe's mixing, rates and averages are for it: once in a training."""
        return self.labelled and self.loss is None


def stages_of(trial: RetrainTrial) -> tuple[Stage, ...]:
    """What a trial goes through, in order."""
    recipe, last = trial.recipe, trial.recipe.classifier_stage
    stages = [Stage("train", recipe.epochs)]
    if recipe.pretrain is not None:
        linear = recipe.pretrain.then == "linear"
        stages = [
            Stage("pretrain", recipe.pretrain.epochs),
            Stage("finetune", recipe.epochs, linear),
        ]
    if last is not None:
        scale = last.learn == "scale"
        stages.append(
            Stage(
                "classifier",
                last.epochs,
                frozen=True,
                loss=last.loss,
                sampler=last.sampler,
                lr=last.lr,
                scale=scale,
                anew=not scale,
            )
        )
    return tuple(stages)
