"""The smallest grid that has both phases, for every test of executors."""

from __future__ import annotations

TINY = {
    "name": "tiny",
    "data": {"dataset": "digits", "image_size": 8, "n_max": 10, "test_n_max": 3},
    "search": {
        "methods": ["darts", "fairdarts"],
        "distributions": [{"exp": 0.4}],
        "seeds": [0],
        "recipe": {"channels": 2, "layers": 3, "epochs": 1, "batch_size": 8},
    },
    "retrain": {"recipe": {"channels": 2, "layers": 3, "epochs": 1, "batch_size": 8}},
}
