"""Stripes: the class is the width of the stripes, and the noise is another in every image."""

from dataclasses import dataclass

import numpy as np

from nas_sweeps.data.datasets import Dataset, RawImages


@dataclass(frozen=True, slots=True, kw_only=True)
class Stripes(Dataset):
    images_per_class, num_classes, cached = 40, 4, False

    def load(self, folder, image_size):
        size, rng = image_size or 12, np.random.RandomState(0)
        labels = np.arange(50 * self.num_classes) % self.num_classes
        stripes = np.arange(size) // (1 + labels[:, None]) % 2 * 160  # images x columns
        noise = rng.randint(0, 96, (len(labels), size, size, 3))
        images = (stripes[:, None, :, None] + noise).astype(np.uint8)
        train = np.arange(len(labels)) < self.images_per_class * self.num_classes
        return RawImages(
            train_NHWC=images[train],
            train_labels=labels[train],
            test_NHWC=images[~train],
            test_labels=labels[~train],
            class_names=[f"width {1 + label}" for label in range(self.num_classes)],
        )
