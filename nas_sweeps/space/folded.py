"""BatchNorm without affine, folded into the 1x1 convolution before it.

Why. Every operation of a supernet but the identity ends in BN(P z): a 1x1 convolution P, then a
BatchNorm without scale and shift; for pooling P is the identity. Written as layers this makes
P z, BN(P z) and w BN(P z), three maps as large as z, of which a training step keeps two. But the
statistics of P z follow from those of z, which are small.

The algebra. Let the N = B*H*W pixels of z be the rows of an N x K matrix Z. With its mean and its
second moments

    m = (1/N) sum_n z_n             (K)
    G = (1/N) Z^T Z                 (K x K)

the covariance is S = G - m m^T, and linearity gives for u = P z

    mean(u) = P m,                  var(u) = diag(P S P^T).

BatchNorm and the edge weight w are then one scale and one shift per output channel,

    w BN(u) = a * u + b,            a = w / sqrt(var(u) + eps),    b = -a * mean(u),

and a moves into the matrix: w BN(P z) = A z + b with A = diag(a) P. So an operation adds one
matrix product to its node and nothing else: ``accumulate``. Only z is kept for the backward pass.

The gradient. A and b are small and made of small tensors, so autograd differentiates the algebra
above as it stands. What touches N rows is written out, one pass each: with D = dL/d(node)

    dL/dA = D^T Z,  dL/db = sum_n d_n,   and
    dL/dZ = D A + (Z (dL/dG + dL/dG^T) + dL/dm) / N.

Running statistics are those of BatchNorm: mean(u), and var(u) * N/(N-1). In eval mode they take
the place of mean(u) and var(u), and no moments are made.

All backward passes consist of differentiable operations on inputs, so they can be differentiated
again (``hvp: exact``); where no one will (grad mode is off in them), they work in place.

Shapes: B images, K channels in, C channels out, H x W pixels, N = B*H*W rows, L lanes. A lane is
one operation of one edge; those of one state that have equal shapes go through the algebra
together. Source: the identity is elementary; DARTS model_search.py for what is normalised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

Folded = tuple[Tensor, Tensor]  # A (L, C, K) or its diagonal (L, C), and b (L, C)


class Moments(NamedTuple):
    """The moments of L maps, or of one that L lanes share: mean (L, K); second moments (L, K, K),
    or their diagonal (L, K)."""

    mean_LK: Tensor
    gram: Tensor
    rows: int


def rows(x_BCHW: Tensor) -> Tensor:
    """The pixels as rows of a matrix (B*H*W, C): a view where channels come last in memory."""
    return x_BCHW.permute(0, 2, 3, 1).reshape(-1, x_BCHW.shape[1])


def images(rows_NC: Tensor, like_BCHW: Tensor) -> Tensor:
    """The rows as images again, of the size of ``like_BCHW``."""
    batch, _, height, width = like_BCHW.shape
    return rows_NC.view(batch, height, width, -1).permute(0, 3, 1, 2)


# The algebra: small tensors, ordinary autograd.


def fold(
    norms: Sequence[nn.BatchNorm2d],
    moments: Moments | None,
    p_LCK: Tensor | None,
    weights_L: Tensor | None,
) -> Folded:
    """A and b with A z + b = w BN(P z), of L lanes. Without ``weights_L`` w is 1.

    Args:
        norms: one a lane; their running statistics are updated, or used if there are no moments.
        moments: of the maps z, when training.
        p_LCK: the matrices P; None is the identity, and A is then given by its diagonal.
        weights_L: the edge weights w.

    Raises:
        ValueError: training on a single value a channel, which has no variance.
    """
    with full_precision(_buffer(norms[0].running_mean)):
        if moments is None:
            mean_LC = torch.stack([_buffer(norm.running_mean) for norm in norms])
            variance_LC = torch.stack([_buffer(norm.running_var) for norm in norms])
        else:
            mean_LC, variance_LC = _projected(moments, p_LCK, len(norms))
            _track(norms, mean_LC.detach(), variance_LC.detach(), moments.rows)
        a_LC = torch.rsqrt(variance_LC + norms[0].eps)
        if weights_L is not None:
            a_LC = a_LC * weights_L[:, None]
        return a_LC if p_LCK is None else a_LC[:, :, None] * p_LCK, -a_LC * mean_LC


def _projected(moments: Moments, p_LCK: Tensor | None, lanes: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (L, C) of P z. Rounding must not make a variance negative."""
    mean_LK, gram, _ = moments
    if p_LCK is None:
        variance_LC = gram - mean_LK.square()
        return mean_LK.expand(lanes, -1), variance_LC.clamp_min(0).expand(lanes, -1)
    covariance_LKK = gram - mean_LK[:, :, None] * mean_LK[:, None, :]
    variance_LC = ((p_LCK @ covariance_LKK) * p_LCK).sum(2)
    return (p_LCK @ mean_LK[:, :, None]).squeeze(2), variance_LC.clamp_min(0)


@torch.no_grad()
def _track(
    norms: Sequence[nn.BatchNorm2d], mean_LC: Tensor, variance_LC: Tensor, count: int
) -> None:
    """Move the running statistics of every norm, as BatchNorm does, by its own momentum."""
    if count == 1:
        raise ValueError(
            "BatchNorm has one value per channel and cannot train on it; use larger images or "
            "batches"
        )
    unbiased_LC = variance_LC * (count / (count - 1))
    for norm, mean_C, variance_C in zip(norms, mean_LC, unbiased_LC, strict=True):
        assert norm.momentum is not None, "a supernet's norms average exponentially"
        _buffer(norm.running_mean).lerp_(mean_C, norm.momentum)
        _buffer(norm.running_var).lerp_(variance_C, norm.momentum)
        _buffer(norm.num_batches_tracked).add_(1)


def _buffer(buffer: Tensor | None) -> Tensor:
    assert buffer is not None, "a supernet's norms track statistics"
    return buffer


# What touches every pixel: one pass forward, one back.


def measure(maps_BKHW: Sequence[Tensor], *, dense: bool) -> tuple[list[Tensor], Moments]:
    """The moments of maps of one shape: all second moments (``dense``) or their diagonal.

    Returns the maps too, to be used in place of those given: so both gradients of a map, that
    of its use and that of its moments, meet here and leave as one.
    """
    *out, mean_LK, gram = _Measure.apply(dense, *maps_BKHW)
    batch, _, height, width = maps_BKHW[0].shape
    return out, Moments(mean_LK, gram, batch * height * width)


class _Measure(Function):
    @staticmethod
    def forward(ctx: Any, dense: bool, *maps: Tensor) -> tuple[Tensor, ...]:
        ctx.dense = dense
        ctx.save_for_backward(*maps)
        means, grams = [], []
        with full_precision(maps[0]):
            for z_BKHW in maps:
                z_NK = _wide(rows(z_BKHW))
                means.append(z_NK.mean(0))
                grams.append(z_NK.T @ z_NK if dense else z_NK.square().sum(0))
        return *maps, torch.stack(means), torch.stack(grams) / len(rows(maps[0]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *used, d_mean_LK, d_gram = grads
        count = rows(used[0]).shape[0]
        d_mean_LK = d_mean_LK / count
        d_gram = (d_gram + d_gram.mT if ctx.dense else 2 * d_gram) / count
        out = []
        for d_BKHW, z_BKHW, mean_K, gram in zip(
            used, ctx.saved_tensors, d_mean_LK, d_gram, strict=True
        ):
            z_NK, d_NK = rows(z_BKHW), rows(d_BKHW)
            mean_K, gram = mean_K.to(z_NK.dtype), gram.to(z_NK.dtype)
            # ``accumulate`` made this gradient for this map alone, so it may be written to.
            d_NK = _add_product(d_NK, z_NK, gram)
            out.append(images(_add(d_NK, mean_K), z_BKHW))
        return None, *out


def rectify(maps_BKHW: Sequence[Tensor], a_LCK: Tensor, b_LC: Tensor) -> list[Tensor]:
    """relu(A z + b) of each map: what stands between the halves of a separable convolution."""
    return list(_Rectify.apply(a_LCK, b_LC, *maps_BKHW))


class _Rectify(Function):
    @staticmethod
    def forward(ctx: Any, a_LCK: Tensor, b_LC: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        out = []
        for z, a_CK, b_C in zip(maps, a_LCK.to(maps[0].dtype), b_LC.to(maps[0].dtype), strict=True):
            out.append(images(torch.addmm(b_C, rows(z), a_CK.T).relu_(), z))
        ctx.save_for_backward(a_LCK, *maps, *out)
        return tuple(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        a_LCK, *saved = ctx.saved_tensors
        maps, outs = saved[: len(grads)], saved[len(grads) :]
        d_a, d_b, d_z = [], [], []
        for d, z, out, a_CK in zip(grads, maps, outs, a_LCK.to(maps[0].dtype), strict=True):
            d_NC = torch.ops.aten.threshold_backward(rows(d), rows(out), 0)
            d_a.append(d_NC.T @ rows(z))
            d_b.append(d_NC.sum(0))
            d_z.append(images(d_NC @ a_CK, z))
        return torch.stack(d_a).to(a_LCK.dtype), torch.stack(d_b).to(a_LCK.dtype), *d_z


class Lane(NamedTuple):
    """One term of a node's sum: ``factor`` (C, K), or its diagonal (C), times a map."""

    map_BKHW: Tensor
    target: int
    factor: Tensor


def accumulate(totals: Sequence[Tensor | None], lanes: Sequence[Lane]) -> list[Tensor | None]:
    """Add every lane to the total of its target, in place; a total of None is still empty.

    The shifts b are not added here: those of all operations of a node are one small sum.
    """
    maps = {id(lane.map_BKHW): lane.map_BKHW for lane in lanes}
    index = {key: number for number, key in enumerate(maps)}
    places = tuple((index[id(lane.map_BKHW)], lane.target) for lane in lanes)
    dtype = next((t.dtype for t in totals if t is not None), lanes[-1].map_BKHW.dtype)
    same = [z.to(dtype) for z in maps.values()]  # autocast leaves pooled maps in float32
    factors = [lane.factor for lane in lanes]
    return list(_Accumulate.apply(places, len(totals), *totals, *factors, *same))


class _Accumulate(Function):
    @staticmethod
    def forward(
        ctx: Any, places: tuple[tuple[int, int], ...], targets: int, *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        given, factors, maps = _split(tensors, targets, len(places))
        totals = list(given)
        with torch.autocast(maps[0].device.type, enabled=False):  # types are chosen already
            for (source, target), factor in zip(places, factors, strict=True):
                z, total = maps[source], totals[target]
                factor = (factor.T if factor.dim() == 2 else factor).to(z.dtype)
                if total is None:
                    totals[target] = _first_product(z, factor)
                else:
                    _add_product(rows(total), rows(z), factor)
        ctx.places, ctx.grown = places, [total is not None for total in given]
        ctx.mark_dirty(*(total for total in given if total is not None))
        ctx.save_for_backward(*factors, *maps)
        return tuple(totals)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        factors = ctx.saved_tensors[: len(ctx.places)]
        maps = ctx.saved_tensors[len(ctx.places) :]
        d_factors: list[Tensor] = []
        d_maps: list[Tensor | None] = [None] * len(maps)
        for (source, target), factor in zip(ctx.places, factors, strict=True):
            d, z_NK = grads[target], rows(maps[source])
            assert d is not None
            d_NC = rows(d)
            slope = d_NC.T @ z_NK if factor.dim() == 2 else (d_NC * z_NK).sum(0)
            d_factors.append(slope.to(factor.dtype))
            d_maps[source] = _add_product(d_maps[source], d_NC, factor.to(d_NC.dtype))
        d_images = [None if d is None else images(d, z) for d, z in zip(d_maps, maps, strict=True)]
        d_totals = [d if grown else None for d, grown in zip(grads, ctx.grown, strict=True)]
        return None, None, *d_totals, *d_factors, *d_images


def _split(
    tensors: Sequence[Any], targets: int, lanes: int
) -> tuple[list[Tensor | None], list[Tensor], list[Tensor]]:
    totals, rest = tensors[:targets], tensors[targets:]
    return list(totals), list(rest[:lanes]), list(rest[lanes:])


def _first_product(z_BKHW: Tensor, factor: Tensor) -> Tensor:
    """A total of its own memory, not a view: autograd lets nothing else be written in place."""
    batch, _, height, width = z_BKHW.shape
    total_BCHW = torch.empty(
        (batch, factor.shape[-1], height, width),
        dtype=z_BKHW.dtype,
        device=z_BKHW.device,
        memory_format=torch.channels_last,
    )
    product = torch.mm if factor.dim() == 2 else torch.mul
    product(rows(z_BKHW), factor, out=rows(total_BCHW))
    return total_BCHW


def _add_product(total_NC: Tensor | None, x_NK: Tensor, factor: Tensor) -> Tensor:
    """total + x @ factor, or x * factor for a diagonal; in place unless it is differentiated."""
    if total_NC is None:
        return x_NK @ factor if factor.dim() == 2 else x_NK * factor
    if torch.is_grad_enabled():
        return total_NC + (x_NK @ factor if factor.dim() == 2 else x_NK * factor)
    return total_NC.addmm_(x_NK, factor) if factor.dim() == 2 else total_NC.addcmul_(x_NK, factor)


def _add(total_NC: Tensor, row_C: Tensor) -> Tensor:
    return total_NC + row_C if torch.is_grad_enabled() else total_NC.add_(row_C)


@contextmanager
def full_precision(x: Tensor) -> Iterator[None]:
    """Neither autocast nor TF32 inside: a covariance is a difference of moments, and what both
    round away of these can be all of it."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(x.device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _wide(x: Tensor) -> Tensor:
    """At least float32: a covariance is a difference of moments, which bfloat16 rounds away."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
