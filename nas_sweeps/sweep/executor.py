"""Where trials run: the one seam. An executor opens a pool, and a pool has four verbs.

``job`` decides which trial runs when, and the store says how a trial ended. A pool only finds a
place for a trial that it is given, starts a worker there, and notices when the worker has ended. A
package of one's own offers another through the entry-point group ``nas_sweeps.executors``.
"""

from __future__ import annotations

import base64
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import ValidationError

from nas_sweeps.cost.simulate import Room
from nas_sweeps.grid import Grid
from nas_sweeps.registry import Registry
from nas_sweeps.store import Store
from nas_sweeps.sweep.finding import Finding, checked
from nas_sweeps.sweep.own_classes import Used, pack
from nas_sweeps.sweep.ray_token import keep_token_from
from nas_sweeps.trial import DataPaths, Resources


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker that runs no longer."""

    trial_id: str
    died: str | None = None  # how, where it could not say so in the store: "exit code 137"
    preempted: bool = False  # its machine was taken away, as a spot instance is: no try is lost


class Pool:
    """Workers, each with one trial: four verbs, inside ``with``.

    A trial runs once at a time, so its id is all that a started one is known by.
    """

    where = "this machine"  # in words, for messages
    keeps = False  # a worker's process goes on with the next trial that takes as much
    grows = False  # nodes may come when they are asked for: what fits on none now is not refused

    def room(self) -> Room:
        """All nodes that there are now, with what each has in all, busy or not."""
        raise NotImplementedError

    def start(self, trial_id: str, resources: Resources) -> None:
        """Start a worker with a trial that the store holds. There is room for it.

        Raises:
            OSError: it cannot be started now; that counts as a death of its worker.
        """
        raise NotImplementedError

    def ended(self, timeout_s: float) -> Sequence[Ended]:
        """Workers that run no longer, each told once. Waits for one, but not longer than asked."""
        raise NotImplementedError

    def want(self, needs: Mapping[Resources, int]) -> None:
        """What would run now if there were room for it, running trials included: for a pool that
        can have nodes added. Called when it changes."""

    def stop(self) -> None:
        """Start nothing any more: what has not begun is dropped, and told as ended.

        Workers that run are told through the store, and end by themselves.
        """

    def close(self) -> None:
        """``with`` is left: end what still runs, at once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a worker cannot read from the store, because only the driver knows it."""

    places: DataPaths = field(default_factory=DataPaths)
    driver: str | None = None  # by which the store knows it; None: no driver can stop the worker
    own: bytes = b""  # classes that the worker cannot import, packed


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a pool has to know of a run."""

    store: Store
    places: DataPaths
    driver: str  # the key of its lease, which workers watch
    needs: tuple[Resources, ...] = ()  # of every phase of which a trial may run
    own: tuple[Used, ...] = ()  # what trials name that no worker can import
    # For a pool whose ``ended`` computes a trial: to be called between steps, so that limits and
    # requests are seen meanwhile. It returns at once.
    look: Callable[[], None] = field(default=lambda: None, repr=False)

    def given(self) -> Given:
        """For workers in other processes. Raises ValueError where a class cannot be sent."""
        return Given(places=self.places, driver=self.driver, own=pack(self.own))

    def command(self, trial_id: str, resources: Resources) -> list[str]:
        """A command that runs a trial in a process, on any machine that has the store."""
        given = self.given()
        options = {f"--{key}": value for key, value in asdict(given.places).items()}
        options |= {"--cpus": resources.cpus, "--gpus": resources.gpus, "--driver": given.driver}
        options["--own"] = base64.b64encode(given.own).decode()
        command = [sys.executable, "-m", "nas_sweeps.sweep.worker", self.store.root, trial_id]
        return command + [f"{name}={value}" for name, value in options.items() if value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """A way to run trials. Its fields are the options that it takes, as a run names them."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    at_once: ClassVar[int | None] = None  # trials, where that is fixed

    def pool(self, setting: Setting) -> Pool:
        """A pool that has not been entered yet."""
        raise NotImplementedError

    def folders(self) -> list[tuple[str, Path]]:
        """Where it writes beside the store, and what: space is looked for there."""
        return []

    def findings(self, grid: Grid | None, store: Store | None) -> Iterator[Finding]:
        """What ``doctor`` is to say of it."""
        yield from ()


EXECUTORS: Registry[Executor] = Registry("executor", Executor, "nas_sweeps.executors")
register = EXECUTORS.register


@register("inline")
@dataclass(frozen=True, slots=True, kw_only=True)
class Inline(Executor):
    """This process, one trial after another: for debugging, a notebook, or a GPU without Ray."""

    at_once: ClassVar[int | None] = 1

    def pool(self, setting: Setting) -> Pool:
        from nas_sweeps.sweep.inline import InlinePool

        return InlinePool(setting)

    def findings(self, grid: Grid | None, store: Store | None) -> Iterator[Finding]:
        from nas_sweeps.sweep.inline import WHERE, room_here

        if grid is not None:
            yield checked("resources", lambda: require_room(needs_of(grid), room_here(), WHERE))


@register("ray")
@dataclass(frozen=True, slots=True, kw_only=True)
class Ray(Executor):
    """Ray Tune: an actor for each trial, pinned to its GPUs, on one machine or a cluster.

    Args:
        address: of a running cluster (``auto`` finds a local one); None starts one here.
        elastic: the cluster has an autoscaler: what is ready is asked of it, and a trial that fits
            on no node of now waits for one.
    """

    address: str | None = None
    elastic: bool = False

    def pool(self, setting: Setting) -> Pool:
        keep_token_from(self.address)
        from nas_sweeps.sweep.ray_tune import RayPool

        return RayPool(setting, self.address, self.elastic)

    def folders(self) -> list[tuple[str, Path]]:
        return [("Ray", Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())))]

    def findings(self, grid: Grid | None, store: Store | None) -> Iterator[Finding]:
        keep_token_from(self.address)
        try:
            from nas_sweeps.sweep.nodes import looked_at

            yield from looked_at(self.address, grid, store)
        except ValueError as error:
            yield Finding("ray", False, str(error))


def executor_of(named: Executor | str, address: str | None = None) -> Executor:
    """An executor by its name, or by its name and options: ``mine: {nodes: 4}``.

    Raises:
        ValueError: no executor of this name, or options that it does not take.
    """
    if isinstance(named, Executor):
        return named
    name, options = _read(named) if ":" in named else (named, {})
    if address is not None:
        if "address" not in {option.name for option in fields(EXECUTORS.get(name))}:
            raise ValueError(
                f"--address: the {name} executor uses no cluster; leave one of the two out"
            )
        if options.setdefault("address", address) != address:
            raise ValueError(
                f"--address {address}: --executor names {options['address']}; leave one of them out"
            )
    try:
        return EXECUTORS.build(name, options)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError(f"--executor {name}: {'; '.join(wrong)}") from None


def _read(named: str) -> tuple[str, dict[str, Any]]:
    try:
        ((name, options),) = yaml.safe_load(named).items()
        return str(name), dict(options)
    except (yaml.YAMLError, AttributeError, ValueError, TypeError):
        raise ValueError(
            f"--executor {named}: write a name, or a name and its options: "
            "--executor 'mine: {nodes: 4}'"
        ) from None


def needs_of(grid: Grid) -> dict[str, Resources]:
    """What a trial of each phase takes."""
    return {phase: grid.resources(phase) for phase in grid.phases}


def require_room(needs: Mapping[str, Resources], room: Room, where: str) -> str:
    """What trials take, in words. One that no node holds would wait for ever, and is refused.

    Raises:
        ValueError: when no node has the GPUs and CPUs of one trial.
    """
    most, told = max((gpus for _, gpus in room.nodes), default=0.0), []
    for phase, need in needs.items():
        if need.gpus > most:
            raise ValueError(
                f"{phase}.resources.gpus: {need.gpus:g} asked for one trial, but no node of "
                f"{where} has more than {most:g}; use --set {phase}.resources.gpus=0 to run on "
                "the CPU, or name a machine or a cluster that has GPUs"
            )
        if not room.holds(need):
            raise ValueError(
                f"{phase}.resources.cpus: no node of {where} has {need.cpus} CPUs beside "
                f"{need.gpus:g} GPUs; use --set {phase}.resources.cpus=1"
            )
        told.append(f"a {phase} trial takes {need.gpus:g} GPU and {need.cpus} CPU")
    return ", ".join(told)
