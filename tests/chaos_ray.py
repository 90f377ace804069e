"""Victims of ``tests.chaos`` that live on Ray: workers, sessions and nodes of a local cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.chaos import Driver, Round


@dataclass
class Cluster:
    """Two nodes of one CPU each on this machine, in a process of their own."""

    address: str
    ask: Connection
    pid: int  # of the keeper, which is an ancestor of every process of the cluster

    def fell(self) -> None:
        """Kill the second node with everything on it."""
        self._do("fell")

    def raise_up(self) -> None:
        """A second node again."""
        self._do("raise")

    def _do(self, what: str) -> None:
        self.ask.send(what)
        assert self.ask.recv() == "done"


@contextmanager
def cluster_for(names: Iterable[str]) -> Iterator[Cluster | None]:
    """A cluster for the victims that need one."""
    if not set(names) & (set(ON_RAY) - {"session"}):
        yield None
        return
    here, there = multiprocessing.Pipe()
    keeper = multiprocessing.get_context("spawn").Process(target=_keep, args=(there,))
    keeper.start()
    try:
        assert keeper.pid is not None
        yield Cluster(here.recv(), here, keeper.pid)
    finally:
        here.send("end")
        keeper.join(timeout=60)


def _keep(line: Connection) -> None:
    os.environ.update({"RAY_worker_niceness": "0"})  # else a busy machine starts workers in minutes
    from nas_sweeps.sweep import ray_tune  # noqa: F401  sets what Ray reads when it is imported

    from ray.cluster_utils import Cluster as RayCluster  # isort: skip

    cluster = RayCluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    line.send(cluster.address)
    while (what := line.recv()) != "end":
        if what == "fell":
            cluster.remove_node(second, allow_graceful=False)
        else:
            second = cluster.add_node(num_cpus=1)
        line.send("done")
    cluster.shutdown()  # type: ignore[no-untyped-call]


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and command line of every process."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            found[int(entry.name)] = parent, command
    return found


def _workers(cluster: Cluster) -> list[int]:
    """Actors of the cluster that run trials."""
    below = _descendants(cluster.pid)
    return [pid for pid, command in below.items() if command.startswith("ray::ImplicitFunc")]


def _descendants(pid: int) -> dict[int, str]:
    """Command lines of all processes that a process started, and that these started."""
    there, found = _processes(), [pid]
    for one in found:
        found += [child for child, (parent, _) in there.items() if parent == one]
    return {child: there[child][1] for child in found[1:]}


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _begin(r: Round) -> Driver:
    """A driver on the cluster, at a random moment after its first worker has begun a trial."""
    from tests.chaos import start

    driver = start(r.store, executor="ray", address=r.cluster.address)
    limit = time.monotonic() + 60
    while driver.poll() is None and not list(r.store.glob("trials/*/*.attempt.json")):
        assert time.monotonic() < limit, "no trial began within a minute"
        time.sleep(0.02)
    time.sleep(r.moment())
    return driver


def kill_ray_driver(r: Round) -> int:
    """The driver alone; its orphans live for seconds more, beside the run that follows."""
    driver = _begin(r)
    driver.signal(signal.SIGKILL)
    driver.wait()
    return 1


def kill_a_worker(r: Round) -> int:
    """One worker; the run itself must go on and end well."""
    return _kill_workers(r, lambda pids: [r.rng.choice(pids)])


def kill_all_workers(r: Round) -> int:
    return _kill_workers(r, lambda pids: pids)


def _kill_workers(r: Round, pick: Callable[[list[int]], list[int]]) -> int:
    driver, killed = _begin(r), 0
    for _ in range(r.rng.randint(1, 2)):
        pids = _workers(r.cluster)
        if pids:
            chosen = pick(pids)
            _kill(chosen)
            killed += len(chosen)
        time.sleep(r.moment() / 2)
    code = driver.wait()
    assert code == 0, f"the run itself ended with {code}"
    return killed


def kill_a_node(r: Round) -> int:
    """A node with what runs on it; another joins, and the run itself ends well."""
    driver = _begin(r)
    r.cluster.fell()
    time.sleep(r.moment() / 4)
    r.cluster.raise_up()
    code = driver.wait()
    assert code == 0, f"the run itself ended with {code}"
    return 1


def kill_a_session(r: Round) -> int:
    """A session of the driver's own, whole: raylet, control store and workers, then the driver."""
    from tests.chaos import start

    driver = start(r.store, executor="ray")
    limit = time.monotonic() + 90
    while driver.poll() is None and not list(r.store.glob("trials/*/*.attempt.json")):
        assert time.monotonic() < limit, "no trial began in time"
        time.sleep(0.02)
    time.sleep(r.moment())
    pids = _descendants(driver.pid)
    _kill(pids)
    time.sleep(r.rng.uniform(0, 1))
    driver.signal(signal.SIGKILL)
    driver.wait()
    return len(pids)


def stop_ray(r: Round) -> int:
    """SIGINT or SIGTERM to a driver with workers on a cluster."""
    driver: Any = _begin(r)
    number = r.rng.choice([signal.SIGINT, signal.SIGTERM])
    asked = time.monotonic()
    driver.signal(number)
    code = driver.wait()
    took = time.monotonic() - asked
    assert code in (0, 128 + number), f"exit code {code} after {number!r}"
    assert took < 10, f"it took {took:.1f} s to stop"
    return 1


ON_RAY: dict[str, Callable[[Round], int]] = {
    "ray driver": kill_ray_driver,
    "worker": kill_a_worker,
    "all workers": kill_all_workers,
    "node": kill_a_node,
    "session": kill_a_session,
    "ray stop": stop_ray,
}
