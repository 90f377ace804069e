"""The six tables, column by column, and their way to pandas.

Readers cast to these schemas, so a file written before a column existed reads as null there and
a column that only later files have is never lost. Accuracies and recalls are fractions in
[0, 1]; times are UTC.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from nas_sweeps.store.records import ACCURACIES

TEXT = pa.string()
REPEATED = pa.dictionary(pa.int32(), pa.string())  # strings that recur over many rows
COUNT = pa.int64()
NUMBER = pa.float64()
FLAG = pa.bool_()
TIME = pa.timestamp("us", tz="UTC")


def _schema(*groups: tuple[pa.DataType, Iterable[str]]) -> pa.Schema:
    return pa.schema([(name, kind) for kind, names in groups for name in names])


TRIALS = _schema(  # one row per trial, whatever its state
    (TEXT, ["trial_id", "phase", "method", "variant", "distribution"]),
    (NUMBER, ["mu"]),
    (COUNT, ["total", "n_max", "seed"]),  # total: of uniform; n_max: of natural, of a class
    (TEXT, ["dataset", "setting"]),  # setting: recipe and data fields that are not default
    (TEXT, ["state"]),
    (COUNT, ["epochs"]),
    (NUMBER, ACCURACIES),  # accuracy_best is the best epoch's, for information
    (TEXT, ["genotype_id", "genotype_file"]),  # file: that a grid read it from
    (pa.list_(TEXT), ["parents"]),  # of a retrain: the searches that asked for it
    (TEXT, ["origins"]),  # of a retrain, or tuned: JSON list of who asked for it
    (TEXT, ["pretrain"]),  # of a retrain: none, barlow_finetune, barlow_linear
    (TEXT, ["recipe"]),  # of a retrain: the names that grids give its recipe; null: none
    (COUNT, ["search_epoch"]),  # of the search, that had its genotype; the last, if several had
    # study: that tunes knobs; role: of a trial in one, tuning or winner; null: in none
    (TEXT, ["study", "role"]),
    (COUNT, ["proposal"]),  # its number in the study; null: none
    (FLAG, ["fallback_used"]),
    (TEXT, ["discretisation_rule"]),
    (COUNT, ["num_params", "macs"]),
    (NUMBER, ["wall_s", "gpu_hours", "cpu_s", "peak_mem_gib"]),
    (COUNT, ["attempt"]),
    (TEXT, ["stop_reason", "stop"]),  # of one that is pruned: in words; rule and evidence as JSON
    (TEXT, ["error_class", "error_message"]),
    (FLAG, ["transient"]),  # a failure that another run tries again
    (TIME, ["started_at", "finished_at"]),
    (TEXT, ["host", "device"]),
    (TEXT, ["python_version", "torch_version", "ray_version", "nas_sweeps_version", "git_sha"]),
    (TEXT, ["device_kind", "device_model"]),  # with the next two rows: what decides rounding
    (COUNT, ["threads"]),
    (TEXT, ["precision", "form", "triton_version"]),
    (TEXT, ["numerics_changed"]),  # what of it was not the same throughout; null: not recorded
    (TEXT, ["spec"]),  # JSON
)

EPOCHS = _schema(  # one row per epoch; epoch counts from 1 over all stages of a trial
    (REPEATED, ["trial_id", "stage"]),  # stage: warmup, search; pretrain, finetune, train
    (COUNT, ["epoch"]),
    (NUMBER, ["loss_weights", "loss_arch", "regulariser"]),
    (NUMBER, ["accuracy_train", "accuracy_validation", "accuracy_macro_validation"]),
    (NUMBER, ["accuracy_balanced", "accuracy_long_tailed", "accuracy_macro"]),
    (NUMBER, ["lr", "arch_lr"]),
    (NUMBER, ["alpha_entropy_normal", "alpha_entropy_reduce"]),  # nats
    (NUMBER, ["margin_normal", "margin_reduce"]),
    (COUNT, ["num_skip_normal", "num_skip_reduce"]),
    (REPEATED, ["genotype_id", "genotype"]),  # genotype: JSON [normal, reduce]
    (NUMBER, ["epoch_s", "images_per_s", "peak_mem_gib"]),
)

ALPHAS = _schema(  # one row per search epoch: the weights of all operations on all edges
    (REPEATED, ["trial_id"]),
    (COUNT, ["epoch"]),
    (REPEATED, ["operations"]),  # their names in order, joined by commas
    (pa.list_(pa.float32()), ["edge_weights"]),  # cell (normal, reduce) x edge x operation
)

# A trial's own file of epochs holds both; they are two tables because few ask for the weights,
# which are ten times the size of all the rest.
EPOCH_FILE = pa.schema([*EPOCHS, *(f for f in ALPHAS if f.name not in EPOCHS.names)])

CLASSES = _schema(  # one row per trial and class, after the last epoch
    (REPEATED, ["trial_id"]),
    (COUNT, ["class_index"]),
    (REPEATED, ["class_name"]),
    (COUNT, ["train_count"]),
    (NUMBER, ["recall"]),
    (REPEATED, ["group"]),  # head, medium, tail
)

GENOTYPES = _schema(  # one row per edge of every genotype that a trial found or trained
    (TEXT, ["genotype_id", "cell"]),  # cell: normal, reduce
    (COUNT, ["node", "source"]),
    (TEXT, ["operation"]),
)

ATTEMPTS = _schema(  # one row per attempt at a trial, whatever became of it
    (REPEATED, ["trial_id"]),
    (COUNT, ["attempt"]),
    (TEXT, ["state"]),  # running, stopped (asked to), lost (died), done, pruned, failed
    (COUNT, ["epochs_from", "epochs_done"]),  # finished epochs of the trial, before and after it
    (NUMBER, ["wall_s", "cpu_s", "gpu_hours", "peak_mem_gib"]),  # its own, to its last beat
    (TEXT, ["error_class", "error_message"]),
    (TIME, ["started_at", "heartbeat"]),
    (TEXT, ["host"]),
    (COUNT, ["pid"]),
    (TEXT, ["device", "visible_devices"]),
    (COUNT, ["trials_before"]),  # in its process
    (TEXT, ["device_kind", "device_model"]),
    (COUNT, ["threads"]),
    (TEXT, ["precision", "form", "torch_version", "triton_version"]),
    (TEXT, ["note"]),  # what a person should know of how it went on
)

# What versions up to schema 4 called the two ways to compute a search on a CPU, and its form here.
FORM_OF_DEPTHWISE = {"plain": "arranged", "compiled": "compiled"}

SCHEMAS = {
    "trials": TRIALS,
    "epochs": EPOCHS,
    "classes": CLASSES,
    "genotypes": GENOTYPES,
    "attempts": ATTEMPTS,
    "alphas": ALPHAS,
}


def build(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """A table from rows; keys that a row lacks are null, keys that the schema lacks assert."""
    rows = list(rows)
    unknown = sorted({key for row in rows for key in row} - set(schema.names))
    assert not unknown, f"rows with keys that are no columns: {unknown}"
    return pa.Table.from_pylist(rows, schema=schema)


def conform(table: pa.Table, schema: pa.Schema, source: object) -> pa.Table:
    """A table read from ``source`` in the shape of ``schema``. Raises ``pa.ArrowInvalid``."""
    if table.schema.equals(schema):
        return table
    strange = sorted(set(table.column_names) - set(schema.names))
    if strange:
        warnings.warn(f"'{source}' has columns of another version: {strange}", stacklevel=2)
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


_PANDAS_TYPES = {COUNT: pd.Int64Dtype(), FLAG: pd.BooleanDtype()}


def needed_of(names: Sequence[str], held: Collection[str]) -> list[str]:
    """Which columns to read of a compacted table of any version, for ``upgrade``."""
    older = [old for new, old in _FORMERLY.items() if new in names and new not in held]
    return [name for name in [*names, *older] if name in held]


def upgrade(table: pa.Table) -> pa.Table:
    """A compacted table of an earlier version, with what it says in the words of this one."""
    if "depthwise" in table.column_names:
        said = table["depthwise"].to_pylist()
        form = pa.array([FORM_OF_DEPTHWISE.get(value or "") for value in said], TEXT)
        table = table.drop_columns(["depthwise"]).append_column("form", form)
    return table


_FORMERLY = {"form": "depthwise"}  # up to schema 4


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A table as pandas has it: nullable integers and booleans, times with their zone, recurring
    strings as categories in alphabetical order, lists as lists."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_PANDAS_TYPES.get)
    for field in table.schema:
        if pa.types.is_dictionary(field.type):
            used = frame[field.name].cat.remove_unused_categories()
            frame[field.name] = used.cat.set_categories(sorted(used.cat.categories))
        elif pa.types.is_list(field.type):
            frame[field.name] = pd.Series(table[field.name].to_pylist(), dtype=object)
    return frame
