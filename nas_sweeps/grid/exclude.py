"""``exclude``: rules that drop cells of the grid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, ValidationInfo, field_validator

from nas_sweeps import methods
from nas_sweeps.grid import axes
from nas_sweeps.grid.base import Section, Seed
from nas_sweeps.grid.messages import Problems, unknown
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.trial import Distribution, Mu


class Rule(Section):
    """One ``exclude`` rule: a cell is dropped if it matches every key that is given.

    ``method`` is a search method, a genotype that the grid names, or ``published`` for all of
    these; such a genotype's seed is its retrain seed.
    """

    method: Annotated[tuple[str, ...] | None, BeforeValidator(axes.listed)] = None
    distribution: Annotated[
        tuple[Literal["balance", "exp", "step", "uniform", "natural"], ...] | None,
        BeforeValidator(axes.listed),
    ] = None
    mu: Annotated[tuple[Mu, ...] | None, BeforeValidator(axes.listed)] = None
    seed: Annotated[tuple[Seed, ...] | None, BeforeValidator(axes.listed)] = None

    @field_validator("method")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        given = (info.context or {}).get("genotypes", [])
        choices = dict.fromkeys([*methods.names(), "published", *PUBLISHED, *given])
        found = Problems()
        for index, name in enumerate(names or ()):
            if name not in choices:
                found.add(unknown("method", name, choices), index)
        found.check()
        return names


class Exclusion:
    """Which of some rules drop a cell, as a set of bits: 0 for none, bit i for rule i.

    Bits, because thousands of rules may meet a hundred thousand cells.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._method = _Axis(rule.method for rule in rules)
        self._distribution = _Axis(rule.distribution for rule in rules)
        self._mu = _Axis(rule.mu for rule in rules)
        self._seed = _Axis(rule.seed for rule in rules)

    def __call__(self, names: tuple[str, ...], distribution: Distribution, seed: int) -> int:
        """The rules that drop a cell; ``names`` are those its method goes by."""
        by_name = 0
        for name in names:
            by_name |= self._method.rules(name)
        return (
            by_name
            & self._distribution.rules(distribution.kind)
            & self._mu.rules(distribution.mu)
            & self._seed.rules(seed)
        )


class _Axis:
    """The rules that one key of theirs lets drop a cell, by the cell's value."""

    def __init__(self, values: Iterable[tuple[Hashable, ...] | None]) -> None:
        self._open = 0  # rules without this key
        self._named: defaultdict[Hashable, int] = defaultdict(int)
        for index, named in enumerate(values):
            if named is None:
                self._open |= 1 << index
            for value in named or ():
                self._named[value] |= 1 << index

    def rules(self, value: Hashable) -> int:
        return self._open | self._named.get(value, 0)
