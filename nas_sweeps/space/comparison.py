"""How far what a device computes is from the same in float64: the parts of the arithmetic check.

Each function computes something twice: plainly, in float64 and torch's default layout on the CPU,
and as training does, on a device, channels last and in a precision. Both start from the same
numbers. Nothing here judges; ``arithmetic.py`` does.

Batches and maps are odd and even, and each operation meets gradients as a network sends them:
dense, a slice of channels (from a concatenation) and one value over all pixels (from a mean).
Shapes: B images, C channels, H x W pixels, E edges, O operations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_sweeps.space.form import Form
from nas_sweeps.space.genotype import EDGES, NODES, OPERATIONS, Edge, Genotype
from nas_sweeps.space.network import AuxiliaryHead, Network
from nas_sweeps.space.operations import build_operation, build_preprocess, build_stem
from nas_sweeps.space.plain import PlainSupernet
from nas_sweeps.space.supernet import Supernet

LAST = torch.channels_last
CLASSES = 5
M = TypeVar("M", bound=nn.Module)


class Error(NamedTuple):
    """One comparison: the norm of the difference over the norm of what it should be."""

    what: str  # an operation or a part of a network
    quantity: str
    size: float  # 0.46 is 46 % off; not finite where the device's numbers are not
    kind: str  # of the limit that it is held against


# Operations by themselves


class Alone(NamedTuple):
    """A module that rounds its input at most once before any kink, so that none is crossed."""

    name: str
    module: nn.Module
    channels: int  # that it reads


SIZES = ((3, 4, (9, 7)), (15, 8, (32, 32)), (4, 16, (16, 16)))  # images, channels, pixels


def operations_alone(channels: int) -> Iterator[Alone]:
    """All that cells, stems and heads are made of; separable convolutions as two halves."""
    for stride in (1, 2):
        for name in OPERATIONS:
            module = build_operation(name, channels, stride, affine=True, pool_norm=False)
            if name.startswith("sep_conv"):
                yield from (Alone(name, half, channels) for half in module.children())
            elif any(True for _ in module.children()):  # neither none nor the identity
                yield Alone(name, module, channels)
    for shrink, part in ((False, "preprocess"), (True, "preprocess of a reduction")):
        layer = build_preprocess(2 * channels, channels, shrink=shrink, affine=False)
        yield Alone(part, layer, 2 * channels)
    yield Alone("stem", build_stem(3, channels), 3)
    yield Alone("batch_norm", nn.BatchNorm2d(channels, affine=False), channels)
    head = AuxiliaryHead(channels, CLASSES)
    yield Alone("auxiliary head, pooling", head.pool, channels)
    yield Alone("auxiliary head, convolution", head.reduce, channels)


def compare_operation(
    one: Alone,
    batch: int,
    pixels: tuple[int, int],
    device: torch.device,
    maps: torch.dtype,
    threads: int,
) -> Iterator[Error]:
    """Output, gradients for three kinds of incoming gradient, and running statistics.

    Args:
        maps: the type of a map in training. Maxima are compared in float32: where two of a few
            bits are equal, either may be the largest.
        threads: of what is looked at, where it runs on a CPU.
    """
    maps = torch.float32 if one.name.startswith("max_pool") else maps
    reference = _unmoved(deepcopy(one.module).double())
    ours = _unmoved(deepcopy(one.module).to(device, memory_format=LAST))  # type: ignore[call-overload]
    x_BCHW = torch.randn(batch, one.channels, *pixels).to(maps)
    x64_BCHW = x_BCHW.double().requires_grad_()
    x_BCHW = x_BCHW.to(device).contiguous(memory_format=LAST).requires_grad_()
    with on_threads(threads):
        out_BCHW = ours(x_BCHW)
    out64_BCHW = reference(x64_BCHW)
    yield Error(one.name, "output", off(out_BCHW, out64_BCHW), "operation")
    wide = torch.randn(batch, 4 * out_BCHW.shape[1], *out_BCHW.shape[2:]).to(out_BCHW.dtype)
    on_device = wide.to(device).contiguous(memory_format=LAST)
    arriving = zip(_arriving(wide.double()), _arriving(on_device), strict=True)
    for (kind, d64_BCHW), (_, d_BCHW) in arriving:
        expected = _gradients(out64_BCHW, [x64_BCHW, *reference.parameters()], d64_BCHW)
        with on_threads(threads):
            got = _gradients(out_BCHW, [x_BCHW, *ours.parameters()], d_BCHW)
        for i, pair in enumerate(zip(got, expected, strict=True)):
            quantity = "gradient of the weights" if i else "gradient of the input"
            yield Error(one.name, quantity, off(*pair), kind)
    for _, size in _statistics(ours, reference):
        yield Error(one.name, "running statistics", size, "operation")


def _arriving(wide_BCHW: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Incoming gradients, each with the kind of its errors. BatchNorm leaves little of one value
    over all pixels, and what rounding adds to it is alike in all of them."""
    channels = wide_BCHW.shape[1] // 4
    slice_BCHW = wide_BCHW[:, channels : 2 * channels]
    yield "operation", slice_BCHW.contiguous(memory_format=LAST)
    yield "operation", slice_BCHW
    yield "expanded", slice_BCHW[:, :, :1, :1].expand_as(slice_BCHW)


def _gradients(out: Tensor, inputs: Sequence[Tensor], arriving: Tensor) -> Sequence[Tensor]:
    return torch.autograd.grad(out, inputs, arriving, retain_graph=True)


# Whole networks


class Side(NamedTuple):
    """A network and what it is given, in one form, precision and place."""

    net: nn.Module
    x_BCHW: Tensor
    labels_B: Tensor
    edge_weights: list[Tensor]  # (E, O) of both kinds of cell; none for an evaluation network

    def logits(self) -> Tensor:
        """(B, K); with an auxiliary head (2B, K)."""
        out = self.net(self.x_BCHW, *self.edge_weights)
        if isinstance(out, Tensor):
            return out
        return torch.cat([logits_BK for logits_BK in out if logits_BK is not None])


def supernets(
    form: Form, channels: int, operations: Sequence[str] = OPERATIONS
) -> tuple[Supernet, PlainSupernet]:
    """A small one, of three cells, in ``form``, and the plain one with the same numbers."""
    ours = Supernet(channels, 3, CLASSES, operations)
    ours.form = form
    plain = PlainSupernet(channels, 3, CLASSES, operations)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def compare_supernets(
    form: Form,
    channels: int,
    operations: Sequence[str],
    batch: int,
    pixels: tuple[int, int],
    device: torch.device,
) -> Iterator[Error]:
    """A supernet in ``form`` with the plain one."""
    nets = supernets(form, channels, operations)
    alphas = torch.randn(2, len(EDGES), len(operations))
    yield from _compare(*nets, list(alphas.softmax(-1)), batch, pixels, device, operations)


# Every operation in both cells, and in a reduction cell with stride 2 (from sources 0 and 1).
_EVERY: tuple[Edge, ...] = tuple(
    (name, row % 2, NODES[row // 2]) for row, name in enumerate(OPERATIONS) if name != "none"
)
GENOTYPE = Genotype(
    normal=(*_EVERY, ("avg_pool_3x3", 2, 5)), reduce=(*_EVERY, ("avg_pool_3x3", 2, 5))
)


def networks(form: Form, channels: int) -> tuple[Network, Network]:
    """Small ones, with every operation and an auxiliary head: in ``form``, which is plain where
    it is ``arranged``, and plain, with the same numbers."""
    ours, plain = (Network(GENOTYPE, channels, 3, CLASSES, auxiliary=True) for _ in range(2))
    ours.form = "triton" if form == "triton" else "plain"
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def compare_networks(
    form: Form, channels: int, batch: int, pixels: tuple[int, int], device: torch.device
) -> Iterator[Error]:
    """An evaluation network in ``form`` with the plain one."""
    yield from _compare(*networks(form, channels), [], batch, pixels, device)


def _compare(
    ours: nn.Module,
    plain: nn.Module,
    edge_weights: list[Tensor],
    batch: int,
    pixels: tuple[int, int],
    device: torch.device,
    operations: Sequence[str] = (),
) -> Iterator[Error]:
    x_BCHW, labels_B = torch.randn(batch, 3, *pixels), torch.arange(batch) % CLASSES
    ours = _unmoved(ours).to(device, memory_format=LAST)  # type: ignore[call-overload]
    weights = [w.to(device).requires_grad_() for w in edge_weights]
    x_on_device = x_BCHW.to(device).contiguous(memory_format=LAST)
    mine = Side(ours, x_on_device, labels_B.to(device), weights)
    weights = [w.double().requires_grad_() for w in edge_weights]
    theirs = Side(_unmoved(plain).double(), x_BCHW.double(), labels_B, weights)
    logits = mine.logits(), theirs.logits()
    yield Error("", "logits", off(*logits), "logits")
    got, expected = _all_gradients(mine, logits[0]), _all_gradients(theirs, logits[1])
    for column, name in enumerate(operations):
        pair = (torch.stack([*of[: len(weights)]])[:, :, column] for of in (got, expected))
        yield Error(name, "gradient of alpha", off(*pair), "gradient")
    names = [_part(name) for name, _ in plain.named_parameters()]
    grouped = zip(names, got[len(weights) :], expected[len(weights) :], strict=True)
    for name, size in _by_part(grouped):
        yield Error(name, "gradient of the weights", size, "gradient")
    for name, size in _statistics(ours, theirs.net):
        yield Error(name, "running statistics", size, "statistics")
    with torch.no_grad():
        tested = [side._replace(net=side.net.eval()).logits() for side in (mine, theirs)]
    yield Error("", "logits in evaluation", off(*tested), "logits")


def _all_gradients(side: Side, logits: Tensor) -> Sequence[Tensor]:
    labels = side.labels_B.repeat(len(logits) // len(side.labels_B))
    loss = F.cross_entropy(logits, labels)
    return torch.autograd.grad(loss, [*side.edge_weights, *side.net.parameters()])


def _part(name: str) -> str:
    """The operation that a parameter or a module belongs to, or the part of the network."""
    parts = ("preprocess", "stem", "auxiliary", "classifier")
    return next((part for part in (*OPERATIONS, *parts) if part in name), name)


# Measures


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Torch computes on so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def off(got: Tensor, expected: Tensor) -> float:
    """The norm of the difference over that of ``expected``; 0 where they are equal."""
    expected = expected.detach().double()
    difference = (got.detach().cpu().double() - expected).norm()
    return float(difference / expected.norm()) if difference else 0.0


def _by_part(triples: Iterable[tuple[str, Tensor, Tensor]]) -> Iterator[tuple[str, float]]:
    """All tensors of a part as one: a single small one may vanish but for rounding."""
    parts: dict[str, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for name, got, expected in triples:
        parts[name][0].append(got.detach().cpu().double().flatten())
        parts[name][1].append(expected.detach().double().flatten())
    for name, (a, b) in parts.items():
        yield name, off(torch.cat(a), torch.cat(b))


def _unmoved(module: M) -> M:
    """The module with running statistics of zero, so that a step leaves only what it adds."""
    for norm in _norms(module).values():
        norm.running_mean.zero_()  # type: ignore[union-attr]
        norm.running_var.zero_()  # type: ignore[union-attr]
    return module


def _statistics(ours: nn.Module, reference: nn.Module) -> Iterator[tuple[str, float]]:
    """Variances, and means measured by the deviations, as a mean may be next to nothing."""
    theirs = _norms(reference)
    triples: list[tuple[str, Tensor, Tensor]] = []
    for name, norm in _norms(ours).items():
        (mean, variance), (mean64, variance64) = (_moved(n) for n in (norm, theirs[name]))
        deviation64 = (0.1 * variance64).sqrt()  # both were added with torch's momentum, 0.1
        triples.append((_part(name), variance, variance64))
        triples.append((_part(name), deviation64 + mean - mean64, deviation64))
    yield from _by_part(triples)


def _moved(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None, "the norms of this package have statistics"
    assert norm.running_var is not None, "the norms of this package have statistics"
    return norm.running_mean.cpu().double(), norm.running_var.cpu().double()


def _norms(module: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {n: m for n, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)}
