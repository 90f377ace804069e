"""Live progress: a table that redraws on a terminal, plain lines anywhere else."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from nas_sweeps.chain import PHASES, Chain, Work
from nas_sweeps.store import Result
from nas_sweeps.trial import SearchTrial, Trial


def describe(work: Work) -> str:
    """A trial in a few words, as in every line that a person reads."""
    trial = work.trial
    if isinstance(trial, SearchTrial):
        what = trial.method.name
    else:
        what = "+".join(dict.fromkeys(origin.method for origin in work.origins))
        what += " barlow" if trial.recipe.pretrain else ""
    return f"{trial.phase} {what} {trial.distribution} s{trial.seed}"


class Progress:
    """Watches a run. Use as a context manager around it."""

    def __init__(self, chain: Chain, console: Console | None = None) -> None:
        self.chain = chain
        self.console = console or Console()
        self.running: dict[str, dict[str, Any]] = {}  # trials by id: their latest row
        self.names: dict[str, str] = {}
        self.live = Live(console=self.console, refresh_per_second=2, get_renderable=self.render)

    def __enter__(self) -> Progress:
        self.console.file = self.console.file  # today's stdout, though an executor may mute it
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self.running.clear()
            self.live.stop()

    # What happens

    def started(self, work: Work) -> None:
        self.running[work.trial.trial_id] = {}
        self.names[work.trial.trial_id] = describe(work)

    def epoch(self, trial: Trial, row: dict[str, Any]) -> None:
        self.running[trial.trial_id] = row
        if not self.console.is_terminal:
            self._line(trial, epoch_columns(row))

    def again(self, trial: Trial, why: str) -> None:
        self.running.pop(trial.trial_id, None)
        self._line(trial, f"tried again: {why}")

    def settled(self, trial: Trial, result: Result) -> None:
        self.running.pop(trial.trial_id, None)
        if result.state == "failed":
            error = f"{result.error_class}: {result.error_message}"
            self._line(trial, f"FAILED {error} (trial {trial.trial_id})")
        elif not self.console.is_terminal:
            accuracy, wall_s = result.metrics["accuracy_balanced"], result.cost["wall_s"]
            self._line(trial, f"done, test {accuracy:.1%}, {wall_s:.0f} s; {self.tally()}")

    def _line(self, trial: Trial, text: str) -> None:
        name = self.names[trial.trial_id]
        self.console.print(f"{name:<40} | {text}", markup=False, highlight=False, soft_wrap=True)

    # How it looks

    def tally(self) -> str:
        """Done of planned, by phase."""
        counts = self.chain.counts()
        return ", ".join(
            f"{phase} {counts[phase]['done']}/{sum(counts[phase].values())}" for phase in PHASES
        )

    def render(self) -> Group:
        """The whole picture: a bar per phase, a line per running trial."""
        counts = self.chain.counts()
        bars = Table.grid(padding=(0, 2))
        for phase in PHASES:
            of = counts[phase]
            total = sum(of.values())
            detail = "  ".join(f"{n} {state}" for state, n in of.items() if n)
            bar = ProgressBar(total=max(total, 1), completed=of["done"], width=24)
            bars.add_row(phase, bar, f"{of['done']}/{total}", detail)
        lines = Table.grid(padding=(0, 2))
        for trial_id, row in list(self.running.items()):  # drawn by another thread
            lines.add_row(self.names[trial_id], epoch_columns(row) if row else "starting")
        return Group(bars, lines)


def epoch_columns(row: dict[str, Any]) -> str:
    """An epoch in fixed columns, with what is left of the trial at this epoch's pace."""
    accuracy = row.get("accuracy_balanced")
    tested = f"test {accuracy:6.1%}" if accuracy is not None else " " * 11
    left = (row["epochs_total"] - row["epoch"]) * row["epoch_s"]
    return (
        f"{row['stage']:<8} {row['epoch']:>3}/{row['epochs_total']:<3} | "
        f"loss {row['loss_weights']:7.3f} | {tested} | {row['epoch_s']:5.1f} s | eta {span(left)}"
    )


def span(seconds: float) -> str:
    """Seconds as 45s, 12m or 3h05m."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f}s"
    return f"{minutes}m" if minutes < 100 else f"{minutes // 60}h{minutes % 60:02d}m"


class Silence:
    """Watches without a word, for calls from Python that want none."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: object) -> None: ...
    def started(self, work: Work) -> None: ...
    def epoch(self, trial: Trial, row: dict[str, Any]) -> None: ...
    def again(self, trial: Trial, why: str) -> None: ...
    def settled(self, trial: Trial, result: Result) -> None: ...
