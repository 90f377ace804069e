"""``doctor``: whether this machine, a cluster, a grid's images and a store can serve a run.

Every check says what it found or, as an error, what to do. Nothing is trained, downloaded or left
behind.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from nas_sweeps.data.cache import CACHE_VARIABLE, cache_folder
from nas_sweeps.data.presence import find_images
from nas_sweeps.data.splits import prepare
from nas_sweeps.grid import Grid, Plan, plan
from nas_sweeps.grid.tuned import require_samplers
from nas_sweeps.grid.whole_batches import require_whole_batches
from nas_sweeps.paths import user_path
from nas_sweeps.store import Store
from nas_sweeps.store.driver import DriverMonitor
from nas_sweeps.sweep.executor import Executor, executor_of
from nas_sweeps.sweep.finding import Finding, checked
from nas_sweeps.trial import Data, DataPaths, Distribution, Precision

NAMED = ("torch", "torchvision", "ray", "pandas", "pyarrow")
LOW_GIB = 1.0  # a trial of the default recipes keeps two checkpoints of some 20 MB each


def examine(
    grid: Grid | None = None,
    store: str | Path | None = None,
    executor: Executor | str = "ray",
    address: str | None = None,
) -> Iterator[Finding]:
    """Look at everything that ``run`` with the same arguments would need, cheap things first.

    Raises:
        ValueError: arguments that contradict each other.
    """
    where = executor_of(executor, address)
    if store is None and grid is not None:
        store = grid.default_store
    yield checked("packages", packages)
    yield checked("devices", devices)
    yield checked("arithmetic", partial(sound, grid))
    if grid is not None:
        yield from _grid(grid)
    if store is not None:
        yield checked("store", partial(writable, store))
    yield from _space(store, grid.places if grid else DataPaths(), where.folders())
    yield from where.findings(grid, None if store is None else Store(store))


# This machine


def packages() -> str:
    """Versions, held against those that the package asks for."""
    try:
        asked = [Requirement(text) for text in requires("nas_sweeps") or ()]
    except PackageNotFoundError:
        raise ValueError("nas_sweeps is not installed in this Python; run `uv sync`") from None
    wrong = [text for text in map(_wrong, asked) if text]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}; run `uv sync`, or install what is asked for")
    versions = ", ".join(f"{name} {version(name)}" for name in ("nas_sweeps", *NAMED))
    return f"Python {platform.python_version()}, {versions}"


def _wrong(asked: Requirement) -> str | None:
    if asked.marker is not None and not asked.marker.evaluate():
        return None
    try:
        found = version(asked.name)
    except PackageNotFoundError:
        return f"{asked.name} is missing"
    fits = asked.specifier.contains(found, prereleases=True)
    return None if fits else f"{asked.name} is {found}, needed is {asked.specifier}"


def devices() -> str:
    """What torch sees. Raises ValueError where a GPU is there that torch does not see."""
    import torch

    threads = f"{torch.get_num_threads()} CPU threads"
    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        names = ", ".join(f"{gpu.name} with {gpu.total_memory / 2**30:.0f} GiB" for gpu in found)
        return f"{threads}, {len(found)} GPU ({names}), CUDA {torch.version.cuda}"
    if shutil.which("nvidia-smi") and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        raise ValueError(
            f"nvidia-smi is here, but torch {torch.__version__} sees no GPU (it is built for CUDA "
            f"{torch.version.cuda}): see whether nvidia-smi lists one, and renew the driver or "
            "install a torch that fits it"
        )
    return f"{threads}, no GPU"


def sound(grid: Grid | None) -> str:
    """That this machine computes what trials would ask of it. Raises WrongArithmetic."""
    import torch

    from nas_sweeps.space import arithmetic
    from nas_sweeps.space.form import choose_form
    from nas_sweeps.train.form import check_switches

    wanted = [grid.resources(phase).gpus for phase in grid.phases] if grid else [1]
    on = torch.device("cuda:0" if any(wanted) and torch.cuda.is_available() else "cpu")
    asked: list[Precision] = [trial.recipe.precision for trial in plan(grid)] if grid else ["fp32"]
    check_switches(on_cpu=on.type == "cpu")
    form, _ = choose_form(on, supernet=True)
    passed = [f"{kind}: {arithmetic.check(on, kind, form)}" for kind in dict.fromkeys(asked)]
    return f"{on.type}, {form} form, " + "; ".join(passed)


def _space(
    store: str | Path | None, places: DataPaths, others: list[tuple[str, Path]]
) -> Iterator[Finding]:
    """Free space wherever a run writes, once for each file system."""
    wanted: list[tuple[str, Path]] = []
    if store is not None and "://" not in str(store):
        wanted.append(("store", Path(store)))
    try:
        wanted.append(("decoded images", cache_folder(places)))
    except ValueError as error:
        yield Finding("space", False, str(error))
    by_device: dict[int, list[tuple[str, Path]]] = {}
    for what, path in [*wanted, *others]:
        there = _existing(path)
        by_device.setdefault(there.stat().st_dev, []).append((what, there))
    for group in by_device.values():
        names = ", ".join(what for what, _ in group)
        yield checked("space", partial(free, names, group[0][1]))


def free(names: str, path: Path) -> str:
    """Raises ValueError where it is too little for the smallest run."""
    gib = shutil.disk_usage(path).free / 2**30
    if gib < LOW_GIB:
        raise ValueError(
            f"{gib:.2f} GiB free in {path}, where there is: {names}; make room, or name other "
            f"places (--store, ${CACHE_VARIABLE}, $RAY_TMPDIR)"
        )
    return f"{gib:.1f} GiB free in {path}, for: {names}"


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = user_path(path).absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


# The store


def writable(store: str | Path) -> str:
    """That a file which is written there reads back. Raises ValueError."""
    keeper = Store(store)
    keeper.check_version()
    with probed(keeper):
        pass
    if not keeper.exists():
        return f"{keeper} can be written to; it is not there yet"
    keeper.require()
    driver = DriverMonitor(keeper.layout).driver()
    now = f"; {driver.who}" if driver is not None else ""
    return f"{keeper} can be written to{now}"


@contextmanager
def probed(store: Store) -> Iterator[str]:
    """A token in a file of the store, which is gone afterwards, as are folders made for it.

    Raises:
        ValueError: it cannot be written, or reads back otherwise.
    """
    token = secrets.token_hex(8)
    made = [] if "://" in store.root else _missing(Path(store.root))
    file = store.layout.probe(token)
    try:
        file.publish_json({"token": token})
        if file.read_json() != {"token": token}:
            raise ValueError(f"store '{store}': what is written there does not read back")
        yield token
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"store '{store}': there is a file in the way; name a folder") from None
    except OSError as error:
        raise ValueError(
            f"store '{store}' cannot be written to ({error.strerror or error}); change its "
            "permissions, make room, or name another store"
        ) from None
    finally:
        with suppress(OSError):
            file.remove()
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _missing(path: Path) -> list[Path]:
    return [folder for folder in (path, *path.parents) if not folder.exists()]


# The grid


def _grid(grid: Grid) -> Iterator[Finding]:
    planned = plan(grid)
    yield checked("grid", partial(_plannable, grid, planned))
    try:
        found = find_images(next(iter(planned)).data, grid.places)
    except (ValueError, OSError) as error:
        yield Finding("data", False, str(error))
        return
    yield Finding("data", True, found.text, later=not found.here)
    if found.here:
        yield checked("subsets", partial(drawn, planned, grid.places))


def _plannable(grid: Grid, planned: Plan) -> str:
    """How many trials it has. Raises ValueError where nobody here can propose some of them."""
    require_samplers(planned)
    return f"{grid.name}: {len(planned)} trials"


def drawn(planned: Plan, places: DataPaths) -> str:
    """That every training set of the plan can be drawn, and holds a batch; and how it came about.

    Raises ValueError as ``prepare`` and ``require_whole_batches``.
    """
    sizes: dict[str, str] = {}
    notes: list[str] = []
    counts: dict[tuple[Data, Distribution], tuple[int, ...]] = {}
    for data, distribution in dict.fromkeys((e.data, e.distribution) for e in planned):
        bundle = prepare(data, distribution, places, "cpu")
        sizes[str(distribution)] = _size(distribution, bundle.train_counts)
        notes += bundle.notes
        counts[data, distribution] = bundle.train_counts
    require_whole_batches(planned, lambda *key: counts[key])
    told = "training images: " + ", ".join(f"{name} {size}" for name, size in sizes.items())
    return "; ".join([told, *dict.fromkeys(notes)])


def _size(distribution: Distribution, counts: Sequence[int]) -> str:
    """How many images, and of natural counts how unequal they are."""
    natural = distribution.kind == "natural"
    return f"{sum(counts):,}" + (f" ({min(counts):,} to {max(counts):,} a class)" * natural)
