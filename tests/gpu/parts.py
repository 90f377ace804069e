"""The parts of the check, each run as ``python -m tests.gpu.parts NAME JSON`` by ``check.py``.

A part tells its figures one by one, in the order of their worth, so that what it has told counts
even where its time runs out. On a CPU every part does the same with tiny sizes, where kernels are
compiled for a chip that is not there and none is launched.
"""

from __future__ import annotations

import faulthandler
import json
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from nas_sweeps.bench.options import Options, Task
from nas_sweeps.space.verified import model as device_model
from nas_sweeps.trial import Precision

KINDS: tuple[Precision, ...] = ("tf32", "bf16", "fp32")
ENDING_S = 10.0  # for pytest to say what has failed
COLLECTED = re.compile(r"^(\d+)/\d+ tests collected")
WITH_GPU_TESTS = (
    "tests/gpu",
    "tests/data",
    "tests/train/test_bilevel.py",
    "tests/train/test_recorded.py",
)
VERSIONS = ("nas_sweeps", "torch", "triton", "numpy", "pyarrow")


@dataclass
class Part:
    """What a part is told, and whom it tells."""

    name: str
    device: str
    tiny: bool
    images: str | None
    out: Path
    figures: Path
    limit_s: float

    def tell(self, name: str, value: float | None, unit: str = "") -> None:
        """A figure; for a fact in words, the words are the unit and there is no value."""
        row = {"part": self.name, "name": name, "value": value, "unit": unit}
        row |= {"device": self.model, "versions": json.dumps(self.versions)}
        row |= {"date": datetime.now(UTC).isoformat(timespec="seconds")}
        with self.figures.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(name, value, unit, flush=True)

    @cached_property
    def model(self) -> str:
        """The device's name, as records of the arithmetic check have it."""
        return device_model(torch.device(self.device))

    @cached_property
    def versions(self) -> dict[str, str]:
        """Of what computes: package to version."""
        found = {"python": platform.python_version()}
        for package in VERSIONS:
            with suppress(PackageNotFoundError):
                found[package] = version(package)
        return found

    @property
    def options(self) -> Options:
        """The benchmark's sizes."""
        if not self.tiny:
            return Options(device=self.device, repeats=3, memory=False)  # type: ignore[arg-type]
        return Options(
            channels=2, layers=3, batch=4, image_size=8, retrain_channels=2, retrain_layers=3,
            retrain_batch=4, darts_channels=2, darts_layers=3, darts_batch=4, test_images=10,
            threads=1, repeats=1, memory=False, steps=1, processes=(1,),
            device=self.device,  # type: ignore[arg-type]
        )  # fmt: skip


def environment(part: Part) -> None:
    """Device, versions, and rates of a copy and of a matrix product."""
    from nas_sweeps.bench.measure import rates

    cuda = part.device == "cuda"
    part.tell("device", None, part.model)
    for package, number in part.versions.items():
        part.tell(f"version of {package}", None, number)
    if cuda:
        part.tell("memory", torch.cuda.get_device_properties(0).total_memory / 2**30, "GiB")
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        part.tell("version of driver", None, driver)
    if not part.tiny:
        gemm, copy = rates(part.device)
        part.tell("product of fp32 matrices", gemm, "GFLOP/s")
        part.tell("copy", copy, "GB/s")


def needs(part: Part) -> list[Any]:
    """All that the parts after this one launch, of training and of the arithmetic check."""
    from nas_sweeps.space import arithmetic
    from nas_sweeps.space.lanes.ready import Need
    from nas_sweeps.space.network import Network
    from nas_sweeps.space.published import published
    from nas_sweeps.space.supernet import Supernet
    from nas_sweeps.train.common import EVAL_BATCH

    sizes = part.options
    search = Supernet(sizes.channels, sizes.layers, 10)
    small, large = (
        Network(published("DARTS_V2"), channels, layers, 10, auxiliary=not part.tiny)
        for channels, layers in (
            (sizes.retrain_channels, sizes.retrain_layers),
            (sizes.darts_channels, sizes.darts_layers),
        )
    )
    search.form = small.form = large.form = "triton"
    image, tested = (3, sizes.image_size, sizes.image_size), EVAL_BATCH["cuda"]
    out: list[Any] = []
    for kind in KINDS:
        out.append(Need(search, sizes.batch, tested, image, kind))
        for net, batch in ((small, sizes.retrain_batch), (large, sizes.darts_batch)):
            out.append(Need(net, batch, tested, image, kind, True))
        if not part.tiny:
            out += arithmetic.needs(kind)
    return out


def warm_up(part: Part) -> None:
    """All kernels, in parallel, into Triton's cache."""
    from nas_sweeps.space.lanes import ready
    from nas_sweeps.space.lanes.warm import Target, compile_all
    from tests.gpu import kernels

    if part.device == "cuda":
        for what, needed in (("benchmark", needs(part)), ("tests", kernels.needs())):
            warmed = ready.warm_up(needed, torch.device("cuda"), tell=partial(print, flush=True))
            part.tell(f"{what}: compiled or found", warmed.kernels if warmed else 0, "kernels")
            part.tell(f"{what}: in", warmed.seconds if warmed else 0.0, "s")
        return
    found = {
        v.kernel: v for need in needs(part)[:1] for v in ready.needed(need, torch.device("cpu"))
    }
    done = compile_all(list(found.values())[:2], Target(90), 2)
    part.tell("compiled", len(done), "kernels")


def arithmetic(part: Part) -> None:
    """The check that comes before the first trial, in every precision."""
    from nas_sweeps.space.arithmetic import check

    form = "triton" if part.device == "cuda" else "arranged"
    for kind in KINDS if part.device == "cuda" else ("fp32",):
        seen = check(torch.device(part.device), kind, form)  # type: ignore[arg-type]
        part.tell(f"{form}, {kind}: comparisons", seen.comparisons, "")
        part.tell(
            f"{form}, {kind}: worst, {seen.worst.what} {seen.worst.quantity}", seen.worst.size
        )
        part.tell(f"{form}, {kind}: took", seen.seconds, "s")


def tests(part: Part) -> None:
    """``pytest -m gpu``; on a CPU they are collected."""
    # Without the options of pyproject.toml, whose plugins that machine need not have.
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "--import-mode=importlib", "-v"]
    command += ["-m", "gpu", "--durations=10", "-ra", "--tb=short", *WITH_GPU_TESTS]
    if part.device != "cuda":
        command += ["--collect-only"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # Interrupted a little before its time is up, pytest still says what has failed.
        ending = threading.Timer(
            max(1.0, part.limit_s - ENDING_S), process.send_signal, (signal.SIGINT,)
        )
        ending.daemon = True
        ending.start()
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        ending.cancel()
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            part.tell(line.strip()[:200], None)
    for count, state in re.findall(
        r"(\d+)(?:/\d+)? (passed|failed|errors?|tests collected)", lines[-1]
    ):
        part.tell(state, float(count), "tests")
    part.tell("took", time.perf_counter() - started, "s")
    if process.returncode:
        raise SystemExit(f"pytest ended with {process.returncode}")


def benchmark(part: Part) -> None:
    """What README's table holds, in the order of its worth."""
    ours = ("ours", "ours, graphed")
    both: Any = ("tf32", "bf16")
    # Without the plain form first: on an H200 all of ours took 45 s, and one of plain up to 20.
    wanted: list[tuple[Task, Any, tuple[str, ...], bool]] = [
        ("first_order", KINDS, ours[1:], False),
        ("retrain", both, ours[1:], False),
        ("ssf_nas", both, ours[1:], False),
        ("second_order", ("tf32",), ours[1:], False),
        ("retrain_darts", both, ours[1:], False),
        ("test_pass", both, ("ours",), False),
        ("start", ("tf32",), (), True),
        ("packing", ("tf32",), (), True),
        ("first_order", ("tf32",), ("and graphed", "ours"), False),
        ("retrain", ("bf16",), ("plain, graphed",), False),
        ("retrain_darts", ("bf16",), ("plain, graphed",), False),
        ("evaluation", ("tf32",), ("ours",), True),
    ]
    failed = []
    for task, kinds, only, reference in wanted:
        sizes = replace(part.options, tasks=(task,), precisions=kinds, only=only)
        sizes = replace(sizes, reference=reference or part.tiny)
        if part.tiny:
            sizes = replace(sizes, only=("ours",), precisions=("fp32",))
        if part.tiny and task.startswith("retrain"):
            sizes = replace(sizes, image_size=32)  # the auxiliary head needs them
        if part.device == "cuda" and task == "packing":
            sizes = replace(sizes, processes=(1, 2, 4), steps=50)
        try:
            for row in bench_rows(sizes):
                tell_row(part, row)
        except Exception as error:  # one task of many
            failed.append(f"{task}: {type(error).__name__}: {error}")
            print(failed[-1], flush=True)
    if failed:
        raise SystemExit("; ".join(failed))


def bench_rows(options: Options) -> list[dict[str, Any]]:
    """The benchmark's rows, without its screen."""
    from rich.console import Console

    from nas_sweeps.bench.run import run

    with open("/dev/null", "w") as nowhere:
        return run(options, console=Console(file=nowhere))


def tell_row(part: Part, row: dict[str, Any]) -> None:
    """Milliseconds of a step; then, where they are known, images, memory and kernels."""
    name = f"{row['task']}, {row['precision']}, {row['variant']}"
    if row["processes"]:
        name = f"{row['task']}, {row['precision']}, {row['processes']} at once"
    if row["form"]:
        name += f" ({row['form']})"
    part.tell(name, 1e3 * row["step_s"], "ms")
    if row["peak_mem_gib"] is not None:
        part.tell(f"{name}: peak", row["peak_mem_gib"], "GiB")
    if row["kernels"]:
        part.tell(f"{name}: kernels", row["kernels"], "")


def profile(part: Part) -> None:
    """A first-order step by kernel, longest first."""
    from nas_sweeps.bench.measure import profiled
    from nas_sweeps.bench.steps import make_step
    from nas_sweeps.bench.variants import OURS, OURS_GRAPHED

    for kind in KINDS[:2] if part.device == "cuda" else ("fp32",):
        sizes = replace(part.options, precisions=(kind,))
        step = make_step(sizes, "first_order", OURS_GRAPHED if part.device == "cuda" else OURS)
        step()
        spent = profiled(step, part.device)
        part.tell(f"{kind}: all", sum(one.us for one in spent) / 1e3, "ms")
        part.tell(f"{kind}: launches", sum(one.launches for one in spent), "")
        for one in spent[:40]:
            part.tell(f"{kind}: {one.launches} x {one.name[:90]}", one.us, "us")


@dataclass(frozen=True)
class Tiles:
    """Sizes that a kernel may be cut into; the first of ``TILES`` are the present ones."""

    values: int = 2048
    pixels: int = 16
    warps: int = 4

    def __str__(self) -> str:
        return f"{self.values} values, {self.pixels} pixels, {self.warps} warps"


TILES = (
    Tiles(),
    Tiles(warps=2),
    Tiles(warps=8),
    Tiles(values=1024),
    Tiles(values=4096),
    Tiles(pixels=32),
)


@contextmanager
def cut(tiles: Tiles) -> Iterator[None]:
    """Inside, cells are computed with these."""
    from nas_sweeps.space.lanes import backward, shape, work

    modules: list[Any] = [shape, backward]
    before = [(module, module.VALUES, module.PIXELS) for module in modules]
    made = work.Work.__init__

    def with_warps(self: Any, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        self.common = self.common | {"num_warps": tiles.warps}

    work.Work.__init__ = with_warps  # type: ignore[method-assign]
    for module in modules:
        module.VALUES, module.PIXELS = tiles.values, tiles.pixels
    try:
        yield
    finally:
        work.Work.__init__ = made  # type: ignore[method-assign]
        for module, values, pixels in before:
            module.VALUES, module.PIXELS = values, pixels


def tiles(part: Part) -> None:
    """Every kernel of the five kinds of cell of a supernet, cut in several ways."""
    from nas_sweeps.bench.measure import profiled
    from nas_sweeps.space.lanes.warm import Target, compile_all, variants
    from nas_sweeps.space.precision import precision
    from nas_sweeps.space.supernet import Supernet

    sizes, cuda = part.options, part.device == "cuda"
    net = Supernet(sizes.channels, sizes.layers, 10)
    chosen = (0, 2, 3, 5, 6) if sizes.layers == 8 else (0, 1)
    ways = TILES if not part.tiny else TILES[:2]
    target = Target.here() if cuda else Target(90)
    with precision("tf32", torch.device(part.device)):
        wanted = set()
        for way in ways:
            with cut(way):
                meta = net.to("meta")
                wanted |= {v for k in chosen for v in variants(cell_pass(meta, k, sizes, "meta"))}
        started = time.perf_counter()
        done = compile_all(sorted(wanted, key=str)[: None if cuda else 2], target)
        part.tell("compiled", len(done), "kernels")
        part.tell("compiled in", time.perf_counter() - started, "s")
        if not cuda:
            return
        net = Supernet(sizes.channels, sizes.layers, 10).to("cuda")
        for k in chosen:
            for way in ways:
                with cut(way):
                    step = cell_pass(net, k, sizes, "cuda")
                    step()
                    for one in profiled(step, "cuda"):
                        if not one.name.startswith(("void", "Mem")):
                            part.tell(f"cell {k}, {way}: {one.name[:40]}", one.us, "us")


def cell_pass(net: Any, k: int, sizes: Options, device: str) -> Callable[[], object]:
    """Forward and both kinds of backward pass of cell k."""
    from nas_sweeps.space.lanes.cell import run_cell

    cell = net.cells[k]
    halved = sum(one.reduction for one in net.cells[:k])
    channels = sizes.channels * 2 ** (halved + int(cell.reduction))
    side = sizes.image_size >> halved

    def step() -> None:
        state = (sizes.batch, channels, side, side)
        states = [torch.zeros(state, device=device, requires_grad=True) for _ in range(2)]
        weights = torch.zeros(14, 8, device=device, requires_grad=True)
        for learn in (True, False):
            for parameter in cell.parameters():
                parameter.requires_grad_(learn)
            out = run_cell(cell.table, states[0], states[1], 2 if cell.reduction else 1, weights)
            torch.autograd.backward(out.sum())

    return step


def epochs(part: Part) -> None:
    """An epoch of each method, and of each genotype's network, by the command that users type."""
    sizes = part.options
    grid: dict[str, Any] = {
        "data": {"path": part.images} if part.images else {"dataset": "digits", "image_size": 32},
        "search": {
            "methods": ["darts", "fairdarts", "ssf_nas"],
            "distributions": [{"exp": 0.1}],
            "seeds": [0],
            "recipe": {"epochs": 1},
            "resources": {"gpus": int(part.device == "cuda"), "cpus": sizes.threads},
        },
        "retrain": {"recipe": {"epochs": 1}, "barlow": {"epochs": 1}},
    }
    grid["retrain"]["resources"] = grid["search"]["resources"]
    if part.device == "cuda":
        grid["search"]["recipe"]["precision"] = grid["retrain"]["recipe"]["precision"] = "tf32"
    if part.tiny:
        small = {"channels": 2, "layers": 3, "batch_size": 24}
        grid["data"] |= {"n_max": 30, "test_n_max": 2, "image_size": 8}
        grid["search"]["methods"] = ["darts", {"ssf_nas": {"barlow_dim": 8, "barlow_hidden": 8}}]
        grid["search"]["recipe"] |= small
        grid["retrain"] |= {"barlow": {"epochs": 1, "dim": 8, "hidden": 8}}
        grid["retrain"]["recipe"] |= small
    file, store = part.out / "epochs.yaml", part.out / f"epochs-{int(time.time())}"
    file.write_text(json.dumps(grid))  # which is YAML too
    started = time.perf_counter()
    command = [sys.executable, "-m", "nas_sweeps.cli", "run", str(file), "--executor", "inline"]
    code = subprocess.run([*command, "--store", str(store)], check=False).returncode
    part.tell("whole command", time.perf_counter() - started, "s")
    if (store / "store.json").exists():
        tell_store(part, store)
    if code:
        raise SystemExit(f"the run ended with {code}")


def tell_store(part: Part, store: Path) -> None:
    """Seconds, images a second and accuracy of every epoch in a store."""
    import nas_sweeps as ns

    frames = ns.load(str(store))
    trials = frames.trials.set_index("trial_id")
    for row in frames.epochs.to_dict("records"):
        trial = trials.loc[row["trial_id"]]
        name = f"{trial['phase']} {trial['method']}, {row['stage']}"
        part.tell(f"{name}: epoch", row["epoch_s"], "s")
        part.tell(f"{name}: training", row["images_per_s"], "images/s")
        part.tell(f"{name}: loss", row["loss_weights"], "")


def trial(part: Part) -> None:
    """Where the time of a trial of Table I goes: a search, then a retrain, three epochs each."""
    from nas_sweeps.bench.start import Subject, seconds_by_phase

    sizes = part.options
    names = ("channels", "layers", "batch", "image_size", "threads")
    kind = "tf32" if part.device == "cuda" else "fp32"
    subject = Subject(device=part.device, precision=kind, path=part.images, epochs=3)
    if part.tiny:
        small = {name: getattr(sizes, name) for name in names}
        subject = replace(subject, **small | {"batch": 24}, epochs=1, n_max=30)
    for phase in ("search", "retrain"):
        for name, seconds in seconds_by_phase(replace(subject, phase=phase)).items():
            part.tell(f"{phase}, {subject.epochs} epochs: {name}", seconds, "s")


PARTS: dict[str, Callable[[Part], None]] = {
    "environment": environment,
    "warm-up": warm_up,
    "benchmark": benchmark,
    "profile": profile,
    "arithmetic": arithmetic,
    "tests": tests,
    "epochs": epochs,
    "trial": trial,
    "tiles": tiles,
}


def main(arguments: Sequence[str]) -> None:
    """Run one part."""
    name, given = arguments[0], json.loads(arguments[1])
    paths: dict[str, Any] = {key: Path(given.pop(key)) for key in ("out", "figures")}
    part = Part(name=name, **given, **paths)
    torch.set_num_threads(part.options.threads)
    # Where a part hangs is worth more than that it did.
    faulthandler.dump_traceback_later(max(1.0, part.limit_s - 1.0))
    PARTS[name](part)


if __name__ == "__main__":
    main(sys.argv[1:])
