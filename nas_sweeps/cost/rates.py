"""How long trials take, from samples of their epochs: before a run, and while it works.

A sample is the mean epoch of one stage of one trial that was measured, or of some steps that
were timed. An epoch of a trial is looked for in steps: samples of the same kind; of another
distribution, with the seconds of the images it has more or less; of another method with the same
recipe. A plan never takes another recipe or another data set. A run that has measured nothing
better yet takes whatever it has measured of the phase.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache

from nas_sweeps.cost.epochs import Kind, after, parts_of
from nas_sweeps.data.samplers import SAMPLERS
from nas_sweeps.grid import Entry
from nas_sweeps.recipes import sampler_of
from nas_sweeps.trial import (
    Chosen,
    Data,
    Distribution,
    Origin,
    RetrainRecipe,
    SearchRecipe,
    Trial,
    name_and_knobs,
)

# What an epoch's time does not depend on.
FREE = {"epochs", "lr", "lr_min", "momentum", "weight_decay", "grad_clip", "label"}
FREE |= {"nesterov", "warmup_epochs", "schedule"}
FREE_SEEDS = {"subset_seed", "split_seed", "class_order_seed"}
ASSUMED_SPREAD = 0.25  # of the logarithm of seconds, where one trial alone was measured
HOW = (
    "of the same kind",
    "of other distributions",
    "of other methods or knobs",
    "of the same phase",
)
ROUGHLY = len(HOW) - 1  # the step that a plan does not take


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the 80 % interval around it."""

    mid: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def __add__(self, other: Interval) -> Interval:
        """The sum, as if both erred alike: what trials share, a slow day, does not average out."""
        return Interval(self.mid + other.mid, self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> Interval:
        return Interval(self.mid * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The mean epoch of one stage of a trial."""

    kind: Kind
    work: str  # of ``work_of``
    images: float  # training images in an epoch
    epoch_s: float
    image_s: float  # of training, by the image: what more images would cost
    timed: bool = False  # some steps, not a trial

    def at(self, images: float) -> float:
        """Seconds of an epoch with so many images."""
        return max(self.epoch_s + (images - self.images) * self.image_s, 0.01 * self.epoch_s)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a trial, and what that was taken from."""

    seconds: Interval
    samples: int  # of the stage that was measured least; 0 where nothing is trained
    step: int  # of ``HOW``, that of the stage that was found last
    timed: bool = False


@dataclass
class Images:
    """How many training images a distribution has, from counts of trials that were measured."""

    known: dict[tuple[str, str], int] = field(default_factory=dict)  # by data and distribution
    classes: dict[str, tuple[int, int]] = field(default_factory=dict)  # largest, and how many

    def add(self, data: Data, distribution: Distribution, largest: int, k: int, total: int) -> None:
        key = data_key(data)
        self.known[key, str(distribution)] = total
        if distribution.kind in ("exp", "step") or total == largest * k:
            # Else the largest class is that of the data set, and says nothing of other profiles.
            self.classes[key] = (min(largest, self.classes.get(key, (largest, k))[0]), k)

    def of(self, data: Data, distribution: Distribution) -> int | None:
        """The number of training images; None where nothing of this data set was measured."""
        key = data_key(data), str(distribution)
        if key not in self.known:
            counts = self._counts(data, distribution)
            if counts is None:
                return None
            self.known[key] = sum(counts)
        return self.known[key]

    def in_epoch(
        self,
        data: Data,
        distribution: Distribution,
        recipe: SearchRecipe | RetrainRecipe,
        stage: str,
    ) -> float | None:
        """How many of them an epoch goes through; a sampler may make it shorter or longer."""
        total, counts = self.of(data, distribution), self._counts(data, distribution)
        sampler = sampler_of(recipe, stage)
        if total is None or counts is None or sampler is None:
            return None if total is None else total * share_of(recipe)
        length = pass_length(sampler, counts)
        return total * share_of(recipe) * length / sum(counts)

    def _counts(self, data: Data, distribution: Distribution) -> tuple[int, ...] | None:
        from nas_sweeps.data.profiles import class_counts, known_counts

        if data_key(data) not in self.classes:
            return known_counts(data, distribution)
        try:
            return class_counts(distribution, *self.classes[data_key(data)])
        except ValueError:  # the run will say so
            return None


@lru_cache(maxsize=1024)
def data_key(data: Data) -> str:
    """Equal for data whose epochs take the same time."""
    return _key(asdict(data), FREE | FREE_SEEDS)


@lru_cache(maxsize=1024)
def work_of(data: Data, recipe: SearchRecipe | RetrainRecipe) -> str:
    """Equal for trials whose epochs take the same time, but for method and distribution."""
    return f"{data_key(data)} {_key(asdict(recipe), FREE)}"


def _key(value: object, free: set[str]) -> str:
    return json.dumps(_without(value, free), sort_keys=True)


def _without(value: object, free: set[str]) -> object:
    if not isinstance(value, dict):
        return value
    return {k: _without(v, free) for k, v in value.items() if k not in free}


def share_of(recipe: SearchRecipe | RetrainRecipe) -> float:
    """The share of the training images that an epoch goes through."""
    return 0.5 if getattr(recipe, "images", "full") == "search_half" else 1.0


def pass_length(sampler: Chosen, counts: Sequence[int]) -> int:
    """Images of a pass; one of a sampler that is not known here is as long as without."""
    try:
        return SAMPLERS.build(*name_and_knobs(sampler)).length(counts)
    except ValueError:
        return sum(counts)


_Group = tuple[int, str, tuple[str, ...]]  # a step, the work, and the beginning of a kind


class Rates:
    """Seconds of trials, by the samples that were counted so far.

    Args:
        images: training images by distribution.
        overhead_s: of a trial beside its epochs, by phase.
    """

    def __init__(
        self, images: Images | None = None, overhead_s: Mapping[str, float] | None = None
    ) -> None:
        self.images = images or Images()
        self.overhead_s = dict(overhead_s or {})
        self._groups: dict[_Group, dict[object, Sample]] = {}
        self._spreads: dict[str, tuple[float, int]] = {}
        self._epochs: dict[tuple[Kind, str], Cost | None] = {}
        self.roughly = False  # whether the last of the steps is taken too

    def add(self, sample: Sample, owner: object = None) -> None:
        """Count a sample, in the place of an earlier one of the same owner and stage.

        Args:
            owner: the trial that runs; None: it is a sample of its own.
        """
        owner = object() if owner is None else (owner, sample.kind.stage)
        for step in range(len(HOW)):
            group = self._groups.setdefault(_group(step, sample.kind, sample.work), {})
            group[owner] = sample
        self._spreads.clear()
        self._epochs.clear()

    @property
    def spread_known(self) -> bool:
        """Whether anything was measured more than once."""
        return any(self._spread(kind[0])[1] for _, _, kind in self._groups if kind)

    def cost(
        self, entry: Entry | Trial, epochs_done: int = 0, origins: Iterable[Origin] = ()
    ) -> Cost | None:
        """What a trial, or the rest of one, takes; None where nothing like it was measured."""
        overhead = self.overhead_s.get(entry.phase, 0.0)
        total, worst, timed = Interval(overhead, overhead, overhead), 0, False
        samples: list[int] = []
        for kind, epochs in after(parts_of(entry, origins), epochs_done):
            found = self._epoch(entry, kind)
            if found is None:
                return None
            total += found.seconds * epochs
            samples.append(found.samples)
            worst = max(worst, found.step)
            timed = timed or found.timed
        return Cost(total, min(samples, default=0), worst, timed)

    def left_s(
        self, trial: Trial, origins: Iterable[Origin], epochs_done: int, since_s: float = 0.0
    ) -> float | None:
        """Seconds of the epochs that are left of a running trial; None while that is unknown.

        An epoch that takes longer than it should, or waits for its worker to start, leaves to the
        later ones what they take.

        Args:
            since_s: for how long the next epoch has been under way.
        """
        parts, total, begun_s = parts_of(trial, origins), 0.0, since_s
        if not parts:  # it trains nothing
            whole_s = self.overhead_s.get(trial.phase)
            return None if whole_s is None else max(0.0, whole_s - since_s)
        for kind, epochs in after(parts, epochs_done):
            found = self._epoch(trial, kind)
            if found is None:
                return None
            total += epochs * found.seconds.mid - min(begun_s, found.seconds.mid)
            begun_s = 0.0
        return total

    def _epoch(self, entry: Entry | Trial, kind: Kind) -> Cost | None:
        key = kind, work_of(entry.data, entry.recipe)
        if key not in self._epochs:
            there = self.images.in_epoch(entry.data, entry.distribution, entry.recipe, kind.stage)
            self._epochs[key] = self._epoch_of(*key, there)
        return self._epochs[key]

    def _epoch_of(self, kind: Kind, work: str, images: float | None) -> Cost | None:
        for step in range(len(HOW) if self.roughly else ROUGHLY):
            group = list(self._groups.get(_group(step, kind, work), {}).values())
            if not group or (step and images is None and not self.roughly):
                continue
            there = images if step else None
            seconds = [s.epoch_s if there is None else s.at(there) for s in group]
            band = self._band(kind.phase, seconds, own=step > 0)
            return Cost(band, len(group), step, all(sample.timed for sample in group))
        return None

    def _band(self, phase: str, seconds: list[float], own: bool) -> Interval:
        n = len(seconds)
        mean = sum(seconds) / n
        spread, df = self._spread(phase)
        if own and n > 1 and (sd := _log_sd(seconds)) > spread:
            spread, df = sd, n - 1
        width = math.exp(_t90(df) * spread * math.sqrt(1 + 1 / n))
        return Interval(mean, mean / width, mean * width)

    def _spread(self, phase: str) -> tuple[float, int]:
        """Deviation of log(seconds of an epoch) between like trials, degrees of freedom."""
        if phase not in self._spreads:
            self._spreads[phase] = self._spread_of(phase)
        return self._spreads[phase]

    def _spread_of(self, phase: str) -> tuple[float, int]:
        """Where no two trials were alike, distributions are compared, brought to equal images."""
        for step in (0, 1):
            squares, df = 0.0, 0
            for (of, _, kind), samples in self._groups.items():
                if of != step or kind[0] != phase or len(samples) < 2:
                    continue
                group = list(samples.values())
                seconds = [sample.at(group[0].images) for sample in group]
                squares += _log_sd(seconds) ** 2 * (len(group) - 1)
                df += len(group) - 1
            if df >= (3 if step == 0 else 1):
                return math.sqrt(squares / df), df
        return ASSUMED_SPREAD, 0


def _group(step: int, kind: Kind, work: str) -> _Group:
    """What samples have in common that serve at one of the steps."""
    if step == ROUGHLY:
        return step, "", (kind.phase,)
    return step, work, kind[: len(kind) - step]


def _log_sd(values: list[float]) -> float:
    logs = [math.log(value) for value in values]
    mean = sum(logs) / len(logs)
    return math.sqrt(sum((log - mean) ** 2 for log in logs) / (len(logs) - 1))


@lru_cache(maxsize=256)
def _t90(df: int) -> float:
    """The 90 % quantile of Student's t, so that the interval holds 80 %; 0: spread as if known."""
    from scipy.special import ndtri, stdtrit  # half a second less than all of scipy.stats

    return float(stdtrit(df, 0.9) if df else ndtri(0.9))
