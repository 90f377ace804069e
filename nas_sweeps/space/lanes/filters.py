"""Triton kernels that move along the image: depthwise convolutions, pools, and their gradients.

A map is [pixel, channel] with pixel = (b * H + h) * W + w, as channels-last memory has it. A lane
is one row of a table (``table.py``): its kind of filter, the map that it reads and the place of its
filter. Kinds: 0 is 3x3, 1 is 5x5, 2 and 3 the same dilated by 2; 4 and 5 take every second pixel
from (0, 0) or (1, 1) on (the two halves of FactorizedReduce). Filters lie tap by tap, [tap, C].

One program owns four neighbouring rows of a map and CB channels: an input row that is loaded once
serves up to four output rows. Legend: B images, H x W input and HO x WO output pixels, N = B HO WO,
RS elements from one pixel to the next, STR stride, ACC the type of sums.
Bytes that no order of work avoids: every input map read once, every output map written once.
"""

import triton
import triton.language as tl

ROW = tl.constexpr(8)  # columns of a lane's row in the table


@triton.jit
def _tile(g, NG, B, WO: tl.constexpr, BW: tl.constexpr, BP: tl.constexpr):
    """Image, column and first row of the pixels of tile g; BP // BW images lie side by side."""
    p = tl.arange(0, BP)
    b = (g // NG) * (BP // BW) + p // BW
    w = p % BW
    return b, w, (b < B) & (w < WO), (g % NG) * 4 + w * 0


@triton.jit
def _pick(v0, v1, v2, v3, v4, i: tl.constexpr):
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
def _conv(a0, a1, a2, a3, xp, wp, b, w, live, h0, c, ok, H: tl.constexpr, W: tl.constexpr,
          RS: tl.constexpr, C: tl.constexpr, K: tl.constexpr, DIL: tl.constexpr,
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
                a0 += x * _pick(w0, w1, w2, w3, w4, r // DIL)
            if r >= STR and (r - STR) % DIL == 0 and (r - STR) // DIL < K:
                a1 += x * _pick(w0, w1, w2, w3, w4, (r - STR) // DIL)
            if r >= 2 * STR and (r - 2 * STR) % DIL == 0 and (r - 2 * STR) // DIL < K:
                a2 += x * _pick(w0, w1, w2, w3, w4, (r - 2 * STR) // DIL)
            if r >= 3 * STR and (r - 3 * STR) % DIL == 0 and (r - 3 * STR) // DIL < K:
                a3 += x * _pick(w0, w1, w2, w3, w4, (r - 3 * STR) // DIL)
    return a0, a1, a2, a3


@triton.jit
def _put(zp, a, b, w, live, h, c, ok, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr):
    """Store a row of a map. Returns what was stored, and zero for what lies outside."""
    here = (live & (h < H))[:, None] & ok[None, :]
    z = tl.where(here, a, 0.0).to(zp.dtype.element_ty)
    tl.store(zp + ((b * H + h) * W + w)[:, None] * C + c[None, :], z, mask=here)
    return z


@triton.jit
def _every_second(xp, b, w, live, h, c, ok, ODD: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
                  RS: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """relu of the pixels (2h + ODD, 2w + ODD); zero where an odd size ends before them."""
    here = live & (2 * h + ODD < H) & (2 * w + ODD < W)
    at = ((b * H + 2 * h + ODD) * W + 2 * w + ODD)[:, None] * RS + c[None, :]
    x = tl.load(xp + at, mask=here[:, None] & ok[None, :], other=0.0)
    return tl.maximum(x.to(ACC), 0.0)


@triton.jit
def store_partial(PART, slot, tile, T, c, ok, n, total, spread, C: tl.constexpr):
    """A tile's count, sum and sum of squares about its own mean: PART [slot, tile, 3, C]."""
    at = PART + ((slot.to(tl.int64) * T + tile) * 3) * C + c
    tl.store(at, n + tl.zeros_like(total), mask=ok)
    tl.store(at + C, total, mask=ok)
    tl.store(at + 2 * C, spread, mask=ok)


@triton.jit
def _squares(u, mean, live, h, H: tl.constexpr):
    d = tl.where((live & (h < H))[:, None], u - mean[None, :], 0.0)
    return tl.sum(d * d, 0)


@triton.jit(do_not_specialize=["first", "B", "NG", "T"])
def depthwise(X, xs, WF, P, Z, PART, TAB, first, B, NG, T, H: tl.constexpr, W: tl.constexpr,
              HO: tl.constexpr, WO: tl.constexpr, RS: tl.constexpr, STR: tl.constexpr,
              RELU: tl.constexpr, STATS: tl.constexpr, C: tl.constexpr, CB: tl.constexpr,
              BW: tl.constexpr, BP: tl.constexpr, ACC: tl.constexpr,
              PREC: tl.constexpr):  # fmt: skip
    """z = filter * relu(x) of every lane from ``first`` on; STATS: and the moments of P z.

    P z itself is not stored: whoever needs it multiplies again, which is cheaper than a map.
    Grid: tiles of four rows, lanes, blocks of channels.
    """
    g = tl.program_id(0)
    lane = first + tl.program_id(1)
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    ok = c < C
    b, w, live, h = _tile(g, NG, B, WO, BW, BP)
    kind = tl.load(TAB + lane * ROW)
    xp = X + tl.load(TAB + lane * ROW + 1).to(tl.int64) * xs
    wp = WF + tl.load(TAB + lane * ROW + 2) * C
    a0 = tl.zeros([BP, CB], ACC)
    a1 = tl.zeros([BP, CB], ACC)
    a2 = tl.zeros([BP, CB], ACC)
    a3 = tl.zeros([BP, CB], ACC)
    if kind == 0:
        a0, a1, a2, a3 = _conv(a0, a1, a2, a3, xp, wp, b, w, live, h, c, ok, H, W, RS, C,
                               3, 1, STR, False, RELU, ACC)  # fmt: skip
    elif kind == 1:
        a0, a1, a2, a3 = _conv(a0, a1, a2, a3, xp, wp, b, w, live, h, c, ok, H, W, RS, C,
                               5, 1, STR, False, RELU, ACC)  # fmt: skip
    if RELU:  # second halves are neither dilated nor reductions
        if kind == 2:
            a0, a1, a2, a3 = _conv(a0, a1, a2, a3, xp, wp, b, w, live, h, c, ok, H, W, RS, C,
                                   3, 2, STR, False, RELU, ACC)  # fmt: skip
        elif kind == 3:
            a0, a1, a2, a3 = _conv(a0, a1, a2, a3, xp, wp, b, w, live, h, c, ok, H, W, RS, C,
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


@triton.jit(do_not_specialize=["first", "N", "T"])
def pool(X, xs, M, IDX, PART, PTAB, first, N, T, H: tl.constexpr, W: tl.constexpr,
         HO: tl.constexpr, WO: tl.constexpr, RS: tl.constexpr, STR: tl.constexpr,
         STATS: tl.constexpr, C: tl.constexpr, CB: tl.constexpr, BLOCK: tl.constexpr,
         ACC: tl.constexpr):  # fmt: skip
    """3x3 maximum (and which of the nine it was) or mean of the pixels there are.

    PTAB rows: maximum or mean, map read, slot of the moments. Grid: pixels, pools, channels.
    """
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


@triton.jit
def moments_of(u, r, N, PART, slot, tile, T, c, ok, C: tl.constexpr):
    """The partial moments of rows r of a map; u is zero outside."""
    n = tl.sum(tl.where(r < N, 1.0, 0.0), 0)
    total = tl.sum(u, 0)
    d = tl.where((r < N)[:, None], u - (total / tl.maximum(n, 1.0))[None, :], 0.0)
    store_partial(PART, slot, tile, T, c, ok, n, total, tl.sum(d * d, 0), C)


@triton.jit(do_not_specialize=["lo", "B", "NG"])
def second_gradient(DZ, Y, WF, DH, TAB, LIST, lo, B, NG, H: tl.constexpr, W: tl.constexpr,
                    C: tl.constexpr, CB: tl.constexpr, BW: tl.constexpr, BP: tl.constexpr,
                    ACC: tl.constexpr):  # fmt: skip
    """dh = (y > 0) * transpose of the second filter, applied to dz. Grid as ``depthwise``."""
    lane = tl.load(LIST + lo + tl.program_id(1))
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    ok = c < C
    b, w, live, h = _tile(tl.program_id(0), NG, B, W, BW, BP)
    size = B * H * W * C
    zp = DZ + lane.to(tl.int64) * size
    wp = WF + tl.load(TAB + lane * ROW + 2) * C
    a0 = tl.zeros([BP, CB], ACC)
    a1 = tl.zeros([BP, CB], ACC)
    a2 = tl.zeros([BP, CB], ACC)
    a3 = tl.zeros([BP, CB], ACC)
    if tl.load(TAB + lane * ROW) == 0:
        a0, a1, a2, a3 = _conv(a0, a1, a2, a3, zp, wp, b, w, live, h, c, ok, H, W, C, C,
                               3, 1, 1, True, False, ACC)  # fmt: skip
    else:
        a0, a1, a2, a3 = _conv(a0, a1, a2, a3, zp, wp, b, w, live, h, c, ok, H, W, C, C,
                               5, 1, 1, True, False, ACC)  # fmt: skip
    base = tl.load(TAB + lane * ROW + 1).to(tl.int64) * size
    at = ((b * H + h) * W + w)[:, None] * C + c[None, :]
    for i in tl.static_range(4):
        here = (live & (h + i < H))[:, None] & ok[None, :]
        y = tl.load(Y + base + at + i * W * C, mask=here, other=0.0)
        a = tl.where(y > 0, _pick(a0, a1, a2, a3, a0, i), 0.0)
        tl.store(DH + base + at + i * W * C, a.to(DH.dtype.element_ty), mask=here)


@triton.jit
def _pools_back(a, DM, IDX, big, mean, N, b, h, w, live, c, ok, H: tl.constexpr, W: tl.constexpr,
                HO: tl.constexpr, WO: tl.constexpr, STR: tl.constexpr, PH: tl.constexpr,
                PW: tl.constexpr, C: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """Add what pixels (h, w) receive from the pooled maps ``big`` and ``mean``; -1: there is none.

    Stride 2: of pixels (2h + PH, 2w + PW), whose windows are known for each parity.
    """
    for k in tl.static_range(9):
        if STR == 1 or ((PH + 1 - k // 3) % 2 == 0 and (PW + 1 - k % 3) % 2 == 0):
            if STR == 1:
                ho = h + 1 - k // 3
                wo = w + 1 - k % 3
            else:
                ho = h + (PH + 1 - k // 3) // 2
                wo = w + (PW + 1 - k % 3) // 2
            seen = live & (ho >= 0) & (ho < HO) & (wo >= 0) & (wo < WO)
            mask = seen[:, None] & ok[None, :]
            at = ((b * HO + ho) * WO + wo)[:, None] * C + c[None, :]
            if big >= 0:
                base = big.to(tl.int64) * N * C
                i = tl.load(IDX + base + at, mask=mask, other=-1)
                d = tl.load(DM + base + at, mask=mask, other=0.0).to(ACC)
                a += tl.where(i == k, d, 0.0)
            if mean >= 0:
                d = tl.load(DM + mean.to(tl.int64) * N * C + at, mask=mask, other=0.0).to(ACC)
                rows = tl.minimum(ho * STR + 2, H) - tl.maximum(ho * STR - 1, 0)
                columns = tl.minimum(wo * STR + 2, W) - tl.maximum(wo * STR - 1, 0)
                a += d / tl.maximum(rows * columns, 1).to(ACC)[:, None]
    return a


@triton.jit
def _identities(a, D, A, LIST, lo, hi, r, B, here, c, ok, TAB, F, PIX: tl.constexpr,
                OC: tl.constexpr, DROP: tl.constexpr, C: tl.constexpr,
                ACC: tl.constexpr):  # fmt: skip
    """Add the gradient through identities: their weight (A) times that of their node."""
    for i in range(lo, hi):
        lane = tl.load(LIST + i)
        col = tl.load(TAB + lane * ROW + 4)
        d = tl.load(D + col * C + r[:, None] * OC + c[None, :], mask=here, other=0.0).to(ACC)
        if DROP:
            d *= dropped(F, TAB, lane, r // PIX, B, ACC)[:, None]
        a += d * tl.load(A + lane * C + c, mask=ok, other=0.0)[None, :]
    return a


@triton.jit
def dropped(F, TAB, lane, b, B, ACC: tl.constexpr):
    """The factor of drop path of a lane for images b: 1 for a lane without one."""
    row = tl.load(TAB + lane * ROW + 7)
    f = tl.load(F + row * B + b, mask=(b < B) & (row + b * 0 >= 0), other=1.0)
    return f.to(ACC)


@triton.jit
def _transposed(a0, a1, a2, a3, DZ, WF, TAB, lo, hi, size, b, w, live, h, c, ok, H: tl.constexpr,
                W: tl.constexpr, C: tl.constexpr, K: tl.constexpr, DIL: tl.constexpr,
                ACC: tl.constexpr):  # fmt: skip
    """Add the transposed filters of lanes lo .. hi, which have one kind."""
    for lane in range(lo, hi):
        wp = WF + tl.load(TAB + lane * ROW + 2) * C
        a0, a1, a2, a3 = _conv(a0, a1, a2, a3, DZ + lane * size, wp, b, w, live, h, c, ok, H, W, C,
                               C, K, DIL, 1, True, False, ACC)  # fmt: skip
    return a0, a1, a2, a3


@triton.jit(do_not_specialize=["k0", "k1", "k2", "k3", "k4", "big", "mean", "lo", "hi", "B", "NG"])
def input_gradient(X, DZ, WF, DM, IDX, D, A, F, DX, TAB, LIST, k0, k1, k2, k3, k4, big, mean, lo,
                   hi, B, NG, H: tl.constexpr, W: tl.constexpr, RS: tl.constexpr,
                   OC: tl.constexpr, ADD: tl.constexpr, DROP: tl.constexpr, C: tl.constexpr,
                   CB: tl.constexpr, BW: tl.constexpr, BP: tl.constexpr,
                   ACC: tl.constexpr):  # fmt: skip
    """Gradient of a state that is read with stride 1, added to DX where ADD.

    Lanes k0 .. k1 are of kind 0, k1 .. k2 of kind 1, and so on; LIST[lo:hi] are identities.
    d = (x > 0) sum of transposed filters of dz + pools + identities. Grid as ``depthwise``.
    """
    c = tl.program_id(1) * CB + tl.arange(0, CB)
    ok = c < C
    b, w, live, h = _tile(tl.program_id(0), NG, B, W, BW, BP)
    a0 = tl.zeros([BP, CB], ACC)
    a1 = tl.zeros([BP, CB], ACC)
    a2 = tl.zeros([BP, CB], ACC)
    a3 = tl.zeros([BP, CB], ACC)
    N = B * H * W
    size = tl.cast(N, tl.int64) * C
    a0, a1, a2, a3 = _transposed(a0, a1, a2, a3, DZ, WF, TAB, k0, k1, size, b, w, live, h, c, ok,
                                 H, W, C, 3, 1, ACC)  # fmt: skip
    a0, a1, a2, a3 = _transposed(a0, a1, a2, a3, DZ, WF, TAB, k1, k2, size, b, w, live, h, c, ok,
                                 H, W, C, 5, 1, ACC)  # fmt: skip
    a0, a1, a2, a3 = _transposed(a0, a1, a2, a3, DZ, WF, TAB, k2, k3, size, b, w, live, h, c, ok,
                                 H, W, C, 3, 2, ACC)  # fmt: skip
    a0, a1, a2, a3 = _transposed(a0, a1, a2, a3, DZ, WF, TAB, k3, k4, size, b, w, live, h, c, ok,
                                 H, W, C, 5, 2, ACC)  # fmt: skip
    for i in tl.static_range(4):
        row = live & (h + i < H)
        here = row[:, None] & ok[None, :]
        r = (b * H + h + i) * W + w
        at = r[:, None] * RS + c[None, :]
        x = tl.load(X + at, mask=here, other=0.0)
        a = tl.where(x > 0, _pick(a0, a1, a2, a3, a0, i), 0.0)
        a = _pools_back(a, DM, IDX, big, mean, N, b, h + i, w, row, c, ok, H, W, H, W, 1, 0, 0,
                        C, ACC)  # fmt: skip
        a = _identities(a, D, A, LIST, lo, hi, r, B, here, c, ok, TAB, F, H * W, OC, DROP, C, ACC)
        if ADD:
            a += tl.load(DX + at, mask=here, other=0.0).to(ACC)
        tl.store(DX + at, a.to(DX.dtype.element_ty), mask=here)


@triton.jit
def _convt(a, DZ, WF, TAB, lo, hi, N, b, h, w, live, c, ok, PH: tl.constexpr, PW: tl.constexpr,
           HO: tl.constexpr, WO: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
           DIL: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """Add the transposes of the stride-2 filters of lanes lo .. hi at pixels (2h+PH, 2w+PW)."""
    size = tl.cast(N, tl.int64) * C
    for lane in range(lo, hi):
        zp = DZ + lane * size
        wp = WF + tl.load(TAB + lane * ROW + 2) * C
        for k in tl.static_range(K * K):
            if (PH - (k // K - K // 2) * DIL) % 2 == 0 and (PW - (k % K - K // 2) * DIL) % 2 == 0:
                ho = h + (PH - (k // K - K // 2) * DIL) // 2
                wo = w + (PW - (k % K - K // 2) * DIL) // 2
                seen = live & (ho >= 0) & (wo >= 0) & (ho < HO) & (wo < WO)
                at = ((b * HO + ho) * WO + wo)[:, None] * C + c[None, :]
                z = tl.load(zp + at, mask=seen[:, None] & ok[None, :], other=0.0).to(ACC)
                a += z * tl.load(wp + k * C + c, mask=ok, other=0.0).to(ACC)[None, :]
    return a


@triton.jit(do_not_specialize=["k0", "k1", "k2", "k3", "k4", "k5", "k6", "big", "mean", "B"])
def strided_gradient(X, DZ, WF, DM, IDX, DX, TAB, k0, k1, k2, k3, k4, k5, k6, big, mean, B,
                     PH: tl.constexpr, PW: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
                     HO: tl.constexpr, WO: tl.constexpr, C: tl.constexpr, CB: tl.constexpr,
                     BLOCK: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """As ``input_gradient`` for a state that is read with stride 2, at pixels (2h+PH, 2w+PW).

    Grid: blocks of output pixels, blocks of channels; one launch for each of the four parities.
    """
    c = tl.program_id(1) * CB + tl.arange(0, CB)
    ok = c < C
    r = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    N = B * HO * WO
    b = r // (HO * WO)
    h = (r // WO) % HO
    w = r % WO
    live = (r < N) & (2 * h + PH < H) & (2 * w + PW < W)
    a = tl.zeros([BLOCK, CB], ACC)
    a = _convt(a, DZ, WF, TAB, k0, k1, N, b, h, w, live, c, ok, PH, PW, HO, WO, C, 3, 1, ACC)
    a = _convt(a, DZ, WF, TAB, k1, k2, N, b, h, w, live, c, ok, PH, PW, HO, WO, C, 5, 1, ACC)
    a = _convt(a, DZ, WF, TAB, k2, k3, N, b, h, w, live, c, ok, PH, PW, HO, WO, C, 3, 2, ACC)
    a = _convt(a, DZ, WF, TAB, k3, k4, N, b, h, w, live, c, ok, PH, PW, HO, WO, C, 5, 2, ACC)
    here = live[:, None] & ok[None, :]
    at = r[:, None] * C + c[None, :]
    size = tl.cast(N, tl.int64) * C
    if PH == PW:  # FactorizedReduce reads every second pixel, from (0, 0) or from (1, 1)
        if PH == 0:
            for lane in range(k4, k5):
                a += tl.load(DZ + lane * size + at, mask=here, other=0.0).to(ACC)
        else:
            for lane in range(k5, k6):
                a += tl.load(DZ + lane * size + at, mask=here, other=0.0).to(ACC)
    pixel = ((b * H + 2 * h + PH) * W + 2 * w + PW)[:, None] * C + c[None, :]
    x = tl.load(X + pixel, mask=here, other=0.0)
    a = tl.where(x > 0, a, 0.0)
    a = _pools_back(a, DM, IDX, big, mean, N, b, h, w, live, c, ok, H, W, HO, WO, 2, PH, PW,
                    C, ACC)  # fmt: skip
    tl.store(DX + pixel, a.to(DX.dtype.element_ty), mask=here)


@triton.jit
def _filter(xp, dp, gp, kw, g0, g1, NG, B, c, ok, H: tl.constexpr, W: tl.constexpr,
            HO: tl.constexpr, WO: tl.constexpr, BW: tl.constexpr, BP: tl.constexpr,
            CB: tl.constexpr, RS: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
            DIL: tl.constexpr, STR: tl.constexpr, RELU: tl.constexpr,
            ACC: tl.constexpr):  # fmt: skip
    """Column kw of a filter's gradient over tiles g0 .. g1: sum of dz(h, w) x(h + kh, w + kw)."""
    SPAN: tl.constexpr = 3 * STR + (K - 1) * DIL + 1
    STEP: tl.constexpr = DIL if STR % DIL == 0 else 1
    s0 = tl.zeros([BP, CB], ACC)
    s1 = tl.zeros([BP, CB], ACC)
    s2 = tl.zeros([BP, CB], ACC)
    s3 = tl.zeros([BP, CB], ACC)
    s4 = tl.zeros([BP, CB], ACC)
    for g in range(g0, g1):
        b, w, live, h = _tile(g, NG, B, WO, BW, BP)
        at = ((b * HO + h) * WO + w)[:, None] * C + c[None, :]
        okc = ok[None, :]
        d0 = tl.load(dp + at, mask=(live & (h < HO))[:, None] & okc, other=0.0).to(ACC)
        d1 = tl.load(dp + at + WO * C, mask=(live & (h + 1 < HO))[:, None] & okc, other=0.0).to(ACC)
        d2 = tl.load(dp + at + 2 * WO * C, mask=(live & (h + 2 < HO))[:, None] & okc, other=0.0)
        d3 = tl.load(dp + at + 3 * WO * C, mask=(live & (h + 3 < HO))[:, None] & okc, other=0.0)
        d2 = d2.to(ACC)
        d3 = d3.to(ACC)
        wc = w * STR + (kw - K // 2) * DIL
        hb = h * STR - (K // 2) * DIL
        inside = live & (wc >= 0) & (wc < W)
        src = ((b * H + hb) * W + wc)[:, None] * RS + c[None, :]
        for r in tl.static_range(0, SPAN, STEP):
            seen = inside & (hb + r >= 0) & (hb + r < H)
            x = tl.load(xp + src + r * W * RS, mask=seen[:, None] & okc, other=0.0).to(ACC)
            if RELU:
                x = tl.maximum(x, 0.0)
            for i in tl.static_range(4):
                if r >= i * STR and (r - i * STR) % DIL == 0:
                    d = _pick(d0, d1, d2, d3, d0, i)
                    if (r - i * STR) // DIL == 0:
                        s0 += x * d
                    if (r - i * STR) // DIL == 1:
                        s1 += x * d
                    if (r - i * STR) // DIL == 2:
                        s2 += x * d
                    if (r - i * STR) // DIL == 3 and K == 5:
                        s3 += x * d
                    if (r - i * STR) // DIL == 4 and K == 5:
                        s4 += x * d
    gq = gp + kw * C + c
    tl.store(gq, tl.sum(s0, 0), mask=ok)
    tl.store(gq + K * C, tl.sum(s1, 0), mask=ok)
    tl.store(gq + 2 * K * C, tl.sum(s2, 0), mask=ok)
    if K == 5:
        tl.store(gq + 3 * K * C, tl.sum(s3, 0), mask=ok)
        tl.store(gq + 4 * K * C, tl.sum(s4, 0), mask=ok)


@triton.jit(do_not_specialize=["first", "B", "NG", "TILES", "PER", "TAPS"])
def filter_gradient(X, xs, DZ, GW, TAB, first, B, NG, TILES, PER, TAPS, H: tl.constexpr,
                    W: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, RS: tl.constexpr,
                    STR: tl.constexpr, RELU: tl.constexpr, C: tl.constexpr, CB: tl.constexpr,
                    BW: tl.constexpr, BP: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """Partial gradients of filters, GW [chunk, tap, C]; each program sums PER tiles.

    Grid: chunks, lanes times five columns, blocks of channels.
    """
    chunk = tl.program_id(0)
    lane = first + tl.program_id(1) // 5
    kw = tl.program_id(1) % 5
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    ok = c < C
    kind = tl.load(TAB + lane * ROW)
    xp = X + tl.load(TAB + lane * ROW + 1).to(tl.int64) * xs
    dp = DZ + lane.to(tl.int64) * B * HO * WO * C
    gp = GW + (chunk.to(tl.int64) * TAPS + tl.load(TAB + lane * ROW + 2)) * C
    g0 = chunk * PER
    g1 = tl.minimum(g0 + PER, TILES)
    if kind == 0:
        if kw < 3:
            _filter(xp, dp, gp, kw, g0, g1, NG, B, c, ok, H, W, HO, WO, BW, BP, CB, RS, C,
                    3, 1, STR, RELU, ACC)  # fmt: skip
    elif kind == 1:
        _filter(xp, dp, gp, kw, g0, g1, NG, B, c, ok, H, W, HO, WO, BW, BP, CB, RS, C,
                5, 1, STR, RELU, ACC)  # fmt: skip
    if RELU:
        if kind == 2:
            if kw < 3:
                _filter(xp, dp, gp, kw, g0, g1, NG, B, c, ok, H, W, HO, WO, BW, BP, CB, RS, C,
                        3, 2, STR, RELU, ACC)  # fmt: skip
        elif kind == 3:
            _filter(xp, dp, gp, kw, g0, g1, NG, B, c, ok, H, W, HO, WO, BW, BP, CB, RS, C,
                    5, 2, STR, RELU, ACC)  # fmt: skip
