"""Where the view goes: redrawn in place on a terminal, nothing but plain lines anywhere else."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from nas_sweeps.store.records import State
from nas_sweeps.watch.draw import View, fitted
from nas_sweeps.watch.known import News
from nas_sweeps.watch.lines import line
from nas_sweeps.watch.snapshot import Snapshot
from nas_sweeps.watch.streams import quiet_after_failure

PER_SECOND = 2
STYLES: dict[str, str] = {"note": "yellow", State.FAILED: "red"}  # of news that no view shows


def redraws(console: Console) -> bool:
    """Whether a picture that moves makes sense there.

    Not in a file, even where ``FORCE_COLOR`` asks for colours in it, on a dumb terminal, or in a
    job of continuous integration (``CI=true``), whose log would keep every frame.
    """
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        return False
    forced = "FORCE_COLOR" in os.environ or "TTY_COMPATIBLE" in os.environ
    if forced and not console.file.isatty():
        return False
    return console.is_terminal and console.is_interactive and not console.is_dumb_terminal


class Display:
    """Shows snapshots while it is entered, and lines above them.

    Args:
        snapshot: asked for the newest one, also by another thread.
    """

    def __init__(self, console: Console, snapshot: Callable[[], Snapshot]) -> None:
        self.console = console
        self.moves = redraws(console)
        self._live = _Live(View(snapshot), console)
        self._showwarning = warnings.showwarning

    def __enter__(self) -> Display:
        # Today's standard output, though an executor may mute it.
        self.console.file = quiet_after_failure(self.console.file)
        if self.moves:
            self._live.start(refresh=True)
            warnings.showwarning = lambda message, *_: self.say(f"warning: {message}", "yellow")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.moves:
            warnings.showwarning = self._showwarning
            self._live.stop()

    def show(self, news: News, text: str) -> None:
        """News of a trial in words; of what the view shows anyway, nothing where there is one."""
        style = STYLES.get(news.kind, "")
        if text and (style or not self.moves):
            self.tell(news.trial.name, text, style)

    def tell(self, name: str, text: str, style: str = "") -> None:
        """Say what happened to a trial; in columns where lines may be long."""
        self.say(f"{name} | {text}" if self.moves else line(name, text), style)

    def say(self, text: str, style: str = "") -> None:
        """One line, whole where lines may be long and cut where they may not."""
        said = Text(text, style=style)
        if self.moves:
            fitted(said, self.console.width, self.console.options.ascii_only)
            self._live.print_above(said)
        else:
            self.console.print(said, highlight=False, soft_wrap=True)


class _Live(Live):
    """rich's, which leaves old lines behind when a terminal that wraps them becomes narrower."""

    def __init__(self, view: View, console: Console) -> None:
        super().__init__(view, console=console, refresh_per_second=PER_SECOND)
        self.view = view

    def refresh(self) -> None:
        with self._lock:
            self._erase_wrapped()
            super().refresh()

    def print_above(self, said: Text) -> None:
        with self._lock:
            self._erase_wrapped()
            self.console.print(said, highlight=False)

    def _erase_wrapped(self) -> None:
        """Go up by as many lines as the old ones take more at the new width."""
        (before, widths), width = self.view.drawn, self.console.width
        if width < before:
            more = sum(max(1, -(-cells // width)) for cells in widths) - len(widths)
            erase: list[Any] = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)]
            self.console.control(Control(*erase * more))
