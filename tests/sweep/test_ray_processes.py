"""How many processes a run on Ray starts, where Tune itself would start more."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.sweep.run import run
from tests.sweep.tiny import TINY

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ray_session", "fake_actors")]


class SlowSecond:
    """What each trial calls. All processes but the first take three seconds to load it."""

    def __init__(self, body: Any, folder: Path) -> None:
        self.body, self.folder = body, folder

    def __call__(self, *arguments: Any) -> Any:
        return self.body(*arguments)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "LOADED_BEFORE" not in os.environ:  # Tune loads it anew for each trial
            os.environ["LOADED_BEFORE"] = "yes"
            try:
                (self.folder / "first").touch(exist_ok=False)
            except FileExistsError:
                time.sleep(3.0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What processes Tune has asked for, by what each is to hold."""
    from nas_sweeps.sweep import ray_tune  # noqa: F401  it sets what Ray reads

    # isort: split
    from ray.air.execution._internal import RayActorManager

    asked, add_actor = [], RayActorManager.add_actor

    def counted(*arguments: Any, **options: Any) -> Any:
        asked.append(options["resource_request"])
        return add_actor(*arguments, **options)

    monkeypatch.setattr(RayActorManager, "add_actor", counted)
    return asked


def worked(store: Path, **search: Any) -> int:
    """How many trials there were."""
    grid = ns.Grid.from_dict(TINY | {"search": TINY["search"] | {"seeds": 6} | search})
    assert run(grid, store, executor="ray", console="none").complete
    return len(ns.load(store).attempts)


def test_a_process_that_is_starting_is_waited_for_while_shorter_trials_end(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_sweeps.sweep import ray_tune

    loaded = tmp_path / "loaded"
    loaded.mkdir()
    monkeypatch.setattr(ray_tune, "run_in_worker", SlowSecond(ray_tune.run_in_worker, loaded))
    assert worked(tmp_path / "store") > 12
    assert len(asked) == 2, "two trials at once, each in a process of its own"


def test_phases_that_take_different_resources_do_not_end_each_others_processes(
    asked: list[Any], tmp_path: Path
) -> None:
    """Two searches at once, of a GPU each; in strict order retrains go after every two."""
    assert worked(tmp_path / "store", resources={"gpus": 1}, methods=["darts"]) > 6
    assert len(asked) <= 4
