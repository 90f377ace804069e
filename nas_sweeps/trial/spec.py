"""Trials of each phase, who asks for them, and the identity derived from a spec."""

from __future__ import annotations

import hashlib
import json
from dataclasses import Field, asdict, dataclass, fields, is_dataclass
from functools import cache, lru_cache
from typing import Any, ClassVar, Literal, get_args, get_type_hints

from nas_sweeps.phases.contract import PHASES
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.trial.data import Data, Distribution
from nas_sweeps.trial.fields import (
    ABSENT,
    STRICT,
    Count,
    NonNegative,
    Positive,
    absent_values,
    added,
)
from nas_sweeps.trial.recipe import Knob, RetrainRecipe, SearchRecipe

SCHEMA_VERSION = 1  # part of every identity: raise it when a spec's meaning changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one trial occupies while it runs. Never part of an identity.

    ``gpus`` below 1 shares a device between trials; above 1 it must be whole.
    ``cpus`` is also the number of threads torch uses in the trial.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    gpus: NonNegative = 0.0
    cpus: Positive = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSpec:
    """A registered search method by name, with every knob resolved and sorted by name."""

    __pydantic_config__: ClassVar[Any] = STRICT
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

    __pydantic_config__: ClassVar[Any] = STRICT
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
    study: str = added("")  # that tunes knobs
    proposal: int | None = added(None)  # of the study, its number; None: what it led to
    point: int | None = added(None)  # of what a study led to: the proposal that has its values
    superseded: bool = added(False)  # a study led to it, and has another winner now

    @property
    def key(self) -> str:
        """Equal origins, equal key: linking twice is linking once."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()[:16]

    @property
    def is_result(self) -> bool:
        """Whether it asks for a result: what a study only tries, or chose once, is none."""
        return self.proposal is None and not self.superseded

    @property
    def is_winner(self) -> bool:
        """Whether it asks for the winner of its study, not for what goes on from the winner."""
        return (
            bool(self.study) and self.is_result and (not self.search_id or self.point is not None)
        )

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
        kinds: dict[str, Any] = {"search_id": str | None}
        kinds |= dict.fromkeys(("seed", "search_epoch", "proposal", "point"), int | None)
        kinds["superseded"] = bool
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
    parts = {"schema": str(SCHEMA_VERSION)}
    kind: Any = type(value)
    for f in _fields(kind):
        part = getattr(value, f.name)
        if not _left_out(f, part):
            parts[f.name] = _text(part)
    text = "{" + ",".join(f"{json.dumps(name)}:{parts[name]}" for name in sorted(parts)) + "}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# What many specs of a plan share, a recipe or the data, is written once. The key is the object,
# not its value: True and 1 are equal, and are not written alike.
_KEPT = 1024
_texts: dict[int, tuple[Any, str]] = {}


def _text(part: Any) -> str:
    """The JSON of a part of a spec, for its identity."""
    kept = _texts.get(id(part))
    if kept is not None and kept[0] is part:
        return kept[1]
    plain = _plain(part, identity=True)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    if is_dataclass(part):
        if len(_texts) >= _KEPT:
            _texts.clear()
        _texts[id(part)] = part, text
    return text


@cache
def _fields(kind: Any) -> tuple[Field[Any], ...]:
    return fields(kind)


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
    return labels or (ABSENT in of.metadata and value == of.metadata[ABSENT])
