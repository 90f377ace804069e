"""Whether GPUs were shared as they were granted: ``python -m tests.placed --gpus 8``.

Runs searches of half a GPU and retrains of one on a Ray cluster with so many logical GPUs, as
processes on this machine's CPUs, and holds the recorded times to three promises: a trial sees the
devices that it was given, no device is ever oversubscribed, and none idles for longer than
``--grace`` seconds while a trial that fits on it is ready.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import nas_sweeps as ns

RECIPE = {"channels": 2, "layers": 3, "epochs": 2, "batch_size": 8}


@dataclass(frozen=True)
class Held:
    """What a trial held: shares of devices, from when to when, in seconds; and since when it was
    ready to."""

    trial: str
    need: float
    devices: tuple[str, ...]
    ready: float
    start: float
    end: float

    @property
    def share(self) -> float:
        """Of each of its devices."""
        return min(self.need, 1.0)


def grid_of(seeds: int, search: float = 0.5, retrain: float = 1.0) -> ns.Grid:
    """Searches and retrains that take so many GPUs each."""

    def phase(gpus: float) -> dict[str, Any]:
        return {"recipe": RECIPE, "resources": {"gpus": gpus, "cpus": 1}}

    axes = {"methods": ["darts", "fairdarts"], "distributions": ["balance"], "seeds": seeds}
    data = {"dataset": "digits", "n_max": 40, "test_n_max": 3}
    return ns.Grid.from_dict(
        {"data": data, "search": axes | phase(search), "retrain": phase(retrain)}
    )


def problems(trials: Sequence[Held], gpus: int, grace_s: float) -> Iterator[str]:
    """What was not as promised, in words."""
    for held in trials:
        if len(held.devices) != max(1, int(held.need)) or not set(held.devices) <= _names(gpus):
            yield f"{held.trial} was given {held.need:g} GPUs and saw {held.devices}"
    moments = sorted({moment for held in trials for moment in (held.ready, held.start, held.end)})
    for begin, end in pairwise(moments):
        free = dict.fromkeys(_names(gpus), 1.0)
        for held in trials:
            for device in held.devices if held.start <= begin < held.end else ():
                free[device] = free.get(device, 1.0) - held.share
        over = [device for device, left in free.items() if left < -1e-6]
        if over:
            yield f"devices {', '.join(over)} are oversubscribed at {begin:.2f} s"
        for held in trials:
            fits = sum(left >= held.share - 1e-6 for left in free.values()) >= len(held.devices)
            idle_s = end - max(begin, held.ready)
            if held.ready <= begin < held.start and fits and idle_s > grace_s:
                yield f"{held.trial} was ready and fitted for {idle_s:.2f} s from {begin:.2f} s on"


def _names(gpus: int) -> set[str]:
    return set(map(str, range(gpus)))


def recorded(store: Path, needs: Mapping[str, float]) -> list[Held]:
    """What the attempts in a store held. A search is ready when the first one starts, a retrain
    when its search has ended."""
    frames = ns.load(store)
    trials = frames.trials.set_index("trial_id")
    spans = {
        a.trial_id: (a.started_at.timestamp(), a.started_at.timestamp() + a.wall_s)
        for a in frames.attempts.itertuples()
    }
    first = min(start for start, _ in spans.values())
    return [
        Held(
            trial=a.trial_id,
            need=needs[trials.phase[a.trial_id]],
            devices=tuple((a.visible_devices or "").split(",")),
            ready=max((spans[p][1] for p in trials.parents[a.trial_id]), default=first),
            start=spans[a.trial_id][0],
            end=spans[a.trial_id][1],
        )
        for a in frames.attempts.itertuples()
    ]


def main() -> None:
    """Exit code 1 where something was not as promised."""
    parser = argparse.ArgumentParser(prog="python -m tests.placed")
    parser.add_argument("--gpus", type=int, default=8, help="logical ones")
    parser.add_argument("--seeds", type=int, default=8, help="each makes two searches")
    parser.add_argument("--step", type=float, default=0.5, help="seconds of a step, 8 a trial")
    parser.add_argument("--grace", type=float, default=10.0, help="for a process to start")
    asked = parser.parse_args()
    from nas_sweeps.sweep import ray_session  # noqa: F401  it sets what Ray reads

    import ray  # isort: skip

    os.environ["NAS_SWEEPS_RUNS"] = "nas_sweeps.testing.fake:RUNS"
    os.environ["NAS_SWEEPS_FAKE_STEP_S"] = str(asked.step)
    ray.init(
        num_cpus=2 * asked.gpus,
        num_gpus=asked.gpus,
        include_dashboard=False,
        log_to_driver=False,
    )
    grid = grid_of(asked.seeds)
    needs = {phase: grid.resources(phase).gpus for phase in grid.phases}
    with tempfile.TemporaryDirectory() as store:
        assert ns.run(grid, store, console="none").complete
        held = recorded(Path(store), needs)
    found = list(problems(held, asked.gpus, asked.grace))
    took = max(h.end for h in held) - min(h.start for h in held)
    busy = sum((h.end - h.start) * h.need for h in held)
    print("\n".join(found[:20]))
    print(
        f"{len(held)} trials on {asked.gpus} logical GPUs in {took:.0f} s, of which they held "
        f"{busy / asked.gpus / took:.0%}; {len(found)} problems"
    )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
