"""Which files make up a custom data set. Torch-free.

These layouts are read:

- Parquet files, anywhere under the folder: those whose name begins with the word ``train`` or
  ``test`` (``data/train-00000-of-00002.parquet``), and those in a folder of that name
  (``default/train/0000.parquet``, the Hugging Face hub's conversion). All files of a split lie in
  one folder, and none of a numbered series may be missing.
- Image folders: ``train/<class>/...`` and ``test/<class>/...``.
- Images anywhere under the folder that label files name, where the data section has ``labels``.
- One ``.npz`` file with arrays, as MedMNIST publishes them, in place of a folder.

With ``test_split: validation`` the validation split is the one that is tested on.

Hidden files and what systems put beside files of their own accord are not seen at all. What else
is not read is kept as ``Files.left_out``, to be told.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nas_sweeps.data.lists import Row, read_lists
from nas_sweeps.data.nearmiss import near_misses
from nas_sweeps.data.series import check_series
from nas_sweeps.hints import did_you_mean
from nas_sweeps.paths import user_path
from nas_sweeps.trial import Data

Layout = Literal["parquet", "folder", "list", "npz"]
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
_TEST_NAMES = {"test": ("test",), "validation": ("validation", "valid", "val", "dev")}

# Made by systems and not by people, compared without case: Synology and QNAP, Windows, macOS's
# archiver, ext4.
_NOT_DATA = frozenset(
    {
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp"),
        *("$recycle.bin", "recycler", "system volume information", "thumbs.db", "desktop.ini"),
        *("__macosx", "lost+found"),
    }
)
_SPLIT_WORD = re.compile(r"([a-z]+)(?![A-Za-z])")


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a custom data set, each split sorted by path, or in the order of its list.

    ``left_out`` are files that lie where images are looked for, or look like images or Parquet
    data, and are not read. ``lists`` are label files, ``rows`` what they say of each image, by
    column, and ``label_column`` is the one of its label.
    """

    layout: Layout
    root: Path
    train: tuple[Path, ...]
    test: tuple[Path, ...]
    left_out: tuple[Path, ...] = ()
    lists: tuple[Path, ...] = ()
    rows: Mapping[Path, Row] = field(default_factory=dict, compare=False)
    label_column: str = ""
    unlisted: int = 0  # rows of label files that are of another split

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file that says what the images and labels are."""
        return self.train + self.test + self.lists

    def remark(self) -> str | None:
        """What is left out, counted, in one line; None where nothing is."""
        rows = [f"{self.unlisted:,} rows of another split"] if self.unlisted else []
        if not self.left_out:
            return f"data path {self.root}: not read: {rows[0]}" if rows else None
        kinds = Counter(file.suffix.lower() or "no suffix" for file in self.left_out)
        counted = ", ".join(
            [*rows, *(f"{count:,} of {kind}" for kind, count in kinds.most_common(5))]
        )
        first = self.left_out[0].relative_to(self.root).as_posix()
        read = _READ.get(self.layout, "images of classes")
        return f"data path {self.root}: not read: {counted} ({first!r} first); read: {read}"


_READ = {"parquet": "train and test Parquet files", "list": "images that label files name"}


def find_files(path: str | Path, source: Data | None = None) -> Files:
    """List what ``path`` holds.

    Args:
        source: what the data section says of labels and splits; None: nothing.

    Raises:
        ValueError: ``path`` is missing, a file, empty, of no layout, or lacks a split; a
            Parquet split lies in two folders or lacks a file of its series; a label file is wrong,
            as ``read_lists`` says; or a folder cannot be read, or leads back to a folder that
            holds it.
    """
    root = user_path(path)
    if root.is_file() and root.suffix.lower() == ".npz":
        _check_columns(root, "an .npz file", source)
        return Files("npz", root.parent, (root,), (root,))
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        raise ValueError(f"data path {root} {problem}; name a folder with {LAYOUTS}")
    everything = sorted(_walk(root))
    if not everything:
        raise ValueError(f"data path {root} is empty; it needs {LAYOUTS}")
    relative = [file.relative_to(root) for file in everything]
    if source is not None and source.labels is not None and _has_lists(source):
        return _listed(root, relative, source)
    tested = _TEST_NAMES[source.test_split if source else "test"]
    by_layout: dict[Layout, tuple[list[Path], list[Path]]] = {
        "parquet": _splits(lambda file: _parquet_split(file, tested), relative),
        "folder": _splits(lambda file: _folder_split(file, tested), relative),
    }
    for layout, (train, test) in by_layout.items():
        if not (train and test):
            continue
        if layout == "folder":
            _check_columns(root, "a folder of class folders", source)
        if layout == "parquet":
            check_series(root, "train", train)
            check_series(root, tested[0], test)
        left_out = _left_out(relative, {*train, *test})
        first, second, others = (
            tuple(root / file for file in of) for of in (train, test, left_out)
        )
        return Files(layout, root, first, second, others)
    hint = near_misses(root, relative, IMAGE_SUFFIXES)
    for train, test in by_layout.values():
        if train or test:
            found, lacking = ("train", tested[0]) if train else (tested[0], "train")
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


def _split_of(word: str, tested: Collection[str]) -> str | None:
    return "train" if word == "train" else "test" if word in tested else None


def _parquet_split(file: Path, tested: Collection[str]) -> str | None:
    if file.suffix != ".parquet":
        return None
    word = _SPLIT_WORD.match(file.name)
    return (word and _split_of(word[1], tested)) or _split_of(file.parent.name, tested)


def _folder_split(file: Path, tested: Collection[str]) -> str | None:
    is_image = len(file.parts) >= 3 and file.suffix.lower() in IMAGE_SUFFIXES
    return _split_of(file.parts[0], tested) if is_image else None


def _check_columns(root: Path, what: str, source: Data | None) -> None:
    """Raises ValueError where columns are named of what has none."""
    if source is None or (source.labels is None and (source.group is None or source.group.pattern)):
        return
    name = "labels" if source.labels is not None else "group"
    raise ValueError(
        f"data path {root} is {what}, which has no columns that data.{name} could name; leave it "
        "out, or name a label file as data.labels.train"
    )


def _has_lists(source: Data) -> bool:
    return source.labels is not None and bool(source.labels.train or source.labels.test)


def _listed(root: Path, relative: list[Path], source: Data) -> Files:
    """The images that label files name. Raises ValueError."""
    assert source.labels is not None, "asked before"
    images = [file for file in relative if file.suffix.lower() in IMAGE_SUFFIXES]
    found = read_lists(root, source.labels, images, source.test_split)
    column = source.group.column if source.group is not None else None
    there = next(iter(found.train.values()), {})
    if column is not None and column not in there:
        raise ValueError(
            f"{root}: has no column {column!r} for data.group; it has "
            f"{', '.join(map(repr, there)) or 'none'}{did_you_mean(column, there)}"
        )
    both = found.train.keys() & found.test.keys()
    if both:
        raise ValueError(
            f"{root}: {len(both):,} images are listed in train and in {source.test_split}, "
            f"'{min(both).relative_to(root).as_posix()}' for one; keep either line"
        )
    used = {image.relative_to(root) for rows in (found.train, found.test) for image in rows}
    return Files(
        "list",
        root,
        tuple(found.train),
        tuple(found.test),
        tuple(root / image for image in images if image not in used),
        found.files,
        found.train | found.test,
        found.label,
        found.unlisted,
    )


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
