"""Clusters with a token and without one, and a user who has one."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

BIN = Path(sys.executable).parent
QUICKSTART = Path(__file__).resolve().parents[2] / "experiments" / "quickstart.yaml"


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_cluster_is_shown_the_token_that_it_asks_for(mode: str, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text(secrets.token_hex(32))
    names = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"}
    env = {name: value for name, value in os.environ.items() if name not in names}
    env |= {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with socket.create_server(("127.0.0.1", 0)) as held:
        address = f"127.0.0.1:{held.getsockname()[1]}"
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as sockets:
        start = f"start --block --head --node-ip-address 127.0.0.1 --port {address.split(':')[1]}"
        start += f" --num-cpus 1 --num-gpus 0 --include-dashboard false --temp-dir {sockets}"
        log = tmp_path / "log"
        with log.open("w") as to:
            head = subprocess.Popen(
                [BIN / "ray", *start.split()], env=env | {"RAY_AUTH_MODE": mode}, stdout=to
            )
        try:
            while "Ray runtime started" not in log.read_text():
                assert head.poll() is None
                time.sleep(0.2)
            doctor = ["doctor", QUICKSTART, "--every-node", "--address", address]
            done = subprocess.run(
                [BIN / "nas-sweeps", *doctor, "--store", tmp_path / "store"],
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            head.terminate()  # `ray start --block` ends its daemons
            head.wait()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "store written and read" in done.stdout
