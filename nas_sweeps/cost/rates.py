"""How long trials take, from samples of their epochs. Pure arithmetic but for class counts.

A sample is the mean epoch of one stage of one trial that was measured, or of some steps that
were timed. An epoch of a planned trial is looked for in three steps: samples of the same kind;
of another distribution, with the seconds of the images it has more or less; of another method
with the same recipe. Another recipe or another data set is never taken.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache

from nas_sweeps.chain import PHASES, Entry
from nas_sweeps.cost.pace import Kind, Parts, after, parts_of
from nas_sweeps.trial import (
    Data,
    Distribution,
    Origin,
    RetrainRecipe,
    SearchRecipe,
    Trial,
)

# What an epoch's time does not depend on.
FREE = {"epochs", "lr", "lr_min", "momentum", "weight_decay", "grad_clip", "label"}
FREE_SEEDS = {"subset_seed", "split_seed", "class_order_seed"}
ASSUMED_SPREAD = 0.25  # of the logarithm of seconds, where one trial alone was measured
HOW = ("of the same kind", "of other distributions", "of other methods")


@dataclass(frozen=True, slots=True)
class Band:
    """A value and the 80 % interval around it."""

    mid: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def __add__(self, other: Band) -> Band:
        """As if both erred the same way: what trials share, a slow day, does not average out."""
        return Band(self.mid + other.mid, self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> Band:
        return Band(self.mid * factor, self.low * factor, self.high * factor)


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

    seconds: Band
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
        self.classes[key] = (min(largest, self.classes.get(key, (largest, k))[0]), k)

    def of(self, data: Data, distribution: Distribution) -> int | None:
        """None where nothing of this data set was measured."""
        key = data_key(data)
        if (key, str(distribution)) not in self.known and key in self.classes:
            from nas_sweeps.data.profiles import class_counts

            try:
                counts = class_counts(distribution, *self.classes[key])
            except ValueError:  # the run will say so
                return None
            self.known[key, str(distribution)] = sum(counts)
        return self.known.get((key, str(distribution)))


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
    """Of the training images, those that an epoch goes through."""
    return 0.5 if getattr(recipe, "images", "full") == "search_half" else 1.0


class Rates:
    """Seconds of trials.

    Args:
        samples: what was measured and what was timed.
        images: training images by distribution.
        overhead_s: of a trial beside its epochs, by phase.
    """

    def __init__(
        self, samples: Iterable[Sample], images: Images, overhead_s: Mapping[str, float]
    ) -> None:
        self.samples, self.images, self.overhead_s = list(samples), images, overhead_s
        self._groups: dict[tuple[int, str, tuple[str, ...]], list[Sample]] = {}
        for sample in self.samples:
            for step in range(len(HOW)):
                key = _group(step, sample.kind, sample.work)
                self._groups.setdefault(key, []).append(sample)
        self._spreads: dict[str, tuple[float, int]] = {
            phase: self._spread(phase) for phase in PHASES
        }
        self._known: dict[tuple[Parts, str], Cost | None] = {}

    @property
    def spread_known(self) -> bool:
        """Whether anything was measured more than once."""
        return any(df for _, df in self._spreads.values())

    def cost(
        self, entry: Entry | Trial, epochs_done: int = 0, origins: Iterable[Origin] = ()
    ) -> Cost | None:
        """Of a trial, or of what is left of it; None where nothing like it was measured."""
        parts = after(parts_of(entry, origins), epochs_done)
        key = parts, work_of(entry.data, entry.recipe)
        if key not in self._known:
            self._known[key] = self._cost(entry, parts)
        return self._known[key]

    def _cost(self, entry: Entry | Trial, parts: Parts) -> Cost | None:
        phase = entry.phase
        overhead = self.overhead_s.get(phase, 0.0)
        total, worst, timed = Band(overhead, overhead, overhead), 0, False
        samples: list[int] = []
        for kind, epochs in parts:
            found = self._epoch(entry, kind)
            if found is None:
                return None
            total += found.seconds * epochs
            samples.append(found.samples)
            worst = max(worst, found.step)
            timed = timed or found.timed
        return Cost(total, min(samples, default=0), worst, timed)

    def _epoch(self, entry: Entry | Trial, kind: Kind) -> Cost | None:
        work = work_of(entry.data, entry.recipe)
        images = self.images.of(entry.data, entry.distribution)
        for step in range(len(HOW)):
            group = self._groups.get(_group(step, kind, work))
            if not group or (step and images is None):
                continue
            there = (images or 0) * share_of(entry.recipe)
            seconds = [sample.at(there) if step else sample.epoch_s for sample in group]
            band = self._band(kind.phase, seconds, own=step > 0)
            return Cost(band, len(group), step, all(sample.timed for sample in group))
        return None

    def _band(self, phase: str, seconds: list[float], own: bool) -> Band:
        n = len(seconds)
        mean = sum(seconds) / n
        spread, df = self._spreads[phase]
        if own and n > 1 and (sd := _log_sd(seconds)) > spread:
            spread, df = sd, n - 1
        width = math.exp(_t90(df) * spread * math.sqrt(1 + 1 / n))
        return Band(mean, mean / width, mean * width)

    def _spread(self, phase: str) -> tuple[float, int]:
        """Of the logarithm of an epoch's seconds between like trials, and degrees of freedom.

        Where no two trials were alike, distributions are compared, each brought to equal images.
        """
        for step in (0, 1):
            squares, df = 0.0, 0
            for (of, *_), group in self._groups.items():
                if of != step or group[0].kind.phase != phase or len(group) < 2:
                    continue
                seconds = [sample.at(group[0].images) for sample in group]
                squares += _log_sd(seconds) ** 2 * (len(group) - 1)
                df += len(group) - 1
            if df >= (3 if step == 0 else 1):
                return math.sqrt(squares / df), df
        return ASSUMED_SPREAD, 0


def _group(step: int, kind: Kind, work: str) -> tuple[int, str, tuple[str, ...]]:
    """What samples have in common that serve at one of the three steps."""
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
