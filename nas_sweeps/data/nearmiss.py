"""What a folder without a data set may have been meant to be, for the message that says so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

_VALIDATION = re.compile(r"(val|valid|validation|dev)(?![A-Za-z])", re.IGNORECASE)
_LIKE_A_SPLIT = re.compile(r"(train|test)(ing|set|_set|-set)?(?![A-Za-z])", re.IGNORECASE)
_NAMED = 3  # so many files or folders a message names


def near_misses(root: Path, files: Sequence[Path], image_suffixes: Collection[str]) -> str:
    """What was found in place of a data set and what to do, as ``. Found: ...``; or nothing.

    Args:
        files: every file below ``root``, relative to it.
        image_suffixes: of the files that count as images.
    """
    data = [
        file for file in files if file.suffix == ".parquet" or file.suffix.lower() in image_suffixes
    ]
    inner = _inner_roots(data)
    if inner:
        places = " or ".join(str(root / folder) for folder in inner[:_NAMED])
        return f". Found: a data set one level further down; name {places} as data.path"
    said = [*_validation(data), *_otherwise_named(data), *_undivided(data)]
    if not said:
        kinds = Counter(file.suffix.lower() or "no suffix" for file in files)
        said = [f"files of {', '.join(kind for kind, _ in kinds.most_common(5))}"]
    return f". Found: {'; '.join(said)}"


def _inner_roots(data: Sequence[Path]) -> list[Path]:
    """Folders below which there are ``train/<class>/`` and ``test/<class>/``."""
    roots: dict[str, set[Path]] = {"train": set(), "test": set()}
    for file in data:
        for depth, part in enumerate(file.parts[:-2]):
            if depth and part in roots and file.suffix != ".parquet":
                roots[part].add(Path(*file.parts[:depth]))
    return sorted(roots["train"] & roots["test"])


def _validation(data: Sequence[Path]) -> list[str]:
    for file in data:
        for part in file.parts[-2:] if file.suffix == ".parquet" else file.parts[:1]:
            if _VALIDATION.match(part):
                return [
                    f"a validation split ('{part}'), which is not read: accuracies are those of a "
                    "test split, so set data.test_split: validation if this is the one to test on"
                ]
    return []


def _otherwise_named(data: Sequence[Path]) -> list[str]:
    """Splits that are nearly named as they should be: ``Train/``, ``testing.parquet``."""
    wrong: dict[str, str] = {}
    for file in data:
        for part in file.parts[-2:] if file.suffix == ".parquet" else file.parts[:-2]:
            like = _LIKE_A_SPLIT.match(part)
            if like and (like[2] or not part.startswith(like[1].lower())):
                wrong.setdefault(part, like[1].lower() + part[like.end() :])
    return [f"'{part}'; rename it '{right}'" for part, right in [*wrong.items()][:_NAMED]]


def _undivided(data: Sequence[Path]) -> list[str]:
    """Images that lie in no class folder, or in class folders without a split above them."""
    images = [file for file in data if file.suffix != ".parquet"]
    for file in images:
        if len(file.parts) == 2 and file.parts[0] in ("train", "test"):
            return [f"'{file.as_posix()}', which lies in no class folder"]
    classes = list(dict.fromkeys(file.parts[0] for file in images if len(file.parts) == 2))
    splits = [name for name in classes if _VALIDATION.match(name) or _LIKE_A_SPLIT.match(name)]
    if len(classes) > 1 and not splits:
        named = ", ".join(f"'{name}'" for name in classes[:_NAMED])
        return [
            f"folders of images ({named}{', …' if len(classes) > _NAMED else ''}); if these are "
            "classes, divide their images among train/<class>/ and test/<class>/"
        ]
    return []
