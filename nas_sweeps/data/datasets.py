"""Data sets by name: where images come from, and what is known before looking. No torch at import.

A data set is a frozen dataclass below ``Dataset``; its name is what ``data.dataset`` may say::

    @register("my_images")
    @dataclass(frozen=True, slots=True, kw_only=True)
    class MyImages(Dataset):
        images_per_class, num_classes = 500, 10

        def load(self, folder, image_size):
            return RawImages(...)

Another package offers one through the entry-point group ``nas_sweeps.datasets``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nas_sweeps.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

Statistics = tuple[float, float, float]  # of the channels, in units of the full range


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawImages:
    """Images as a data set has them: uint8, (N, H, W, 3), square; labels from 0, shape (N,)."""

    train_NHWC: NDArray[np.uint8]
    train_labels: Sequence[int] | NDArray[np.int64]
    test_NHWC: NDArray[np.uint8]
    test_labels: Sequence[int] | NDArray[np.int64]
    class_names: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The file that a data set is downloaded as."""

    name: str
    md5: str
    megabytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset(ABC):
    """A data set whose name is its identity: other images need another name.

    Attributes:
        images_per_class: training images of each class, if these are equally many; None: they are
            not, and only the images can tell.
        num_classes: how many classes there are.
        normalisation: mean and standard deviation of the training images; None: measured.
        archive: what it is downloaded as; None: nothing is downloaded.
        origin: where the images of a data set without an archive come from, in words.
        cached: whether decoded images are kept in the cache folder of a machine.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "allow_inf_nan": False}
    images_per_class: ClassVar[int | None]
    num_classes: ClassVar[int]
    normalisation: ClassVar[tuple[Statistics, Statistics] | None] = None
    archive: ClassVar[Archive | None] = None
    origin: ClassVar[str] = "made by its package"
    cached: ClassVar[bool] = True

    @abstractmethod
    def load(self, folder: Path | None, image_size: int | None) -> RawImages:
        """All images, downloaded to ``folder`` if they are not in it yet.

        Args:
            folder: it exists; None for a data set without an archive.
            image_size: pixels that are asked for; None: the source's own. Images of another size
                are scaled afterwards.

        Raises:
            OSError, RuntimeError: there is no network, or a checksum differs.
        """

    def unpacked(self, folder: Path) -> bool:
        """Whether ``folder`` holds, whole, what the archive unpacks to."""
        return False


DATASETS: Registry[Dataset] = Registry("data set", Dataset, "nas_sweeps.datasets")
register = DATASETS.register


@register("digits")
@dataclass(frozen=True, slots=True, kw_only=True)
class Digits(Dataset):
    """scikit-learn's 8x8 digits, bilinear to ``image_size``, three equal channels.

    Split for good: of each class the first 116 images train and the next 58 test (by other
    writers, mostly), so both splits are balanced like CIFAR's.
    """

    images_per_class: ClassVar[int] = 116
    num_classes: ClassVar[int] = 10
    origin: ClassVar[str] = "part of scikit-learn"
    cached: ClassVar[bool] = False  # it takes a few milliseconds
    size: ClassVar[int] = 16  # the source's 8 pixels are too few for two reductions
    tested: ClassVar[int] = 58  # a class; the smallest class has 174

    def load(self, folder: Path | None, image_size: int | None) -> RawImages:
        """The images that scikit-learn ships; nothing is downloaded."""
        import numpy as np
        import torch
        from sklearn.datasets import load_digits
        from torch.nn import functional as F

        from nas_sweeps.data.decode import check_memory

        side = image_size or self.size
        pixels, labels = load_digits(return_X_y=True)
        check_memory(len(labels), side)
        gray = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) * (255 / 16)  # values are 0..16
        gray = F.interpolate(gray, size=(side, side), mode="bilinear", align_corners=False)
        images_NHWC = gray.round().to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
        members = [np.flatnonzero(labels == digit) for digit in range(self.num_classes)]
        first, last = self.images_per_class, self.images_per_class + self.tested
        train = np.sort(np.concatenate([of_class[:first] for of_class in members]))
        test = np.sort(np.concatenate([of_class[first:last] for of_class in members]))
        return RawImages(
            train_NHWC=images_NHWC[train],
            train_labels=labels[train],
            test_NHWC=images_NHWC[test],
            test_labels=labels[test],
            class_names=[str(digit) for digit in range(self.num_classes)],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Torchvision(Dataset):
    """A data set that torchvision downloads, checks and unpacks."""

    source: ClassVar[str]  # its class in torchvision.datasets

    def load(self, folder: Path | None, image_size: int | None) -> RawImages:
        """Images of 32 pixels."""
        assert folder is not None, "it has an archive"
        train, test = (self._open(folder, train=flag, download=True) for flag in (True, False))
        return RawImages(
            train_NHWC=train.data,
            train_labels=train.targets,
            test_NHWC=test.data,
            test_labels=test.targets,
            class_names=train.classes,
        )

    def unpacked(self, folder: Path) -> bool:
        """Whether the folder holds every file with its published hash."""
        try:
            self._open(folder, train=True, download=False)
        except RuntimeError:
            return False
        return True

    def _open(self, folder: Path, **options: bool) -> Any:
        from torchvision import datasets

        return getattr(datasets, self.source)(str(folder), **options)


@register("cifar10")
@dataclass(frozen=True, slots=True, kw_only=True)
class CIFAR10(_Torchvision):
    """CIFAR-10, normalised as in DARTS utils.py."""

    source: ClassVar[str] = "CIFAR10"
    images_per_class: ClassVar[int] = 5000
    num_classes: ClassVar[int] = 10
    normalisation: ClassVar[tuple[Statistics, Statistics] | None] = (
        (0.49139968, 0.48215827, 0.44653124),
        (0.24703233, 0.24348505, 0.26158768),
    )
    archive: ClassVar[Archive | None] = Archive(  # torchvision's CIFAR10.filename, tgz_md5
        name="cifar-10-python.tar.gz", md5="c58f30108f718f92721af3b95e74349a", megabytes=170
    )


@register("cifar100")
@dataclass(frozen=True, slots=True, kw_only=True)
class CIFAR100(_Torchvision):
    """CIFAR-100, normalised as in FairDARTS utils.py."""

    source: ClassVar[str] = "CIFAR100"
    images_per_class: ClassVar[int] = 500
    num_classes: ClassVar[int] = 100
    normalisation: ClassVar[tuple[Statistics, Statistics] | None] = (
        (0.50707519, 0.48654887, 0.44091785),
        (0.26733428, 0.25643846, 0.27615049),
    )
    archive: ClassVar[Archive | None] = Archive(
        name="cifar-100-python.tar.gz", md5="eb9058c3a382ffc7106e4002c42a8d85", megabytes=170
    )
