"""Classes that a person registers in a script or a notebook, brought to workers.

A worker imports nas_sweeps and what installed packages offer through entry points. It cannot
import the script that the run was started from, so the methods, losses, samplers, data sets and
phases that are defined there are sent to it by value.
"""

from __future__ import annotations

import copyreg
import dataclasses
import sys
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import cloudpickle

from nas_sweeps.data.datasets import DATASETS
from nas_sweeps.data.samplers import SAMPLERS
from nas_sweeps.grid import Entry
from nas_sweeps.losses import LOSSES
from nas_sweeps.methods import METHODS
from nas_sweeps.phases import PHASES, Phase
from nas_sweeps.registry import Registry
from nas_sweeps.trial import Knob, MethodSpec, name_and_knobs

# Known by identity, so a copy would be taken for a default value.
copyreg.pickle(type(dataclasses.MISSING), lambda _: "MISSING")

REGISTRIES: dict[str, Registry[Any]] = {
    registry.group: registry for registry in (METHODS, LOSSES, SAMPLERS, DATASETS, PHASES)
}


@dataclasses.dataclass(frozen=True, slots=True)
class Used:
    """A registered thing that trials name, with the knobs that they give it."""

    group: str  # of the registry's entry points
    name: str
    knobs: tuple[tuple[str, Knob], ...] = ()

    def __str__(self) -> str:
        return f"{REGISTRIES[self.group].what} '{self.name}'"

    @property
    def advice(self) -> str:
        """What to do where it cannot be brought to a worker."""
        return (
            "offer it in a package that is installed wherever trials run, through the entry-point "
            f"group '{self.group}', or run with --executor inline"
        )


def own_of(entries: Iterable[Entry]) -> tuple[Used, ...]:
    """Whatever trials name that neither this package nor an installed one offers, each once."""
    named = dict.fromkeys(used for entry in entries for used in _named_by(entry))
    offered = {(group, p.name) for group in REGISTRIES for p in entry_points(group=group)}
    return tuple(
        used
        for used in named
        if (cls := REGISTRIES[used.group].known.get(used.name)) is not None
        and (used.group, used.name) not in offered
        and not cls.__module__.startswith("nas_sweeps.")
    )


def _named_by(entry: Entry) -> Iterator[Used]:
    yield Used(PHASES.group, entry.phase)
    yield Used(DATASETS.group, entry.data.dataset)
    for registry, chosen in ((LOSSES, entry.recipe.loss), (SAMPLERS, entry.recipe.sampler)):
        name, knobs = name_and_knobs(chosen)
        yield Used(registry.group, name, tuple(knobs.items()))
    method: MethodSpec | None = getattr(entry, "method", None)  # of a search
    if method is not None:
        yield Used(METHODS.group, method.name, method.knobs)


def pack(own: Iterable[Used]) -> bytes:
    """The classes of these names, pickled by value; empty where there are none.

    Raises:
        ValueError: a class cannot be pickled.
    """
    classes = {used: REGISTRIES[used.group].get(used.name) for used in own}
    packed: dict[tuple[str, str], bytes] = {}
    with _by_value({cls.__module__ for cls in classes.values()}):
        for used, cls in classes.items():
            try:
                _resolve_annotations(cls.spec if issubclass(cls, Phase) else cls)
                packed[used.group, used.name] = cloudpickle.dumps(cls)
            except Exception as error:  # whatever keeps a class from being pickled
                raise ValueError(
                    f"{used} cannot be sent to workers ({error}); {used.advice}"
                ) from None
    return cloudpickle.dumps(packed) if packed else b""


def unpack(packed: bytes) -> None:
    """Register what was packed, in place of what an earlier run has left under the same name."""
    for (group, name), cls in (cloudpickle.loads(packed) if packed else {}).items():
        REGISTRIES[group].known[name] = cloudpickle.loads(cls)


def why_not_here(packed: bytes, own: Iterable[Used]) -> str | None:
    """Unpack and build each as a trial will: in words what fails, None where all is well."""
    classes = cloudpickle.loads(packed)
    for used in own:
        registry = REGISTRIES[used.group]
        try:
            registry.known[used.name] = cloudpickle.loads(classes[used.group, used.name])
            registry.build(used.name, dict(used.knobs))
        except Exception as error:  # as where the script imports a module that is not there
            return f"{used} of this script does not load in a worker ({error}); {used.advice}"
    return None


def _resolve_annotations(cls: type[Any]) -> None:
    """Replace annotations that are text, of ``from __future__ import annotations``, by what they
    mean: a worker has no module in which to look their names up."""
    hints = typing.get_type_hints(cls, include_extras=True)
    known: dict[str, dataclasses.Field[Any]] = cls.__dataclass_fields__
    for name in cls.__annotations__:
        cls.__annotations__[name] = hints[name]
        if name in known:
            known[name].type = hints[name]


@contextmanager
def _by_value(names: Iterable[str]) -> Iterator[None]:
    """Inside, what the modules of these names define is pickled itself, not its name."""
    modules: list[ModuleType] = []
    try:
        for name in set(names) - {"__main__"}:  # which cloudpickle never pickles by name
            cloudpickle.register_pickle_by_value(sys.modules[name])
            modules.append(sys.modules[name])
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
