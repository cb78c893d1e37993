"""Sums over positions of products of two chosen channels, for every sample: all that a gradient is.

Each function adds to ``rows`` (k, samples) one sum for each of k chosen pairs of channels. They are
gathered and multiplied at once: on a CPU in a compiled loop, shared out over the threads of torch;
on a GPU with Triton in one launch; elsewhere by torch in bounded chunks.
"""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from torch.nn import functional

from sgnoise.gradients.offsets import Offsets, Pairs

# Numbers held at once where torch gathers.
CHUNK_NUMBERS = 2**26


def add_sums(rows: torch.Tensor, g: torch.Tensor, channels: Offsets) -> None:
    """Add the sum over p and q of g[s, channels[k], p, q] to rows[k, s].

    Args:
        rows: (k, samples).
        g: (samples, channels, height, width).
        channels: k of them.
    """
    if _has_gpu_kernels(rows, g):
        from sgnoise.gradients import gpu

        gpu.add_contractions(rows, None, g, channels.pairs)
        return
    rows += g.sum(dim=(2, 3))[:, channels.on(g.device)].T


def add_contractions(
    rows: torch.Tensor,
    x: torch.Tensor,
    g: torch.Tensor,
    pairs: Pairs,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    shift: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
) -> None:
    """Add scale[i] sum_pq (x[s, i, p t + a - m, q t + b - m] - shift[i]) g[s, o, p, q] to rows.

    Args:
        rows: (k, samples).
        x: (samples, inputs, height, width); with ``padding``, zero outside.
        g: (samples, outputs, height, width).
        pairs: i, o, a and b of each k.
        stride: t, of (height, width).
        padding: m, likewise; without ``shift``.
        shift: (inputs,), 0 unless given.
        scale: (inputs,), 1 unless given.
    """
    if not len(pairs):
        return
    if _has_gpu_kernels(rows, x, g):
        from sgnoise.gradients import gpu

        gpu.add_contractions(
            rows, x, g, pairs, stride=stride, padding=padding, shift=shift, scale=scale
        )
        return
    if shift is None:
        shift = x.new_zeros(x.shape[1])
    if scale is None:
        scale = x.new_ones(x.shape[1])
    if _has_kernels(rows, x, g):
        _over_samples(
            rows.numpy(),
            _channels_last(x),
            _channels_last(g),
            (*x.shape[2:], x.shape[1]),
            (*g.shape[2:], g.shape[1]),
            pairs.inputs,
            pairs.outputs,
            pairs.down,
            pairs.right,
            stride,
            padding,
            shift.numpy()[pairs.inputs],
            scale.numpy()[pairs.inputs],
        )
        return
    reach = [(size - 1) * step + 1 for size, step in zip(g.shape[2:], stride, strict=True)]
    below = max(0, int(pairs.down.max()) + reach[0] - padding[0] - x.shape[2])
    beside = max(0, int(pairs.right.max()) + reach[1] - padding[1] - x.shape[3])
    x, g = functional.pad(x, (padding[1], beside, padding[0], below)), g.flatten(2)
    step = max(1, CHUNK_NUMBERS // (g.shape[0] * g.shape[2]))
    for a, b in np.unique(np.stack([pairs.down, pairs.right], axis=1), axis=0):
        # The input as the outputs see it through this one position of the kernel.
        seen = x[:, :, a : a + reach[0] : stride[0], b : b + reach[1] : stride[1]].flatten(2)
        members = np.flatnonzero((pairs.down == a) & (pairs.right == b))
        for first in range(0, len(members), step):
            chosen = torch.from_numpy(members[first : first + step]).to(x.device)
            i, o = pairs.on(x.device)[:2, chosen]
            centred = seen[:, i] - shift[i][:, None]
            rows[chosen] += (centred * g[:, o]).sum(dim=2).T * scale[i][:, None]


def _has_kernels(*tensors: torch.Tensor) -> bool:
    kinds = {(tensor.device.type, tensor.dtype) for tensor in tensors}
    return kinds in ({("cpu", torch.float32)}, {("cpu", torch.float64)})


# It comes with torch for Linux.
_HAS_TRITON = importlib.util.find_spec("triton") is not None


def _has_gpu_kernels(*tensors: torch.Tensor) -> bool:
    return _HAS_TRITON and all(tensor.device.type == "cuda" for tensor in tensors)


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    """(samples, channels, height, width) to (samples, height * width * channels)."""
    return tensor.detach().permute(0, 2, 3, 1).reshape(len(tensor), -1).numpy()


def _over_samples(rows: np.ndarray, *arguments: Any) -> None:
    """Run the kernel on all samples, shared out over as many threads as torch may use."""
    samples = rows.shape[1]
    edges = np.linspace(0, samples, min(torch.get_num_threads(), samples) + 1).astype(int).tolist()

    def run(part: tuple[int, int]) -> None:
        _contractions_kernel(*part, rows, *arguments)

    own, *others = pairwise(edges)
    if not others:
        run(own)
        return
    with ThreadPoolExecutor(len(others)) as pool:
        jobs = [pool.submit(run, part) for part in others]
        run(own)
        for job in jobs:
            job.result()


# Sums may be reordered, so that they vectorise; a NaN stays a NaN.
_FAST = {"reassoc", "contract", "nsz"}


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _contractions_kernel(
    first: int,
    last: int,
    rows: np.ndarray,
    x: np.ndarray,
    g: np.ndarray,
    input_size: tuple[int, int, int],
    output_size: tuple[int, int, int],
    inputs: np.ndarray,
    outputs: np.ndarray,
    down: np.ndarray,
    right: np.ndarray,
    stride: tuple[int, int],
    padding: tuple[int, int],
    shift: np.ndarray,
    scale: np.ndarray,
) -> None:
    """``add_contractions`` for some samples; x and g have the channels last.

    Every sample goes through the positions once, and at each through all weights, so that what it
    reads follows each other in memory.
    """
    height, width, channels = input_size
    # The input with zeros around it, as far as the outputs see.
    tall = max(height + padding[0], (output_size[0] - 1) * stride[0] + down.max() + 1)
    wide = max(width + padding[1], (output_size[1] - 1) * stride[1] + right.max() + 1)
    padded = tall > height or wide > width
    frame = np.zeros(tall * wide * channels if padded else 0, rows.dtype)
    # Unsigned numbers, as a signed one might count from the end.
    count = len(inputs)
    received = ((down * wide + right) * channels + inputs).astype(np.uint64)
    returned = outputs.astype(np.uint64)
    x_step, g_step = np.uint64(stride[1] * channels), np.uint64(output_size[2])
    total = np.empty(count, rows.dtype)
    for s in range(first, last):
        seen, gradient = x[s], g[s]
        if padded:
            line = width * channels
            for h in range(height):
                begin = ((h + padding[0]) * wide + padding[1]) * channels
                frame[begin : begin + line] = seen[h * line : (h + 1) * line]
            seen = frame
        total[:] = 0
        for p in range(output_size[0]):
            x0 = np.uint64(p * stride[0] * wide * channels)
            g0 = np.uint64(p * output_size[1] * output_size[2])
            # Four positions at a time, for one look at each weight.
            for _ in range(output_size[1] // 4):
                x1, g1 = x0 + x_step, g0 + g_step
                x2, g2 = x1 + x_step, g1 + g_step
                x3, g3 = x2 + x_step, g2 + g_step
                for k in range(count):
                    i, o, middle = received[k], returned[k], shift[k]
                    total[k] += (
                        (seen[x0 + i] - middle) * gradient[g0 + o]
                        + (seen[x1 + i] - middle) * gradient[g1 + o]
                        + (seen[x2 + i] - middle) * gradient[g2 + o]
                        + (seen[x3 + i] - middle) * gradient[g3 + o]
                    )
                x0, g0 = x3 + x_step, g3 + g_step
            for _ in range(output_size[1] % 4):
                for k in range(count):
                    total[k] += (seen[x0 + received[k]] - shift[k]) * gradient[g0 + returned[k]]
                x0, g0 = x0 + x_step, g0 + g_step
        for k in range(count):
            rows[k, s] += total[k] * scale[k]
