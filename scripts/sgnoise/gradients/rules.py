"""What the gradient of one weight is for one sample, for each function of torch that has a rule.

A rule takes the arguments of the function and says which of them are weights and how the gradient
of each follows from what the function received and from the gradient of what it returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from sgnoise.gradients import contractions
from sgnoise.gradients.contractions import add_contractions, add_sums
from sgnoise.gradients.offsets import Offsets, Pairs

# Adds to rows (k, samples) the gradients of the k weights at these flat offsets, from
# x (samples, ...), what was received, and g (samples, ...), the gradient of what was returned.
Add = Callable[[torch.Tensor, Offsets, torch.Tensor, torch.Tensor], None]


class Part(NamedTuple):
    """One tensor of weights among the arguments of a function.

    Attributes:
        weight: the tensor, if any.
        add: see ``Add``.
        needs_input: whether ``add`` looks at what was received.
    """

    weight: torch.Tensor | None
    add: Add
    needs_input: bool = True


class Call(NamedTuple):
    """What a function was called with.

    Attributes:
        received: the activations.
        parts: the weights.
        by_rows: whether each row of the first dimension is treated alike, so that a sample may
            have several.
    """

    received: torch.Tensor
    parts: tuple[Part, ...]
    by_rows: bool = False


def _linear(
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> Call:
    parts = (Part(weight, _add_linear), Part(bias, _add_last_sums, needs_input=False))
    return Call(input, parts, by_rows=True)


def _matmul(input: torch.Tensor, other: torch.Tensor) -> Call:  # noqa: A002
    weight = other if other.ndim == 2 else None
    return Call(input, (Part(weight, _add_matrix),), by_rows=True)


def _addmm(input: torch.Tensor, mat1: torch.Tensor, mat2: torch.Tensor) -> Call:  # noqa: A002
    parts = (Part(mat2, _add_matrix), Part(input, _add_last_sums, needs_input=False))
    return Call(mat1, parts, by_rows=True)


def _convolution(
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Call:
    dimensions = weight.ndim - 2
    dilation = _each(dilation, dimensions)
    if isinstance(padding, str):
        same = padding == "same"
        # An odd number of zeros has the one more at the end, where nobody counts them.
        padding = tuple(
            same * step * (size - 1) // 2
            for step, size in zip(dilation, weight.shape[2:], strict=True)
        )
    add = partial(
        _add_convolution,
        weight.shape,
        groups,
        stride=_each(stride, dimensions),
        padding=_each(padding, dimensions),
        dilation=dilation,
    )
    return Call(input, (Part(weight, add), Part(bias, _add_channel_sums, needs_input=False)))


def _batch_norm(
    input: torch.Tensor,  # noqa: A002
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Call:
    if training or running_mean is None or running_var is None:
        # The statistics of a mini-batch mix its samples.
        return Call(input, ())
    add = partial(_add_scale, shift=running_mean, scale=(running_var + eps).rsqrt())
    return Call(input, (Part(weight, add), Part(bias, _add_channel_sums, needs_input=False)))


def _layer_norm(
    input: torch.Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Call:
    def normalised(x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, normalized_shape, eps=eps)

    return _normalisation(input, normalized_shape, weight, bias, normalised)


def _rms_norm(
    input: torch.Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> Call:
    def normalised(x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, normalized_shape, eps=eps)

    return _normalisation(input, normalized_shape, weight, None, normalised)


def _normalisation(
    received: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    normalised: Callable[[torch.Tensor], torch.Tensor],
) -> Call:
    size = int(np.prod(normalized_shape))

    def positions(tensor: torch.Tensor) -> torch.Tensor:
        return _features_first(tensor.reshape(len(tensor), -1, size))

    def add(rows: torch.Tensor, offsets: Offsets, x: torch.Tensor, g: torch.Tensor) -> None:
        add_contractions(rows, positions(normalised(x)), positions(g), offsets.pairs)

    def add_bias(rows: torch.Tensor, offsets: Offsets, x: torch.Tensor, g: torch.Tensor) -> None:
        add_sums(rows, positions(g), offsets)

    parts = (Part(weight, add), Part(bias, add_bias, needs_input=False))
    return Call(received, parts, by_rows=True)


def _group_norm(
    input: torch.Tensor,  # noqa: A002
    num_groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Call:
    def add(rows: torch.Tensor, offsets: Offsets, x: torch.Tensor, g: torch.Tensor) -> None:
        _add_scale(rows, offsets, functional.group_norm(x, num_groups, eps=eps), g)

    return Call(input, (Part(weight, add), Part(bias, _add_channel_sums, needs_input=False)))


def _embedding(
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Call:
    if scale_grad_by_freq:
        # How often an entry occurs in a mini-batch mixes its samples.
        return Call(input, ())
    ignored = None if padding_idx is None else padding_idx % len(weight)
    return Call(input, (Part(weight, partial(_add_embedding, ignored)),), by_rows=True)


RULES: dict[Callable[..., Any], Callable[..., Call]] = {
    functional.linear: _linear,
    torch.matmul: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.addmm: _addmm,
    functional.conv1d: _convolution,
    functional.conv2d: _convolution,
    functional.batch_norm: _batch_norm,
    functional.layer_norm: _layer_norm,
    functional.rms_norm: _rms_norm,
    functional.group_norm: _group_norm,
    functional.embedding: _embedding,
}


def _each(size: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return sizes * dimensions if len(sizes) == 1 else sizes


def _add_linear(rows: torch.Tensor, offsets: Offsets, x: torch.Tensor, g: torch.Tensor) -> None:
    features = x.shape[-1]

    def pairs(numbers: np.ndarray) -> Pairs:
        outputs, inputs = np.divmod(numbers, features)
        return Pairs(inputs, outputs)

    found = offsets.derived(("linear", features), pairs)
    add_contractions(rows, _features_first(x), _features_first(g), found)


def _add_matrix(rows: torch.Tensor, offsets: Offsets, x: torch.Tensor, g: torch.Tensor) -> None:
    features = g.shape[-1]
    found = offsets.derived(
        ("matrix", features), lambda numbers: Pairs(*np.divmod(numbers, features))
    )
    add_contractions(rows, _features_first(x), _features_first(g), found)


def _add_last_sums(rows: torch.Tensor, offsets: Offsets, x: torch.Tensor, g: torch.Tensor) -> None:
    add_sums(rows, _features_first(g), offsets)


def _add_channel_sums(
    rows: torch.Tensor, offsets: Offsets, x: torch.Tensor, g: torch.Tensor
) -> None:
    add_sums(rows, g.reshape(*g.shape[:2], 1, -1), offsets)


def _add_scale(
    rows: torch.Tensor,
    offsets: Offsets,
    x: torch.Tensor,
    g: torch.Tensor,
    *,
    shift: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
) -> None:
    shape = (*g.shape[:2], 1, -1)
    add_contractions(
        rows, x.reshape(shape), g.reshape(shape), offsets.pairs, shift=shift, scale=scale
    )


def _add_convolution(
    shape: torch.Size,
    groups: int,
    rows: torch.Tensor,
    offsets: Offsets,
    x: torch.Tensor,
    g: torch.Tensor,
    *,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> None:
    if x.ndim == 3:
        x, g = x[:, :, None], g[:, :, None]
        shape = torch.Size((*shape[:2], 1, shape[2]))
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)

    def pairs(numbers: np.ndarray) -> Pairs:
        outputs, inputs, down, right = np.unravel_index(numbers, shape)
        group = outputs // (shape[0] // groups)
        return Pairs(group * shape[1] + inputs, outputs, down * dilation[0], right * dilation[1])

    add_contractions(
        rows,
        x,
        g,
        offsets.derived(("convolution", shape, groups, dilation), pairs),
        stride=(stride[0], stride[1]),
        padding=(padding[0], padding[1]),
    )


def _add_embedding(
    ignored: int | None,
    rows: torch.Tensor,
    offsets: Offsets,
    x: torch.Tensor,
    g: torch.Tensor,
) -> None:
    positions = x[0].numel()
    g = g.reshape(x.numel(), -1)
    entries, features = np.divmod(offsets.numbers, g.shape[1])
    order = np.argsort(entries, kind="stable")
    codes, starts, counts = np.unique(entries[order], return_index=True, return_counts=True)
    # Most entries of a vocabulary do not occur in a batch: go through those that do.
    found = x.reshape(-1).cpu().numpy()
    column = np.searchsorted(codes, found).clip(max=len(codes) - 1)
    occurrences = np.flatnonzero((codes[column] == found) & (found != ignored))
    step = max(1, contractions.CHUNK_NUMBERS // int(counts.max()))
    for first in range(0, len(occurrences), step):
        part = occurrences[first : first + step]
        # Each occurrence once for each weight of its entry.
        repeats = counts[column[part]]
        occurrence = np.repeat(part, repeats)
        rank = np.arange(len(occurrence)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        k = order[starts[column[occurrence]] + rank]
        index, feature, sample, at = (
            torch.from_numpy(numbers).to(g.device)
            for numbers in (k, features[k], occurrence // positions, occurrence)
        )
        rows.index_put_((index, sample), g[at, feature], accumulate=True)


def add_own(rows: torch.Tensor, offsets: Offsets, x: torch.Tensor, g: torch.Tensor) -> None:
    """The gradient of weights that were given a sample dimension themselves."""
    rows += g.reshape(len(g), -1)[:, offsets.on(g.device)].T


def _features_first(tensor: torch.Tensor) -> torch.Tensor:
    """(samples, ..., features) to (samples, features, 1, positions)."""
    return tensor.reshape(len(tensor), 1, -1, tensor.shape[-1]).permute(0, 3, 1, 2)
