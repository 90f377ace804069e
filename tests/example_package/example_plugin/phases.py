"""A new classifier on frozen features, classes equally often (cRT of arXiv 1910.09217)."""

from dataclasses import dataclass, replace
from typing import Literal

from nas_sweeps.grid.sections import PhaseSection
from nas_sweeps.phases import Phase
from nas_sweeps.trial import Positive, RetrainTrial


class ClassifierSection(PhaseSection):
    epochs: Positive = 10  # the paper's


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierTrial(RetrainTrial):
    prefix = "c"
    phase: Literal["classifier"] = "classifier"
    network: str  # the id of the retrain trial whose features it takes


class Classifier(Phase):
    spec, section, after = ClassifierTrial, ClassifierSection, "retrain"

    def slots(self, section, grid, before):
        for slot in before:
            recipe = replace(slot.recipe, epochs=section.epochs, sampler="balanced")
            yield replace(slot, phase=self.name, parents=(slot.key,), recipe=recipe)

    def trial(self, slot, genotype, parent):
        return super().trial(slot, genotype, parent, network=parent.trial_id)

    def make_run(self, trial, images, device, state_of):
        from nas_sweeps.train.retrain import RetrainRun, Stage

        stages = (Stage(self.name, trial.recipe.epochs, frozen=True),)
        run = RetrainRun(trial, images(), device, stages=stages)
        kept = state_of(trial.network)["network"].items()
        run.network.load_state_dict({k: v for k, v in kept if "classifier" not in k}, strict=False)
        return run
