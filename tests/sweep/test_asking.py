"""What is asked of a run that works, from another terminal: pause, resume, cancel."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import nas_sweeps as ns
from nas_sweeps.store import Store
from nas_sweeps.store import requests as the_requests
from nas_sweeps.store.driver import DriverMonitor
from nas_sweeps.store.layout import Writer
from nas_sweeps.store.lease import Lease
from nas_sweeps.store.ledger import grid_digest
from nas_sweeps.store.requests import Inbox, Request, ask
from nas_sweeps.sweep import asking
from nas_sweeps.sweep.run import Summary, run
from nas_sweeps.testing import fake
from tests.faked import SWITCH
from tests.sweep.tiny import TINY
from tests.verbs import cli

GONE = 2**22 + 1  # beyond Linux's largest pid
SEARCHES = {"epochs": 25, "channels": 2, "layers": 3, "batch_size": 8}  # of 0.08 s an epoch


def grid(**search: Any) -> ns.Grid:
    return ns.Grid.from_dict(TINY | {"search": TINY["search"] | {"recipe": SEARCHES} | search})


@pytest.fixture(autouse=True)
def soon(fake_runs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(the_requests.EVERY_S, False, 0.05)
    monkeypatch.setenv(fake.STEP_S, "0.02")


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def until(condition: Callable[[], Any], limit_s: float = 60.0) -> None:
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.02)


def works(beside: ThreadPoolExecutor, store: Path, a_grid: ns.Grid) -> Future[Summary]:
    """A run in another thread, whose first trial has begun to compute."""
    started = beside.submit(run, a_grid, store, executor="inline", console="none")
    until(lambda: started.done() or list(store.glob("trials/*/*.checkpoint.pt")))
    return started


def states(store: Path) -> list[str]:
    return list(ns.load(store).attempts.state)


@pytest.mark.system
def test_a_paused_run_lives_and_starts_nothing_and_goes_on_from_its_checkpoint(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    running = works(beside, tmp_path, grid())
    paused = cli("pause", tmp_path)
    assert (paused.returncode, "paused: nothing starts" in paused.stdout) == (0, True)
    until(lambda: states(tmp_path) == ["stopped"])
    assert ", paused" in cli("status", tmp_path).stdout
    assert "it is paused already" in cli("pause", tmp_path).stdout
    time.sleep(0.7)  # in which the loop looks at least once
    assert states(tmp_path) == ["stopped"], "nothing starts"
    assert not running.done()
    assert "it goes on" in cli("resume", tmp_path).stdout
    assert running.result().complete
    attempts = ns.load(tmp_path).attempts
    assert sorted(attempts.state) == ["done"] * 4 + ["stopped"]
    assert attempts.epochs_from.max() > 0
    assert not list(tmp_path.glob("requests/*"))


def test_cancelled_trials_stop_and_the_next_run_takes_them_up(
    tmp_path: Path, beside: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = works(beside, tmp_path, grid())
    asked = cli("cancel", tmp_path, "--only", "method == 'darts'")
    assert asked.returncode == 0, asked.stderr
    assert "cancelled: 2 of what is planned" in asked.stdout, (
        "a search and the retrain that it leads to"
    )
    until(lambda: "stopped" in states(tmp_path))
    monkeypatch.setenv(fake.STEP_S, "0.001")
    summary = running.result()
    assert not summary.complete
    assert (summary.cancelled, summary.failed, summary.started) == (2, 0, 3)
    done = ns.load(tmp_path).trials
    assert done[done.state == "done"].method.tolist() == ["fairdarts"] * 2
    assert "stopped" in states(tmp_path)
    assert run(grid(), tmp_path, executor="inline", console="none").complete


def test_a_wrong_question_is_one_message_and_asks_nothing(
    tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    Store(tmp_path).create()
    for verb in (["pause"], ["resume"], ["cancel", "--only", "seed == 0"]):
        nobody = cli(verb[0], tmp_path, *verb[1:])
        assert nobody.returncode == 2
        assert f"no run works on it, so there is none to {verb[0]}" in nobody.stderr
    assert cli("pause", tmp_path / "nothing").returncode == 2
    with Lease(Store(tmp_path).layout, "tiny", grid=grid_digest(grid().to_json())):
        Store(tmp_path).keep_grid(grid().to_json())
        for query, said in [
            ("metod == 'darts'", "write a condition on"),
            ("method == 'ssf_nas'", "none of the 4 planned trials"),
        ]:
            wrong = cli("cancel", tmp_path, "--only", query)
            assert (wrong.returncode, said in wrong.stderr) == (2, True)
        assert "it is not paused" in cli("resume", tmp_path).stdout
    assert not list(tmp_path.glob("requests/*"))


def test_a_run_that_does_not_answer_is_said_and_one_that_ends_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.create()
    monkeypatch.setattr(asking, "ANSWER_S", 0.2)
    with Lease(store.layout, "busy") as lease:
        assert "not answered" in asking.pause(store, wait=lambda s: time.sleep(0.1))
        monkeypatch.setattr(asking, "ANSWER_S", 20)
        with pytest.raises(ValueError, match="the run ended before it was asked"):
            asking.pause(store, wait=lambda s: lease.layout.driver(lease.writer).remove())  # type: ignore[arg-type]


def test_a_driver_reads_what_is_asked_of_it_in_order_and_of_no_other(tmp_path: Path) -> None:
    layout, mine, other = Store(tmp_path).layout, Writer(2, "abcdef"), Writer(1, "abcdef")
    ask(layout, other, Request(what="pause"))
    for query in ("seed == 0", "seed == 1"):
        ask(layout, mine, Request(what="cancel", only=query))
    ask(layout, mine, Request(what="resume"))
    inbox = Inbox(layout, mine, every_s=0)
    assert [(r.what, r.only) for r, _ in inbox.poll()] == [
        ("cancel", "seed == 0"),
        ("cancel", "seed == 1"),
        ("resume", None),
    ]
    assert inbox.poll() == [], "once each, though nothing was removed"
    assert len(layout.requests()) == 4
    layout.driver(mine).publish_json({})
    inbox.clean_up()
    assert {driver for driver, _ in layout.requests()} == {mine}


KILLED = """
import os, sys
from nas_sweeps.store import Store
from nas_sweeps.store.lease import Lease
from nas_sweeps.store.requests import Request, ask
layout = Store(sys.argv[1]).layout
lease = Lease(layout, "tiny")
lease.__enter__()
lease.tell(paused=True, halted=[])
ask(layout, lease.writer, Request(what="pause"))
os.kill(os.getpid(), 9)
"""


def test_a_driver_that_is_killed_while_paused_holds_up_no_other(tmp_path: Path) -> None:
    Store(tmp_path / "s").create()
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "s")], env=os.environ | SWITCH)
    (record,) = (tmp_path / "s" / "drivers").iterdir()
    assert '"paused": true' in record.read_text()
    file = tmp_path / "grid.json"
    file.write_text(ns.Grid.from_dict(TINY).to_json())
    done = cli("run", file, "--store", tmp_path / "s", "--executor", "inline")
    assert done.returncode == 0, done.stderr
    assert "the run before was paused when it died; this one is not" in done.stdout
    assert not list((tmp_path / "s" / "requests").iterdir())
    assert DriverMonitor(Store(tmp_path / "s").layout).driver() is None
