"""One host of tests/nfs/try.sh: does what the conductor asks, on its own mount of the store.

    python -m tests.nfs.guest CONDUCTOR_ADDRESS NAME ADDRESS

A call is a function of this module and its arguments. Guests have one clock, that of the machine
which they are processes of, so "at once" is an instant (seconds since 1970) a little later.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path
from typing import Any

import nas_sweeps as ns
from nas_sweeps.cost.simulate import Room
from nas_sweeps.store import Result, State, Store
from nas_sweeps.store.lease import Lease, StoreLocked, Watch
from nas_sweeps.store.ledger import AlreadyDone
from nas_sweeps.sweep.executor import Ended, Executor, Pool, Setting
from nas_sweeps.sweep.run import run
from nas_sweeps.trial import Resources, SearchTrial

MOUNT = Path("/mnt")
PORT = 6543  # of the conductor, and of the guest that starts workers for another
KEY = b"nas_sweeps"
GRID = {
    "name": "nfs",
    "data": {"dataset": "digits", "image_size": 8, "n_max": 10, "test_n_max": 3},
    "search": {
        "methods": ["darts", "fairdarts"],
        "distributions": [{"exp": 0.4}],
        "recipe": {"channels": 2, "layers": 3, "epochs": 2, "batch_size": 8},
    },
    "retrain": {"recipe": {"channels": 2, "layers": 3, "epochs": 3, "batch_size": 8}},
}
_held: dict[str, Lease] = {}


def store(name: str) -> Store:
    return Store(MOUNT / name)


# A driver's hold on a store


def make(name: str) -> str:
    """A store with one trial, whose id is returned."""
    made = store(name)
    made.create()
    trial = next(
        trial for trial in ns.plan(ns.Grid.from_dict(GRID)) if isinstance(trial, SearchTrial)
    )
    made.register(trial)
    return trial.trial_id


def contend(name: str, at: float, hold_s: float) -> tuple[float, float] | None:
    """Take the lease at an instant and hold it for a while: from when till when, or None."""
    _sleep_until(at)
    try:
        with Lease(store(name).layout, "contest"):
            began = time.time()
            time.sleep(hold_s)
            ended = time.time()
        return began, ended
    except StoreLocked:
        return None


def drive(name: str) -> str:
    """Hold a lease until ``leave``. Its key."""
    _held[name] = Lease(store(name).layout, "drive")
    return _held[name].__enter__().key


def stop_workers(name: str) -> float:
    """Ask workers to stop. When."""
    _held[name].stop()
    return time.time()


def leave(name: str) -> None:
    _held.pop(name).__exit__(None, None, None)


def watch(name: str, key: str, trial_id: str, for_s: float) -> tuple[str | None, float]:
    """Ask, as a worker does between steps, whether to stop: why, and when, at the latest now."""
    watched = Watch(store(name).layout, key, trial_id)
    until = time.time() + for_s
    while (why := watched.stop_reason()) is None and time.time() < until:
        time.sleep(0.1)
    return why, time.time()


def take_over(name: str, for_s: float) -> tuple[float, int]:
    """Try, as a person would, until the lease is free: when, and after how many refusals."""
    refused, until = 0, time.time() + for_s
    while time.time() < until:
        try:
            with Lease(store(name).layout, "successor"):
                return time.time(), refused
        except StoreLocked:
            refused += 1
            time.sleep(1)
    raise TimeoutError(f"not taken over in {for_s} s")


# Attempts at a trial


def attempt(name: str, trial_id: str, at: float, settle_at: float) -> tuple[str, bool]:
    """Begin an attempt at an instant, and settle it at another: its name, and whether it thinks
    that it did. It does not where the trial is done, or where another attempt overtook it, which
    also takes away what it had half written."""
    ledger = store(name)
    _sleep_until(at)
    try:
        mine = ledger.begin(trial_id)
    except (AlreadyDone, FileNotFoundError):
        return "", False
    _sleep_until(settle_at)
    result = Result(
        trial_id=trial_id,
        phase="search",
        state=State.DONE,
        started_at=_now(),
        finished_at=_now(),
        attempt=mine.number,
        error_message=str(mine.writer),  # by which a reader knows whose it is
    )
    try:
        return str(mine.writer), mine.finish(result)
    except FileNotFoundError:
        return str(mine.writer), False


def whose(name: str, trial_id: str) -> str | None:
    """The name of the attempt whose result speaks for the trial, as it is seen here and now."""
    found = store(name).result(trial_id)
    return None if found is None else found.error_message


def see(name: str, trial_id: str, for_s: float) -> float:
    """Look every 20 ms, as a driver may, until the trial has a result. When it was seen."""
    ledger, until = store(name), time.time() + for_s
    while ledger.result(trial_id) is None:
        if time.time() > until:
            raise TimeoutError(f"a result was not seen in {for_s} s")
        time.sleep(0.02)
    return time.time()


def stamped(name: str, trial_id: str, for_s: float) -> float:
    """Look until the time of the trial's folder is another one, by which a listing of the whole
    store knows what to read again. When."""
    files = store(name).layout.files
    before, until = files.tree("trials")[trial_id].mtime_ns, time.time() + for_s
    while files.tree("trials", {trial_id: before})[trial_id].mtime_ns == before:
        if time.time() > until:
            raise TimeoutError(f"a change of a folder was not seen in {for_s} s")
        time.sleep(0.02)
    return time.time()


def settle(name: str, trial_id: str, at: float) -> float:
    """Begin and finish an attempt. When it was published."""
    attempt(name, trial_id, at, at)
    return time.time()


# A run whose workers are on another host


def serve(address: str) -> None:
    """From now on, start what a driver elsewhere asks for, one process a connection."""
    listener = Listener((address, PORT), authkey=KEY)

    def work(connection: Connection) -> None:
        with suppress(EOFError, OSError), connection:
            done = subprocess.run(connection.recv(), check=False, capture_output=True, text=True)
            print(done.stderr, file=sys.stderr)
            connection.send(done.returncode)

    def accept() -> None:
        while True:
            threading.Thread(target=work, args=[listener.accept()], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


class ThereOnly(Pool):
    """Workers on another guest, so that driver and workers share nothing but the mounts."""

    def __init__(self, setting: Setting, address: str) -> None:
        self.setting, self.address = setting, address
        self._running: dict[Connection, str] = {}

    def room(self) -> Room:
        return Room(((64.0, 0.0),), slots=2)

    def start(self, trial_id: str, resources: Resources) -> None:
        connection = Client((self.address, PORT), authkey=KEY)
        connection.send(self.setting.command(trial_id, resources))
        self._running[connection] = trial_id

    def ended(self, timeout_s: float) -> Sequence[Ended]:
        found = []
        for connection in wait(list(self._running), timeout_s):
            assert isinstance(connection, Connection)
            code = connection.recv()
            trial_id = self._running.pop(connection)
            found.append(Ended(trial_id, f"left with {code}" if code else None))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class There(Executor):
    address: str

    def pool(self, setting: Setting) -> Pool:
        return ThereOnly(setting, self.address)


def sweep(name: str, address: str) -> tuple[bool, list[tuple[str, str, str]]]:
    """Run the grid with workers at an address: whether all is done, and its attempts."""
    done = run(ns.Grid.from_dict(GRID), MOUNT / name, executor=There(address=address))
    attempts = ns.load(str(MOUNT / name)).attempts.sort_values(["trial_id", "attempt"])
    rows = attempts[["trial_id", "state", "host"]].itertuples(index=False, name=None)
    return done.complete, [tuple(row) for row in rows]


# The guest


def die() -> None:
    os._exit(1)


def _now() -> str:
    from nas_sweeps.store.trial_files import now

    return now()


def _sleep_until(at: float) -> None:
    while (left := at - time.time()) > 0:
        time.sleep(left if left < 0.01 else left - 0.005)


def main(conductor: str, name: str, address: str) -> None:
    with Client((conductor, PORT), authkey=KEY) as connection:
        connection.send((name, address))
        while True:
            call, arguments = connection.recv()
            answer: Any
            try:
                answer = globals()[call](*arguments)
            except Exception as error:
                answer = error
            connection.send(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
