"""What Ray sees of a cluster, and what one small actor on each node finds there."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nas_sweeps.data.identity import fingerprint
from nas_sweeps.data.presence import SHOWN, find_images
from nas_sweeps.grid import Grid
from nas_sweeps.store import Store
from nas_sweeps.sweep.doctor import probed
from nas_sweeps.sweep.executor import needs_of, require_room
from nas_sweeps.sweep.finding import WRONG, Finding, checked
from nas_sweeps.sweep.ray_session import WHERE, alive_nodes, room_now, session
from nas_sweeps.trial import Data, DataPaths

ANSWER_S = 120.0  # where there are GPUs a worker imports torch first, from a slow disk perhaps
SAME = ("python", "nas_sweeps", "torch", "ray")  # versions that all nodes share
CLOCK_S = 5.0  # by which clocks may differ: times in tables and `status` are off by as much
PINGS = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """What a node is asked to look at."""

    store: str | None = None  # its root
    token: str = ""  # in the store's probe
    places: DataPaths = field(default_factory=DataPaths)
    data: Data | None = None

    @classmethod
    def of(cls, grid: Grid | None, store: Store | None, token: str) -> Asked:
        root = store.root if store else None
        return (
            cls(root, token) if grid is None else cls(root, token, grid.places, grid.data.spec(0))
        )


@dataclass(slots=True)
class Node:
    """What is known of a node. ``row`` is a word or two about each thing that was looked at."""

    name: str
    row: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def findings(self) -> list[Finding]:
        """A line for each problem, or one that says what it is."""
        if self.problems:
            return [Finding(self.name, False, text, self.row) for text in self.problems]
        told = ", ".join(f"{what} {found}" for what, found in self.row.items())
        return [Finding(self.name, True, told, self.row)]


def looked_at(address: str | None, grid: Grid | None, store: Store | None) -> Iterator[Finding]:
    """What Ray sees, and every node by itself. Raises ValueError where there is no Ray."""
    with session(address):
        yield checked("ray", partial(seen_by_ray, grid))
        with probed(store) if store is not None else nullcontext("") as token:
            for node in ask_nodes(Asked.of(grid, store, token)):
                yield from node.findings()


def seen_by_ray(grid: Grid | None) -> str:
    """The cluster's resources. Raises ValueError where a trial of the grid would wait for ever."""
    room = room_now()
    if grid is not None:
        require_room(needs_of(grid), room, WHERE)
    cpus, gpus = (sum(of) for of in zip(*room.nodes, strict=True))
    counted = "1 node" if len(room.nodes) == 1 else f"{len(room.nodes)} nodes"
    return f"Ray {version('ray')} sees {counted} with {cpus:g} CPUs and {gpus:g} GPUs"


def ask_nodes(asked: Asked) -> list[Node]:
    """Each living node: first what each finds by itself, then what they see of each other."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor = ray.remote(num_cpus=0, max_restarts=0)(Looker)
    alive = alive_nodes()
    nodes = {node["NodeID"]: Node(_name(node, alive)) for node in alive}
    lookers: dict[str, Any] = {}
    for node_id in nodes:
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
        lookers[node_id] = actor.options(scheduling_strategy=strategy).remote(asked, node_id)
    gpus = {node["NodeID"]: node["Resources"].get("GPU", 0.0) for node in alive}
    waiting = {node_id: looker.look.remote(gpus[node_id]) for node_id, looker in lookers.items()}
    until = time.monotonic() + ANSWER_S
    try:
        here, wrote = versions(), {}
        for node_id, answer in waiting.items():
            node = nodes[node_id]
            found = _answer(node, answer, until)
            if found is not None:
                node.problems += _differences(here, found["versions"]) + found["problems"]
                node.row |= found["row"]
                wrote[node_id] = node.name
        for node_id in wrote:
            if asked.store is not None:
                see_others(nodes[node_id], lookers[node_id], wrote, until)
            see_clock(nodes[node_id], lookers[node_id], until)
    finally:
        _clean_up(asked, list(nodes))
        for looker in lookers.values():
            ray.kill(looker)
    return list(nodes.values())


def _name(node: dict[str, Any], alive: list[dict[str, Any]]) -> str:
    """By its host, and where several are on one host by its id, too."""
    host = node["NodeManagerHostname"]
    several = sum(other["NodeManagerHostname"] == host for other in alive) > 1
    return f"node {host} {node['NodeID'][:6]}" if several else f"node {host}"


def _answer(node: Node, answer: Any, until: float) -> Any:
    """What a node answers; None, and a problem of it, where it does not."""
    import ray

    try:
        return ray.get(answer, timeout=max(1.0, until - time.monotonic()))
    except Exception as error:  # whatever keeps a node from answering, it is of no use
        first = str(error).strip().splitlines() or [type(error).__name__]
        node.problems.append(
            f"no task runs there ({first[-1]}); see that its environment is this one"
        )
        return None


def see_others(node: Node, looker: Any, wrote: dict[str, str], until: float) -> None:
    """Whether a node reads what each has written into the store, and the driver what it has."""
    unseen = _answer(node, looker.unseen.remote(list(wrote)), until)
    if unseen is None:
        return
    for other in unseen:
        node.problems.append(
            f"in the store it does not see what {wrote[other]} has written; see that both mount "
            "the same folder, and that a listing shows what another machine has written"
        )
    if not unseen:
        node.row["store"] = "written and read"


def see_clock(node: Node, looker: Any, until: float) -> None:
    """How far its clock is from this one, by the quickest of a few answers."""
    best: tuple[float, float] | None = None
    for _ in range(PINGS):
        began = time.time()
        there = _answer(node, looker.now.remote(), until)
        if there is None:
            return
        took = time.time() - began
        best = min(best or (took, 0.0), (took, there - began - took / 2))
    took, ahead = best or (0.0, 0.0)
    node.row["clock"] = f"{ahead:+.2f} s"
    if abs(ahead) - took / 2 > CLOCK_S:
        node.problems.append(
            f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this one, so "
            "times in tables are off; let both take the time from one server (chrony, NTP)"
        )


def _clean_up(asked: Asked, nodes: list[str]) -> None:
    if asked.store is not None:
        for node in nodes:
            with suppress(OSError):
                Store(asked.store).layout.probe(f"{asked.token}.{node}").remove()


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


class Looker:
    """The actor. What it answers is plain: its node may have another version of this package."""

    def __init__(self, asked: Asked, node: str) -> None:
        self.asked, self.node = asked, node

    def look(self, gpus: float) -> dict[str, Any]:
        """What this node finds by itself; torch should see its GPUs if Ray does."""
        problems: list[str] = []
        row = versions()
        for what, check in (
            ("GPU", partial(_compute, gpus)),
            ("store", partial(_write, self.asked, self.node)),
            ("images", partial(_look_at_images, self.asked)),
        ):
            try:
                row[what] = check()
            except (ValueError, OSError) as error:
                problems.append(str(error))
                row[what] = WRONG
        return {"versions": versions(), "problems": problems, "row": row}

    def unseen(self, nodes: list[str]) -> list[str]:
        """Those of the nodes of which this one does not see what they have written."""
        probe = Store(self.asked.store or "").layout.probe
        names = {node: probe(f"{self.asked.token}.{node}") for node in nodes}
        return [node for node, file in names.items() if file.read_json() != {"node": node}]

    def now(self) -> float:
        """Its clock, in seconds since 1970."""
        return time.time()


def _compute(gpus: float) -> str:
    """That every GPU which torch sees computes. Raises ValueError."""
    if not gpus:
        return "none"
    import torch

    if not torch.cuda.is_available():
        raise ValueError(f"Ray offers {gpus:g} GPUs and torch sees none: see nvidia-smi there")
    names = []
    for number in range(torch.cuda.device_count()):
        names.append(torch.cuda.get_device_name(number))
        try:
            ones = torch.ones(256, 256, device=f"cuda:{number}")
            right = bool(((ones @ ones) == 256).all())
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0]
            raise ValueError(
                f"GPU {number} ({names[-1]}) cannot be used ({first}): see whether another process "
                "holds it, and whether this torch is built for it"
            ) from None
        if not right:
            raise ValueError(f"GPU {number} ({names[-1]}) computes wrongly: take the node out")
    if len(names) < gpus:
        raise ValueError(f"Ray offers {gpus:g} GPUs and torch sees {len(names)}: see nvidia-smi")
    return f"{len(names)} {names[0]}"


def _write(asked: Asked, node: str) -> str:
    """That it is the folder which the driver wrote to, and can be written to from here."""
    if asked.store is None:
        return "not asked"
    store = Store(asked.store)
    if store.layout.probe(asked.token).read_json() != {"token": asked.token}:
        raise ValueError(
            f"store '{store}' is another folder there; name one that every node shares"
        )
    mine = store.layout.probe(f"{asked.token}.{node}")
    try:
        mine.publish_json({"node": node})
    except OSError as error:
        raise ValueError(
            f"store '{store}' cannot be written to there ({error.strerror or error}); "
            "change its permissions"
        ) from None
    return "written"


def _look_at_images(asked: Asked) -> str:
    if asked.data is None:
        return "not asked"
    if asked.places.path is None:
        here = find_images(asked.data, asked.places).here
        return asked.data.dataset if here else "to download"
    found = fingerprint(asked.places.path, asked.places, asked.data)
    if found != asked.data.fingerprint:
        raise ValueError(f"data.path {asked.places.path} holds other images there than here")
    return found[:SHOWN]
