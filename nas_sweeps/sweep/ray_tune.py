"""The Ray executor: one Tuner, a thin searcher around the chain, one actor a trial.

Ray Tune decides where and when; the chain decides what; the worker owns the results. Nothing is
read back from Tune: a settled trial is looked up in the store.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def auth_mode() -> dict[str, str]:
    """Show the token of a cluster where there is one: `ray start` asks for it since Ray 2.59, and
    who names an address shows none unless told to. A cluster without a token does not mind."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    there = named or os.path.exists(os.path.expanduser("~/.ray/auth_token"))
    return {"RAY_AUTH_MODE": "token"} if there else {}


# Read by Ray when it is imported, hence before. `uv run` would otherwise ship the working
# directory to every worker and build an environment there; auto-loggers write five files a trial.
for _name, _value in {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # see ``stopping``
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # the searcher itself never asks for more than fits
    "RAY_memory_monitor_refresh_ms": "0",  # its kills abort Tune's loop; the kernel's do not
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own snapshot is never read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ray that was imported before has made up its mind, and its daemons have to agree with it.
    **({} if "ray" in sys.modules else auth_mode()),
}.items():
    os.environ.setdefault(_name, _value)

from nas_sweeps.sweep.ray_places import remedy, require_home  # noqa: E402

require_home()  # importing Ray fails without one

import psutil  # noqa: E402
import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from nas_sweeps.chain import PHASES  # noqa: E402
from nas_sweeps.cost.simulate import Room  # noqa: E402
from nas_sweeps.store import Store  # noqa: E402
from nas_sweeps.store.lease import Watch  # noqa: E402
from nas_sweeps.store.remote import RemoteFiles  # noqa: E402
from nas_sweeps.sweep.executor import Job  # noqa: E402
from nas_sweeps.sweep.own_methods import pack, require_unpacked, unpack  # noqa: E402
from nas_sweeps.sweep.stopping import Interrupted, kill, signals_kept  # noqa: E402
from nas_sweeps.trial import Places, Resources, Trial, trial_from_json  # noqa: E402

DIED = "died without a word: killed, out of memory, or the store cannot be written there"


class RayExecutor:
    """Trials as actors on a Ray cluster, each pinned to its GPUs.

    Args:
        address: of a running cluster (``auto`` finds a local one); None starts one here.
        slots: at most so many trials at once; None: as many as the cluster's resources hold.
    """

    def __init__(self, address: str | None = None, slots: int | None = None) -> None:
        self.address, self.slots = address, slots

    def run(self, job: Job) -> None:
        """Raises ValueError when no node could ever hold a trial."""
        with self.session():
            for phase in job.phases:
                require_room(phase, job.resources(phase))
            nodes = [(n.get("CPU", 0.0), n.get("GPU", 0.0)) for n in _node_resources()]
            job.begin(Room(tuple(nodes), self.slots))
            own = pack(job.chain)
            require_unpacked(own, job.chain, [node["NodeID"] for node in alive_nodes()])
            searcher = ChainSearcher(job, self.slots)
            with quiet():
                tune.Tuner(
                    _trainable(job, own),
                    tune_config=tune.TuneConfig(
                        search_alg=searcher,
                        num_samples=-1,  # any number would cut the chain short without a word
                        # A new process costs seconds of imports. One that held a GPU is not
                        # used again: its memory would be the next trial's loss.
                        reuse_actors=not any(job.resources(phase).gpus for phase in job.phases),
                    ),
                    run_config=_run_config(job, searcher),
                ).fit()
            _remove_scratch(job.store)
            if searcher.error is not None:
                raise searcher.error

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """A Ray session: the caller's if there is one, else one that ends with the run."""
        if ray.is_initialized():
            yield
            return
        try:
            self._start()
            yield
        finally:
            # Ray does not wait for a worker that was told to go. Taking down its heap has taken
            # one 18 s on a busy machine, with the memory (and the GPU) of the next run's trials.
            ours: list[psutil.Process] = []
            try:
                with signals_kept():
                    ours = _processes() if self.address is None else []
                    ray.shutdown()
            finally:
                kill(ours)

    def _start(self) -> None:
        """Raises ValueError where there is no Ray to be had, Interrupted at a SIGTERM."""
        if "://" in (self.address or ""):
            raise ValueError(
                f"--address {self.address}: Ray's client protocol is not supported; run on a "
                "node of the cluster with --address auto"
            )
        options: dict[str, Any] = {"address": self.address or "local"}
        if self.address is None:
            options["include_dashboard"] = False
        try:
            _knock(self.address)
            with signals_kept():  # ray.init takes SIGTERM
                ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
        except SystemExit:  # Ray's answer to SIGTERM while it starts
            raise Interrupted(signal.SIGTERM) from None
        except Exception as error:  # Ray raises a bare Exception when a node comes up too late
            if self.address is None:
                raise ValueError(f"Ray did not start here ({error}): {remedy(error)}") from None
            if not isinstance(error, OSError):
                raise ValueError(
                    f"--address {self.address}: this cluster cannot be joined ({error}); give all "
                    "nodes one environment"
                ) from None
            raise ValueError(
                f"--address {self.address}: no Ray cluster answers there ({error}); "
                "start one with `ray start --head`, or leave --address out; a cluster that asks "
                "for a token wants it here too, in ~/.ray/auth_token"
            ) from None


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


def _processes() -> list[psutil.Process]:
    """The raylet that this process has started, and all that it has started in turn."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name() == "raylet":
                found += [child, *child.children(recursive=True)]
    return found


def _knock(address: str | None) -> None:
    """Raises OSError where nobody listens: Ray itself tries for minutes."""
    host, _, port = (address or "").partition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def require_room(phase: str, resources: Resources) -> None:
    """Refuse at once what would otherwise wait for ever.

    Raises:
        ValueError: when no node of the cluster has the GPUs and CPUs of one trial.
    """
    nodes = _node_resources()
    most_gpus = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
    if resources.gpus > most_gpus:
        raise ValueError(
            f"{phase}.resources.gpus: {resources.gpus:g} asked for one trial, but no node of this "
            f"Ray cluster has more than {most_gpus:g}; use --set {phase}.resources.gpus=0 to run "
            "on the CPU, or --address to name a cluster that has GPUs"
        )
    if not any(
        node.get("CPU", 0.0) >= resources.cpus and node.get("GPU", 0.0) >= resources.gpus
        for node in nodes
    ):
        raise ValueError(
            f"{phase}.resources.cpus: no node of this Ray cluster has {resources.cpus} CPUs "
            f"beside {resources.gpus:g} GPUs; use --set {phase}.resources.cpus=1"
        )


class ChainSearcher(Searcher):
    """Hands Tune the chain's ready trials, never more than the cluster holds.

    With nothing queued, every freed slot asks again, and retrains go before new searches.
    An exception in a hook would abort Tune's loop without a word: it is kept for the driver,
    and no new trial is started.
    """

    def __init__(self, job: Job, slots: int | None) -> None:
        super().__init__()
        self.job, self.slots = job, slots
        self.live: dict[str, Trial] = {}  # by Tune's id
        self.error: BaseException | None = None

    def suggest(self, trial_id: str) -> Any:
        """A trial's config, None for "ask again", or FINISHED when none can follow."""
        try:
            trial = self._next()
        except Exception as error:
            self.error, trial = error, None
        if trial is not None:
            self.live[trial_id] = trial
            return {"trial": trial.to_json(), "phase": trial.phase}
        # FINISHED latches: never while anything is left that could still start.
        over = self.error is not None or self.job.over
        return Searcher.FINISHED if over and not self.live else None

    def _next(self) -> Trial | None:
        phase = self.job.next_phase
        if self.error is not None or phase is None or not self._room(self.job.resources(phase)):
            return None
        work = self.job.hand_out()
        return work.trial if work is not None else None

    def _room(self, new: Resources) -> bool:
        """Whether a trial fits on a node beside the live ones, placed in the order they came."""
        if self.slots is not None and len(self.live) >= self.slots:
            return False
        nodes = [[n.get("CPU", 0.0), n.get("GPU", 0.0)] for n in _node_resources()]
        for need in [*(self.job.resources(t.phase) for t in self.live.values()), new]:
            fits = (n for n in nodes if n[0] >= need.cpus and n[1] >= need.gpus - 1e-9)
            node = next(fits, None)
            if node is None:
                return False
            node[0], node[1] = node[0] - need.cpus, node[1] - need.gpus
        return True

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Settle the chain from what the worker published."""
        trial = self.live.pop(trial_id, None)
        if trial is None:
            return
        try:
            self.job.ended(trial, DIED if error else None)
        except Exception as problem:
            self.error = self.error or problem

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the truth, and Tune's restore is not used."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as for ``save``."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing again: Tune pickles its searcher when it starts."""
        return {}


class _Lost(tune.Callback):
    """Tells the searcher of trials that Tune does not tell it of."""

    def __init__(self, searcher: ChainSearcher) -> None:
        self.searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the searcher."""
        return {}

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        """A trial whose actor would not be reset ends without Tune telling its searcher."""
        for trial in [t for t in trials if t.status == "ERROR"]:
            self.searcher.on_trial_complete(trial.trial_id, error=True)


def _trainable(job: Job, own: bytes) -> Any:
    store, places, driver = job.store.root, job.places, job.lease.key
    by_phase = {phase: job.resources(phase) for phase in PHASES}

    def train(config: dict[str, Any]) -> None:
        resources = by_phase[config["phase"]]
        run_in_actor(config["trial"], store, places, resources, driver, own)

    def bundle(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        resources = by_phase[config["phase"]]
        return tune.PlacementGroupFactory([{"CPU": resources.cpus, "GPU": resources.gpus}])

    return tune.with_resources(train, bundle)


def run_in_actor(
    spec: str,
    store: str,
    places: Places,
    resources: Resources,
    driver: str,
    own: bytes = b"",
) -> None:
    """The body of an actor. A trial without a GPU must not see those of its node."""
    if not resources.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from nas_sweeps.sweep.worker import run_trial

    unpack(own)
    trial, here = trial_from_json(spec), Store(store)
    here.spec(trial.trial_id)  # raises where the store is not the driver's
    run_trial(trial, here, places, resources, verdict=Watch(here.layout, driver).verdict)


def alive_nodes() -> list[dict[str, Any]]:
    """What Ray knows of each living node of the cluster."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def _node_resources() -> list[dict[str, float]]:
    """What each living node has in all."""
    return [node["Resources"] for node in alive_nodes()]


def _scratch(store: Store) -> tuple[str, RemoteFiles | None]:
    """Tune's own files: in the store, because every node has to see the same folder."""
    files = store.layout.files
    if isinstance(files, RemoteFiles):
        return f"{files.base}/.tune", files
    return str(Path(store.root).resolve() / ".tune"), None


def _remove_scratch(store: Store) -> None:
    path, remote = _scratch(store)
    if remote is None:
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            remote.filesystem.delete_dir(path)


def _run_config(job: Job, searcher: ChainSearcher) -> tune.RunConfig:
    path, remote = _scratch(job.store)
    return tune.RunConfig(
        name=datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f"),
        storage_path=path,
        storage_filesystem=remote.filesystem if remote else None,
        failure_config=tune.FailureConfig(max_failures=0),  # the job retries itself
        callbacks=[_Lost(searcher)],
        verbose=0,
    )
