"""Images: sources, long-tailed subsets, augmentation."""
