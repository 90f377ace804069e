"""Triton kernels that stay at a pixel: pointwise products, BatchNorm, sums into nodes, gradients.

Every lane l of a node is  w_l f_l (g_l (u_l - m_l) / s_l + b_l): u = P z of a convolution, a pooled
map, or a state as it is; m and s are BatchNorm's mean and deviation, g and b its scale and shift,
w the edge weight, f what drop path leaves of an image. With scale = w g / s and
shift = w (b - g m / s) it is  f (scale u + shift), and backwards, for the gradient D of the node,

    S1 = sum f D,  S2 = sum f D u  (over pixels, by channel)
    dw = sum over channels of  g (S2 - m S1) / s + b S1,   dg = w (S2 - m S1) / s,   db = w S1
    du = a f D + p u + q,   a = w g / s,   p = -a (S2 - m S1) / (s^2 N),   q = -a S1 / N - p m

p = q = 0 where running statistics are used or nothing is normalised. The first half of a separable
convolution is a lane with w = f = 1 whose node is y = max(0, scale u + shift).

DOT: u = P z is multiplied anew by whoever needs it, from z, with C channels at once (C a power of
two up to 64, so that P fits into registers). Otherwise a library has stored u, and Z stands for it.
Columns of a lane's row: kind, map it reads, first tap, slot of moments (-1: not normalised),
column of its node (or its own y), edge weight (-1: one), free, row of drop path (-1: none). Lanes
from L on are plain ones, of kind 6 (a pooled map), 7 (input state) or 8 (a node).
"""

import triton
import triton.language as tl

from nas_sweeps.space.lanes.image import ROW, SIZES, dropped, key_in_order, moments_of

EPS = tl.constexpr(1e-5)  # of every BatchNorm


@triton.jit
def _block(Z, P, lane, r, c, here, N, C: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
           PREC: tl.constexpr):  # fmt: skip
    """z and u of a convolution at rows r."""
    z = tl.load(Z + lane.to(tl.int64) * N * C + r[:, None] * C + c[None, :], mask=here, other=0.0)
    if DOT:
        pt = tl.load(P + lane * C * C + c[None, :] * C + c[:, None]).to(Z.dtype.element_ty)
        u = tl.dot(z, pt, input_precision=PREC, out_dtype=ACC)
    else:
        u = z.to(ACC)
    return z, u


@triton.jit
def _plain(M, X, OUT, TAB, lane, r, c, here, N, OC, C: tl.constexpr,
           CB: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """The map of a plain lane at rows r: pooled, an input state, or a node."""
    kind = tl.load(TAB + lane * ROW)
    number = tl.load(TAB + lane * ROW + 1)
    at = number.to(tl.int64) * N * C + r[:, None] * C + c[None, :]
    u = tl.zeros([BLOCK, CB], ACC)
    if kind == 6:
        u = tl.load(M + at, mask=here, other=0.0).to(ACC)
    elif kind == 7:
        u = tl.load(X + at, mask=here, other=0.0).to(ACC)
    else:
        u = tl.load(OUT + number * C + r[:, None] * OC + c[None, :], mask=here, other=0.0).to(ACC)
    return u


@triton.jit(do_not_specialize=["first", "N", "T"])
def moments(U, PART, TAB, first, N, T, C: tl.constexpr, CB: tl.constexpr, BLOCK: tl.constexpr,
            ACC: tl.constexpr):  # fmt: skip
    """Partial moments of stored maps u. Grid: pixels, lanes, blocks of channels."""
    t = tl.program_id(0)
    lane = first + tl.program_id(1)
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    ok = c < C
    r = t * BLOCK + tl.arange(0, BLOCK)
    at = lane.to(tl.int64) * N * C + r[:, None] * C + c[None, :]
    u = tl.load(U + at, mask=(r < N)[:, None] & ok[None, :], other=0.0).to(ACC)
    moments_of(u, r, N, PART, tl.load(TAB + lane * ROW + 3), t, T, c, ok, C)


@triton.jit(do_not_specialize=["lo", "T", "TP", "S"])
def fold(PART, PP, TAB, LIST, WT, G, BT, MEAN, VAR, RSTD, SCALE, SHIFT, lo, T, TP, S,
         TRAIN: tl.constexpr, C: tl.constexpr, CB: tl.constexpr, TB: tl.constexpr,
         ACC: tl.constexpr):  # fmt: skip
    """Mean, variance (unbiased), 1/s, scale and shift of lanes LIST[lo:], from partial moments.

    TRAIN: MEAN and VAR are written, else read. Partials are added in a fixed order, as the sum of
    squares about each tile's mean and of the tiles' means about that of all (Chan et al., 1979).
    PART has T tiles a slot; slots from S on are those of pools, with TP tiles each in PP.
    """
    lane = tl.load(LIST + lo + tl.program_id(0))
    c = tl.program_id(1) * CB + tl.arange(0, CB)
    ok = c < C
    slot = tl.load(TAB + lane * ROW + 3)
    mean = tl.zeros([CB], ACC)
    rstd = tl.full([CB], 1.0, ACC)
    if slot >= 0:
        if TRAIN:
            tiles = T
            part = PART + slot.to(tl.int64) * T * 3 * C
            if slot >= S:
                tiles = TP
                part = PP + (slot - S).to(tl.int64) * TP * 3 * C
            n = tl.zeros([CB], ACC)
            total = tl.zeros([CB], ACC)
            for t0 in range(0, tiles, TB):
                t = t0 + tl.arange(0, TB)
                m = (t < tiles)[:, None] & ok[None, :]
                at = t[:, None] * 3 * C + c[None, :]
                n += tl.sum(tl.load(part + at, mask=m, other=0.0), 0)
                total += tl.sum(tl.load(part + at + C, mask=m, other=0.0), 0)
            mean = total / tl.maximum(n, 1.0)
            spread = tl.zeros([CB], ACC)
            for t0 in range(0, tiles, TB):
                t = t0 + tl.arange(0, TB)
                m = (t < tiles)[:, None] & ok[None, :]
                at = t[:, None] * 3 * C + c[None, :]
                k = tl.load(part + at, mask=m, other=0.0)
                d = tl.load(part + at + C, mask=m, other=0.0) / tl.maximum(k, 1.0) - mean[None, :]
                spread += tl.sum(tl.load(part + at + 2 * C, mask=m, other=0.0) + k * d * d, 0)
            tl.store(MEAN + lane * C + c, mean, mask=ok)
            tl.store(VAR + lane * C + c, spread / tl.maximum(n - 1.0, 1.0), mask=ok)
            rstd = 1.0 / tl.sqrt(spread / tl.maximum(n, 1.0) + EPS)
        else:
            mean = tl.load(MEAN + lane * C + c, mask=ok, other=0.0)
            rstd = 1.0 / tl.sqrt(tl.load(VAR + lane * C + c, mask=ok, other=1.0) + EPS)
    elif TRAIN:
        tl.store(MEAN + lane * C + c, mean, mask=ok)
    w = _weight(WT, TAB, lane)
    scale = w * rstd * tl.load(G + lane * C + c, mask=ok, other=0.0)
    shift = w * tl.load(BT + lane * C + c, mask=ok, other=0.0) - scale * mean
    tl.store(RSTD + lane * C + c, rstd, mask=ok)
    tl.store(SCALE + lane * C + c, scale, mask=ok)
    tl.store(SHIFT + lane * C + c, shift, mask=ok)


@triton.jit
def _weight(WT, TAB, lane):
    index = tl.load(TAB + lane * ROW + 5)
    return tl.load(WT + index, mask=index >= 0, other=1.0)


@triton.jit(do_not_specialize=["lo", "N"])
def rectify(Z, P, SCALE, SHIFT, Y, TAB, LIST, lo, N, C: tl.constexpr, CB: tl.constexpr,
            BLOCK: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
            PREC: tl.constexpr):  # fmt: skip
    """y = max(0, scale u + shift) of first halves LIST[lo:]. Grid: pixels, lanes, channels."""
    lane = tl.load(LIST + lo + tl.program_id(1))
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    ok = c < C
    r = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = (r < N)[:, None] & ok[None, :]
    z, u = _block(Z, P, lane, r, c, here, N, C, DOT, ACC, PREC)
    y = u * tl.load(SCALE + lane * C + c, mask=ok)[None, :]
    y = tl.maximum(y + tl.load(SHIFT + lane * C + c, mask=ok)[None, :], 0.0)
    out = Y + tl.load(TAB + lane * ROW + 4).to(tl.int64) * N * C + r[:, None] * C + c[None, :]
    tl.store(out, y.to(Y.dtype.element_ty), mask=here)


@triton.jit
def _term(u, SCALE, SHIFT, F, TAB, lane, b, B, c, ok, DROP: tl.constexpr, C: tl.constexpr,
          ACC: tl.constexpr):  # fmt: skip
    """What a lane adds to its node: f (scale u + shift), of images b."""
    v = u * tl.load(SCALE + lane * C + c, mask=ok, other=0.0)[None, :]
    v += tl.load(SHIFT + lane * C + c, mask=ok, other=0.0)[None, :]
    if DROP:
        v *= dropped(F, TAB, lane, b, B, ACC)[:, None]
    return v


@triton.jit(do_not_specialize=["lo", "mid", "hi", "col", "N", "B", *SIZES])
def mix(Z, P, M, X, OUT, SCALE, SHIFT, F, TAB, LIST, lo, mid, hi, col, N, B, PIX, NODES,
        DROP: tl.constexpr, C: tl.constexpr, CB: tl.constexpr,
        BLOCK: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr, PREC: tl.constexpr):  # fmt: skip
    """A node: the sum of f (scale u + shift) over its convolutions LIST[lo:mid] and plain lanes.

    Grid: pixels, blocks of channels. Every lane's map is read once, the node written once.
    """
    OC = NODES * C
    c = tl.program_id(1) * CB + tl.arange(0, CB)
    ok = c < C
    r = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = (r < N)[:, None] & ok[None, :]
    acc = tl.zeros([BLOCK, CB], ACC)
    for i in range(lo, mid):
        lane = tl.load(LIST + i)
        z, u = _block(Z, P, lane, r, c, here, N, C, DOT, ACC, PREC)
        acc += _term(u, SCALE, SHIFT, F, TAB, lane, r // PIX, B, c, ok, DROP, C, ACC)
    for i in range(mid, hi):
        lane = tl.load(LIST + i)
        u = _plain(M, X, OUT, TAB, lane, r, c, here, N, OC, C, CB, BLOCK, ACC)
        acc += _term(u, SCALE, SHIFT, F, TAB, lane, r // PIX, B, c, ok, DROP, C, ACC)
    out = OUT + col * C + r[:, None] * OC + c[None, :]
    tl.store(out, acc.to(OUT.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["lo", "N", "B", "T", "PER", "L", *SIZES])
def sums(D, Z, P, M, X, OUT, F, PART, TAB, LIST, lo, N, B, T, PER, L, FIRST: tl.constexpr,
         PIX, NODES, DROP: tl.constexpr, C: tl.constexpr,
         CB: tl.constexpr, BLOCK: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
         PREC: tl.constexpr):  # fmt: skip
    """Partial S1 and S2 of lanes LIST[lo:], PART [lane, T, 2, C]; FIRST: D is that of each y.

    Grid: chunks of PER blocks of pixels, lanes, blocks of channels.
    """
    OC = NODES * C
    chunk = tl.program_id(0)
    lane = tl.load(LIST + lo + tl.program_id(1))
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    ok = c < C
    s1 = tl.zeros([CB], ACC)
    s2 = tl.zeros([CB], ACC)
    for k in range(PER):
        r = (chunk * PER + k) * BLOCK + tl.arange(0, BLOCK)
        here = (r < N)[:, None] & ok[None, :]
        d = _upstream(D, F, TAB, lane, r, c, here, N, B, FIRST, PIX, OC, DROP, C, ACC)
        u = tl.zeros([BLOCK, CB], ACC)
        if lane < L:
            z, u = _block(Z, P, lane, r, c, here, N, C, DOT, ACC, PREC)
        else:
            u = _plain(M, X, OUT, TAB, lane, r, c, here, N, OC, C, CB, BLOCK, ACC)
        s1 += tl.sum(d, 0)
        s2 += tl.sum(d * u, 0)
    at = PART + ((lane.to(tl.int64) * T + chunk) * 2) * C + c
    tl.store(at, s1, mask=ok)
    tl.store(at + C, s2, mask=ok)


@triton.jit
def _upstream(D, F, TAB, lane, r, c, here, N, B, FIRST: tl.constexpr, PIX,
              OC, DROP: tl.constexpr, C: tl.constexpr,
              ACC: tl.constexpr):  # fmt: skip
    """f D of a lane's node at rows r, or the gradient of its y (FIRST), which nothing drops."""
    place = tl.load(TAB + lane * ROW + 4)
    if FIRST:
        dp = D + place.to(tl.int64) * N * C + r[:, None] * C + c[None, :]
    else:
        dp = D + place * C + r[:, None] * OC + c[None, :]
    d = tl.load(dp, mask=here, other=0.0).to(ACC)
    if DROP:
        if not FIRST:
            d *= dropped(F, TAB, lane, r // PIX, B, ACC)[:, None]
    return d


@triton.jit(do_not_specialize=["lo", "N", "T"])
def slopes(PART, TAB, LIST, WT, G, BT, MEAN, RSTD, A, PS, Q, DG, DB, DW, lo, N, T,
           TRAIN: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, TB: tl.constexpr,
           ACC: tl.constexpr):  # fmt: skip
    """a, p, q of lanes LIST[lo:], and the gradients dg, db [lane, C] and dw [lane], from sums."""
    lane = tl.load(LIST + lo + tl.program_id(0))
    c = tl.arange(0, CP)
    ok = c < C
    s1 = tl.zeros([CP], ACC)
    s2 = tl.zeros([CP], ACC)
    part = PART + lane.to(tl.int64) * T * 2 * C
    for t0 in range(0, T, TB):
        t = t0 + tl.arange(0, TB)
        m = (t < T)[:, None] & ok[None, :]
        at = t[:, None] * 2 * C + c[None, :]
        s1 += tl.sum(tl.load(part + at, mask=m, other=0.0), 0)
        s2 += tl.sum(tl.load(part + at + C, mask=m, other=0.0), 0)
    w = _weight(WT, TAB, lane)
    g = tl.load(G + lane * C + c, mask=ok, other=0.0)
    b = tl.load(BT + lane * C + c, mask=ok, other=0.0)
    mean = tl.load(MEAN + lane * C + c, mask=ok, other=0.0)
    rstd = tl.load(RSTD + lane * C + c, mask=ok, other=0.0)
    slope = rstd * (s2 - mean * s1)
    a = w * g * rstd
    p = tl.zeros([CP], ACC)
    q = tl.zeros([CP], ACC)
    if TRAIN:
        if tl.load(TAB + lane * ROW + 3) >= 0:
            p = -a * slope * rstd / N
            q = -a * s1 / N - p * mean
    at = lane * C + c
    tl.store(A + at, a, mask=ok)
    tl.store(PS + at, p, mask=ok)
    tl.store(Q + at, q, mask=ok)
    tl.store(DG + at, w * slope, mask=ok)
    tl.store(DB + at, w * s1, mask=ok)
    tl.store(DW + lane, tl.sum(tl.where(ok, g * slope + b * s1, 0.0), 0))


@triton.jit(do_not_specialize=["lo", "N", "B", "PER", "L", *SIZES])
def pointwise_gradient(D, Z, P, A, PS, Q, F, DZ, GP, TAB, LIST, lo, N, B, PER, L,
                       FIRST: tl.constexpr, WG: tl.constexpr, PIX, NODES,
                       DROP: tl.constexpr, C: tl.constexpr, CB: tl.constexpr,
                       BLOCK: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
                       PREC: tl.constexpr):  # fmt: skip
    """du = a f D + p u + q of lanes LIST[lo:], then dz = du P, and with WG du^T z by chunks.

    GP is [chunk, lane, C, C]. Not DOT: du is stored in DZ's place and a library multiplies.
    Grid: chunks of PER blocks of pixels, lanes, blocks of channels.
    """
    OC = NODES * C
    chunk = tl.program_id(0)
    lane = tl.load(LIST + lo + tl.program_id(1))
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    ok = c < C
    a = tl.load(A + lane * C + c, mask=ok, other=0.0)[None, :]
    p = tl.load(PS + lane * C + c, mask=ok, other=0.0)[None, :]
    q = tl.load(Q + lane * C + c, mask=ok, other=0.0)[None, :]
    if DOT:
        pn = tl.load(P + lane * C * C + c[:, None] * C + c[None, :]).to(Z.dtype.element_ty)
        gp = tl.zeros([CB, CB], ACC)
    for k in range(PER):
        r = (chunk * PER + k) * BLOCK + tl.arange(0, BLOCK)
        here = (r < N)[:, None] & ok[None, :]
        d = _upstream(D, F, TAB, lane, r, c, here, N, B, FIRST, PIX, OC, DROP, C, ACC)
        z, u = _block(Z, P, lane, r, c, here, N, C, DOT, ACC, PREC)
        du = tl.where(here, a * d + p * u + q, 0.0).to(Z.dtype.element_ty)
        at = lane.to(tl.int64) * N * C + r[:, None] * C + c[None, :]
        if DOT:
            dz = tl.dot(du, pn, input_precision=PREC, out_dtype=ACC)
            tl.store(DZ + at, dz.to(DZ.dtype.element_ty), mask=here)
            if WG:
                gp += tl.dot(tl.trans(du), z, input_precision=PREC, out_dtype=ACC)
        else:
            tl.store(DZ + at, du, mask=here)
    if DOT:
        if WG:
            at = (chunk.to(tl.int64) * L + lane) * C * C + c[:, None] * C + c[None, :]
            tl.store(GP + at, gp)


@triton.jit(do_not_specialize=["first", "N", "B", *SIZES])
def pool_gradient(D, M, A, PS, Q, F, DM, TAB, LIST, PTAB, first, N, B, PIX, NODES,
                  DROP: tl.constexpr, C: tl.constexpr, CB: tl.constexpr,
                  BLOCK: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """The gradient of pooled maps: the sum of a f D + p u + q over the lanes that read them.

    Columns 3 and 4 of PTAB are these lanes' place in LIST. Grid: pixels, pools, channels.
    """
    OC = NODES * C
    m = first + tl.program_id(1)
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    ok = c < C
    r = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = (r < N)[:, None] & ok[None, :]
    at = m.to(tl.int64) * N * C + r[:, None] * C + c[None, :]
    u = tl.load(M + at, mask=here, other=0.0).to(ACC)
    acc = tl.zeros([BLOCK, CB], ACC)
    lo = tl.load(PTAB + m * ROW + 3)
    hi = tl.load(PTAB + m * ROW + 4)
    for i in range(lo, hi):
        lane = tl.load(LIST + i)
        d = _upstream(D, F, TAB, lane, r, c, here, N, B, False, PIX, OC, DROP, C, ACC)
        acc += d * tl.load(A + lane * C + c, mask=ok, other=0.0)[None, :]
        acc += u * tl.load(PS + lane * C + c, mask=ok, other=0.0)[None, :]
        acc += tl.load(Q + lane * C + c, mask=ok, other=0.0)[None, :]
    tl.store(DM + at, acc.to(DM.dtype.element_ty), mask=here)


key_in_order(globals())
