"""What a trial is: frozen specs, and the identity derived from them.

A spec holds exactly the fields that say what is computed, so ``trial_id`` is a hash of all
of them and of nothing else: no path, host, time, resource or grid name. What only rounds
differently is recorded with each attempt (``nas_sweeps.numerics``). Each numeric field carries its
range; ``nas_sweeps.grid`` turns violations into messages.

**A new field is made with ``added``.** An identity leaves it out wherever it has the value that
stands for how trials were computed before, so no store forgets what it holds.

What its images are is said in ``nas_sweeps.data_spec``, what fields are made of in
``nas_sweeps.spec_fields``; their names are known here too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import Field, asdict, dataclass, field, fields, is_dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from annotated_types import Ge

from nas_sweeps.data_spec import Data as Data
from nas_sweeps.data_spec import DataPaths as DataPaths
from nas_sweeps.data_spec import Distribution as Distribution
from nas_sweeps.data_spec import GroupBy as GroupBy
from nas_sweeps.data_spec import Groups as Groups
from nas_sweeps.data_spec import Labels as Labels
from nas_sweeps.names import pretrain_column
from nas_sweeps.phases.contract import PHASES
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.spec_fields import ABSENT as _ABSENT
from nas_sweeps.spec_fields import STRICT as _STRICT
from nas_sweeps.spec_fields import Count as Count
from nas_sweeps.spec_fields import Fraction as Fraction
from nas_sweeps.spec_fields import Mu as Mu
from nas_sweeps.spec_fields import NonNegative as NonNegative
from nas_sweeps.spec_fields import Positive as Positive
from nas_sweeps.spec_fields import Rate as Rate
from nas_sweeps.spec_fields import Share as Share
from nas_sweeps.spec_fields import absent_values as absent_values
from nas_sweeps.spec_fields import added as added

if TYPE_CHECKING:
    from nas_sweeps.registry import Registry

SCHEMA_VERSION = 1  # part of every identity: raise it when a spec's meaning changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one trial occupies while it runs. Never part of an identity.

    ``gpus`` below 1 shares a device between trials; above 1 it must be whole.
    ``cpus`` is also the number of threads torch uses in the trial.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    gpus: NonNegative = 0.0
    cpus: Positive = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Barlow:
    """Barlow Twins: loss (paper Eq 8, 9), projector and its scale in the bilevel problem."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    lambda_: Rate = 0.0051  # facebookresearch/barlowtwins main.py, default of --lambd
    dim: Positive = 512  # off-diagonal noise floor lambda*(D-1)/(N-1) is 4 % at N=64
    hidden: Positive = 512
    centered: bool = True  # Eq 9 as printed does not centre and then admits collapse
    scale: Rate | None = None  # None: 1/dim, so the loss starts near 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrain:
    """Self-supervised training of the evaluation network before its labels are used."""

    __pydantic_config__: ClassVar[Any] = _STRICT
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

    __pydantic_config__: ClassVar[Any] = _STRICT
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

    __pydantic_config__: ClassVar[Any] = _STRICT
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

    __pydantic_config__: ClassVar[Any] = _STRICT
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

    __pydantic_config__: ClassVar[Any] = _STRICT
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSpec:
    """A registered search method by name, with every knob resolved and sorted by name."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: str
    knobs: tuple[tuple[str, Knob], ...] = ()

    def __str__(self) -> str:
        return self.name


class Identified:
    """What has a digest of all its fields, computed once."""

    __slots__ = ("_id",)  # no field: neither compared nor copied nor pickled
    _id: str

    @property
    def digest(self) -> str:
        """16 hexadecimal digits: equal values, equal digest, anywhere."""
        try:
            return self._id
        except AttributeError:
            object.__setattr__(self, "_id", _digest(self))
            return self._id


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Identified):
    """What trials of every phase share. A phase's own spec adds fields to these.

    ``phase`` is the name of its phase, the one default of a subclass. ``recipe`` is a dataclass
    with ``epochs``, ``batch_size`` and ``precision``.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    prefix: ClassVar[str]  # of its ids: lower-case letters, no other phase's
    phase: str
    data: Data
    distribution: Distribution
    recipe: Any
    seed: Count  # weights, batch order, augmentation; subset and split have seeds of their own

    @property
    def trial_id(self) -> str:
        """The prefix and 16 hexadecimal digits: equal specs, equal id, anywhere."""
        return f"{self.prefix}-{self.digest}"

    @property
    def key(self) -> str:
        """The name of this trial for trials that wait for it."""
        return self.trial_id

    @property
    def parents(self) -> tuple[str, ...]:
        """Keys of what it waits for: a trial that is known waits for nothing."""
        return ()

    @property
    def origin(self) -> Origin | None:
        """The one who asks for it, where that is not the grid alone."""
        return None

    def to_json(self) -> str:
        """The resolved spec; ``trial_from_json`` reads it back."""
        return json.dumps(_plain(self), sort_keys=True, allow_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTrial(Trial):
    """Train one supernet and read a genotype from it."""

    prefix: ClassVar[str] = "s"
    phase: Literal["search"] = "search"
    method: MethodSpec
    recipe: SearchRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainTrial(Trial):
    """Train one genotype from scratch, whoever found it."""

    prefix: ClassVar[str] = "r"
    phase: Literal["retrain"] = "retrain"
    genotype: Genotype
    recipe: RetrainRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The one who asked for a trial: a trial of the phase before, or a grid that names a genotype.

    Never part of an identity: a trial may have several origins. ``method`` is the search method's
    or the genotype's name, ``search_id`` and ``seed`` are those of the trial that it goes on from.
    """

    method: str
    variant: str = ""  # the method's knobs that are not defaults, e.g. "order=second"
    search_id: str | None = None
    seed: int | None = None
    recipe: str = added("")  # what the grid calls the retraining's recipe, if anything
    file: str = added("")  # that the grid read the genotype from
    search_epoch: int | None = added(None)  # after which the search had the genotype; None: the end

    @property
    def key(self) -> str:
        """Equal origins, equal key: linking twice is linking once."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Its fields; those that were added later only where they say something."""
        values = ((f, getattr(self, f.name)) for f in fields(self))
        return {f.name: value for f, value in values if not _left_out(f, value)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Origin:
        """Raises ``ValueError`` for anything but an origin's ``to_json``."""
        try:
            origin = cls(**value)
        except TypeError as error:
            raise ValueError(f"not an origin: {error}") from None
        kinds = {"search_id": str | None, "seed": int | None, "search_epoch": int | None}
        if not all(isinstance(v, kinds.get(k, str)) for k, v in asdict(origin).items()):
            raise ValueError("not an origin: a value of another type than an origin's")
        return origin


def trial_from_json(text: str) -> Trial:
    """Read what ``Trial.to_json`` of this or an earlier version wrote.

    Raises ``ValueError`` on anything else.
    """
    value = json.loads(text)
    name = value.get("phase") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in PHASES.names():
        raise ValueError(
            f"not a trial of a phase that is known here ({', '.join(PHASES.names())}): {name!r}; "
            "another phase is known where the package that offers it is installed"
        )
    spec = PHASES.get(name).spec
    _fill(spec, value)
    trial: Trial = _adapter(spec).validate_json(json.dumps(value))
    return trial


def _fill(kind: Any, value: dict[str, Any]) -> None:
    """Give a spec of an earlier version the fields that were added since."""
    for name, lacking in absent_values(kind).items():
        value.setdefault(name, _plain(lacking))
    for name, nested in _nested(kind).items():
        if isinstance(value.get(name), dict):
            _fill(nested, value[name])


@lru_cache(maxsize=16)
def _nested(kind: Any) -> dict[str, Any]:
    """The fields that hold a dataclass, or may, with its class."""
    hints = get_type_hints(kind).items()
    found = {name: [t for t in (hint, *get_args(hint)) if is_dataclass(t)] for name, hint in hints}
    return {name: kinds[0] for name, kinds in found.items() if kinds}


@cache
def _adapter(spec: type[Trial]) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(spec)


def _digest(value: Identified) -> str:
    spec = _plain(value, identity=True) | {"schema": SCHEMA_VERSION}
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any, *, identity: bool = False) -> Any:
    """Dataclasses to dicts. For an identity: 1.0 is 1, and what is no part of it is left out."""
    if value is None or isinstance(value, (str, int)):  # most are, and plans are large
        return value
    if is_dataclass(value):
        return {
            f.name: _plain(getattr(value, f.name), identity=identity)
            for f in fields(value)
            if not (identity and _left_out(f, getattr(value, f.name)))
        }
    if isinstance(value, (tuple, list)):
        return [_plain(item, identity=identity) for item in value]
    if identity and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _left_out(of: Field[Any], value: Any) -> bool:
    """Whether a field's value is no part of an identity."""
    labels = of.metadata.get("identity") is False
    return labels or (_ABSENT in of.metadata and value == of.metadata[_ABSENT])
