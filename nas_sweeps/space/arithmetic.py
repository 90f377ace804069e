"""Whether a device computes what it is asked: the arithmetic check.

Libraries below this package have been wrong in silence: forward right, gradients tens of percent
off, no warning. So before a device is trusted, everything that training is made of is computed on
it, forward and backward, and held against float64 on the CPU (``comparison.py``). A miss is an
error that names the operation. It takes about two seconds; ``verified.py`` remembers what passed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch

from nas_sweeps.space import comparison
from nas_sweeps.space.comparison import Error
from nas_sweeps.space.form import Form
from nas_sweeps.space.genotype import OPERATIONS
from nas_sweeps.space.precision import precision

if TYPE_CHECKING:
    from nas_sweeps.space.lanes.ready import Need
    from nas_sweeps.trial import Precision


# How far off is too far, as a share of the norm of what it should be. A fault of a library has
# meant 40 % and more.
#
# An operation by itself rounds a few times: 1e-4 was seen in float32 (of weights, where a sum
# cancels), 5e-3 with factors rounded as TF32 does (eps 5e-4), 6e-2 in bfloat16 (eps 4e-3). Of a
# gradient that is one value over all pixels, BatchNorm leaves a tenth or less, so that its
# rounding counts ten times and more (0.17 seen in bfloat16).
#
# In a network an error of eps in a map turns about a share eps of the signs that a ReLU sees, and
# gradients are then off by about the root of eps. In a network as small as these a single sign
# counts for percents: 2e-2 was seen in float32, 0.1 with products that are off by 1e-5, 0.2 by
# 5e-4, 0.4 in bfloat16. So in reduced precision operations are judged, and networks must only
# have to do with what they should be: gradients that do not are 1.4 off.
LIMITS = {
    "fp32": {
        "operation": 1e-3,
        "expanded": 1e-3,
        "logits": 3e-3,
        "statistics": 1e-3,
        "gradient": 0.15,
    },
    "tf32": {
        "operation": 2e-2,
        "expanded": 0.1,
        "logits": 5e-2,
        "statistics": 2e-2,
        "gradient": 0.6,
    },
    "bf16": {
        "operation": 0.1,
        "expanded": 0.5,
        "logits": 0.3,
        "statistics": 0.1,
        "gradient": 1.0,
    },
}
# Images, and pixels. Maps of 17 x 31, then 9 x 16 and 5 x 8, as wide for kernels as those of
# 32 x 32 images, so that nothing is compiled for this alone; on a CPU, large enough for every way
# of ``depthwise``.
SUPERNETS = ((17, (17, 31)),)
NETWORKS = ((3, (33, 31)), (4, (32, 32)))
BLAMED_ON: dict[Form, tuple[int, int]] = {"triton": (9, 31)}  # other forms: 12 x 12
ON_GPU = 2  # of the sizes that operations are compared in: odd ones, and those of training
# Channels of the first cell. Tensor cores multiply sixteen at least, and with fewer they are not
# used; numbers of channels that are no power of two are multiplied by a library.
CHANNELS = {"plain": (4,), "arranged": (4,), "triton": (16, 12)}
SEED = 0
MUCH = 10.0


class WrongArithmetic(ArithmeticError):
    """A device computes something else than it is asked to. Nothing is to be trained on it."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check that passed has seen."""

    comparisons: int
    worst: Error  # the one nearest to its limit
    seconds: float

    def __str__(self) -> str:
        of = f"{self.worst.quantity}, {self.worst.what}"
        return (
            f"{self.comparisons} comparisons with float64, at worst {self.worst.size:.0e} off "
            f"({of}), {self.seconds:.1f} s"
        )


def check(
    device: torch.device,
    kind: Precision,
    form: Form,
    tell: Callable[[str], None] = lambda text: None,
) -> Checked:
    """Compute everything on ``device`` and hold it against float64.

    Draws from no generator of the caller's. Operations are checked by themselves first, then the
    supernet and an evaluation network in ``form``. ``tell`` is told of kernels that are compiled.

    Raises:
        WrongArithmetic: something is farther off than rounding explains.
    """
    started, threads = time.perf_counter(), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), comparison.on_threads(1):
        torch.default_generator.manual_seed(SEED)
        with precision(kind, device):
            errors = list(_alone(device, kind, threads))
            wrong = _first_miss(errors, kind)
            if wrong is None:
                if form == "triton" and device.type == "cuda":
                    _compile(device, kind, tell)
                errors += _networks(device, form)
                wrong = _blamed(errors, device, kind, form)
    if wrong is not None:
        raise WrongArithmetic(_message(wrong, device, kind))
    worst = max(errors, key=lambda error: _share(error, kind))
    return Checked(len(errors), worst, time.perf_counter() - started)


def _share(error: Error, kind: Precision) -> float:
    """The share of its limit: above 1 is a miss, and an error that is not finite is the worst."""
    share = error.size / LIMITS[kind][error.kind]
    return share if math.isfinite(share) else math.inf


def _alone(device: torch.device, kind: Precision, threads: int) -> Iterator[Error]:
    """On a CPU, threads wait for each other longer than they take for small maps: only the
    largest are computed as training computes them."""
    maps = torch.bfloat16 if kind == "bf16" else torch.float32
    largest = max(comparison.SIZES, key=lambda size: size[0] * size[1] * math.prod(size[2]))
    # On an H200 three sizes took half a minute: cuDNN prepares each convolution that is new to it.
    sizes = comparison.SIZES[:ON_GPU] if device.type == "cuda" else comparison.SIZES
    for size in sizes:
        batch, channels, pixels = size
        on = threads if size == largest else 1
        for one in comparison.operations_alone(channels):
            if one.name == "auxiliary head, pooling" and min(pixels) < 8:
                continue
            yield from comparison.compare_operation(one, batch, pixels, device, maps, on)


def _compile(device: torch.device, kind: Precision, tell: Callable[[str], None]) -> None:
    """All kernels at once, and not one after the other when they are launched."""
    from nas_sweeps.space.lanes.ready import warm_up  # Triton is imported where it is used

    warm_up(needs(kind), device, tell=tell)


def needs(kind: Precision) -> list[Need]:
    """What the check computes by kernels."""
    from nas_sweeps.space.lanes.ready import Need

    return [
        Need(nets("triton", channels)[0], batch, batch, (3, *pixels), kind)
        for nets, sizes in ((comparison.supernets, SUPERNETS), (comparison.networks, NETWORKS))
        for channels in CHANNELS["triton"]
        for batch, pixels in sizes
    ]


def _networks(device: torch.device, form: Form) -> Iterator[Error]:
    for channels in CHANNELS[form]:
        where = f"of {channels} channels"
        for size in SUPERNETS:
            errors = comparison.compare_supernets(form, channels, OPERATIONS, *size, device)
            yield from _placed(errors, f"the {form} supernet {where}")
        for size in NETWORKS:
            errors = comparison.compare_networks(form, channels, *size, device)
            yield from _placed(errors, f"the {form} evaluation network {where}")


def _placed(errors: Iterator[Error], where: str) -> Iterator[Error]:
    for error in errors:
        yield error._replace(what=f"{error.what} in {where}" if error.what else where)


def _blamed(errors: list[Error], device: torch.device, kind: Precision, form: Form) -> Error | None:
    """The first miss, if any: in a supernet of the operation that is to blame, where one is.

    A wrong gradient spoils whatever lies before it, so each operation gets a supernet of its own.
    """
    wrong = _first_miss(errors, kind)
    if wrong is None:
        return None
    by_operation, pixels = [], BLAMED_ON.get(form, (12, 12))
    for name, channels in product(OPERATIONS[1:], CHANNELS[form]):
        alone = comparison.compare_supernets(form, channels, (name,), 4, pixels, device)
        where = f"the {form} supernet of {name} alone, {channels} channels"
        by_operation.append(list(_placed(alone, where)))
    farthest = max(by_operation, key=lambda of_one: max(_share(e, kind) for e in of_one))
    return _first_miss(farthest, kind) or wrong


def _first_miss(errors: list[Error], kind: Precision) -> Error | None:
    """What comes first is a cause, and what follows may be its consequence."""
    return next((error for error in errors if _share(error, kind) > 1), None)


def _message(error: Error, device: torch.device, kind: Precision) -> str:
    size = f"{100 * error.size:.0f} % off" if error.size < MUCH else "out of all proportion"
    limit = f"{100 * LIMITS[kind][error.kind]:g} %"
    return (
        f"{error.what}, {error.quantity}, {device.type}, channels_last: {size}; "
        f"torch {torch.__version__}, {kind}, where up to {limit} is rounding. What is trained here "
        "would be wrong: use another version of torch, another device, or another precision"
    )
