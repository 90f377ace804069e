"""Custom data sets: Parquet files in the Hugging Face style, image folders, lists, and arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nas_sweeps.data.arrays import read_arrays
from nas_sweeps.data.decode import Split
from nas_sweeps.data.files import Files
from nas_sweeps.data.labelled import Labelled, numbered
from nas_sweeps.hints import did_you_mean
from nas_sweeps.trial import Data, GroupBy, Labels

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label")  # the latter in Hugging Face's copy of CIFAR-100

# Rows of one Parquet file. Equal rows take no room in a file, so a small one can hold billions;
# ImageNet-1k has 1.3 million, and all images of a set must fit in memory as it is.
MAX_ROWS = 20_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Custom:
    """Both splits, undecoded, with labels from 0; and which images belong together.

    ``train_groups`` numbers the groups of the training images from 0; None: they have none.
    ``shared_groups`` counts groups that have test images too.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    train_groups: NDArray[np.int64] | None = None
    shared_groups: int = 0


def read_custom(files: Files, source: Data) -> Custom:
    """Checked as far as labels go.

    Args:
        source: which columns hold images, labels and groups.

    Raises:
        ValueError: one mistake, with its file and row or folder, and what to do about it.
    """
    names: tuple[str, ...] | None = None
    match files.layout:
        case "parquet":
            columns = source.labels or Labels()
            group = source.group.column if source.group else None
            train, test = (
                _joined([_read_file(file, columns, group) for file in split])
                for split in (files.train, files.test)
            )
            names = _agreed_names(files.train + files.test, columns)
        case "folder":
            train, test = (_of_folder(files, split) for split in (files.train, files.test))
        case "list":
            train, test = (_of_list(files, split) for split in (files.train, files.test))
        case "npz":
            train, test = read_arrays(files.train[0], source.test_split)
    first, second, names = numbered(train, test, names, files.root, source.test_split)
    groups, shared = _groups(train, test, source.group, files)
    return Custom(first, second, names, groups, shared)


# Parquet


def _read_file(file: Path, columns: Labels, group: str | None) -> Labelled:
    try:
        stored = pq.ParquetFile(file)
        if stored.metadata.num_rows > MAX_ROWS:
            raise ValueError(
                f"{file}: has {stored.metadata.num_rows:,} rows and at most {MAX_ROWS:,} are read; "
                f"keep fewer images"
            )
        image = _column(file, stored.schema_arrow, columns.image, IMAGE_COLUMNS)
        label = _column(file, stored.schema_arrow, columns.label, LABEL_COLUMNS)
        more = [group] if group in stored.schema_arrow.names else []
        table = stored.read(columns=[*dict.fromkeys([image, label, *more])])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: cannot be read as Parquet ({error}); write it again") from error
    return Labelled(
        blobs=_image_bytes(file, table[image]),
        places=[f"{file} row {row}" for row in range(len(table))],
        labels=_labels(file, table[label]),
        paths=_paths(table[image]),
        groups=table[group].to_pylist() if more else None,
    )


def _column(file: Path, schema: Any, chosen: str | None, choices: Sequence[str]) -> str:
    for name in (chosen,) if chosen else choices:
        if schema.names.count(name) > 1:
            raise ValueError(f"{file}: has {schema.names.count(name)} columns '{name}'; keep one")
        if name in schema.names:
            return name
    there = ", ".join(map(repr, schema.names))
    if chosen:
        hint = did_you_mean(chosen, schema.names)
        raise ValueError(f"{file}: no column {chosen!r} (data.labels); it has {there}{hint}")
    raise ValueError(
        f"{file}: no column {' or '.join(map(repr, choices))}; it has {there}: rename one or name "
        "it in data.labels, or move the file elsewhere if it is no part of the data set"
    )


def _image_bytes(file: Path, column: Any) -> list[bytes]:
    kind = column.type
    if pa.types.is_struct(kind) and "bytes" in _fields(kind):
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


def _paths(column: Any) -> list[str | None] | None:
    """What images were called before they were put into the file, where it says so."""
    if not (pa.types.is_struct(column.type) and "path" in _fields(column.type)):
        return None
    paths: list[str | None] = pc.struct_field(column, "path").to_pylist()
    return paths


def _fields(kind: Any) -> list[str]:
    return [kind.field(i).name for i in range(kind.num_fields)]


def _labels(file: Path, column: Any) -> list[int] | list[str]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = column.to_pylist()
        for row, text in enumerate(texts):
            if not text:
                raise ValueError(
                    f"{file} row {row}: label is missing; correct it or remove the row"
                )
        return texts  # type: ignore[no-any-return]
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ValueError(f"{file}: labels are {kind}; they must be integers from 0, or text")
    values = np.array([np.nan if v is None else v for v in column.to_pylist()], dtype=np.float64)
    fits = (values >= 0) & (values < 2**53)  # beyond, neighbours are one and the same float
    if len(values) and (values == -1).all():
        raise ValueError(
            f"{file}: every label is -1, which stands for labels that are kept back; take a file "
            "with labels, such as the validation split by data.test_split: validation"
        )
    wrong = np.flatnonzero(~fits | (values != np.floor(values)))
    if len(wrong):
        row = int(wrong[0])
        shown = "missing" if np.isnan(values[row]) else f"{values[row]:g}"
        raise ValueError(
            f"{file} row {row}: label is {shown}; labels must be integers from 0: "
            f"correct it or remove the row"
        )
    return values.astype(np.int64).tolist()  # type: ignore[no-any-return]


def _agreed_names(files: Sequence[Path], columns: Labels) -> tuple[str, ...] | None:
    """The class names of the files that have any: else label 1 may be two different classes."""
    found = ((file, _class_names(file, columns)) for file in files)
    named = [(file, names) for file, names in found if names is not None]
    for file, names in named:
        if names != named[0][1]:
            raise ValueError(
                f"{file}: its class names or their order differ from those of {named[0][0]}; "
                f"write all files with one list of names"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"{file}: two classes have one name; rename one")
    return named[0][1] if named else None


def _class_names(file: Path, columns: Labels) -> tuple[str, ...] | None:
    """Names kept by Hugging Face's ``ClassLabel`` in the schema; None where there are none."""
    schema = pq.read_schema(file)
    stored = (schema.metadata or {}).get(b"huggingface")
    if stored is None:
        return None
    try:
        features = json.loads(stored)["info"]["features"]
        names = features[_column(file, schema, columns.label, LABEL_COLUMNS)]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):  # written by another tool
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _joined(parts: Sequence[Labelled]) -> Labelled:
    first, *rest = parts
    for part in rest:
        first = first.joined(part)
    return first


# Files


def _of_folder(files: Files, split: Sequence[Path]) -> Labelled:
    """Labels are the names of folders."""
    parts = [file.relative_to(files.root).parts for file in split]
    return Labelled(
        blobs=split,
        places=[str(file) for file in split],
        labels=[part[1] for part in parts],
        paths=[PurePosixPath(*part[1:]).as_posix() for part in parts],
    )


def _of_list(files: Files, split: Sequence[Path]) -> Labelled:
    """Labels are those of label files: numbers where all of them are, else text."""
    texts = [files.rows[file][files.label_column].strip() for file in split]
    return Labelled(
        blobs=split,
        places=[str(file) for file in split],
        labels=texts,
        paths=[file.relative_to(files.root).as_posix() for file in split],
    )


# Groups


def _groups(
    train: Labelled, test: Labelled, by: GroupBy | None, files: Files
) -> tuple[NDArray[np.int64] | None, int]:
    """Numbers of the training images' groups, and how many of them have test images."""
    if by is None:
        return None, 0
    ours = _group_names(train, by, files, files.train)
    number_of = {name: number for number, name in enumerate(dict.fromkeys(ours))}
    try:
        theirs = set(_group_names(test, by, files, files.test))
    except ValueError:  # images that are only tested need no group
        theirs = set()
    return np.array([number_of[name] for name in ours]), len(theirs & set(number_of))


def _group_names(part: Labelled, by: GroupBy, files: Files, split: Sequence[Path]) -> list[str]:
    """Raises ValueError."""
    if by.pattern is not None:
        return [_found(by.pattern, path) for path in _required_paths(part, files)]
    assert by.column is not None, "one of them is given"
    found: Sequence[Any] | None
    if files.layout == "list":
        there = [*files.rows[split[0]]]
        found = [files.rows[file].get(by.column) for file in split] if by.column in there else None
    else:
        there, found = [], part.groups
    if found is None:
        its = f"; it has {', '.join(map(repr, there))}" if there else ""
        raise ValueError(
            f"{files.root}: has no column {by.column!r} for data.group{its}; name one, or write "
            "{pattern: …} to find groups in the names of files"
        )
    for place, value in zip(part.places, found, strict=True):
        if value is None or value == "":
            raise ValueError(f"{place}: has no {by.column!r}, its group; fill it in")
    return [str(value) for value in found]


def _required_paths(part: Labelled, files: Files) -> list[str]:
    paths = part.paths or []
    if not paths or None in paths:
        raise ValueError(
            f"{files.root}: its images have no file names in which data.group could find a pattern"
        )
    return [str(path) for path in paths]


def _found(pattern: str, path: str) -> str:
    match = re.search(pattern, path)
    if match is None:
        raise ValueError(
            f"data.group: the pattern {pattern!r} finds nothing in '{path}'; correct it"
        )
    return "\0".join(part or "" for part in match.groups()) if match.re.groups else match[0]
