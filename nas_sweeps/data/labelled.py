"""Images with labels as a data set has them, and the numbers of their classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas_sweeps.data.decode import Blobs, Split

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """A split as it was read: of each image its bytes, file or pixels, its place, its label.

    ``paths`` are names of files below the split, ``groups`` values of the column of groups; None
    where there are none.
    """

    blobs: Blobs
    places: Sequence[str]
    labels: Sequence[int] | Sequence[str]
    paths: Sequence[str | None] | None = None
    groups: Sequence[Any] | None = None

    def joined(self, other: Labelled) -> Labelled:
        """Both, one after the other. Raises ValueError where one has text labels and one not."""
        kinds = {type(part.labels[0]) for part in (self, other) if len(part.labels)}
        if len(kinds) > 1:
            raise ValueError(
                f"{other.places[0]}: labels are numbers in one file and text in another; write "
                "all files alike"
            )
        return Labelled(
            blobs=[*self.blobs, *other.blobs],
            places=[*self.places, *other.places],
            labels=[*self.labels, *other.labels],
            paths=_both(self.paths, other.paths),
            groups=_both(self.groups, other.groups),
        )


def _both(a: Sequence[Any] | None, b: Sequence[Any] | None) -> list[Any] | None:
    return None if a is None or b is None else [*a, *b]


def numbered(
    train: Labelled, test: Labelled, names: tuple[str, ...] | None, root: Path, tested: str
) -> tuple[Split, Split, tuple[str, ...]]:
    """Both splits with labels from 0, without gaps, and the names of the classes.

    Numbers with ``names`` stand for these, and a name without any image is left out. Numbers
    without names are classes called by them, in their order; texts are classes in that of the
    alphabet, but all whole numbers in theirs.

    Args:
        tested: what the test split is called, in messages.

    Raises:
        ValueError: a split without images, a class that one of them lacks, a number without a
            name, or fewer than two classes.
    """
    parts = {"train": train, tested: test}
    for split, part in parts.items():
        if not len(part.labels):
            raise ValueError(f"{root}: the {split} split has no images")
    if type(train.labels[0]) is not type(test.labels[0]):
        kinds = ("numbers" if isinstance(p.labels[0], int) else "text" for p in parts.values())
        told = " and ".join(f"{kind} in {split}" for kind, split in zip(kinds, parts, strict=True))
        raise ValueError(f"{root}: labels are {told}; write both splits alike")
    if names is not None and isinstance(train.labels[0], int):
        for split, part in parts.items():
            _check_named(split, part, names)
    there = {split: set(part.labels) for split, part in parts.items()}
    if len(there["train"]) < 2:
        raise ValueError(f"{root}: every training image has one class; at least 2 are needed")
    values = _in_order(there["train"] | there[tested])
    called = [_name(value, names) for value in values]
    for split, found in there.items():
        for value, name in zip(values, called, strict=True):
            if value not in found:
                number = f" (label {value})" if isinstance(value, int) else ""
                raise ValueError(
                    f"{root}: class '{name}'{number} has no images in {split}; add some or remove "
                    "the class"
                )
    if names is not None and len(names) > len(values):
        lacking = [name for name in names if name not in called]
        log.warning("%s: %d classes without an image: %s", root, len(lacking), ", ".join(lacking))
    number_of = {value: number for number, value in enumerate(values)}
    first, second = (
        Split(part.blobs, part.places, np.array([number_of[v] for v in part.labels], np.int64))
        for part in parts.values()
    )
    return first, second, tuple(called)


def _in_order(values: set[Any]) -> list[Any]:
    """Sorted; texts that are all whole numbers as numbers."""
    if all(isinstance(value, str) and value.isdecimal() for value in values):
        return sorted(values, key=lambda text: (int(text), text))
    return sorted(values)


def _name(value: int | str, names: tuple[str, ...] | None) -> str:
    return names[value] if names is not None and isinstance(value, int) else str(value)


def _check_named(split: str, part: Labelled, names: tuple[str, ...]) -> None:
    labels = np.asarray(part.labels)
    for row in np.flatnonzero(labels >= len(names))[:1]:
        advice = "correct it or the class names"
        if labels.min() == 1:
            advice = "labels begin at 1: number them from 0"
        raise ValueError(
            f"{part.places[row]}: label {labels[row]} in {split}, and there are "
            f"{len(names)} classes (0 to {len(names) - 1}); {advice}"
        )
