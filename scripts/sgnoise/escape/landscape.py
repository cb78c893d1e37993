"""The loss around one point: gradient, Hessian-vector products and curvature, in float64; edges."""

from __future__ import annotations

import math

import numpy as np

from sgnoise.escape.kernels import data_loss
from sgnoise.escape.problem import Problem, layers_of

# Edges of the basin are looked for between these distances, and placed to within a factor.
_NEAREST, _FURTHEST, _RESOLUTION = 1e-3, 1e3, 1.05


def loss_gradient(problem: Problem, parameters: np.ndarray) -> np.ndarray:
    """Gradient of the full-data loss, flat as the parameters.

    >>> import numpy as np
    >>> from sgnoise.escape import make_problem
    >>> problem = make_problem(np.ones((4, 2)), np.array([0, 0, 1, 1]), classes=2, widths=[3])
    >>> bool(np.all(loss_gradient(problem, np.zeros(17)) == 0))  # right in half of the samples
    True
    """
    return _Linearisation(problem, parameters).gradient()


def hessian_top(problem: Problem, parameters: np.ndarray, *, count: int = 5) -> np.ndarray:
    """The ``count`` largest eigenvalues of the Hessian of the full-data loss, falling.

    By Lanczos on exact Hessian-vector products; the kinks of ReLU have no curvature.

    >>> import numpy as np
    >>> from sgnoise.escape import make_problem
    >>> problem = make_problem(np.ones((4, 2)), np.array([0, 0, 1, 1]), classes=2, widths=[3])
    >>> hessian_top(problem, np.zeros(17), count=2).round(6)  # that of the output biases
    array([0.5, 0. ])
    """
    # Not at the top: the jobs that simulate escapes are many, short, and do without SciPy.
    from scipy.sparse.linalg import LinearOperator, eigsh

    point = _Linearisation(problem, parameters)
    size = len(parameters)
    operator = LinearOperator((size, size), matvec=point.hessian_product, dtype=np.float64)
    start = np.random.default_rng(0).normal(size=size)
    count = min(count, size - 1)
    found = eigsh(operator, count, which="LA", v0=start, tol=1e-6, return_eigenvectors=False)
    return np.sort(found)[::-1]


def loss_curvature(problem: Problem, parameters: np.ndarray) -> np.ndarray:
    """The diagonal of the Hessian of the full-data loss, (parameters,), by exact products.

    >>> import numpy as np
    >>> from sgnoise.escape import make_problem
    >>> problem = make_problem(np.ones((4, 2)), np.array([0, 0, 1, 1]), classes=2, widths=[3])
    >>> loss_curvature(problem, np.zeros(17))[-2:]  # the output biases
    array([0.25, 0.25])
    """
    point = _Linearisation(problem, parameters)
    direction = np.zeros(len(parameters))
    diagonal = np.empty(len(parameters))
    for index in range(len(parameters)):
        direction[index] = 1
        diagonal[index] = point.hessian_product(direction)[index]
        direction[index] = 0
    return diagonal


def basin_edges(
    problem: Problem, parameters: np.ndarray, *, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """How far each weight alone can go before the loss exceeds ``threshold``: the paper's d_l^±.

    A crossing is found to within a factor of 1.05, between distances of 0.001 and 1,000; where the
    loss is below the threshold at the latter, the edge is infinite.

    >>> import numpy as np
    >>> from sgnoise.escape import make_problem
    >>> problem = make_problem(np.ones((4, 2)), np.array([0, 0, 1, 1]), classes=2, widths=[3])
    >>> lower, upper = basin_edges(problem, np.zeros(17, np.float32), threshold=1.0)
    >>> bool(np.isinf(upper[0]) and 1 < upper[-1] < 3)  # a weight without effect, and a bias
    True

    Returns:
        The lower edges, negative, and the upper ones, each (parameters,).
    """
    edges = np.array(
        [
            [_basin_edge(problem, parameters, index, side, threshold=threshold) for side in (-1, 1)]
            for index in range(len(parameters))
        ]
    )
    return -edges[:, 0], edges[:, 1]


def _basin_edge(
    problem: Problem, parameters: np.ndarray, index: int, side: int, *, threshold: float
) -> float:
    """How far one weight alone can go on one side."""
    moved = parameters.copy()

    def inside(distance: float) -> bool:
        moved[index] = parameters[index] + np.float32(side * distance)
        return bool(data_loss(problem, moved) <= threshold)

    if inside(_FURTHEST):
        return math.inf
    low, high = _NEAREST, _FURTHEST
    while high > _RESOLUTION * low:
        middle = math.sqrt(low * high)
        if inside(middle):
            low = middle
        else:
            high = middle
    return high


class _Linearisation:
    """The network's activations and derivatives at one point, over the whole data set."""

    def __init__(self, problem: Problem, parameters: np.ndarray) -> None:
        self.sizes, self.squared = problem.sizes, problem.squared
        self.layers = layers_of(parameters.astype(np.float64), problem.sizes)
        self.signals = [problem.rows.astype(np.float64)]
        # Of each hidden layer: the activation's first derivative and its second.
        self.slopes: list[np.ndarray] = []
        self.bends: list[np.ndarray] = []
        for weight, bias in self.layers[:-1]:
            raw = self.signals[-1] @ weight.T + bias
            if problem.use_tanh:
                signal = np.tanh(raw)
                slope = 1 - signal**2
                bend = -2 * signal * slope
            else:
                signal = np.maximum(raw, 0)
                slope = (raw > 0).astype(np.float64)
                bend = np.zeros_like(raw)
            self.signals.append(signal)
            self.slopes.append(slope)
            self.bends.append(bend)
        weight, bias = self.layers[-1]
        outputs = self.signals[-1] @ weight.T + bias
        samples, classes = outputs.shape
        if self.squared:
            errors = outputs
        else:
            powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            errors = powers / powers.sum(axis=1, keepdims=True)
            self.probabilities = errors.copy()
        errors[np.arange(samples), problem.targets] -= 1
        self.share = 2 / (samples * classes) if self.squared else 1 / samples
        self.deltas = [errors * self.share]
        self.pulls: list[np.ndarray] = []  # the loss's derivative by each hidden layer's signal
        for (weight, _), slope in zip(self.layers[:0:-1], self.slopes[::-1], strict=True):
            self.pulls.insert(0, self.deltas[0] @ weight)
            self.deltas.insert(0, self.pulls[0] * slope)

    def gradient(self) -> np.ndarray:
        """(parameters,)"""
        parts = []
        for signal, delta in zip(self.signals, self.deltas, strict=True):
            parts += [(delta.T @ signal).ravel(), delta.sum(axis=0)]
        return np.concatenate(parts)

    def hessian_product(self, direction: np.ndarray) -> np.ndarray:
        """The derivative of the gradient along ``direction`` (Pearlmutter 1994), (parameters,)."""
        moves = layers_of(direction.ravel(), self.sizes)
        signal_moves = [np.zeros_like(self.signals[0])]
        raw_moves = []
        for index, ((weight, _), (weight_move, bias_move)) in enumerate(
            zip(self.layers, moves, strict=True)
        ):
            move = signal_moves[-1] @ weight.T + self.signals[index] @ weight_move.T + bias_move
            raw_moves.append(move)
            if index < len(self.layers) - 1:
                signal_moves.append(move * self.slopes[index])
        if self.squared:
            delta_move = move * self.share
        else:
            centred = move - (self.probabilities * move).sum(axis=1, keepdims=True)
            delta_move = self.probabilities * centred * self.share
        parts: list[np.ndarray] = []
        for index in range(len(self.layers) - 1, -1, -1):
            signal, delta = self.signals[index], self.deltas[index]
            weight_part = delta_move.T @ signal + delta.T @ signal_moves[index]
            parts = [weight_part.ravel(), delta_move.sum(axis=0), *parts]
            if index > 0:
                pull_move = delta_move @ self.layers[index][0] + delta @ moves[index][0]
                delta_move = pull_move * self.slopes[index - 1]
                delta_move += self.pulls[index - 1] * self.bends[index - 1] * raw_moves[index - 1]
        return np.concatenate(parts)
