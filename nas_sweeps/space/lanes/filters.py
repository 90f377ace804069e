"""Triton kernels that move along the image, forward: depthwise convolutions and pools.

The legend is that of ``image.py``. Bytes that no order of work avoids: every input map read once,
every output map written once.
"""

import triton
import triton.language as tl

from nas_sweeps.space.lanes.image import (
    ROW,
    SIZES,
    convolve,
    key_in_order,
    moments_of,
    store_partial,
    tile_of,
)


@triton.jit
def _put(zp, a, b, w, live, h, c, ok, H, W, C: tl.constexpr):
    """Store a row of a map. Returns what was stored, and zero for what lies outside."""
    here = (live & (h < H))[:, None] & ok[None, :]
    z = tl.where(here, a, 0.0).to(zp.dtype.element_ty)
    tl.store(zp + ((b * H + h) * W + w)[:, None] * C + c[None, :], z, mask=here)
    return z


@triton.jit
def _every_second(xp, b, w, live, h, c, ok, ODD: tl.constexpr, H, W,
                  RS, ACC: tl.constexpr):  # fmt: skip
    """relu of the pixels (2h + ODD, 2w + ODD); zero where an odd size ends before them."""
    here = live & (2 * h + ODD < H) & (2 * w + ODD < W)
    at = ((b * H + 2 * h + ODD) * W + 2 * w + ODD)[:, None] * RS + c[None, :]
    x = tl.load(xp + at, mask=here[:, None] & ok[None, :], other=0.0)
    return tl.maximum(x.to(ACC), 0.0)


@triton.jit
def _squares(u, mean, live, h, H):
    d = tl.where((live & (h < H))[:, None], u - mean[None, :], 0.0)
    return tl.sum(d * d, 0)


@triton.jit(do_not_specialize=["first", "B", "NG", "T", *SIZES])
def depthwise(X, xs, WF, P, Z, PART, TAB, first, B, NG, T, H, W, HO, WO, SIDE, STR: tl.constexpr,
              RELU: tl.constexpr, STATS: tl.constexpr, C: tl.constexpr, CB: tl.constexpr,
              BW: tl.constexpr, BP: tl.constexpr, ACC: tl.constexpr,
              PREC: tl.constexpr):  # fmt: skip
    """z = filter * relu(x) of every lane from ``first`` on; STATS: and the moments of P z.

    P z itself is not stored: whoever needs it multiplies again, which is cheaper than a map.
    Grid: tiles of four rows, lanes, blocks of channels.
    """
    RS = SIDE * C
    g = tl.program_id(0)
    lane = first + tl.program_id(1)
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    ok = c < C
    b, w, live, h = tile_of(g, NG, B, WO, BW, BP)
    kind = tl.load(TAB + lane * ROW)
    xp = X + tl.load(TAB + lane * ROW + 1).to(tl.int64) * xs
    wp = WF + tl.load(TAB + lane * ROW + 2) * C
    a0 = tl.zeros([BP, CB], ACC)
    a1 = tl.zeros([BP, CB], ACC)
    a2 = tl.zeros([BP, CB], ACC)
    a3 = tl.zeros([BP, CB], ACC)
    if kind == 0:
        a0, a1, a2, a3 = convolve(a0, a1, a2, a3, xp, wp, b, w, live, h, c, ok, H, W, RS, C,
                                  3, 1, STR, False, RELU, ACC)  # fmt: skip
    elif kind == 1:
        a0, a1, a2, a3 = convolve(a0, a1, a2, a3, xp, wp, b, w, live, h, c, ok, H, W, RS, C,
                                  5, 1, STR, False, RELU, ACC)  # fmt: skip
    if RELU:  # second halves are neither dilated nor reductions
        if kind == 2:
            a0, a1, a2, a3 = convolve(a0, a1, a2, a3, xp, wp, b, w, live, h, c, ok, H, W, RS, C,
                                      3, 2, STR, False, RELU, ACC)  # fmt: skip
        elif kind == 3:
            a0, a1, a2, a3 = convolve(a0, a1, a2, a3, xp, wp, b, w, live, h, c, ok, H, W, RS, C,
                                      5, 2, STR, False, RELU, ACC)  # fmt: skip
    if STR == 2:
        if kind == 4:
            a0 = _every_second(xp, b, w, live, h, c, ok, 0, H, W, RS, ACC)
            a1 = _every_second(xp, b, w, live, h + 1, c, ok, 0, H, W, RS, ACC)
            a2 = _every_second(xp, b, w, live, h + 2, c, ok, 0, H, W, RS, ACC)
            a3 = _every_second(xp, b, w, live, h + 3, c, ok, 0, H, W, RS, ACC)
        elif kind == 5:
            a0 = _every_second(xp, b, w, live, h, c, ok, 1, H, W, RS, ACC)
            a1 = _every_second(xp, b, w, live, h + 1, c, ok, 1, H, W, RS, ACC)
            a2 = _every_second(xp, b, w, live, h + 2, c, ok, 1, H, W, RS, ACC)
            a3 = _every_second(xp, b, w, live, h + 3, c, ok, 1, H, W, RS, ACC)
    zp = Z + lane.to(tl.int64) * B * HO * WO * C
    z0 = _put(zp, a0, b, w, live, h, c, ok, HO, WO, C)
    z1 = _put(zp, a1, b, w, live, h + 1, c, ok, HO, WO, C)
    z2 = _put(zp, a2, b, w, live, h + 2, c, ok, HO, WO, C)
    z3 = _put(zp, a3, b, w, live, h + 3, c, ok, HO, WO, C)
    if STATS:
        pt = tl.load(P + lane * C * C + c[None, :] * C + c[:, None]).to(Z.dtype.element_ty)
        u0 = tl.dot(z0, pt, input_precision=PREC, out_dtype=ACC)
        u1 = tl.dot(z1, pt, input_precision=PREC, out_dtype=ACC)
        u2 = tl.dot(z2, pt, input_precision=PREC, out_dtype=ACC)
        u3 = tl.dot(z3, pt, input_precision=PREC, out_dtype=ACC)
        n = tl.sum(tl.where(live, tl.minimum(HO - h, 4), 0), 0).to(ACC)
        total = tl.sum(u0 + u1 + u2 + u3, 0)  # rows outside are zero
        mean = total / tl.maximum(n, 1.0)
        spread = _squares(u0, mean, live, h, HO) + _squares(u1, mean, live, h + 1, HO)
        spread += _squares(u2, mean, live, h + 2, HO) + _squares(u3, mean, live, h + 3, HO)
        store_partial(PART, tl.load(TAB + lane * ROW + 3), g, T, c, ok, n, total, spread, C)


@triton.jit(do_not_specialize=["first", "N", "T", *SIZES])
def pool(X, xs, M, IDX, PART, PTAB, first, N, T, H, W, HO, WO, SIDE, STR: tl.constexpr,
         STATS: tl.constexpr, C: tl.constexpr, CB: tl.constexpr, BLOCK: tl.constexpr,
         ACC: tl.constexpr):  # fmt: skip
    """3x3 maximum (and which of the nine it was) or mean of the pixels there are.

    PTAB rows: maximum or mean, map read, slot of the moments. Grid: pixels, pools, channels.
    """
    RS = SIDE * C
    t = tl.program_id(0)
    m = first + tl.program_id(1)
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    r = t * BLOCK + tl.arange(0, BLOCK)
    ok = c < C
    here = (r < N)[:, None] & ok[None, :]
    b = r // (HO * WO)
    h = (r // WO) % HO
    w = r % WO
    xp = X + tl.load(PTAB + m * ROW + 1).to(tl.int64) * xs
    largest = tl.full([BLOCK, CB], float("-inf"), ACC)
    total = tl.zeros([BLOCK, CB], ACC)
    which = tl.zeros([BLOCK, CB], tl.int32)
    count = tl.zeros([BLOCK], ACC)
    for k in tl.static_range(9):
        hr = h * STR + (k // 3 - 1)
        wr = w * STR + (k % 3 - 1)
        seen = (r < N) & (hr >= 0) & (hr < H) & (wr >= 0) & (wr < W)
        mask = seen[:, None] & ok[None, :]
        at = ((b * H + hr) * W + wr)[:, None] * RS + c[None, :]
        x = tl.load(xp + at, mask=mask, other=0.0).to(ACC)
        better = mask & (x > largest)  # the first of equals, as torch
        largest = tl.where(better, x, largest)
        which = tl.where(better, k, which)
        total += x
        count += tl.where(seen, 1.0, 0.0).to(ACC)
    out = M + m.to(tl.int64) * N * C + r[:, None] * C + c[None, :]
    value = total / tl.maximum(count, 1.0)[:, None]
    if tl.load(PTAB + m * ROW) == 0:
        value = largest
        tl.store(IDX + m.to(tl.int64) * N * C + r[:, None] * C + c[None, :], which, mask=here)
    value = tl.where(here, value, 0.0).to(M.dtype.element_ty)
    tl.store(out, value, mask=here)
    if STATS:
        moments_of(value.to(ACC), r, N, PART, tl.load(PTAB + m * ROW + 2), t, T, c, ok, C)


key_in_order(globals())
