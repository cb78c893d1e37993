"""Gradients of sampled parameters, for each sample or for each mini-batch.

For one sample the gradient of a single weight is a product of what its layer received and of the
gradient of what it returned: x[i] g[o] in a linear layer, the sum of x[i, h + a, w + b] g[o, h, w]
over pixels in a convolution, and so on. So one forward and one backward pass through the
activations, without the gradient of any weight, give the gradient of each sampled weight for each
sample of a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from sgnoise import noise, seeds, store
from sgnoise.gradients import contractions, graph
from sgnoise.gradients.offsets import Offsets
from sgnoise.gradients.recorder import Recorder, SampledTensor

logger = logging.getLogger("sgnoise")

Loss = Callable[[Any, torch.Tensor], torch.Tensor]

STRATA = ("uniform", "per_layer")

# A layer whose gradients are this far from autograd's is not what it seems to be (a rounding error
# stays a thousand times below).
_TOLERANCE = 1e-2
# Gradients this small beside the largest are rounding errors, in autograd as well.
_FLOOR = 1e-5

# On a CPU so many samples are taken together that the largest activations have at most these bytes.
# Larger ones would leave its caches, and the memory of each would be asked from the system anew (a
# tenth of the time of a ResNet-18).
_LARGEST_ACTIVATIONS = 2**24

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class ParameterSample:
    """Single weights of a network, chosen at random.

    >>> network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> sample = sample_parameters(network, uniform=5, per_layer=2, seed=0)
    >>> len(sample), sample.values(network).shape
    (9, (9,))

    Attributes:
        frame: one row a weight, with the columns ``store.PARAMETER_COLUMNS``.
    """

    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def names(self) -> list[str]:
        """The full name, in ``model.named_parameters()``, of each weight's tensor."""
        return [
            f"{layer}.{tensor}" if layer else tensor
            for layer, tensor in zip(self.frame["layer"], self.frame["tensor"], strict=True)
        ]

    def values(self, model: nn.Module) -> np.ndarray:
        """The sampled weights themselves, float32, (parameters,)."""
        tensors, position = _sampled_tensors(model, self)
        chosen = [
            tensor.parameter.detach().reshape(-1)[tensor.offsets.on(tensor.parameter.device)].cpu()
            for tensor in tensors
        ]
        return torch.cat(chosen)[position].float().numpy()


def sample_parameters(
    model: nn.Module, *, uniform: int, per_layer: int, seed: int
) -> ParameterSample:
    """Choose trainable weights at random, without replacement, in two strata.

    The order is that of the strata, then of the layers (modules that own weights, in the order of
    their registration; shared weights count where they come first), tensors and offsets.

    >>> network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> sample = sample_parameters(network, uniform=5, per_layer=2, seed=0)
    >>> sample.frame.groupby(["stratum", "layer"]).size().loc["per_layer"].to_dict()
    {'0': 2, '2': 2}

    Args:
        model: any network.
        uniform: how many to choose uniformly from all weights.
        per_layer: how many to choose from each layer.
        seed: of the choice.

    Raises:
        ValueError: the network has no trainable weights.
    """
    layers = _layers(model)
    if not layers:
        raise ValueError("the model has no trainable parameters to sample")
    sizes = np.array([sum(p.numel() for p in layer.tensors.values()) for layer in layers])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    rng = seeds.generator(seed, "uniform")
    count = min(uniform, int(starts[-1]))
    chosen = {"uniform": rng.choice(int(starts[-1]), count, replace=False, shuffle=False)}
    chosen["per_layer"] = np.concatenate(
        [
            start
            + seeds.generator(seed, "per_layer", layer.name).choice(
                int(size), min(per_layer, int(size)), replace=False, shuffle=False
            )
            for layer, start, size in zip(layers, starts, sizes, strict=False)
        ]
    )
    frames = [_located(layers, starts, np.sort(chosen[stratum]), stratum) for stratum in STRATA]
    frame = pd.concat(frames, ignore_index=True)
    frame.insert(0, "parameter_index", np.arange(len(frame), dtype=np.int32))
    return ParameterSample(frame[list(store.PARAMETER_COLUMNS)])


def per_sample_gradients(
    model: nn.Module,
    loss: Loss,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    sample: ParameterSample,
) -> torch.Tensor:
    """The gradient of the loss of each sample with respect to each sampled weight.

    The network runs in evaluation mode. Exact up to rounding for linear, convolutional, embedding
    and normalisation layers, however often each is called; weights that are used in another way
    are differentiated by ``torch.func``, which is slower and is announced in the log.

    >>> network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> sample = sample_parameters(network, uniform=5, per_layer=2, seed=0)
    >>> inputs, targets = torch.ones(6, 3), torch.zeros(6, dtype=torch.int64)
    >>> loss = nn.functional.cross_entropy
    >>> per_sample_gradients(network, loss, inputs, targets, sample).shape
    torch.Size([9, 6])

    Args:
        model: any network whose first dimension is that of the samples.
        loss: of outputs and targets: the mean over samples, or a vector of one loss a sample.
        inputs: (samples, ...), on the device of the model.
        targets: (samples, ...).
        sample: see ``sample_parameters``.

    Returns:
        (parameters, samples), in the type of the model.

    Raises:
        ValueError: the loss is no mean over samples, a layer normalises by the statistics of the
            mini-batch even in evaluation mode, or the model changes its activations in place.
    """
    return PerSampleGradients(model, loss, sample)(inputs, targets)


def mini_batch_gradients(
    model: nn.Module,
    loss: Loss,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    sample: ParameterSample,
    *,
    batch_size: int,
    passes: int,
    batch_statistics: bool,
    seed: int,
) -> torch.Tensor:
    """The gradient of the loss of each mini-batch, over reshuffled passes through the data.

    The network runs in evaluation mode. Of losses nothing is asked: they may compare the samples of
    a mini-batch with each other.

    >>> network = nn.Linear(3, 2)
    >>> sample = sample_parameters(network, uniform=4, per_layer=0, seed=0)
    >>> inputs, targets = torch.ones(10, 3), torch.zeros(10, dtype=torch.int64)
    >>> mini_batch_gradients(network, nn.functional.cross_entropy, inputs, targets, sample,
    ...     batch_size=5, passes=3, batch_statistics=False, seed=0).shape
    torch.Size([4, 6])

    Args:
        model: any network.
        loss: of outputs and targets: a scalar.
        inputs: (samples, ...), on the device of the model.
        targets: (samples, ...).
        sample: see ``sample_parameters``.
        batch_size: samples in a mini-batch.
        passes: how many.
        batch_statistics: whether batch normalisation uses the statistics of the mini-batch, as in
            training, rather than its running ones.
        seed: of the order of the samples.

    Returns:
        (parameters, mini-batches), in the type of the model.

    Raises:
        ValueError: more samples in a mini-batch than there are.
    """
    engine = MiniBatchGradients(model, loss, sample, batch_statistics=batch_statistics)
    columns = []
    for chosen in noise.mini_batches_of_passes(len(targets), batch_size, passes=passes, seed=seed):
        batch = torch.from_numpy(chosen).to(inputs.device)
        columns.append(engine(inputs[batch], targets[batch]))
    return torch.stack(columns, dim=1)


class MiniBatchGradients:
    """``mini_batch_gradients`` for one mini-batch after another.

    >>> network = nn.Linear(3, 2)
    >>> sample = sample_parameters(network, uniform=4, per_layer=0, seed=0)
    >>> engine = MiniBatchGradients(
    ...     network, nn.functional.cross_entropy, sample, batch_statistics=False)
    >>> engine(torch.ones(5, 3), torch.zeros(5, dtype=torch.int64)).shape
    torch.Size([4])

    Args:
        model: as in ``mini_batch_gradients``.
        loss: as in ``mini_batch_gradients``.
        sample: as in ``mini_batch_gradients``.
        batch_statistics: as in ``mini_batch_gradients``.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, sample: ParameterSample, *, batch_statistics: bool
    ) -> None:
        self._model = model
        self._loss = loss
        self._tensors, self._position = _sampled_tensors(model, sample)
        self._batch_statistics = batch_statistics

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The gradient (parameters,) of one mini-batch."""
        parameters = [tensor.parameter for tensor in self._tensors]
        count = self._tensors[-1].rows.stop
        row = torch.zeros(count, dtype=parameters[0].dtype, device=inputs.device)
        with (
            _prepared(self._model, batch_statistics=self._batch_statistics),
            _differentiable(parameters),
        ):
            value = self._loss(self._model(inputs), targets)
            _fill_autograd(value, self._tensors, row)
        return row[self._position.to(row.device)]


class PerSampleGradients:
    """``per_sample_gradients`` for batch after batch; what is learnt from the first is kept.

    >>> network = nn.Linear(3, 2)
    >>> sample = sample_parameters(network, uniform=4, per_layer=0, seed=0)
    >>> engine = PerSampleGradients(network, nn.functional.cross_entropy, sample)
    >>> engine(torch.ones(5, 3), torch.zeros(5, dtype=torch.int64)).shape
    torch.Size([4, 5])
    >>> engine.fallback
    set()

    Args:
        model: as in ``per_sample_gradients``.
        loss: as in ``per_sample_gradients``.
        sample: as in ``per_sample_gradients``.

    Raises:
        ValueError: a layer that normalises by the statistics of the mini-batch in any mode.
    """

    def __init__(self, model: nn.Module, loss: Loss, sample: ParameterSample) -> None:
        for name, module in model.named_modules():
            if isinstance(module, _BATCH_NORMS) and module.running_mean is None:
                raise ValueError(
                    f"layer {name!r} ({type(module).__name__}) normalises by the statistics of the "
                    "mini-batch even in evaluation mode, so a sample has no gradient of its own; "
                    "take the gradients of mini-batches instead"
                )
        self._model = model
        self._loss = loss
        self._tensors, self._position = _sampled_tensors(model, sample)
        self._checked = False
        self._graph: graph.Graph | None = None
        self._largest = 0
        self._together: int | None = None
        self._fallback: dict[str, SampledTensor] = {}

    @property
    def fallback(self) -> set[str]:
        """The tensors that are differentiated by ``torch.func``."""
        return set(self._fallback)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._tensors[0].parameter.device

    @property
    def recorded(self) -> bool:
        """Whether the pass is repeated as a CUDA graph."""
        return self._graph is not None

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Gradients (parameters, samples) of one batch."""
        inputs = inputs.detach()
        if inputs.ndim == 4 and prefers_channels_last(inputs):
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with _prepared(self._model):
            if self._graph is not None and self._graph.fits(inputs, targets):
                rows = self._graph(inputs, targets)
            else:
                together = self._together or len(targets)
                parts = zip(inputs.split(together), targets.split(together), strict=True)
                rows = torch.cat([self._rows_of(*part) for part in parts], dim=1)
            if not self._checked:
                self._check(inputs, targets, rows)
                self._checked = True
                if inputs.is_cuda:
                    self._record(inputs, targets)
                else:
                    of_a_sample = max(1, self._largest // len(targets))
                    self._together = max(1, _LARGEST_ACTIVATIONS // of_a_sample)
            if self._fallback:
                self._transform(inputs, targets, rows)
        return rows[self._position.to(rows.device)]

    def stream(
        self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], *, together: int = 128
    ) -> Iterator[np.ndarray]:
        """Gradients (parameters, samples) of one part of the samples after another, on the host.

        Args:
            batches: inputs and targets, on any device.
            together: samples that pass through the network together at most; where the memory of a
                GPU does not hold so many, half as many go on.

        Yields:
            float32, (parameters, samples).
        """
        device = self.device
        for inputs, targets in batches:
            first = 0
            while first < len(targets):
                part = slice(first, first + together)
                try:
                    found = self(inputs[part].to(device), targets[part].to(device))
                except torch.OutOfMemoryError:
                    if together == 1:
                        raise
                    together //= 2
                    logger.warning(
                        "not enough memory on the GPU: going on with %d samples", together
                    )
                else:
                    yield found.float().cpu().numpy()
                    first = part.stop

    def _rows_of(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Gradients (distinct weights, samples) from one pass; zero where there is no rule."""
        count = self._tensors[-1].rows.stop
        dtype = self._tensors[0].parameter.dtype
        rows = torch.zeros(count, len(targets), dtype=dtype, device=inputs.device)
        self._pass_through_activations(inputs, targets, rows)
        return rows

    def _record(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Record the pass, now that it is known which weights it gives."""
        self._graph = graph.record(
            self._pass_through_activations,
            self._model,
            inputs,
            targets,
            self._rows_of(inputs, targets),
        )

    def _known(self) -> list[SampledTensor]:
        """The tensors whose gradients come from the pass through the activations."""
        return [tensor for tensor in self._tensors if tensor.name not in self._fallback]

    def _fall_back(self, tensor: SampledTensor, reason: str) -> None:
        if tensor.name not in self._fallback:
            logger.warning("%s: differentiated by vmap(grad), slower: %s", tensor.name, reason)
            self._fallback[tensor.name] = tensor

    def _pass_through_activations(
        self, inputs: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor
    ) -> None:
        """Add all that the rules give to ``rows``."""
        recorder = Recorder(self._known(), rows, self._fall_back)
        with recorder:
            outputs = self._model(inputs)
        self._largest = recorder.largest
        value = self._loss(outputs, targets)
        if not self._checked:
            self._check_mean(outputs, targets, value)
        total = value.sum() if value.ndim else value * len(targets)
        if total.requires_grad:
            total.backward()

    def _check_mean(self, outputs: Any, targets: torch.Tensor, value: torch.Tensor) -> None:
        """Raise a ValueError if the loss of a batch is not the mean over its halves."""
        if value.ndim or not isinstance(outputs, torch.Tensor) or len(targets) < 2:
            return
        half = len(targets) // 2
        with torch.no_grad():
            parts = torch.stack(
                [
                    self._loss(outputs[rows], targets[rows]) * len(targets[rows])
                    for rows in (slice(half), slice(half, None))
                ]
            )
        error = (parts.sum() - value.detach() * len(targets)).abs()
        if error > 1e-3 * parts.abs().sum():
            raise ValueError(
                "the loss of a batch is not the mean of the losses of its samples, so these have "
                "no gradients of their own; take the gradients of mini-batches instead"
            )

    def _check(self, inputs: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor) -> None:
        """Compare two samples with autograd; what differs is left to ``torch.func``.

        This finds weights that are used where no function of torch sees them, and activations whose
        first dimension has the right size but is not that of the samples.
        """
        tensors = self._known()
        if not tensors:
            return
        largest = int(rows.square().sum(dim=0).argmax())
        chosen = torch.tensor([0, largest], device=inputs.device)
        with _differentiable([tensor.parameter for tensor in tensors]):
            value = self._loss(self._model(inputs[chosen]), targets[chosen]).mean()
            expected = torch.zeros_like(rows[:, 0])
            _fill_autograd(value, tensors, expected)
        found = rows[:, chosen].mean(dim=1)
        floor = _FLOOR * expected.abs().max()
        wrong: set[str] = set()
        for tensor in tensors:
            true = expected[tensor.rows]
            error = (found[tensor.rows] - true).abs().max()
            if not error <= _TOLERANCE * true.abs().max() + floor:
                wrong.add(tensor.layer)
        for tensor in tensors:
            if tensor.layer in wrong:
                self._fall_back(tensor, "its layer is used in a way that the rules do not know")

    def _transform(self, inputs: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor) -> None:
        """Fill in the rows of the tensors that have no rule."""
        tensors = list(self._fallback.values())

        def sample_loss(
            weights: dict[str, torch.Tensor], sample: torch.Tensor, target: torch.Tensor
        ) -> torch.Tensor:
            outputs = torch.func.functional_call(self._model, weights, (sample[None],))
            return self._loss(outputs, target[None]).sum()

        weights = {tensor.name: tensor.parameter.detach() for tensor in tensors}
        largest = sum(weight.numel() for weight in weights.values())
        gradients = torch.func.vmap(torch.func.grad(sample_loss), in_dims=(None, 0, 0))
        step = max(1, contractions.CHUNK_NUMBERS // largest)
        for first in range(0, len(targets), step):
            part = slice(first, first + step)
            found = gradients(weights, inputs[part], targets[part])
            for tensor in tensors:
                offsets = tensor.offsets.on(rows.device)
                rows[tensor.rows, part] = found[tensor.name].flatten(1)[:, offsets].T


class _Layer(NamedTuple):
    """A module that owns weights."""

    name: str
    type_name: str
    tensors: dict[str, nn.Parameter]


def _layers(model: nn.Module) -> list[_Layer]:
    """The modules that own trainable weights, nearest the input first; shared ones count once."""
    seen: set[int] = set()
    layers = []
    for name, module in model.named_modules():
        own = {
            key: parameter
            for key, parameter in module.named_parameters(recurse=False)
            if parameter.requires_grad and id(parameter) not in seen
        }
        seen.update(map(id, own.values()))
        if own:
            layers.append(_Layer(name, type(module).__name__, own))
    return layers


def _located(
    layers: list[_Layer], starts: np.ndarray, chosen: np.ndarray, stratum: str
) -> pd.DataFrame:
    """The rows of the weights with these numbers, sorted, counted through all layers."""
    parts = []
    for index, layer in enumerate(layers):
        start = int(starts[index])
        for tensor, parameter in layer.tensors.items():
            stop = start + parameter.numel()
            first, last = np.searchsorted(chosen, [start, stop])
            parts.append(
                pd.DataFrame(
                    {
                        "layer": layer.name,
                        "layer_index": np.int16(index),
                        "layer_type": layer.type_name,
                        "tensor": tensor,
                        "offset": chosen[first:last] - start,
                        "stratum": stratum,
                    }
                )
            )
            start = stop
    return pd.concat(parts, ignore_index=True)


def _sampled_tensors(
    model: nn.Module, sample: ParameterSample
) -> tuple[list[SampledTensor], torch.Tensor]:
    """The sampled weights by tensor, and the row of each sampled weight among the distinct ones."""
    parameters = dict(model.named_parameters())
    names = pd.Series(sample.names)
    offsets = sample.frame["offset"].to_numpy()
    position = np.empty(len(sample), dtype=np.int64)
    tensors = []
    start = 0
    for name, members in names.groupby(names, sort=False).indices.items():
        if name not in parameters:
            raise ValueError(f"the model has no parameter {name!r}; the sample is of another one")
        distinct, copies = np.unique(offsets[members], return_inverse=True)
        rows = slice(start, start + len(distinct))
        position[members] = start + copies
        parameter = parameters[str(name)]
        if distinct[-1] >= parameter.numel():
            raise ValueError(f"{name!r} has {parameter.numel()} weights; the sample has more")
        tensors.append(SampledTensor(str(name), parameter, Offsets(distinct), rows))
        start = rows.stop
    if not tensors:
        raise ValueError("the sample of parameters is empty")
    return tensors, torch.from_numpy(position)


def prefers_channels_last(inputs: torch.Tensor) -> bool:
    """Whether convolutions are faster in this order; the numbers do not change.

    On an NVIDIA GPU they are with tensor cores alone, which do not compute in full float32.
    """
    tf32 = inputs.dtype == torch.float32 and torch.backends.cudnn.allow_tf32
    return not inputs.is_cuda or tf32 or inputs.dtype in (torch.float16, torch.bfloat16)


@contextmanager
def _prepared(model: nn.Module, *, batch_statistics: bool = False) -> Iterator[None]:
    """Evaluation mode and no gradients of weights for the block; then all as it was before."""
    modes = {module: module.training for module in model.modules()}
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if batch_statistics else []
    try:
        model.eval().requires_grad_(False)
        for module in modes:
            if batch_statistics and isinstance(module, _BATCH_NORMS):
                module.train()
        with torch.enable_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, wanted in trainable.items():
            parameter.requires_grad_(wanted)
        for buffer, before in buffers:
            buffer.copy_(before)


@contextmanager
def _differentiable(parameters: list[nn.Parameter]) -> Iterator[None]:
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)


def _fill_autograd(value: torch.Tensor, tensors: list[SampledTensor], row: torch.Tensor) -> None:
    """Write the gradient of ``value`` with respect to each distinct sampled weight to ``row``."""
    found = torch.autograd.grad(value, [tensor.parameter for tensor in tensors], allow_unused=True)
    for tensor, gradient in zip(tensors, found, strict=True):
        if gradient is not None:
            row[tensor.rows] = gradient.reshape(-1)[tensor.offsets.on(row.device)]
