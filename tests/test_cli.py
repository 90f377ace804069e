"""The command line as a person meets it: exit codes and what is printed.

Verbs run in this process, on fake trials. Processes are started where the test is about one: what
it imports, how it is called, signals, a reader that leaves.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest

import nas_sweeps as ns
from nas_sweeps.store import Store
from nas_sweeps.testing import fake
from tests.faked import SWITCH, faked
from tests.verbs import Done, cli

ROOT = Path(__file__).resolve().parent.parent
TINY = """
data: {dataset: digits, image_size: 8, n_max: 10, test_n_max: 3}
search:
  methods: [darts]
  distributions: [{exp: 0.4}]
  seeds: [0]
  recipe: {channels: 2, layers: 3, epochs: 1, batch_size: 8}
retrain:
  recipe: {channels: 2, layers: 3, epochs: 1, batch_size: 8}
"""


def process(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """The command line in a process of its own, on fake trials."""
    return subprocess.Popen(
        [sys.executable, "-m", "nas_sweeps.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ
        | {"COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        | SWITCH
        | environment,
    )


def numbers(line: str) -> list[int]:
    return [int(n) for n in re.findall(r"\b\d+\b", line)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("grids") / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.mark.parametrize(
    ("name", "searches", "retrains"),
    [("quickstart", 6, 6), ("table1", 9, 9), ("verification", 12, 12), ("paper", 18, 18)],
)
def test_plan_counts_every_trial(name: str, searches: int, retrains: int, tmp_path: Path) -> None:
    done = cli("plan", ROOT / f"experiments/{name}.yaml", "--store", tmp_path / "none")
    assert done.returncode == 0, done.stderr
    assert f"{searches + retrains} trials" in done.stdout
    totals = next(line for line in done.stdout.splitlines() if " all " in line)
    assert numbers(totals) == [0, searches + retrains, searches + retrains]
    assert not (tmp_path / "none").exists(), "planning makes no store"


def test_planning_and_help_import_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from nas_sweeps import cli\n"
        "sys.argv = ['nas-sweeps', 'plan', 'experiments/paper.yaml', "
        f"'--store', {str(tmp_path)!r}]\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'torchvision', 'ray', 'pandas', 'pyarrow', 'sklearn', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_module_is_the_command_line_and_says_its_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nas_sweeps", "--version"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (0, f"nas-sweeps {ns.__version__}\n"), done.stderr
    assert ns.__version__ == version("nas_sweeps")


def test_a_type_checker_reads_the_annotations_of_the_package() -> None:
    """PEP 561: without the mark all of it is ``Any`` to code that imports it."""
    assert (files("nas_sweeps") / "py.typed").is_file()


def test_verbose_plan_shows_what_was_resolved(tmp_path: Path) -> None:
    done = cli("plan", ROOT / "experiments/table1.yaml", "--verbose", "--store", tmp_path)
    assert done.stdout.count("s-") == 9
    assert "zero_one_weight" in done.stdout
    assert '"weight_decay": 0.0003' in done.stdout


def test_a_bad_grid_is_all_its_mistakes_and_exit_code_2(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "data: {dataset: cifar11}\n"
        "search: {methods: [fair_dart], distributions: [{exp: 2}], seeds: [-1], speed: 9}\n"
    )
    started = process("plan", file)
    stdout, stderr = started.communicate(timeout=120)
    done = cli("plan", file)
    assert (started.returncode, stdout) == (2, "")
    assert (done.returncode, done.stdout, done.stderr) == (2, stdout, stderr), "as in a process"
    assert "Traceback" not in done.stderr
    for place in ("data.dataset", "search.methods", "search.distributions", "search.seeds"):
        assert f"bad.yaml: {place}" in done.stderr
    assert "fairdarts" in done.stderr
    assert "speed" in done.stderr


@pytest.mark.parametrize("verb", ["status", "table", "failures", "logs"])
def test_what_is_no_store_is_said_to_be_none(verb: str, tmp_path: Path) -> None:
    done = cli(verb, tmp_path, *(["s-0"] if verb == "logs" else []))
    assert done.returncode == 2
    assert "is no store" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def first(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A store with a quote in its name, and the run that wrote it."""
    store = tmp_path_factory.mktemp("stores") / "it's a store"
    with faked():
        return store, cli("run", tiny, "--store", store, "--executor", "inline")


@pytest.fixture(scope="module")
def done_store(first: tuple[Path, Done]) -> Path:
    store, done = first
    assert done.returncode == 0, done.stderr
    return store


def test_run_status_table_and_run_again(tiny: Path, first: tuple[Path, Done]) -> None:
    store, first_run = first
    assert first_run.returncode == 0, first_run.stderr
    assert "1 of 1 search trials done, 1 of 1 retrain trials done; 2 run now" in first_run.stdout
    assert "exp mu=0.4" in first_run.stdout
    second = cli("run", tiny, "--store", store, "--executor", "inline")
    assert second.returncode == 0
    assert "nothing to run" in second.stdout
    status = cli("status", store)
    assert "trials held " in status.stdout
    totals = next(line for line in status.stdout.splitlines() if " all " in line)
    assert numbers(totals) == [2, 0, 2]
    table = cli("table", store, "--value", "num_params")
    assert re.search(r"darts.*\d+ \(1\)", table.stdout)
    assert cli("table", store, "--value", "beauty").returncode == 2
    planned = cli("plan", tiny, "--store", store)
    assert numbers(next(x for x in planned.stdout.splitlines() if " all " in x)) == [2, 0, 2]


def test_missing_images_are_one_message(tmp_path: Path) -> None:
    done = cli("run", ROOT / "experiments/cifar10_cpu.yaml", "--store", tmp_path / "s")
    assert done.returncode == 2
    assert "data.path" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_ray_cluster_at_the_address_is_one_message(tiny: Path, tmp_path: Path) -> None:
    # A process of its own: in this one another test's Ray session may be open, and would be taken.
    asked = process("run", tiny, "--store", tmp_path / "s", "--address", "127.0.0.1:1")
    _, complaint = asked.communicate(timeout=300)
    assert asked.returncode == 2
    assert "address 127.0.0.1:1" in complaint
    assert "Traceback" not in complaint


@pytest.mark.system
@pytest.mark.usefixtures("fake_runs")
@pytest.mark.parametrize(
    ("executor", "number", "epochs"),
    [("inline", signal.SIGINT, 4), ("ray", signal.SIGTERM, 10)],  # workers look once a second
)
def test_a_signal_stops_within_ten_seconds_and_the_same_command_goes_on(
    executor: str, number: int, epochs: int, tmp_path: Path
) -> None:
    """In the middle of an epoch, whose steps so far are not computed again."""
    file = tmp_path / "long.yaml"
    file.write_text(TINY.replace("epochs: 1", f"epochs: {epochs}", 1))
    store = tmp_path / "store"
    mark = f"mark-{os.getpid()}-{executor}"
    where = ["--store", store, "--executor", executor]
    running = process("run", file, *where, NAS_SWEEPS_MARK=mark, **{fake.STEP_S: "0.3"})
    assert running.stdout is not None
    first = running.stdout.readline()
    assert "search darts" in first, first
    running.send_signal(number)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 128 + number, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert not processes_with(mark), "no process is left"
    assert ns.load(store).attempts.state.tolist() == ["stopped"], "in order: a step takes 0.3 s"
    again = cli("run", file, "--store", store, "--executor", "inline")
    assert again.returncode == 0, again.stderr
    assert f"search     1/{epochs}" not in again.stdout, "a finished epoch is not computed again"


def processes_with(mark: str) -> list[str]:
    """Command lines of living processes that inherited the mark."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            alive = (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if alive and f"NAS_SWEEPS_MARK={mark}".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text())
    return found


@pytest.mark.usefixtures("fake_runs")
def test_failures_are_grouped_and_logs_are_printed(tmp_path: Path) -> None:
    file = tmp_path / "fails.yaml"
    file.write_text(TINY.replace("batch_size: 8", "batch_size: 8, lr: 1.0e+30", 1))
    store = tmp_path / "it's a store"
    done = cli("run", file, "--store", store, "--executor", "inline")
    assert done.returncode == 1, done.stderr
    assert "nas-sweeps failures" in done.stderr
    listed = cli("failures", store).stdout
    assert "1 failed: TrainingDiverged: " in listed
    (trial,) = re.findall(r"s-[0-9a-f]{16}(?=  attempt 1)", listed)
    log = cli("logs", store, trial[:8]).stdout
    assert "attempt 1: " in log
    assert "Traceback" in log
    assert "TrainingDiverged" in log
    status = cli("status", store).stdout
    assert "1 failed" in status
    assert "blocked" in status
    assert cli("logs", store, "s-").returncode == 0, "one trial begins so"
    assert cli("logs", store, "r-").returncode == 2
    assert "nothing failed" in cli("failures", empty_store(tmp_path)).stdout


def empty_store(tmp_path: Path) -> Path:
    Store(tmp_path / "empty").create()
    return tmp_path / "empty"


def test_a_table_is_written_in_the_format_and_by_the_columns_asked_for(done_store: Path) -> None:
    markdown = cli("table", done_store, "--format", "markdown").stdout.splitlines()
    assert re.fullmatch(r"\| darts \| \d+\.\d\d \(1\) \|", markdown[2])
    by_seed = cli("table", done_store, "--rows", "method, seed", "--columns", "").stdout
    assert re.search(r"method *. *seed *. *all", by_seed)
    assert "in percent" in by_seed
    pasted = cli("table", done_store, "--rows", "method,seed", "--columns", "", "--format", "text")
    assert pasted.stdout.splitlines()[0].split() == ["method", "seed", "all"]
    assert "\\hline" in cli("table", done_store, "--format", "latex").stdout
    wrong = cli("table", done_store, "--rows", "beauty")
    assert (wrong.returncode, "beauty" in wrong.stderr) == (2, True)


def test_cells_are_drawn_to_the_terminal_and_to_files(done_store: Path, tmp_path: Path) -> None:
    assert "c[k-2]" in cli("draw", "DARTS_V2").stdout
    assert "c[k-2]" in cli("draw", done_store).stdout
    (trial,) = (p.name for p in (done_store / "trials").glob("s-*"))
    file = tmp_path / "new folder" / "cells.svg"
    drawn = cli("draw", trial[:8], "--store", done_store, "-o", file)
    assert drawn.returncode == 0, drawn.stderr
    assert "<svg" in file.read_text()
    assert cli("draw", "NO_SUCH").returncode == 2
    strange = cli("draw", "DARTS_V2", "-o", tmp_path / "cells.gif")
    assert (strange.returncode, ".svg" in strange.stderr) == (2, True)
    corrupt = cli("draw", "DARTS_V2", "-o", tmp_path / "cells.pdf", "--format", "svg")
    assert (corrupt.returncode, "choose one" in corrupt.stderr) == (2, True)
    (tmp_path / "file").touch()
    barred = cli("draw", "DARTS_V2", "-o", tmp_path / "file" / "cells.txt")
    assert (barred.returncode, "name another file" in barred.stderr) == (2, True)


@pytest.mark.system
def test_a_report_is_one_page_with_its_figures_beside_it(done_store: Path, tmp_path: Path) -> None:
    done = cli("report", done_store, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    page = tmp_path / "out" / "index.html"
    assert done.stdout.strip() == str(page)
    assert "Table I" in page.read_text()
    assert (tmp_path / "out" / "figures" / "figure8b.svg").exists()


def test_a_reader_that_leaves_ends_the_output_and_not_the_run(tiny: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    where = ["--executor", "inline", "--store", store]
    running = process("run", tiny, *where, **{fake.STEP_S: "0.1"})
    assert running.stdout is not None
    assert running.stderr is not None
    assert "search darts" in running.stdout.readline()
    running.stdout.close()
    said = running.stderr.read()
    assert running.wait(timeout=120) == 0, said
    assert ns.load(store).trials.state.tolist() == ["done", "done"]
