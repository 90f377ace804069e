"""A table of a store as one file for other programs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nas_sweeps.hints import did_you_mean
from nas_sweeps.names import DISTRIBUTION
from nas_sweeps.paths import user_path
from nas_sweeps.publish import publish, require_writable
from nas_sweeps.store.ledger import Store
from nas_sweeps.tables.alphas import edge_weights
from nas_sweeps.tables.frames import Frames
from nas_sweeps.tables.reading import load
from nas_sweeps.tables.schemas import SCHEMAS

SUFFIXES = (".parquet", ".csv")
# What says which trial a row is of, put before the rows of every table that has only its id.
WHOSE = (
    *("phase", "method", "variant", *DISTRIBUTION, "seed", "dataset", "setting"),
    *("pretrain", "recipe", "search_epoch", "state"),
)


def export(store: Store | str | Path, out: str | Path, table: str = "trials") -> pd.DataFrame:
    """Write a table to ``out``, whole or not at all: Parquet or CSV by its suffix.

    Rows of epochs, classes and attempts carry what their trial is (method, distribution, mu,
    seed, …), and ``alphas`` has one row per weight. In CSV a missing value is empty, times are
    ISO 8601 in UTC, and a retrain's parents are separated by spaces.

    Returns:
        What was written.

    Raises:
        ValueError: there is no store or no such table, the suffix is another, or ``out`` cannot
            be written.
    """
    path = user_path(out)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"'{out}': name a file that ends in {' or '.join(SUFFIXES)}")
    if table not in SCHEMAS:
        hint = did_you_mean(table, SCHEMAS)
        raise ValueError(f"no table '{table}'; choose from {', '.join(SCHEMAS)}{hint}")
    keeper = store if isinstance(store, Store) else Store(store)
    if keeper.owns(path):
        raise ValueError(f"'{out}': lies among the store's own files; name another file")
    frames = load(keeper)
    require_writable(path)
    frame = exported(frames, table)
    try:
        with publish(path, durable=False) as scratch:
            if path.suffix == ".csv":
                _flat(frame).to_csv(scratch, index=False, lineterminator="\n")
            else:
                frame.to_parquet(scratch, index=False, compression="zstd")
    except OSError as error:
        raise ValueError(
            f"'{out}': cannot be written: {error.strerror or error}; name another file"
        ) from None
    return frame


def exported(frames: Frames, table: str) -> pd.DataFrame:
    """The rows that ``export`` writes."""
    frame: pd.DataFrame = edge_weights(frames) if table == "alphas" else getattr(frames, table)
    if table in ("trials", "genotypes"):
        return frame
    whose = frames.trials.set_index("trial_id")[list(WHOSE)]
    whose.columns = pd.Index([_unlike(name, frame) for name in WHOSE])
    ids = frame["trial_id"].astype(str)
    added = whose.reindex(ids).set_axis(frame.index)
    return pd.concat([frame[["trial_id"]], added, frame.drop(columns="trial_id")], axis=1)


def _unlike(name: str, frame: pd.DataFrame) -> str:
    """An attempt has a state of its own."""
    return f"trial_{name}" if name in frame else name


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    out = frame.copy()
    for name in out:
        if isinstance(out[name].dtype, pd.DatetimeTZDtype):
            out[name] = out[name].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if "parents" in out:
        out["parents"] = out["parents"].map(" ".join)
    return out
