"""Methods that a person registers in a script or a notebook, brought to Ray's workers.

A worker imports nas_sweeps and what installed packages offer through entry points. It cannot
import the script that the run was started from, so the classes defined there are sent to it by
value, and tried on every node before the first trial starts.
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

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas_sweeps import methods
from nas_sweeps.methods import METHODS, Method
from nas_sweeps.schedule import Scheduler
from nas_sweeps.store.records import State
from nas_sweeps.trial import MethodSpec, SearchTrial

# Known by identity, so a copy would be taken for a default value.
copyreg.pickle(type(dataclasses.MISSING), lambda _: "MISSING")

ANSWER_S = 120.0
_ADVICE = (
    f"offer it in a package that is installed on every node, through the entry-point group "
    f"'{METHODS.group}', or run with --executor inline"
)


def pack(chain: Scheduler) -> bytes:
    """The methods of a chain that workers cannot import, pickled; empty where there are none.

    Raises:
        ValueError: a class cannot be pickled.
    """
    offered = {point.name for point in entry_points(group=METHODS.group)}
    own = {
        name: cls
        for name in sorted({spec.name for spec in _specs(chain)} - offered)
        if not (cls := methods.get(name)).__module__.startswith("nas_sweeps.")
    }
    if not own:
        return b""
    try:
        for cls in own.values():
            _resolve_annotations(cls)
        with _by_value(cls.__module__ for cls in own.values()):
            packed: bytes = cloudpickle.dumps(own)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever keeps a class from being pickled
        raise ValueError(
            f"method {_named(own)} cannot be sent to Ray's workers ({error}); {_ADVICE}"
        ) from None
    return packed


def unpack(packed: bytes) -> None:
    """Register what was packed, in place of what an earlier run has left under the same name."""
    if packed:
        own: dict[str, type[Method]] = cloudpickle.loads(packed)
        METHODS.known.update(own)


def require_unpacked(packed: bytes, chain: Scheduler, node_ids: Iterable[str]) -> None:
    """Build the methods on every node, as a trial will.

    Raises:
        ValueError: it fails somewhere, as where the script imports a module that is not there.
    """
    if not packed:
        return
    specs = _specs(chain)
    task = ray.remote(num_cpus=0, max_retries=0)(_build)
    answers = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
        ).remote(packed, specs)
        for node_id in node_ids
    ]
    try:
        ray.get(answers, timeout=ANSWER_S)
    except Exception as error:  # Ray wraps whatever was raised there
        why = str(error).strip().splitlines()[-1]
        raise ValueError(
            f"a method of this script does not load in Ray's workers ({why}); {_ADVICE}"
        ) from None


def _specs(chain: Scheduler) -> list[MethodSpec]:
    """Of the searches that are still to run, each once."""
    waiting = (entry for entry, state in chain.states() if state == State.WAITING)
    return list({entry.method: None for entry in waiting if isinstance(entry, SearchTrial)})


def _build(packed: bytes, specs: list[MethodSpec]) -> None:
    unpack(packed)
    for spec in specs:
        methods.build(spec)


def _resolve_annotations(cls: type[Method]) -> None:
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
            cloudpickle.register_pickle_by_value(sys.modules[name])  # type: ignore[no-untyped-call]
            modules.append(sys.modules[name])
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)  # type: ignore[no-untyped-call]


def _named(own: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in own)
