"""How long trials take together: list scheduling in the order of the scheduler. Pure.

Of the ready trials those of the latest phase go first, and the trial that is next waits until it
fits: a smaller one behind it does not overtake it. That is what the scheduler and the executors do,
so a simulated run starts the trials of a real one in the real order, if they take as long as was
said; but for the minutes that a trial waits for one that takes as much as a free process holds
(``sweep.standing``).
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from nas_sweeps.phases import depth
from nas_sweeps.trial import Resources

Node = tuple[float, float]  # CPUs and GPUs
RUNS = ""  # what has its slot already goes before every phase


@dataclass(frozen=True, slots=True)
class Task:
    """A trial to run, or what is left of one. ``parents`` are the places of those it waits for."""

    phase: str
    seconds: float
    parents: tuple[int, ...] = ()
    runs: bool = False  # it has its slot already


@dataclass(frozen=True, slots=True)
class Room:
    """What trials run on. A trial runs on one node; ``slots`` limits how many run at once."""

    nodes: tuple[Node, ...]
    slots: int | None = None

    def holds(self, need: Resources) -> int:
        """How many such trials run at once."""
        most = sum(_copies(node, need) for node in self.nodes)
        return most if self.slots is None else min(most, self.slots)


@dataclass(frozen=True, slots=True)
class Schedule:
    """What came out. No order of the same trials takes less than the larger of the bounds."""

    wall_s: float
    starts_s: tuple[float, ...]  # of each task
    work_bound_s: float  # all the work, spread evenly over the room
    path_bound_s: float  # the longest way from a trial to the last that waits for it

    @property
    def bound_s(self) -> float:
        return max(self.work_bound_s, self.path_bound_s)


def simulate(
    tasks: Sequence[Task],
    needs: Mapping[str, Resources],
    room: Room,
    seconds: Sequence[float] | None = None,
) -> Schedule:
    """Run tasks in a room, those of a phase in the given order: about 3 s for a million.

    Args:
        seconds: of each task, instead of its own.

    Raises:
        ValueError: a trial that fits on no node.
    """
    for phase in {task.phase for task in tasks}:
        if not room.holds(needs[phase]):
            need = needs[phase]
            raise ValueError(
                f"no node has room for a {phase} trial, which takes {need.gpus:g} GPU and "
                f"{need.cpus} CPU,"
            )
    took = [task.seconds for task in tasks] if seconds is None else seconds
    queue, floor = _Queue(tasks), Floor(room)
    starts = [0.0] * len(tasks)
    ends: list[tuple[float, int, int]] = []  # when, which task, on which node
    now = 0.0
    while True:
        while (i := queue.next) is not None and (
            node := floor.place(needs[tasks[i].phase])
        ) is not None:
            queue.take()
            starts[i] = now
            heapq.heappush(ends, (now + took[i], i, node))
        if not ends:
            break
        now, i, node = heapq.heappop(ends)
        floor.leave(node, needs[tasks[i].phase])
        queue.settle(i)
    work, path = _work_bound(tasks, took, needs, room), _path_bound(tasks, took)
    return Schedule(now, tuple(starts), work, path)


class _Queue:
    """Which task is next: the scheduler, without genotypes."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._waits = [len(task.parents) for task in tasks]
        self._children: dict[int, list[int]] = {}
        for i, task in enumerate(tasks):
            for parent in task.parents:
                self._children.setdefault(parent, []).append(i)
        self._of = [RUNS if task.runs else task.phase for task in tasks]
        latest_first = sorted({*self._of} - {RUNS}, key=depth, reverse=True)
        self._ready: dict[str, deque[int]] = {of: deque() for of in (RUNS, *latest_first)}
        self._queues = tuple(self._ready.values())
        for i, task in enumerate(tasks):
            if not task.parents:
                self._ready[self._of[i]].append(i)

    @property
    def next(self) -> int | None:
        for queue in self._queues:
            if queue:
                return queue[0]
        return None

    def take(self) -> None:
        next(filter(None, self._queues)).popleft()

    def settle(self, i: int) -> None:
        for child in self._children.get(i, ()):
            self._waits[child] -= 1
            if not self._waits[child]:
                self._ready[self._of[child]].append(child)


class Floor:
    """What is free on each node. A trial goes to the first that has room, here and in a run.

    The first one is found in O(log nodes): of each size of a trial, a heap has every node that may
    have room for one.
    """

    def __init__(self, room: Room) -> None:
        self._free = [[cpus, gpus] for cpus, gpus in room.nodes]
        self._slots = math.inf if room.slots is None else room.slots
        self._open: dict[tuple[int, float], tuple[list[int], set[int]]] = {}

    def place(self, need: Resources) -> int | None:
        """The node that a trial went to; None where it fits nowhere now."""
        if self._slots <= 0:
            return None
        cpus, gpus = size = need.cpus, _gpus(need)
        if size not in self._open:
            nodes = range(len(self._free))
            self._open[size] = [*nodes], {*nodes}
        heap, held = self._open[size]
        while heap:
            free = self._free[heap[0]]
            if free[0] >= cpus and free[1] >= gpus - 1e-9:
                free[0], free[1] = free[0] - cpus, free[1] - gpus
                self._slots -= 1
                return heap[0]
            held.discard(heapq.heappop(heap))
        return None

    def leave(self, node: int, need: Resources) -> None:
        """A trial that was placed there has ended."""
        self._free[node][0] += need.cpus
        self._free[node][1] += _gpus(need)
        self._slots += 1
        for heap, held in self._open.values():
            if node not in held:
                held.add(node)
                heapq.heappush(heap, node)


@lru_cache(maxsize=64)
def _gpus(need: Resources) -> float:
    """What a trial really takes: three of 0.3 share a device, and a tenth of it stays idle."""
    return 1 / math.floor(1 / need.gpus + 1e-9) if 0 < need.gpus < 1 else need.gpus


def _copies(node: Node, need: Resources) -> int:
    gpus = _gpus(need)
    by_gpu = (node[1] + 1e-9) / gpus if gpus else math.inf
    return math.floor(min(node[0] / need.cpus, by_gpu, 1e9))


def _work_bound(
    tasks: Sequence[Task], took: Sequence[float], needs: Mapping[str, Resources], room: Room
) -> float:
    """Seconds in which CPUs, GPUs or slots, whichever takes longest, do all of their work."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for task, takes in zip(tasks, took, strict=True):
        seconds[task.phase] += takes
    work = [
        (sum(seconds[p] * needs[p].cpus for p in needs), sum(node[0] for node in room.nodes)),
        (sum(seconds[p] * _gpus(needs[p]) for p in needs), sum(node[1] for node in room.nodes)),
        (sum(seconds.values()), room.slots or math.inf),
    ]
    return max((total / there for total, there in work if total), default=0.0)


def _path_bound(tasks: Sequence[Task], took: Sequence[float]) -> float:
    ends: list[float] = []  # of each task, where nothing has to wait for room
    for task, takes in zip(tasks, took, strict=True):  # parents stand before their children
        ends.append(takes + max((ends[p] for p in task.parents), default=0.0))
    return max(ends, default=0.0)
