"""From one trial's files to its rows. A file that cannot be read costs its own columns only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from datetime import datetime
from math import isfinite, nan
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from nas_sweeps.phases import phase_of_id
from nas_sweeps.space.genotype import CELLS, Genotype
from nas_sweeps.store.files import File, warn_skipped
from nas_sweeps.store.layout import AttemptFiles, TrialFiles
from nas_sweeps.store.records import (
    ACCURACIES,
    COUNTS,
    AttemptRecord,
    AttemptState,
    Result,
    State,
)
from nas_sweeps.store.trial_files import (
    is_live,
    read_asked,
    read_attempt,
    read_origins,
    read_result,
    state_of,
)
from nas_sweeps.tables.checksum import read_verified
from nas_sweeps.tables.schemas import (
    ALPHAS,
    ATTEMPTS,
    CLASSES,
    EPOCH_FILE,
    EPOCHS,
    FORM_OF_DEPTHWISE,
    build,
    conform,
)
from nas_sweeps.trial import Distribution, Origin, SearchTrial, Trial

Row = dict[str, Any]
TUNING, WINNER = "tuning", "winner"  # roles of trials in a study

ATTEMPT_FACTS = (
    "epochs_from",
    "epochs_done",
    "error_class",
    "error_message",
    "host",
    "pid",
    "device",
    "visible_devices",
    "trials_before",
    "note",
)
COSTS = ("wall_s", "cpu_s", "gpu_hours", "peak_mem_gib")


NOTHING = pa.table({})


@dataclass(frozen=True)
class TrialRows:
    """Everything the tables say about one trial."""

    trial: Row
    epochs: pa.Table
    classes: pa.Table
    attempts: pa.Table
    alphas: pa.Table
    genotype: Genotype | None
    corrupt: bool  # what should be there cannot be read: rows, or what was asked

    @property
    def fixed(self) -> bool:
        """Its rows change only when a file does: nothing in them depends on when they are read."""
        return self.trial["attempt"] is None or self.trial["finished_at"] is not None

    def without_parts(self) -> TrialRows:
        """What is small: the row of the trial."""
        return replace(self, epochs=NOTHING, classes=NOTHING, attempts=NOTHING, alphas=NOTHING)


def read_trial(files: TrialFiles) -> TrialRows:
    """Read a trial in any state, also while it is being written."""
    newest = files.newest
    result = read_result(newest) if newest else None
    records = [(attempt, read_attempt(attempt)) for attempt in files.attempts]
    attempt = records[-1][1] if records else None
    asked = read_asked(files)
    spec = asked.trial if asked else None
    genotype = _genotype(files, spec, result)
    by_epoch, epochs_whole = _read_table(_epochs_file(files), EPOCH_FILE)
    epochs, alphas = by_epoch.select(EPOCHS.names), _alphas(by_epoch)
    classes, classes_whole = _read_table(newest.classes if newest and result else None, CLASSES)
    row: Row = {
        "trial_id": files.trial_id,
        "phase": spec.phase if spec else phase_of_id(files.trial_id),
        "state": state_of(result, attempt),
        "genotype_id": genotype.genotype_id if genotype else None,
        "parents": [],
        "attempt": newest.number if newest else None,
        "started_at": _time(attempt.started_at) if attempt else None,
        "finished_at": None,
        "host": attempt.host if attempt else None,
        "epochs": len(epochs),
        "accuracy_best": pc.max(epochs["accuracy_balanced"]).as_py(),
    }
    row |= _spec_columns(spec) if spec else _columns_of_unknown(files)
    if isinstance(spec, SearchTrial):
        row |= {"method": spec.method.name, "variant": asked.variant if asked else ""}
    row |= origin_columns(row["phase"], read_origins(files))
    row |= _result_columns(result) if result else {}
    attempts = [_attempt_row(of, record, of == newest) for of, record in records]
    whole = epochs_whole and classes_whole and ("spec" in row or not records)
    if result is not None and result.state == State.DONE:
        # A search that trains nothing has neither.
        trained = result.metrics.get("epochs") != 0
        whole = whole and (len(epochs) > 0 and len(classes) > 0) == trained
    return TrialRows(
        trial=row,
        epochs=epochs,
        classes=classes,
        attempts=build(attempts, ATTEMPTS),
        alphas=alphas,
        genotype=genotype,
        corrupt=not whole,
    )


def read_epochs(files: TrialFiles) -> pa.Table:
    """A trial's rows of epochs; empty, with a warning, where its file is damaged."""
    return _read_table(_epochs_file(files), EPOCH_FILE)[0]


def _epochs_file(files: TrialFiles) -> File | None:
    """The epochs of the newest attempt that has some: it goes on from what an earlier one wrote."""
    held = [attempt.epochs for attempt in files.attempts if attempt.holds(attempt.epochs)]
    return held[-1] if held else None


def _alphas(by_epoch: pa.Table) -> pa.Table:
    """Rows of the epochs that have edge weights: retrains and old searches have none."""
    return by_epoch.select(ALPHAS.names).filter(by_epoch["edge_weights"].is_valid())


def _attempt_row(files: AttemptFiles, record: AttemptRecord | None, newest: bool) -> Row:
    row: Row = {"trial_id": files.trial.trial_id, "attempt": files.number}
    if record is None:
        return row
    lost = record.state == AttemptState.RUNNING and not (newest and is_live(record))
    state = AttemptState.LOST if lost else record.state
    costs = {key: record.cost.get(key) for key in COSTS}
    times = {key: _time(getattr(record, key)) for key in ("started_at", "heartbeat")}
    facts = {key: getattr(record, key) for key in ATTEMPT_FACTS}
    numerics = record.numerics.columns() if record.numerics else {}
    return row | {"state": state} | costs | facts | times | numerics


def _read_table(file: File | None, schema: pa.Schema) -> tuple[pa.Table, bool]:
    """A trial's Parquet file in the shape of ``schema``, and False if it is there but damaged.

    Missing or damaged (with a warning) it is empty.
    """
    nothing = schema.empty_table()
    if file is None:
        return nothing, True
    try:
        table = read_verified(
            file.read(), use_threads=False
        )  # threads only cost on a file this small
        table = conform(table, schema, file)
    except FileNotFoundError:  # never written, or replaced by a later attempt's just now
        return nothing, True
    except (OSError, pa.ArrowException) as error:
        warn_skipped(file, error)
        return nothing, False
    # Rows belong to the trial whose folder they lie in, whatever they say.
    owner = pa.DictionaryArray.from_arrays(
        pa.array([0] * len(table), pa.int32()), pa.array([file.key.split("/")[1]])
    )
    return table.set_column(0, schema.field("trial_id"), owner), True


def genotype_rows(genotype: Genotype) -> Iterator[Row]:
    """Rows of the genotypes table."""
    for cell in CELLS:
        for operation, source, node in genotype.cell(cell == "reduce"):
            row = {"cell": cell, "node": node, "source": source, "operation": operation}
            yield {"genotype_id": genotype.genotype_id} | row


def setting(trial: Trial) -> str:
    """Recipe and data fields that are not default, as ``epochs=2,data.n_max=40``.

    Two results compare only if their settings are equal. Left out: seeds, and what has a column
    of its own (data set, distribution, method, how a retrain is pre-trained).
    """
    return ",".join([*_differences(trial.recipe), *_differences(trial.data, "data.")])


def _differences(value: Any, prefix: str = "") -> Iterator[str]:
    for field in fields(value):
        item: Any = getattr(value, field.name)
        default = _default(field)
        if default is MISSING or item == default or field.name.endswith(("seed", "then")):
            continue
        if not is_dataclass(item) or "__str__" in vars(type(item)):
            # Eight digits of a fingerprint tell two versions of a data set apart.
            text = str(item)[: 8 if field.name == "fingerprint" else None]
            yield f"{prefix}{field.name.rstrip('_')}={text}"
        else:
            yield from _differences(item, f"{prefix}{field.name}.")


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _genotype(files: TrialFiles, spec: Trial | None, result: Result | None) -> Genotype | None:
    """What a trial trains, or what it found."""
    trained: Genotype | None = getattr(spec, "genotype", None)
    if trained is not None:
        return trained
    if result is None or result.genotype is None:
        return None
    try:
        return Genotype.from_json(result.genotype)
    except ValueError as error:
        assert files.newest is not None, "a result without an attempt"
        warn_skipped(files.newest.result, error)
        return None


def _spec_columns(spec: Trial) -> Row:
    row = {
        **spec.distribution.columns,
        "seed": spec.seed,
        "dataset": spec.data.label,
        "setting": setting(spec),
        "spec": spec.to_json(),
    }
    if (pretrained := getattr(spec.recipe, "pretrained", None)) is not None:
        row["pretrain"] = pretrained
    return row


def _columns_of_unknown(files: TrialFiles) -> Row:
    """Columns of a trial whose phase only another package knows; none of a damaged file."""
    try:
        spec = (files.spec.read_json() or {})["spec"]
        known = Distribution(**spec["distribution"])
        columns = {"dataset": spec["data"]["label"], "seed": spec["seed"], "phase": spec["phase"]}
        return known.columns | columns | {"setting": "", "spec": json.dumps(spec, sort_keys=True)}
    except (ValueError, KeyError, TypeError):
        return {}


def origin_columns(phase: str, origins: tuple[Origin, ...]) -> Row:
    """What those who asked for a trial say of it."""
    if phase == "search":
        return _tuning_columns(origins) if origins else {}
    said = [o for o in origins if o.is_result] or origins  # a result that was also tried is one
    return {
        "method": _joined(o.method for o in said) or None,
        "variant": _joined(o.variant for o in said),
        "parents": sorted({o.search_id for o in origins if o.search_id is not None}),
        "origins": json.dumps([o.to_json() for o in origins]),
        "recipe": _joined(o.recipe for o in said) or None,
        "search_epoch": max((o.search_epoch for o in origins if o.search_epoch), default=None),
        "study": _joined(o.study for o in origins) or None,
        "genotype_file": _joined(o.file for o in origins) or None,
    } | _role(origins, any(o.is_winner and o.point is not None for o in origins))


def _tuning_columns(origins: tuple[Origin, ...]) -> Row:
    """Of a search that studies asked for; a winner's variant says that it is one, and of how many.

    One that is both a proposal and the winner is the winner.
    """
    won = [origin for origin in origins if origin.is_winner]
    columns: Row = {
        "study": _joined(o.study for o in origins) or None,
        "origins": json.dumps([origin.to_json() for origin in origins]),
    }
    columns |= _role(origins, bool(won))
    return columns | ({"variant": _joined(o.variant for o in won)} if won else {})


def _role(origins: Sequence[Origin], won: bool) -> Row:
    """What a trial is to the studies that asked for it, and the number of its proposal."""
    asked = [(o.proposal, o.point) for o in origins if not o.superseded]
    numbers = [n for both in asked for n in both if n is not None]
    tried = bool(numbers) or (bool(origins) and not asked)
    role = WINNER if won else TUNING if tried else None
    return {"role": role, "proposal": min(numbers, default=None)}


def _joined(names: Iterable[str]) -> str:
    return "+".join(sorted({name for name in names if name}))


def _result_columns(result: Result) -> Row:
    row: Row = {
        "attempt": result.attempt,
        "started_at": _time(result.started_at),
        "finished_at": _time(result.finished_at),
        "host": result.host,
        "device": result.device,
        "stop_reason": result.stop.why if result.stop else None,
        "stop": result.stop.to_json() if result.stop else None,
        "error_class": result.error_class,
        "error_message": result.error_message,
        "transient": result.transient if result.state == State.FAILED else None,
        "fallback_used": _if_a(bool, result.genotype_facts.get("fallback_used")),
        "discretisation_rule": _if_a(str, result.genotype_facts.get("rule")),
        "git_sha": result.git_sha,
    }
    row |= {k: result.metrics[k] for k in ACCURACIES if k in result.metrics}
    row |= {k: int(result.metrics[k]) for k in COUNTS if isfinite(result.metrics.get(k, nan))}
    for key in COSTS:
        row[key] = result.cost.get(key)
    for package in ("python", "torch", "ray", "nas_sweeps"):
        row[f"{package}_version"] = result.versions.get(package)
    row["numerics_changed"] = result.numerics_changed
    if result.numerics is not None:
        row |= result.numerics.columns()
    else:  # versions without numerics said this much
        row["form"] = FORM_OF_DEPTHWISE.get(result.versions.get("depthwise", ""))
    return row


def _if_a(kind: type, value: Any) -> Any:
    return value if isinstance(value, kind) else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
