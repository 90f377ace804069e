"""The short forms of a grid file's section ``data``, unfolded, and the way back."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from typing import Any

from nas_sweeps.grid.messages import problem, shown, unknown
from nas_sweeps.trial import GroupBy, Groups, Labels

_SHOTS = "{many: 100, few: 20}"


def groups(value: Any) -> Groups | None:
    """``rank``, ``shots``, or ``{many: 100, few: 20}`` for other bounds of ``shots``."""
    if value is None:
        return None
    if value == "rank" or value == "shots":
        return Groups(by=value)
    bounds = value if isinstance(value, dict) else {"": None}
    whole = all(type(bound) is int and bound > 0 for bound in bounds.values())
    if not bounds or not set(bounds) <= {"many", "few"} or not whole:
        raise problem(f"{shown(value)} is not known; choose from rank, shots, {_SHOTS}")
    made = Groups(by="shots", **bounds)
    if made.few > made.many + 1:
        raise problem(
            f"a class of {made.many + 1} images would be many (more than {made.many}) and few "
            f"(fewer than {made.few}); lower few"
        )
    return made


def short_groups(value: Groups | None) -> str | dict[str, int] | None:
    if value is None:
        return None
    if value.by == "rank":
        return value.by
    return {"many": value.many, "few": value.few}


def labels(value: Any) -> Labels | None:
    """``{train: a.csv, test: b.csv, image: file, label: dx}``, as ``Labels`` has its fields."""
    if value is None:
        return None
    known = [field.name for field in fields(Labels)]
    if not isinstance(value, dict) or not value:
        raise problem(
            f"{shown(value)} is not known; name label files or columns, such as {{train: a.csv, "
            "test: b.csv, image: file, label: class}"
        )
    for key, text in value.items():
        if key not in known:
            raise problem(unknown("setting", key, known))
        if text is not None and (not isinstance(text, str) or not text):
            raise problem(f"{key}: {shown(text)} is no name of a file or column")
    made = Labels(**value)
    if made.split and not (made.train or made.test):
        raise problem("split is a column of a label file: name the file as train")
    if (made.train or made.test) and not (made.split or (made.train and made.test)):
        raise problem(
            "name train and test, or one file as train and split, the column that says which"
        )
    return made


def short_labels(value: Labels | None) -> dict[str, str] | None:
    return None if value is None else {k: v for k, v in asdict(value).items() if v is not None}


def group(value: Any) -> GroupBy | None:
    """A column, or ``{pattern: REGULAR EXPRESSION}``."""
    if value is None:
        return None
    if isinstance(value, str) and value:
        return GroupBy(column=value)
    if not isinstance(value, dict) or [*value] != ["pattern"] or not value["pattern"]:
        raise problem(
            f"{shown(value)} is not known; name a column, or write {{pattern: '(\\d+)_'}} to find "
            "groups in the names of files"
        )
    try:
        re.compile(str(value["pattern"]))
    except re.error as error:
        raise problem(f"{shown(value['pattern'])} is no regular expression: {error}") from None
    return GroupBy(pattern=str(value["pattern"]))


def short_group(value: GroupBy | None) -> str | dict[str, str | None] | None:
    if value is None:
        return None
    return value.column or {"pattern": value.pattern}
