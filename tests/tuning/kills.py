"""Kill a run of a tuned grid again and again, and hold its store against an undisturbed one.

    python -m tests.tuning.kills                             # the digits study, on both executors
    python -m tests.tuning.kills --executor inline --kills 5 --set tune.trials=4

Each time the run and everything below it get SIGKILL when a few more trials have ended. After the
kills the same command is typed once more. What must hold: equal proposals, winners, results and
retrains, to the last bit; no finished epoch computed twice; every study has spent its budget, and
not one proposal more.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil

import nas_sweeps as ns
from nas_sweeps.store import Store

GRID = Path(__file__).resolve().parents[2] / "experiments" / "tune_digits.yaml"
KEPT = ["trial_id", "phase", "state", "method", "variant", "recipe", "seed", "study", "role"]
RESULTS = [
    "proposal",
    "accuracy_validation",
    "accuracy_macro_validation",
    "accuracy_balanced",
    "genotype_id",
    "epochs",
]
ATTEMPT = [
    "attempt",
    "state",
    "epochs_from",
    "epochs_done",
    "pid",
    "started_at",
    "heartbeat",
    "note",
]


def main() -> int:
    ask = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    ask.add_argument("--grid", type=Path, default=GRID)
    ask.add_argument("--executor", choices=("inline", "ray"), action="append")
    ask.add_argument("--kills", type=int, default=3)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--set", dest="changes", action="append", default=[])
    said = ask.parse_args()
    draw, wrong = random.Random(said.seed), list[str]()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        reference = Path(folder, "undisturbed")
        print(f"undisturbed, inline: {_to_the_end(said, 'inline', reference):.0f} s", flush=True)
        for executor in said.executor or ("inline", "ray"):
            store = Path(folder, executor)
            for _ in range(said.kills):
                print(f"{executor}: {_killed(said, executor, store, draw)}", flush=True)
            took = _to_the_end(said, executor, store)
            found = [f"{executor}: {text}" for text in _differences(said, reference, store)]
            wrong += found
            print("\n".join(found) or f"{executor}: {took:.0f} s more, and all is the same")
    return 1 if wrong else 0


def _start(said: argparse.Namespace, executor: str, store: Path) -> subprocess.Popen[bytes]:
    changes = [part for change in said.changes for part in ("--set", change)]
    verb = ["run", str(said.grid), "--store", str(store), "--executor", executor, *changes]
    return subprocess.Popen(
        [sys.executable, "-m", "nas_sweeps", *verb],
        env=os.environ | {"RAY_worker_niceness": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _to_the_end(said: argparse.Namespace, executor: str, store: Path) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    process = _start(said, executor, store)
    _, complained = process.communicate()
    if process.returncode:
        sys.exit(f"{executor} ended with {process.returncode}: {complained.decode()}")
    return time.monotonic() - began


def _killed(said: argparse.Namespace, executor: str, store: Path, draw: random.Random) -> str:
    before, more = _ended(store), draw.randint(1, 4)
    process = _start(said, executor, store)
    while process.poll() is None and _ended(store) < before + more:
        time.sleep(0.05)
    time.sleep(draw.random())  # somewhere inside a trial, or between two
    alive = process.poll() is None
    below = [process, *psutil.Process(process.pid).children(recursive=True)] if alive else []
    for one in below:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            one.kill()
    process.communicate()
    done = f"when {_ended(store)} trials had ended"
    return f"killed {len(below)} processes {done}" if alive else "it ended before it was killed"


def _ended(store: Path) -> int:
    return len(Store(store).settled()) if store.exists() else 0


def _differences(said: argparse.Namespace, reference: Path, store: Path) -> list[str]:
    """What does not hold, in words."""
    grid, frames = ns.load_grid(said.grid, said.changes), ns.load(store)
    found = list[str]()
    try:
        pd.testing.assert_frame_equal(_told(store), _told(reference), check_exact=True)
    except AssertionError as error:
        found.append(f"the tables differ: {error}")
    each = frames.attempts.assign(epochs=frames.attempts.epochs_done - frames.attempts.epochs_from)
    computed = each.groupby("trial_id", observed=True).epochs.sum()
    planned = frames.trials.set_index("trial_id").epochs
    twice = computed[computed != planned.reindex(computed.index.astype(str)).to_numpy()]
    for trial, n in twice.items():
        attempts = frames.attempts[frames.attempts.trial_id == trial][ATTEMPT].to_string(
            index=False
        )
        found.append(f"{trial}: {n} epochs computed, of {planned[trial]}:\n{attempts}")
    for phase, tune in (("search", grid.tune), ("retrain", grid.retrain.tune)):
        trials = frames.trials[frames.trials.phase == phase]
        spent = trials[trials.proposal.notna()].groupby("study").proposal.nunique()
        found += [
            f"study {s}: {n} proposals" for s, n in spent.items() if tune and n != tune.trials
        ]
    return found


def _told(store: Path) -> pd.DataFrame:
    return ns.load(store).trials[KEPT + RESULTS].sort_values("trial_id", ignore_index=True)


if __name__ == "__main__":
    sys.exit(main())
