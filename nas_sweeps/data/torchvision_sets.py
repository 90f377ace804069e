"""Labelled images that torchvision knows, by name: a line each. No torch at import.

Normalisation is measured on the training images. Images come as torchvision gives them; where they
are of many sizes, ``image_size`` has to be set. Splits are those of torchvision: of data sets with
three, ``train`` is trained on and ``test`` tested on; where training and validation images come
joined (``trainval``), both are trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nas_sweeps.data.datasets import Archive, Dataset, RawImages, register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

_Options = Mapping[str, Any]
_BY_FLAG: tuple[_Options, _Options] = ({"train": True}, {"train": False})
_BY_SPLIT: tuple[_Options, _Options] = ({"split": "train"}, {"split": "test"})
_JOINED: tuple[_Options, _Options] = ({"split": "trainval"}, {"split": "test"})
_BALANCED: tuple[_Options, _Options] = (
    {"split": "balanced", "train": True},
    {"split": "balanced", "train": False},
)
_WHOLE: tuple[_Options, ...] = ({},)  # without splits: divided here, see ``_divided``


@dataclass(frozen=True, slots=True)
class _Known:
    """A class of ``torchvision.datasets`` and what is known of it before it is loaded."""

    name: str
    source: str
    classes: int
    each: int | None  # training images of each class; None: they differ
    splits: tuple[_Options, ...]
    place: str  # where torchvision looks for it, below the folder of downloads
    megabytes: int


KNOWN = (
    _Known("mnist", "MNIST", 10, None, _BY_FLAG, "MNIST/raw", 12),
    _Known("fashion_mnist", "FashionMNIST", 10, 6000, _BY_FLAG, "FashionMNIST/raw", 31),
    _Known("kmnist", "KMNIST", 10, 6000, _BY_FLAG, "KMNIST/raw", 21),
    _Known("emnist", "EMNIST", 47, 2400, _BALANCED, "EMNIST/raw", 562),
    _Known("usps", "USPS", 10, None, _BY_FLAG, "usps.bz2", 9),
    _Known("svhn", "SVHN", 10, None, _BY_SPLIT, "train_32x32.mat", 246),
    _Known("gtsrb", "GTSRB", 43, None, _BY_SPLIT, "gtsrb/GTSRB", 276),
    _Known("eurosat", "EuroSAT", 10, None, _WHOLE, "eurosat/2750", 94),
    _Known("stl10", "STL10", 10, 500, _BY_SPLIT, "stl10_binary", 2640),
    _Known("flowers102", "Flowers102", 102, 10, _BY_SPLIT, "flowers-102", 345),
    _Known("oxford_iiit_pet", "OxfordIIITPet", 37, None, _JOINED, "oxford-iiit-pet", 811),
    _Known("dtd", "DTD", 47, 40, _BY_SPLIT, "dtd/dtd", 625),
    _Known("country211", "Country211", 211, 150, _BY_SPLIT, "country211", 11_500),
    _Known("fgvc_aircraft", "FGVCAircraft", 100, None, _JOINED, "fgvc-aircraft-2013b", 2750),
    _Known("stanford_cars", "StanfordCars", 196, None, _BY_SPLIT, "stanford_cars", 1960),
    _Known("food101", "Food101", 101, 750, _BY_SPLIT, "food-101", 4990),
)


class _Images(Sequence["Image"]):
    """Images of a torchvision data set, each decoded when it is asked for."""

    def __init__(self, held: Any, chosen: NDArray[np.int64] | None = None) -> None:
        self.held, self.chosen = held, chosen

    def __len__(self) -> int:
        return len(self.held) if self.chosen is None else len(self.chosen)

    def __getitem__(self, number: Any) -> Any:
        image, _ = self.held[number if self.chosen is None else int(self.chosen[number])]
        return image

    def __iter__(self) -> Iterator[Image]:
        return (self[number] for number in range(len(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionImages(Dataset):
    """A data set that torchvision downloads and opens image by image."""

    known: ClassVar[_Known]

    def load(self, folder: Path | None, image_size: int | None) -> RawImages:
        """Images as torchvision opens them."""
        assert folder is not None, "it has an archive"
        held = [self._open(folder, options, download=True) for options in self.known.splits]
        labels = [_labels(of) for of in held]
        if len(held) == 1:
            parts = _divided(labels[0])
            (train, test), held = (_Images(held[0], part) for part in parts), held * 2
            first, second = (labels[0][part] for part in parts)
        else:
            train, test = map(_Images, held)
            first, second = labels
        names = getattr(held[0], "classes", None) or range(self.known.classes)
        return RawImages(
            train_NHWC=train,
            train_labels=first,
            test_NHWC=test,
            test_labels=second,
            class_names=[str(name) for name in names],
            train_names=_names(train),
        )

    def unpacked(self, folder: Path) -> bool:
        """Whether torchvision finds all of it in the folder."""
        try:
            for options in self.known.splits:
                self._open(folder, options, download=False)
        except (RuntimeError, OSError):
            return False
        return True

    def _open(self, folder: Path, options: _Options, download: bool) -> Any:
        from torchvision import datasets

        try:
            return getattr(datasets, self.known.source)(str(folder), **options, download=download)
        except ValueError as error:  # what cannot be downloaded any more says so like this
            raise RuntimeError(" ".join(str(error).split())) from error


def _labels(held: Any) -> NDArray[np.int64]:
    """Labels without decoding an image, under the names by which torchvision keeps them."""
    import numpy as np

    for name in ("targets", "labels", "_labels"):
        if hasattr(held, name):
            return np.asarray(getattr(held, name), np.int64)
    samples = getattr(held, "_samples", None) or ((None, label) for _, label in held)
    return np.asarray([label for _, label in samples], np.int64)


def _names(images: _Images) -> list[str] | None:
    """Folder and name of each image's file, where torchvision keeps them."""
    samples = getattr(images.held, "_samples", getattr(images.held, "samples", None))
    if samples is None:
        return None
    numbers = range(len(samples)) if images.chosen is None else images.chosen.tolist()
    return ["/".join(Path(samples[number][0]).parts[-2:]) for number in numbers]


def _divided(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Four fifths of each class to train on and the rest to test on, always the same."""
    import numpy as np

    random = np.random.RandomState(0)
    train, test = [], []
    for label in np.unique(labels).tolist():
        of_class = random.permutation(np.flatnonzero(labels == label))
        tested = len(of_class) // 5
        test.append(of_class[:tested])
        train.append(of_class[tested:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


for _known in KNOWN:
    _of = {
        "__doc__": f"torchvision's {_known.source}.",
        "__module__": __name__,
        "__slots__": (),
        "known": _known,
        "images_per_class": _known.each,
        "num_classes": _known.classes,
        "archive": Archive(name=_known.place, md5=None, megabytes=_known.megabytes),
    }
    register(_known.name)(
        dataclass(frozen=True, kw_only=True)(type(_known.source, (TorchvisionImages,), _of))
    )
