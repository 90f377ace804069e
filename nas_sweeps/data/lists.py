"""Label files beside a folder of images: CSV, and text with a path and a label a line. Torch-free.

A CSV may name images as people do: by their path, or by their name alone, with or without its
suffix (``ISIC_0027419`` for ``part_2/ISIC_0027419.jpg``), as long as one image is meant.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nas_sweeps.hints import did_you_mean
from nas_sweeps.trial import Labels

# Columns that hold an image's name, or its label, where nobody says which: compared in lower case.
IMAGE_COLUMNS = ("image", "img", "file", "filename", "file_name", "path", "filepath", "image_path")
LABEL_COLUMNS = ("label", "class", "target", "category")
_TEXT = (".txt", ".lst", ".list")
_TRAIN, _TEST = ("train", "training"), ("test", "testing")
_VALIDATION = ("val", "valid", "validation", "dev")
_NAMED = 3  # so many images a message names

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Listed:
    """What label files say: a row of columns for each image, in their order.

    ``label`` is the column of the label. ``unlisted`` counts rows of another split.
    """

    label: str
    train: dict[Path, Row]
    test: dict[Path, Row]
    files: tuple[Path, ...]
    unlisted: int = 0


def read_lists(root: Path, labels: Labels, images: Sequence[Path], test_split: str) -> Listed:
    """The images that label files name.

    Args:
        root: the folder of the data set, to which everything is relative.
        images: every image file below it, relative.
        test_split: ``test`` or ``validation``, the rows to test on where a column says the split.

    Raises:
        ValueError: a file or column is missing, an image is missing, not the only one of its name
            or listed twice, or has no label; with the place and what to do.
    """
    by_name = _by_name(images)
    first, columns = _table(root, labels.train or labels.test or "", labels)
    if labels.split is None:
        if not (labels.train and labels.test):
            raise ValueError(
                f"{root}: data.labels needs train and test, or one file and split, the column that "
                "says which images are which"
            )
        second, others = _table(root, labels.test, labels)
        train, test = _named(root, first, columns, by_name), _named(root, second, others, by_name)
        return Listed(columns[1], train, _renamed(test, others, columns), _files(root, labels))
    parts: dict[str, list[tuple[str, Row]]] = {"train": [], "test": [], "": []}
    column = _column(root, labels.split, (), [*(first[0][1] if first else {})], "split")
    tested = _TEST if test_split == "test" else _VALIDATION
    for place, row in first:
        said = row[column].strip().lower()
        parts["train" if said in _TRAIN else "test" if said in tested else ""].append((place, row))
    train = _named(root, parts["train"], columns, by_name)
    test = _named(root, parts["test"], columns, by_name)
    for split, found in (("train", train), (test_split, test)):
        if not found:
            raise ValueError(f"{root}: no row of '{column}' says {split}; correct data.labels")
    return Listed(columns[1], train, test, _files(root, labels), len(parts[""]))


def _files(root: Path, labels: Labels) -> tuple[Path, ...]:
    return tuple(root / name for name in dict.fromkeys((labels.train, labels.test)) if name)


def _table(root: Path, name: str, labels: Labels) -> tuple[list[tuple[str, Row]], tuple[str, str]]:
    """Rows of a file with their places, and its columns of image and label."""
    file = root / name
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            if file.suffix.lower() in _TEXT:
                return list(_lines(file, stream)), ("path", "label")
            rows = csv.DictReader(stream, dialect=_dialect(stream.read(4096)))
            stream.seek(0)
            found = [(f"{file} line {rows.line_num}", row) for row in rows]
            headings = [*(rows.fieldnames or ())]
    except OSError as error:
        raise ValueError(
            f"{file}: cannot be read ({error.strerror}); correct data.labels"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file}: is no CSV in UTF-8 ({error}); write it again") from None
    for place, row in found:
        if None in row or None in row.values():
            raise ValueError(f"{place}: has another number of fields than the heading; correct it")
    image = _column(file, labels.image, IMAGE_COLUMNS, headings, "image")
    return found, (image, _column(file, labels.label, LABEL_COLUMNS, headings, "label"))


def _dialect(beginning: str) -> type[csv.Dialect]:
    """Commas, semicolons or tabs, whichever the heading has most of."""
    heading = beginning.split("\n", 1)[0]
    return type("_Dialect", (csv.excel,), {"delimiter": max(",;\t", key=heading.count)})


def _lines(file: Path, stream: Iterator[str]) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" " if " " in line.strip() else "\t")
        if not path:
            raise ValueError(f"{file} line {number}: no path and label apart; write `path label`")
        yield f"{file} line {number}", {"path": path.strip(), "label": label}


def _column(
    where: Path, chosen: str | None, usual: Sequence[str], there: Sequence[str], what: str
) -> str:
    if chosen is not None:
        if chosen in there:
            return chosen
        hint = did_you_mean(chosen, there)
        raise ValueError(
            f"{where}: no column {chosen!r} (data.labels.{what}); it has "
            f"{', '.join(map(repr, there))}{hint}"
        )
    for name in usual:
        for heading in there:
            if heading.strip().lower() == name:
                return heading
    raise ValueError(
        f"{where}: which column is the {what}? it has {', '.join(map(repr, there))}; name one as "
        f"data.labels.{what}"
    )


def _by_name(images: Sequence[Path]) -> Mapping[str, list[Path]]:
    """Images by path and by name, each with and without suffix."""
    found: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        path = PurePosixPath(image.as_posix())
        for name in {str(path), str(path.with_suffix("")), path.name, path.stem}:
            found[name].append(image)
    return found


def _named(
    root: Path,
    rows: Sequence[tuple[str, Row]],
    columns: tuple[str, str],
    by_name: Mapping[str, list[Path]],
) -> dict[Path, Row]:
    """The row of each image. Raises ValueError."""
    found: dict[Path, Row] = {}
    missing: list[str] = []
    for place, row in rows:
        name = row[columns[0]].strip()
        meant = by_name.get(str(PurePosixPath(name)), [])
        exact = [image for image in meant if image.as_posix() == name]
        if not meant:
            missing.append(name)
            continue
        if len(meant) > 1 and not exact:
            raise ValueError(
                f"{place}: {name!r} may be '{meant[0].as_posix()}' or '{meant[1].as_posix()}'; "
                "write its path"
            )
        image = root / (exact or meant)[0]
        if image in found:
            raise ValueError(f"{place}: {name!r} is listed twice; keep one line of it")
        if not row[columns[1]].strip():
            raise ValueError(f"{place}: {name!r} has no label; correct it or remove the line")
        found[image] = row
    if missing:
        named = ", ".join(map(repr, missing[:_NAMED])) + ", …" * (len(missing) > _NAMED)
        raise ValueError(
            f"{root}: {len(missing):,} of {len(rows):,} listed images are not there: {named}; "
            "bring them, or remove their lines"
        )
    return found


def _renamed(
    rows: dict[Path, Row], own: tuple[str, str], wanted: tuple[str, str]
) -> dict[Path, Row]:
    """Rows of a file that calls the label otherwise, as the first file calls it."""
    if own[1] == wanted[1]:
        return rows
    return {image: row | {wanted[1]: row[own[1]]} for image, row in rows.items()}


def columns_of(rows: Collection[Row]) -> list[str]:
    """The names of the columns."""
    return [*next(iter(rows), {})]
