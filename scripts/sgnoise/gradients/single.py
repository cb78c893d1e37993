"""Gradients of whole tensors of weights for each sample: by autograd one by one, or by vmap."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from sgnoise.gradients import contractions, world
from sgnoise.gradients.recorder import SampledTensor

Loss = Callable[[Any, torch.Tensor], torch.Tensor]


def fill_autograd(
    value: Callable[[], torch.Tensor],
    tensors: list[SampledTensor],
    row: torch.Tensor,
    trainable: Sequence[nn.Parameter] = (),
) -> None:
    """Write the gradient of a value with respect to each distinct sampled weight to ``row``.

    Args:
        value: computes the scalar.
        tensors: whose gradients.
        row: (distinct weights,).
        trainable: all weights that have gradients meanwhile.
    """
    parameters = [tensor.parameter for tensor in tensors]
    for tensor, gradient in zip(tensors, _autograd(value, parameters, trainable), strict=True):
        if gradient is not None:
            if gradient.layout != torch.strided:
                gradient = gradient.to_dense()
            row[tensor.rows] = gradient.reshape(-1)[tensor.offsets.on(row.device)].to(row)


def _autograd(
    value: Callable[[], torch.Tensor],
    parameters: list[nn.Parameter],
    trainable: Sequence[nn.Parameter],
) -> Sequence[torch.Tensor | None]:
    # Checkpoints of the older, reentrant kind know no other way than through ``grad``: they raise
    # an error, or a weight behind them seems to be in no use.
    found = value()
    if not found.requires_grad:
        return [None] * len(parameters)
    hides = world.has_own_functions(found)
    try:
        gradients = torch.autograd.grad(found, parameters, allow_unused=True)
    except RuntimeError:
        if not hides:
            raise
    else:
        if not hides or all(gradient is not None for gradient in gradients):
            return gradients
    return world.backward(value(), parameters, trainable)


def by_autograd(
    model: nn.Module,
    loss: Loss,
    tensors: list[SampledTensor],
    inputs: torch.Tensor,
    targets: torch.Tensor,
    rows: torch.Tensor,
    *,
    buffers: world.Buffers,
    trainable: list[nn.Parameter],
    copies: int = 1,
    factor: float = 1.0,
) -> None:
    """Write the gradients of each sample alone to ``rows`` (distinct weights, samples).

    Args:
        model: in evaluation mode, without gradients of weights.
        loss: of outputs and targets.
        tensors: whose gradients.
        inputs: (samples, ...).
        targets: (samples, ...).
        rows: to write to.
        buffers: those that every sample finds.
        trainable: all weights of the network that are trained: a checkpointed block has gradients
            only where what it receives has.
        copies: how often a sample is repeated in its batch, and
        factor: what its loss is multiplied by meanwhile: neither changes more than the rounding.
    """
    column = torch.zeros_like(rows[:, 0])
    trainable = list({*trainable, *(tensor.parameter for tensor in tensors)})
    with world.differentiable(trainable):
        for sample in range(len(targets)):
            chosen = [sample] * copies

            def value(chosen: list[int] = chosen) -> torch.Tensor:
                found = loss(model(inputs[chosen]), targets[chosen])
                return factor * (found.sum() / copies if found.ndim else found)

            column.zero_()
            fill_autograd(value, tensors, column, trainable)
            for tensor in tensors:
                rows[tensor.rows, sample] = column[tensor.rows] / factor
            buffers.put_back()


def by_vmap(
    model: nn.Module,
    loss: Loss,
    tensors: list[SampledTensor],
    inputs: torch.Tensor,
    targets: torch.Tensor,
    rows: torch.Tensor,
) -> None:
    """Write the gradients of each sample to ``rows`` (distinct weights, samples), many at a time.

    Raises:
        Exception: ``torch.func`` cannot do it.
    """

    def sample_loss(
        weights: dict[str, torch.Tensor], sample: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        outputs = torch.func.functional_call(model, weights, (sample[None],))
        return loss(outputs, target[None]).sum()

    weights = {tensor.name: tensor.parameter.detach() for tensor in tensors}
    largest = sum(weight.numel() for weight in weights.values())
    gradients = torch.func.vmap(torch.func.grad(sample_loss), in_dims=(None, 0, 0))
    step = max(1, contractions.CHUNK_NUMBERS // largest)
    for first in range(0, len(targets), step):
        part = slice(first, first + step)
        with warnings.catch_warnings():
            # That vmap is slow for some function is said in the log, once.
            warnings.simplefilter("ignore")
            found = gradients(weights, inputs[part].clone(), targets[part])
        for tensor in tensors:
            offsets = tensor.offsets.on(rows.device)
            gradient = found[tensor.name]
            rows[tensor.rows, part] = gradient.reshape(len(gradient), -1)[:, offsets].T.to(rows)
