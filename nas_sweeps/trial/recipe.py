"""How networks are trained: recipes of the search and of the retraining."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from nas_sweeps.names import pretrain_column
from nas_sweeps.trial.fields import (
    STRICT,
    Count,
    Fraction,
    NonNegative,
    Positive,
    Rate,
    Share,
    added,
)

if TYPE_CHECKING:
    from nas_sweeps.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Barlow:
    """Barlow Twins: loss (paper Eq 8, 9), projector and its scale in the bilevel problem."""

    __pydantic_config__: ClassVar[Any] = STRICT
    lambda_: Rate = 0.0051  # facebookresearch/barlowtwins main.py, default of --lambd
    dim: Positive = 512  # off-diagonal noise floor lambda*(D-1)/(N-1) is 4 % at N=64
    hidden: Positive = 512
    centered: bool = True  # Eq 9 as printed does not centre and then admits collapse
    scale: Rate | None = None  # None: 1/dim, so the loss starts near 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrain:
    """Self-supervised training of the evaluation network before its labels are used."""

    __pydantic_config__: ClassVar[Any] = STRICT
    epochs: Positive = 150
    then: Literal["finetune", "linear"] = "finetune"  # all weights, or a linear head only
    barlow: Barlow = field(default_factory=Barlow)


Knob = bool | int | float | str | None | tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A registered loss or sampler, with those of its knobs that are not at their defaults.

    Where all are, a recipe holds the bare name in its place. So a knob that a loss gets later
    changes no identity, and the default of one never changes.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    name: str
    knobs: tuple[tuple[str, Knob], ...]

    def __str__(self) -> str:
        return f"{self.name}({','.join(f'{knob}={value}' for knob, value in self.knobs)})"


Chosen = str | Choice


def choose(registry: Registry[Any], name: str, knobs: dict[str, Any]) -> Chosen:
    """What a recipe holds for a registered thing with these knobs.

    Raises:
        ValueError: an unknown name.
        pydantic.ValidationError: an unknown knob, or a value of the wrong type or range.
    """
    defaults = {f.name: f.default for f in fields(registry.get(name))}
    decided = registry.resolve(name, knobs).items()
    other = tuple(sorted((knob, value) for knob, value in decided if value != defaults[knob]))
    return Choice(name=name, knobs=other) if other else name


def name_and_knobs(chosen: Chosen) -> tuple[str, dict[str, Knob]]:
    """The arguments of ``Registry.build``."""
    return (chosen, {}) if isinstance(chosen, str) else (chosen.name, dict(chosen.knobs))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierStage:
    """Training of the classifier alone, on frozen features, after everything else.

    Decoupling (Kang et al. 2020, arXiv 1910.09217): ``classifier`` begins anew and is trained
    (cRT), ``scale`` learns a factor for the logit of each class and nothing else (LWS). With the
    loss ``label_aware_smoothing`` it is the second stage of MiSLAS (arXiv 2104.00466).
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    epochs: Positive = 15
    learn: Literal["classifier", "scale"] = "classifier"
    loss: Chosen = "ce"
    sampler: Chosen = "balanced"
    lr: Rate | None = None  # cosine per epoch down to the recipe's lr_min; None: the recipe's lr

    def __str__(self) -> str:
        lr = "" if self.lr is None else f" lr={self.lr:g}"
        return f"{self.epochs} epochs of {self.learn} {self.sampler} {self.loss}{lr}"


Augment = Literal["crop_flip", "crop", "none"]
Policy = Literal["none", "trivial_augment", "rand_augment"]
Classifier = Literal["linear", "cosine", "etf"]  # what each means: losses/heads.py
Schedule = Literal["cosine", "linear", "one_cycle"]  # of rates, by epoch: train/optimise.py
Precision = Literal["fp32", "tf32", "bf16"]  # what each means: space/precision.py


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRecipe:
    """How a supernet is trained. Defaults: paper section IV-C, else DARTS train_search.py."""

    __pydantic_config__: ClassVar[Any] = STRICT
    channels: Annotated[int, Ge(2)] = 16  # DARTS --init_channels; the paper does not say
    layers: Annotated[int, Ge(3)] = 8  # paper: 6 normal and 2 reduction cells
    epochs: Positive = 40  # paper
    batch_size: Annotated[int, Ge(2)] = 64  # paper
    lr: Rate = 0.025  # paper; cosine per epoch down to lr_min
    lr_min: NonNegative = 0.001  # paper
    momentum: Fraction = 0.9  # paper, whose text swaps this number with the next
    weight_decay: NonNegative = 3e-4  # paper
    grad_clip: Rate = 5.0  # DARTS --grad_clip; over the weights only
    augment: Augment = "crop_flip"  # DARTS utils.py: padding 4 at 32 pixels, scaled with size
    loss: Chosen = "ce"  # as registered; of the steps that read labels, with their class counts
    sampler: Chosen = added("shuffle")  # as registered; of weight steps on T
    classifier: Classifier | None = added(None)  # None: the one that the loss asks for
    classifier_scale: Rate = added(30.0)  # of cosines, unless the loss has its own; LDAM's s
    mixup: NonNegative = added(0.0)  # a of Beta(a, a), in weight steps on labels; 0 is off
    cutmix: NonNegative = added(0.0)
    mix_probability: Share = added(1.0)  # of a batch being mixed at all; CutMix CIFAR: 0.5
    bn_stats_in_arch_step: Literal["update", "freeze"] = "update"  # DARTS updates
    test_every: Positive = 1  # epochs between tests; the last epoch is always tested
    precision: Precision = "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainRecipe:
    """How an evaluation network is trained. Defaults: paper section IV-C (preset ``paper``)."""

    __pydantic_config__: ClassVar[Any] = STRICT
    channels: Annotated[int, Ge(2)] = 16  # the paper does not say; DARTS uses 36
    layers: Annotated[int, Ge(3)] = 8  # the paper does not say; DARTS uses 20
    epochs: Positive = 150  # paper
    batch_size: Annotated[int, Ge(2)] = 64  # paper
    lr: Rate = 0.025  # paper
    lr_min: NonNegative = 0.001  # paper; DARTS goes to 0
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 3e-4
    grad_clip: Rate = 5.0
    augment: Augment = "crop_flip"
    cutout: Count = 0  # side in pixels, 0 is off; DARTS --cutout 16
    auxiliary: NonNegative = 0.0  # weight of the auxiliary head's loss, 0 is off; DARTS 0.4
    drop_path: Fraction = 0.0  # final probability, rising linearly from 0; DARTS 0.2
    drop_path_on: Literal["edge", "node"] = "edge"  # DARTS edge, FairDARTS node
    images: Literal["full", "search_half"] = "full"  # train on T and V, or on T alone
    loss: Chosen = "ce"
    sampler: Chosen = added("shuffle")  # not of self-supervised pre-training
    classifier: Classifier | None = added(None)  # None: the one that the loss asks for
    classifier_scale: Rate = added(30.0)  # of cosines, unless the loss has its own; LDAM's s
    classifier_stage: ClassifierStage | None = added(None)
    mixup: NonNegative = added(0.0)  # a of Beta(a, a); 0 is off; neither in pre-training
    cutmix: NonNegative = added(0.0)  # nor in a classifier stage
    mix_probability: Share = added(1.0)  # of a batch being mixed at all; CutMix CIFAR: 0.5
    policy: Policy = added("none")  # of operations on images, after augment; data/policies.py
    nesterov: bool = added(False)
    warmup_epochs: Count = added(0)  # in which the rate rises linearly to lr
    schedule: Schedule = added("cosine")
    ema: Fraction = added(0.0)  # decay, by the step, of the averaged weights that are tested
    pretrain: Pretrain | None = None
    test_every: Positive = 1
    precision: Precision = "fp32"

    @property
    def pretrained(self) -> str:
        """How networks are pre-trained, as the column ``pretrain`` says it."""
        return pretrain_column(self.pretrain.then if self.pretrain else None)
