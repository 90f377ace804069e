"""The doctor says what is well, what is not, and what to do; and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

import nas_sweeps as ns
from nas_sweeps.cli import app
from nas_sweeps.cli.options import out
from nas_sweeps.space import arithmetic
from nas_sweeps.space.arithmetic import Checked, WrongArithmetic
from nas_sweeps.space.comparison import Error
from nas_sweeps.store import Store
from nas_sweeps.sweep import doctor
from nas_sweeps.sweep.doctor import Finding, examine
from nas_sweeps.sweep.run import run
from tests.sweep.tiny import TINY
from tests.verbs import cli

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Precisions that were checked; the check itself has its tests, and takes seconds."""
    made: list[str] = []

    def check(device: torch.device, kind: str, form: str) -> Checked:
        made.append(kind)
        return Checked(946, Error("skip_connect", "output", 1e-6, "operation"), 1.5)

    monkeypatch.setattr(arithmetic, "check", check)
    return made


def grid(**sections: object) -> ns.Grid:
    return ns.Grid.from_dict(TINY | sections)


def found(store: Path | None, a_grid: ns.Grid | None = None) -> dict[str, Finding]:
    return {f.what: f for f in examine(a_grid, store, executor="inline")}


def test_a_run_that_would_work_has_no_complaint(tmp_path: Path) -> None:
    findings = found(tmp_path / "new" / "store", grid())
    assert [f for f in findings.values() if not f.good] == []
    assert "torch" in findings["packages"].text
    assert "tiny: 4 trials" in findings["grid"].text
    assert "sha256" in findings["data"].text
    assert "exp mu=0.4" in findings["subsets"].text
    assert "not there yet" in findings["store"].text
    assert "GiB free" in findings["space"].text
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_store_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    Store(tmp_path / "store").create()
    before = sorted(tmp_path.rglob("*"))
    assert found(tmp_path / "store")["store"].good
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_that_cannot_be_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    finding = found(tmp_path / "file" / "store")["store"]
    assert not finding.good
    assert "there is a file in the way" in finding.text


def test_images_that_a_run_downloads_are_told_and_are_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_SWEEPS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "grid.yaml"
    file.write_text(grid(data={"dataset": "cifar10"}).to_json())
    done = cli("doctor", file, "--executor", "inline", "--store", tmp_path / "store")
    (said,) = (line for line in done.stdout.splitlines() if line.split()[1] == "data")
    assert said.startswith("… data       cifar10 is not in")
    assert "the first run downloads it (about 170 MB); without a network put cifar" in said
    assert " subsets " not in done.stdout, "nothing is downloaded to count them"
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == [file]


def test_impossible_subsets_are_told() -> None:
    many = found(None, grid(data={"dataset": "digits", "n_max": 5000}))
    assert many["data"].good
    assert "lower data.n_max" in many["subsets"].text


def test_images_that_changed_since_they_were_planned_are_told(tmp_path: Path) -> None:
    from PIL import Image

    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.png")
    planned = grid(data={"path": str(tmp_path / "images")})
    assert found(None, planned)["data"].text.startswith("images, 16 image files")
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "images/train/cat/0.png")
    finding = found(None, planned)["data"]
    assert not finding.good
    assert "plan again" in finding.text


def test_a_full_disk_and_an_old_package_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(1, 1, 2**20))
    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=99", "no-such-thing", "numpy"])
    findings = found(tmp_path)
    assert "make room" in findings["space"].text
    assert "needed is >=99" in findings["packages"].text
    assert "no-such-thing is missing" in findings["packages"].text
    assert "numpy" not in findings["packages"].text


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    search = TINY["search"] | {"resources": {"gpus": 1}}
    findings = found(None, grid(search=search))
    assert findings["devices"].good
    assert "--set search.resources.gpus=0" in findings["resources"].text
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "renew the driver" in found(None)["devices"].text


@pytest.mark.parametrize(("gpus", "code", "mark"), [(0, 0, "✓"), (1000, 1, "✗")])
def test_the_exit_code_says_whether_all_is_well(
    gpus: int, code: int, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = tmp_path / "grid.yaml"
    file.write_text(ns.Grid.from_dict(TINY).to_json())
    asked = ["--set", f"search.resources.gpus={gpus}", "--store", str(tmp_path / "s")]
    done = CliRunner().invoke(app, ["doctor", str(file), *asked, "--executor", "inline"])
    assert done.exit_code == code, done.output
    lines = done.output.splitlines()
    assert all(line[0] in "✓✗" for line in lines)
    assert lines[-1].startswith(f"{mark} resources")


def test_a_cluster_for_the_inline_executor_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the inline executor uses no cluster"):
        list(examine(executor="inline", address="1.2.3.4:6379"))
    with pytest.raises(ValueError, match="the inline executor uses no cluster"):
        run(grid(), tmp_path / "store", executor="inline", address="auto", console="none")
    assert not (tmp_path / "store").exists()


def test_mistakes_of_a_grid_are_lines_and_the_machine_is_still_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("data: {path: nowhere}\nsearch: {methods: [dart], distributions: [balance]}\n")
    done = CliRunner().invoke(app, ["doctor", str(file), "--executor", "inline"])
    assert done.exit_code == 2
    lines = done.output.splitlines()
    assert all(line[0] in "✓✗" for line in lines)
    assert sum(line.startswith("✗ grid ") for line in lines) >= 2
    assert "✓ packages" in done.output


def test_a_node_with_another_store_or_other_images_says_so(tmp_path: Path) -> None:
    from nas_sweeps.sweep.nodes import Asked, Looker

    Store(tmp_path).create()
    answer = Looker(Asked(store=str(tmp_path), token="of another folder"), "n1").look(gpus=0)
    assert "another folder there" in answer["problems"][0]
    with doctor.probed(Store(tmp_path)) as token:
        there = Looker(Asked(store=str(tmp_path), token=token), "n1")
        answer = there.look(gpus=0)
        assert answer["problems"] == []
        assert answer["row"]["store"] == "written"
        assert there.unseen(["n1", "n2"]) == ["n2"], "of which nothing was written"


def test_images_that_a_node_lacks_and_downloads_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_sweeps.sweep.nodes import Asked, Looker

    monkeypatch.setenv("NAS_SWEEPS_CACHE", str(tmp_path))
    asked = Asked.of(grid(data={"dataset": "cifar10"}), None, "")
    answer = Looker(asked, "n1").look(gpus=0)
    assert answer["problems"] == []
    assert answer["row"]["images"] == "to download"
    assert Looker(Asked.of(grid(), None, ""), "n1").look(gpus=0)["row"]["images"] == "digits"


def remote(answer: object) -> SimpleNamespace:
    """A method of an actor that answers so."""
    return SimpleNamespace(remote=lambda *_: answer() if callable(answer) else answer)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stand-in of an actor returns is its answer, without Ray."""
    from nas_sweeps.sweep import nodes

    monkeypatch.setattr(nodes, "_answer", lambda node, answer, until: answer)


@pytest.mark.usefixtures("answers")
def test_a_node_that_does_not_see_what_another_wrote_says_so() -> None:
    from nas_sweeps.sweep.nodes import Node, see_others

    wrote = {"id1": "node gpu1", "id2": "node gpu2"}
    blind, well = Node("node gpu1"), Node("node gpu2")
    see_others(blind, SimpleNamespace(unseen=remote(["id2"])), wrote, 0.0)
    see_others(well, SimpleNamespace(unseen=remote([])), wrote, 0.0)
    (finding,) = blind.findings()
    assert "does not see what node gpu2 has written; see that both mount" in finding.text
    assert well.findings()[0].good
    assert well.row["store"] == "written and read"


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize(
    ("ahead", "told"),
    [(0, None), (-4, None), (90, "90 s ahead of this"), (-90, "90 s behind this")],
)
def test_a_clock_that_is_another_is_told(ahead: float, told: str | None) -> None:
    from nas_sweeps.sweep.nodes import Node, see_clock

    node = Node("node gpu1")
    see_clock(node, SimpleNamespace(now=remote(lambda: time.time() + ahead)), 0.0)
    assert node.row["clock"] in (f"{ahead:+.2f} s", f"{ahead - 0.01:+.2f} s", "-0.00 s")
    assert [told in problem for problem in node.problems if told] == ([True] if told else [])


def test_every_node_is_a_line_of_a_table_and_a_miss_is_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str | None] = []

    def found(*arguments: object) -> list[Finding]:
        asked.append(arguments[3])
        return [
            Finding("ray", True, "Ray sees 2 nodes"),
            Finding("node a", True, "", {"torch": "2.15.0", "clock": "+0.01 s"}),
            Finding("node b", False, "its clock is late; set it", {"torch": "2.15.0"}),
            Finding("node b", False, "it has no images; bring them", {"torch": "2.15.0"}),
        ]

    monkeypatch.setattr(doctor, "examine", found)
    done = CliRunner().invoke(app, ["doctor", "--every-node"])
    assert (done.exit_code, asked) == (1, ["auto"])
    lines = done.output.splitlines()
    assert lines[:3] == [
        "✓ ray        Ray sees 2 nodes",
        "✗ node b     its clock is late; set it",
        "✗ node b     it has no images; bring them",
    ]
    assert lines[3] == "✓ nodes      2 answered, all with torch 2.15.0"
    (row,) = (line.split("│") for line in lines if line.startswith("│ a"))
    assert [word.strip() for word in row[1:-1]] == ["a", "+0.01 s"]
    assert sum(line.startswith("│ b") for line in lines) == 1
    CliRunner().invoke(app, ["doctor", "--every-node", "--address", "h:1"])
    assert asked[-1] == "h:1"


ROW = {
    "python": "3.11.7",
    "torch": "2.15.0",
    "GPU": "8 NVIDIA H100 80GB HBM3",
    "store": "written and read",
    "images": "2f8a6c03b1d4",
    "clock": "+0.00 s",
}
HOST = "ip-10-0-12-34.eu-west-1.compute.internal"


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_word_about_a_node_is_cut_by_a_narrow_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {
        f"node {HOST}": ROW,
        "node gpu2": ROW | {"images": "wrong", "clock": "-0.02 s"},
        "node gpu3": ROW | {"images": "wrong", "GPU": "none", "store": "not asked"},
    }
    findings = [Finding(name, "wrong" not in row.values(), "", row) for name, row in rows.items()]
    monkeypatch.setattr(
        doctor, "examine", lambda *_: [*findings, Finding("node gpu4", False, "", {})]
    )
    monkeypatch.setattr(out, "_width", width)
    said = CliRunner().invoke(app, ["doctor", "--every-node"]).output
    assert "✓ nodes      3 answered, all with python 3.11.7, torch 2.15.0\n" in said
    about = [line for line in said.splitlines() if line[0] in "│ "]
    assert len(about) == 4
    assert all(len(line) <= width for line in about) or about[0].startswith("  node ip-10")
    for line, row in zip(about, rows.values(), strict=False):
        assert all(row[what] in line for what in ("GPU", "store", "images", "clock"))
    assert HOST in about[0]
    assert "gpu4" in about[3]


def test_what_is_wrong_on_all_nodes_is_not_among_what_they_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = {"torch": "2.15.0", "images": "wrong"}
    findings = [Finding(f"node {name}", False, "it has none", row) for name in "ab"]
    monkeypatch.setattr(doctor, "examine", lambda *_: findings)
    said = CliRunner().invoke(app, ["doctor", "--every-node"]).output
    assert "✓ nodes      2 answered, all with torch 2.15.0\n" in said
    assert said.count("wrong") == 2


@pytest.mark.system
def test_two_nodes_read_what_each_other_writes(tmp_path: Path) -> None:
    """A real cluster of two nodes on this machine, which a session of this process would hide."""
    store = tmp_path / "store"
    told = subprocess.run(
        [sys.executable, "-m", "tests.sweep.two_nodes", store], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "sees 2 nodes" in told.stdout
    assert "2 answered, all with python" in told.stdout
    assert "store written and read" in told.stdout
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_arithmetic_is_checked_in_every_precision_of_the_grid(
    checks: list[str],
) -> None:
    recipes = {
        phase: TINY[phase] | {"recipe": TINY[phase]["recipe"] | {"precision": kind}}
        for phase, kind in (("search", "fp32"), ("retrain", "tf32"))
    }
    finding = found(None, grid(**recipes))["arithmetic"]
    assert finding.good
    assert finding.text.startswith("cpu, arranged form, fp32: 946 comparisons with float64, at ")
    assert "; tf32: " in finding.text
    assert checks == ["fp32", "tf32"]


def test_arithmetic_that_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(*_: object) -> Checked:
        raise WrongArithmetic("avg_pool_3x3, gradient of the input, cpu: 46 % off")

    monkeypatch.setattr(arithmetic, "check", check)
    finding = found(None)["arithmetic"]
    assert not finding.good
    assert finding.text == "avg_pool_3x3, gradient of the input, cpu: 46 % off"
