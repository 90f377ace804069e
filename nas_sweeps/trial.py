"""What a trial is: frozen specs, and the identity derived from them.

A spec holds exactly the fields that say what is computed, so ``trial_id`` is a hash of all
of them and of nothing else: no path, host, time, resource or grid name. What only rounds
differently is recorded with each attempt (``nas_sweeps.numerics``). Each numeric field carries its
range; ``nas_sweeps.grid`` turns violations into messages.

**A new field is made with ``added``.** An identity leaves it out wherever it has the value that
stands for how trials were computed before, so no store forgets what it holds.

``mu`` is the imbalance factor of the paper (arXiv 2406.16949): the tail-to-head ratio of
training images per class, in (0, 1]. The literature's imbalance ratio is 1/mu.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, astuple, dataclass, field, fields, is_dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from nas_sweeps.names import DISTRIBUTION, distribution_name, pretrain_column
from nas_sweeps.phases.contract import PHASES
from nas_sweeps.space.genotype import Genotype

if TYPE_CHECKING:
    from nas_sweeps.registry import Registry

SCHEMA_VERSION = 1  # part of every identity: raise it when a spec's meaning changes
_STRICT = {"extra": "forbid"}  # read by pydantic: unknown keys are errors
LABEL = {"identity": False}  # metadata of a field that only names something for people
_ABSENT = "absent"  # metadata of a field that was added later: what trials did without it


def added(default: Any, *, absent: Any = MISSING) -> Any:
    """A field of a spec, or a knob of a method, that trials of earlier versions did not have.

    Args:
        default: of trials that are planned from now on.
        absent: the value that stands for what was computed when there was no such field, where
            it is not the default. It never changes again: identities leave it out.
    """
    return field(default=default, metadata={_ABSENT: default if absent is MISSING else absent})


def absent_values(kind: Any) -> dict[str, Any]:
    """The fields of a dataclass that were ``added``, with what stands for their absence."""
    return {f.name: f.metadata[_ABSENT] for f in fields(kind) if _ABSENT in f.metadata}


Positive = Annotated[int, Gt(0)]
Count = Annotated[int, Ge(0)]
Rate = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Share = Annotated[float, Gt(0), Le(1)]
Mu = Annotated[float, Gt(0), Le(1)]


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
class DataPaths:
    """Where this machine finds and keeps images. Never part of an identity."""

    path: str | None = None  # of a custom data set: a folder, absolute
    downloads: str | None = None  # torchvision's root; None: the cache folder
    cache: str | None = None  # decoded images; None: $NAS_SWEEPS_CACHE or ~/.cache/nas_sweeps


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A label distribution over K classes (paper section IV-A).

    ``exp`` and ``step`` follow the profile with ``mu``, a class keeping at most what it has;
    ``uniform`` keeps ``total // K`` images of each class, the control that separates imbalance
    from data size. ``natural`` keeps the counts that the data set comes with, of no class more
    than ``n_max``. ``balance`` is for data sets with equal classes: it keeps ``data.n_max`` of
    each class, and without it every image, like ``natural``.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    kind: Literal["balance", "exp", "step", "uniform", "natural"]
    mu: Mu | None = None
    total: Positive | None = None
    n_max: Positive | None = added(None)  # of natural: images of a class at most; None: all

    def __str__(self) -> str:
        return distribution_name(*self.columns.values())

    @property
    def columns(self) -> dict[str, str | float | None]:
        """What tables say of it."""
        return dict(zip(DISTRIBUTION, (self.kind, self.mu, self.total, self.n_max), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Which classes are head, medium and tail.

    ``rank``: by size, K // 3 classes head and as many tail. ``shots``: by training images, more
    than ``many`` head, fewer than ``few`` tail (OLTR, arXiv 1904.05160, on ImageNet-LT).
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    by: Literal["rank", "shots"]
    many: Positive = 100
    few: Positive = 20

    def __str__(self) -> str:
        return self.by if self.by == "rank" else f"{self.by} {self.many}/{self.few}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Where the labels of a custom data set stand, if not in the names of folders.

    ``train`` and ``test`` are files below the data set's folder: CSV with a heading, or lines of
    ``path label``. With one file for both, ``split`` is the column that says train or test. The
    columns count for Parquet files too.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    train: str | None = None
    test: str | None = None
    image: str | None = None  # None: the first column of a name that is usual
    label: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        return "/".join(value or "" for value in astuple(self)).rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupBy:
    """Which training images belong together, so that no group is split between T and V.

    By a ``column`` of the data set, or by what a ``pattern`` (a regular expression) finds in the
    path of an image below its split: its parentheses, or the whole match where it has none.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    column: str | None = None
    pattern: str | None = None

    def __str__(self) -> str:
        return self.column or str(self.pattern).replace(",", ";")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A data set and the rule that draws training images from it.

    ``dataset`` is a registered name; a data set read from a path is ``custom``, identified by
    the ``fingerprint`` of its content and labelled for people.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    dataset: str  # as registered, or ``custom``
    label: str = field(metadata=LABEL, compare=False)
    fingerprint: str | None = None
    image_size: Annotated[int, Ge(8)] | None = None  # pixels; None keeps the source's own size
    n_max: Positive | None = None  # training images of the largest class before mu; None: all
    test_n_max: Positive | None = None  # balanced test images per class; None: all
    subset_seed: Count = 0  # which images a class keeps (LDAM: numpy RandomState(0))
    split_seed: Count = 0  # which half of a class goes to T and which to V
    class_order_seed: Count | None = None  # None: classes as labelled, class 0 is the head
    long_tailed_test: Distribution | None = None  # profile of the long-tailed test set
    groups: Groups | None = added(None)  # None: the custom of the distribution, longtail.py
    labels: Labels | None = added(None)  # of a custom data set
    test_split: Literal["test", "validation"] = added("test")  # the split that is tested on
    group: GroupBy | None = added(None)  # None: every image is a group of its own
    # How an image becomes a square of image_size: scaled (bicubic) so that its shorter side has
    # short_side (None: image_size) pixels and cropped about its centre, squeezed, or with borders.
    resize: Literal["crop", "stretch", "pad"] = added("crop")
    short_side: Annotated[int, Ge(8)] | None = added(None)


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


def choose(registry: Registry[Any], name: str, knobs: Mapping[str, Any]) -> Chosen:
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

    Never part of an identity: a trial may have several origins. ``method`` is the search
    method's or the genotype's name, ``search_id`` and ``seed`` are those of the trial that it goes
    on from (of a retrain: the search) and None for a published genotype. ``recipe`` is what the
    grid calls the recipe of the retraining, empty where it gives it no name; ``file`` is where a
    grid found a genotype that nas_sweeps does not know by name. ``study`` is the study that tunes
    knobs, and ``proposal`` the number of the values that it proposed with this trial; None of the
    study's winner.
    """

    method: str
    variant: str = ""  # the method's knobs that are not defaults, e.g. "order=second"
    search_id: str | None = None
    seed: int | None = None
    recipe: str = added("")
    file: str = added("")
    study: str = added("")
    proposal: int | None = added(None)

    @property
    def key(self) -> str:
        """Equal origins, equal key: linking twice is linking once."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Its fields; those that were added later only where they say something."""
        absent = absent_values(Origin)
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in absent or value != absent[name]
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Origin:
        """Raises ``ValueError`` for anything but an origin's ``to_json``."""
        try:
            origin = cls(**value)
        except TypeError as error:
            raise ValueError(f"not an origin: {error}") from None
        texts = all(
            isinstance(text, str)
            for text in (origin.method, origin.variant, origin.recipe, origin.file, origin.study)
        )
        search = isinstance(origin.search_id, str | None) and isinstance(origin.seed, int | None)
        if not (texts and search and isinstance(origin.proposal, int | None)):
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
