"""Gradients of sampled parameters, for each sample or for each mini-batch.

For one sample the gradient of a single weight is a product of what its layer received and of the
gradient of what it returned: x[i] g[o] in a linear layer, the sum of x[i, h + a, w + b] g[o, h, w]
over pixels in a convolution, and so on. So one forward and one backward pass through the
activations, without the gradient of any weight, give the gradient of each sampled weight for each
sample of a batch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.checkpoint import CheckpointError

from sgnoise import messages, noise, seeds, store
from sgnoise.gradients import graph, single, world
from sgnoise.gradients.offsets import Offsets
from sgnoise.gradients.recorder import Recorder, SampledTensor, UnsuitableError
from sgnoise.gradients.single import Loss

logger = logging.getLogger("sgnoise")

STRATA = ("uniform", "per_layer")

# A layer whose gradients are this far from autograd's is not what it seems to be (a rounding error
# stays a thousand times below).
_TOLERANCE = 1e-2
# Gradients this small beside the largest are rounding errors, in autograd as well.
_FLOOR = 1e-5

# Passes of a network that draws random numbers, to see whether they change its loss.
_REPETITIONS = 4
# Samples whose losses are looked at one by one.
_FEW = 8

# On a CPU so many samples are taken together that the largest activations have at most these bytes.
# Larger ones would leave its caches, and the memory of each would be asked from the system anew (a
# tenth of the time of a ResNet-18).
_LARGEST_ACTIVATIONS = 2**24


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
    are differentiated by ``torch.func``, or one sample after another where that cannot do it, which
    is slower and is announced in the log. Some samples are compared with autograd, of the first
    batches more than of later ones. Inputs, buffers, modes, random states and ``grad`` are left as
    they were.

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
        ValueError: the loss is no mean over samples or compares outputs with targets of another
            shape, a layer normalises by the statistics of the mini-batch even in evaluation mode,
            the network is random in evaluation mode or changes its activations in place, or a
            weight is complex.
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
            world.evaluating(self._model, batch_statistics=self._batch_statistics),
            world.differentiable(parameters),
        ):

            def value() -> torch.Tensor:
                return self._loss(self._model(inputs.detach().clone()), targets.clone())

            single.fill_autograd(value, self._tensors, row)
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
        ValueError: a layer that normalises by the statistics of the mini-batch in any mode, or
            complex weights.
    """

    def __init__(self, model: nn.Module, loss: Loss, sample: ParameterSample) -> None:
        for name, module in model.named_modules():
            if isinstance(module, world.BATCH_NORMS) and module.running_mean is None:
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
        # Tensors without a rule, those of them that vmap cannot do, and what is to be said of them.
        self._slow: dict[str, SampledTensor] = {}
        self._loops: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._channels_last = True
        self._inputs_need_gradients = False
        self._has_penalty = False
        self._batches = self._last_check = 0
        # The shapes within the network in the last pass, and in all so far.
        self._met: tuple[Any, ...] = ()
        self._shapes: set[tuple[Any, ...]] = set()

    @property
    def fallback(self) -> set[str]:
        """The tensors that are differentiated by ``torch.func``, or one sample after another."""
        return set(self._slow)

    @property
    def loops(self) -> set[str]:
        """Those of them that are differentiated one sample after another."""
        return set(self._loops)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._tensors[0].parameter.device

    @property
    def recorded(self) -> bool:
        """Whether the pass is repeated as a CUDA graph."""
        return self._graph is not None

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Gradients (parameters, samples) of one batch.

        Raises:
            ValueError: as in ``per_sample_gradients``.
        """
        if not len(targets):
            return self._zeros(0)[self._position.to(self.device)]
        with torch.inference_mode(False):
            inputs, targets = inputs.detach(), targets.detach()
            if inputs.is_inference():
                inputs = inputs.clone()
            if targets.is_inference():
                targets = targets.clone()
        self._batches += 1
        if self._graph is not None and not self._slow and not self._due:
            with torch.inference_mode(False), torch.no_grad():
                arranged = self._arranged(inputs)
                if self._graph.fits(arranged, targets):
                    rows = self._graph(arranged, targets)
                    return rows[self._position.to(rows.device)]
        with self._prepared() as random_state:
            rows = self._gradients(inputs, targets, random_state)
        return rows[self._position.to(rows.device)]

    def _gradients(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        random_state: world.RandomState,
    ) -> torch.Tensor:
        """Gradients (distinct weights, samples)."""
        together = self._together or len(targets)
        parts = []
        # Samples to look at: where a part has other shapes within the network than those before.
        new: list[int] = []
        for first in range(0, len(targets), together):
            part = slice(first, first + together)
            rows, shapes = self._rows_of(inputs[part], targets[part])
            parts.append(rows)
            changed = self._buffers.put_back()
            if shapes not in self._shapes:
                self._shapes.add(shapes)
                new += [first + sample for sample in _telling(rows)]
        rows = torch.cat(parts, dim=1)
        if random_state.changed():
            self._refuse_random(inputs, targets)
        if not self._checked:
            self._has_penalty = self._penalty(inputs, targets) is not None
        self._fill(list(self._slow.values()), inputs, targets, rows)
        if self._has_penalty:
            penalty = self._penalty(inputs, targets)
            for tensor in self._tensors:
                if penalty is not None and tensor.name not in self._loops:
                    rows[tensor.rows] += penalty[tensor.rows, None]
        if new or self._due:
            doubtful = not new and self._batches - self._last_check > 1
            self._check(inputs, targets, rows, new or _telling(rows), doubtful=doubtful)
        self._announce()
        if not self._checked:
            self._checked = True
            if inputs.is_cuda:
                # What the network changes would not be put back after a repetition.
                if not changed and not self._slow and not self._has_penalty:
                    self._record(self._arranged(inputs), targets)
            else:
                of_a_sample = max(1, self._largest // len(targets))
                self._together = max(1, _LARGEST_ACTIVATIONS // of_a_sample)
        return rows

    @contextmanager
    def _prepared(self) -> Iterator[world.RandomState]:
        """A network in evaluation mode for the block; then all as it was before."""
        self._trainable = [weight for weight in self._model.parameters() if weight.requires_grad]
        random_state = world.RandomState(self.device)
        try:
            with world.evaluating(self._model) as self._buffers:
                yield random_state
        finally:
            random_state.put_back()

    @property
    def _due(self) -> bool:
        """Whether this batch is checked whatever its shapes: number 1, 2, 4, 8 and so on."""
        return self._batches & (self._batches - 1) == 0

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

        Raises:
            ValueError: as in ``per_sample_gradients``, also where the last gradients are wrong.
        """
        device = self.device
        last: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        for inputs, targets in batches:
            first = 0
            while first < len(targets):
                part = slice(first, first + together)
                try:
                    last = inputs[part].to(device), targets[part].to(device), torch.empty(0)
                    found = self(*last[:2])
                except torch.OutOfMemoryError:
                    if together == 1:
                        raise
                    together //= 2
                    logger.warning(
                        "not enough memory on the GPU: going on with %d samples", together
                    )
                else:
                    last = (*last[:2], found)
                    yield found.float().cpu().numpy()
                    first = part.stop
        if last is not None and self._last_check < self._batches:
            inputs, targets, found = last
            rows = self._zeros(len(targets))
            rows[self._position.to(device)] = found
            with self._prepared():
                self._check(inputs, targets, rows, _telling(rows), doubtful=True)

    def _zeros(self, samples: int) -> torch.Tensor:
        count = self._tensors[-1].rows.stop
        kinds = [tensor.parameter.dtype for tensor in self._tensors]
        return torch.zeros(
            count, samples, dtype=reduce(torch.promote_types, kinds), device=self.device
        )

    def _arranged(self, inputs: torch.Tensor) -> torch.Tensor:
        """A copy of the inputs, which the network may change, as convolutions like them."""
        if self._channels_last and inputs.ndim == 4 and prefers_channels_last(inputs):
            return inputs.clone(memory_format=torch.channels_last)
        return inputs.clone()

    def _rows_of(
        self, inputs: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[Any, ...]]:
        """Gradients (distinct weights, samples) from one pass; zero where there is no rule.

        And the shapes that the pass met. A pass that a network refuses is tried in other ways.
        """
        notes: list[str] = []
        while True:
            rows = self._zeros(len(targets))
            if not self._known():
                return rows, ()
            try:
                self._pass_through_activations(self._arranged(inputs), targets, rows)
            except (torch.OutOfMemoryError, UnsuitableError):
                raise
            except Exception as error:
                reason = messages.first_line(error)
                self._buffers.put_back()
                if self._channels_last and inputs.ndim == 4 and prefers_channels_last(inputs):
                    self._channels_last = False
                    notes.append(f"inputs are not taken with the channels last: {reason}")
                elif (
                    isinstance(error, CheckpointError)
                    and not self._inputs_need_gradients
                    and inputs.is_floating_point()
                ):
                    # What is computed anew finds the same tensors with gradients as before.
                    self._inputs_need_gradients = True
                else:
                    # Where the network itself is at fault, so is one sample by itself.
                    self._alone(self._tensors, inputs[:1], targets[:1])
                    for tensor in self._known():
                        self._fall_back(tensor, f"the pass for all samples fails: {reason}")
                    return self._zeros(len(targets)), ()
            else:
                for note in notes:
                    logger.info(note)
                return rows, self._met

    def _record(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Record the pass, now that it is known which weights it gives."""
        rows = self._zeros(len(targets))
        self._pass_through_activations(inputs.clone(), targets, rows)
        self._graph = graph.record(
            self._pass_through_activations, self._model, inputs, targets, rows
        )

    def _known(self) -> list[SampledTensor]:
        """The tensors whose gradients come from the pass through the activations."""
        return [tensor for tensor in self._tensors if tensor.name not in self._slow]

    def _fall_back(self, tensor: SampledTensor, reason: str) -> None:
        if tensor.name not in self._slow:
            self._slow[tensor.name] = tensor
            self._reasons[tensor.name] = reason

    def _announce(self) -> None:
        """Say once which tensors are differentiated in a slower way, and why."""
        for way, chosen in (("vmap(grad)", False), ("a loop over samples", True)):
            names: dict[str, list[str]] = {}
            for name, reason in self._reasons.items():
                if (name in self._loops) is chosen:
                    names.setdefault(reason, []).append(name)
            if names:
                said = "; ".join(f"{', '.join(some)} ({why})" for why, some in names.items())
                logger.warning("differentiated by %s, slower: %s", way, said)
        self._reasons.clear()

    def _pass_through_activations(
        self, inputs: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor
    ) -> None:
        """Add all that the rules give to ``rows``."""
        recorder = Recorder(self._known(), rows, self._fall_back)
        if self._inputs_need_gradients:
            inputs = inputs.requires_grad_()
            # So that the network may change them in place.
            inputs = inputs.view_as(inputs)
        with recorder:
            outputs = self._model(inputs)
        self._largest = max(self._largest, recorder.largest)
        if not self._checked or self._due:
            self._check_loss(outputs, targets)
        self._met = tuple(recorder.shapes)
        value = self._loss(outputs, targets)
        total = value.sum() if value.ndim else value * len(targets)
        if total.requires_grad:
            world.backward(total)

    def _check_loss(self, outputs: Any, targets: torch.Tensor) -> None:
        """Raise a ValueError if the loss of a batch is not made of those of its samples."""
        count = len(targets)
        if not isinstance(outputs, torch.Tensor) or count < 2:
            return
        outputs = outputs.detach()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = self._loss(outputs, targets)
            if outputs.shape != targets.shape and outputs.numel() == targets.numel():
                self._check_shapes(outputs, targets)
            if value.ndim:
                if len(value) != count:
                    raise UnsuitableError(
                        f"the loss is {tuple(value.shape)} for {count} samples; it must be their "
                        "mean, or a vector of one loss a sample"
                    )
                return
            # The halves of the batch, and a few samples one by one: classes that have weights of
            # their own hardly show between halves.
            half, few = count // 2, min(count, _FEW)
            for whole, starts in ((count, [0, half, count]), (few, list(range(few + 1)))):
                parts = torch.stack(
                    [
                        self._loss(outputs[first:last], targets[first:last]) * (last - first)
                        for first, last in pairwise(starts)
                    ]
                )
                value = self._loss(outputs[:whole], targets[:whole])
                if (parts.sum() - value * whole).abs() > 1e-3 * parts.abs().sum():
                    raise UnsuitableError(
                        "the loss of a batch is not the mean of the losses of its samples, so "
                        "these have no gradients of their own; take the gradients of mini-batches "
                        "instead, or, where classes have weights of their own, multiply each "
                        "sample's loss by its weight and take the plain mean"
                    )

    def _check_shapes(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Raise a ValueError if the loss compares each output with every target.

        Outputs that are the targets tell it too: with those of the network alone, an absolute
        error is the same either way where all outputs lie above all targets.
        """
        for tried in (outputs, targets.reshape(outputs.shape).to(outputs)):
            try:
                value = self._loss(tried, targets)
                matched = self._loss(tried.reshape(targets.shape), targets)
            except Exception:
                # It takes outputs of this shape alone, and knows what to do with them.
                continue
            if matched.shape != value.shape or not torch.allclose(
                matched, value, rtol=1e-3, equal_nan=True
            ):
                raise UnsuitableError(
                    f"the network returns {tuple(outputs.shape)} and the targets are "
                    f"{tuple(targets.shape)}: the loss compares each output with every target; "
                    "give both the same shape (outputs.squeeze(1), or targets.unsqueeze(1))"
                )

    def _refuse_random(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Raise a ValueError if the network does not repeat itself."""
        losses: list[torch.Tensor] = []
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(_REPETITIONS):
                losses.append(self._loss(self._model(inputs.clone()), targets).double().sum())
                self._buffers.put_back()
                if not torch.isclose(losses[0], losses[-1], rtol=1e-5, equal_nan=True):
                    raise UnsuitableError(
                        "the network is random in evaluation mode (a dropout that does not look "
                        "at the mode, or noise that is drawn): its loss is another in each pass, "
                        "so a sample has no gradient of its own; turn that off in evaluation mode"
                    )

    def _penalty(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor | None:
        """The gradient (distinct weights,) of what the loss itself takes from the weights.

        A penalty on the weights does not pass through the outputs, and is that of every sample.
        """
        parameters = [tensor.parameter for tensor in self._tensors]
        with torch.no_grad(), warnings.catch_warnings():
            # Reentrant checkpoints wonder why they are called without gradients.
            warnings.simplefilter("ignore")
            outputs = self._model(inputs[:1].clone())
        self._buffers.put_back()
        with world.differentiable(parameters):
            value = self._loss(outputs, targets[:1]).sum()
            if not value.requires_grad:
                return None
            row = self._zeros(1)[:, 0]
            single.fill_autograd(lambda: value, self._tensors, row)
        return row

    def _alone(
        self,
        tensors: list[SampledTensor],
        inputs: torch.Tensor,
        targets: torch.Tensor,
        **rounding: Any,
    ) -> torch.Tensor:
        """Gradients (distinct weights, samples) by autograd, each sample in a batch of its own."""
        rows = self._zeros(len(targets))
        single.by_autograd(
            self._model,
            self._loss,
            tensors,
            inputs,
            targets,
            rows,
            buffers=self._buffers,
            trainable=self._trainable,
            **rounding,
        )
        return rows

    def _check(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        rows: torch.Tensor,
        chosen: list[int],
        *,
        doubtful: bool,
    ) -> None:
        """Compare some samples with autograd; what differs is computed in a slower way.

        This finds weights that are used where no function of torch sees them, activations whose
        first dimension has the right size but is not that of the samples, and samples that change
        places.

        Args:
            inputs: of the batch.
            targets: of the batch.
            rows: its gradients, which are mended.
            chosen: the samples to compare.
            doubtful: whether what differs here may have differed in gradients already given out.

        Raises:
            ValueError: there are such gradients, or the network is random.
        """
        for _ in range(3):
            wrong = self._wrong(inputs, targets, rows, chosen)
            if not wrong:
                break
            self._refuse_random(inputs, targets)
            if doubtful:
                raise UnsuitableError(
                    f"the gradients of {', '.join(tensor.name for tensor in wrong)} in batch "
                    f"{self._batches} are not those of its samples, though they were in batch "
                    f"{self._last_check}, and between them nobody looked: the network mixes the "
                    "samples of some batches. Begin anew with this batch, from which that is "
                    "learnt, or take batches of one sample"
                )
            for tensor in wrong:
                if tensor.name in self._slow:
                    self._loops.add(tensor.name)
                    self._reasons[tensor.name] = "vmap(grad) gives another gradient than autograd"
                else:
                    self._fall_back(tensor, "its layer is used in a way that the rules do not know")
            self._graph = None
            self._fill(wrong, inputs, targets, rows)
            if self._has_penalty:
                penalty = self._penalty(inputs, targets)
                for tensor in wrong:
                    if penalty is not None and tensor.name not in self._loops:
                        rows[tensor.rows] += penalty[tensor.rows, None]
        self._last_check = self._batches

    def _wrong(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        rows: torch.Tensor,
        chosen: list[int],
    ) -> list[SampledTensor]:
        """The tensors, with all of their layer, whose gradients are not those of autograd."""
        tensors = [tensor for tensor in self._tensors if tensor.name not in self._loops]
        if not tensors:
            return []
        expected = self._alone(tensors, inputs[chosen], targets[chosen])
        found = rows[:, chosen]
        floor = _FLOOR * expected.abs().max()
        tolerance = max(_TOLERANCE, 10 * torch.finfo(rows.dtype).eps)
        rounding: torch.Tensor | None = None
        wrong: set[tuple[str, bool]] = set()
        for tensor in tensors:
            true = expected[tensor.rows]
            error = (found[tensor.rows] - true).abs().max()
            if error <= tolerance * true.abs().max():
                continue
            if error <= floor:
                # It may be a sum that is zero but for rounding: then another order changes it all.
                if rounding is None:
                    again = self._alone(
                        tensors, inputs[chosen], targets[chosen], copies=3, factor=1.1
                    )
                    rounding = (again - expected).abs()
                if error <= 100 * rounding[tensor.rows].max():
                    continue
            wrong.add((tensor.layer, tensor.name in self._slow))
        wrong |= self._missed(tensors, inputs, targets, rows)
        return [tensor for tensor in tensors if (tensor.layer, tensor.name in self._slow) in wrong]

    def _missed(
        self,
        tensors: list[SampledTensor],
        inputs: torch.Tensor,
        targets: torch.Tensor,
        rows: torch.Tensor,
    ) -> set[tuple[str, bool]]:
        """Layers whose gradients do not add up to that of the whole batch, as in ``_wrong``.

        A use of a weight that the rules have not seen may be dead in the few samples that are
        compared one by one: behind a ReLU, say.
        """
        total = self._zeros(1)[:, 0]

        def value() -> torch.Tensor:
            found = self._loss(self._model(inputs.clone()), targets)
            return found.sum() if found.ndim else found * len(targets)

        try:
            with world.differentiable(self._trainable):
                single.fill_autograd(value, tensors, total, self._trainable)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            # A network that takes samples one by one alone: then so did what is to be checked.
            return set()
        finally:
            self._buffers.put_back()
        size = rows.abs().sum(dim=1)
        error = (rows.sum(dim=1) - total).abs()
        tolerance = max(_TOLERANCE, 10 * torch.finfo(rows.dtype).eps)
        floor = _FLOOR * size.max()
        return {
            (tensor.layer, tensor.name in self._slow)
            for tensor in tensors
            if not error[tensor.rows].max() <= tolerance * size[tensor.rows].max() + floor
        }

    def _fill(
        self,
        tensors: list[SampledTensor],
        inputs: torch.Tensor,
        targets: torch.Tensor,
        rows: torch.Tensor,
    ) -> None:
        """Fill in the rows of tensors that have no rule."""
        together = [tensor for tensor in tensors if tensor.name not in self._loops]
        if together:
            try:
                single.by_vmap(self._model, self._loss, together, inputs, targets, rows)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                for tensor in together:
                    self._loops.add(tensor.name)
                    reason = self._reasons.get(tensor.name, "")
                    separator = "; " if reason else ""
                    self._reasons[tensor.name] = (
                        f"{reason}{separator}vmap: {messages.first_line(error)}"
                    )
            self._buffers.put_back()
        alone = [tensor for tensor in tensors if tensor.name in self._loops]
        if alone:
            found = self._alone(alone, inputs, targets)
            for tensor in alone:
                rows[tensor.rows] = found[tensor.rows]


def _telling(rows: torch.Tensor) -> list[int]:
    """Two samples that show whether gradients are right: the first and the largest."""
    largest = int(rows.square().sum(dim=0).argmax())
    return sorted({0, largest}, key=lambda sample: sample == largest)


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
        if parameter.is_complex():
            raise ValueError(
                f"{name!r} is complex; the gradients are those of real weights: hold its real and "
                "imaginary part as two real tensors (torch.view_as_real)"
            )
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
