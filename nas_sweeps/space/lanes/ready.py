"""Before a trial's first step: its kernels compiled, once for a machine.

Which kernels a network needs is found by running it on torch's meta device (``warm.py``), which
takes seconds, and they are compiled in parallel into Triton's cache folder. A marker there says
that it was done for this network, size, precision, chip and source, so that later trials do
neither; whoever empties the folder removes the markers too. A lock lets one process of a machine
compile at a time: the next finds what the first has left.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
from filelock import FileLock, Timeout
from torch import Tensor

from nas_sweeps.space.genotype import EDGES
from nas_sweeps.space.lanes.warm import Compiled, Target, Variant, compile_all, cpus, variants
from nas_sweeps.space.network import Network
from nas_sweeps.space.plain import PlainSupernet
from nas_sweeps.space.precision import precision

if TYPE_CHECKING:
    from nas_sweeps.trial import Precision

POLL_S = 1.0
TELL_S = 10.0
Net = PlainSupernet | Network


class Need(NamedTuple):
    """What is computed: everything that decides which kernels are compiled, but for the chip.

    Attributes:
        net: in its form ``triton``, on any device.
        batch: images of a training step.
        tested: images of an evaluation batch; 0 for none.
        image: channels, height and width of an image.
        kind: precision of the trial.
        drop_path: whether an evaluation network is trained with it.
    """

    net: Net
    batch: int
    tested: int
    image: tuple[int, int, int]
    kind: Precision
    drop_path: bool = False


class Warmed(NamedTuple):
    """What was done: how many kernels, and how long it took with the wait for others."""

    kernels: int
    seconds: float


def warm_up(
    needs: Sequence[Need],
    device: torch.device,
    *,
    target: Target | None = None,
    tell: Callable[[str], None] = lambda text: None,
    between: Callable[[], None] = lambda: None,
) -> Warmed | None:
    """Compile what this machine has not compiled yet.

    Args:
        needs: the networks and what they are fed.
        device: that it will run on; any, where a ``target`` is given.
        target: chip to compile for; None is the device's own.
        tell: is told that kernels are compiled, how far it is, and how long it took.
        between: called about every second while it waits or compiles; it may raise.

    Returns:
        None where nothing was to do, or where Triton's cache folder cannot be written: then every
        process compiles for itself, when it comes to a kernel.

    Raises:
        RuntimeError: a kernel does not compile.
    """
    started = time.perf_counter()
    if target is None:
        with torch.cuda.device(device):
            target = Target.here()
    folder = Path(triton.knobs.cache.dir) / "nas_sweeps"
    marker = folder / f"{_digest(needs, target)}.json"
    if marker.exists():
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / "compiling.lock", between, tell):
            if marker.exists():  # whoever held the lock has done it
                return None
            wanted = sorted({one for need in needs for one in needed(need, device)}, key=str)
            tell(f"compiling {len(wanted)} kernels, once for this machine")
            compile_all(wanted, target, min(len(wanted), cpus()), _Progress(wanted, tell, between))
            warmed = Warmed(len(wanted), time.perf_counter() - started)
            marker.write_text(json.dumps(warmed._asdict()))
    except OSError as error:
        tell(f"every process compiles its kernels anew: Triton's cache folder: {error}")
        return None
    tell(f"compiled {warmed.kernels} kernels in {warmed.seconds:.0f} s")
    return warmed


class _Progress:
    """Tells every ``TELL_S`` how many of all kernels are compiled."""

    def __init__(
        self, wanted: Sequence[Variant], tell: Callable[[str], None], between: Callable[[], None]
    ) -> None:
        self.wanted, self.tell, self.between = len(wanted), tell, between
        self.told = time.monotonic()

    def __call__(self, done: int, _: Compiled) -> None:
        self.between()
        if done < self.wanted and time.monotonic() - self.told >= TELL_S:
            self.told = time.monotonic()
            self.tell(f"compiled {done} of {self.wanted} kernels")


@contextmanager
def _alone(path: Path, between: Callable[[], None], tell: Callable[[str], None]) -> Iterator[None]:
    """The lock is the system's own: it goes when its holder dies."""
    lock, told = FileLock(path), False
    while True:
        try:
            lock.acquire(timeout=POLL_S)
            break
        except Timeout:
            if not told:
                tell("waiting for kernels that another process of this machine compiles")
            told = True
            between()
    try:
        yield
    finally:
        lock.release()


def needed(need: Need, device: torch.device) -> list[Variant]:
    """Every variant of a kernel that training and testing launch.

    Both steps of a search, of first or second order and by any loss, are one pass with gradients
    of alphas alone and one with those of weights too.
    """
    net = deepcopy(need.net).to("meta").train()
    maps = torch.bfloat16 if need.kind == "bf16" else None

    def images(batch: int) -> Tensor:
        return torch.empty((batch, *need.image), dtype=next(net.parameters()).dtype, device="meta")

    def passes() -> None:
        _train(net, images(need.batch), need.drop_path)
        net.requires_grad_(False)
        if isinstance(net, PlainSupernet):
            _train(net, images(need.batch), need.drop_path)
        net.eval()
        with torch.inference_mode():
            if need.tested:
                net(images(need.tested), *_edge_weights(net))

    with precision(need.kind, device):  # how products are rounded is a part of a variant
        return variants(passes, maps)


def _train(net: Net, x_BCHW: Tensor, drop_path: bool) -> None:
    if isinstance(net, PlainSupernet):
        features_BF = net.features(x_BCHW, *_edge_weights(net))
    else:
        drop = torch.empty((), device="meta") if drop_path else 0.0
        features_BF = net.features(x_BCHW, drop)
    torch.autograd.backward(features_BF.sum())


def _edge_weights(net: Net) -> list[Tensor]:
    if not isinstance(net, PlainSupernet):
        return []
    size = len(EDGES), len(net.operations)
    return [torch.empty(size, device="meta").requires_grad_() for _ in ("normal", "reduce")]


def _digest(needs: Sequence[Need], target: Target) -> str:
    """A digest of all that decides what is compiled; modules' texts hold operations and sizes."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    versions = torch.__version__, triton.__version__
    for part in (*versions, target, *needs):
        digest.update(f"{part!r}\n".encode())
    return digest.hexdigest()[:32]
