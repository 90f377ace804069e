"""A large store made of numbers from a generator, and how long loading it takes.

    python -m tests.tables.large FOLDER --trials 10000 --epochs 150

writes one (once) and times ``ns.load`` in a fresh process. Its tables are written as ``compact``
writes them; its trials' folders hold files of the right names, and nothing is in them: loading
right after a compaction opens none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa

from nas_sweeps.space.genotype import EDGES, OPERATIONS
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.store import Store
from nas_sweeps.store.index import index_of
from nas_sweeps.store.records import SCHEMA_VERSION, Settled, State
from nas_sweeps.tables.checksum import with_checksum
from nas_sweeps.tables.rows import genotype_rows
from nas_sweeps.tables.schemas import SCHEMAS, build
from nas_sweeps.trial import Data, Distribution, MethodSpec, SearchRecipe, SearchTrial

METHODS = ("darts", "fairdarts", "ssf_nas")
MUS = (1.0, 0.1, 0.01)
CLASSES = 10
FILES = (
    "trial.json",
    "0001-3f9a2c.attempt.json",
    "0001-3f9a2c.0149-0123456789abcdef.checkpoint.pt",
    "0001-3f9a2c.0150-0123456789abcdef.checkpoint.pt",
    "0001-3f9a2c.epochs.parquet",
    "0001-3f9a2c.classes.parquet",
    "0001-3f9a2c.log.txt",
    "0001-3f9a2c.result.json",
)
GENOTYPE = PUBLISHED["DARTS_V1"]


def write_large(folder: Path, trials: int, epochs: int, weighed: int = 0) -> Store:
    """A compacted store of searches that are done; ``weighed`` of them have edge weights."""
    store = Store(folder)
    store.create()
    asked = sorted(_searches(trials), key=lambda trial: trial.trial_id)
    ids = [trial.trial_id for trial in asked]
    for trial_id in ids:
        place = folder / "trials" / trial_id
        place.mkdir(parents=True)
        for name in FILES:
            (place / name).touch()
    draw = np.random.default_rng(0)
    tables = {
        "trials": build(map(_trial_row, asked), SCHEMAS["trials"]),
        "epochs": _epochs(ids, epochs, draw),
        "classes": _classes(ids, draw),
        "genotypes": build(genotype_rows(GENOTYPE), SCHEMAS["genotypes"]),
        "attempts": build(map(_attempt_row, ids), SCHEMAS["attempts"]),
        "alphas": _alphas(ids[:weighed], epochs, draw),
    }
    token = uuid4().hex
    metadata = {"compaction": token, "schema": str(SCHEMA_VERSION)}
    for name, table in tables.items():
        store.layout.table(name).publish(with_checksum(table.replace_schema_metadata(metadata)))
    mtimes_ns = {files.trial_id: mtime_ns for files, mtime_ns in store.layout.trials()}
    found = [[list(edge) for edge in cell] for cell in (GENOTYPE.normal, GENOTYPE.reduce)]
    done = Settled(state=State.DONE, genotype=found, accuracy_validation=0.5)
    index = {"schema": SCHEMA_VERSION, "compaction": token, "trials": mtimes_ns}
    store.layout.index.publish_json(index | index_of(dict.fromkeys(ids, done)))
    return store


def _searches(count: int) -> Iterator[SearchTrial]:
    for i in range(count):
        seed, cell = divmod(i, len(METHODS) * len(MUS))
        yield SearchTrial(
            data=Data(dataset="cifar10", label="cifar10"),
            distribution=Distribution(kind="exp", mu=MUS[cell % len(MUS)]),
            method=MethodSpec(name=METHODS[cell // len(MUS)]),
            recipe=SearchRecipe(),
            seed=seed,
        )


def _trial_row(trial: SearchTrial) -> dict[str, Any]:
    return {
        "trial_id": trial.trial_id,
        "phase": "search",
        "method": trial.method.name,
        "variant": "",
        "distribution": trial.distribution.kind,
        "mu": trial.distribution.mu,
        "seed": trial.seed,
        "dataset": "cifar10",
        "setting": "",
        "state": "done",
        "accuracy_balanced": 0.5 + 0.001 * (trial.seed % 100),
        "genotype_id": GENOTYPE.genotype_id,
        "parents": [],
        "attempt": 1,
        "spec": trial.to_json(),
    }


def _attempt_row(trial_id: str) -> dict[str, Any]:
    return {"trial_id": trial_id, "attempt": 1, "state": "done", "host": "node1", "pid": 7}


def _owners(ids: list[str], each: int) -> pa.DictionaryArray:
    codes = pa.array(np.repeat(np.arange(len(ids), dtype=np.int32), each))
    return pa.DictionaryArray.from_arrays(codes, pa.array(ids, pa.string()))


def _repeated(values: list[str], codes: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(values))


def _epochs(ids: list[str], epochs: int, draw: np.random.Generator) -> pa.Table:
    schema, rows = SCHEMAS["epochs"], len(ids) * epochs
    columns: list[pa.Array] = []
    for field in schema:
        if field.name == "trial_id":
            columns.append(_owners(ids, epochs))
        elif field.name == "epoch":
            columns.append(pa.array(np.tile(np.arange(1, epochs + 1), len(ids))))
        elif field.name == "stage":
            columns.append(_repeated(["search"], np.zeros(rows)))
        elif field.name == "genotype":
            columns.append(_repeated([json.dumps(GENOTYPE.normal)], np.zeros(rows)))
        elif field.name == "genotype_id":
            columns.append(_repeated([GENOTYPE.genotype_id], np.zeros(rows)))
        elif pa.types.is_integer(field.type):
            columns.append(pa.array(draw.integers(0, 8, rows)))
        else:
            columns.append(pa.array(draw.random(rows)))
    return pa.Table.from_arrays(columns, schema=schema)


def _classes(ids: list[str], draw: np.random.Generator) -> pa.Table:
    index = np.tile(np.arange(CLASSES), len(ids))
    groups = ["head", "medium", "tail"]
    columns = {
        "trial_id": _owners(ids, CLASSES),
        "class_index": pa.array(index),
        "class_name": _repeated([f"class {k}" for k in range(CLASSES)], index),
        "train_count": pa.array(5000 // (index + 1)),
        "recall": pa.array(draw.random(len(index))),
        "group": _repeated(groups, index * len(groups) // CLASSES),
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["classes"])


def _alphas(ids: list[str], epochs: int, draw: np.random.Generator) -> pa.Table:
    rows, each = len(ids) * epochs, 2 * len(EDGES) * len(OPERATIONS)
    numbers = pa.array(draw.random(rows * each, dtype=np.float32))
    columns = {
        "trial_id": _owners(ids, epochs),
        "epoch": pa.array(np.tile(np.arange(1, epochs + 1), len(ids))),
        "operations": _repeated([",".join(OPERATIONS)], np.zeros(rows)),
        "edge_weights": pa.ListArray.from_arrays(np.arange(rows + 1) * each, numbers),
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["alphas"])


_TIMED = """
import sys, time
import nas_sweeps as ns
import pandas, pyarrow.compute
started, cpu = time.perf_counter(), time.process_time()
frames = ns.load(sys.argv[1])
loaded = time.perf_counter()
rows = len(frames.trials), len(frames.epochs), len(frames.classes), len(frames.attempts)
done, cpu = time.perf_counter(), time.process_time() - cpu
print(f"load {loaded - started:.2f} s, frames {done - loaded:.2f} s, CPU in all {cpu:.2f} s", rows)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--weighed", type=int, default=1_000)
    asked = parser.parse_args()
    if not Store(asked.folder).exists():
        write_large(asked.folder, asked.trials, asked.epochs, asked.weighed)
    for _ in range(3):
        subprocess.run([sys.executable, "-c", _TIMED, str(asked.folder)], check=True)


if __name__ == "__main__":
    main()
