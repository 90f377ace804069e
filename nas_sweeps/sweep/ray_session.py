"""A Ray session, and what Ray reads when it is imported: import this before Ray."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas_sweeps.sweep.ray_token import MODE, has_token

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
    **({MODE: "token"} if has_token() and "ray" not in sys.modules else {}),
}.items():
    os.environ.setdefault(_name, _value)

from nas_sweeps.sweep.ray_places import remedy, require_home  # noqa: E402

require_home()  # importing Ray fails without one

import cloudpickle  # noqa: E402
import psutil  # noqa: E402
import ray  # noqa: E402

from nas_sweeps.cost.simulate import Room  # noqa: E402
from nas_sweeps.sweep.stopping import (  # noqa: E402
    Interrupted,
    hangup_held_back,
    kill,
    signals_kept,
)

WHERE = "this Ray cluster"


@contextlib.contextmanager
def session(address: str | None) -> Iterator[None]:
    """A Ray session: the caller's if there is one, else one that ends with the run."""
    if ray.is_initialized():
        yield
        return
    try:
        _start(address)
        yield
    finally:
        # Ray does not wait for a worker that was told to go. Taking down its heap has taken
        # one 18 s on a busy machine, with the memory (and the GPU) of the next run's trials.
        ours: list[psutil.Process] = []
        try:
            with signals_kept():
                ours = _processes() if address is None else []
                ray.shutdown()
        finally:
            kill(ours)


def _start(address: str | None) -> None:
    """Raises ValueError where there is no Ray to be had, Interrupted at a SIGTERM."""
    if "://" in (address or ""):
        raise ValueError(
            f"Ray's address {address}: Ray's client protocol is not supported; run on a "
            "node of the cluster with the address auto"
        )
    options: dict[str, Any] = {"address": address or "local"}
    if address is None:
        options["include_dashboard"] = False
    try:
        _knock(address)
        with signals_kept(), hangup_held_back():  # ray.init takes SIGTERM
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except SystemExit:  # Ray's answer to SIGTERM while it starts
        raise Interrupted(signal.SIGTERM) from None
    except Exception as error:  # Ray raises a bare Exception when a node comes up too late
        if address is None:
            raise ValueError(f"Ray did not start here ({error}): {remedy(error)}") from None
        if not isinstance(error, OSError):
            raise ValueError(
                f"Ray's address {address}: this cluster cannot be joined ({error}); give all "
                "nodes one environment"
            ) from None
        raise ValueError(
            f"Ray's address {address}: no Ray cluster answers there ({error}); "
            "a run starts on one of the cluster's nodes: start Ray here with `ray start`, or leave "
            "the address out; a cluster that asks for a token wants it here too, in "
            "~/.ray/auth_token"
        ) from None


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


def alive_nodes() -> list[dict[str, Any]]:
    """What Ray knows of each living node of the cluster."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def was_preempted(file: str | None) -> bool:
    """Whether an actor, whose death stands pickled in a file, was on a node that was taken away.

    The error itself (``ActorDiedError.preempted``) does not say it of a node that ends at SIGTERM
    before its drain's deadline has passed, as a pod's does. Ray's table of actors does (Ray 2.60).
    """
    with contextlib.suppress(Exception):  # parts of Ray that other versions need not have
        from ray._private.state import state
        from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]

        died = cloudpickle.loads(Path(file or "").read_bytes())
        found = state.get_actor_info(ray.ActorID(bytes.fromhex(died.actor_id)))
        return bool(ActorTableData.FromString(found).preempted)
    return False


def ask_for(bundles: list[dict[str, float]]) -> None:
    """Have the autoscaler keep room for so much in all, what runs included; nothing: let go."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[{k: v for k, v in each.items() if v} for each in bundles])


def room_now() -> Room:
    """What each living node has in all: nodes may join and leave."""
    nodes = [node["Resources"] for node in alive_nodes()]
    return Room(tuple((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes))
