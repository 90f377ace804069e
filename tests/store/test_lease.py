"""One driver a store; workers that notice when theirs is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from nas_sweeps.store import Store
from nas_sweeps.store import driver as driver_module
from nas_sweeps.store.driver import DEAD_S, DriverMonitor
from nas_sweeps.store.lease import Lease, StoreLocked, Watch

GONE = 2**22 + 1  # beyond Linux's largest pid


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "a store")
    store.create()
    return store


def record(lease: Lease, **fields: Any) -> None:
    """Write over a lease's record, as another process or the past would."""
    assert lease.writer is not None
    file = lease.layout.driver(lease.writer)
    file.publish_json((file.read_json() or {}) | fields)


def watch(lease: Lease) -> Watch:
    return Watch(lease.layout, lease.key, "s-1", every_s=0)


def age(lease: Lease, seconds: float) -> None:
    """Its last beat was so long ago, by the file system's clock."""
    assert lease.writer is not None
    path = Path(lease.layout.driver(lease.writer))
    then = path.stat().st_mtime_ns - int(seconds * 1e9)
    os.utime(path, ns=(then, then))


def test_the_second_driver_is_told_who_holds_the_store(store: Store) -> None:
    with Lease(store.layout, "the first grid") as first:
        with pytest.raises(StoreLocked) as refused:
            Lease(store.layout, "the second grid").__enter__()
        for part in ("the first grid", str(first._record["pid"]), "since", "heartbeat", "wait"):
            assert part in str(refused.value)
        assert first.holds()
    assert store.layout.drivers() == [], "nothing is left behind"


def test_a_dead_process_of_this_host_is_taken_over_at_once(store: Store) -> None:
    dead = Lease(store.layout, "dead")
    dead._take()
    record(dead, pid=GONE)
    with Lease(store.layout, "next") as lease:
        assert store.layout.drivers() == [lease.writer]


def test_a_silent_driver_of_another_host_is_taken_over_after_a_while(store: Store) -> None:
    silent = Lease(store.layout, "silent")
    silent._take()
    record(silent, host="elsewhere", pid=GONE)
    with pytest.raises(StoreLocked, match="elsewhere"):
        Lease(store.layout, "next").__enter__()
    age(silent, DEAD_S + 1)
    with Lease(store.layout, "next") as lease:
        assert store.layout.drivers() == [lease.writer]


def test_a_driver_that_was_thought_dead_learns_that_it_holds_nothing(store: Store) -> None:
    suspended = Lease(store.layout, "suspended")
    suspended._take()
    record(suspended, host="elsewhere", pid=GONE)
    age(suspended, DEAD_S + 1)
    with Lease(store.layout, "next") as lease:
        assert not suspended.holds()
        assert lease.holds()
        assert watch(suspended).stop_reason() == "its driver has left"


def test_of_many_that_start_at_once_at_most_one_holds(store: Store) -> None:
    """Each has listed the others' records or been listed by them."""
    held, barrier, release = [], threading.Barrier(6), threading.Event()

    def start() -> None:
        lease = Lease(Store(store.root).layout, "at once")
        barrier.wait()
        try:
            with lease:
                held.append(lease)
                release.wait()
        except StoreLocked:
            pass

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads[:]:
        thread.join(timeout=6)
    assert len(held) <= 1
    release.set()
    for thread in threads:
        thread.join()


def test_a_worker_goes_on_while_its_driver_beats_and_stops_when_asked(store: Store) -> None:
    with Lease(store.layout, "grid") as lease:
        worker = watch(lease)
        assert worker.stop_reason() is None
        lease.stop()
        lease._thread.join(timeout=0.1)
        while (why := worker.stop_reason()) is None:
            pass
        assert why == "its driver asked it to stop"
    assert watch(lease).stop_reason() == "its driver has left"


def test_one_worker_is_halted_and_the_next_of_its_trial_is_not(store: Store) -> None:
    with Lease(store.layout, "grid") as lease:
        halted, other = watch(lease), Watch(lease.layout, lease.key, "s-2", every_s=0)
        lease.tell(halted=["s-1"], paused=True)
        assert halted.stop_reason() == "its driver asked it to stop"
        assert other.stop_reason() is None
        driver = DriverMonitor(store.layout).driver()
        assert driver is not None
        assert driver.who.endswith(", paused")
        lease.tell(halted=[], paused=False)
        assert watch(lease).stop_reason() is None, "it was published before it was told"


def test_a_worker_notices_a_dead_driver_of_its_host(store: Store) -> None:
    lease = Lease(store.layout, "grid")
    lease._take()
    worker = watch(lease)
    assert worker.stop_reason() is None
    record(lease, pid=GONE)
    assert worker.stop_reason() == "its driver is dead"


def test_a_worker_notices_a_driver_that_beats_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(store.layout, "grid")
    lease._take()
    record(lease, host="elsewhere")
    worker = watch(lease)
    assert worker.stop_reason() is None
    start = driver_module.time.monotonic()
    monkeypatch.setattr(driver_module.time, "monotonic", lambda: start + DEAD_S + 1)
    assert worker.stop_reason() == "its driver is dead"


def test_a_worker_outlasts_a_file_system_that_fails_for_a_while(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lease(store.layout, "grid") as lease:
        worker = watch(lease)
        assert worker.stop_reason() is None
        kind, mtime_ns = type(store.layout.files), type(store.layout.files).mtime_ns

        def fails(self: Any, key: str) -> int:
            raise OSError("stale file handle")

        monkeypatch.setattr(kind, "mtime_ns", fails)
        assert worker.stop_reason() is None
        monkeypatch.setattr(kind, "mtime_ns", mtime_ns)
        assert worker.stop_reason() is None


def test_a_watch_looks_once_in_a_while(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease(store.layout, "grid") as lease:
        looks = []
        worker = Watch(lease.layout, lease.key, "s-1", every_s=1000)
        monkeypatch.setattr(worker, "_look", lambda: looks.append(1))
        for _ in range(5):
            worker.stop_reason()
        assert len(looks) == 1


def test_status_sees_who_runs_a_store(store: Store) -> None:
    assert DriverMonitor(store.layout).driver() is None
    with Lease(store.layout, "my grid"):
        driver = DriverMonitor(store.layout).driver()
        assert driver is not None
        assert "my grid" in driver.who


def test_a_driver_that_is_killed_leaves_a_record_that_the_next_takes_over(store: Store) -> None:
    code = (
        "import os, sys\n"
        "from nas_sweeps.store import Store\n"
        "from nas_sweeps.store.lease import Lease\n"
        "Lease(Store(sys.argv[1]).layout, 'killed').__enter__()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, store.root], check=False)
    assert len(store.layout.drivers()) == 1
    with Lease(store.layout, "next") as lease:
        assert store.layout.drivers() == [lease.writer]
