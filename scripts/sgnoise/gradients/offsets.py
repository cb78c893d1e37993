"""Which weights of a tensor are wanted, and what the kernels need to know of each."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np
import torch

_T = TypeVar("_T")


class Offsets:
    """Flat indices of weights in a tensor, and what was once derived from them.

    A network is called with batch after batch; where its weights are is worked out, and copied to
    the device, with the first.

    Args:
        numbers: int64.
    """

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers
        self._derived: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def derived(self, key: Hashable, derive: Callable[[np.ndarray], _T]) -> _T:
        """``derive(numbers)``, once for each ``key``."""
        if key not in self._derived:
            self._derived[key] = derive(self.numbers)
        found: _T = self._derived[key]
        return found

    @property
    def pairs(self) -> Pairs:
        """The numbers as channels, each with itself."""
        return self.derived("pairs", lambda numbers: Pairs(numbers, numbers))

    def on(self, device: torch.device) -> torch.Tensor:
        """The numbers on a device."""
        return self.derived(
            ("on", device), lambda numbers: torch.from_numpy(numbers.astype(np.int64)).to(device)
        )


class Pairs:
    """Chosen pairs of channels, those of weights.

    Args:
        inputs: the channel of what was received, of each k.
        outputs: the channel of the gradient of what was returned, of each k.
        down: of a convolution, the row of each k in its kernel, dilated.
        right: likewise, the column.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        outputs: np.ndarray,
        down: np.ndarray | None = None,
        right: np.ndarray | None = None,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.down = np.zeros_like(inputs) if down is None else down
        self.right = np.zeros_like(inputs) if right is None else right
        self._copies: dict[torch.device, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.inputs)

    def on(self, device: torch.device) -> torch.Tensor:
        """int32 (4, k) on a device: inputs, outputs, down, right."""
        if device not in self._copies:
            stacked = np.stack([self.inputs, self.outputs, self.down, self.right])
            self._copies[device] = torch.from_numpy(stacked.astype(np.int32)).to(device)
        return self._copies[device]
