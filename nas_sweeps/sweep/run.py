"""``run``: compute what a grid plans and its store lacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from nas_sweeps import methods
from nas_sweeps.chain import Chain, Phase
from nas_sweeps.data.bundle import prepare
from nas_sweeps.grid import Grid, plan
from nas_sweeps.standing import standing
from nas_sweeps.store import Store, compact
from nas_sweeps.sweep.executor import Executor, Job
from nas_sweeps.sweep.progress import Progress, Silence
from nas_sweeps.trial import Places

Retry = Literal["none", "failed"]


@dataclass(frozen=True)
class Summary:
    """How a run ended: trials by phase and state, and how many it started itself."""

    store: Path
    counts: dict[Phase, dict[str, int]]
    started: int

    @property
    def complete(self) -> bool:
        """Every planned trial is done."""
        return all(sum(of.values()) == of["done"] for of in self.counts.values())

    def __str__(self) -> str:
        parts = [
            f"{n} of {sum(of.values())} {phase} trials {state}"
            for phase, of in self.counts.items()
            for state, n in of.items()
            if n
        ]
        return f"{', '.join(parts)}; {self.started} run now; store: {self.store}"


def run(
    grid: Grid,
    store: str | Path | None = None,
    *,
    executor: Executor | Literal["ray", "inline"] = "ray",
    address: str | None = None,
    slots: int | None = None,
    retry: Retry = "none",
    console: Console | Literal["none"] | None = None,
) -> Summary:
    """Run the rest of a grid: everything planned that the store does not hold as done.

    Args:
        grid: from ``load_grid``.
        store: a folder, made if absent; None: ``runs/<name of the grid>``.
        executor: ``ray`` (Ray Tune, on ``address`` or a session of its own) or ``inline``.
        address: of a running Ray cluster.
        slots: at most so many trials at once; None: what the cluster holds.
        retry: ``failed`` runs failed trials again; ``none`` leaves them.
        console: where progress goes; None: standard output, ``none``: nowhere.

    Raises:
        ValueError: the store or the cluster cannot serve the grid; the message says what to do.
    """
    keeper = Store(Path(store) if store is not None else Path("runs") / grid.name)
    planned = plan(grid)
    chain = standing(planned, keeper, retry_failed=retry == "failed")
    _check_images(chain, grid.places)
    keeper.create()
    keeper.keep_grid(grid.to_json())
    _link(chain, keeper)
    watcher = Silence() if console == "none" else Progress(chain, console)
    job = Job(
        chain=chain,
        store=keeper,
        places=grid.places,
        resources=grid.resources,
        watcher=watcher,
        variants={t.trial_id: methods.variant(t.method) for t in planned.searches},
    )
    try:
        if not chain.finished:
            with watcher:
                _executor(executor, address, slots).run(job)
    finally:
        _link(chain, keeper)
        compact(keeper)
    return Summary(Path(keeper.root), chain.counts(), job.started)


def _check_images(chain: Chain, places: Places) -> None:
    """Draw every training set that is still needed, once, before any trial starts.

    What is wrong with images or class counts would otherwise be every trial's own failure, days
    into a run. It also leaves them decoded in the cache. Skipped where only the workers have the
    images. Raises ValueError as ``prepare`` does.
    """
    if places.path is not None and not Path(places.path).exists():
        return
    needed = {(e.data, e.distribution) for e, state in chain.states() if state == "waiting"}
    for data, distribution in needed:
        prepare(data, distribution, places, "cpu")


def _link(chain: Chain, store: Store) -> None:
    """Write down who else asked for retrains that are in the store already.

    A retrain is keyed by its genotype: a later search, or another grid, may find the same one.
    """
    for retrain_id, origin in chain.links():
        if store.layout.trial(retrain_id).spec.exists():
            store.link(retrain_id, origin)


def _executor(
    name: Executor | Literal["ray", "inline"], address: str | None, slots: int | None
) -> Executor:
    if not isinstance(name, str):
        return name
    if name == "ray":
        from nas_sweeps.sweep.ray_tune import RayExecutor

        return RayExecutor(address, slots=slots)
    from nas_sweeps.sweep.inline import InlineExecutor

    return InlineExecutor()
