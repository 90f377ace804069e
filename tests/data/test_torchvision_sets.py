"""torchvision's labelled images by name: held against its own classes, on made files or faked."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from nas_sweeps.data.datasets import DATASETS
from nas_sweeps.data.presence import find_images
from nas_sweeps.data.profiles import known_counts
from nas_sweeps.data.sources import load_images
from nas_sweeps.data.splits import prepare
from nas_sweeps.data.torchvision_sets import KNOWN
from nas_sweeps.testing import DatasetContract
from nas_sweeps.trial import Data, DataPaths, Distribution, GroupBy

by_name = pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)


def fake(known: Any, each: int = 5) -> type:
    """A class with the constructor of torchvision's own, and images of several sizes."""
    real = inspect.signature(getattr(torchvision.datasets, known.source))

    class Fake:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.asked = real.bind(*arguments, **options).arguments
            test = options.get("split") == "test" or options.get("train") is False
            self._labels = [k for k in range(known.classes) for _ in range(2 if test else each)]

        def __len__(self) -> int:
            return len(self._labels)

        def __getitem__(self, number: int) -> tuple[Image.Image, int]:
            size = (10 + number % 3, 9)
            return Image.new("L", size, self._labels[number] % 256), self._labels[number]

    return Fake


@by_name
def test_constructors_take_what_they_are_given(known: Any) -> None:
    """By the installed torchvision: splits and flags are parameters of its constructors."""
    parameters = inspect.signature(getattr(torchvision.datasets, known.source)).parameters
    for options in known.splits:
        for name in ("root", "download", *options):
            # What takes any keyword, as EMNIST does, hands it on to a class that has it.
            assert name in parameters or "kwargs" in parameters


@by_name
def test_images_and_labels_come_through(known, places, monkeypatch) -> None:
    monkeypatch.setattr(torchvision.datasets, known.source, fake(known))
    data = Data(dataset=known.name, label=known.name, image_size=8)
    images = load_images(data, places())
    trained = 4 if len(known.splits) == 1 else 5  # of five, one is kept for the test
    assert images.train_NCHW.shape == (trained * known.classes, 3, 8, 8)
    assert images.train_labels.bincount().tolist() == [trained] * known.classes
    assert (images.train_NCHW[:, 0, 0, 0] == images.train_labels % 256).all()
    assert len(images.class_names) == known.classes
    assert images.mean == pytest.approx([images.train_NCHW.double().mean().item() / 255] * 3)


@by_name
def test_what_is_known_before_loading_is_said(known) -> None:
    data = Data(dataset=known.name, label="x")
    counts = known_counts(data, Distribution(kind="natural"))
    assert counts == (None if known.each is None else (known.each,) * known.classes)


def test_images_of_many_sizes_ask_for_one(places, monkeypatch) -> None:
    known = next(known for known in KNOWN if known.name == "flowers102")
    monkeypatch.setattr(torchvision.datasets, known.source, fake(known))
    with pytest.raises(ValueError, match=r"flowers102 train 0: image is 10x9, .* data\.image_size"):
        load_images(Data(dataset="flowers102", label="f"), places())


def test_labels_are_found_without_decoding(places, monkeypatch) -> None:
    """SVHN keeps pixels and labels in arrays, MNIST in tensors."""

    def svhn(root: str, split: str, download: bool) -> Any:
        class Held:
            labels = np.array([0, 1, 1, 0])

            def __len__(self) -> int:
                return 4

            def __getitem__(self, number: int) -> Any:
                return Image.new("RGB", (32, 32), (number, 0, 0)), int(self.labels[number])

        return Held()

    monkeypatch.setattr(torchvision.datasets, "SVHN", svhn)
    images = load_images(Data(dataset="svhn", label="s"), places())
    assert images.train_labels.tolist() == [0, 1, 1, 0]
    assert images.train_NCHW[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_what_cannot_be_downloaded_says_where_to_put_it(places, monkeypatch) -> None:
    def broken(root: str, **_: Any) -> Any:
        raise ValueError("The original URL is broken.")

    monkeypatch.setattr(torchvision.datasets, "StanfordCars", broken)
    with pytest.raises(ValueError, match=r"cannot be downloaded to .*URL is broken"):
        load_images(Data(dataset="stanford_cars", label="c"), places())
    found = find_images(Data(dataset="stanford_cars", label="c"), places())
    assert not found.here
    assert "put stanford_cars there first" in found.text


# torchvision's own classes, on files laid out as they look for them


def picture(file: Path, seed: int, size: tuple[int, int] = (16, 16)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file)


def gtsrb(root: Path) -> None:
    for label in range(43):
        for frame in range(4):
            name = f"gtsrb/GTSRB/Training/{label:05}/{frame // 2:05}_{frame:05}.ppm"
            picture(root / name, frame, (15, 20))
        picture(root / f"gtsrb/GTSRB/Final_Test/Images/{label:05}.ppm", label, (18, 16))
    rows = [f"{label:05}.ppm;15;20;5;6;20;25;{label}" for label in range(43)]
    head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    (root / "gtsrb/GT-final_test.csv").write_text("\n".join([head, *rows]))


def eurosat(root: Path) -> None:
    for label in range(10):
        for number in range(7 + label % 2):
            picture(root / f"eurosat/2750/kind {label}/{number}.jpg", number)


def dtd(root: Path) -> None:
    folder = root / "dtd/dtd"
    (folder / "labels").mkdir(parents=True)
    for split, count in (("train", 40), ("test", 1)):
        names = [f"k{k:02}/{split}_{n}.jpg" for k in range(47) for n in range(count)]
        (folder / f"labels/{split}1.txt").write_text("\n".join(names) + "\n")
        for name in names:
            picture(folder / "images" / name, 0, (9, 8))


MADE = {"gtsrb": gtsrb, "eurosat": eurosat, "dtd": dtd}


@pytest.mark.parametrize("name", MADE)
class TestOnMadeFiles(DatasetContract):
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        made: Path = tmp_path_factory.mktemp("downloads")
        for make in MADE.values():
            make(made)
        return made

    def test_it_is_found(self, name: str, folder: Path, tmp_path: Path) -> None:
        where = DataPaths(downloads=str(folder), cache=str(tmp_path))
        said = find_images(Data(dataset=name, label=name), where)
        assert said.here
        assert said.text.endswith("as torchvision finds it")


def test_tracks_of_gtsrb_are_found_in_its_names(tmp_path: Path) -> None:
    gtsrb(tmp_path / "downloads")
    where = DataPaths(downloads=str(tmp_path / "downloads"), cache=str(tmp_path / "cache"))
    group = GroupBy(pattern=r"(\d+)/(\d+)_")
    data = Data(dataset="gtsrb", label="g", image_size=8, group=group)
    bundle = prepare(data, Distribution(kind="natural"), where, "cpu")
    assert "natural: T and V by 86 groups: T has 50 to 50 %" in bundle.notes[0]
    track = torch.arange(172) // 2
    assert not set(track[bundle.t_index].tolist()) & set(track[bundle.v_index].tolist())
    for name in ("eurosat", "digits"):
        assert DATASETS.build(name).num_classes == 10
    digits = Data(dataset="digits", label="d", group=group)
    with pytest.raises(ValueError, match=r"digits: its images have no file names in which data"):
        load_images(digits, where)


def test_a_whole_data_set_is_divided_for_good(tmp_path: Path) -> None:
    eurosat(tmp_path / "downloads")
    where = DataPaths(downloads=str(tmp_path / "downloads"), cache=str(tmp_path / "cache"))
    images = load_images(Data(dataset="eurosat", label="e"), where)
    assert images.train_labels.bincount().tolist() == [6, 7] * 5
    assert images.test_labels.bincount().tolist() == [1] * 10
    assert images.class_names[3] == "kind 3"
