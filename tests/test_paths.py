"""``~`` means the home folder in every place that takes a path, and its absence is told."""

from __future__ import annotations

import pwd
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import nas_sweeps as ns
from nas_sweeps.bench import measure
from nas_sweeps.bench.options import Options
from nas_sweeps.bench.run import run as run_bench
from nas_sweeps.cli import app
from nas_sweeps.data.cache import cache_folder, downloads_folder
from nas_sweeps.paths import user_path
from nas_sweeps.report.page import write_report
from nas_sweeps.store import Store
from nas_sweeps.sweep.doctor import examine
from nas_sweeps.sweep.ray_places import require_home
from nas_sweeps.tables.export import export
from nas_sweeps.trial import DataPaths

GRID = """
data: {dataset: digits, image_size: 8, n_max: 10, test_n_max: 3}
search:
  methods: [darts]
  distributions: [{exp: 0.4}]
  recipe: {channels: 2, layers: 3, epochs: 1, batch_size: 8}
retrain: {winners: none, genotypes: []}
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with a grid file in it, and the store that a run of it has written."""
    home = tmp_path_factory.mktemp("home")
    (home / "g.yaml").write_text(GRID)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        grid = ns.load_grid("~/g.yaml")
        assert ns.run(grid, "~/runs/x", executor="inline", console="none").complete
        assert not Path("~").exists()
    assert (home / "runs/x/store.json").exists()
    return home


@pytest.fixture
def home(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of the user, who works in an empty folder."""
    shutil.copytree(filled, tmp_path / "home")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``docker run -u 12345``: no HOME, and no entry in the user database."""

    def unknown(number: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_python_calls_take_a_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(ns.load("~/runs/x").trials) == 1
    assert len(ns.load(["~/runs/x", str(home / "runs/x")]).trials) == 1, "one store named twice"
    assert Store("~/runs/x").root == str(home / "runs/x")
    export("~/runs/x", "~/trials.csv")
    write_report("~/runs/x", "~/page")
    assert (home / "trials.csv").exists()
    assert (home / "page/index.html").exists()
    assert cache_folder(DataPaths(cache="~/c")) == home / "c"
    assert downloads_folder(DataPaths(downloads="~/d")) == home / "d"
    monkeypatch.setattr(measure, "GEMM_SIDE", 64)  # the machine's rates take seconds, unread here
    monkeypatch.setattr(measure, "COPY_BYTES", 2**16)
    run_bench(Options(tasks=("views",), repeats=1, steps=1).quick(), Path("~/bench.parquet"))
    assert (home / "bench.parquet").exists()
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "~/g.yaml", "--store=~/runs/x", "--from=~/runs/x"],
        ["run", "~/g.yaml", "--store=~/runs/x", "--from=~/runs/x", "--executor=inline"],
        ["doctor", "~/g.yaml", "--store=~/runs/x", "--executor=inline"],
        ["status", "~/runs/x"],
        ["table", "~/runs/x"],
        ["report", "~/runs/x", "--out=~/page"],
        ["export", "~/runs/x", "~/trials.csv"],
        ["compare", "~/runs/x", "~/runs/x"],
        ["draw", "~/runs/x", "--out=~/cells.svg"],
        ["draw", "s-", "--store=~/runs/x"],
        ["logs", "~/runs/x", "s-"],
    ],
)
def test_every_verb_takes_a_home_that_no_shell_has_expanded(
    home: Path, arguments: list[str]
) -> None:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert list(Path.cwd().iterdir()) == [], "no folder named ~"
    for word in arguments:
        name = word.rpartition("~/")[2]
        assert "~/" not in word or (home / name).exists()


def test_a_name_that_only_begins_with_the_sign_is_a_name(home: Path) -> None:
    assert user_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert user_path("a/~/b") == Path("a/~/b")


def test_without_a_home_what_needs_none_works(
    homeless: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_SWEEPS_CACHE", str(tmp_path / "cache"))
    assert cache_folder(DataPaths()) == tmp_path / "cache"
    (tmp_path / "g.yaml").write_text(GRID)
    grid = ns.load_grid(tmp_path / "g.yaml")
    assert ns.run(grid, tmp_path / "store", executor="inline", console="none").complete


def test_without_a_home_what_needs_one_says_to_set_it(
    homeless: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NAS_SWEEPS_CACHE", raising=False)
    for call in (
        lambda: cache_folder(DataPaths()),
        lambda: user_path("~/x"),
        lambda: Store("~/x"),
        lambda: ns.load_grid("~/g.yaml"),
        require_home,
    ):
        with pytest.raises(ValueError, match=r"has no(ne| home folder); set HOME"):
            call()
    space = [found for found in examine(executor="inline") if found.what == "space"]
    assert [found.good for found in space] == [False]
