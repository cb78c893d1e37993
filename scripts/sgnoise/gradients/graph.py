"""The pass for the gradients of single samples as a CUDA graph: launched once instead of in parts.

On a GPU the pass of a small network takes less time than the processor needs to ask for its parts,
one by one. A graph records them in one pass and repeats them all at once for other batches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import nn

logger = logging.getLogger("sgnoise")

# A pass through the activations of (inputs, targets) that adds gradients to rows, the last.
Pass = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]

# A replay that is this far from the pass itself, relative to it, is not used.
_TOLERANCE = 1e-3


class Graph:
    """A pass recorded for batches of one shape.

    A pass whose course depends on the values of its batch cannot be recorded: it would have to read
    them. One that depends on anything else (a counter, a random number) is not repeated exactly; so
    it is compared with a pass that was not recorded.

    Args:
        run: the pass.
        model: the network, which is where it was when the pass was recorded.
        inputs: a batch.
        targets: its targets.
        rows: what the pass gave for it, beginning with zeros.

    Raises:
        RuntimeError: the pass cannot be recorded, or is not repeated exactly.
    """

    def __init__(
        self,
        run: Pass,
        model: nn.Module,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        rows: torch.Tensor,
    ) -> None:
        self._model = model
        self._addresses = _addresses(model)
        self._inputs, self._targets = inputs.clone(), targets.clone()
        self._rows = torch.zeros_like(rows)
        self._graph = torch.cuda.CUDAGraph()
        # The graph has memory of its own, and cannot have what the passes before it left.
        torch.cuda.empty_cache()
        with torch.cuda.graph(self._graph):
            self._rows.zero_()
            run(self._inputs, self._targets, self._rows)
        error = (self(inputs, targets) - rows).norm() / rows.norm()
        if not error <= _TOLERANCE:
            raise RuntimeError(f"a repeated pass differs by {float(error):.0e}")

    def fits(self, inputs: torch.Tensor, targets: torch.Tensor) -> bool:
        """Whether it can be repeated for these: of the same shape, and the weights still there."""
        return (
            _layout(inputs) == _layout(self._inputs)
            and _layout(targets) == _layout(self._targets)
            and _addresses(self._model) == self._addresses
        )

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The rows of another batch; the next call overwrites them."""
        self._inputs.copy_(inputs)
        self._targets.copy_(targets)
        self._graph.replay()
        return self._rows


def record(
    run: Pass, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor
) -> Graph | None:
    """A graph of the pass, or None where there can be none, which is logged."""
    try:
        return Graph(run, model, inputs, targets, rows)
    except RuntimeError as error:
        logger.info(
            "the pass is not recorded as a CUDA graph, so it is slower: %s",
            str(error).partition("\n")[0],
        )
        return None


def _layout(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _addresses(model: nn.Module) -> list[int]:
    """Where the weights and buffers lie in memory."""
    tensors = [*model.parameters(), *model.buffers()]
    return [tensor.data_ptr() for tensor in tensors]
