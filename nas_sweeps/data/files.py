"""Which files make up a custom data set. Torch-free.

Two layouts are read:

- Parquet files, anywhere under the folder: those whose name begins with the word ``train`` or
  ``test`` (``data/train-00000-of-00002.parquet``), and those in a folder of that name
  (``default/train/0000.parquet``, the Hugging Face hub's conversion). All files of a split lie in
  one folder, and none of a numbered series may be missing.
- Image folders: ``train/<class>/...`` and ``test/<class>/...``.

Hidden files and what systems put beside files of their own accord are not seen at all. What else
is not read is kept as ``Files.left_out``, to be told.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nas_sweeps.data.nearmiss import near_misses
from nas_sweeps.paths import user_path

Layout = Literal["parquet", "folder"]
# Suffixes of the formats that ``decode`` opens: all that torchvision's ImageFolder takes, and the
# other names of the same formats.
IMAGE_SUFFIXES = frozenset(
    {
        *(".apng", ".bmp", ".gif", ".png", ".tif", ".tiff", ".webp"),
        *(".jfif", ".jpe", ".jpeg", ".jpg"),
        *(".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
        *(".pbm", ".pgm", ".pnm", ".ppm"),
    }
)
LAYOUTS = "train*.parquet and test*.parquet, or train/<class>/ and test/<class>/ full of images"
SPLITS = ("train", "test")

# Made by systems and not by people, compared without case: Synology and QNAP, Windows, macOS's
# archiver, ext4.
_NOT_DATA = frozenset(
    {
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp"),
        *("$recycle.bin", "recycler", "system volume information", "thumbs.db", "desktop.ini"),
        *("__macosx", "lost+found"),
    }
)
_SPLIT_WORD = re.compile(r"(train|test)(?![A-Za-z])")
_SHARD = re.compile(r"(?P<series>.*?)-(?P<index>\d{5})-of-(?P<total>\d{5})(?:-.*)?")
_NUMBER = re.compile(r"\d{4,5}")
_NAMED = 3  # so many files a message names


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a custom data set, each split sorted by path.

    ``left_out`` are files that lie where images are looked for, or look like images or Parquet
    data, and are not read.
    """

    layout: Layout
    root: Path
    train: tuple[Path, ...]
    test: tuple[Path, ...]
    left_out: tuple[Path, ...] = ()

    def remark(self) -> str | None:
        """What is left out, counted, in one line; None where nothing is."""
        if not self.left_out:
            return None
        kinds = Counter(file.suffix.lower() or "no suffix" for file in self.left_out)
        counted = ", ".join(f"{count:,} of {kind}" for kind, count in kinds.most_common(5))
        first = self.left_out[0].relative_to(self.root).as_posix()
        read = "train and test Parquet files" if self.layout == "parquet" else "images of classes"
        return f"data path {self.root}: not read: {counted} ({first!r} first); read: {read}"


def find_files(path: str | Path) -> Files:
    """List what ``path`` holds.

    Raises:
        ValueError: ``path`` is missing, a file, empty, of neither layout, or lacks a split; a
            Parquet split lies in two folders or lacks a file of its series; or a folder cannot
            be read, or leads back to a folder that holds it.
    """
    root = user_path(path)
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        raise ValueError(f"data path {root} {problem}; name a folder with {LAYOUTS}")
    everything = sorted(_walk(root))
    if not everything:
        raise ValueError(f"data path {root} is empty; it needs {LAYOUTS}")
    relative = [file.relative_to(root) for file in everything]
    by_layout: dict[Layout, tuple[list[Path], list[Path]]] = {
        "parquet": _splits(_parquet_split, relative),
        "folder": _splits(_folder_split, relative),
    }
    for layout, (train, test) in by_layout.items():
        if not (train and test):
            continue
        if layout == "parquet":
            _check_series(root, "train", train)
            _check_series(root, "test", test)
        left_out = _left_out(relative, {*train, *test})
        splits = (tuple(root / file for file in of) for of in (train, test, left_out))
        return Files(layout, root, *splits)
    hint = near_misses(root, relative, IMAGE_SUFFIXES)
    for train, test in by_layout.values():
        if train or test:
            found, lacking = ("train", "test") if train else ("test", "train")
            raise ValueError(
                f"data path {root} has {found} images but no {lacking}: add {LAYOUTS}{hint}"
            )
    raise ValueError(
        f"data path {root} holds no data set that can be read; it needs {LAYOUTS}{hint}"
    )


def _splits(
    split_of: Callable[[Path], str | None], files: Iterable[Path]
) -> tuple[list[Path], list[Path]]:
    """Train and test files of a layout, in the order of ``files``; paths relative to the root."""
    found: dict[str | None, list[Path]] = defaultdict(list)
    for file in files:
        found[split_of(file)].append(file)
    return found["train"], found["test"]


def _parquet_split(file: Path) -> str | None:
    if file.suffix != ".parquet":
        return None
    word = _SPLIT_WORD.match(file.name)
    if word:
        return word[1]
    return file.parent.name if file.parent.name in SPLITS else None


def _folder_split(file: Path) -> str | None:
    is_image = len(file.parts) >= 3 and file.suffix.lower() in IMAGE_SUFFIXES
    return file.parts[0] if is_image and file.parts[0] in SPLITS else None


def _left_out(files: Iterable[Path], used: set[Path]) -> list[Path]:
    """Files that somebody may have meant to be read; a README, say, is none."""
    return [
        file
        for file in files
        if file not in used
        and (
            file.parts[0] in SPLITS
            or file.suffix == ".parquet"
            or (len(file.parts) > 1 and file.suffix.lower() in IMAGE_SUFFIXES)
        )
    ]


# Whole series of Parquet files


def _check_series(root: Path, split: str, files: Sequence[Path]) -> None:
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


# What is there


def _walk(root: Path) -> Iterator[Path]:
    """Every file that is not hidden, through links to folders.

    ``os.walk`` would leave out what it cannot read, and list files again for every turn of a loop.
    """
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(str(root), ())]
    while waiting:
        folder, above = waiting.pop()
        try:
            own = os.stat(folder)
            here = (own.st_dev, own.st_ino)
            if here in above:
                raise ValueError(f"{folder} is a link to a folder that holds it; remove the link")
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name.casefold() in _NOT_DATA:
                        continue
                    if entry.is_dir():
                        waiting.append((entry.path, (*above, here)))
                    else:
                        yield Path(entry.path)
        except OSError as error:
            raise ValueError(
                f"{error.filename} cannot be read ({error.strerror}); make it readable or remove it"
            ) from None
