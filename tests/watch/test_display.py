"""A view that moves where it can, and lines where it cannot."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from nas_sweeps.watch.display import Display
from nas_sweeps.watch.snapshot import Snapshot

NONE = {"done": 0, "failed": 0, "running": 0, "waiting": 1, "blocked": 0}
SHOT = Snapshot(counts={"search": NONE, "retrain": NONE})
FAILED = "FAILED TrainingDiverged: loss is nan; lower the recipe's lr (trial s-0123456789abcdef)"


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def terminal(width: int = 60, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(file=file, width=width, height=20, force_terminal=True, color_system=None)


def written(console: Console) -> str:
    console.file.flush()
    return console.file.buffer.getvalue().decode(console.encoding)  # type: ignore[attr-defined]


def shown(console: Console) -> str:
    with Display(console, lambda: SHOT) as display:
        display.tell("search darts balance s0", FAILED, "red")
    return written(console)


def test_a_failure_is_one_line_above_the_view() -> None:
    text = shown(terminal())
    at = text.index("search darts balance s0 | FAILED TrainingDiverged: loss is")
    line = text[at:].splitlines()[0]
    assert len(line) == 60
    assert line.endswith("…")
    assert "0/1  1 to do" in text[:at]
    assert "0/1  1 to do" in text[at:]


@pytest.mark.parametrize(
    "environment",
    [{"CI": "true"}, {"CI": "1"}, {"TERM": "dumb"}, {"FORCE_COLOR": "1"}],
    ids=lambda environment: str(*environment.items()),
)
def test_nothing_moves_where_it_would_be_kept(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert shown(terminal()) == f"{'search darts balance s0':<46} | {FAILED}\n"


def test_nothing_moves_in_a_file() -> None:
    file = io.StringIO()
    with Display(Console(file=file), lambda: SHOT) as display:
        display.tell("a trial", "done")
    assert file.getvalue() == f"{'a trial':<46} | done\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_code_page_is_enough(encoding: str) -> None:
    console = terminal(encoding=encoding)
    with Display(console, lambda: SHOT) as display:
        display.say("ValueError: Größe 漢 … ✗")
    assert "Gr??e" in written(console) or "Größe" in written(console)


def test_a_warning_does_not_tear_the_view() -> None:
    import warnings

    console = terminal()
    with Display(console, lambda: SHOT), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a file is damaged", stacklevel=1)
    assert "warning: a file is damaged" in written(console)


def test_lines_that_a_narrower_terminal_has_wrapped_are_erased() -> None:
    console = terminal(80)
    display = Display(console, lambda: SHOT)
    with display:
        console.width = 40
        before = len(written(console))
        display.say("news")
        up = written(console)[before:].split("news")[0].count("\x1b[1A")
    assert up > 2, "three lines were drawn, and two of them are two lines now"
