"""The weights of operations on edges, by search epoch, as tidy frames."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from nas_sweeps.space.genotype import CELLS, EDGES
from nas_sweeps.tables.frames import Frames, require_columns


def edge_weights(frames: Frames) -> pd.DataFrame:
    """What each operation weighs on each edge of the supernet's cells after each search epoch.

    Weights are those that the network is computed with: after softmax (DARTS) or sigmoid
    (FairDARTS, SSF-NAS). Searches of versions before this table have no rows.

    Returns:
        Columns trial_id, epoch, cell (normal, reduce), node (2 to 5), source, operation, weight.
        Rows are in the order of the trials, their epochs, and then as the columns are.
    """
    found = [
        _tidy(epochs, weights_NCEO, operations, EDGES)
        for epochs, weights_NCEO, operations in _groups(frames.alphas)
    ]
    columns = ["trial_id", "epoch", "cell", "node", "source", "operation", "weight"]
    return _joined(found, columns)


def operation_weights(frames: Frames) -> pd.DataFrame:
    """The weight of each operation, averaged over the 14 edges of a cell, by search epoch.

    Returns:
        Columns trial_id, epoch, cell (normal, reduce), operation, weight.

    >>> import nas_sweeps as ns
    >>> weights = operation_weights(ns.load("runs/quickstart", filters=[("method", "=", "darts")]))
    >>> skips = weights.query("cell == 'normal' and operation == 'skip_connect'")
    >>> skips.groupby("epoch").weight.mean()
    epoch
    1    0.1875
    2    0.3125
    Name: weight, dtype: float64
    """
    found = [
        _tidy(epochs, weights_NCEO.mean(2, keepdims=True), operations, ((None, None),))
        for epochs, weights_NCEO, operations in _groups(frames.alphas)
    ]
    return _joined(found, ["trial_id", "epoch", "cell", "operation", "weight"])


Group = tuple[pd.DataFrame, np.ndarray, list[str]]


def _groups(alphas: pd.DataFrame) -> Iterator[Group]:
    """Epochs whose methods offer the same operations, with weights by cell, edge, operation."""
    require_columns(alphas, "alphas", "epoch", "operations", "edge_weights")
    for names, rows in alphas.groupby("operations", observed=True, sort=False):
        operations = str(names).split(",")
        flat = np.array(rows["edge_weights"].tolist(), dtype=np.float64)
        yield rows, flat.reshape(-1, len(CELLS), len(EDGES), len(operations)), operations


def _tidy(
    epochs: pd.DataFrame,
    weights_NCEO: np.ndarray,
    operations: list[str],
    edges: tuple[tuple[int | None, int | None], ...],
) -> pd.DataFrame:
    """A row for every number: N epochs, C cells, E edges, O operations."""
    n, each = len(epochs), len(CELLS) * len(edges) * len(operations)
    inner = len(edges) * len(operations)
    source, node = zip(*edges, strict=True)
    return pd.DataFrame(
        {
            "trial_id": np.repeat(epochs["trial_id"].astype(str).to_numpy(), each),
            "epoch": np.repeat(epochs["epoch"].to_numpy(dtype=np.int64), each),
            "cell": np.tile(np.repeat(CELLS, inner), n),
            "node": np.tile(np.repeat(node, len(operations)), n * len(CELLS)),
            "source": np.tile(np.repeat(source, len(operations)), n * len(CELLS)),
            "operation": np.tile(operations, n * len(CELLS) * len(edges)),
            "weight": weights_NCEO.ravel(),
        }
    )


def _joined(found: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    if not found:
        return pd.DataFrame(columns=columns)
    whole = pd.concat(found, ignore_index=True)[columns]
    return whole.sort_values(["trial_id", "epoch"], kind="stable", ignore_index=True)
