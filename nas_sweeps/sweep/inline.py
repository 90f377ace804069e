"""The inline pool: this process, one trial after another. It needs no Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from nas_sweeps.cost.simulate import Room
from nas_sweeps.store.lease import Watch
from nas_sweeps.sweep.executor import Ended, Pool, Setting
from nas_sweeps.sweep.reuse import give_back
from nas_sweeps.sweep.worker import run_trial
from nas_sweeps.trial import Resources

WHERE = "this machine, as torch sees it,"


def room_here() -> Room:
    """CPUs are shared by whatever number of threads a trial asks for."""
    return Room(((math.inf, math.inf if torch.cuda.is_available() else 0.0),), slots=1)


class InlinePool(Pool):
    """Runs a trial while its end is waited for. Same bits as any other pool."""

    where = WHERE

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.started: list[tuple[str, Resources]] = []

    def room(self) -> Room:
        return room_here()

    def start(self, trial_id: str, resources: Resources) -> None:
        self.started.append((trial_id, resources))

    def ended(self, timeout_s: float) -> Sequence[Ended]:
        """Runs the trial that was started, however long it takes."""
        if not self.started:
            time.sleep(timeout_s)
            return []
        (trial_id, resources), store = self.started.pop(), self.setting.store
        watch = Watch(store.layout, self.setting.driver, trial_id)

        def stop_reason() -> str | None:
            self.setting.look()
            return watch.stop_reason()

        try:
            run_trial(
                store.spec(trial_id),
                store,
                self.setting.places,
                resources,
                stop_reason=stop_reason,
                driver=self.setting.driver,
            )
        except OSError as error:
            return [Ended(trial_id, f"could not write to the store ({error})")]
        finally:
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                give_back()  # the next trial may need all of the GPU
        return [Ended(trial_id)]
