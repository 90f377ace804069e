"""Where a worker begins, whoever started it: a store, a trial's id, and what the driver gave it.

As a process of its own, on any machine that has the store::

    python -m nas_sweeps.sweep.worker STORE TRIAL_ID --cpus 4
"""

from __future__ import annotations

import argparse
import base64
import os
import signal
import sys
from collections.abc import Callable

from nas_sweeps.store import Result, Store
from nas_sweeps.store.lease import Watch
from nas_sweeps.sweep.executor import Given
from nas_sweeps.sweep.own_classes import unpack
from nas_sweeps.sweep.stopping import obeyed
from nas_sweeps.sweep.worker import never, run_trial
from nas_sweeps.trial import DataPaths, Resources


def run_in_worker(
    store: str,
    trial_id: str,
    resources: Resources,
    given: Given,
    stop: Callable[[], str | None] = never,
) -> Result | None:
    """Run a trial of a store in a process that is there for trials. Without a GPU it must see none.

    Args:
        stop: as ``stop_reason`` of ``run_trial``, asked beside the driver.

    Returns:
        As ``run_trial``.

    Raises:
        ValueError: the store, as it is seen here, does not hold the trial.
        OSError: the store cannot be written to.
    """
    if not resources.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    unpack(given.own)
    here = Store(store).require()
    watched = Watch(here.layout, given.driver, trial_id).stop_reason if given.driver else never
    return run_trial(
        here.spec(trial_id),
        here,
        given.places,
        resources,
        stop_reason=lambda: stop() or watched(),
        driver=given.driver,
    )


def main() -> None:
    """A worker as a process. SIGINT, SIGTERM and SIGHUP end it after the step that it is in.

    Exit code 0: what there is to say stands in the store; 1: it could not be written there; 2: the
    store, as it is seen here, holds no such trial.
    """
    parser = argparse.ArgumentParser(prog="python -m nas_sweeps.sweep.worker")
    parser.add_argument("store")
    parser.add_argument("trial_id", metavar="TRIAL_ID")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--gpus", type=float, default=0.0)
    parser.add_argument("--driver", help="as the store names it; it is obeyed, and not outlived")
    parser.add_argument("--own", default="", help="classes of the driver's script, packed")
    for place in ("path", "downloads", "cache"):
        parser.add_argument(f"--{place}")
    asked = parser.parse_args()
    came: list[str] = []
    for number in obeyed():
        signal.signal(number, lambda number, _: came.append(signal.Signals(number).name))
    given = Given(
        places=DataPaths(path=asked.path, downloads=asked.downloads, cache=asked.cache),
        driver=asked.driver,
        own=base64.b64decode(asked.own),
    )
    resources = Resources(cpus=asked.cpus, gpus=asked.gpus)
    try:
        run_in_worker(
            asked.store,
            asked.trial_id,
            resources,
            given,
            stop=lambda: f"{came[0]} came" if came else None,
        )
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        sys.exit(f"store '{asked.store}': {error}")
