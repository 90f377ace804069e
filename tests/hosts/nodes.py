"""How many nodes of the Ray cluster of this host live: python -m tests.hosts.nodes FILE.

Writes the number into the file whenever it has changed, for as long as it is let. One process that
looks again and again: each new one takes seconds to import Ray.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from nas_sweeps.publish import publish_text
from nas_sweeps.sweep.ray_session import alive_nodes, session


def main(file: str) -> None:
    with session("auto"):
        seen = -1
        while True:
            now = len(alive_nodes())
            if now != seen:
                publish_text(Path(file), f"{now}\n", durable=False)
            seen = now
            time.sleep(0.5)


if __name__ == "__main__":
    main(*sys.argv[1:])
