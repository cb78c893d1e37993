"""Escape times: SGD from a minimum, many replicas, the exact full-data loss after every iteration.

A fully connected network in float32: ReLU or tanh, cross-entropy or squared error (a mean over
samples). Its weights are one flat vector: for each layer the weight matrix (out, in) row by row,
then the bias (out). One compiled kernel runs one replica from start to escape; the weights and a
block of the data's activations stay in the cache.

The loss is summed in float64 from float32 logits. A replica's result depends on its own key and
settings only: not on the replicas beside it, on the order in which they run, or on threads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from sgnoise.jobs import track

ACTIVATIONS = ("relu", "tanh")
LOSSES = ("cross_entropy", "squared")

# Samples in a block of the full-data pass: its activations stay in the first-level cache.
BLOCK = 128

# A look at the loss every k iterations replays the k iterations before it, with a look after each,
# if it finds the loss above the minimum's by more than this share of the escape's rise.
REPLAY_SHARE = 0.1

_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_ROUNDER = np.float32(12582912.0)  # 1.5 * 2^23: adding it rounds to an integer in the low bits
_LOWEST = np.float32(-87.0)
_ONE_BITS = np.int32(0x3F800000)
_EXP_6 = np.float32(1.9875691500e-4)
_EXP_5 = np.float32(1.3981999507e-3)
_EXP_4 = np.float32(8.3334519073e-3)
_EXP_3 = np.float32(4.1665795894e-2)
_EXP_2 = np.float32(1.6666665459e-1)
_EXP_1 = np.float32(5.0000001201e-1)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)
_TANH_END = np.float32(20.0)  # of 2x: beyond it tanh(x) is 1 in float32

# NaN must survive, or a diverged network would look like a trained one: no "nnan" among the flags.
_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})
_compiled_sum = njit(nogil=True, cache=True, fastmath={"contract", "nsz", "reassoc"})


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
class Escapes:
    """What became of each replica, arrays of shape (replicas,).

    Attributes:
        iterations: the first iteration whose loss was over the threshold; the budget if none was.
        escaped: False if the budget ended the replica (censored).
        diverged: the loss was not finite at that iteration; counts as an escape.
        final_loss: full-data loss after the last iteration.
    """

    iterations: np.ndarray
    escaped: np.ndarray
    diverged: np.ndarray
    final_loss: np.ndarray


@dataclass(frozen=True)
class Descent:
    """A run of SGD towards a minimum.

    Attributes:
        parameters: the weights where it ended.
        losses: full-data loss before the first iteration and after each, (iterations + 1,).
        criterion_met: False if the budget of iterations ended it.
    """

    parameters: np.ndarray
    losses: np.ndarray
    criterion_met: bool


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
    """The flat vector as views: (weight (out, in), bias (out,)) of each layer."""
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
    """Weights and biases uniform within ±1/√in, as PyTorch starts a linear layer; float32."""
    parts = []
    for inner, outer in itertools.pairwise(sizes):
        bound = 1 / math.sqrt(inner)
        parts.append(rng.uniform(-bound, bound, outer * inner + outer))
    return np.concatenate(parts).astype(np.float32)


# --- compiled ------------------------------------------------------------------------------------


@njit(inline="always")
def _multiply(left: np.ndarray, right: np.ndarray, output: np.ndarray, width: int) -> None:
    """Add the matrix product ``left`` (n, m) · ``right`` (m, width) to ``output`` (n, width).

    Two rows by four terms at a time: the widest tile whose factors stay in 16 vector registers. At
    these sizes it is faster than a call of BLAS, which packs its operands first.
    """
    rows, terms = left.shape
    whole_rows, whole_terms = rows - rows % 2, terms - terms % 4
    for u in range(0, whole_rows, 2):
        a, b = output[u], output[u + 1]
        for k in range(0, whole_terms, 4):
            x0, x1, x2, x3 = right[k], right[k + 1], right[k + 2], right[k + 3]
            a0, a1, a2, a3 = left[u, k], left[u, k + 1], left[u, k + 2], left[u, k + 3]
            b0, b1, b2, b3 = (
                left[u + 1, k],
                left[u + 1, k + 1],
                left[u + 1, k + 2],
                left[u + 1, k + 3],
            )
            for j in range(width):
                a[j] += a0 * x0[j] + a1 * x1[j] + a2 * x2[j] + a3 * x3[j]
                b[j] += b0 * x0[j] + b1 * x1[j] + b2 * x2[j] + b3 * x3[j]
        for k in range(whole_terms, terms):
            x0 = right[k]
            a0, b0 = left[u, k], left[u + 1, k]
            for j in range(width):
                a[j] += a0 * x0[j]
                b[j] += b0 * x0[j]
    for u in range(whole_rows, rows):
        a = output[u]
        for k in range(terms):
            x0 = right[k]
            a0 = left[u, k]
            for j in range(width):
                a[j] += a0 * x0[j]


@_compiled
def _add_product(left: np.ndarray, right: np.ndarray, output: np.ndarray) -> None:
    """:func:`_multiply` for any width."""
    _multiply(left, right, output, output.shape[1])


@_compiled
def _add_block_product(left: np.ndarray, right: np.ndarray, output: np.ndarray) -> None:
    """:func:`_multiply` for a width of BLOCK, a constant: the compiler needs no remainders."""
    _multiply(left, right, output, BLOCK)


@_compiled
def _exponentiate(values: np.ndarray, power: np.ndarray) -> None:
    """Replace float32 ``values`` from -87 to 87 by their exponentials; NaN stays.

    exp(x) = 2^n · e^r, |r| <= ln(2)/2, e^r by a polynomial (as Cephes' expf, 2 ulp). ``power`` is
    room for as many values; the loops run on vector registers.
    """
    power_bits = power.view(np.int32)
    for j in range(len(values)):
        power[j] = values[j] * _LOG2_E + _ROUNDER
    for j in range(len(values)):
        n = power[j] - _ROUNDER
        r = (values[j] - n * _LN2_HIGH) - n * _LN2_LOW
        p = _EXP_6
        p = p * r + _EXP_5
        p = p * r + _EXP_4
        p = p * r + _EXP_3
        p = p * r + _EXP_2
        p = p * r + _EXP_1
        values[j] = p * r * r + r + _ONE
    for j in range(len(values)):
        power_bits[j] = (power_bits[j] << 23) + _ONE_BITS
    for j in range(len(values)):
        values[j] *= power[j]


@_compiled
def _activate(values: np.ndarray, use_tanh: bool, power: np.ndarray) -> None:
    """Apply the activation to float32 ``values`` in place; NaN stays."""
    # Comparisons are this way round so that NaN is passed on.
    if not use_tanh:
        for j in range(len(values)):
            values[j] = _ZERO if values[j] < _ZERO else values[j]
        return
    for j in range(len(values)):
        x = _TWO * values[j]
        x = -_TANH_END if x < -_TANH_END else x
        values[j] = _TANH_END if x > _TANH_END else x
    _exponentiate(values, power)
    for j in range(len(values)):
        values[j] = (values[j] - _ONE) / (values[j] + _ONE)


@_compiled_sum
def _product(values: np.ndarray) -> float:
    """The product of all values, taken in any order so that it runs on vector registers."""
    product = 1.0
    for j in range(len(values)):
        product *= values[j]
    return product


@_compiled
def data_loss(problem: Problem, parameters: np.ndarray) -> float:
    """Mean loss over the whole data set; not finite if the network has diverged.

    Samples are the fast axis, so that every loop runs on vector registers.
    """
    sizes, _, targets, blocks, use_tanh, squared = problem
    layers = len(sizes) - 1
    classes = sizes[layers]
    samples = len(targets)
    buffers = np.empty((2, sizes[1:].max() * BLOCK), np.float32)
    power = np.empty(sizes[1:].max() * BLOCK, np.float32)
    top = np.empty(BLOCK, np.float32)
    below_top = np.empty(BLOCK, np.float32)
    sums = np.empty(BLOCK, np.float64)
    total = 0.0
    for block in range(len(blocks)):
        signal = blocks[block]
        offset = 0
        for layer in range(layers):
            inner, outer = sizes[layer], sizes[layer + 1]
            weight = parameters[offset : offset + outer * inner].reshape((outer, inner))
            offset += outer * inner
            flat = buffers[layer % 2][: outer * BLOCK]
            output = flat.reshape((outer, BLOCK))
            for unit in range(outer):
                bias = parameters[offset + unit]
                row = output[unit]
                for j in range(BLOCK):
                    row[j] = bias
            offset += outer
            _add_block_product(weight, signal, output)
            if layer < layers - 1:
                _activate(flat, use_tanh, power)
            signal = output

        first = block * BLOCK
        used = min(BLOCK, samples - first)
        if squared:
            for label in range(classes):
                for j in range(used):
                    error = np.float64(signal[label, j]) - (label == targets[first + j])
                    total += error * error / classes
            continue
        for j in range(BLOCK):
            top[j] = signal[0, j]
            sums[j] = 0.0
        for label in range(1, classes):
            row = signal[label]
            for j in range(BLOCK):
                top[j] = row[j] if row[j] > top[j] else top[j]
        for label in range(classes):
            row = signal[label]
            for j in range(BLOCK):
                x = row[j] - top[j]
                below_top[j] = _LOWEST if x < _LOWEST else x
            _exponentiate(below_top, power)
            for j in range(BLOCK):
                sums[j] += np.float64(below_top[j])
        for j in range(used):
            total += np.float64(top[j]) - np.float64(signal[targets[first + j], j])
        # One logarithm for 64 sums, each within 1..classes, whose product cannot leave float64.
        for start in range(0, used, 64):
            total += math.log(_product(sums[start : min(start + 64, used)]))
    return total / samples


@_compiled
def _random_below(state: np.ndarray, bound: int) -> int:
    """An integer below ``bound`` (< 2^32, bias below bound/2^32), by SplitMix64 on ``state[0]``."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return int(((z >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@_compiled
def draw_batch(state: np.ndarray, order: np.ndarray, used: int, batch: np.ndarray) -> int:
    """Fill ``batch`` with the next samples of a pass in random order; return how many it has used.

    A pass goes once through the data in an order drawn afresh; a remainder smaller than a batch
    is left out. ``state`` (1,) uint64 and ``order``, a permutation of the samples, move on.
    """
    size = len(batch)
    if used + size > len(order):
        used = 0
    for i in range(used, used + size):
        other = i + _random_below(state, len(order) - i)
        order[i], order[other] = order[other], order[i]
        batch[i - used] = order[i]
    return used + size


@_compiled
def sgd_step(
    problem: Problem, parameters: np.ndarray, batch: np.ndarray, learning_rate: np.float32
) -> None:
    """One step of plain SGD on ``parameters``, in place, for the samples of ``batch``.

    Units are the fast axis here: a mini-batch may be narrower than a vector register.
    """
    sizes, rows, targets, _, use_tanh, squared = problem
    layers = len(sizes) - 1
    size = len(batch)
    activations = np.empty(size * sizes.sum(), np.float32)
    power = np.empty(size * sizes.max(), np.float32)
    # Matrices laid out the other way round, one after another.
    turned = np.empty(sizes.max() * max(size, sizes.max()), np.float32)
    for i in range(size):
        row = rows[batch[i]]
        for feature in range(len(row)):
            activations[i * len(row) + feature] = row[feature]
    offset = 0
    at = 0
    for layer in range(layers):
        inner, outer = sizes[layer], sizes[layer + 1]
        weight = parameters[offset : offset + outer * inner].reshape((outer, inner))
        bias = parameters[offset + outer * inner : offset + outer * inner + outer]
        offset += outer * inner + outer
        weight_by_input = turned[: inner * outer].reshape((inner, outer))
        for unit in range(outer):
            for below_unit in range(inner):
                weight_by_input[below_unit, unit] = weight[unit, below_unit]
        signal = activations[at : at + size * inner].reshape((size, inner))
        at += size * inner
        flat = activations[at : at + size * outer]
        output = flat.reshape((size, outer))
        for i in range(size):
            row = output[i]
            for unit in range(outer):
                row[unit] = bias[unit]
        _add_product(signal, weight_by_input, output)
        if layer < layers - 1:
            _activate(flat, use_tanh, power[: size * outer])

    # The gradient at the outputs, times minus the learning rate.
    classes = sizes[layers]
    deltas = np.empty((2, size * sizes[1:].max()), np.float32)
    delta = deltas[layers % 2][: size * classes].reshape((size, classes))
    step = learning_rate / np.float32(size)
    if squared:
        step *= _TWO / np.float32(classes)
    for i in range(size):
        row = activations[at + i * classes : at + (i + 1) * classes]
        if squared:
            for label in range(classes):
                delta[i, label] = -step * row[label]
        else:
            top = row.max()
            normaliser = _ZERO
            for label in range(classes):
                delta[i, label] = math.exp(row[label] - top)
                normaliser += delta[i, label]
            for label in range(classes):
                delta[i, label] *= -step / normaliser
        delta[i, targets[batch[i]]] += step

    for layer in range(layers - 1, -1, -1):
        inner, outer = sizes[layer], sizes[layer + 1]
        offset -= outer * inner + outer
        weight = parameters[offset : offset + outer * inner].reshape((outer, inner))
        bias = parameters[offset + outer * inner : offset + outer * inner + outer]
        at -= size * inner
        signal = activations[at : at + size * inner].reshape((size, inner))
        delta = deltas[(layer + 1) % 2][: size * outer].reshape((size, outer))
        if layer > 0:
            below = deltas[layer % 2][: size * inner].reshape((size, inner))
            for i in range(size):
                row = below[i]
                for unit in range(inner):
                    row[unit] = _ZERO
            _add_product(delta, weight, below)
            for i in range(size):
                for unit in range(inner):
                    s = signal[i, unit]
                    if use_tanh:
                        below[i, unit] *= _ONE - s * s
                    elif s <= _ZERO:
                        below[i, unit] = _ZERO
        by_unit = turned[: outer * size].reshape((outer, size))
        for i in range(size):
            for unit in range(outer):
                by_unit[unit, i] = delta[i, unit]
                bias[unit] += delta[i, unit]
        _add_product(by_unit, signal, weight)


@_compiled
def _descend(
    problem: Problem,
    parameters: np.ndarray,
    key: np.uint64,
    learning_rate: np.float32,
    batch_size: int,
    tolerance: float,
    patience: int,
    losses: np.ndarray,
) -> tuple[int, bool]:
    """SGD in place until the loss has kept within ``tolerance``; see :func:`descend`."""
    order = np.arange(len(problem.targets))
    state = np.full(1, key, np.uint64)
    batch = np.empty(batch_size, np.int64)
    used = 0
    losses[0] = data_loss(problem, parameters)
    for iteration in range(1, len(losses)):
        used = draw_batch(state, order, used, batch)
        sgd_step(problem, parameters, batch, learning_rate)
        loss = data_loss(problem, parameters)
        losses[iteration] = loss
        if not math.isfinite(loss):
            return iteration, False
        if iteration < patience:
            continue
        low = high = loss
        back = 1
        while back <= patience and high - low <= tolerance:
            low = min(low, losses[iteration - back])
            high = max(high, losses[iteration - back])
            back += 1
        if high - low <= tolerance:
            return iteration, True
    return len(losses) - 1, False


@_compiled
def _escape(
    problem: Problem,
    start: np.ndarray,
    key: np.uint64,
    learning_rate: np.float32,
    batch_size: int,
    threshold: float,
    replay_above: float,
    max_iterations: int,
    check_every: int,
) -> tuple[int, bool, float]:
    """One replica: (iterations, escaped, final loss); see :func:`escape_times`."""
    parameters = start.copy()
    kept = start.copy()
    order = np.arange(len(problem.targets))
    state = np.full(1, key, np.uint64)
    batches = np.empty((check_every, batch_size), np.int64)
    used = 0
    done = 0
    loss = math.nan
    while done < max_iterations:
        steps = min(check_every, max_iterations - done)
        if steps > 1:
            kept[:] = parameters
        for i in range(steps):
            used = draw_batch(state, order, used, batches[i])
            sgd_step(problem, parameters, batches[i], learning_rate)
        loss = data_loss(problem, parameters)
        if steps == 1:
            if not loss <= threshold:
                return done + 1, True, loss
        elif not loss <= replay_above:
            parameters[:] = kept
            for i in range(steps):
                sgd_step(problem, parameters, batches[i], learning_rate)
                loss = data_loss(problem, parameters)
                if not loss <= threshold:
                    return done + i + 1, True, loss
        done += steps
    return done, False, loss


# --- what scripts call ---------------------------------------------------------------------------


def descend(
    problem: Problem,
    parameters: np.ndarray,
    *,
    key: int,
    learning_rate: float,
    batch_size: int,
    tolerance: float,
    patience: int,
    max_iterations: int,
) -> Descent:
    """SGD until the full-data loss keeps within ``tolerance`` for ``patience`` iterations (A.4).

    "Keeps within": the largest and the smallest loss after the last ``patience`` + 1 iterations
    differ by at most ``tolerance``.

    Raises:
        ValueError: the loss is not finite at some iteration.
    """
    reached = parameters.astype(np.float32)
    losses = np.empty(max_iterations + 1)
    iterations, met = _descend(
        problem,
        reached,
        np.uint64(key),
        np.float32(learning_rate),
        min(batch_size, len(problem.targets)),
        float(tolerance),
        patience,
        losses,
    )
    if not math.isfinite(losses[iterations]):
        raise ValueError(
            f"the loss is not finite at iteration {iterations} of the way to the minimum; "
            f"lower the learning rate ({learning_rate})"
        )
    return Descent(reached, losses[: iterations + 1].copy(), met)


def escape_times(
    problem: Problem,
    minimum: np.ndarray,
    *,
    keys: np.ndarray,
    learning_rate: float,
    batch_size: int,
    minimum_loss: float,
    loss_delta: float,
    max_iterations: int,
    check_every: int = 1,
    threads: int = 1,
) -> Escapes:
    """Run SGD from ``minimum`` for each of ``keys`` until the loss has risen by ``loss_delta``.

    A replica's time is the number of iterations after which the full-data loss is first above
    ``minimum_loss`` + ``loss_delta`` (A.4). ``check_every`` = 1 looks after every iteration.
    ``check_every`` = k looks after every k; if that look finds the loss more than REPLAY_SHARE of
    the rise above the minimum's, the k iterations are replayed with a look after each. What is
    missed is an excursion above the threshold that has come down again by the next look. Measured
    on the three bundled tables, widths 16-16, batch sizes 8 and 32, 80 replicas at each of three
    rates: k = 5 changes 0 to 4 % of the times and moves a mean by at most 1 %, for 1.5 to 2.3 times
    the speed; k = 10 up to 8 % and 35 %, k = 20 up to 14 % and a factor of 2, and neither is faster
    (2.4 times). A missed escape costs most where many replicas never escape. On BreastW and Cardio
    (batch size 8, 80 replicas at each of three rates) k = 5 changes 0 to 3 % of the times and moves
    a mean by at most 7 %, where the replicas know it to 11 %; it is 2.5 times as fast where escapes
    are slow, and no faster where most looks end in a replay.

    Args:
        keys: the random stream of each replica, (replicas,) uint64.

    Raises:
        ValueError: a setting out of its range.
    """
    if not loss_delta > 0 or not learning_rate > 0 or max_iterations < 1 or check_every < 1:
        raise ValueError(
            f"loss_delta {loss_delta} and learning_rate {learning_rate} must be above 0, "
            f"max_iterations {max_iterations} and check_every {check_every} at least 1"
        )
    if not 1 <= batch_size <= len(problem.targets):
        raise ValueError(
            f"batch_size {batch_size}: the data set has {len(problem.targets)} samples"
        )
    start = np.ascontiguousarray(minimum, dtype=np.float32)

    def run(key: np.uint64) -> tuple[int, bool, float]:
        return _escape(
            problem,
            start,
            key,
            np.float32(learning_rate),
            batch_size,
            float(minimum_loss + loss_delta),
            float(minimum_loss + REPLAY_SHARE * loss_delta),
            max_iterations,
            check_every,
        )

    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(run, keys.astype(np.uint64))
        outcomes = list(track(results, "replicas", total=len(keys)))
    iterations, escaped, final_loss = (np.array(column) for column in zip(*outcomes, strict=True))
    return Escapes(iterations, escaped, escaped & ~np.isfinite(final_loss), final_loss)


# --- the landscape at one point, in float64 ------------------------------------------------------


def loss_gradient(problem: Problem, parameters: np.ndarray) -> np.ndarray:
    """Gradient of the full-data loss, flat as the parameters."""
    return _Linearisation(problem, parameters).gradient()


def hessian_top(problem: Problem, parameters: np.ndarray, *, count: int = 5) -> np.ndarray:
    """The ``count`` largest eigenvalues of the Hessian of the full-data loss, falling.

    By Lanczos on exact Hessian-vector products; the kinks of ReLU have no curvature.
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
    """The diagonal of the Hessian of the full-data loss, (parameters,), by exact products."""
    point = _Linearisation(problem, parameters)
    direction = np.zeros(len(parameters))
    diagonal = np.empty(len(parameters))
    for index in range(len(parameters)):
        direction[index] = 1
        diagonal[index] = point.hessian_product(direction)[index]
        direction[index] = 0
    return diagonal


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
