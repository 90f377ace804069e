"""cluster/slurm/sweep.sbatch: when a job is queued again, and that signals reach the run.

Slurm's and Ray's commands are stand-ins here; tests/slurm/try.sh has the real ones.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SBATCH = Path(__file__).resolve().parents[2] / "cluster/slurm/sweep.sbatch"
RUNNING = "JobState=RUNNING Reason=None PreemptTime=None"
CANCELLED = "JobState=COMPLETING Reason=None PreemptTime=None"
AT_ITS_LIMIT = "JobState=COMPLETING Reason=TimeLimit PreemptTime=None"
PREEMPTED = "JobState=COMPLETING Reason=None PreemptTime=2026-11-27T08:00:00"


@dataclass
class Case:
    signal: int | None  # what Slurm sends to the shell of the job
    ends_with: int  # exit code of the run
    about: str  # what scontrol says then
    again: bool  # whether the job is queued again


CASES = {
    "done": Case(None, 0, RUNNING, False),
    "some failed": Case(None, 1, RUNNING, False),
    "a budget is spent": Case(None, 143, RUNNING, False),
    "before the limit": Case(signal.SIGTERM, 143, RUNNING, True),
    "done as it came": Case(signal.SIGTERM, 0, RUNNING, False),
    "too slow at the limit": Case(signal.SIGTERM, 143, AT_ITS_LIMIT, True),
    "preempted": Case(signal.SIGTERM, 143, PREEMPTED, True),
    "scancel": Case(signal.SIGTERM, 143, CANCELLED, False),
    "stopped by a person": Case(signal.SIGINT, 130, RUNNING, False),
}
# srun starts what follows `--` of symmetric-run, on one node.
STAND_INS = {
    "srun": 'while [[ $1 != -- ]]; do shift; done; shift; exec "$@"',
    "python": "echo token",
    "scontrol": '[[ $1 == show ]] && echo "$ABOUT" || echo "$@" >>"$SLURM_SUBMIT_DIR/asked"',
}
# The run: waits for a signal where one is to come, and says which came. Not a script of the shell,
# which cannot take an INT that was ignored when it started, as in what another shell put behind it.
RUN = f"""#!{sys.executable} -S
import os, signal, sys, time
folder, code = os.environ["SLURM_SUBMIT_DIR"], int(os.environ["ENDS_WITH"])
def handle(number, frame):
    with open(f"{{folder}}/came", "a") as file:
        print(signal.Signals(number).name, file=file)
    sys.exit(code)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, handle)
with open(f"{{folder}}/run.tmp", "w") as file:
    print(*sys.argv[1:], file=file)
os.rename(f"{{folder}}/run.tmp", f"{{folder}}/run")
time.sleep(60 if os.environ["WAITS"] else 0)
sys.exit(code)
"""


def started(folder: Path, case: Case) -> subprocess.Popen[str]:
    commands = folder / ".venv/bin"
    commands.mkdir(parents=True)
    scripts = {name: f"#!/bin/bash\n{script}\n" for name, script in STAND_INS.items()}
    for name, script in (scripts | {"nas-sweeps": RUN}).items():
        (commands / name).write_text(script)
        (commands / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "4"}
    environment = (
        os.environ
        | job
        | {
            "SLURM_SUBMIT_DIR": str(folder),
            "ENDS_WITH": str(case.ends_with),
            "ABOUT": case.about,
            "WAITS": "yes" if case.signal else "",
            "TMPDIR": str(folder),
        }
    )
    return subprocess.Popen(
        ["bash", SBATCH, "grid.yaml", "--store", "a b"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell cannot trap what was ignored when it started, as INT is behind `&`.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int]]:
    """Every case, side by side: the folder in which it left its traces, and its exit code."""
    folders = {name: tmp_path_factory.mktemp("job") for name in CASES}
    running = {name: started(folders[name], case) for name, case in CASES.items()}
    for name, job in running.items():
        until = time.monotonic() + 30
        while not (folders[name] / "run").exists() and time.monotonic() < until:
            time.sleep(0.02)
        if CASES[name].signal:
            job.send_signal(CASES[name].signal or 0)
    for job in running.values():
        job.communicate(timeout=60)
    return {name: (folders[name], job.returncode) for name, job in running.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_job_is_queued_again_exactly_where_slurm_stopped_it(
    name: str, jobs: dict[str, tuple[Path, int]]
) -> None:
    (folder, code), case = jobs[name], CASES[name]
    assert code == case.ends_with
    asked = folder / "asked"
    assert (asked.read_text() if asked.exists() else "") == ("requeue 7\n" if case.again else "")
    if case.signal:
        assert (folder / "came").read_text() == f"{signal.Signals(case.signal).name}\n"
    run = (folder / "run").read_text()
    assert run == "run --address auto --deadline none grid.yaml --store a b\n"


def test_options_of_sbatch_stand_before_the_first_command() -> None:
    """Slurm reads none after it, and takes a comment behind one for a part of its value."""
    head, _, body = SBATCH.read_text().partition("\nset ")
    assert "#SBATCH" not in body
    options = [line for line in head.splitlines() if line.startswith("#SBATCH")]
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in options)
    assert {"#SBATCH --exclusive", "#SBATCH --requeue", "#SBATCH --open-mode=append"} <= {*options}
    assert "#SBATCH --signal=B:TERM@120" in options
