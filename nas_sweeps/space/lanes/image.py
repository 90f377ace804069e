"""What kernels that move along the image share: tiles of pixels, convolutions, partial sums.

A map is [pixel, channel] with pixel = (b * H + h) * W + w, as channels-last memory has it. A lane
is one row of a table (``table.py``): its kind of filter, the map that it reads and the place of its
filter. Kinds: 0 is 3x3, 1 is 5x5, 2 and 3 the same dilated by 2; 4 and 5 take every second pixel
from (0, 0) or (1, 1) on (the two halves of FactorizedReduce). Filters lie tap by tap, [tap, C].

One program owns four neighbouring rows of a map and CB channels: an input row that is loaded once
serves up to four output rows. Legend: B images, H x W input and HO x WO output pixels, N = B HO WO,
RS elements from one pixel to the next, STR stride, ACC the type of sums.

Sizes of images are ordinary arguments, which no kernel is compiled anew for; RS is SIDE * C, where
SIDE maps share a pixel's row, so that the compiler knows what a constant C tells of alignment.
"""

from typing import Any

import triton
import triton.language as tl

ROW = tl.constexpr(8)  # columns of a lane's row in the table
SIZES = ("H", "W", "HO", "WO", "PIX", "SIDE", "NODES")  # arguments that any number may be


@triton.jit
def tile_of(g, NG, B, WO, BW: tl.constexpr, BP: tl.constexpr):
    """Image, column and first row of the pixels of tile g; BP // BW images lie side by side."""
    p = tl.arange(0, BP)
    b = (g // NG) * (BP // BW) + p // BW
    w = p % BW
    return b, w, (b < B) & (w < WO), (g % NG) * 4 + w * 0


@triton.jit
def pick(v0, v1, v2, v3, v4, i: tl.constexpr):
    r = v0
    if i == 1:
        r = v1
    if i == 2:
        r = v2
    if i == 3:
        r = v3
    if i == 4:
        r = v4
    return r


@triton.jit
def _tap(wp, i: tl.constexpr, c, ok, C: tl.constexpr, K: tl.constexpr, FLIP: tl.constexpr,
         ACC: tl.constexpr):  # fmt: skip
    """Row i of one column of a filter (turned by 180 degrees: FLIP); zero beyond its K rows."""
    v = tl.zeros([c.shape[0]], ACC)
    if i < K:
        step: tl.constexpr = (K - 1 - i) * K * C if FLIP else i * K * C
        v = tl.load(wp + step + c, mask=ok, other=0.0).to(ACC)
    return v[None, :]


@triton.jit
def convolve(a0, a1, a2, a3, xp, wp, b, w, live, h0, c, ok, H, W,
             RS, C: tl.constexpr, K: tl.constexpr, DIL: tl.constexpr,
             STR: tl.constexpr, FLIP: tl.constexpr, RELU: tl.constexpr,
             ACC: tl.constexpr):  # fmt: skip
    """Add rows h0 .. h0+3 of a depthwise convolution, or of its transpose (FLIP, stride 1)."""
    SPAN: tl.constexpr = 3 * STR + (K - 1) * DIL + 1
    STEP: tl.constexpr = DIL if STR % DIL == 0 else 1
    for kw in range(K):
        wq = wp + (K - 1 - kw if FLIP else kw) * C
        w0 = _tap(wq, 0, c, ok, C, K, FLIP, ACC)
        w1 = _tap(wq, 1, c, ok, C, K, FLIP, ACC)
        w2 = _tap(wq, 2, c, ok, C, K, FLIP, ACC)
        w3 = _tap(wq, 3, c, ok, C, K, FLIP, ACC)
        w4 = _tap(wq, 4, c, ok, C, K, FLIP, ACC)
        wc = w * STR + (kw - K // 2) * DIL
        inside = live & (wc >= 0) & (wc < W)
        hb = h0 * STR - (K // 2) * DIL
        at = ((b * H + hb) * W + wc)[:, None] * RS + c[None, :]
        for r in tl.static_range(0, SPAN, STEP):
            seen = inside & (hb + r >= 0) & (hb + r < H)
            x = tl.load(xp + at + r * W * RS, mask=seen[:, None] & ok[None, :], other=0.0).to(ACC)
            if RELU:
                x = tl.maximum(x, 0.0)
            if r % DIL == 0 and r // DIL < K:
                a0 += x * pick(w0, w1, w2, w3, w4, r // DIL)
            if r >= STR and (r - STR) % DIL == 0 and (r - STR) // DIL < K:
                a1 += x * pick(w0, w1, w2, w3, w4, (r - STR) // DIL)
            if r >= 2 * STR and (r - 2 * STR) % DIL == 0 and (r - 2 * STR) // DIL < K:
                a2 += x * pick(w0, w1, w2, w3, w4, (r - 2 * STR) // DIL)
            if r >= 3 * STR and (r - 3 * STR) % DIL == 0 and (r - 3 * STR) // DIL < K:
                a3 += x * pick(w0, w1, w2, w3, w4, (r - 3 * STR) // DIL)
    return a0, a1, a2, a3


@triton.jit
def store_partial(PART, slot, tile, T, c, ok, n, total, spread, C: tl.constexpr):
    """A tile's count, sum and sum of squares about its own mean: PART [slot, tile, 3, C]."""
    at = PART + ((slot.to(tl.int64) * T + tile) * 3) * C + c
    tl.store(at, n + tl.zeros_like(total), mask=ok)
    tl.store(at + C, total, mask=ok)
    tl.store(at + 2 * C, spread, mask=ok)


@triton.jit
def moments_of(u, r, N, PART, slot, tile, T, c, ok, C: tl.constexpr):
    """The partial moments of rows r of a map; u is zero outside."""
    n = tl.sum(tl.where(r < N, 1.0, 0.0), 0)
    total = tl.sum(u, 0)
    d = tl.where((r < N)[:, None], u - (total / tl.maximum(n, 1.0))[None, :], 0.0)
    store_partial(PART, slot, tile, T, c, ok, n, total, tl.sum(d * d, 0), C)


@triton.jit
def dropped(F, TAB, lane, b, B, ACC: tl.constexpr):
    """The factor of drop path of a lane for images b: 1 for a lane without one."""
    row = tl.load(TAB + lane * ROW + 7)
    f = tl.load(F + row * B + b, mask=(b < B) & (row + b * 0 >= 0), other=1.0)
    return f.to(ACC)


def key_in_order(module: dict[str, Any]) -> None:
    """Fix what Triton's cache files a module's kernels under, whatever is launched first.

    To the key of a function Triton adds the global constants of those that it calls, but only of
    those whose own key somebody has asked for before (triton 3.6, ``DependenciesFinder``). So two
    processes that met kernels in different orders would file the same kernel under different keys,
    and what one has compiled the other would compile again. Here every function has its key before
    those below it, which call it. Must be called at the end of each module of kernels.
    """
    for function in list(module.values()):
        if isinstance(function, triton.runtime.JITFunction):
            function.cache_key  # noqa: B018


key_in_order(globals())
