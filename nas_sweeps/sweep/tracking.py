"""Which trackers there are, and what each needs: known without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from nas_sweeps.choices import TRACKERS

_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def require(track: Sequence[str], on_ray: bool, store: str) -> None:
    """Refuse what could not be tracked, before anything runs.

    Raises:
        ValueError: no such tracker, its package is missing, or trials do not run on Ray, whose
            callbacks they are.
    """
    for name in track:
        if name not in TRACKERS:
            raise ValueError(f"track: no tracker '{name}'; choose from {', '.join(TRACKERS)}")
        if not on_ray:
            raise ValueError(
                f"--track {name} goes through Ray's callbacks: run with --executor ray, or leave "
                "--track out"
            )
        if find_spec(_PACKAGES[name]) is None:
            raise ValueError(
                f"--track {name}: it needs {_PACKAGES[name]}, which is not installed: "
                f"pip install 'nas_sweeps[{name}]'"
            )
        if name == "tensorboard" and "://" in store:
            raise ValueError(
                "--track tensorboard writes files into the store, which must be a folder for that; "
                "use another tracker, or a store on a file system"
            )
