"""README's "Add a method, a loss, …" in a person's own script, with the default executor.

Its trials are fake: they build the method and read its genotype. A real one is in test_readme.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import nas_sweeps as ns
from nas_sweeps.phases import PHASES
from nas_sweeps.space.published import published
from nas_sweeps.sweep.own_classes import Used, own_of, pack
from tests.faked import SWITCH

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# One Ray session of the script's own serves both runs. The second method uses a module that
# only this process has: its workers cannot import it.
SCRIPT = """
import sys
import types

import ray

import helper_of_mine
import nas_sweeps as ns
from nas_sweeps import methods

only_here = sys.modules["only_here"] = types.ModuleType("only_here")
only_here.SCALE = 1.0


@methods.register("not_there")
@dataclass(frozen=True, slots=True, kw_only=True)
class NotThere(SharpDARTS):
    def edge_weights(self, alpha_EO):
        return only_here.SCALE * alpha_EO.softmax(-1)


def grid(method):
    recipe = {"channels": 2, "layers": 3, "epochs": 1, "batch_size": 8, "loss": "smoothed"}
    return ns.Grid.from_dict({
        "data": {"dataset": "stripes", "image_size": 12, "n_max": 10, "test_n_max": 3},
        "search": {"methods": [method], "distributions": [{"exp": 0.4}],
                   "recipe": recipe | {"sampler": "with_replacement"}},
        "retrain": {"winners": "none"},
    })


assert helper_of_mine.SCALE
ray.init("local", log_to_driver=False, include_dashboard=False)
try:
    ns.run(grid("not_there"), "refused", console="none")
except ValueError as error:
    print(error)
print(ns.run(grid({"sharp_darts": {"temperature": 0.25}}), "done", console="none"))
"""


@pytest.mark.system
def test_classes_of_a_script_are_used_by_rays_workers_or_refused_before_any_trial(
    tmp_path: Path,
) -> None:
    examples = [
        code
        for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
        if "register(" in code
    ]
    assert len(examples) == 3
    example = "\n".join(examples).replace("1e-3 *", "helper_of_mine.SCALE *")
    (tmp_path / "helper_of_mine.py").write_text("SCALE = 1e-3\n")
    script = tmp_path / "mine.py"
    script.write_text("from __future__ import annotations\n" + example + SCRIPT)
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | SWITCH,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    refused, finished = done.stdout.splitlines()
    assert "method 'not_there' of this script does not load in a worker" in refused
    assert "No module named 'only_here'" in refused
    assert "entry-point group 'nas_sweeps.methods', or run with --executor inline" in refused
    assert not (tmp_path / "refused/trials").exists(), "nothing was begun"
    assert finished.startswith("1 of 1 search trials done")


# A phase of a script: its module is in no place where a worker looks.
PHASE = """
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from nas_sweeps.grid.sections import PhaseSection
from nas_sweeps.phases import Phase, register
from nas_sweeps.trial import Positive, RetrainTrial


class AgainSection(PhaseSection):
    epochs: Positive = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class AgainTrial(RetrainTrial):
    prefix = "again"
    phase: Literal["again"] = "again"
    times: Positive = 2


@register("again")
class Again(Phase):
    spec, section, after = AgainTrial, AgainSection, "retrain"

    def slots(self, section, grid, before):
        for slot in before:
            recipe = replace(slot.recipe, epochs=section.epochs)
            yield replace(slot, phase=self.name, parents=(slot.key,), recipe=recipe)
"""
WORKER = """
import sys

from nas_sweeps.sweep.own_classes import unpack
from nas_sweeps.trial import trial_from_json

unpack(open(sys.argv[1], "rb").read())
print(trial_from_json(sys.argv[2]).trial_id)
"""


def test_a_phase_of_a_script_is_known_in_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PHASES, "known", {n: PHASES.get(n) for n in PHASES.names()})
    (tmp_path / "phase_of_mine.py").write_text(PHASE)
    monkeypatch.syspath_prepend(tmp_path)
    import_module("phase_of_mine")
    tree = {
        "data": {"dataset": "digits"},
        "search": {"methods": ["random"], "distributions": [{"exp": 0.4}]},
        "again": {"epochs": 3},
    }
    slot = ns.plan(ns.Grid.from_dict(tree)).by_phase["again"][0]
    assert own_of([slot]) == (Used(PHASES.group, "again"),)
    packed = tmp_path / "packed"
    packed.write_bytes(pack(own_of([slot])))
    trial = slot.resolve(published("DARTS_V2"))
    done = subprocess.run(
        [sys.executable, "-c", WORKER, packed, trial.to_json()],
        capture_output=True,
        text=True,
        cwd="/",
        timeout=60,
    )
    assert done.stdout.strip() == trial.trial_id, done.stderr
    assert trial.trial_id.startswith("again-")
