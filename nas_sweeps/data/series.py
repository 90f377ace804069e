"""Whether the Parquet files of a split are all there, and there once, as far as names tell."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

_SHARD = re.compile(r"(?P<series>.*?)-(?P<index>\d{5})-of-(?P<total>\d{5})(?:-.*)?")
_NUMBER = re.compile(r"\d{4,5}")
_NAMED = 3  # so many files a message names


def check_series(root: Path, split: str, files: Sequence[Path]) -> None:
    """Raises ValueError where images are missing or are there twice, as far as names tell."""
    folders = list(dict.fromkeys(file.parent.as_posix() for file in files))
    if len(folders) > 1:
        raise ValueError(
            f"data path {root}: Parquet files of {split} lie in {len(folders)} folders "
            f"({_listed(folders)}), which may hold the same images; name the folder of one data "
            "set as data.path, or put all files of the split into one folder"
        )
    where = root / folders[0]
    shards: dict[str, list[tuple[int, int | None, str]]] = defaultdict(list)
    for file in files:
        shard = _SHARD.fullmatch(file.stem)
        if shard:
            index, total = int(shard["index"]), int(shard["total"])
            shards[shard["series"]].append((index, total, file.name))
        elif _NUMBER.fullmatch(file.stem):
            shards[""].append((int(file.stem), None, file.name))
    names = {file.name for file in files}
    for series, found in shards.items():
        if f"{series}.parquet" in names:
            raise ValueError(
                f"{where}: '{series}.parquet' and '{found[0][2]}' may hold the same images; keep "
                "the one file or its parts"
            )
        _check_numbers(where, series, found)


def _check_numbers(where: Path, series: str, found: Sequence[tuple[int, int | None, str]]) -> None:
    """``found``: of each file its number, how many there should be if its name says so, its name.

    Raises ValueError.
    """
    totals = {total for _, total, _ in found}
    by_index: dict[int, str] = {}
    for index, _, name in found:
        if index in by_index or len(totals) > 1:
            other = by_index.get(index, found[0][2] if name != found[0][2] else found[-1][2])
            raise ValueError(
                f"{where}: '{other}' and '{name}' are parts of two copies of one split; keep the "
                "files of one copy"
            )
        by_index[index] = name
    (told,) = totals
    total = max(by_index) + 1 if told is None else told
    missing = sorted(set(range(total)) - set(by_index))
    if missing:
        names = [
            f"{index:0{len(Path(found[0][2]).stem)}}.parquet"
            if told is None
            else f"{series}-{index:05}-of-{total:05}"
            for index in missing
        ]
        raise ValueError(
            f"{where}: {len(missing)} of {total} Parquet files missing: {_listed(names)}; the "
            "download may have stopped: fetch the rest"
        )


def _listed(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + more
