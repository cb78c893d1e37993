"""Gradients of sampled parameters, for each sample or for each mini-batch.

For one sample the gradient of a single weight is a product of what its layer received and of the
gradient of what it returned: x[i] g[o] in a linear layer, the sum of x[i, h + a, w + b] g[o, h, w]
over pixels in a convolution, and so on. So one forward and one backward pass through the
activations, without the gradient of any weight, give the gradient of each sampled weight for each
sample of a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numba
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from sgnoise import seeds, store

logger = logging.getLogger("sgnoise")

Loss = Callable[[Any, torch.Tensor], torch.Tensor]

STRATA = ("uniform", "per_layer")

# A layer whose gradients are this far from autograd's is not what it seems to be (a rounding error
# stays a thousand times below).
_TOLERANCE = 1e-2
# Gradients this small beside the largest are rounding errors, in autograd as well.
_FLOOR = 1e-5
# Numbers held at once when products are formed on a GPU.
_CHUNK_NUMBERS = 2**26


@dataclass(frozen=True)
class ParameterSample:
    """Single weights of a network, chosen at random.

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
            tensor.parameter.detach().cpu().reshape(-1)[torch.from_numpy(tensor.offsets)]
            for tensor in tensors
        ]
        return torch.cat(chosen)[position].float().numpy()


def sample_parameters(
    model: nn.Module, *, uniform: int, per_layer: int, seed: int
) -> ParameterSample:
    """Choose trainable weights at random, without replacement, in two strata.

    The order is that of the strata, then of the layers (modules that own weights, in the order of
    their registration; shared weights count where they come first), tensors and offsets.

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

    Args:
        model: any network whose first dimension is that of the samples.
        loss: of outputs and targets: the mean over samples, or a vector of one loss a sample.
        inputs: (samples, ...), on the device of the model.
        targets: (samples, ...).
        sample: see ``sample_parameters``.

    Returns:
        (samples, parameters), in the type of the model.

    Raises:
        ValueError: the loss is no mean over samples, a layer normalises by the statistics of the
            mini-batch even in evaluation mode, or the model changes its activations in place.
    """
    return PerSampleGradients(model, loss, sample)(inputs, targets).T


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

    Each pass leaves out the last, incomplete mini-batch. The network runs in evaluation mode.

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
        (mini-batches, parameters), in the type of the model.

    Raises:
        ValueError: more samples in a mini-batch than there are.
    """
    samples = len(targets)
    if not 1 <= batch_size <= samples:
        raise ValueError(f"batch_size is {batch_size}; there are {samples} samples")
    tensors, position = _sampled_tensors(model, sample)
    rows: list[torch.Tensor] = []
    with (
        _prepared(model, batch_statistics=batch_statistics),
        _differentiable([tensor.parameter for tensor in tensors]),
    ):
        for number in range(passes):
            order = torch.from_numpy(seeds.generator(seed, "pass", number).permutation(samples))
            for chosen in order.to(inputs.device).split(batch_size):
                if len(chosen) == batch_size:
                    row = torch.zeros(
                        tensors[-1].rows.stop,
                        dtype=tensors[0].parameter.dtype,
                        device=inputs.device,
                    )
                    _fill_autograd(loss(model(inputs[chosen]), targets[chosen]), tensors, row)
                    rows.append(row)
    return torch.stack(rows)[:, position.to(inputs.device)]


class PerSampleGradients:
    """``per_sample_gradients`` for batch after batch; what is learnt from the first is kept.

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
        self._fallback: set[str] = set()
        for tensor in self._tensors:
            for use in tensor.uses:
                if type(use.module) not in _RULES:
                    self._fall_back(tensor, f"no rule for {type(use.module).__name__}")

    @property
    def fallback(self) -> set[str]:
        """The tensors that are differentiated by ``torch.func``."""
        return set(self._fallback)

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Gradients (parameters, samples) of one batch."""
        inputs = inputs.detach()
        count = self._tensors[-1].rows.stop
        rows = torch.zeros(count, len(targets), dtype=self._dtype, device=inputs.device)
        with _prepared(self._model):
            while not self._pass_through_activations(inputs, targets, rows):
                rows.zero_()
            if not self._checked:
                self._check(inputs, targets, rows)
                self._checked = True
            if self._fallback:
                self._transform(inputs, targets, rows)
        return rows[self._position.to(rows.device)]

    @property
    def _dtype(self) -> torch.dtype:
        return self._tensors[0].parameter.dtype

    def _fall_back(self, tensor: _Tensor, reason: str) -> None:
        if tensor.name not in self._fallback:
            logger.warning("%s: differentiated by vmap(grad), slower: %s", tensor.name, reason)
            self._fallback.add(tensor.name)

    def _pass_through_activations(
        self, inputs: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor
    ) -> bool:
        """Add all that the rules give to ``rows``; False if a layer turned out to have no rule."""
        by_module: dict[nn.Module, list[tuple[_Tensor, _Use]]] = {}
        for tensor in self._tensors:
            if tensor.name not in self._fallback:
                for use in tensor.uses:
                    by_module.setdefault(use.module, []).append((tensor, use))
        # The graph of the backward pass starts where a sampled layer first returns something.
        anchor = torch.zeros((), dtype=self._dtype, device=inputs.device, requires_grad=True)

        def capture(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
        ) -> torch.Tensor:
            received = args[0] if args else kwargs["input"]
            if len(received) != len(inputs) or len(output) != len(inputs):
                raise _NotBySampleError(module)
            if not output.requires_grad:
                output = output + anchor
            # Popped when used, so that an activation is freed as the backward pass leaves it.
            held = [(received, received._version)]

            def collect(gradient: torch.Tensor) -> None:
                received, version = held.pop()
                for tensor, use in by_module[module]:
                    if received._version != version and use.tensor_name != "bias":
                        raise ValueError(
                            f"{tensor.name}: the input of its layer is changed in place later on"
                        )
                    rule = _RULES[type(module)]
                    rule(use, tensor.offsets, received.detach(), gradient, rows[tensor.rows])

            if output.requires_grad:
                output.register_hook(collect)
            return output

        hooks = [module.register_forward_hook(capture, with_kwargs=True) for module in by_module]
        try:
            outputs = self._model(inputs)
        except _NotBySampleError as error:
            for tensor, use in by_module[error.module]:
                name = type(use.module).__name__
                self._fall_back(tensor, f"{name} whose first dimension is not that of the samples")
            return False
        finally:
            for hook in hooks:
                hook.remove()
        value = self._loss(outputs, targets)
        if not self._checked:
            self._check_mean(outputs, targets, value)
        total = value.sum() if value.ndim else value * len(targets)
        if total.requires_grad:
            total.backward()
        return True

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

        This finds weights that are used other than through their own layer, and layers whose first
        dimension has the right size but is not that of the samples.
        """
        largest = int(rows.square().sum(dim=0).argmax())
        chosen = torch.tensor([0, largest], device=inputs.device)
        tensors = [tensor for tensor in self._tensors if tensor.name not in self._fallback]
        with _differentiable([tensor.parameter for tensor in tensors]):
            value = self._loss(self._model(inputs[chosen]), targets[chosen]).mean()
            expected = torch.zeros_like(rows[:, 0])
            _fill_autograd(value, tensors, expected)
        found = rows[:, chosen].mean(dim=1)
        floor = _FLOOR * expected.abs().max()
        wrong: set[nn.Module] = set()
        for tensor in tensors:
            true = expected[tensor.rows]
            error = (found[tensor.rows] - true).abs().max()
            if error > _TOLERANCE * true.abs().max() + floor:
                wrong.update(use.module for use in tensor.uses)
        for tensor in tensors:
            if any(use.module in wrong for use in tensor.uses):
                self._fall_back(tensor, "its layer is used in a way that the rules do not know")

    def _transform(self, inputs: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor) -> None:
        """Fill in the rows of the tensors that have no rule."""
        tensors = [tensor for tensor in self._tensors if tensor.name in self._fallback]

        def sample_loss(
            weights: dict[str, torch.Tensor], sample: torch.Tensor, target: torch.Tensor
        ) -> torch.Tensor:
            outputs = torch.func.functional_call(self._model, weights, (sample[None],))
            return self._loss(outputs, target[None]).sum()

        weights = {tensor.name: tensor.parameter.detach() for tensor in tensors}
        largest = sum(weight.numel() for weight in weights.values())
        gradients = torch.func.vmap(torch.func.grad(sample_loss), in_dims=(None, 0, 0))
        step = max(1, _CHUNK_NUMBERS // largest)
        for first in range(0, len(targets), step):
            part = slice(first, first + step)
            found = gradients(weights, inputs[part], targets[part])
            for tensor in tensors:
                offsets = torch.from_numpy(tensor.offsets).to(rows.device)
                rows[tensor.rows, part] = found[tensor.name].flatten(1)[:, offsets].T


class _NotBySampleError(Exception):
    """A layer whose inputs or outputs do not have the samples as their first dimension."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class _Layer(NamedTuple):
    """A module that owns weights."""

    name: str
    type_name: str
    tensors: dict[str, nn.Parameter]


class _Use(NamedTuple):
    """A place where a tensor of weights is used."""

    module: nn.Module
    tensor_name: str


@dataclass(frozen=True)
class _Tensor:
    """The sampled weights of one tensor, each of them once.

    Attributes:
        name: in ``model.named_parameters()``.
        parameter: the tensor.
        uses: the modules that own it; more than one if it is shared.
        offsets: of the weights, sorted, int64.
        rows: their places among all distinct sampled weights.
    """

    name: str
    parameter: nn.Parameter
    uses: list[_Use]
    offsets: np.ndarray
    rows: slice


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
) -> tuple[list[_Tensor], torch.Tensor]:
    """The sampled weights by tensor, and the row of each sampled weight among the distinct ones."""
    uses: dict[int, list[_Use]] = {}
    for module in model.modules():
        for key, parameter in module.named_parameters(recurse=False):
            uses.setdefault(id(parameter), []).append(_Use(module, key))
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
        tensors.append(_Tensor(str(name), parameter, uses[id(parameter)], distinct, rows))
        start = rows.stop
    if not tensors:
        raise ValueError("the sample of parameters is empty")
    return tensors, torch.from_numpy(position)


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


def _fill_autograd(value: torch.Tensor, tensors: list[_Tensor], row: torch.Tensor) -> None:
    """Write the gradient of ``value`` with respect to each distinct sampled weight to ``row``."""
    found = torch.autograd.grad(value, [tensor.parameter for tensor in tensors], allow_unused=True)
    for tensor, gradient in zip(tensors, found, strict=True):
        if gradient is not None:
            offsets = torch.from_numpy(tensor.offsets).to(row.device)
            row[tensor.rows] = gradient.reshape(-1)[offsets]


# Rules: each adds, for the weights of one tensor at these offsets, the gradient of every sample.
# Arguments: the use, the offsets (k,), what the layer received, the gradient of what it returned,
# and the rows (k, samples) to add to.


def _linear(
    use: _Use, offsets: np.ndarray, x: torch.Tensor, g: torch.Tensor, rows: torch.Tensor
) -> None:
    g = g.reshape(len(g), -1, g.shape[-1]).transpose(1, 2)
    if use.tensor_name == "bias":
        _add_sums(rows, g, offsets)
        return
    x = x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2)
    outputs, inputs = np.divmod(offsets, x.shape[1])
    _add_products(rows, x, g, inputs, outputs)


def _convolution(
    use: _Use, offsets: np.ndarray, x: torch.Tensor, g: torch.Tensor, rows: torch.Tensor
) -> None:
    module: Any = use.module
    if use.tensor_name == "bias":
        _add_sums(rows, g.flatten(2), offsets)
        return
    geometry: tuple[Any, ...] = (module.stride, module.padding, module.dilation)
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)
        geometry = (module.stride, (0,) * len(module.stride), module.dilation)
    shape = module.weight.shape
    if x.ndim == 3:
        x, g = x[:, :, None], g[:, :, None]
        shape = (*shape[:2], 1, shape[2])
        geometry = tuple(
            (neutral, *size) for neutral, size in zip((1, 0, 1), geometry, strict=True)
        )
    outputs, inputs, down, right = np.unravel_index(offsets, shape)
    group = outputs // (shape[0] // module.groups)
    _add_convolutions(rows, x, g, group * shape[1] + inputs, outputs, down, right, geometry)


def _batch_norm(
    use: _Use, offsets: np.ndarray, x: torch.Tensor, g: torch.Tensor, rows: torch.Tensor
) -> None:
    module: Any = use.module
    g = g.reshape(*g.shape[:2], -1)
    if use.tensor_name == "bias":
        _add_sums(rows, g, offsets)
        return
    scale = (module.running_var + module.eps).rsqrt()
    _add_products(
        rows, x.reshape(g.shape), g, offsets, offsets, shift=module.running_mean, scale=scale
    )


def _layer_norm(
    use: _Use, offsets: np.ndarray, x: torch.Tensor, g: torch.Tensor, rows: torch.Tensor
) -> None:
    module: Any = use.module
    size = int(np.prod(module.normalized_shape))
    g = g.reshape(len(g), -1, size).transpose(1, 2)
    if use.tensor_name == "bias":
        _add_sums(rows, g, offsets)
        return
    if isinstance(module, nn.RMSNorm):
        normal = functional.rms_norm(x, module.normalized_shape, eps=module.eps)
    else:
        normal = functional.layer_norm(x, module.normalized_shape, eps=module.eps)
    normal = normal.reshape(len(g), -1, size).transpose(1, 2)
    _add_products(rows, normal, g, offsets, offsets)


def _group_norm(
    use: _Use, offsets: np.ndarray, x: torch.Tensor, g: torch.Tensor, rows: torch.Tensor
) -> None:
    module: Any = use.module
    g = g.reshape(*g.shape[:2], -1)
    if use.tensor_name == "bias":
        _add_sums(rows, g, offsets)
        return
    normal = functional.group_norm(x, module.num_groups, eps=module.eps)
    _add_products(rows, normal.reshape(g.shape), g, offsets, offsets)


def _embedding(
    use: _Use, offsets: np.ndarray, x: torch.Tensor, g: torch.Tensor, rows: torch.Tensor
) -> None:
    module: Any = use.module
    x = x.reshape(len(x), -1)
    g = g.reshape(len(g), x.shape[1], -1).transpose(1, 2)
    entries, features = np.divmod(offsets, g.shape[1])
    # Most entries of a vocabulary do not occur in a batch.
    wanted = np.unique(entries)
    wanted = wanted[np.isin(wanted, x.unique().cpu().numpy()) & (wanted != module.padding_idx)]
    step = max(1, _CHUNK_NUMBERS // x.numel())
    for first in range(0, len(wanted), step):
        present = wanted[first : first + step]
        members = np.flatnonzero(np.isin(entries, present))
        codes = torch.from_numpy(present).to(x.device)
        occurs = (x[:, None, :] == codes[None, :, None]).to(g.dtype)
        part = torch.zeros(len(members), len(x), dtype=rows.dtype, device=rows.device)
        column = np.searchsorted(present, entries[members])
        _add_products(part, occurs, g, column, features[members])
        rows[torch.from_numpy(members).to(rows.device)] += part


_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

_Rule = Callable[[_Use, np.ndarray, torch.Tensor, torch.Tensor, torch.Tensor], None]

# By exact type: a subclass may do something else.
_RULES: dict[type[nn.Module], _Rule] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
}


def _add_sums(rows: torch.Tensor, g: torch.Tensor, channels: np.ndarray) -> None:
    """Add the sum over places p of g[s, channels[k], p] to rows[k, s]."""
    rows += g.sum(dim=2)[:, torch.from_numpy(channels).to(g.device)].T


def _add_products(
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
        arrays = [tensor.detach().numpy() for tensor in (rows, x, g, shift, scale)]
        _over_samples(_products_kernel, len(x), *arrays, inputs, outputs)
        return
    step = max(1, _CHUNK_NUMBERS // (x.shape[0] * x.shape[2]))
    for first in range(0, len(inputs), step):
        part = slice(first, first + step)
        i = torch.from_numpy(inputs[part]).to(x.device)
        o = torch.from_numpy(outputs[part]).to(x.device)
        centred = x[:, i] - shift[i][:, None]
        rows[part] += (centred * g[:, o]).sum(dim=2).T * scale[i][:, None]


def _add_convolutions(
    rows: torch.Tensor,
    x: torch.Tensor,
    g: torch.Tensor,
    inputs: np.ndarray,
    outputs: np.ndarray,
    down: np.ndarray,
    right: np.ndarray,
    geometry: tuple[tuple[int, int], ...],
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
        geometry: stride t, padding m and dilation d, each of (height, width).
    """
    stride, padding, dilation = (tuple(map(int, size)) for size in geometry)
    down = down * dilation[0]
    right = right * dilation[1]
    if _has_kernels(rows, x, g):
        down, right = down - padding[0], right - padding[1]
        top, bottom = _inside(down, stride[0], x.shape[2], g.shape[2])
        left, end = _inside(right, stride[1], x.shape[3], g.shape[3])
        plan = np.stack([inputs, outputs, down, right, top, bottom, left, end], axis=1)
        arrays = (rows.numpy(), x.contiguous().numpy(), g.contiguous().numpy())
        _over_samples(_convolutions_kernel, len(x), *arrays, plan, *stride)
        return
    x = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    reach = [(size - 1) * step + 1 for size, step in zip(g.shape[2:], stride, strict=True)]
    for a, b in np.unique(np.stack([down, right], axis=1), axis=0):
        members = np.flatnonzero((down == a) & (right == b))
        # The input as the outputs see it through this one place of the kernel.
        seen = x[:, :, a : a + reach[0] : stride[0], b : b + reach[1] : stride[1]].flatten(2)
        part = torch.zeros(len(members), len(x), dtype=rows.dtype, device=rows.device)
        _add_products(part, seen, g.flatten(2), inputs[members], outputs[members])
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


def _over_samples(kernel: Callable[..., None], samples: int, *arguments: Any) -> None:
    """Run a kernel on all samples, shared out over as many threads as torch may use."""
    threads = min(torch.get_num_threads(), samples)
    edges = np.linspace(0, samples, threads + 1).astype(int)
    if threads == 1:
        kernel(0, samples, *arguments)
        return
    with ThreadPoolExecutor(threads) as pool:
        for job in [
            pool.submit(kernel, int(first), int(last), *arguments)
            for first, last in pairwise(edges)
        ]:
            job.result()


# Sums may be reordered, so that they vectorise; a NaN stays a NaN.
_FAST = {"reassoc", "contract", "nsz"}


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _products_kernel(
    first: int,
    last: int,
    rows: np.ndarray,
    x: np.ndarray,
    g: np.ndarray,
    shift: np.ndarray,
    scale: np.ndarray,
    inputs: np.ndarray,
    outputs: np.ndarray,
) -> None:
    for s in range(first, last):
        for k in range(len(inputs)):
            received = x[s, inputs[k]]
            gradient = g[s, outputs[k]]
            total = rows.dtype.type(0)
            for p in range(len(received)):
                total += (received[p] - shift[inputs[k]]) * gradient[p]
            rows[k, s] += total * scale[inputs[k]]


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _convolutions_kernel(
    first: int,
    last: int,
    rows: np.ndarray,
    x: np.ndarray,
    g: np.ndarray,
    plan: np.ndarray,
    stride_down: int,
    stride_right: int,
) -> None:
    for s in range(first, last):
        for k in range(len(plan)):
            i, o, down, right, top, bottom, left, end = plan[k]
            total = rows.dtype.type(0)
            for p in range(top, bottom):
                gradient = g[s, o, p, left:end]
                row = x[s, i, p * stride_down + down]
                if stride_right == 1:
                    received = row[left + right : end + right]
                    for q in range(len(gradient)):
                        total += received[q] * gradient[q]
                else:
                    for q in range(len(gradient)):
                        total += row[(left + q) * stride_right + right] * gradient[q]
            rows[k, s] += total
