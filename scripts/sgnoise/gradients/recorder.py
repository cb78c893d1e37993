"""Watching a forward pass, so that the backward pass yields the gradients of sampled weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sgnoise.gradients import rules
from sgnoise.gradients.offsets import Offsets


class UnsuitableError(ValueError):
    """A network or a loss for which there are no gradients of single samples; it says why."""


@dataclass(frozen=True)
class SampledTensor:
    """The sampled weights of one tensor, each of them once.

    Attributes:
        name: in ``model.named_parameters()``.
        parameter: the tensor.
        offsets: of the weights, sorted.
        rows: their positions among all distinct sampled weights.
    """

    name: str
    parameter: nn.Parameter
    offsets: Offsets
    rows: slice

    @property
    def layer(self) -> str:
        """The module that owns the tensor."""
        return self.name.rpartition(".")[0]


# Functions of two tensors, number by number.
_ELEMENTWISE = {
    torch.add,
    torch.sub,
    torch.mul,
    torch.div,
    torch.Tensor.add,
    torch.Tensor.sub,
    torch.Tensor.mul,
    torch.Tensor.div,
    torch.Tensor.add_,
    torch.Tensor.sub_,
    torch.Tensor.mul_,
    torch.Tensor.div_,
}
# Functions that repeat a tensor for every sample.
_EXPANSIONS = {torch.Tensor.expand, torch.Tensor.repeat}
# Functions that return the same weights at other offsets.
_VIEWS = {
    torch.reshape,
    torch.flatten,
    torch.squeeze,
    torch.unsqueeze,
    torch.transpose,
    torch.permute,
    torch.t,
    torch.Tensor.view,
    torch.Tensor.reshape,
    torch.Tensor.flatten,
    torch.Tensor.squeeze,
    torch.Tensor.unsqueeze,
    torch.Tensor.transpose,
    torch.Tensor.permute,
    torch.Tensor.t,
    torch.Tensor.T.__get__,  # type: ignore[attr-defined]
    torch.Tensor.mT.__get__,  # type: ignore[attr-defined]
    torch.Tensor.__getitem__,
    torch.Tensor.contiguous,
    torch.Tensor.expand,
}


class _Sampled(NamedTuple):
    """Sampled weights in a tensor that functions are called with: a parameter, or a view of one.

    Attributes:
        tensor: the tensor, held so that no other one takes its identity.
        source: the parameter.
        members: the rows of the weights.
        offsets: their flat offsets in ``tensor``.
    """

    tensor: torch.Tensor
    source: SampledTensor
    members: np.ndarray | slice
    offsets: Offsets

    @property
    def sources(self) -> list[SampledTensor]:
        return [self.source]

    def add(self, add: rules.Add, rows: torch.Tensor, x: torch.Tensor, g: torch.Tensor) -> None:
        """Add to ``rows`` (weights, samples) what a rule gives, see ``rules.Add``."""
        if isinstance(self.members, slice):
            add(rows[self.members], self.offsets, x, g)
            return
        part = torch.zeros(len(self.offsets), rows.shape[1], dtype=rows.dtype, device=rows.device)
        add(part, self.offsets, x, g)
        rows.index_add_(0, torch.from_numpy(self.members).to(rows.device), part)


class _Shared(NamedTuple):
    """What a function with a rule returned once for all samples: embeddings of positions.

    Attributes:
        tensor: the tensor, held so that no other one takes its identity.
        sources: the parameters that it depends on.
        collect: takes its gradient for each sample, (samples, ...).
    """

    tensor: torch.Tensor
    sources: list[SampledTensor]
    collect: Callable[[torch.Tensor], None]


class Recorder(TorchFunctionMode):
    """Watches the functions that a network calls and collects gradients in the backward pass.

    Weights are found among the arguments of a function, however they came there: by a layer of
    torch, by a layer of another library, or as a parameter used by itself.

    - A function with a rule keeps what it received until the gradient of what it returned arrives.
    - A weight that is added to activations, multiplied with them or expanded to the size of the
      batch gets a sample dimension before, so that autograd itself tells the samples apart.
    - A weight that is used in any other way is given up.

    Args:
        tensors: the sampled weights.
        rows: (weights, samples), to add gradients to.
        give_up: told of a tensor that is used in another way, and how.

    Attributes:
        largest: the bytes of the largest activations that a function with a rule returned.
        shapes: of what each function with a rule received and returned: where they are others than
            before, another dimension may have the size of that of the samples.
    """

    def __init__(
        self,
        tensors: list[SampledTensor],
        rows: torch.Tensor,
        give_up: Callable[[SampledTensor, str], None],
    ) -> None:
        super().__init__()
        self.largest = 0
        self.shapes: list[tuple[torch.Size, torch.Size]] = []
        self._rows = rows
        self._samples = rows.shape[1]
        self._give_up = give_up
        # The graph of the backward pass starts where a sampled layer first returns something.
        self._anchor = torch.zeros((), dtype=rows.dtype, device=rows.device, requires_grad=True)
        self._seen: dict[int, _Sampled | _Shared] = {
            id(tensor.parameter): _Sampled(tensor.parameter, tensor, tensor.rows, tensor.offsets)
            for tensor in tensors
        }

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        used = self._used(args, kwargs)
        if not used or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if func in rules.RULES:
            return self._apply(func, args, kwargs, self._samples_first)
        if func is functional.multi_head_attention_forward:
            return self._attend(args, kwargs)
        if len(used) == 1 and func in _ELEMENTWISE:
            lifted = self._lifted_arguments(used[0], args)
            if lifted is not None:
                return func(*lifted, *args[2:], **kwargs)
        result = func(*args, **kwargs)
        if not _is_new(result, used):
            return result
        if func in _EXPANSIONS and result.ndim and len(result) == self._samples:
            repeated = self._lift(used[0], result.ndim)
            if repeated is not None and repeated.numel() == result.numel():
                return repeated
        if func in _VIEWS and isinstance(used[0], _Sampled) and args[0] is used[0].tensor:
            self._see_view(used[0], result, func, args, kwargs)
            return result
        for one in used:
            self._fall_back(one, f"used by {getattr(func, '__name__', func)}, which has no rule")
        return result

    def _used(self, args: Any, kwargs: dict[str, Any]) -> list[_Sampled | _Shared]:
        """The arguments, or members of arguments that are lists, that hold sampled weights."""
        used = []
        for argument in (*args, *kwargs.values()):
            for member in argument if isinstance(argument, list | tuple) else (argument,):
                if id(member) in self._seen:
                    used.append(self._seen[id(member)])
        return used

    def _fall_back(self, used: _Sampled | _Shared, reason: str) -> None:
        for source in used.sources:
            self._give_up(source, reason)

    def _samples_first(self, tensor: torch.Tensor, by_rows: bool) -> torch.Tensor | None:
        """(samples, ...), or None where the first dimension is not that of the samples."""
        if tensor.ndim == 0:
            return None
        if len(tensor) == self._samples:
            return tensor
        if by_rows and len(tensor) % self._samples == 0:
            return tensor.reshape(self._samples, -1, *tensor.shape[1:])
        return None

    def _apply(
        self,
        func: Callable[..., Any],
        args: Any,
        kwargs: dict[str, Any],
        arrange: Callable[[torch.Tensor, bool], torch.Tensor | None],
    ) -> torch.Tensor:
        """Call a function that has a rule; ``arrange`` finds the samples in its activations."""
        call = rules.RULES[func](*args, **kwargs)
        output = func(*args, **kwargs)
        self.largest = max(self.largest, output.nbytes)
        received = call.received.detach()
        self.shapes.append((received.shape, output.shape))
        parts = []
        for part in call.parts:
            sampled = self._seen.get(id(part.weight))
            if isinstance(sampled, _Sampled):
                parts.append((sampled, part))
        for one in self._used(args, kwargs):
            if all(one is not sampled for sampled, _ in parts):
                self._fall_back(one, f"used by {func.__name__} other than as its weights")
        if not parts:
            return output

        def collect(received: torch.Tensor, gradient: torch.Tensor) -> None:
            x, g = arrange(received, call.by_rows), arrange(gradient, call.by_rows)
            assert x is not None
            assert g is not None
            for sampled, part in parts:
                sampled.add(part.add, self._rows, x, g)

        if output.ndim < 2 or any(
            arrange(tensor, call.by_rows) is None for tensor in (received, output)
        ):
            sources = [sampled.source for sampled, _ in parts]
            if len(received) == len(output) == 1 and not output.requires_grad:

                def collect_shared(gradient: torch.Tensor) -> None:
                    collect(received.expand(self._samples, *received.shape[1:]), gradient)

                self._seen[id(output)] = _Shared(output, sources, collect_shared)
            else:
                for source in sources:
                    self._give_up(
                        source,
                        f"given to {func.__name__} with a first dimension other than the samples",
                    )
            return output

        if not output.requires_grad:
            output = output + self._anchor
        # Popped when used, so that an activation is freed as the backward pass leaves it.
        held = [(received, received._version)]

        def collect_once(gradient: torch.Tensor) -> None:
            received, version = held.pop()
            for sampled, part in parts:
                if received._version != version and part.needs_input:
                    raise UnsuitableError(
                        f"{sampled.source.name}: the input of its layer is changed in place later "
                        "on"
                    )
            collect(received, gradient)

        output.register_hook(collect_once)
        return output

    def _attend(self, args: Any, kwargs: dict[str, Any]) -> Any:
        """Multi-head attention: its linear maps see the samples in the second dimension."""
        query = args[0] if args else kwargs["query"]
        plain = functional.linear

        def arrange(tensor: torch.Tensor, by_rows: bool) -> torch.Tensor | None:
            if query.ndim != 3 or query.shape[1] != self._samples:
                return None
            return tensor.reshape(-1, self._samples, tensor.shape[-1]).transpose(0, 1)

        def linear(*args: Any, **kwargs: Any) -> torch.Tensor:
            if not self._used(args, kwargs):
                return plain(*args, **kwargs)
            return self._apply(plain, args, kwargs, arrange)

        # The function calls others by their names in its module, unseen by this mode.
        functional.linear = linear
        try:
            return functional.multi_head_attention_forward(*args, **kwargs)
        finally:
            functional.linear = plain

    def _lift(self, used: _Sampled | _Shared, dimensions: int) -> torch.Tensor | None:
        """The tensor with a sample dimension, once for each sample, its gradient collected.

        None where it cannot be broadcast to so many dimensions, of which samples are the first.
        """
        shape = used.tensor.shape
        if len(shape) == dimensions and len(shape) > 0 and shape[0] == 1:
            shape = shape[1:]
        if len(shape) >= dimensions:
            return None
        shape = torch.Size([1] * (dimensions - 1 - len(shape)) + list(shape))
        leaf = used.tensor.detach().reshape(1, *shape).expand(self._samples, *shape)
        leaf.requires_grad_(True)

        def collect(gradient: torch.Tensor) -> None:
            if isinstance(used, _Shared):
                used.collect(gradient.reshape(self._samples, *used.tensor.shape[1:]))
            else:
                used.add(rules.add_own, self._rows, gradient, gradient)

        leaf.register_hook(collect)
        return leaf

    def _lifted_arguments(
        self, used: _Sampled | _Shared, args: Any
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The two arguments of a function of numbers, the weights with a sample dimension."""
        first, second = args[:2]
        other = second if first is used.tensor else first
        if not isinstance(other, torch.Tensor) or other.ndim == 0 or len(other) != self._samples:
            return None
        lifted = self._lift(used, other.ndim)
        if lifted is None:
            return None
        return (lifted, other) if first is used.tensor else (other, lifted)

    def _see_view(
        self,
        used: _Sampled,
        view: torch.Tensor,
        func: Callable[..., Any],
        args: Any,
        kwargs: dict[str, Any],
    ) -> None:
        """Remember which weight is where in a view: where the same view of their numbers has it."""
        numbers = torch.arange(used.tensor.numel(), device=view.device)
        numbers = func(numbers.reshape(used.tensor.shape), *args[1:], **kwargs)
        found = numbers.reshape(-1).cpu().numpy()
        known = used.offsets.numbers
        order = np.argsort(known)
        nearest = np.searchsorted(known[order], found).clip(max=len(order) - 1)
        offsets = np.flatnonzero(known[order][nearest] == found)
        rows = np.arange(len(self._rows))[used.members]
        members = rows[order[nearest[offsets]]]
        self._seen[id(view)] = _Sampled(view, used.source, members, Offsets(offsets))


def _is_new(result: Any, used: list[_Sampled | _Shared]) -> bool:
    """Whether a function returned tensors other than those it was given."""
    members = result if isinstance(result, list | tuple) else (result,)
    return any(
        isinstance(member, torch.Tensor) and all(member is not one.tensor for one in used)
        for member in members
    )
