"""A GPU for ten minutes: run every part in order, each with a limit of its own, and keep it all.

``parts.py`` holds the parts; each is a process of its own. One that fails or takes too long is said
on the page and stops no other. After each part the two files are written anew, so that whatever was
measured is there even if the machine goes away:

``figures.parquet``
    All figures, a row each: part, name, value, unit, device, versions, date.
``page.txt``
    A page for a person; short tables come last.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
LIMITS_S = {  # on a GPU; a machine that is slower loses the last parts, not the first
    "environment": 30,
    "warm-up": 130,
    "benchmark": 110,
    "profile": 30,
    "arithmetic": 100,
    "tests": 200,
    "epochs": 70,
    "trial": 60,
    "tiles": 80,
}
ALL_S = 470  # of all parts together
SCHEMA = pa.schema(
    [
        ("part", pa.string()),
        ("name", pa.string()),
        ("value", pa.float64()),
        ("unit", pa.string()),
        ("device", pa.string()),
        ("versions", pa.string()),  # JSON: name to version
        ("date", pa.string()),  # ISO 8601, UTC
    ]
)
SHOWN = {"benchmark": 60, "profile": 24}  # rows of a part's table, else FEW
FEW = 14
Figure = dict[str, Any]


@dataclass
class Ended:
    """How a part went."""

    part: str
    state: str  # done, failed, out of time
    seconds: float
    said: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for; 0 where each was done."""
    options = read(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # parts end with it
    out: Path = options.out.resolve()
    try:
        refuse_no_gpu(options.device)
        out.mkdir(parents=True, exist_ok=True)
        (out / "page.txt").touch()
    except (OSError, ValueError) as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    parts = options.part or list(LIMITS_S)
    ended: list[Ended] = []
    figures = [figure for figure in kept(out) if figure["part"] not in parts]
    until = time.monotonic() + options.limit
    try:
        for part in parts:
            left = min(options.part_limit or LIMITS_S[part], until - time.monotonic())
            one, found = run(part, options, out, left)
            ended.append(one)
            figures += found
            keep(figures, ended, out)
            print(f"{part}: {one.state}, {one.seconds:.0f} s", flush=True)
    except KeyboardInterrupt:
        print(f"stopped; what was measured until now is in {out}", file=sys.stderr)
        return 130
    print((out / "page.txt").read_text())
    return int(any(one.state != "done" for one in ended))


def refuse_no_gpu(device: str) -> None:
    """Raises ``ValueError`` where a GPU is asked for and torch sees none."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"torch {torch.__version__} sees no GPU; --device cpu runs every part in tiny sizes"
        )


def kept(out: Path) -> list[Figure]:
    """The figures of an earlier call: parts that are not run again keep theirs."""
    file = out / "figures.parquet"
    found: list[Figure] = pq.read_table(file).to_pylist() if file.exists() else []
    return found


def read(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the two files")
    parser.add_argument("--images", help="folder of CIFAR-10, as data.path; unasked: digits")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes; always so on a CPU")
    parser.add_argument("--part", action="append", choices=LIMITS_S, help="only this; repeatable")
    parser.add_argument("--limit", type=float, default=ALL_S, help="seconds of all parts")
    parser.add_argument("--part-limit", type=float, help="seconds of each part")
    return parser.parse_args(arguments)


def run(
    part: str, options: argparse.Namespace, out: Path, limit_s: float
) -> tuple[Ended, list[Figure]]:
    """One part in a process of its own, with what it measured until it ended."""
    if limit_s < 1:
        return Ended(part, "out of time", 0.0, "no time was left to start it"), []
    lines, log = out / f"{part}.jsonl", out / f"{part}.log"
    lines.unlink(missing_ok=True)
    given = {
        "device": options.device,
        "tiny": options.dry_run or options.device == "cpu",
        "images": options.images,
        "out": str(out),
        "figures": str(lines),
        "limit_s": limit_s,
    }
    started, state = time.monotonic(), "done"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "tests.gpu.parts", part, json.dumps(given)],
            cwd=ROOT, env=environment(options.device), stdout=file, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            if process.wait(limit_s):
                state = "failed"
        except subprocess.TimeoutExpired:
            state = "out of time"
        finally:
            kill(process)
    said = "" if state == "done" else "\n".join(log.read_text().strip().splitlines()[-8:])
    found = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    return Ended(part, state, time.monotonic() - started, said), found


def environment(device: str) -> dict[str, str]:
    """Kernels are compiled, not interpreted; imports find this checkout."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"PYTHONPATH": paths, "TRITON_INTERPRET": "0"}
    if device == "cpu":
        own |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return os.environ | own


def kill(process: subprocess.Popen[bytes]) -> None:
    """A part and whatever it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def keep(figures: Sequence[Figure], ended: Sequence[Ended], out: Path) -> None:
    """Write both files."""
    pq.write_table(pa.Table.from_pylist(list(figures), schema=SCHEMA), out / "figures.parquet")
    (out / "page.txt").write_text(page(figures, ended))


def page(figures: Sequence[Figure], ended: Sequence[Ended]) -> str:
    """What was measured, for a person."""
    lines = []
    for device, versions in dict.fromkeys((f["device"], f["versions"]) for f in figures):
        dates = sorted(f["date"] for f in figures if f["device"] == device)
        lines += [f"{device}, {dates[0]} to {dates[-1]}", f"versions {versions}", ""]
    for one in ended:
        lines.append(f"{one.part:<12} {one.state:<12} {one.seconds:6.1f} s")
        lines += [f"    {line}" for line in one.said.splitlines()]
    for part in dict.fromkeys(f["part"] for f in figures):
        rows, shown = [f for f in figures if f["part"] == part], SHOWN.get(part, FEW)
        lines += ["", f"== {part}"]
        lines += [f"{number(f['value']):>12} {f['unit']:<10} {f['name']}" for f in rows[:shown]]
        if len(rows) > shown:
            lines.append(f"{'':>12} and {len(rows) - shown} more in figures.parquet")
    return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    """Four digits, and no exponent where it can do without."""
    return "" if value is None else f"{value:,.4g}"


if __name__ == "__main__":
    sys.exit(main())
