"""What Ray sees of a cluster, and what one small task on each node finds there."""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nas_sweeps.data.identity import fingerprint
from nas_sweeps.grid import Grid
from nas_sweeps.store import Store
from nas_sweeps.sweep.doctor import probed
from nas_sweeps.sweep.executor import needs_of, require_room
from nas_sweeps.sweep.finding import Finding, checked
from nas_sweeps.sweep.ray_session import WHERE, alive_nodes, room_now, session
from nas_sweeps.trial import Data, DataPaths

ANSWER_S = 120.0  # where there are GPUs a worker imports torch first, from a slow disk perhaps
SAME = ("python", "nas_sweeps", "torch", "ray")  # versions that all nodes share


@dataclass(frozen=True, slots=True)
class Asked:
    """What a node is asked to look at."""

    store: str | None = None  # its root
    token: str = ""  # in the store's probe
    places: DataPaths = field(default_factory=DataPaths)
    data: Data | None = None  # a custom data set

    @classmethod
    def of(cls, grid: Grid | None, store: Store | None, token: str) -> Asked:
        if grid is None or grid.data.path is None:
            return cls(store.root if store else None, token)
        return cls(store.root if store else None, token, grid.places, grid.data.spec(0))


def looked_at(address: str | None, grid: Grid | None, store: Store | None) -> Iterator[Finding]:
    """What Ray sees, and every node by itself. Raises ValueError where there is no Ray."""
    with session(address):
        yield checked("ray", partial(seen_by_ray, grid))
        with probed(store) if store is not None else nullcontext("") as token:
            for node, problems, text in ask_nodes(Asked.of(grid, store, token)):
                yield Finding(node, not problems, "; ".join(problems) or text)


def seen_by_ray(grid: Grid | None) -> str:
    """The cluster's resources. Raises ValueError where a trial of the grid would wait for ever."""
    room = room_now()
    if grid is not None:
        require_room(needs_of(grid), room, WHERE)
    cpus, gpus = (sum(of) for of in zip(*room.nodes, strict=True))
    counted = "1 node" if len(room.nodes) == 1 else f"{len(room.nodes)} nodes"
    return f"Ray {version('ray')} sees {counted} with {cpus:g} CPUs and {gpus:g} GPUs"


def ask_nodes(asked: Asked) -> Iterator[tuple[str, list[str], str]]:
    """Each living node: its name, what is wrong there, and what it is."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(look_around)
    waiting = []
    for node in alive_nodes():
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        gpus = node["Resources"].get("GPU", 0.0)
        answer = task.options(scheduling_strategy=strategy).remote(asked, gpus)
        waiting.append((f"node {node['NodeManagerHostname']}", answer))
    here = versions()
    for name, answer in waiting:
        try:
            found = ray.get(answer, timeout=ANSWER_S)
        except Exception as error:  # whatever keeps a node from answering, it is of no use
            first = str(error).strip().splitlines() or [type(error).__name__]
            yield (
                name,
                [f"no task runs there ({first[-1]}); see that its environment is this one"],
                "",
            )
            continue
        yield name, [*_differences(here, found["versions"]), *found["problems"]], found["text"]


def versions() -> dict[str, str]:
    """Versions of what all nodes must share."""
    found = {"python": platform.python_version()}
    for name in SAME[1:]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def _differences(here: dict[str, str], there: dict[str, str]) -> list[str]:
    return [
        f"{name} is {there[name]} there and {here[name]} here; give all nodes one environment"
        for name in SAME
        if there[name] != here[name]
    ]


def look_around(asked: Asked, gpus: float) -> dict[str, Any]:
    """The task: runs on a node, whose GPUs torch should see if Ray does."""
    problems, found = [], ["the same versions as here"]
    for look in (_look_at_store, _look_at_images):
        try:
            found += look(asked)
        except (ValueError, OSError) as error:
            problems.append(str(error))
    if gpus:
        import torch

        if torch.cuda.is_available():
            found.append(f"{torch.cuda.device_count()} GPU ({torch.cuda.get_device_name(0)})")
        else:
            problems.append(f"Ray offers {gpus:g} GPUs and torch sees none: see nvidia-smi there")
    return {"versions": versions(), "problems": problems, "text": ", ".join(found)}


def _look_at_store(asked: Asked) -> list[str]:
    """That it is the folder which the driver wrote to, and can be written to from here."""
    if asked.store is None:
        return []
    store = Store(asked.store)
    if store.layout.probe(asked.token).read_json() != {"token": asked.token}:
        raise ValueError(
            f"store '{store}' is another folder there; name one that every node shares"
        )
    mine = store.layout.probe(f"{asked.token}.{socket.gethostname()}")
    try:
        mine.publish_json({"token": asked.token})
    except OSError as error:
        raise ValueError(
            f"store '{store}' cannot be written to there ({error.strerror or error}); "
            "change its permissions"
        ) from None
    mine.remove()
    return ["the store can be written to"]


def _look_at_images(asked: Asked) -> list[str]:
    if asked.places.path is None or asked.data is None:
        return []
    found = fingerprint(asked.places.path, asked.places, asked.data)
    if found != asked.data.fingerprint:
        raise ValueError(f"data.path {asked.places.path} holds other images there than here")
    return ["it has the images"]
