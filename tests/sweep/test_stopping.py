"""A run that ends leaves with its own exit code, and leaves no process behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SIGTERM_TAKEN = """
import ctypes, os, signal, sys, time
from nas_sweeps.sweep import stopping
stopping.GRACE_S = 0.1
try:
    with stopping.stopped_by_signals(lambda reason: None):
        os.kill(os.getpid(), signal.SIGTERM)
        ctypes.CDLL(None).signal(signal.SIGTERM, None)  # as Ray's C++ does when it shuts down
        time.sleep(60)
except stopping.Interrupted as stopped:
    sys.exit(stopped.exit_code)
"""

STUCK = """
import os, signal, subprocess, sys, time
from nas_sweeps.sweep import stopping
stopping.GRACE_S = stopping.STUCK_S = 0.1
started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(started.pid, flush=True)
with stopping.stopped_by_signals(lambda reason: None, os._exit):
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass  # as native code that does not return
"""
HANGUP = """
import os, signal, sys, time
from nas_sweeps.sweep import stopping
asked = []
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[1]))
try:
    with stopping.stopped_by_signals(asked.append):
        os.kill(os.getpid(), signal.SIGHUP)  # twice: by the terminal, and by the shell in it
        os.kill(os.getpid(), signal.SIGHUP)
        asked.append("a step")
except stopping.Interrupted as stopped:
    print(*asked, sep=", ")
    sys.exit(stopped.exit_code)
print(*asked)
"""
HELD_BACK = """
import os, signal, subprocess, sys, time
from nas_sweeps.sweep import stopping
came = []
signal.signal(signal.SIGHUP, lambda number, _: came.append(number))
sleep = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
with stopping.hangup_held_back():
    spared = subprocess.Popen(sleep, stdout=subprocess.PIPE)
struck = subprocess.Popen(sleep, stdout=subprocess.PIPE)
for process in (spared, struck):
    process.stdout.readline()
os.killpg(0, signal.SIGHUP)
print(struck.wait(), spared.poll(), came)
spared.kill()
"""
SLOW_WORKER = """
import atexit, os, time
import ray  # before us, in a home that has the token of a cluster
os.environ["RAY_AUTH_TOKEN"] = "a token of thirty-two characters"
from nas_sweeps.sweep.ray_session import session

@ray.remote
class Worker:
    def slow(self):
        atexit.register(time.sleep, 600)  # as on a busy machine, with a large heap to take down
        return os.getpid()

with session(None):
    worker = Worker.remote()
    print(ray.get(worker.slow.remote()), flush=True)
    del worker  # told to go, it has left Ray, which therefore would not kill it
"""


def script(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        start_new_session=True,
    )


def test_a_library_that_takes_sigterm_away_does_not_change_how_a_run_ends() -> None:
    done = script(SIGTERM_TAKEN)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "stopping after the steps" in done.stderr


def test_a_terminal_that_closes_stops_a_run_and_under_nohup_it_does_not() -> None:
    closed = script(HANGUP, "SIG_DFL")
    assert closed.returncode == 128 + signal.SIGHUP, closed.stderr
    assert closed.stdout == "SIGHUP came, a step\n", "the step that runs is finished"
    nohup = script(HANGUP, "SIG_IGN")
    assert (nohup.returncode, nohup.stdout) == (0, "a step\n"), nohup.stderr


def test_a_terminal_that_closes_does_not_kill_what_ray_has_started() -> None:
    done = script(HELD_BACK)
    assert done.stdout.split() == [str(-signal.SIGHUP), "None", f"[{int(signal.SIGHUP)}]"], (
        done.stderr
    )


def test_a_process_that_is_stuck_takes_with_it_what_it_started() -> None:
    done = script(STUCK)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert not alive(int(done.stdout))


@pytest.mark.system
def test_workers_that_are_slow_to_go_end_with_the_ray_session() -> None:
    done = script(SLOW_WORKER)
    assert done.returncode == 0, done.stderr
    assert not alive(int(done.stdout))


def alive(pid: int) -> bool:
    """Still there after some seconds: what was killed needs a moment on a busy machine."""
    try:
        left = psutil.Process(pid)
        left.wait(timeout=10)
    except psutil.NoSuchProcess:
        return False
    except psutil.TimeoutExpired:
        return left.status() != psutil.STATUS_ZOMBIE
    return False
