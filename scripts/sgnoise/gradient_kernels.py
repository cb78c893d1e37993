"""Sums over places of products of two chosen channels, for every sample: all that a gradient is.

Each function adds to ``rows`` (k, samples) one sum for each of k chosen pairs of channels. On a CPU
the pairs are gathered and multiplied in one compiled loop, shared out over the threads of torch; on
a GPU they are gathered by torch in bounded chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from torch.nn import functional

# Numbers held at once where torch gathers.
CHUNK_NUMBERS = 2**26


def add_sums(rows: torch.Tensor, g: torch.Tensor, channels: np.ndarray) -> None:
    """Add the sum over places p of g[s, channels[k], p] to rows[k, s].

    Args:
        rows: (k, samples).
        g: (samples, channels, places).
        channels: (k,).
    """
    rows += g.sum(dim=2)[:, torch.from_numpy(channels).to(g.device)].T


def add_products(
    rows: torch.Tensor,
    x: torch.Tensor,
    g: torch.Tensor,
    inputs: np.ndarray,
    outputs: np.ndarray,
    *,
    shift: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
) -> None:
    """Add scale[i] sum_p (x[s, i, p] - shift[i]) g[s, o, p] to rows[k, s], i and o of each k.

    Args:
        rows: (k, samples).
        x: (samples, inputs, places).
        g: (samples, outputs, places).
        inputs: i of each k.
        outputs: o of each k.
        shift: (inputs,), 0 unless given.
        scale: (inputs,), 1 unless given.
    """
    if shift is None:
        shift = x.new_zeros(x.shape[1])
    if scale is None:
        scale = x.new_ones(x.shape[1])
    if _has_kernels(rows, x, g):
        wanted_inputs, inputs = np.unique(inputs, return_inverse=True)
        wanted_outputs, outputs = np.unique(outputs, return_inverse=True)
        wanted = torch.from_numpy(wanted_inputs)
        _over_samples(
            _products_kernel,
            rows.numpy(),
            x.detach().numpy(),
            g.numpy(),
            wanted_inputs,
            wanted_outputs,
            np.stack([inputs, outputs], axis=1),
            shift[wanted].numpy(),
            scale[wanted].numpy(),
        )
        return
    step = max(1, CHUNK_NUMBERS // (x.shape[0] * x.shape[2]))
    for first in range(0, len(inputs), step):
        part = slice(first, first + step)
        i = torch.from_numpy(inputs[part]).to(x.device)
        o = torch.from_numpy(outputs[part]).to(x.device)
        centred = x[:, i] - shift[i][:, None]
        rows[part] += (centred * g[:, o]).sum(dim=2).T * scale[i][:, None]


def add_convolutions(
    rows: torch.Tensor,
    x: torch.Tensor,
    g: torch.Tensor,
    inputs: np.ndarray,
    outputs: np.ndarray,
    down: np.ndarray,
    right: np.ndarray,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    """Add sum_pq x[s, i, p t + a d - m, q t + b d - m] g[s, o, p, q] to rows[k, s].

    Args:
        rows: (k, samples).
        x: (samples, inputs, height, width); zero outside.
        g: (samples, outputs, height, width).
        inputs: i of each k.
        outputs: o of each k.
        down: a of each k.
        right: b of each k.
        stride: t, of (height, width).
        padding: m, likewise.
        dilation: d, likewise.
    """
    down = down * dilation[0]
    right = right * dilation[1]
    if _has_kernels(rows, x, g):
        down, right = down - padding[0], right - padding[1]
        top, bottom = _inside(down, stride[0], x.shape[2], g.shape[2])
        left, end = _inside(right, stride[1], x.shape[3], g.shape[3])
        wanted_inputs, inputs = np.unique(inputs, return_inverse=True)
        wanted_outputs, outputs = np.unique(outputs, return_inverse=True)
        _over_samples(
            _convolutions_kernel,
            rows.numpy(),
            x.flatten(2).numpy(),
            g.flatten(2).numpy(),
            wanted_inputs,
            wanted_outputs,
            np.stack([inputs, outputs, down, right, top, bottom, left, end], axis=1),
            (x.shape[2], x.shape[3]),
            (g.shape[2], g.shape[3]),
            stride,
        )
        return
    reach = [(size - 1) * step + 1 for size, step in zip(g.shape[2:], stride, strict=True)]
    below = max(0, int(down.max()) + reach[0] - padding[0] - x.shape[2])
    beside = max(0, int(right.max()) + reach[1] - padding[1] - x.shape[3])
    x = functional.pad(x, (padding[1], beside, padding[0], below))
    for a, b in np.unique(np.stack([down, right], axis=1), axis=0):
        members = np.flatnonzero((down == a) & (right == b))
        # The input as the outputs see it through this one place of the kernel.
        seen = x[:, :, a : a + reach[0] : stride[0], b : b + reach[1] : stride[1]].flatten(2)
        part = torch.zeros(len(members), len(x), dtype=rows.dtype, device=rows.device)
        add_products(part, seen, g.flatten(2), inputs[members], outputs[members])
        rows[torch.from_numpy(members).to(rows.device)] += part


def _inside(
    shift: np.ndarray, stride: int, size: int, outputs: int
) -> tuple[np.ndarray, np.ndarray]:
    """First and last + 1 of the outputs p with 0 <= p * stride + shift < size."""
    first = np.clip(-(shift // stride), 0, outputs)
    return first, np.clip(-((shift - size) // stride), first, outputs)


def _has_kernels(*tensors: torch.Tensor) -> bool:
    kinds = {(tensor.device.type, tensor.dtype) for tensor in tensors}
    return kinds in ({("cpu", torch.float32)}, {("cpu", torch.float64)})


def _over_samples(kernel: Callable[..., None], rows: np.ndarray, *arguments: Any) -> None:
    """Run a kernel on all samples, shared out over as many threads as torch may use."""
    samples = rows.shape[1]
    threads = min(torch.get_num_threads(), samples)
    if threads == 1:
        kernel(0, samples, rows, *arguments)
        return
    edges = np.linspace(0, samples, threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        for job in [
            pool.submit(kernel, int(first), int(last), rows, *arguments)
            for first, last in pairwise(edges)
        ]:
            job.result()


# Sums may be reordered, so that they vectorise; a NaN stays a NaN.
_FAST = {"reassoc", "contract", "nsz"}
# Places copied at a time: a cache line of float32 on the one side, and on the other side rows that
# all stay in the cache.
_BLOCK = 16


@numba.njit(nogil=True, cache=True)
def _gather(values: np.ndarray, wanted: np.ndarray, gathered: np.ndarray) -> None:
    """Copy the wanted channels of (channels, places), channels or places first in memory."""
    places = values.shape[1]
    for first in range(0, places, _BLOCK):
        last = min(first + _BLOCK, places)
        for j in range(len(wanted)):
            channel = wanted[j]
            for p in range(first, last):
                gathered[j, p] = values[channel, p]


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _products_kernel(
    first: int,
    last: int,
    rows: np.ndarray,
    x: np.ndarray,
    g: np.ndarray,
    wanted_inputs: np.ndarray,
    wanted_outputs: np.ndarray,
    pairs: np.ndarray,
    shift: np.ndarray,
    scale: np.ndarray,
) -> None:
    received = np.empty((len(wanted_inputs), x.shape[2]), rows.dtype)
    gradient = np.empty((len(wanted_outputs), g.shape[2]), rows.dtype)
    for s in range(first, last):
        _gather(x[s], wanted_inputs, received)
        _gather(g[s], wanted_outputs, gradient)
        for k in range(len(pairs)):
            i, o = pairs[k]
            total = rows.dtype.type(0)
            for p in range(received.shape[1]):
                total += (received[i, p] - shift[i]) * gradient[o, p]
            rows[k, s] += total * scale[i]


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _convolutions_kernel(
    first: int,
    last: int,
    rows: np.ndarray,
    x: np.ndarray,
    g: np.ndarray,
    wanted_inputs: np.ndarray,
    wanted_outputs: np.ndarray,
    plan: np.ndarray,
    input_size: tuple[int, int],
    output_size: tuple[int, int],
    stride: tuple[int, int],
) -> None:
    gathered_inputs = np.empty((len(wanted_inputs), x.shape[2]), rows.dtype)
    gathered_outputs = np.empty((len(wanted_outputs), g.shape[2]), rows.dtype)
    for s in range(first, last):
        _gather(x[s], wanted_inputs, gathered_inputs)
        _gather(g[s], wanted_outputs, gathered_outputs)
        for k in range(len(plan)):
            i, o, down, right, top, bottom, left, end = plan[k]
            total = rows.dtype.type(0)
            for p in range(top, bottom):
                begin = p * output_size[1]
                gradient = gathered_outputs[o, begin + left : begin + end]
                begin = (p * stride[0] + down) * input_size[1] + right
                if stride[1] == 1:
                    received = gathered_inputs[i, begin + left : begin + end]
                    for q in range(len(gradient)):
                        total += received[q] * gradient[q]
                else:
                    for q in range(len(gradient)):
                        total += gathered_inputs[i, begin + (left + q) * stride[1]] * gradient[q]
            rows[k, s] += total
