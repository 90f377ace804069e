from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from torch import Tensor
from typer.testing import CliRunner

from nas_sweeps.bench.command import bench
from nas_sweeps.bench.images import image_steps
from nas_sweeps.bench.measure import peak_of_step
from nas_sweeps.bench.options import TASKS, Options, Task
from nas_sweeps.bench.run import SCHEMA, _makers, run
from nas_sweeps.bench.steps import COMPILED, PLAIN, SUPERNETS, Search, gflop, variants

TINY = Options(
    channels=2,
    layers=3,
    batch=4,
    retrain_channels=2,
    retrain_layers=3,
    threads=1,
    repeats=1,
    memory=False,
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Maps this small are slower on more, and much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# The auxiliary head of the retrain step needs images of 29 pixels; the others do not.
SIZES = {task: 32 if task == "retrain" else 8 for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_every_variant_of_a_task_has_a_row_on_screen_and_in_the_file(
    task: Task, tmp_path: Path
) -> None:
    console = Console(record=True, width=200)
    options = replace(TINY, tasks=(task,), image_size=SIZES[task])
    rows = run(options, tmp_path / "bench.parquet", console)
    table = pq.read_table(tmp_path / "bench.parquet")
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == rows
    assert rows[0]["ratio"] == 1
    assert rows[-1]["variant"] == "ours"
    text = console.export_text()
    assert all(row["variant"] in text for row in rows)


@pytest.mark.parametrize("task", ["first_order", "second_order"])
def test_all_variants_of_a_step_move_the_alphas_alike(task: str) -> None:
    moved: list[Tensor] = []
    for variant in SUPERNETS:
        search = Search(replace(TINY, image_size=8), variant)
        search.net.double()
        search.images = tuple(x.double() for x in search.images)
        with torch.no_grad():
            for alpha in search.alphas:
                alpha.data = alpha.double()
        getattr(search, task)()
        moved.append(torch.cat([a.grad for a in search.alphas if a.grad is not None]))
    # Differences of 0.01 cross kinks of ReLU, where rounding decides; in float64 seldom.
    for other in moved[1:]:
        torch.testing.assert_close(other, moved[0], rtol=1e-5, atol=1e-9)


def test_peak_memory_is_that_of_the_step_however_large_this_process_was() -> None:
    block = torch.ones(2**28)  # 1 GiB: a child inherits this peak in getrusage's ru_maxrss
    del block
    options = replace(TINY, channels=8, batch=16)
    assert 0.01 < peak_of_step(options, _makers(options, "first_order")[PLAIN.name]) < 2


def test_work_is_counted_as_in_the_paper_table() -> None:
    assert gflop(Options(), "first_order") == pytest.approx(231, abs=1)


def test_both_augmentations_give_normalised_batches_of_one_shape() -> None:
    for task in ("augmentation", "views"):
        shapes = []
        for step in image_steps(TINY, task).values():
            out = step()
            views = out if isinstance(out, (list, tuple)) else [out]
            shapes.append([x.shape for x in views])
            assert all(x.dtype == torch.float32 for x in views)
        assert shapes[0] == shapes[1]


def test_compiling_is_off_by_default() -> None:
    assert COMPILED not in variants(Options(), "first_order")
    assert COMPILED in variants(Options(compile=True), "first_order")


def test_quick_is_smaller() -> None:
    assert Options().quick().batch < Options().batch


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--repeats", "0"], "--repeats: 0"), (["--task", "sleep"], "unknown 'sleep'")],
)
def test_a_bad_option_is_one_message(arguments: list[str], message: str) -> None:
    import typer

    app = typer.Typer()
    app.command()(bench)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.output
