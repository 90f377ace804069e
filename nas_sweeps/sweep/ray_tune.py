"""The Ray pool: one Tuner in a thread of its own, actors that are pinned to their GPUs.

Ray Tune is a loop that asks a searcher what to run. Here the loop of ``job`` decides that: the
searcher hands on, from one queue, what the job has started, and puts into another what has ended.
Nothing is read back from Tune: how a trial ended, the store says.
"""

from __future__ import annotations

import contextlib
import io
import logging
import queue
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_sweeps.sweep.ray_session import (
    WHERE,
    alive_nodes,
    ask_for,
    room_now,
    session,
    was_preempted,
)

# isort: split
import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas_sweeps.cost.simulate import Room
from nas_sweeps.store import State, Store
from nas_sweeps.store.remote import RemoteFiles
from nas_sweeps.sweep.entry import run_in_worker
from nas_sweeps.sweep.executor import Ended, Given, Pool, Setting
from nas_sweeps.sweep.own_classes import why_not_here
from nas_sweeps.sweep.reuse import require_reusable
from nas_sweeps.trial import Resources

DIED = "died without a word: killed, out of memory, or the store cannot be written there"
TAKEN = "ended with its node, which was taken away"
ANSWER_S = 120.0  # for a node to try what a script of the user's defines
LEAVE_S = 2.0  # for Tune's loop to see that it is given up; it looks ten times a second


class GivenUp(BaseException):
    """Leaves Tune's loop without its clean-up, which waits for what runs."""


class RayPool(Pool):
    """Actors on a Ray cluster.

    Args:
        address: of a running cluster (``auto`` finds a local one); None starts one here.
        elastic: it has an autoscaler, which is asked for what is ready.
    """

    where, keeps = WHERE, True

    def __init__(self, setting: Setting, address: str | None = None, elastic: bool = False) -> None:
        self.setting, self.address, self.grows = setting, address, elastic
        self._todo: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._searcher = _Searcher(self._todo, self._told)
        self._error: BaseException | None = None
        self._stack = contextlib.ExitStack()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> RayPool:
        """Raises ValueError where Ray or a class of the user's cannot be used."""
        with self._stack as stack:
            stack.enter_context(session(self.address))
            given = self.setting.given()
            if given.own:
                _require_loadable(given.own, self.setting)
            tuner = self._tuner(_trainable(self.setting, given))
            stack.enter_context(quiet())
            self._thread = threading.Thread(target=self._fit, args=(tuner,), daemon=True)
            self._thread.start()
            stack.callback(self._leave)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._searcher.given_up = raised[0] is not None
        with contextlib.suppress(Exception):  # the cluster itself may be gone
            self.want({})
        self._stack.close()
        _remove_scratch(self.setting)

    def _leave(self) -> None:
        """Tune's loop ends: by itself where nothing runs, else at once."""
        assert self._thread is not None
        self._todo.put(None)
        self._thread.join(LEAVE_S if self._searcher.given_up else None)

    def _tuner(self, trainable: Any) -> tune.Tuner:
        return tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=self._searcher,
                scheduler=_AsTheyCame(),  # type: ignore[no-untyped-call]
                num_samples=-1,  # any number would cut the sweep short without a word
                # A new process costs seconds of imports, and of a GPU's first use. What follows a
                # trial goes to its actor where it takes as much; ``_trainable`` says what else.
                reuse_actors=True,
            ),
            run_config=_run_config(self.setting, _Listener(self._searcher)),
        )

    def _fit(self, tuner: tune.Tuner) -> None:
        try:
            tuner.fit()
        except GivenUp:
            pass
        except BaseException as error:
            self._error = error

    # The four verbs

    def room(self) -> Room:
        return room_now()

    def start(self, trial_id: str, resources: Resources) -> None:
        self._todo.put({"trial_id": trial_id, "cpus": resources.cpus, "gpus": resources.gpus})

    def ended(self, timeout_s: float) -> Sequence[Ended]:
        """Raises what ended Tune's loop, if something did."""
        assert self._thread is not None
        endings: list[Ended] = []
        if self._told.empty():
            self._searcher.heard.set()
        with contextlib.suppress(queue.Empty):
            limit = time.monotonic() + timeout_s
            while not endings or not self._told.empty():
                endings.append(self._told.get(timeout=max(0.0, limit - time.monotonic())))
        if not endings and not self._thread.is_alive():
            raise self._error or RuntimeError("Ray Tune has ended, and trials had not")
        return endings

    def want(self, needs: Mapping[Resources, int]) -> None:
        """Tell the autoscaler: this stands until the next such call, and while trials run."""
        if self.grows:
            ask_for([{"CPU": n.cpus, "GPU": n.gpus} for n, k in needs.items() for _ in range(k)])

    def stop(self) -> None:
        with contextlib.suppress(queue.Empty):
            while (config := self._todo.get_nowait()) is not None:
                self._told.put(Ended(config["trial_id"]))
        self._todo.put(None)


class _Searcher(Searcher):
    """Tells Tune what the job has started, and the job what has ended. In Tune's thread."""

    def __init__(self, todo: Any, told: Any) -> None:
        super().__init__()
        self.todo, self.told = todo, told
        self.live: dict[str, str] = {}  # our ids by Tune's
        self.heard = threading.Event()  # the job has seen all that ended
        self.given_up = self.closed = False

    def suggest(self, trial_id: str) -> Any:
        """A trial's config, None for "ask again", or FINISHED where nothing more comes."""
        if not self.closed:
            # What follows a trial that has just ended goes to its actor, which Tune would give up.
            self.heard.wait(timeout=1.0)
            try:
                # With nothing live, Tune would sleep for a second before it asks again.
                config = self.todo.get(timeout=0.001 if self.live else 0.2)
            except queue.Empty:
                return None
            if config is not None:
                self.live[trial_id] = config["trial_id"]
                return config
            self.closed = True
        return Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the job, once."""
        if not error:  # else the listener does, which knows why
            self.tell(trial_id)

    def tell(self, trial_id: str, died: str | None = None, preempted: bool = False) -> None:
        ours = self.live.pop(trial_id, None)
        if ours is not None:
            self.heard.clear()
            self.told.put(Ended(ours, died, preempted))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the truth, and Tune's restore is not used."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as for ``save``."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher when it starts."""
        return {}


class _AsTheyCame(FIFOScheduler):
    """Names no trial that is to start next: Tune then starts all of them, in their order.

    One that waits for its new process would be named. Tune gives it any process that has just got
    free, stops the one that was starting for it, and starts a third for the trial that came next:
    where trials take less time than a process to start, none ever comes up.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None, always."""


class _Listener(tune.Callback):
    """What Tune does not tell its searcher."""

    def __init__(self, searcher: _Searcher) -> None:
        self.searcher = searcher
        self._seen = 0  # of Tune's trials, which it appends to one list
        self._running: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the searcher."""
        return {}

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        if self.searcher.given_up:
            raise GivenUp

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        """Tell of actors that died. Where one would not be reset, Tune tells its searcher nothing.

        Of one whose node was taken away (``ActorDiedError.preempted``) Tune counts no failure,
        where Ray's error knows of it.
        """
        self._running |= {trial.trial_id: trial for trial in trials[self._seen :]}
        self._seen = len(trials)  # of ten thousand that have ended none is looked at again
        for trial in [t for t in self._running.values() if t.is_finished()]:
            del self._running[trial.trial_id]
            if trial.status == "ERROR":
                said = trial.run_metadata
                preempted = said.error_filename is not None and said.num_failures == 0
                preempted = preempted or was_preempted(trial.pickled_error_file)
                self.searcher.tell(trial.trial_id, TAKEN if preempted else DIED, preempted)


def _trainable(setting: Setting, given: Given) -> Any:
    """What an actor does for each trial. How it ended stands in the store when memory is looked at,
    so an actor that raises UsedUp costs its process, and the trial nothing."""
    store = setting.store.root

    def train(config: dict[str, Any]) -> None:
        resources = Resources(cpus=config["cpus"], gpus=config["gpus"])
        result = run_in_worker(store, config["trial_id"], resources, given)
        require_reusable(failed=result is not None and result.state == State.FAILED)

    def bundle(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([{"CPU": config["cpus"], "GPU": config["gpus"]}])

    return tune.with_resources(train, bundle)


def _require_loadable(packed: bytes, setting: Setting) -> None:
    """Try on every node what trials will load there. Raises ValueError where it fails."""
    task = ray.remote(num_cpus=0, max_retries=0)(why_not_here)
    answers = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(packed, setting.own)
        for node in alive_nodes()
    ]
    try:
        problems = [problem for problem in ray.get(answers, timeout=ANSWER_S) if problem]
    except Exception as error:  # whatever keeps a node from answering
        problems = [f"{str(error).strip().splitlines()[-1]}; {setting.own[0].advice}"]
    if problems:
        raise ValueError(problems[0])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Tune's table, and its warnings of files that it was told not to write."""
    log = logging.getLogger("ray.tune")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(before)


def _scratch(store: Store) -> tuple[str, RemoteFiles | None]:
    """Tune's own files: in the store, because every node has to see the same folder."""
    files = store.layout.files
    if isinstance(files, RemoteFiles):
        return f"{files.base}/.tune", files
    return str(Path(store.root).resolve() / ".tune"), None


def _remove_scratch(setting: Setting) -> None:
    """This driver's folder, and all others where no other driver works beside it."""
    path, remote = _scratch(setting.store)
    with contextlib.suppress(OSError):
        beside = {str(writer) for writer in setting.store.layout.drivers()} - {setting.driver}
        folder = f"{path}/{setting.driver}" if beside else path
        if remote is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            remote.filesystem.delete_dir(folder)


def _run_config(setting: Setting, listener: _Listener) -> tune.RunConfig:
    path, remote = _scratch(setting.store)
    return tune.RunConfig(
        name=setting.driver,  # drivers may work side by side
        storage_path=path,
        storage_filesystem=remote.filesystem if remote else None,
        failure_config=tune.FailureConfig(max_failures=0),  # the job retries itself
        callbacks=[listener],
        verbose=0,
    )
