"""Which settings of a recipe do not go together, in one place. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from nas_sweeps.losses.contract import Head, head_of
from nas_sweeps.trial import Chosen, RetrainRecipe, SearchRecipe

Complaint = tuple[str, str]  # a setting, dotted where it is in a section; what is wrong with it


def classifier_of(recipe: SearchRecipe | RetrainRecipe) -> Head:
    """The classifier that a recipe names, or else its loss."""
    return recipe.classifier or head_of(recipe.loss)


def sampler_of(recipe: SearchRecipe | RetrainRecipe, stage: str) -> Chosen | None:
    """Which sampler a stage of this name is trained with; None where no label is read."""
    if stage == "pretrain":
        return None
    last = recipe.classifier_stage if isinstance(recipe, RetrainRecipe) else None
    return last.sampler if stage == "classifier" and last is not None else recipe.sampler


def complaints(recipe: SearchRecipe | RetrainRecipe) -> Iterator[Complaint]:
    """What does not go together in a recipe; whatever else it says is right together.

    Raises:
        ValueError: an unknown loss.
    """
    if recipe.mixup and recipe.cutmix:
        yield (
            "cutmix",
            "and mixup are both on, and a batch is mixed in one way; set one of them to 0",
        )
    yield from _head(recipe, recipe.loss, "loss")
    if isinstance(recipe, RetrainRecipe):
        yield from _optimisation(recipe)
        yield from _stages(recipe)


def require_sound(recipe: SearchRecipe | RetrainRecipe) -> None:
    """Raises ``ValueError`` with the first of the complaints."""
    for setting, wrong in complaints(recipe):
        raise ValueError(f"recipe.{setting} {wrong}")


def _head(recipe: SearchRecipe | RetrainRecipe, loss: Chosen, setting: str) -> Iterator[Complaint]:
    if head_of(loss) == "cosine" and classifier_of(recipe) == "linear":
        yield (
            setting,
            f"{loss} takes cosines, which the classifier 'linear' does not give; set classifier "
            "to cosine or etf, or choose another loss",
        )


def _optimisation(recipe: RetrainRecipe) -> Iterator[Complaint]:
    if recipe.nesterov and not recipe.momentum:
        yield "nesterov", "needs a momentum above 0"
    if recipe.warmup_epochs and recipe.schedule == "one_cycle":
        yield "warmup_epochs", "is not for one_cycle, which begins with a warm-up; set it to 0"
    elif recipe.warmup_epochs >= recipe.epochs:
        yield (
            "warmup_epochs",
            f"is {recipe.warmup_epochs} of {recipe.epochs} epochs, so the rate would never fall; "
            "lower it, or raise epochs",
        )


def _stages(recipe: RetrainRecipe) -> Iterator[Complaint]:
    stage, fixed = recipe.classifier_stage, classifier_of(recipe) == "etf"
    if stage is not None:
        yield from _head(recipe, stage.loss, "classifier_stage.loss")
        if fixed and stage.learn == "classifier":
            yield (
                "classifier_stage.learn",
                "classifier has nothing to learn where the classifier is etf, which is fixed; use "
                "scale, or leave the stage out",
            )
    if fixed and recipe.pretrain is not None and recipe.pretrain.then == "linear":
        yield (
            "classifier",
            "etf is fixed, so nothing would learn on the frozen features that follow pre-training "
            "with then: linear; use finetune, or another classifier",
        )
