"""Triton kernels that move along the image, backward: gradients of states and of filters.

The legend is that of ``image.py``. Bytes that no order of work avoids: of a state, the gradients of
all maps that were computed from it, read once, and its own, written once; of filters, every map
and its gradient read once.
"""

import triton
import triton.language as tl

from nas_sweeps.space.lanes.image import ROW, SIZES, convolve, dropped, key_in_order, pick, tile_of


@triton.jit(do_not_specialize=["lo", "B", "NG", *SIZES])
def second_gradient(DZ, Y, WF, DH, TAB, LIST, lo, B, NG, H, W,
                    C: tl.constexpr, CB: tl.constexpr, BW: tl.constexpr, BP: tl.constexpr,
                    ACC: tl.constexpr):  # fmt: skip
    """dh = (y > 0) * transpose of the second filter, applied to dz. Grid as ``depthwise``."""
    lane = tl.load(LIST + lo + tl.program_id(1))
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    ok = c < C
    b, w, live, h = tile_of(tl.program_id(0), NG, B, W, BW, BP)
    size = B * H * W * C
    zp = DZ + lane.to(tl.int64) * size
    wp = WF + tl.load(TAB + lane * ROW + 2) * C
    a0 = tl.zeros([BP, CB], ACC)
    a1 = tl.zeros([BP, CB], ACC)
    a2 = tl.zeros([BP, CB], ACC)
    a3 = tl.zeros([BP, CB], ACC)
    if tl.load(TAB + lane * ROW) == 0:
        a0, a1, a2, a3 = convolve(a0, a1, a2, a3, zp, wp, b, w, live, h, c, ok, H, W, C, C,
                                  3, 1, 1, True, False, ACC)  # fmt: skip
    else:
        a0, a1, a2, a3 = convolve(a0, a1, a2, a3, zp, wp, b, w, live, h, c, ok, H, W, C, C,
                                  5, 1, 1, True, False, ACC)  # fmt: skip
    base = tl.load(TAB + lane * ROW + 1).to(tl.int64) * size
    at = ((b * H + h) * W + w)[:, None] * C + c[None, :]
    for i in tl.static_range(4):
        here = (live & (h + i < H))[:, None] & ok[None, :]
        y = tl.load(Y + base + at + i * W * C, mask=here, other=0.0)
        a = tl.where(y > 0, pick(a0, a1, a2, a3, a0, i), 0.0)
        tl.store(DH + base + at + i * W * C, a.to(DH.dtype.element_ty), mask=here)


@triton.jit
def _pools_back(a, DM, IDX, big, mean, N, b, h, w, live, c, ok, H, W,
                HO, WO, STR: tl.constexpr, PH: tl.constexpr,
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
def _identities(a, D, A, LIST, lo, hi, r, B, here, c, ok, TAB, F, PIX,
                OC, DROP: tl.constexpr, C: tl.constexpr,
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
def _transposed(a0, a1, a2, a3, DZ, WF, TAB, lo, hi, size, b, w, live, h, c, ok, H,
                W, C: tl.constexpr, K: tl.constexpr, DIL: tl.constexpr,
                ACC: tl.constexpr):  # fmt: skip
    """Add the transposed filters of lanes lo .. hi, which have one kind."""
    for lane in range(lo, hi):
        wp = WF + tl.load(TAB + lane * ROW + 2) * C
        zp = DZ + lane * size
        a0, a1, a2, a3 = convolve(a0, a1, a2, a3, zp, wp, b, w, live, h, c, ok, H, W, C, C,
                                  K, DIL, 1, True, False, ACC)  # fmt: skip
    return a0, a1, a2, a3


@triton.jit(do_not_specialize=["k0", "k1", "k2", "k3", "k4", "big", "mean", "lo", "hi", "B", "NG",
                                *SIZES])  # fmt: skip
def input_gradient(X, DZ, WF, DM, IDX, D, A, F, DX, TAB, LIST, k0, k1, k2, k3, k4, big, mean, lo,
                   hi, B, NG, H, W, SIDE, NODES, ADD: tl.constexpr, DROP: tl.constexpr,
                   C: tl.constexpr, CB: tl.constexpr, BW: tl.constexpr, BP: tl.constexpr,
                   ACC: tl.constexpr):  # fmt: skip
    """Gradient of a state that is read with stride 1, added to DX where ADD.

    Lanes k0 .. k1 are of kind 0, k1 .. k2 of kind 1, and so on; LIST[lo:hi] are identities.
    d = (x > 0) sum of transposed filters of dz + pools + identities. Grid as ``depthwise``.
    """
    RS = SIDE * C
    OC = NODES * C
    c = tl.program_id(1) * CB + tl.arange(0, CB)
    ok = c < C
    b, w, live, h = tile_of(tl.program_id(0), NG, B, W, BW, BP)
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
        a = tl.where(x > 0, pick(a0, a1, a2, a3, a0, i), 0.0)
        a = _pools_back(a, DM, IDX, big, mean, N, b, h + i, w, row, c, ok, H, W, H, W, 1, 0, 0,
                        C, ACC)  # fmt: skip
        a = _identities(a, D, A, LIST, lo, hi, r, B, here, c, ok, TAB, F, H * W, OC, DROP, C, ACC)
        if ADD:
            a += tl.load(DX + at, mask=here, other=0.0).to(ACC)
        tl.store(DX + at, a.to(DX.dtype.element_ty), mask=here)


@triton.jit
def _convt(a, DZ, WF, TAB, lo, hi, N, b, h, w, live, c, ok, PH: tl.constexpr, PW: tl.constexpr,
           HO, WO, C: tl.constexpr, K: tl.constexpr,
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


@triton.jit(do_not_specialize=["k0", "k1", "k2", "k3", "k4", "k5", "k6", "big", "mean", "B",
                                *SIZES])  # fmt: skip
def strided_gradient(X, DZ, WF, DM, IDX, DX, TAB, k0, k1, k2, k3, k4, k5, k6, big, mean, B,
                     PH: tl.constexpr, PW: tl.constexpr, H, W,
                     HO, WO, C: tl.constexpr, CB: tl.constexpr,
                     BLOCK: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """Gradient of a state that is read with stride 2, at pixels (2h+PH, 2w+PW).

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
def _filter(xp, dp, gp, kw, g0, g1, NG, B, c, ok, H, W,
            HO, WO, BW: tl.constexpr, BP: tl.constexpr,
            CB: tl.constexpr, RS, C: tl.constexpr, K: tl.constexpr,
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
        b, w, live, h = tile_of(g, NG, B, WO, BW, BP)
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
                    d = pick(d0, d1, d2, d3, d0, i)
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


@triton.jit(do_not_specialize=["first", "B", "NG", "TILES", "PER", "TAPS", *SIZES])
def filter_gradient(X, xs, DZ, GW, TAB, first, B, NG, TILES, PER, TAPS, H, W, HO, WO, SIDE,
                    STR: tl.constexpr, RELU: tl.constexpr, C: tl.constexpr, CB: tl.constexpr,
                    BW: tl.constexpr, BP: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """Partial gradients of filters, GW [chunk, tap, C]; each program sums PER tiles.

    Grid: chunks, lanes times five columns, blocks of channels.
    """
    RS = SIDE * C
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


key_in_order(globals())
