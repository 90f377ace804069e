"""Why Ray cannot start on a machine: the folder and its variable, not a cluster that is not there.

By the real errors of the real ``ray.init``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CODE = """
import json, os, sys
from nas_sweeps.sweep.ray_session import session
said = []
for changed in json.loads(sys.argv[1]):
    before = dict(os.environ)
    os.environ.update(changed)
    try:
        with session(None):
            said.append("started")
    except ValueError as error:
        said.append(str(error))
    os.environ.clear()
    os.environ.update(before)
print(json.dumps(said))
"""


def test_a_folder_that_ray_cannot_use_is_named_with_its_variable(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 25)
    long.mkdir()
    barred = tmp_path / "a file"
    barred.touch()
    cases = [{"HOME": "/proc"}, {"TMPDIR": str(long)}, {"RAY_TMPDIR": f"{barred}/x"}]
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_TMPDIR", "TMPDIR")}
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(cases)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    no_home, too_long, no_folder = json.loads(done.stdout.splitlines()[-1])
    assert f"{long} ($TMPDIR), is too long; set RAY_TMPDIR to a folder with a short" in too_long
    assert f"cannot write to {barred}/x ($RAY_TMPDIR); set RAY_TMPDIR" in no_folder
    assert "cannot write to /proc/.ray ($HOME); set HOME to a folder" in no_home
    for said in (too_long, no_folder, no_home):
        assert "--executor inline" in said
        assert "address" not in said
