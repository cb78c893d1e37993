"""Losses by name: what training minimises and whose gradients are dumped.

A loss is a function of the outputs of a network and of the targets, ``loss(network(inputs),
targets)``, and returns the mean over the batch. The contrastive loss holds the network too, as
the targets are texts that the network encodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional

from sgnoise.messages import unknown_name


class Loss(Protocol):
    """A loss.

    Attributes:
        by_sample: whether it is a mean of losses of single samples.
    """

    by_sample: bool

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean over the batch, a scalar."""

    def correct(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Which samples are assigned to the right target, bool, (n,)."""


class CrossEntropy:
    """Of logits (n, classes) and classes (n,)."""

    by_sample = True

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean over the batch."""
        return functional.cross_entropy(outputs, targets)

    def correct(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Whether the class has the largest logit."""
        return outputs.argmax(dim=1) == targets


class Contrastive:
    """Of image features (n, features) and the token ids (n, length) of their texts.

    The mean of two cross-entropies (Radford et al. 2021, Figure 3): to find the text of an image
    among those of the batch, and the image of a text. So it depends on the batch as a whole, and a
    sample has no gradient of its own.

    Args:
        network: encodes images when called, texts by ``encode_text``, and has a ``logit_scale``.
    """

    by_sample = False

    def __init__(self, network: nn.Module) -> None:
        for name in ("encode_text", "logit_scale"):
            if not hasattr(network, name):
                raise ValueError(
                    f"the contrastive loss needs a network of images and texts; {type(network)} "
                    f"has no {name!r} (networks of 'open_clip:' have)"
                )
        self._network = network

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean over the batch."""
        logits = self._logits(outputs, targets)
        own = torch.arange(len(logits), device=logits.device)
        loss = functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)
        return loss / 2

    def correct(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Whether the text of an image is nearest to it among those of the batch."""
        logits = self._logits(outputs, targets)
        return logits.argmax(dim=1) == torch.arange(len(logits), device=logits.device)

    def _logits(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        texts = self._network.encode_text(targets)  # type: ignore[operator]
        return self._network.logit_scale * outputs @ texts.T  # type: ignore[operator]


# A loss by its name, made for a network.
LOSSES: dict[str, Callable[[nn.Module], Loss]] = {
    "cross_entropy": lambda network: CrossEntropy(),
    "contrastive": Contrastive,
}


def loss_function(name: str, network: nn.Module) -> Loss:
    """The loss that a run names, one of ``LOSSES``.

    Raises:
        ValueError: an unknown name, or a network that the loss cannot take.
    """
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    return LOSSES[name](network)
