"""What every data set promises, whoever wrote it: what is known of it before it is loaded holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL.Image import Image

from nas_sweeps.data.datasets import DATASETS, RawImages
from nas_sweeps.data.profiles import known_counts
from nas_sweeps.data.splits import prepare
from nas_sweeps.testing.tiny import heavy_imports
from nas_sweeps.trial import Data, DataPaths, Distribution


def load(name: str, folder: Path) -> RawImages:
    """All images of their own size; what is downloaded goes to ``folder``."""
    source = DATASETS.build(name)
    return source.load(folder if source.archive else None, None)


def _pixels(images: NDArray[np.uint8] | Sequence[Image]) -> NDArray[np.uint8]:
    """Bytes, (N, H, W, 3); images of any size as thumbnails."""
    if isinstance(images, np.ndarray):
        return images
    small = [np.asarray(image.convert("RGB").resize((8, 8))) for image in images]
    return np.stack(small)


class DatasetContract:
    """Subclass it, parametrised by ``name``. Downloads, if there are any, go to a new folder."""

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("downloads")

    @pytest.fixture
    def raw(self, name: str, folder: Path) -> RawImages:
        return load(name, folder)

    def test_images_are_square_bytes_in_three_channels(self, raw: RawImages) -> None:
        for images_NHWC in map(_pixels, (raw.train_NHWC, raw.test_NHWC)):
            assert images_NHWC.dtype == np.uint8
            count, height, width, channels = images_NHWC.shape
            assert count > 0
            assert height == width == _pixels(raw.train_NHWC).shape[1] >= 8
            assert channels == 3

    def test_training_images_are_as_many_as_is_said(self, name: str, raw: RawImages) -> None:
        source = DATASETS.build(name)
        counts = np.bincount(raw.train_labels, minlength=source.num_classes)
        if source.images_per_class is None:
            assert counts.min() >= 2, "a class has an image for each half of the search"
        else:
            assert counts.tolist() == [source.images_per_class] * source.num_classes
        assert len(raw.train_labels) == len(raw.train_NHWC)
        assert len(raw.class_names) == len(set(raw.class_names)) == source.num_classes

    def test_every_class_is_tested(self, name: str, raw: RawImages) -> None:
        assert len(raw.test_labels) == len(raw.test_NHWC)
        assert np.unique(raw.test_labels).tolist() == list(range(DATASETS.build(name).num_classes))

    def test_it_is_the_same_every_time(self, name: str, raw: RawImages, folder: Path) -> None:
        again = load(name, folder)
        assert np.array_equal(_pixels(again.train_NHWC), _pixels(raw.train_NHWC))
        assert np.array_equal(again.train_labels, raw.train_labels)
        assert np.array_equal(_pixels(again.test_NHWC), _pixels(raw.test_NHWC))

    def test_its_normalisation_is_that_of_its_images(self, name: str, raw: RawImages) -> None:
        said = DATASETS.build(name).normalisation
        if said is not None:
            pixels = _pixels(raw.train_NHWC).reshape(-1, 3) / 255
            # Published ones differ in the last digits, and some are rounded.
            assert np.allclose(said, (pixels.mean(0), pixels.std(0)), atol=0.01)

    def test_a_plan_counts_what_a_run_draws(self, name: str, folder: Path, tmp_path: Path) -> None:
        data = Data(dataset=name, label=name, image_size=8)
        places = DataPaths(downloads=str(folder), cache=str(tmp_path))
        for distribution in (Distribution(kind="balance"), Distribution(kind="exp", mu=0.5)):
            drawn = prepare(data, distribution, places, "cpu").train_counts
            known = known_counts(data, distribution)
            if DATASETS.build(name).images_per_class is None:
                assert known is None, "only the images can tell"
            else:
                assert known == tuple(drawn)

    def test_planning_does_not_import_torch(self, name: str) -> None:
        module, datasets = DATASETS.get(name).__module__, "nas_sweeps.data.datasets"
        built = f"import {module}\nfrom {datasets} import DATASETS\nDATASETS.build({name!r})"
        assert heavy_imports(built) == []
