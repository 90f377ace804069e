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

from nas_sweeps.bench import measure, steps, trials
from nas_sweeps.bench.command import bench
from nas_sweeps.bench.count import count
from nas_sweeps.bench.images import image_steps
from nas_sweeps.bench.measure import peak_of_step
from nas_sweeps.bench.options import TASKS, Options, Task
from nas_sweeps.bench.packing import packed_s
from nas_sweeps.bench.run import SCHEMA, makers_of, run
from nas_sweeps.bench.start import COLD, WARM
from nas_sweeps.bench.steps import Search, gflop, make_step
from nas_sweeps.bench.table import show
from nas_sweeps.bench.variants import (
    COMPILED,
    GRAPHED,
    OURS,
    OURS_GRAPHED,
    PLAIN,
    PLAIN_GRAPHED,
    SUPERNETS,
    Variant,
    variants,
)
from tests.train.tape import Tapes

TINY = Options(
    channels=2,
    layers=3,
    batch=4,
    retrain_channels=2,
    retrain_layers=3,
    retrain_batch=4,
    darts_channels=2,
    darts_layers=3,
    darts_batch=4,
    test_images=8,
    processes=(2,),
    steps=1,
    threads=1,
    repeats=1,
    memory=False,
)

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Maps this small are slower on more, and much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _small_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run measures the machine's rates anew, and no test here needs them exact."""
    monkeypatch.setattr(measure, "GEMM_SIDE", 64)
    monkeypatch.setattr(measure, "COPY_BYTES", 2**16)


# The auxiliary head of the retrain step needs images of 29 pixels; the others do not.
SIZES = {task: 32 if task.startswith("retrain") else 8 for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_every_variant_of_a_task_has_a_row_on_screen_and_in_the_file(
    task: Task, tmp_path: Path
) -> None:
    console = Console(record=True, width=200)
    # All supernets are shown by the first order; a step of the second takes four times as long.
    only = ("ours",) if task == "second_order" else ()
    options = replace(TINY, tasks=(task,), image_size=SIZES[task], only=only)
    rows = run(options, tmp_path / "bench.parquet", console)
    table = pq.read_table(tmp_path / "bench.parquet")
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == rows
    if task == "start":
        wanted = [f"cold: {phase}" for phase in COLD] + [f"warm: {phase}" for phase in WARM]
        assert [row["variant"] for row in rows] == wanted
        assert {row["note"] for row in rows} == {None}, "a worker goes on in the same process"
    else:
        assert rows[0]["ratio"] == 1
        assert rows[-1]["variant"] == "ours"
    text = console.export_text()
    assert all(row["variant"] in text for row in rows)
    assert all(row["step_s"] > 0 and row["wall_s"] > 0 for row in rows)


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
    assert 0.01 < peak_of_step(options, makers_of(options, "first_order")[PLAIN.name]) < 2


def test_work_is_counted_as_in_the_paper_table() -> None:
    assert gflop(Options(), "first_order") == pytest.approx(231, abs=1)


def test_no_row_is_cut_on_eighty_columns() -> None:
    row: dict[str, object] = dict.fromkeys(SCHEMA.names, 0.000271)
    row |= {"variant": "and alphas only", "operations": 39_528, "images_per_s": 105_790}
    row |= {"counted_gflop": 231.0, "counted_gbyte": 74.6, "gemm_share": 0.24, "floor_share": 0.21}
    row |= {"peak_mem_gib": 10.2, "mem_ratio": 2.9, "ratio": 4.41, "processes": 16, "batch": 64}
    row |= {"device": "cpu", "torch": "2.15.0", "precision": "fp32", "form": "arranged"}
    row |= {"kernels": 40_029}
    console = Console(record=True, width=80)
    show([row | {"task": task} for task in TASKS], console)
    assert "…" not in console.export_text()


def test_counted_flops_of_the_plain_form_are_the_useful_ones() -> None:
    options = replace(TINY, channels=4)
    work = count(make_step(options, "first_order", PLAIN))
    # The stem has no gradient of its input: a little less than a backward pass of two forwards.
    assert work.gflop == pytest.approx(gflop(options, "first_order"), rel=0.03)
    tested = count(make_step(options, "evaluation", PLAIN))  # in inference mode
    assert tested.gflop == pytest.approx(gflop(options, "evaluation"), rel=1e-6)
    assert work.floor_s(gemm_gflops=1.0, copy_gbytes=1e9) == work.gflop
    assert work.floor_s(gemm_gflops=1e9, copy_gbytes=1.0) == work.gbyte


def test_bytes_are_of_what_is_read_and_written_and_views_are_free() -> None:
    x, row = torch.ones(1000, 8), torch.ones(1, 8)
    assert count(lambda: x + x[0]).operations == 1
    assert count(lambda: x + 1).gbyte == pytest.approx(2 * 32e-6)
    assert count(lambda: x.add_(row)).gbyte == pytest.approx((2 * 32_000 + 32) / 1e9)
    assert count(lambda: (x.T, x[3:], torch.empty(5))).operations == 0


def test_only_the_variants_asked_for_are_measured_beside_the_first() -> None:
    options = Options(only=("ours", "channels last"))
    assert variants(options, "first_order") == (PLAIN, SUPERNETS[2], OURS)
    with pytest.raises(ValueError, match="--variant: unknown 'theirs'; first_order has 'alphas"):
        variants(Options(only=("theirs",)), "first_order")


def test_a_process_that_fails_ends_the_packing_with_a_message() -> None:
    with pytest.raises(ValueError, match="of 1 processes at once 1 failed"):
        packed_s(replace(TINY, layers=1), 1)


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
    with pytest.raises(ValueError, match="--channels: 0 is too small"):
        Options(channels=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "--repeats: 0"),
        (["--task", "sleep"], "unknown 'sleep'"),
        (["--processes", "0"], "--processes: 0"),
        (["--device", "tpu"], "--device: unknown 'tpu'"),
    ],
)
def test_a_bad_option_is_one_message(arguments: list[str], message: str) -> None:
    import typer

    app = typer.Typer()
    app.command()(bench)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("task", "variant"),
    [
        ("first_order", GRAPHED),
        ("retrain", OURS_GRAPHED),
        ("ssf_nas", PLAIN_GRAPHED),
        ("retrain_darts", OURS_GRAPHED),
    ],
)
def test_a_graphed_variant_replays_its_step(
    task: Task, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    tapes = Tapes()
    for module in (steps, trials):
        monkeypatch.setattr(module, "CudaGraphs", lambda: tapes)
    step = make_step(replace(TINY, image_size=SIZES[task]), task, variant)
    step()
    assert (tapes.recorded, tapes.replays) == (1, 0)
    step()
    assert (tapes.recorded, tapes.replays) == (1, 1)


def test_graphs_are_for_cuda() -> None:
    names = [v.name for v in variants(replace(TINY, device="cuda"), "first_order")]
    assert names[-4:] == ["and graphed", "arranged", "ours", "ours, graphed"]
    assert PLAIN_GRAPHED in variants(replace(TINY, device="cuda"), "ssf_nas")
    assert "ours, graphed" not in [v.name for v in variants(TINY, "first_order")]


def test_precision_is_that_of_the_step() -> None:
    step = make_step(replace(TINY, image_size=8, precisions=("bf16",)), "evaluation", OURS)
    assert step().dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"--precision: unknown 'half'; choose from fp32, tf32"):
        replace(TINY, precisions=("fp32", "half"))


def test_every_precision_has_rows_of_its_own() -> None:
    options = replace(TINY, image_size=8, tasks=("evaluation",), precisions=("fp32", "bf16"))
    rows = run(options, console=Console(record=True, width=80))
    assert [row["precision"] for row in rows] == ["fp32"] * 3 + ["bf16"] * 3
    assert [row["form"] for row in rows] == ["plain", "plain", "arranged"] * 2


def test_a_form_asked_for_is_the_form_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_SWEEPS_FORM", "plain")
    assert Search(replace(TINY, image_size=8), OURS).net.form == "plain"
