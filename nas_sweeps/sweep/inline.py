"""The inline executor: this process, one trial after another. It needs no Ray."""

from __future__ import annotations

import math

import torch

from nas_sweeps.chain import Work
from nas_sweeps.cost.simulate import Room
from nas_sweeps.store.lease import Watch
from nas_sweeps.sweep.executor import Job
from nas_sweeps.sweep.stopping import wait_for
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
        job.begin(Room(((math.inf, math.inf),), slots=1))
        watch = Watch(job.store.layout, job.lease.key)
        while not job.over:
            work = job.hand_out()
            if work is not None:
                job.ended(work.trial, _run(job, work, watch))
            else:
                wait_for(lambda: job.over or job.next_phase is not None)


def _run(job: Job, work: Work, watch: Watch) -> str | None:
    """How the attempt died, if it could not even say so in the store."""
    trial = work.trial
    try:
        run_trial(
            trial,
            job.store,
            job.places,
            job.resources(trial.phase),
            verdict=watch.verdict,
        )
    except OSError as error:
        return f"could not write to the store ({error})"
    return None
