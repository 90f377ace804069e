"""One way to register things by name: a dict, a decorator, an entry-point group. No torch.

Methods, losses, samplers and data sets are frozen dataclasses below a base class, and their fields
are their knobs; phases have none. A registry knows them by name: those that the package registers
with the decorator, and those that installed packages offer through the registry's entry-point
group::

    [project.entry-points."nas_sweeps.losses"]
    deferred = "their_package:Deferred"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from nas_sweeps.hints import did_you_mean

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])


class Registry(Generic[T]):
    """Classes by name.

    Args:
        what: one of them, in words: ``method``.
        base: what each of them must be a subclass of.
        group: of the entry points through which other packages offer theirs.
        home: modules of ours that register some, imported when the first is asked for: those
            that cannot be imported where the registry is.

    Attributes:
        known: those registered so far; ``names`` and ``get`` load what other packages offer.
    """

    def __init__(self, what: str, base: type[Any], group: str, home: tuple[str, ...] = ()) -> None:
        self.what, self.base, self.group, self.home = what, base, group, home
        self.known: dict[str, type[Any]] = {}
        self._others_loaded = False

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator, outermost: makes a class known under ``name``.

        Raises:
            ValueError: when another class has the name already.
        """

        def add(registered: C) -> C:
            if self.known.setdefault(name, registered) is not registered:
                raise ValueError(f"{self.what} '{name}' is registered twice; rename one of them")
            return registered

        return add

    def names(self) -> tuple[str, ...]:
        """Every name, other packages' too, sorted. Raises ``ValueError`` for a broken package."""
        self._load_others()
        return tuple(sorted(self.known))

    def get(self, name: str) -> Any:
        """The class registered under ``name``. Raises ``ValueError`` naming the choices."""
        known = self.names()
        if name not in known:
            raise ValueError(
                f"unknown {self.what} '{name}'; choose from {', '.join(known)}"
                f"{did_you_mean(name, known)}"
            )
        return self.known[name]

    def build(self, name: str, knobs: Mapping[str, Any] | None = None) -> T:
        """One of them, with these knobs, checked, and defaults for the rest.

        Raises:
            ValueError: an unknown name.
            pydantic.ValidationError: an unknown knob, or a value of the wrong type or range.
        """
        cls: type[Any] = self.get(name)
        if not is_dataclass(cls):  # it has no knobs
            return cls()  # type: ignore[no-any-return]
        built: T = _adapter(cls).validate_python(dict(knobs or {}))
        return built

    def resolve(self, name: str, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """Every knob of ``build``'s answer, by name. Raises what ``build`` raises."""
        built: Any = self.build(name, knobs)
        return asdict(built)

    def _load_others(self) -> None:
        if self._others_loaded:
            return
        for module in self.home:
            import_module(module)
        for point in entry_points(group=self.group):
            try:
                offered = point.load()
            except Exception as error:
                raise ValueError(
                    f"{self.what} '{point.name}' ({point.value}) cannot be imported: {error}; "
                    "repair or uninstall the package that offers it"
                ) from error
            if not (isinstance(offered, type) and issubclass(offered, self.base)):
                raise ValueError(
                    f"{self.what} '{point.name}' ({point.value}) is not a subclass of "
                    f"{self.base.__module__}.{self.base.__qualname__}"
                )
            self.register(point.name)(offered)
        self._others_loaded = True


@cache
def _adapter(registered: type[Any]) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(registered)
