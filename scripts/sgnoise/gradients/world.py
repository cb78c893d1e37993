"""The world of the user around a pass: modes, buffers, random states, gradients, compiled networks.

A pass runs in evaluation mode without gradients of weights; whatever it or the network changes is
put back afterwards.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import BackwardCFunction

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Buffers:
    """The buffers of a network, as they are now.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._kept = [
            (module, name, buffer, buffer.clone())
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if buffer.layout == torch.strided
        ]

    def put_back(self) -> bool:
        """Make them what they were; whether any was not.

        A buffer that is as it was is left alone: writing to it would count as a change of it where
        a graph of autograd has saved it.
        """
        changed = False
        for module, name, buffer, before in self._kept:
            if module._buffers.get(name) is not buffer:
                module._buffers[name] = buffer
                changed = True
            if not _same(buffer, before):
                with torch.no_grad():
                    buffer.resize_(before.shape).copy_(before)
                changed = True
        return changed


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors hold the same numbers, of which some may be NaN."""
    if torch.equal(one, other):
        return True
    if one.shape != other.shape or not one.is_floating_point():
        return False
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


class RandomState:
    """The states of the generators of torch, NumPy and Python, as they are now.

    Args:
        device: whose generator may be used beside that of the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._states = self._now()

    def _now(self) -> tuple[Any, ...]:
        numbers = np.random.get_state()  # noqa: NPY002 - the user's own may use it
        on_device = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        return torch.get_rng_state(), on_device, numbers, random.getstate()

    def changed(self) -> bool:
        """Whether a random number was drawn since."""
        (cpu, device, numbers, python), now = self._states, self._now()
        return (
            not torch.equal(cpu, now[0])
            or (device is not None and not torch.equal(device, now[1]))
            or numbers[2] != now[2][2]
            or not np.array_equal(numbers[1], now[2][1])
            or python != now[3]
        )

    def put_back(self) -> None:
        """Go on as if none had been drawn."""
        cpu, device, numbers, python = self._states
        torch.set_rng_state(cpu)
        if device is not None:
            torch.cuda.set_rng_state(device, self._device)
        np.random.set_state(numbers)  # noqa: NPY002
        random.setstate(python)


@contextmanager
def evaluating(model: nn.Module, *, batch_statistics: bool = False) -> Iterator[Buffers]:
    """Evaluation mode and no gradients of weights for the block; then all as it was before.

    Compiled networks run as they were written, and gradients are recorded even where the caller
    has turned that off.

    Args:
        model: the network.
        batch_statistics: whether batch normalisation is in training mode.

    Yields:
        the buffers, to put back between two passes.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    dropouts: list[tuple[Any, Any]] = [
        (module, module.dropout) for module in modules if type(module) in (nn.LSTM, nn.GRU, nn.RNN)
    ]
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    buffers = Buffers(model)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        # Whoever compiled anything has imported this module, which takes seconds.
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            model.eval()
            for parameter, _ in trainable:
                parameter.requires_grad_(False)
            for module in modules:
                if batch_statistics and isinstance(module, BATCH_NORMS):
                    module.train()
            for module, _ in dropouts:
                # cuDNN has no backward pass of these in evaluation mode, which differs by this.
                if any(parameter.is_cuda for parameter in module.parameters(recurse=False)):
                    module.dropout = 0.0
                    module.training = True
            yield buffers
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            for module, dropout in dropouts:
                module.dropout = dropout
            for parameter, wanted in trainable:
                parameter.requires_grad_(wanted)
            buffers.put_back()


@contextmanager
def differentiable(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Gradients of these weights, whose gradients are off, for the block."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)


def backward(
    value: torch.Tensor,
    parameters: Sequence[torch.Tensor] = (),
    others: Sequence[torch.Tensor] = (),
) -> list[Any]:
    """The backward pass from a scalar; no tensor keeps a ``grad`` of it.

    A loss may have weights of its own, which would be given their gradients.

    Args:
        value: the scalar.
        parameters: whose gradients to return.
        others: tensors behind checkpoints, where nobody sees them before.

    Returns:
        the gradients of the parameters.
    """
    aside = {id(leaf): leaf for leaf in [*_leaves(value), *parameters, *others]}
    before = [leaf.grad for leaf in aside.values()]
    for leaf in aside.values():
        leaf.grad = None
    try:
        value.backward()
        return [parameter.grad for parameter in parameters]
    finally:
        for leaf, gradient in zip(aside.values(), before, strict=True):
            leaf.grad = gradient


def has_own_functions(value: torch.Tensor) -> bool:
    """Whether its graph has functions written in Python, which may hide weights from autograd."""
    return any(isinstance(node, BackwardCFunction) for node in _graph(value))


def _leaves(value: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that a backward pass gives a ``grad``."""
    variables = [getattr(node, "variable", None) for node in _graph(value)]
    return [variable for variable in variables if isinstance(variable, torch.Tensor)]


def _graph(value: torch.Tensor) -> set[Any]:
    """The nodes of the backward pass."""
    waiting: list[Any] = [] if value.grad_fn is None else [value.grad_fn]
    seen: set[Any] = set(waiting)
    while waiting:
        for following, _ in waiting.pop().next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return seen
