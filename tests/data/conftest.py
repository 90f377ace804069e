"""Made-up image data sets on disk, and the real CIFAR-10 where a machine has it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nas_sweeps.trial import Data, DataPaths

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def goldens() -> dict[str, Any]:
    counts: dict[str, Any] = json.loads((REPO / "tests" / "goldens.json").read_text())["counts"]
    return counts


@pytest.fixture
def cifar10() -> Path:
    """Folder with CIFAR-10 as Parquet: $NAS_SWEEPS_CIFAR10, or beside the repository."""
    default = REPO.parent / "shared/data/cifar10"
    folder = Path(os.environ.get("NAS_SWEEPS_CIFAR10", default))
    if not folder.is_dir():
        pytest.skip("no CIFAR-10: set NAS_SWEEPS_CIFAR10 to a folder of its Parquet files")
    return folder


@pytest.fixture
def places(tmp_path: Path) -> Callable[..., DataPaths]:
    def build(path: Path | None = None) -> DataPaths:
        return DataPaths(
            path=None if path is None else str(path), cache=str(tmp_path / "cache dir")
        )

    return build


@pytest.fixture
def custom() -> Callable[..., Data]:
    def build(**fields: Any) -> Data:
        return Data(dataset="custom", label="made", **fields)

    return build


@pytest.fixture
def png() -> Callable[..., bytes]:
    """One encoded image whose pixels are random but fixed by ``seed``."""

    def build(seed: int = 0, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
        width, height = size
        shape = (height, width, 3) if mode == "RGB" else (height, width)
        pixels = np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    return build


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    def write(
        file: Path,
        blobs: Sequence[bytes | None],
        labels: Sequence[Any],
        *,
        names: Sequence[str] | None = None,
        image: str = "img",
        label: str = "label",
    ) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table({image: [{"bytes": b, "path": None} for b in blobs], label: labels})
        if names is not None:
            features = {"info": {"features": {label: {"names": list(names)}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, file)
        return file

    return write


@pytest.fixture
def dataset(
    tmp_path: Path, png: Callable[..., bytes], write_parquet: Callable[..., Path]
) -> Callable[..., Path]:
    """A sound Parquet data set: ``train`` and ``test`` images of each of ``classes`` classes."""

    def build(train: int = 6, test: int = 4, classes: int = 2) -> Path:
        folder = tmp_path / "made 'set'"
        for split, count in (("train", train), ("test", test)):
            labels = list(range(classes)) * count
            blobs = [png(seed) for seed in range(len(labels))]
            names = [f"class {label}" for label in range(classes)]
            write_parquet(folder / f"{split}-00000-of-00001.parquet", blobs, labels, names=names)
        return folder

    return build
