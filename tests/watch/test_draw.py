"""The view at every size: no line is wider than the terminal, and the picture fits on it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from nas_sweeps.watch.draw import View, lines
from nas_sweeps.watch.snapshot import Running, Snapshot, Spent

ROW = {
    "stage": "search",
    "epoch": 12,
    "epochs_total": 40,
    "loss_weights": 1.2134,
    "accuracy_balanced": 0.614,
    "epoch_s": 38.2,
    "peak_mem_gib": 7.1,
}
COUNTS = {
    "search": {"done": 3, "failed": 1, "running": 2, "waiting": 12, "blocked": 0},
    "retrain": {"done": 0, "failed": 0, "running": 0, "waiting": 16, "blocked": 2},
}


def running(name: str = "search ssf_nas exp mu=0.01 s0", **facts: object) -> Running:
    values = {"row": ROW, "since_s": 3.0, "left_s": 1440.0} | facts
    return Running(name=name, **values)  # type: ignore[arg-type]


def snapshot(*trials: Running, **facts: object) -> Snapshot:
    values = {"left_s": 7200.0, "spent": Spent(hours=3.0, gpu_hours=1.5)} | facts
    return Snapshot(counts=COUNTS, running=trials, **values)  # type: ignore[arg-type]


def drawn(shot: Snapshot, width: int, height: int = 24, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = Console(file=file, width=width, height=height, force_terminal=True, color_system=None)
    console.print(View(lambda: shot))
    file.flush()
    return file.buffer.getvalue().decode(encoding).splitlines()  # type: ignore[attr-defined]


def test_a_wide_terminal_shows_everything_of_a_trial() -> None:
    text = drawn(snapshot(running()), 140)
    assert text[0].endswith("3/18  1 failed  2 running  12 to do")
    assert text[1].endswith("0/18  16 to do  2 blocked")
    assert text[2] == (
        "search ssf_nas exp mu=0.01 s0 | search | 12/40 | loss 1.213 | bal-acc 61.4 | 38.2 s "
        "| 7.1 GiB | eta 24m"
    )
    assert text[3] == "eta 2h00m | 1.50 GPU-hours in this store"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
@pytest.mark.parametrize("width", [1, 20, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int, encoding: str) -> None:
    trials = [
        running("retrain darts+ssf_nas + barlow exp mu=0.001 s12345"),
        running(row=None, left_s=None),
        running("search ümläut 漢字 s0", row=ROW | {"accuracy_balanced": None}),
    ]
    text = drawn(snapshot(*trials, notes=("a note that is rather long " * 9,)), width, 24, encoding)
    assert len(text) == 2 + 3 + 2
    assert all(len(line) <= width for line in text)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_keeps_the_name_the_epoch_and_what_is_left(width: int) -> None:
    line = drawn(snapshot(running()), width)[2]
    assert line.startswith("search ssf_nas exp")
    assert "| 12/40 |" in line
    assert line.endswith("eta 24m")


def test_more_trials_than_lines_are_counted() -> None:
    shot = snapshot(*(running(f"search darts balance s{seed}") for seed in range(50)))
    text = drawn(shot, 80, height=12)
    assert len(text) == 11
    assert text[-2] == "and 43 more"
    assert len(lines(shot, 80, 3)) == 4, "a trial is named even where there is no room"


def test_a_failure_shows_in_the_bar_however_few_there_are() -> None:
    counts = {"done": 999, "failed": 1, "running": 0, "waiting": 0, "blocked": 0}
    shot = Snapshot(counts={"search": counts, "retrain": counts})
    assert "x" in drawn(shot, 60, encoding="ascii")[0]


def test_what_is_unknown_is_a_dash_and_what_is_done_has_no_eta() -> None:
    assert drawn(snapshot(running(row=None, left_s=None), left_s=None), 80)[2:4] == [
        "search ssf_nas exp mu=0.01 s0 | starting | 3s | eta -",
        "eta - | 1.50 GPU-hours in this store",
    ]
    without = drawn(snapshot(left_s=0.0, spent=Spent(hours=2.0)), 80)
    assert without[-1] == "2.00 trial-hours without a GPU in this store"
