"""Ctrl-C, SIGTERM and SIGHUP: running trials publish where they are, and the process ends in 10 s.

The first signal asks every worker to end after the step it is in; the run then winds down as if
nothing were left to do. What has not ended after ``GRACE_S``, or at a second signal, is given up:
its last checkpoint stands.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

GRACE_S = 6.0  # for the steps that are running, and the checkpoints after them
STUCK_S = 3.0  # more for the executor; after that only ``last_resort`` helps
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A run was stopped by a signal. Everything finished is kept."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def announce(text: str) -> None:
    """Say a line from within a signal handler.

    Not by print: the interrupted code may be in the middle of one.
    """
    with suppress(OSError):  # the terminal may be gone
        os.write(2, f"{text}\n".encode())


def obeyed() -> tuple[signal.Signals, ...]:
    """The signals that stop a run. Under ``nohup``, which has SIGHUP ignored, it stays ignored."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return tuple(s for s in SIGNALS if s != signal.SIGHUP or not ignored)


@contextmanager
def stopped_by_signals(
    stop: Callable[[str], None],
    last_resort: Callable[[int], None] | None = None,
    say: Callable[[str], None] = announce,
) -> Iterator[None]:
    """Inside, the first signal calls ``stop`` with a reason; outside, handlers are as before.

    Only the main thread can do this; in any other, signals are left alone.

    Args:
        last_resort: called with the exit code, from a thread, when the block has not been left
            ``GRACE_S + STUCK_S`` after the first signal, as when native code does not return;
            everything that this process had started is killed before.

    Raises:
        Interrupted: on leaving, if a signal came; at once, at the second or after ``GRACE_S``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left = threading.Event()
    first: list[int] = []

    def hurry() -> None:
        offspring = psutil.Process().children(recursive=True)  # later some have lost their parent
        if not left.wait(GRACE_S):
            main = threading.main_thread().ident
            assert main is not None
            # Also out of a system call. Not by SIGTERM, which ray.shutdown sets to its default.
            signal.pthread_kill(main, signal.SIGINT)
        if not left.wait(STUCK_S) and last_resort is not None:
            kill(offspring)
            last_resort(128 + first[0])

    def handle(number: int, frame: FrameType | None) -> None:
        if first and number == signal.SIGHUP:
            return  # a terminal that closes sends it twice: itself, and by its shell
        if first:
            raise Interrupted(first[0])
        first.append(number)
        say("stopping after the steps that are running; once more to stop at once")
        stop(f"{signal.Signals(number).name} came")
        threading.Thread(target=hurry, name="hurry", daemon=True).start()

    before = {number: signal.signal(number, handle) for number in obeyed()}
    try:
        yield
    except KeyboardInterrupt:
        if first:  # native code that is interrupted makes a plain one of ours
            raise Interrupted(first[0]) from None
        raise
    finally:
        left.set()
        for number, handler in before.items():
            signal.signal(number, handler)
    if first:
        raise Interrupted(first[0])


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kill those of ``processes`` that are alive, and no other that has come by their number."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def hangup_held_back() -> Iterator[None]:
    """Processes that this thread starts inside never get SIGHUP.

    A terminal that closes would send it to all of them, and so kill workers before their
    checkpoint. One that comes to this process is handled at the end if not before.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Whatever a library does to the handlers inside, they are as before at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for(condition: Callable[[], bool], step_s: float = 0.05) -> None:
    """Sleep until a condition holds; signals are still handled."""
    while not condition():
        time.sleep(step_s)
