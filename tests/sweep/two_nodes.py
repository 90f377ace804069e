"""``doctor --every-node`` on a Ray cluster of two nodes: python -m tests.sweep.two_nodes STORE."""

from __future__ import annotations

import sys
import tempfile

import nas_sweeps.sweep.ray_session  # noqa: F401  it sets what Ray reads when it is imported


def main(store: str) -> int:
    import ray
    from ray.cluster_utils import Cluster

    from tests.verbs import cli

    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # short: names of sockets are
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "include_dashboard": False, "temp_dir": folder},
        )
        try:
            cluster.add_node(num_cpus=1)
            done = cli("doctor", "--every-node", "--address", cluster.address, "--store", store)
            print(done.stdout, done.stderr)
            return done.returncode
        finally:
            ray.shutdown()
            cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
