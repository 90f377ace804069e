"""README's "Add a method, a loss, …" in a person's own script, with the default executor.

Its trials are fake: they build the method and read its genotype. A real one is in test_readme.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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
