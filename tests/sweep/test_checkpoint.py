"""A checkpoint that is whole is gone on from or refused aloud; nothing starts again in silence.

The runs are fake; train/test_runs.py shows that real ones refuse a state that lacks a part.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import nas_sweeps as ns
from nas_sweeps.store.files import LocalFiles
from nas_sweeps.store.layout import Layout
from nas_sweeps.sweep import checkpoint as module
from nas_sweeps.sweep.checkpoint import FORMAT, CheckpointNotUsable, Damaged, digest, read
from nas_sweeps.sweep.run import run
from nas_sweeps.testing import FakeSearch
from tests.sweep.tiny import TINY

pytestmark = pytest.mark.usefixtures("fake_runs")
RECIPE = TINY["search"]["recipe"] | {"epochs": 2}
GRID = ns.Grid.from_dict(
    TINY
    | {"search": TINY["search"] | {"methods": ["darts"], "recipe": RECIPE}}
    | {"retrain": {"winners": "none"}}
)


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose search finished one of two epochs."""
    original = FakeSearch.run_epoch

    def one_epoch(self: FakeSearch, *between: Any) -> Any:
        if self.epochs_done == 1:
            raise KeyboardInterrupt
        return original(self, *between)

    with monkeypatch.context() as patch:
        patch.setattr(FakeSearch, "run_epoch", one_epoch)
        with pytest.raises(KeyboardInterrupt):
            run(GRID, tmp_path, executor="inline", console="none")
    return tmp_path


def go_on(store: Path, **options: Any) -> tuple[bool, str]:
    """Whether the grid is complete, and what the terminal shows."""
    page = io.StringIO()
    console = Console(file=page, width=200, no_color=True)
    complete = run(GRID, store, executor="inline", console=console, **options).complete
    return complete, page.getvalue()


def the_checkpoint(store: Path) -> Path:
    (path,) = store.glob("trials/*/*.checkpoint.pt")
    return path


def rewrite(path: Path, data: bytes) -> Path:
    """Other bytes, under a name that says that they are right."""
    writer, rest = path.name.split(".", 1)
    path.unlink()
    other = path.with_name(f"{writer}.{rest[:4]}-{digest(data)}.checkpoint.pt")
    other.write_bytes(data)
    return other


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    state = torch.load(path, weights_only=True)
    change(state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return rewrite(path, buffer.getvalue())


def no_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSearch, "run_epoch", lambda *_: pytest.fail("an epoch was computed"))


class Bomb:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.target, "w")


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "lacks a key of the run": (lambda state: state["run"].popitem(), "KeyError"),
    "of a later version": (lambda s: s.update(format=FORMAT + 1), f"its format is {FORMAT + 1}"),
    "lacks a part": (lambda state: state.pop("rows"), "rows"),
    "of another device": (lambda s: s.update(device="cuda"), "it was computed on cuda"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_a_whole_checkpoint_that_cannot_be_used_fails_the_trial_and_says_what_to_do(
    change: Callable[[dict[str, Any]], object],
    said: str,
    stopped: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = changed(the_checkpoint(stopped), change)
    with monkeypatch.context() as patch:
        no_epoch(patch)
        complete, shown = go_on(stopped)
    assert not complete
    failed = ns.load(stopped).trials.iloc[0]
    assert (failed.state, failed.error_class) == ("failed", "CheckpointNotUsable")
    assert said in failed.error_message
    for text in (failed.error_message, shown):
        assert str(path) in text
        assert "Run with --retry failed" in text
        assert "or remove the file" in text
    assert path.exists(), "it is for people to remove"
    path.unlink()
    assert go_on(stopped, retry="failed")[0], "what the message says can be done"


def test_no_code_of_a_stranger_runs(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(the_checkpoint(stopped), pickle.dumps(Bomb(str(stopped / "it ran code"))))
    no_epoch(monkeypatch)
    assert not go_on(stopped)[0]
    assert not (stopped / "it ran code").exists()
    assert ns.load(stopped).trials.error_class.tolist() == ["CheckpointNotUsable"]


def test_a_damaged_checkpoint_is_said_on_the_terminal(stopped: Path) -> None:
    path = the_checkpoint(stopped)
    path.write_bytes(path.read_bytes()[:-1])
    complete, shown = go_on(stopped)
    assert complete
    assert "no checkpoint is whole (1 damaged): it starts again" in shown
    assert ns.load(stopped).attempts.epochs_from.tolist() == [0, 0]


def test_a_store_that_does_not_answer_is_no_damage(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(LocalFiles(stopped))
    path = the_checkpoint(stopped)
    attempt = layout.trial(path.parent.name).newest
    assert attempt is not None
    (held,) = attempt.checkpoints()
    assert read(held).rows[0]["epoch"] == 1

    def fails(self: LocalFiles, key: str) -> bytes:
        raise OSError("the network is away")

    monkeypatch.setattr(LocalFiles, "read", fails)
    with pytest.raises(OSError, match="away"):
        read(held)
    monkeypatch.undo()
    path.unlink()
    with pytest.raises(Damaged):
        read(held)


def test_every_format_has_a_way_to_that_of_today() -> None:
    assert set(module._MIGRATIONS) == set(range(1, FORMAT))


def test_a_state_that_no_checkpoint_can_hold_fails_at_its_first_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = FakeSearch.state_dict
    monkeypatch.setattr(FakeSearch, "state_dict", lambda s: original(s) | {"path": tmp_path})
    assert not go_on(tmp_path)[0]
    failed = ns.load(tmp_path).trials.iloc[0]
    assert failed.error_class == CheckpointNotUsable.__name__
    assert failed.epochs == 0
