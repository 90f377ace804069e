"""A snapshot as lines of a terminal: none is ever wider than it, and all of them fit on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from nas_sweeps.names import HEADLINES
from nas_sweeps.store.records import State
from nas_sweeps.watch.lines import span
from nas_sweeps.watch.snapshot import Running, Snapshot, Spent

BAR = (8, 40)  # cells, at least and at most
MIN_NAME = 30  # cells of a trial's name that are worth more than a number
SEPARATOR = " | "
# What a line says beside the name, and in which order it goes when there is no room.
COLUMNS = ("stage", "epoch", "loss", "accuracy", "seconds", "memory", "left")
DROPPED = ("memory", "loss", "stage", "seconds", "accuracy")
STATE_STYLES = {
    State.PRUNED: "magenta",
    State.FAILED: "red",
    State.RUNNING: "cyan",
    State.WAITING: "",
    State.BLOCKED: "yellow",
    State.CANCELLED: "yellow",
}


class View:
    """Draws the newest snapshot at whatever size the terminal has at that moment."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self.snapshot = snapshot
        self.drawn: tuple[int, list[int]] = (0, [])  # the width it had, and that of each line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.size.height - 1  # less the cursor's line
        ascii_only = options.ascii_only
        shown = [
            fitted(line, width, ascii_only)
            for line in lines(self.snapshot(), width, height, ascii_only)
        ]
        self.drawn = width, [line.cell_len for line in shown]
        yield from shown


def fitted(line: Text, width: int, ascii_only: bool = False) -> Text:
    """Cut to the width; an ellipsis says so."""
    line.no_wrap, line.overflow = True, "crop"
    if line.cell_len > width:
        dots = "..." if ascii_only else "…"
        line.truncate(max(0, width - len(dots)), overflow="crop")
        line.append(dots[:width])
    return line


def lines(snapshot: Snapshot, width: int, height: int, ascii_only: bool = False) -> list[Text]:
    """At most ``height`` lines; of running trials as many as there is room for."""
    head = [*_bars(snapshot, width, ascii_only)]
    foot = [Text(_summary(snapshot)), *(Text(note, style="dim") for note in snapshot.notes)]
    room = max(1, height - len(head) - len(foot))
    shown = snapshot.running if len(snapshot.running) <= room else snapshot.running[: room - 1]
    trials = _trials(shown, width, ascii_only, snapshot.headline)
    hidden = len(snapshot.running) - len(shown)
    if hidden:
        trials.append(Text(f"and {hidden} more", style="dim"))
    return [*head, *trials, *foot]


def _bars(snapshot: Snapshot, width: int, ascii_only: bool) -> Iterator[Text]:
    """A line for each phase: its bar, done of planned, and the other states."""
    counts = snapshot.counts
    shares = {p: f"{counts[p][State.DONE]}/{sum(counts[p].values())}" for p in counts}
    each = max(map(len, shares.values()))
    details = {phase: _states(counts[phase]) for phase in counts}
    names = max(8, *(len(phase) + 1 for phase in counts))
    fixed = names + 2 + each + 2 + max(detail.cell_len for detail in details.values())
    cells = min(BAR[1], max(BAR[0], width - fixed))
    for phase in counts:
        start = Text(f"{phase:<{names}}")
        start.append_text(bar(counts[phase], cells, ascii_only))
        start.append(f"  {shares[phase]:>{each}}  ")
        yield start.append_text(details[phase])


def _states(counts: Mapping[State, int]) -> Text:
    parts = [
        Text(f"{counts[state]} {state.label}", style=style)
        for state, style in STATE_STYLES.items()
        if counts.get(state)
    ]
    return Text("  ").join(parts)


def bar(counts: Mapping[State, int], cells: int, ascii_only: bool = False) -> Text:
    """Done, pruned, failed and the rest, in proportion."""
    total = max(1, sum(counts.values()))
    done, left = counts[State.DONE] * cells // total, cells
    full, failure, rest = ("#", "x", "-") if ascii_only else ("━", "━", "─")
    parts = [(full * done, "green")]
    left -= done
    for state, sign in ((State.PRUNED, full), (State.FAILED, failure)):
        shown = min(left, -(-counts.get(state, 0) * cells // total))  # one shows, however few
        left -= shown
        parts.append((sign * shown, STATE_STYLES[state]))
    return Text.assemble(*parts, (rest * left, "dim"))


def _trials(
    running: tuple[Running, ...], width: int, ascii_only: bool, headline: str
) -> list[Text]:
    """A line for each trial, in columns; what does not fit is left out for all of them."""
    texts = [_columns(trial, headline) for trial in running]
    widths = {c: max((len(t[c]) for t in texts), default=0) for c in COLUMNS}
    longest = max((len(trial.name) for trial in running), default=0)
    kept = [column for column in COLUMNS if widths[column]]
    for column in DROPPED:
        if min(longest, MIN_NAME) + _room(kept, widths) <= width:
            break
        kept = [name for name in kept if name != column]
    name_width = max(1, min(longest, width - _room(kept, widths)))
    shown = []
    for trial, text in zip(running, texts, strict=True):
        name = fitted(Text(trial.name), name_width, ascii_only)
        name.pad_right(name_width - name.cell_len)
        cells = [f"{text[column]:>{widths[column]}}" for column in kept]
        shown.append(Text(SEPARATOR.join([name.plain, *cells])))
    return shown


def _room(columns: list[str], widths: Mapping[str, int]) -> int:
    return sum(widths[column] + len(SEPARATOR) for column in columns)


def _columns(trial: Running, headline: str) -> dict[str, str]:
    called = HEADLINES[headline][0]
    row, left = trial.row, f"eta {'-' if trial.left_s is None else span(trial.left_s)}"
    if row is None:
        return dict.fromkeys(COLUMNS, "") | {
            "stage": "starting",
            "epoch": span(trial.since_s),
            "left": left,
        }
    accuracy, memory = row.get(headline), row.get("peak_mem_gib")
    return {
        "stage": row["stage"],
        "epoch": f"{row['epoch']}/{row['epochs_total']}",
        "loss": f"loss {row['loss_weights']:.3f}",
        "accuracy": "" if accuracy is None else f"{called} {100 * accuracy:4.1f}",
        "seconds": f"{row['epoch_s']:.1f} s",
        "memory": "" if memory is None else f"{memory:.1f} GiB",
        "left": left,
    }


def _summary(snapshot: Snapshot) -> str:
    spent = spent_text(snapshot.spent)
    if snapshot.left_s == 0.0 and not snapshot.running:
        return spent
    return f"eta {'-' if snapshot.left_s is None else span(snapshot.left_s)} | {spent}"


def spent_text(spent: Spent) -> str:
    """GPU-hours; where there was no GPU, hours of trials."""
    if spent.gpu_hours:
        return f"{spent.gpu_hours:.2f} GPU-hours in this store"
    return f"{spent.hours:.2f} trial-hours without a GPU in this store"
