"""Looking never writes: every reading verb leaves a store byte for byte as it was."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import nas_sweeps as ns
from nas_sweeps.cli import app
from nas_sweeps.report import page
from nas_sweeps.store import Store
from nas_sweeps.store.layout import Writer
from nas_sweeps.watch.follow import Follower
from nas_sweeps.watch.status import watch
from tests.fixtures.make_store import GRID

FIXTURE = Path(__file__).parent / "fixtures" / "store_v4.tar.xz"
SEARCH = "s-8bea260dc9fdb047"
Look = Callable[[Path, Path], object]  # at a store, with a folder for what is written elsewhere


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Trials in every state, compacted tables of an older version, and a driver that lives."""
    with tarfile.open(FIXTURE) as packed:
        packed.extractall(tmp_path, filter="data")
    folder = tmp_path / "store_v4"
    here = {"host": socket.gethostname(), "pid": os.getpid(), "doing": "older", "held": True}
    Store(folder).layout.driver(Writer(7, "abcdef")).publish_json(here)
    return folder


def verb(*arguments: str) -> Look:
    """A command, with STORE and OUT for the two folders."""

    def look(store: Path, out: Path) -> None:
        given = [a.replace("STORE", str(store)).replace("OUT", str(out)) for a in arguments]
        done = CliRunner().invoke(app, given, catch_exceptions=False)
        assert done.exit_code == 0, done.output

    return look


def plan(store: Path, out: Path) -> None:
    grid = out / "grid.yaml"
    grid.write_text(json.dumps(GRID))
    verb("plan", str(grid), "--store", "STORE", "--verbose")(store, out)


def watched(store: Path, out: Path) -> None:
    """For two polls; then as by Ctrl-C."""
    polls = iter([None, None])

    def wait(seconds: float) -> None:
        if next(polls, "over") == "over":
            raise KeyboardInterrupt

    watch(Store(store), Console(file=io.StringIO()), 5.0, wait=wait)


def loaded(store: Path, out: Path) -> None:
    frames = ns.load(store)
    assert all(len(getattr(frames, name)) for name in ("trials", "epochs", "attempts", "alphas"))
    ns.load([store, store], filters=[("phase", "=", "search")])


def queried(store: Path, out: Path) -> None:
    pytest.importorskip("duckdb")
    assert len(ns.sql(store, "select * from trials")) == 4


LOOKS: dict[str, Look] = {
    "status": verb("status", "STORE"),
    "status --watch": watched,
    "plan --store": plan,
    "table": verb("table", "STORE", "--format", "markdown"),
    "report": verb("report", "STORE", "-o", "OUT/report"),
    "draw": verb("draw", SEARCH, "--store", "STORE", "-o", "OUT/cells.svg"),
    "failures": verb("failures", "STORE"),
    "logs": verb("logs", "STORE", SEARCH),
    "export": verb("export", "STORE", "OUT/curves.parquet", "--table", "epochs"),
    "compare": verb("compare", "STORE", "STORE"),
    "load": loaded,
    "sql": queried,
}


def picture(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder, hidden ones too: when it changed last, and its bytes."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        data = b"" if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(folder))] = path.stat().st_mtime_ns, data
    return found


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_looking_at_a_store_leaves_it_as_it_was(look: Look, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    before = picture(store)
    look(store, out)
    assert picture(store) == before


@pytest.fixture
def mounted(store: Path, tmp_path: Path) -> Iterator[Path]:
    """The store where nothing can be written."""
    there = tmp_path / "read only"
    there.mkdir()
    if _mount("--bind", str(store), str(there)):
        try:
            assert _mount("-o", "remount,bind,ro", str(there))
            yield there
        finally:
            subprocess.run(["umount", str(there)], check=True)
        return
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere, and cannot mount a folder here")
    paths = [store, *store.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield store
    for path in paths:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _mount(*arguments: str) -> bool:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def test_a_store_that_cannot_be_written_to_can_be_looked_at(
    mounted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Figures ask for their data here; they are drawn above.
    monkeypatch.setattr(page, "render", lambda entry, frames: page.Drawn(entry, entry.data(frames)))
    with pytest.raises(OSError):
        (mounted / "probe").touch()
    for name, look in LOOKS.items():
        out = tmp_path / f"out {name}"
        out.mkdir()
        look(mounted, out)


def test_status_and_its_watch_say_the_same_of_a_driver_whose_clock_may_be_another(
    store: Path, tmp_path: Path
) -> None:
    file = Store(store).layout.driver(Writer(7, "abcdef"))
    file.publish_json((file.read_json() or {}) | {"host": "elsewhere"})
    os.utime(file, ns=(0, 0))
    said = CliRunner().invoke(app, ["status", str(store)]).output
    assert "no run is seen to work on it: by this machine's clock, that of host elsewhere" in said
    follower = Follower(Store(store))
    follower.poll()
    assert not follower.over
    file.publish_json(file.read_json() or {})
    follower.poll()
    assert follower.driver is not None
    assert "host elsewhere" in CliRunner().invoke(app, ["status", str(store)]).output
