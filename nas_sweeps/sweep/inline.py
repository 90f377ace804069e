"""The inline executor: this process, one trial after another. It needs no Ray."""

from __future__ import annotations

import torch

from nas_sweeps.sweep.executor import Job
from nas_sweeps.sweep.worker import run_trial


class InlineExecutor:
    """For debugging, a notebook, or a GPU without Ray. Same bits as any other executor."""

    def run(self, job: Job) -> None:
        """Raises ValueError when a phase asks for a GPU and torch sees none."""
        for phase in job.phases:
            if job.resources(phase).gpus and not torch.cuda.is_available():
                raise ValueError(
                    f"{phase}.resources.gpus: {job.resources(phase).gpus:g} asked for, but torch "
                    f"sees no GPU here; use --set {phase}.resources.gpus=0 or another machine"
                )
        while (work := job.hand_out()) is not None:
            trial = work.trial
            result = run_trial(
                trial,
                job.store,
                job.places,
                job.resources(trial.phase),
                on_epoch=lambda row, trial=trial: job.watcher.epoch(trial, row),  # type: ignore[misc]
            )
            job.settle(trial, result)
