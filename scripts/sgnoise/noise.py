"""Mini-batches, and their gradient noise from the gradients of single samples.

The noise of a mini-batch is the full gradient minus the mean gradient of its samples: a linear map
of the gradients of samples, so that one set of them gives the noise at any batch size. All arrays
are (parameters, samples) or (parameters, draws).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from sgnoise import seeds

# Parameters multiplied together: of so many, the gradients of 100,000 samples fit the cache.
BLOCK = 16


def mini_batch_noise(
    gradients: ArrayLike, batch_size: int, draws: int, *, replacement: bool = False, seed: int
) -> np.ndarray:
    """The gradient noise of ``draws`` mini-batches, the same ones for every parameter.

    >>> import numpy as np
    >>> gradients = np.random.default_rng(0).standard_normal((3, 1000))
    >>> noise = mini_batch_noise(gradients, batch_size=25, draws=400, seed=1)
    >>> noise.shape
    (3, 400)
    >>> np.allclose(noise.std(axis=1), gradients.std(axis=1) / 5, rtol=0.1)
    True

    Args:
        gradients: of single samples, (parameters, samples), as
            ``sgnoise.gradients.per_sample_gradients`` returns them: an array, or a tensor on any
            device.
        batch_size: samples in a mini-batch.
        draws: mini-batches.
        replacement: draw the samples of a mini-batch independently, rather than go through the
            reshuffled data set again and again (the paper, A.2).
        seed: of the mini-batches.

    Returns:
        (parameters, draws) in double precision, in the unit of the gradients.

    Raises:
        ValueError: the gradients are no matrix, more samples in a mini-batch than there are, or no
            draws.
    """
    # A tensor on a GPU has to come to the host first.
    on_host = gradients.cpu() if hasattr(gradients, "cpu") else gradients
    values = np.asarray(on_host)
    if values.ndim != 2:
        raise ValueError(
            f"gradients has shape {values.shape}; it must be a matrix, one row a parameter and one "
            "column a sample"
        )
    if draws < 1:
        raise ValueError(f"draws is {draws}; it must be at least 1")
    samples = values.shape[1]
    _check_batch_size(batch_size, samples)
    rng = seeds.generator(seed, "mini-batches", batch_size)
    batches = mini_batches(samples, batch_size, draws, replacement=replacement, rng=rng)
    return batch_noise(values, selection_matrix(batches, samples))


def mini_batches(
    samples: int, batch_size: int, draws: int, *, replacement: bool, rng: np.random.Generator
) -> np.ndarray:
    """Sample numbers of each mini-batch, (draws, batch_size).

    Without replacement, each pass through the data set reshuffles it and leaves out the last,
    incomplete mini-batch.

    >>> import numpy as np
    >>> mini_batches(10, 4, 3, replacement=False, rng=np.random.default_rng(0)).shape
    (3, 4)
    """
    if replacement:
        return rng.integers(samples, size=(draws, batch_size))
    passes = -(-draws // (samples // batch_size))
    return np.concatenate([_one_pass(samples, batch_size, rng) for _ in range(passes)])[:draws]


def mini_batches_of_passes(
    samples: int, batch_size: int, *, passes: int, seed: int
) -> Iterator[np.ndarray]:
    """The numbers of the samples of each mini-batch, (batch_size,), of whole passes.

    Each pass through the data reshuffles it, in an order of its own, and leaves out the last,
    incomplete mini-batch.

    >>> [len(batch) for batch in mini_batches_of_passes(10, 4, passes=2, seed=0)]
    [4, 4, 4, 4]

    Raises:
        ValueError: more samples in a mini-batch than there are.
    """
    _check_batch_size(batch_size, samples)
    for number in range(passes):
        yield from _one_pass(samples, batch_size, seeds.generator(seed, "pass", number))


def _one_pass(samples: int, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """The full mini-batches of one shuffled pass through the data, (mini-batches, batch_size)."""
    count = samples // batch_size
    return rng.permutation(samples)[: count * batch_size].reshape(count, batch_size)


def _check_batch_size(batch_size: int, samples: int) -> None:
    if not 1 <= batch_size <= samples:
        raise ValueError(f"batch_size is {batch_size}; there are {samples} samples")


def selection_matrix(batches: np.ndarray, samples: int) -> sparse.csr_array:
    """The (draws, samples) matrix whose product with gradients is their mean in each mini-batch.

    >>> import numpy as np
    >>> selection_matrix(np.array([[0, 2], [1, 3]]), samples=4).toarray()
    array([[0.5, 0. , 0.5, 0. ],
           [0. , 0.5, 0. , 0.5]])

    Args:
        batches: sample numbers of each mini-batch, (draws, batch_size).
        samples: how many there are.
    """
    draws, batch_size = batches.shape
    starts = np.arange(draws + 1) * batch_size
    weights = np.full(batches.size, 1 / batch_size)
    return sparse.csr_array((weights, batches.reshape(-1), starts), shape=(draws, samples))


def batch_noise(gradients: np.ndarray, selection: sparse.csr_array) -> np.ndarray:
    """Full gradient minus the mean gradient of each mini-batch, (parameters, draws).

    In double precision: the noise of a large mini-batch is a small difference of large sums.

    >>> import numpy as np
    >>> pairs = selection_matrix(np.array([[0, 1], [2, 3]]), samples=4)
    >>> batch_noise(np.array([[1.0, 3.0, 5.0, 7.0]]), pairs)
    array([[ 2., -2.]])

    Args:
        gradients: (parameters, samples).
        selection: (draws, samples), see ``selection_matrix``.
    """
    noise = np.empty((len(gradients), selection.shape[0]))
    for first in range(0, len(gradients), BLOCK):
        rows = slice(first, first + BLOCK)
        columns = np.ascontiguousarray(gradients[rows].T, dtype=np.float64)
        noise[rows] = (columns.mean(axis=0) - selection @ columns).T
    return noise
