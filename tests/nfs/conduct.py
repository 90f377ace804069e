"""What tests/nfs/try.sh shows: the ledger's rules with two hosts that mount one folder by NFS.

    python -m tests.nfs.conduct ADDRESS [PART ...]

Guests ``g1`` and ``g2`` connect to the address. Every line is a promise of README's "when it
dies", and what was measured.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from multiprocessing.connection import Connection, Listener
from statistics import median
from typing import Any

from nas_sweeps.store.driver import DEAD_S
from tests.nfs import guest

SOON_S = 0.3  # until then a call has reached both guests
PATIENCE_S = 90.0  # longer than any attribute cache lasts


class Guest:
    def __init__(self, connection: Connection, address: str) -> None:
        self.connection, self.address = connection, address

    def ask(self, call: Any, *arguments: Any) -> None:
        self.connection.send((call.__name__, arguments))

    def answer(self) -> Any:
        answer = self.connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __call__(self, call: Any, *arguments: Any) -> Any:
        self.ask(call, *arguments)
        return self.answer()


def both(guests: list[Guest], call: Any, *arguments: Any) -> list[Any]:
    """The answers to a call that both get before either has answered."""
    for each in guests:
        each.ask(call, *arguments)
    return [each.answer() for each in guests]


def leases(guests: list[Guest], rounds: int) -> None:
    guests[0](guest.make, "leases")
    won: Counter[int] = Counter()
    for _ in range(rounds):
        spans = both(guests, guest.contend, "leases", time.time() + SOON_S, 1.0)
        held = sorted(span for span in spans if span is not None)
        assert held, "nobody got the store"
        assert len(held) == 1 or held[0][1] <= held[1][0], f"two drivers at once: {held}"
        won.update(i for i, span in enumerate(spans) if span == held[0])
    print(f"leases: {rounds} contests, exactly one driver at a time; first were {dict(won)}")


def attempts(guests: list[Guest], rounds: int) -> None:
    won: Counter[str] = Counter()
    contests = 0
    for number in range(rounds):
        name = f"attempts-{number}"
        trial_id = guests[number % 2](guest.make, name)
        settled = False
        while not settled:  # where each overtook the other, a driver hands the trial out again
            contests += 1
            at = time.time() + SOON_S
            told = both(guests, guest.attempt, name, trial_id, at, at + 0.2)
            settled = any(thinks for _, thinks in told)
        for each in guests:
            each(guest.see, name, trial_id, PATIENCE_S)
        seen = both(guests, guest.whose, name, trial_id)
        assert seen[0] == seen[1], f"the guests see different results: {seen} of {told}"
        (winner,) = (i for i, (writer, _) in enumerate(told) if writer == seen[0])
        won[f"g{winner + 1}"] += 1
    print(
        f"attempts: {rounds} trials claimed by two workers at once, in {contests} contests: one "
        f"result each, the same for both guests; it was of {dict(won)}"
    )


def sight(guests: list[Guest], rounds: int, look: Any, what: str) -> None:
    """How long a guest that looks again and again does not see what the other has published."""
    delays = []
    for number in range(rounds):
        name = f"{look.__name__}-{number}"
        trial_id = guests[0](guest.make, name)
        assert guests[1](guest.whose, name, trial_id) is None  # it has a listing to remember
        guests[1].ask(look, name, trial_id, PATIENCE_S)
        at = time.time() + SOON_S + number % 4
        delays.append(-guests[0](guest.settle, name, trial_id, at) + guests[1].answer())
    print(
        f"{what} is seen by the other guest after {max(0.0, median(delays)):.1f} s (median of "
        f"{rounds}), {max(0.0, *delays):.1f} s at most"
    )


def watched(guests: list[Guest]) -> None:
    driver, worker = guests
    trial_id = driver(guest.make, "watched")
    key = driver(guest.drive, "watched")
    why, _ = worker(guest.watch, "watched", key, trial_id, 1.5 * DEAD_S)
    assert why is None, f"a worker left a driver that lives: {why}"
    worker.ask(guest.watch, "watched", key, trial_id, 2 * DEAD_S)
    time.sleep(3)
    asked = driver(guest.stop_workers, "watched")
    why, when = worker.answer()
    assert why == "its driver asked it to stop", why
    driver(guest.leave, "watched")
    print(
        f"watched: a driver that beats is not thought dead for {1.5 * DEAD_S:.0f} s; a stop is "
        f"seen after {when - asked:.1f} s"
    )


def sweeps(guests: list[Guest]) -> None:
    driver, workers = guests
    workers(guest.serve, workers.address)
    began = time.time()
    complete, rows = driver(guest.sweep, "sweep", workers.address)
    assert complete
    for row in rows:
        print("   ", *row)
    trials = {trial_id for trial_id, _, _ in rows}
    assert sorted(trial_id for trial_id, state, _ in rows if state == "done") == sorted(trials)
    print(
        f"sweep: {len(trials)} real trials done once, in {len(rows)} attempts, "
        f"{time.time() - began:.0f} s; the driver on one guest, workers on the other"
    )


def taken_over(guests: list[Guest]) -> None:
    driver, other = guests
    driver(guest.make, "taken")
    driver(guest.drive, "taken")
    driver.ask(guest.die)
    died = time.time()
    when, refused = other(guest.take_over, "taken", 3 * DEAD_S)
    assert refused > 0
    assert when - died < DEAD_S + 40
    print(
        f"taken over: a dead driver's store is another's after {when - died:.0f} s "
        f"({refused} refusals)"
    )


PARTS = {
    "leases": lambda guests: leases(guests, 50),
    "attempts": lambda guests: attempts(guests, 50),
    "results": lambda guests: sight(guests, 12, guest.see, "a result"),
    "folders": lambda guests: sight(
        guests, 6, guest.stamped, "a change of a trial's folder, in a listing of the whole store,"
    ),
    "watched": watched,
    "sweep": sweeps,
    "taken": taken_over,  # the last: a guest dies
}


def main(address: str, *parts: str) -> None:
    with Listener((address, guest.PORT), authkey=guest.KEY) as listener:
        found: dict[str, Guest] = {}
        while len(found) < 2:
            connection = listener.accept()
            name, at = connection.recv()
            found[name] = Guest(connection, at)
    for part in parts or PARTS:
        PARTS[part]([found["g1"], found["g2"]])


if __name__ == "__main__":
    main(*sys.argv[1:])
