"""What the ledger says of a trial: its state and its result."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from nas_sweeps.numerics import Numerics
from nas_sweeps.tuning.stop import Pruned

# What a result's ``metrics`` may hold: each is a column of the trials table. Accuracies are
# fractions in [0, 1] on the test set unless named otherwise.
ACCURACIES = (
    "accuracy_balanced",
    "accuracy_long_tailed",
    "accuracy_long_tailed_sampled",
    "accuracy_macro",
    "accuracy_head",
    "accuracy_medium",
    "accuracy_tail",
    "macro_f1",
    "accuracy_validation",
    "accuracy_macro_validation",
    "accuracy_best",
)
COUNTS = ("epochs", "num_params", "macs")
METRICS = frozenset(ACCURACIES + COUNTS)

# Of the tables, raised when a column is new, gone, or changes its meaning; and which versions of
# compacted tables are read, ``schemas.upgrade`` making of them what it takes.
SCHEMA_VERSION = 9
READABLE = range(4, SCHEMA_VERSION + 1)


class State(enum.StrEnum):
    """How far a trial is, in the order in which states are shown.

    ``pruned`` is one that a stop rule has given up; with another rule, a run goes on with it.
    ``blocked`` is a retrain whose search failed. It has no genotype and so no folder: a plan
    can tell, a store cannot, and the store never answers it. ``cancelled`` is one that a person
    took out of a run while it worked: that run can tell, and for the next it is waiting.
    """

    DONE = "done"
    PRUNED = "pruned"
    FAILED = "failed"
    RUNNING = "running"
    WAITING = "waiting"
    BLOCKED = "blocked"
    CANCELLED = "cancelled"

    @property
    def settled(self) -> bool:
        """It has a result; a run leaves it alone unless told to retry failures."""
        return self in (State.DONE, State.PRUNED, State.FAILED)

    @property
    def label(self) -> str:
        """What tables and bars call it: a trial that waits is one that is to do."""
        return "to do" if self == State.WAITING else self.value


Ending = Literal[State.DONE, State.PRUNED, State.FAILED]  # the states that are settled, of a result


class AttemptState(enum.StrEnum):
    """How an attempt at a trial ended, if it did.

    ``stopped`` means that it was asked to end and left a checkpoint. ``lost`` is never written:
    it is what the tables call an attempt that says ``running`` and gives no sign of life.
    """

    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"
    PRUNED = "pruned"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One attempt at a trial: who, when, at what cost, and how it ended.

    ``state`` is ``running`` until the attempt says otherwise, so also of one that was killed.
    ``cost`` is this attempt's alone, up to its last sign of life: wall_s, cpu_s, gpu_hours,
    peak_mem_gib. ``epochs_from`` and ``epochs_done`` count the trial's finished epochs, before and
    after it. ``note`` says what a person should know of how it went on, such as that a checkpoint
    was damaged.
    """

    host: str | None
    pid: int | None
    started_at: str  # ISO 8601, UTC
    heartbeat: str
    state: AttemptState = AttemptState.RUNNING
    device: str | None = None
    visible_devices: str | None = None  # CUDA_VISIBLE_DEVICES as it was
    trials_before: int | None = None  # in its process, which was warm after the first
    epochs_from: int = 0
    epochs_done: int = 0
    cost: dict[str, float] = field(default_factory=dict)
    error_class: str | None = None
    error_message: str | None = None
    numerics: Numerics | None = None  # None: not recorded, or not begun to compute
    note: str | None = None

    def with_(self, **facts: Any) -> AttemptRecord:
        return replace(self, **facts)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> AttemptRecord:
        """Read back ``asdict``. Raises ``ValueError`` for what cannot be an attempt."""
        record: AttemptRecord = _adapter(cls.__name__).validate_python(value)
        for time in (record.started_at, record.heartbeat):
            if datetime.fromisoformat(time).tzinfo is None:
                raise ValueError("a time without its zone")
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a trial ended. Times are UTC in ISO 8601; ``cost`` adds up over its attempts.

    ``metrics`` are those of the last epoch (``METRICS``). ``genotype`` is ``[normal, reduce]``,
    each a list of ``[operation, source, node]``. ``genotype_facts`` says how a search read it
    off: rule, threshold, fallback_used, gaps, margins, entropies. ``cost`` has wall_s, cpu_s,
    gpu_hours, peak_mem_gib; ``versions`` has python, torch, ray, nas_sweeps. ``transient``
    failures are nobody's mistake (a lost worker, no memory, no space): another run tries again.
    ``numerics`` are those of its last attempt; ``numerics_changed`` says which of them did not stay
    the same over its attempts, empty for none, None where that was not recorded.
    """

    trial_id: str
    phase: str
    state: Ending
    started_at: str
    finished_at: str
    attempt: int
    metrics: dict[str, float] = field(default_factory=dict)
    genotype: list[Any] | None = None
    genotype_facts: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    error_class: str | None = None
    error_message: str | None = None
    traceback: str | None = None
    transient: bool = False
    host: str | None = None
    device: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    git_sha: str | None = None
    numerics: Numerics | None = None
    numerics_changed: str | None = None
    stop: Pruned | None = None  # of one that is pruned: why

    @property
    def cause(self) -> str:
        """What failures are grouped by: the class, and the message without its numbers."""
        lines = (self.error_message or "").strip().splitlines()
        text = "".join("#" if c.isdigit() else c for c in (lines[0] if lines else ""))
        return f"{self.error_class}: {text}"

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Result:
        """Read back ``asdict``; keys of a later version are left out, null numbers are NaN.

        Raises:
            ValueError: a key is missing or holds what cannot be a result.
        """
        parts = {part: _with_nan(value[part]) for part in ("metrics", "cost") if part in value}
        result: Result = _adapter(cls.__name__).validate_python(value | parts)
        for time in (result.started_at, result.finished_at):
            datetime.fromisoformat(time)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What of a result decides what runs next; the index of the tables keeps it for every trial."""

    state: State  # a settled one
    transient: bool = False
    genotype: list[Any] | None = None  # as in ``Result``
    accuracy_validation: float | None = None
    accuracy_macro_validation: float | None = None
    pruned_by: str | None = None  # the settings of the rule that did it
    curve: tuple[tuple[int, float], ...] = ()  # of one that is pruned: its measure by epoch

    @classmethod
    def of(cls, result: Result) -> Settled:
        return cls(
            state=result.state,
            transient=result.transient,
            genotype=result.genotype,
            accuracy_validation=result.metrics.get("accuracy_validation"),
            accuracy_macro_validation=result.metrics.get("accuracy_macro_validation"),
            **({} if result.stop is None else Settled.facts(result.stop)),
        )

    @staticmethod
    def facts(stop: Pruned) -> dict[str, Any]:
        """The fields of a trial that is pruned."""
        return {"pruned_by": stop.by, "curve": tuple(sorted(stop.curve.items()))}


def _with_nan(numbers: Any) -> Any:
    """Undo what JSON cannot say. Anything but a dictionary is left for validation to refuse."""
    if not isinstance(numbers, dict):
        return numbers
    return {key: math.nan if number is None else number for key, number in numbers.items()}


@lru_cache(maxsize=2)
def _adapter(name: str) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter({kind.__name__: kind for kind in (AttemptRecord, Result)}[name])
