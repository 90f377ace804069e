"""Kill a small real grid again and again, and compare what comes out with an undisturbed run.

    python -m tests.chaos --rounds 100            # a table by victim; 1 if any promise broke
    python -m tests.chaos --rounds 1 --seed 17    # one failure, replayed
    python -m tests.chaos --victims point,damage  # some kinds only
    python -m tests.chaos --fake                  # with trials that take no time to compute

A round picks a victim from its seed, disturbs one to three runs of one grid in one store, then
types the same command once more, undisturbed, and holds the store against the reference: every
planned trial done once, every (trial, epoch) once, all metrics, genotypes, alpha and final weights
bit for bit, no finished epoch computed twice, no process left. See ``VICTIMS``.

Drivers are forked from this process, which has imported everything and computed nothing, so an
inline round takes seconds.
"""

from __future__ import annotations

import argparse
import errno
import os
import pickle
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import nas_sweeps as ns
import nas_sweeps.sweep.inline
import nas_sweeps.sweep.run  # what drivers need is imported before they are forked
from nas_sweeps.publish import publish as publish_file
from nas_sweeps.store import Store, files
from nas_sweeps.store.trial_files import all_checkpoints
from nas_sweeps.sweep.checkpoint import Damaged, read
from nas_sweeps.sweep.stopping import Interrupted
from nas_sweeps.testing import fake
from tests.faked import SWITCH

GRID = {
    "name": "chaos",
    "data": {"dataset": "digits", "image_size": 8, "n_max": 8, "test_n_max": 2},
    "search": {
        "methods": ["darts", {"ssf_nas": {"barlow_dim": 8, "barlow_hidden": 8}}],
        "distributions": [{"exp": 0.4}],
        "seeds": [0],
        "recipe": {"channels": 2, "layers": 3, "epochs": 3, "batch_size": 16},
    },
    "retrain": {
        "recipe": {
            "channels": 2,
            "layers": 4,
            "epochs": 2,
            "batch_size": 16,
            "drop_path": 0.2,
            "cutout": 2,
        },
        "barlow": {"epochs": 1, "dim": 8, "hidden": 8},
    },
}
TRIALS = 4
NOT_RESULTS = ["epoch_s", "images_per_s", "peak_mem_gib"]
CLOCKS = {"elapsed_s", "trained_s", "epoch_s", "seconds"}  # in the state of a run
LIMIT_S = 300.0  # a run that takes longer hangs


# Runs in children of this process


def in_child(body: Callable[[], Any]) -> Any:
    """What ``body`` returns, computed in a fork of this process; its exceptions are raised here."""
    with tempfile.NamedTemporaryFile() as answer:
        pid = os.fork()
        if pid == 0:
            try:
                value = (True, body())
            except BaseException:
                value = (False, traceback.format_exc())
            Path(answer.name).write_bytes(pickle.dumps(value))
            os._exit(0)
        os.waitpid(pid, 0)
        good, value = pickle.loads(Path(answer.name).read_bytes())
    if not good:
        raise RuntimeError(value)
    return value


@dataclass
class Driver:
    """A run of the grid in a process of its own."""

    pid: int
    started: float = field(default_factory=time.monotonic)
    code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, limit_s: float = LIMIT_S) -> int:
        while self.poll() is None:
            if time.monotonic() - self.started > limit_s:
                self.signal(signal.SIGKILL)
                raise TimeoutError(f"a run did not end within {limit_s:.0f} s")
            time.sleep(0.01)
        assert self.code is not None
        return self.code

    def signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def start(
    store: Path,
    *,
    executor: str = "inline",
    address: str | None = None,
    prepare: Callable[[], None] = lambda: None,
) -> Driver:
    """Start ``run`` on the grid. ``prepare`` may plant a bomb in the child."""
    pid = os.fork()
    if pid:
        return Driver(pid)
    code = 70
    try:
        log = os.open(store.with_suffix(".log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["NAS_SWEEPS_CHAOS"] = str(store)
        prepare()
        summary = ns.run(
            ns.Grid.from_dict(GRID),
            store,
            executor=executor,
            address=address,
            last_resort=os._exit,
        )
        code = 0 if summary.complete else 1
    except Interrupted as stopped:
        code = stopped.exit_code
    except ValueError as error:
        print(error, flush=True)
        code = 2
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


# Bombs: what may happen inside the path of a publish

STAGES = ("before", "half", "written", "published")
_publish = files.LocalFiles.publish


def count_publishes(into: Path) -> Callable[[], None]:
    """Write down how many files a run publishes."""

    def plant() -> None:
        def counted(self: Any, key: str, data: bytes, *, durable: bool = True) -> None:
            _publish(self, key, data, durable=durable)
            with into.open("a") as file:
                file.write(f"{key}\n")

        files.LocalFiles.publish = counted  # type: ignore[method-assign]

    return plant


def die_at(number: int, stage: str) -> Callable[[], None]:
    """Kill the process in the middle of its n-th publish."""

    def plant() -> None:
        passed = 0

        def publish(self: Any, key: str, data: bytes, *, durable: bool = True) -> None:
            nonlocal passed
            passed += 1
            if passed != number:
                return _publish(self, key, data, durable=durable)
            if stage in ("half", "written"):
                with publish_file(self.path / key, durable=False) as scratch:
                    scratch.write_bytes(data[: len(data) // 2] if stage == "half" else data)
                    os.kill(os.getpid(), signal.SIGKILL)
            if stage == "published":
                _publish(self, key, data, durable=durable)
            return os.kill(os.getpid(), signal.SIGKILL)

        files.LocalFiles.publish = publish  # type: ignore[method-assign]

    return plant


def full_disk(first: int, last: int) -> Callable[[], None]:
    """No space for a stretch of publishes."""

    def plant() -> None:
        passed = 0

        def publish(self: Any, key: str, data: bytes, *, durable: bool = True) -> None:
            nonlocal passed
            passed += 1
            if first <= passed < last:
                raise OSError(errno.ENOSPC, "No space left on device", key)
            _publish(self, key, data, durable=durable)

        files.LocalFiles.publish = publish  # type: ignore[method-assign]

    return plant


# What a store holds


@dataclass
class Holding:
    """A finished store, in values that compare."""

    states: dict[str, str]
    epochs: Any  # DataFrame, as are the next three
    classes: Any
    genotypes: Any
    metrics: Any
    weights: dict[str, Any]  # by trial: the run's whole state after the last epoch; None: damaged
    computed: Counter[tuple[str, int]]  # epochs that were finished, by (trial, epoch)
    attempts: int
    warned: list[str]


def holding(store: Path) -> Holding:
    """Read a store as users do, and the last checkpoint of every trial besides."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frames = ns.load(store)
    columns = [c for c in map(str, frames.trials) if c.startswith("accuracy") or c == "macro_f1"]
    trials = frames.trials.set_index("trial_id")
    weights: dict[str, Any] = {}
    computed = Counter[tuple[str, int]]()
    for folder in sorted((store / "trials").iterdir()):
        kept = all_checkpoints(Store(store).layout.trial(folder.name))
        if kept:
            try:
                weights[folder.name] = read(kept[0]).run
            except Damaged:
                weights[folder.name] = None
        for log in folder.glob("*.log.txt"):
            for epoch in re.findall(r"INFO \w+ +(\d+)/\d+ +\| loss", log.read_text()):
                computed[folder.name, int(epoch)] += 1
    return Holding(
        states=dict(zip(frames.trials.trial_id, frames.trials.state, strict=True)),
        epochs=frames.epochs.drop(columns=NOT_RESULTS),
        classes=frames.classes,
        genotypes=frames.genotypes,
        metrics=trials[[*columns, "genotype_id", "epochs"]],
        weights=weights,
        computed=computed,
        attempts=len(frames.attempts),
        warned=[str(w.message) for w in caught],
    )


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit, through dictionaries and lists; times do not count."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        keys = set(a) - CLOCKS
        return keys == set(b) - CLOCKS and all(same(a[k], b[k]) for k in keys)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b or (a != a and b != b))


@dataclass
class Verdict:
    """What a round did, and what it broke."""

    seed: int
    victim: str
    kills: int = 0
    lost: int = 0  # rows that the reference has and the store has not
    doubled: int = 0  # rows that are there twice
    again: int = 0  # finished epochs that were computed again
    identical: bool = True
    broken: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return not self.broken

    def check(self, found: Holding, wanted: Holding, damaged: bool) -> None:
        """Hold a store against the reference. Damage may cost finished epochs, nothing else."""
        keys = ["trial_id", "epoch"]
        rows = set(map(tuple, found.epochs[keys].astype(str).values.tolist()))
        needed = set(map(tuple, wanted.epochs[keys].astype(str).values.tolist()))
        self.lost = len(needed - rows) + len(set(wanted.states) - set(found.states))
        self.doubled = len(found.epochs) - len(rows)
        self.again = sum(n - 1 for n in found.computed.values())
        for name in ("epochs", "classes", "genotypes", "metrics"):
            if not getattr(found, name).equals(getattr(wanted, name)):
                self._break(f"{name} differ")
                self.identical = False
        # What a trial that is done has left is read by later phases alone, and not written again.
        gone = {t for t, state in found.weights.items() if state is None and damaged}
        found_left, wanted_left = (
            {trial_id: state for trial_id, state in of.items() if trial_id not in gone}
            for of in (found.weights, wanted.weights)
        )
        if not same(found_left, wanted_left):
            self._break("final weights differ")
            self.identical = False
        if set(found.states.values()) != {"done"} or len(found.states) != TRIALS:
            self._break(f"states: {Counter(found.states.values())}")
        if self.lost or self.doubled:
            self._break(f"{self.lost} rows lost, {self.doubled} doubled")
        if self.again > 0 and not damaged:
            self._break(f"{self.again} finished epochs were computed again")
        # The record of an attempt that has ended is not written again: what it says is lost.
        warned = [w for w in found.warned if not (damaged and ".attempt.json'" in w)]
        if warned:
            self._break(f"load warned: {warned[0]}")

    def _break(self, what: str) -> None:
        self.broken.append(what)


def leftover(store: Path) -> list[int]:
    """Processes that a run of this store started and left."""
    mark, found = f"NAS_SWEEPS_CHAOS={store}".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if mark in (entry / "environ").read_bytes().split(b"\0") and state != "Z":
                found.append(int(entry.name))
    return found


# Victims: each disturbs one store and returns how often it killed


@dataclass
class Round:
    store: Path
    rng: random.Random
    whole_s: float  # of an undisturbed inline run
    publishes: int
    cluster: Any = None

    def moment(self) -> float:
        return self.rng.uniform(0, self.whole_s)


def kill_driver(r: Round) -> int:
    """SIGKILL at a random moment."""
    for _ in range(kills := r.rng.randint(1, 3)):
        driver = start(r.store)
        time.sleep(r.moment() / kills)
        driver.signal(signal.SIGKILL)
        driver.wait()
    return kills


def kill_at_a_point(r: Round) -> int:
    """SIGKILL inside a publish: of a checkpoint, a table, a result, a compaction, a lease."""
    for _ in range(kills := r.rng.randint(1, 3)):
        bomb = die_at(r.rng.randint(1, r.publishes), r.rng.choice(STAGES))
        start(r.store, prepare=bomb).wait()
    return kills


def stop_gently(r: Round) -> int:
    """SIGINT or SIGTERM: the exit code says which, and the process ends within ten seconds."""
    for _ in range(kills := r.rng.randint(1, 3)):
        number = r.rng.choice([signal.SIGINT, signal.SIGTERM])
        driver = start(r.store)
        # not before the handlers are there: a process that has not begun to run just dies
        time.sleep(0.3 + r.moment() / kills)
        asked = time.monotonic()
        driver.signal(number)
        code = driver.wait()
        took = time.monotonic() - asked
        assert code in (0, 128 + number), f"exit code {code} after {number!r}"
        assert took < 10, f"it took {took:.1f} s to stop"
    return kills


def start_two(r: Round) -> int:
    """A second driver while the first runs is refused; then the first is killed."""
    first = start(r.store)
    while first.poll() is None and not list(r.store.glob("drivers/*.json")):
        time.sleep(0.01)
    time.sleep(0.2)
    second = start(r.store)
    code = second.wait()
    assert code == 2 or first.poll() is not None, f"the second driver ended with {code}"
    time.sleep(r.moment())
    first.signal(signal.SIGKILL)
    first.wait()
    return 1


def fill_the_disk(r: Round) -> int:
    """No space for one or for many publishes."""
    first = r.rng.randint(1, r.publishes)
    code = start(r.store, prepare=full_disk(first, first + r.rng.choice([1, 3, 40, 10_000]))).wait()
    assert code in (0, 1, 2, 70), code
    return 1


def damage_a_file(r: Round) -> int:
    """After a kill, a file is truncated, or one of its bits flips."""
    driver = start(r.store)
    time.sleep(r.rng.uniform(0.5, 1) * r.whole_s)
    driver.signal(signal.SIGKILL)
    driver.wait()
    there = sorted(p for p in r.store.rglob("*") if p.is_file() and "log" not in p.name)
    for path in r.rng.sample(there, min(2, len(there))):
        data = bytearray(path.read_bytes())
        if data and r.rng.random() < 0.5:
            data[r.rng.randrange(len(data))] ^= 1 << r.rng.randrange(8)
        else:
            data = data[: r.rng.randrange(len(data) + 1)]
        path.write_bytes(bytes(data))
    return 1


INLINE: dict[str, Callable[[Round], int]] = {
    "driver": kill_driver,
    "point": kill_at_a_point,
    "stop": stop_gently,
    "second driver": start_two,
    "full disk": fill_the_disk,
    "damage": damage_a_file,
}


# Rounds


@dataclass
class Reference:
    holding: Holding
    whole_s: float
    publishes: int


def reference(folder: Path) -> Reference:
    """The undisturbed run that every round is held against."""
    store, log = folder / "reference", folder / "publishes"
    driver = start(store, prepare=count_publishes(log))
    assert driver.wait() == 0, store.with_suffix(".log").read_text()
    whole_s = time.monotonic() - driver.started
    found: Holding = in_child(lambda: holding(store))
    assert set(found.states.values()) == {"done"}
    assert len(found.states) == TRIALS, found.states
    assert max(found.computed.values()) == 1, "an undisturbed run computes nothing twice"
    return Reference(found, whole_s, len(log.read_text().splitlines()))


def one_round(
    folder: Path, seed: int, names: list[str], wanted: Reference, cluster: Any
) -> Verdict:
    from tests.chaos_ray import ON_RAY

    rng = random.Random(seed)
    victim = rng.choice(names)
    verdict, began = Verdict(seed, victim), time.monotonic()
    store = folder / f"round {seed}"
    r = Round(store, rng, wanted.whole_s, wanted.publishes, cluster)
    try:
        verdict.kills = ({**INLINE, **ON_RAY})[victim](r)
        last = start(store)
        code = last.wait()
        if code != 0:
            verdict.broken.append(f"the last run ended with {code}")
        verdict.check(in_child(lambda: holding(store)), wanted.holding, victim == "damage")
        deadline = time.monotonic() + 10
        while (pids := leftover(store)) and time.monotonic() < deadline:
            time.sleep(0.1)
        if pids:
            verdict.broken.append(f"processes left: {pids}")
    except (AssertionError, RuntimeError, TimeoutError) as error:
        verdict.broken.append(f"{type(error).__name__}: {error}")
    verdict.seconds = time.monotonic() - began
    if verdict.good:
        shutil.rmtree(store, ignore_errors=True)
    return verdict


def table(verdicts: list[Verdict]) -> str:
    lines = [
        "| victim | rounds | kills | lost rows | doubled rows | epochs computed again "
        "| bit-identical | broken |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups = {v.victim: [w for w in verdicts if w.victim == v.victim] for v in verdicts}
    for name, group in [*sorted(groups.items()), ("all", verdicts)]:
        numbers = [
            len(group),
            *(sum(getattr(v, k) for v in group) for k in ("kills", "lost", "doubled", "again")),
            f"{sum(v.identical for v in group)} of {len(group)}",
            sum(not v.good for v in group),
        ]
        lines.append(f"| {name} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines)


def main() -> int:
    from tests.chaos_ray import ON_RAY, cluster_for

    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the next adds 1")
    parser.add_argument("--victims", default=",".join([*INLINE, *ON_RAY]))
    parser.add_argument("--keep", type=Path, help="where stores are made, and broken ones stay")
    parser.add_argument("--fake", action="store_true", help="trials of nas_sweeps.testing.FakeRun")
    options = parser.parse_args()
    if options.fake:
        os.environ |= SWITCH | {fake.STEP_S: "0.01"}
    folder = options.keep or Path(tempfile.mkdtemp(prefix="chaos"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["NAS_SWEEPS_CACHE"] = str(folder / "cache")
    names = options.victims.split(",")
    __import__("sklearn.datasets")
    wanted = reference(folder)
    print(
        f"an undisturbed run takes {wanted.whole_s:.1f} s, {wanted.publishes} publishes; {folder}"
    )
    verdicts = []
    with cluster_for(names) as cluster:
        for seed in range(options.seed, options.seed + options.rounds):
            verdict = one_round(folder, seed, names, wanted, cluster)
            verdicts.append(verdict)
            said = "; ".join(verdict.broken) or "held"
            print(
                f"seed {seed:>4} {verdict.victim:<14} {verdict.kills} kills "
                f"{verdict.seconds:5.1f} s  {said}",
                flush=True,
            )
    print(table(verdicts))
    return 0 if all(verdict.good for verdict in verdicts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
