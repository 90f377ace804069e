"""Custom data sets: Parquet files in the Hugging Face style, and image folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nas_sweeps.data.decode import Split
from nas_sweeps.data.files import Files

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label")  # the latter in Hugging Face's copy of CIFAR-100

# Rows of one Parquet file. Equal rows take no room in a file, so a small one can hold billions;
# ImageNet-1k has 1.3 million, and all images of a set must fit in memory as it is.
MAX_ROWS = 20_000_000

Dataset = tuple[Split, Split, tuple[str, ...]]  # train, test, class names


def read_custom(files: Files) -> Dataset:
    """Both splits, undecoded, and the class names; checked as far as labels go.

    Raises:
        ValueError: one mistake, with its file and row or folder, and what to do about it.
    """
    train, test, names = _read_parquet(files) if files.layout == "parquet" else _read_folder(files)
    _check_labels(train, test, names, files.root)
    return train, test, names


def _read_parquet(files: Files) -> Dataset:
    train, test = (
        _join([_read_file(file) for file in split]) for split in (files.train, files.test)
    )
    names = _agreed_names(files.train + files.test)
    if names is None:
        highest = int(train.labels.max(initial=0))
        _check_from_zero(train, files.root)
        if highest >= len(train.labels) > 0:  # some class lacks images: do not list the classes
            present = np.unique(train.labels)
            absent = np.flatnonzero(present != np.arange(len(present)))[0]
            raise ValueError(
                f"{files.root}: labels go up to {highest} and none is {absent} in train; "
                f"number the classes from 0 without gaps"
            )
        names = tuple(str(label) for label in range(highest + 1))
    return train, test, names


def _check_from_zero(train: Split, root: Path) -> None:
    """Numbers without names that go from 1 to K. Raises ValueError."""
    present = np.unique(train.labels)
    if len(present) > 1 and np.array_equal(present, np.arange(1, len(present) + 1)):
        raise ValueError(
            f"{root}: labels begin at 1 and end at {present[-1]}; number the {len(present)} "
            f"classes from 0 to {len(present) - 1}, by subtracting 1 from each label"
        )


def _read_file(file: Path) -> Split:
    try:
        stored = pq.ParquetFile(file)
        if stored.metadata.num_rows > MAX_ROWS:
            raise ValueError(
                f"{file}: has {stored.metadata.num_rows:,} rows and at most {MAX_ROWS:,} are read; "
                f"keep fewer images"
            )
        image = _column(file, stored.schema_arrow, IMAGE_COLUMNS)
        label = _column(file, stored.schema_arrow, LABEL_COLUMNS)
        table = stored.read(columns=[image, label])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: cannot be read as Parquet ({error}); write it again") from error
    return Split(
        _image_bytes(file, table[image]),
        [f"{file} row {row}" for row in range(len(table))],
        _labels(file, table[label]),
    )


def _column(file: Path, schema: Any, choices: Sequence[str]) -> str:
    for name in choices:
        if schema.names.count(name) > 1:
            raise ValueError(f"{file}: has {schema.names.count(name)} columns '{name}'; keep one")
        if name in schema.names:
            return name
    raise ValueError(
        f"{file}: no column {' or '.join(map(repr, choices))}; "
        f"it has {', '.join(map(repr, schema.names))}: rename one, or move the file elsewhere if "
        "it is no part of the data set"
    )


def _image_bytes(file: Path, column: Any) -> list[bytes]:
    kind = column.type
    if pa.types.is_struct(kind) and "bytes" in [kind.field(i).name for i in range(kind.num_fields)]:
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise ValueError(
            f"{file}: the image column is {kind}; it must be {{bytes, path}} or binary, "
            f"each value one encoded image"
        )
    blobs: list[bytes | None] = column.to_pylist()
    for row, blob in enumerate(blobs):
        if blob is None:
            raise ValueError(f"{file} row {row}: image has no bytes; embed them or remove the row")
    return blobs  # type: ignore[return-value]


def _labels(file: Path, column: Any) -> NDArray[np.int64]:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise ValueError(f"{file}: labels are {column.type}; they must be integers from 0")
    values = np.array([np.nan if v is None else v for v in column.to_pylist()], dtype=np.float64)
    fits = (values >= 0) & (values < 2**53)  # beyond, neighbours are one and the same float
    if len(values) and (values == -1).all():
        raise ValueError(
            f"{file}: every label is -1, which stands for labels that are kept back; take a file "
            "with labels, such as the validation split renamed test"
        )
    wrong = np.flatnonzero(~fits | (values != np.floor(values)))
    if len(wrong):
        row = int(wrong[0])
        shown = "missing" if np.isnan(values[row]) else f"{values[row]:g}"
        raise ValueError(
            f"{file} row {row}: label is {shown}; labels must be integers from 0: "
            f"correct it or remove the row"
        )
    return values.astype(np.int64)


def _agreed_names(files: Sequence[Path]) -> tuple[str, ...] | None:
    """The class names of the files that have any: else label 1 may be two different classes."""
    named = [(file, names) for file in files if (names := _class_names(file)) is not None]
    for file, names in named:
        if names != named[0][1]:
            raise ValueError(
                f"{file}: its class names or their order differ from those of {named[0][0]}; "
                f"write all files with one list of names"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"{file}: two classes have one name; rename one")
    return named[0][1] if named else None


def _class_names(file: Path) -> tuple[str, ...] | None:
    """Names kept by Hugging Face's ``ClassLabel`` in the schema; None where there are none."""
    schema = pq.read_schema(file)
    stored = (schema.metadata or {}).get(b"huggingface")
    if stored is None:
        return None
    try:
        features = json.loads(stored)["info"]["features"]
        names = features[_column(file, schema, LABEL_COLUMNS)]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):  # written by another tool
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _read_folder(files: Files) -> Dataset:
    def class_of(file: Path) -> str:
        return file.relative_to(files.root).parts[1]

    names = tuple(sorted({class_of(file) for file in files.train}))
    label_of = {name: label for label, name in enumerate(names)}
    for file in files.test:
        if class_of(file) not in label_of:
            raise ValueError(f"{file.parent}: class '{class_of(file)}' has no images in train/")
    train, test = (
        Split(split, [str(f) for f in split], np.array([label_of[class_of(f)] for f in split]))
        for split in (files.train, files.test)
    )
    return train, test, names


def _join(parts: Sequence[Split]) -> Split:
    return Split(
        [blob for part in parts for blob in part.blobs],
        [place for part in parts for place in part.places],
        np.concatenate([part.labels for part in parts]),
    )


def _check_labels(train: Split, test: Split, names: Sequence[str], root: Path) -> None:
    for split, labels in (("train", train.labels), ("test", test.labels)):
        if not len(labels):
            raise ValueError(f"{root}: the {split} split has no images")
    if len(np.unique(train.labels)) < 2:
        raise ValueError(f"{root}: every training image has one class; at least 2 are needed")
    for split, part in (("train", train), ("test", test)):
        for row in np.flatnonzero(part.labels >= len(names))[:1]:
            advice = "correct it or the class names"
            if part.labels.min() == 1:
                advice = "labels begin at 1: number them from 0"
            raise ValueError(
                f"{part.places[row]}: label {part.labels[row]} in {split}, and there are "
                f"{len(names)} classes (0 to {len(names) - 1}); {advice}"
            )
        for label in sorted(set(range(len(names))) - set(part.labels.tolist())):
            raise ValueError(
                f"{root}: class '{names[label]}' (label {label}) has no images in {split}; "
                f"add some or remove the class"
            )
