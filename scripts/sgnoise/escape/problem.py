"""The network and data set of an escape, as the kernels take them.

A fully connected network in float32: ReLU or tanh, cross-entropy or squared error (a mean over
samples). Its weights are one flat vector: for each layer the weight matrix (out, in) row by row,
then the bias (out).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sgnoise.escape.kernels import BLOCK

ACTIVATIONS = ("relu", "tanh")
LOSSES = ("cross_entropy", "squared")


class Problem(NamedTuple):
    """A data set and the shape of a network, laid out for the kernel.

    Attributes:
        sizes: units of each layer from the features to the classes, (layers + 1,) int64.
        rows: inputs (samples, features) float32, for mini-batches.
        targets: classes (samples,) int64.
        blocks: inputs (blocks, features, BLOCK) float32, the last block filled up with zeros.
        use_tanh: hidden units are tanh, not ReLU.
        squared: the loss is the mean squared error, not the cross-entropy.
    """

    sizes: np.ndarray
    rows: np.ndarray
    targets: np.ndarray
    blocks: np.ndarray
    use_tanh: bool
    squared: bool


@dataclass(frozen=True)
class Minimum:
    """Where escapes start.

    Attributes:
        parameters: the weights, flat.
        widths: units of the hidden layers.
        activation: of the hidden layers, one of ACTIVATIONS.
        criterion: what the loss is, one of LOSSES.
        loss: full-data loss.
        hessian_top: the largest eigenvalues of its Hessian, falling.
    """

    parameters: np.ndarray
    widths: list[int]
    activation: str
    criterion: str
    loss: float
    hessian_top: np.ndarray

    def problem(self, inputs: np.ndarray, targets: np.ndarray, classes: int) -> Problem:
        """Its network on its data set, laid out for the kernel; see :func:`make_problem`."""
        return make_problem(
            inputs,
            targets,
            classes,
            self.widths,
            activation=self.activation,
            loss=self.criterion,
        )


def make_problem(
    inputs: np.ndarray,
    targets: np.ndarray,
    classes: int,
    widths: Sequence[int],
    *,
    activation: str = "relu",
    loss: str = "cross_entropy",
) -> Problem:
    """Lay out inputs (samples, ...) and targets (samples,) for a network of ``widths``.

    >>> import numpy as np
    >>> inputs = np.random.default_rng(0).standard_normal((60, 4))
    >>> problem = make_problem(inputs, inputs[:, 0] > 0, classes=2, widths=[8, 8])
    >>> problem.sizes
    array([4, 8, 8, 2])

    Args:
        activation: one of ACTIVATIONS.
        loss: one of LOSSES. ``squared``: of the outputs against 1 for the sample's class and 0 for
            the others, the mean over samples and classes.

    Raises:
        ValueError: no samples, targets outside the classes, inputs that are not finite, bad widths,
            an unknown activation or loss.
    """
    for what, name, known in (("activation", activation, ACTIVATIONS), ("loss", loss, LOSSES)):
        if name not in known:
            raise ValueError(f"unknown {what} {name!r} (valid: {', '.join(known)})")
    rows = np.ascontiguousarray(inputs.reshape(len(inputs), -1), dtype=np.float32)
    labels = np.ascontiguousarray(targets, dtype=np.int64)
    if not len(rows) or labels.shape != (len(rows),):
        raise ValueError(
            f"inputs {inputs.shape} and targets {targets.shape}: need one target for each sample"
        )
    if not np.isfinite(rows).all():
        raise ValueError("inputs hold values that are not finite; clean or drop those samples")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"targets run from {labels.min()} to {labels.max()}, not within 0..{classes - 1}"
        )
    if not widths or min(widths) < 1:
        raise ValueError(
            f"widths {list(widths)}: need at least one hidden layer of at least one unit"
        )
    count, features = rows.shape
    padded = np.zeros((math.ceil(count / BLOCK) * BLOCK, features), np.float32)
    padded[:count] = rows
    blocks = np.ascontiguousarray(padded.reshape(-1, BLOCK, features).transpose(0, 2, 1))
    sizes = np.array([features, *widths, classes], np.int64)
    return Problem(sizes, rows, labels, blocks, activation == "tanh", loss == "squared")


def layers_of(parameters: np.ndarray, sizes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The flat vector as views: (weight (out, in), bias (out,)) of each layer.

    >>> import numpy as np
    >>> [weight.shape for weight, bias in layers_of(np.zeros(19), np.array([4, 3, 1]))]
    [(3, 4), (1, 3)]
    """
    layers = []
    offset = 0
    for inner, outer in itertools.pairwise(sizes):
        weight = parameters[offset : offset + outer * inner].reshape(outer, inner)
        offset += outer * inner
        layers.append((weight, parameters[offset : offset + outer]))
        offset += outer
    return layers


def load_minimum(minimum_path: str) -> Minimum:
    """Read what ``find_minimum`` wrote."""
    with np.load(minimum_path, allow_pickle=False) as arrays:
        weights = [arrays[f"w{i}"] for i in range(sum(name.startswith("w") for name in arrays))]
        biases = [arrays[f"b{i}"] for i in range(len(weights))]
        parts = [part.ravel() for layer in zip(weights, biases, strict=True) for part in layer]
        return Minimum(
            parameters=np.concatenate(parts),
            widths=[len(bias) for bias in biases[:-1]],
            activation=str(arrays["activation"]),
            criterion=str(arrays["criterion"]),
            loss=float(arrays["loss"]),
            hessian_top=arrays["hessian_top"],
        )


def initial_parameters(sizes: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Weights and biases uniform within ±1/√in, as PyTorch starts a linear layer; float32.

    >>> import numpy as np
    >>> initial_parameters(np.array([4, 3, 1]), rng=np.random.default_rng(0)).shape
    (19,)
    """
    parts = []
    for inner, outer in itertools.pairwise(sizes):
        bound = 1 / math.sqrt(inner)
        parts.append(rng.uniform(-bound, bound, outer * inner + outer))
    return np.concatenate(parts).astype(np.float32)
