"""The gradient noise of a network: measured once, or again and again while it trains."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from itertools import islice
from numbers import Integral
from typing import Any

import numba
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from sgnoise import devices, fitting, gradients, noise, seeds
from sgnoise.comparison import compare_laws
from sgnoise.laws import LAWS
from sgnoise.messages import unknown_name
from sgnoise.progress import track

Loss = Callable[[Any, Any], torch.Tensor]

# Samples that are read, and that pass through the network, together.
CHUNK = 128
# Parameters whose gradients are brought together at a time.
BLOCK = 512

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def measure(
    model: nn.Module,
    loss: Loss,
    data: Any,
    batch_sizes: Sequence[int] = (32, 128),
    *,
    uniform: int = 1000,
    per_layer: int = 20,
    laws: Sequence[str] = ("gaussian", "stable", "student_t"),
    draws: int = 1000,
    replacement: bool = False,
    samples: int | None = None,
    bins: int = 100,
    span: str | float = "full",
    scaling: str = "mass",
    held_out_fraction: float = 0.5,
    seed: int = 0,
    threads: int | None = None,
) -> pd.DataFrame:
    """Fit laws to the gradient noise of single weights of a network, at its present weights.

    What the workflow does in four steps, with the same numbers for the same seed: choose weights,
    take their gradient for each sample, draw mini-batches, fit. The network runs in evaluation
    mode on the device where it is, and is left as it was, as are all random states.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> data = torch.randn(300, 4), torch.randint(3, (300,))
    >>> table = measure(model, nn.functional.cross_entropy, data, [16], uniform=10, per_layer=0)
    >>> list(table.columns[:4]), len(table)
    (['parameter_index', 'layer', 'layer_index', 'layer_type'], 30)

    Memory: 4 bytes a sampled weight and sample for the gradients (1,000 weights and 50,000 samples:
    200 MB), as many a weight and draw for the noise, and what one pass of 128 samples takes.

    Args:
        model: any network whose first dimension is that of the samples.
        loss: of outputs and targets: the mean over samples, or a vector of one loss a sample.
        data: a DataLoader or another iterable of batches (inputs, targets), which is gone through
            once, as it comes; a Dataset of such pairs, streamed or not; or the two as tensors or
            arrays.
        batch_sizes: samples in a mini-batch.
        uniform: weights chosen from the whole network.
        per_layer: weights chosen from each layer.
        laws: names in ``sgnoise.laws.LAWS``.
        draws: mini-batches behind a fit.
        replacement: draw the samples of a mini-batch independently, rather than go through the
            reshuffled data again and again.
        samples: use the first so many samples of the data; None: all.
        bins: see ``sgnoise.goodness.histogram``.
        span: likewise.
        scaling: see ``sgnoise.goodness.sum_of_squared_errors``.
        held_out_fraction: part of the draws that the held-out likelihood does not fit.
        seed: of the choice of weights and of the mini-batches.
        threads: of the CPU, for the fits; None: one for each core.

    Returns:
        one row a weight, batch size and law: which weight (``parameter_index`` to ``stratum``),
        ``batch_size``, ``law``, its parameters with standard errors (NaN where the law has none of
        that name), likelihoods, ``sse``, ``ks`` and ``flag``, as in the workflow's fits.

    Raises:
        TypeError: the network, the loss or the data are none.
        ValueError: more samples in a mini-batch than there are, an unknown law, a number out of
            range, or a network or a loss without gradients of single samples (see
            ``sgnoise.gradients``).
    """
    _check_network(model, loss)
    _check_numbers(uniform=uniform, per_layer=per_layer, draws=draws, samples=samples, seed=seed)
    batch_sizes = _listed("batch_sizes", batch_sizes, [32, 128])
    laws = _listed("laws", laws, ["gaussian", "stable"])
    for law in laws:
        if law not in LAWS:
            raise unknown_name("law", law, LAWS)
    model = _uncompiled(model)
    chosen = gradients.sample_parameters(
        model, uniform=uniform, per_layer=per_layer, seed=seeds.integer_seed(seed, "sample")
    )
    with _undisturbed(data):
        engine = gradients.PerSampleGradients(model, loss, chosen)
        batches = track(_batches(data, samples), "batches of samples", _batch_count(data, samples))
        parts = _gradients(engine, batches, chosen, batch_sizes)
    tables = []
    for batch_size in batch_sizes:
        drawn = _noise(parts, batch_size, draws, replacement=replacement, seed=seed)
        table = compare_laws(
            chosen.frame,
            drawn,
            laws,
            bins=bins,
            span=span,
            scaling=scaling,
            held_out_fraction=held_out_fraction,
            threads=numba.config.NUMBA_NUM_THREADS if threads is None else threads,
        )
        table.insert(len(chosen.frame.columns), "batch_size", batch_size)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


class Probe:
    """alpha of the gradient noise over the course of one's own training.

        probe = Probe(model, loss, data, every=100)
        for inputs, targets in loader:
            ...  # one's own step
            probe.step()
        probe.frame()

    The data are read once, when the probe is made, and kept on the host, and the mini-batches are
    the same each time, so that what changes is the network. Weights, buffers, gradients, modes,
    ``requires_grad`` and all random states are left bit for bit as they were: training gives the
    same weights with a probe and without.

    >>> model = nn.Linear(4, 3)
    >>> data = torch.randn(200, 4), torch.randint(3, (200,))
    >>> probe = Probe(model, nn.functional.cross_entropy, data, every=2, batch_size=16)
    >>> for _ in range(4):
    ...     probe.step()
    >>> probe.frame()["step"].unique()
    array([2, 4])

    Args:
        model: as for ``measure``, like the others.
        loss: likewise.
        data: likewise.
        every: measure at each step that this divides.
        batch_size: samples in a mini-batch.
        uniform: weights chosen from the whole network.
        per_layer: weights chosen from each layer.
        draws: mini-batches behind a fit.
        samples: use the first so many samples of the data; None: all.
        seed: of the choice of weights and of the mini-batches.
        threads: of the CPU, for the fits; None: one for each core.

    Raises:
        TypeError: as ``measure``.
        ValueError: as ``measure``, or ``every`` is below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: Any,
        *,
        every: int = 1,
        batch_size: int = 32,
        uniform: int = 200,
        per_layer: int = 20,
        draws: int = 1000,
        samples: int | None = None,
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every is {every}; it must be at least 1")
        _check_network(model, loss)
        _check_numbers(
            uniform=uniform, per_layer=per_layer, draws=draws, samples=samples, seed=seed
        )
        model = _uncompiled(model)
        self._model, self._loss = model, loss
        self._every, self._batch_size, self._draws = every, batch_size, draws
        self._seed, self._threads = seed, threads
        self._sample = gradients.sample_parameters(
            model, uniform=uniform, per_layer=per_layer, seed=seeds.integer_seed(seed, "sample")
        )
        with _undisturbed(data):
            self._data = [
                (inputs.detach().cpu().clone(), targets.detach().cpu().clone())
                for inputs, targets in _batches(data, samples)
            ]
        count = sum(len(targets) for _, targets in self._data)
        if not 1 <= batch_size <= count:
            raise ValueError(f"batch_size is {batch_size}; there are {count} samples")
        self._engine: gradients.PerSampleGradients | None = None
        self._pointers: list[int] = []
        self._steps = 0
        self._tables: list[pd.DataFrame] = []

    def step(self) -> None:
        """Count a step of the training, and measure if ``every`` divides its number."""
        self._steps += 1
        self(self._steps)

    def __call__(self, step: int) -> None:
        """Measure, if ``every`` divides ``step``; ``probe(0)`` is the start of the training."""
        if step % self._every:
            return
        with _undisturbed(self._data):
            # What the engine has recorded holds for weights in the memory where they were.
            pointers = [parameter.data_ptr() for parameter in self._model.parameters()]
            if self._engine is None or pointers != self._pointers:
                self._engine = gradients.PerSampleGradients(self._model, self._loss, self._sample)
                self._pointers = pointers
            parts = _gradients(self._engine, iter(self._data), self._sample, [self._batch_size])
        drawn = _noise(parts, self._batch_size, self._draws, replacement=False, seed=self._seed)
        fit = fitting.fit_stable(drawn, location=0.0, nan_policy="flag", threads=self._threads)
        table = pd.concat([self._sample.frame, fit.to_frame().drop(columns="law")], axis=1)
        table.insert(0, "step", step)
        self._tables.append(table)

    def frame(self) -> pd.DataFrame:
        """The fits of the SαS law, one row a step and weight: ``step``, which weight, the fit.

        Raises:
            ValueError: nothing was measured yet.
        """
        if not self._tables:
            raise ValueError(
                f"nothing was measured yet: call step() after each step of the training (the probe "
                f"looks at every {self._every}), or probe(0) before the first"
            )
        return pd.concat(self._tables, ignore_index=True)

    def layers(self) -> pd.DataFrame:
        """alpha by layer and step: fits in use ``n``, and ``alpha_mean``, ``alpha_median``.

        Of the weights chosen from each layer, or, where there are none, of the others.
        """
        table = self.frame()
        strata = set(table["stratum"])
        table = table[table["stratum"] == ("per_layer" if "per_layer" in strata else "uniform")]
        grouped = table.groupby(["step", "layer_index", "layer"])["alpha"]
        summary = grouped.agg(n="count", alpha_mean="mean", alpha_median="median")
        return summary.reset_index()


def _check_network(model: nn.Module, loss: Loss) -> None:
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {_type(model)}"
        raise TypeError(f"model is {what}; it must be a network, an object of torch.nn.Module")
    if isinstance(loss, type):
        raise TypeError(f"loss is the class {loss.__name__}; give {loss.__name__}()")
    if not callable(loss):
        raise TypeError(
            f"loss is a {_type(loss)}; it must be a function of outputs and targets, such as "
            "torch.nn.functional.cross_entropy"
        )


def _check_numbers(
    *, uniform: int, per_layer: int, draws: int, samples: int | None, seed: int
) -> None:
    """Before the gradients, which take time."""
    for name, value, least in (
        ("uniform", uniform, 0),
        ("per_layer", per_layer, 0),
        ("draws", draws, 1),
        ("samples", samples, 1),
        ("seed", seed, 0),
    ):
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    if uniform == per_layer == 0:
        raise ValueError("uniform and per_layer are 0, so that no weight is chosen; raise one")


def _listed(name: str, values: Any, example: list[Any]) -> list[Any]:
    """The values of a list, of which there is one at least, and none twice."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} is {values!r}; it must be a list, such as {example}")
    values = list(values)
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{name} is {values}; it must name one at least, and none twice")
    kind = type(example[0])
    for value in values:
        if not isinstance(value, kind if kind is str else Integral):
            raise TypeError(f"{name} has {value!r}, a {_type(value)}; it must be as in {example}")
    return values


def _uncompiled(model: nn.Module) -> nn.Module:
    """The network that ``torch.compile`` was given: it has the same weights."""
    return getattr(model, "_orig_mod", model)


def _type(value: Any) -> str:
    return type(value).__name__


def _gradients(
    engine: gradients.PerSampleGradients,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    sample: gradients.ParameterSample,
    batch_sizes: Sequence[int],
) -> list[np.ndarray]:
    """Gradients (parameters, samples) in parts, one after another in the order of the samples."""
    # Of a sample's gradient TF32 leaves one digit: rounding decides which ReLU is open. And where a
    # training uses mixed precision, its gradients are not measured in it.
    with devices.full_precision(), torch.autocast(engine.device.type, enabled=False):
        parts = list(engine.stream(batches, together=CHUNK))
    count = sum(part.shape[1] for part in parts)
    for batch_size in batch_sizes:
        if not 1 <= batch_size <= count:
            raise ValueError(f"batch_size is {batch_size}; there are {count} samples")
    return parts


def _noise(
    parts: list[np.ndarray], batch_size: int, draws: int, *, replacement: bool, seed: int
) -> np.ndarray:
    """Noise (parameters, draws), float32, as the workflow keeps it."""
    count = len(parts[0])
    drawn = np.empty((count, draws), np.float32)
    for first in range(0, count, BLOCK):
        rows = slice(first, first + BLOCK)
        together = np.concatenate([part[rows] for part in parts], axis=1)
        drawn[rows] = noise.mini_batch_noise(
            together, batch_size, draws, replacement=replacement, seed=seed
        )
    return drawn


def _batches(data: Any, samples: int | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The samples as they come, at most so many: inputs and targets of at most ``CHUNK`` each."""
    left = samples
    for batch in _pairs(data):
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            parts = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
            raise TypeError(
                f"a batch of the data is a {_type(batch)}{parts}; it must be a pair: inputs and "
                "targets"
            )
        inputs, targets = (torch.as_tensor(part) for part in batch)
        if not (inputs.ndim and targets.ndim):
            raise TypeError(
                "the data give single samples and not batches; give the Dataset itself, or a "
                "DataLoader with a batch_size"
            )
        if len(inputs) != len(targets):
            raise ValueError(f"there are {len(inputs)} inputs, but {len(targets)} targets")
        if left is not None:
            inputs, targets = inputs[:left], targets[:left]
            left -= len(targets)
        for first in range(0, len(targets), CHUNK):
            yield inputs[first : first + CHUNK], targets[first : first + CHUNK]
        if left == 0:
            return


def _batch_count(data: Any, samples: int | None) -> int | None:
    """How many there are in ``_batches``, where the data are two tensors or arrays; or None."""
    if samples is not None or not _is_pair_of_arrays(data):
        return None
    return -(-len(data[0]) // CHUNK)


def _is_pair_of_arrays(data: Any) -> bool:
    return (
        isinstance(data, tuple | list)
        and len(data) == 2
        and all(isinstance(part, torch.Tensor | np.ndarray) for part in data)
    )


def _pairs(data: Any) -> Iterator[Any]:
    if isinstance(data, DataLoader):
        yield from data
    elif isinstance(data, Dataset):
        if isinstance(data, Sized) and not isinstance(data, IterableDataset):
            single: Iterator[Any] = (data[number] for number in range(len(data)))
        else:
            single = iter(data)
        while chunk := list(islice(single, CHUNK)):
            yield default_collate(chunk)
    elif _is_pair_of_arrays(data):
        yield data
    elif isinstance(data, Iterable) and not isinstance(data, str | Mapping | torch.Tensor):
        yield from data
    else:
        raise TypeError(
            f"data is of type {_type(data)}; it must be a DataLoader, a Dataset, or inputs "
            "and targets as tensors or arrays"
        )


@contextmanager
def _undisturbed(data: Any) -> Iterator[None]:
    """Random states as they were, after the block.

    Those of Python, NumPy and torch on every device, and of the generators of a DataLoader.
    """
    owners = [data, getattr(data, "sampler", None), getattr(data, "batch_sampler", None)]
    owners.append(getattr(owners[-1], "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    generators = [each for each in found if isinstance(each, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    devices_in_use = list(range(torch.cuda.device_count())) if on_gpu else []
    try:
        with torch.random.fork_rng(devices=devices_in_use):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
