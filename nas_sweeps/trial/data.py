"""What a trial's images are: the data set, and the rule that draws training images from it.

``mu`` is the imbalance factor of the paper (arXiv 2406.16949): the tail-to-head ratio of
training images per class, in (0, 1]. The literature's imbalance ratio is 1/mu.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from nas_sweeps.names import DISTRIBUTION, distribution_name
from nas_sweeps.trial.fields import LABEL, STRICT, Count, Mu, Positive, added


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPaths:
    """Where this machine finds and keeps images. Never part of an identity."""

    path: str | None = None  # of a custom data set: a folder, absolute
    downloads: str | None = None  # torchvision's root; None: the cache folder
    cache: str | None = None  # decoded images; None: $NAS_SWEEPS_CACHE or ~/.cache/nas_sweeps


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A label distribution over K classes (paper section IV-A).

    ``exp`` and ``step`` follow the profile with ``mu``, a class keeping at most what it has;
    ``uniform`` keeps ``total // K`` images of each class, the control that separates imbalance
    from data size. ``natural`` keeps the counts that the data set comes with, of no class more
    than ``n_max``. ``balance`` is for data sets with equal classes: it keeps ``data.n_max`` of
    each class, and without it every image, like ``natural``.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    kind: Literal["balance", "exp", "step", "uniform", "natural"]
    mu: Mu | None = None
    total: Positive | None = None
    n_max: Positive | None = added(None)  # of natural: images of a class at most; None: all

    def __str__(self) -> str:
        return distribution_name(*self.columns.values())

    @property
    def columns(self) -> dict[str, str | float | None]:
        """What tables say of it."""
        return dict(zip(DISTRIBUTION, (self.kind, self.mu, self.total, self.n_max), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Which classes are head, medium and tail.

    ``rank``: by size, K // 3 classes head and as many tail. ``shots``: by training images, more
    than ``many`` head, fewer than ``few`` tail (OLTR, arXiv 1904.05160, on ImageNet-LT).
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    by: Literal["rank", "shots"]
    many: Positive = 100
    few: Positive = 20

    def __str__(self) -> str:
        return self.by if self.by == "rank" else f"{self.by} {self.many}/{self.few}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Where the labels of a custom data set stand, if not in the names of folders.

    ``train`` and ``test`` are files below the data set's folder: CSV with a heading, or lines of
    ``path label``. With one file for both, ``split`` is the column that says train or test. The
    columns count for Parquet files too.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    train: str | None = None
    test: str | None = None
    image: str | None = None  # None: the first column of a name that is usual
    label: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        return "/".join(value or "" for value in astuple(self)).rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupBy:
    """Which training images belong together, so that no group is split between T and V.

    By a ``column`` of the data set, or by what a ``pattern`` (a regular expression) finds in the
    path of an image below its split: its parentheses, or the whole match where it has none.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    column: str | None = None
    pattern: str | None = None

    def __str__(self) -> str:
        return self.column or str(self.pattern).replace(",", ";")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A data set and the rule that draws training images from it.

    ``dataset`` is a registered name; a data set read from a path is ``custom``, identified by
    the ``fingerprint`` of its content and labelled for people.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    dataset: str  # as registered, or ``custom``
    label: str = field(metadata=LABEL, compare=False)
    fingerprint: str | None = None
    image_size: Annotated[int, Ge(8)] | None = None  # pixels; None keeps the source's own size
    n_max: Positive | None = None  # training images of the largest class before mu; None: all
    test_n_max: Positive | None = None  # balanced test images per class; None: all
    subset_seed: Count = 0  # which images a class keeps (LDAM: numpy RandomState(0))
    split_seed: Count = 0  # which half of a class goes to T and which to V
    class_order_seed: Count | None = None  # None: classes as labelled, class 0 is the head
    long_tailed_test: Distribution | None = None  # profile of the long-tailed test set
    groups: Groups | None = added(None)  # None: the custom of the distribution, longtail.py
    labels: Labels | None = added(None)  # of a custom data set
    test_split: Literal["test", "validation"] = added("test")  # the split that is tested on
    group: GroupBy | None = added(None)  # None: every image is a group of its own
    # How an image becomes a square of image_size: scaled (bicubic) so that its shorter side has
    # short_side (None: image_size) pixels and cropped about its centre, squeezed, or with borders.
    resize: Literal["crop", "stretch", "pad"] = added("crop")
    short_side: Annotated[int, Ge(8)] | None = added(None)
