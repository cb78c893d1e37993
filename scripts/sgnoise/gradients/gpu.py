"""The sums of ``contractions`` on a GPU, in Triton: one launch for all weights of a tensor."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sgnoise.gradients.offsets import Pairs

# Weights of a program, and the most positions that it sees at a time.
_WEIGHTS, _POSITIONS = 32, 32


def add_contractions(
    rows: torch.Tensor,
    x: torch.Tensor | None,
    g: torch.Tensor,
    pairs: Pairs,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    shift: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
) -> None:
    """``contractions.add_contractions`` on a GPU.

    The sums are formed in float32, in float64 where the rows are. Without ``x`` it is 1 everywhere.
    """
    count, samples = rows.shape
    positions = g.shape[2] * g.shape[3]
    if not count or not positions:
        return
    received = g if x is None else x
    _contractions_kernel[(samples, triton.cdiv(count, _WEIGHTS))](
        rows,
        received,
        g,
        pairs.on(rows.device),
        g if shift is None else shift,
        g if scale is None else scale,
        count,
        positions,
        g.shape[3],
        *received.shape[2:],
        *stride,
        *padding,
        *rows.stride(),
        *received.stride(),
        *g.stride(),
        with_input=x is not None,
        shifted=shift is not None,
        scaled=scale is not None,
        double=rows.dtype == torch.float64,
        weights=_WEIGHTS,
        step=min(_POSITIONS, triton.next_power_of_2(positions)),
    )


# A kernel for each size would take long to compile, and gain nothing.
_SIZES = [
    "count",
    "positions",
    "width",
    "input_height",
    "input_width",
    "stride_down",
    "stride_right",
    "padding_down",
    "padding_right",
    "rows_k",
    "rows_s",
    "x_s",
    "x_i",
    "x_h",
    "x_w",
    "g_s",
    "g_o",
    "g_h",
    "g_w",
]


@triton.jit(do_not_specialize=_SIZES)
def _contractions_kernel(  # type: ignore[no-untyped-def]
    rows,
    x,
    g,
    pairs,
    shift,
    scale,
    count,
    positions,
    width,
    input_height,
    input_width,
    stride_down,
    stride_right,
    padding_down,
    padding_right,
    rows_k,
    rows_s,
    x_s,
    x_i,
    x_h,
    x_w,
    g_s,
    g_o,
    g_h,
    g_w,
    with_input: tl.constexpr,
    shifted: tl.constexpr,
    scaled: tl.constexpr,
    double: tl.constexpr,
    weights: tl.constexpr,
    step: tl.constexpr,
):
    kind: tl.constexpr = tl.float64 if double else tl.float32
    s = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * weights + tl.arange(0, weights)
    chosen = k < count
    i = tl.load(pairs + k, mask=chosen, other=0).to(tl.int64)
    o = tl.load(pairs + count + k, mask=chosen, other=0).to(tl.int64)
    down = tl.load(pairs + 2 * count + k, mask=chosen, other=0) - padding_down
    right = tl.load(pairs + 3 * count + k, mask=chosen, other=0) - padding_right
    received = x + s * x_s + i * x_i
    gradient = g + s * g_s + o * g_o
    total = tl.zeros([weights, step], dtype=kind)
    for first in range(0, positions, step):
        position = first + tl.arange(0, step)
        p = position // width
        q = position - p * width
        known = chosen[:, None] & (position < positions)[None, :]
        at = (p * g_h + q * g_w)[None, :]
        term = tl.load(gradient[:, None] + at, mask=known, other=0).to(kind)
        if with_input:
            h = p[None, :] * stride_down + down[:, None]
            w = q[None, :] * stride_right + right[:, None]
            inside = known & (h >= 0) & (h < input_height) & (w >= 0) & (w < input_width)
            value = tl.load(received[:, None] + h * x_h + w * x_w, mask=inside, other=0).to(kind)
            if shifted:
                value -= tl.load(shift + i, mask=chosen, other=0).to(kind)[:, None]
            term *= value
        total += term
    found = tl.sum(total, axis=1)
    if scaled:
        found *= tl.load(scale + i, mask=chosen, other=0).to(kind)
    address = rows + k.to(tl.int64) * rows_k + s * rows_s
    before = tl.load(address, mask=chosen, other=0)
    tl.store(address, before + found.to(before.dtype), mask=chosen)
