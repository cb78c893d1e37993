"""Training a classifier to a checkpoint: a plain loop that repeats, continues and resumes exactly.

The order of the samples in an epoch depends on the seed and the number of the epoch alone, so a
training that continues from a checkpoint takes the same steps as one that never stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn import functional

from sgnoise import models, seeds
from sgnoise.datasets import Dataset, Part, Rows, unknown_name

logger = logging.getLogger("sgnoise")

OPTIMIZERS = ("sgd", "adam")

_EVALUATION_BATCH = 512
# A part of a data set whose inputs take less is copied to the device once; of a larger one each
# batch is read when it is needed.
_RESIDENT_BYTES = 2**31


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        epochs: the last epoch, counted from the first start: a run that continues from epoch 5 to
            ``epochs`` 8 trains three epochs.
        learning_rate: of the first epochs.
        batch_size: samples in a step.
        optimizer: ``sgd`` or ``adam``.
        momentum: of ``sgd``.
        weight_decay: of either.
        milestones: epochs after which the learning rate is multiplied by ``decay`` (once for each):
            with milestone 5, epoch 6 is the first at the new rate.
        decay: see ``milestones``.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    milestones: Sequence[int] = ()
    decay: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"training: optimizer {self.optimizer!r} is none of {OPTIMIZERS}")
        if self.optimizer != "sgd" and self.momentum:
            raise ValueError("training: momentum is an option of 'sgd' only")
        for name, smallest in (("epochs", 0), ("batch_size", 1)):
            if getattr(self, name) < smallest:
                raise ValueError(f"training: {name} is {getattr(self, name)}, below {smallest}")
        for name in ("learning_rate", "decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"training: {name} is {getattr(self, name)}; it must be positive")

    @classmethod
    def from_mapping(cls, training: Mapping[str, Any]) -> TrainingSettings:
        """The settings that a study gives.

        Raises:
            ValueError: an unknown or missing setting, or a wrong value.
        """
        known = [field.name for field in fields(cls)]
        for name in training:
            if name not in known:
                raise unknown_name("setting of the training", name, known)
        missing = {"epochs", "learning_rate", "batch_size"} - set(training)
        if missing:
            raise ValueError(f"training: missing settings {sorted(missing)}")
        return cls(**training)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        passed = sum(epoch > milestone for milestone in self.milestones)
        return self.learning_rate * self.decay**passed


def train(
    model: nn.Module,
    dataset: Dataset,
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device,
    parent_path: str | None = None,
    resume_path: str | None = None,
    checkpoint_seconds: float = 20.0,
) -> tuple[pd.DataFrame, torch.optim.Optimizer]:
    """Train ``model`` in place, by cross-entropy, up to epoch ``settings.epochs``.

    Args:
        model: the network, initialised; its weights are overwritten if there is a parent.
        dataset: training and test parts; the test part may be empty.
        settings: how.
        seed: of the order of the samples and of what is random in the network (dropout).
        device: where.
        parent_path: weights of a training to continue, from its last epoch on.
        resume_path: where to keep the state of an unfinished training. If the state of a training
            with these very settings is there, it goes on from there. Removed at the end.
        checkpoint_seconds: the least time between two writings of that state.

    Returns:
        A row for each epoch: ``epoch``, ``learning_rate``, and loss and accuracy over the whole
        training and test parts (NaN if empty) after it, in evaluation mode; epoch 0 is the state
        before any training and has no learning rate. And the optimizer in its last state.

    Raises:
        ValueError: the parent is already past the last epoch, or a loss is no longer finite.
    """
    model.to(device)
    # Convolutions of torch are fastest, some by a factor of two, with the channels last in memory.
    if len(dataset.input_shape) == 3:
        model.to(memory_format=torch.channels_last)
    samples, test_samples = Samples(dataset, "train", device), Samples(dataset, "test", device)
    optimizer = _optimizer(model, settings)

    start_epoch = 0
    if parent_path is not None:
        start_epoch = int(models.load_weights(parent_path, model).get("epoch", 0))
        _load_optimizer(optimizer, models.load_extra(parent_path))
        if start_epoch >= settings.epochs:
            raise ValueError(
                f"{parent_path} was trained to epoch {start_epoch}; 'epochs' counts from the first "
                f"start and is {settings.epochs}: nothing is left to train"
            )
    digest = _digest(model, dataset, settings, seed, start_epoch)
    history: list[dict[str, float]] = []
    epoch = start_epoch
    if resume_path is not None and _belongs(resume_path, digest):
        metadata = models.load_weights(resume_path, model)
        _load_optimizer(optimizer, models.load_extra(resume_path))
        history, epoch = json.loads(metadata["history"]), int(metadata["epoch"])
        logger.info("resuming after epoch %d", epoch)

    def record() -> None:
        train_loss, train_accuracy = evaluate(model, samples)
        test_loss, test_accuracy = evaluate(model, test_samples)
        rate = settings.rate(epoch) if epoch else float("nan")
        history.append(
            {
                "epoch": epoch,
                "learning_rate": rate,
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                "test_loss": test_loss,
                "test_accuracy": test_accuracy,
            }
        )
        logger.info(
            "epoch %d of %d: training loss %.4g, accuracy %.4f; test loss %.4g, accuracy %.4f",
            epoch,
            settings.epochs,
            train_loss,
            train_accuracy,
            test_loss,
            test_accuracy,
        )
        if not np.isfinite(train_loss):
            raise ValueError(
                f"the training loss is {train_loss} after epoch {epoch}; lower the learning rate "
                f"(now {settings.learning_rate})"
            )

    if epoch == 0 and not history:
        record()
    written = time.monotonic()
    while epoch < settings.epochs:
        epoch += 1
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(epoch)
        model.train()
        with _torch_seed(seeds.integer_seed(seed, "dropout", epoch), device):
            for rows in batches(len(samples), settings.batch_size, seed=seed, epoch=epoch):
                inputs, targets = samples[rows]
                optimizer.zero_grad(set_to_none=True)
                loss = functional.cross_entropy(model(inputs), targets)
                loss.backward()
                optimizer.step()
        record()
        if resume_path is not None and time.monotonic() - written >= checkpoint_seconds:
            models.save_weights(
                resume_path,
                model,
                metadata={"digest": digest, "epoch": str(epoch), "history": json.dumps(history)},
                extra=optimizer_tensors(optimizer),
            )
            written = time.monotonic()
    if resume_path is not None:
        Path(resume_path).unlink(missing_ok=True)
    return pd.DataFrame(history), optimizer


def batches(samples: int, batch_size: int, *, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """The rows of each step of an epoch: all samples once, in an order of that epoch's own.

    A last batch of one sample joins the one before it, as batch normalisation cannot train on one.
    """
    order = seeds.generator(seed, "batches", epoch).permutation(samples)
    edges = [*range(0, samples, batch_size), samples]
    if len(edges) > 2 and batch_size > 1 and edges[-1] - edges[-2] == 1:
        del edges[-2]
    for first, last in pairwise(edges):
        yield order[first:last]


class Samples:
    """The samples of one part of a data set, as tensors on a device: ``samples[rows]``."""

    def __init__(self, dataset: Dataset, part: Part, device: torch.device) -> None:
        self._read = partial(dataset.batch, part)
        self._size = dataset.size(part)
        self._device = device
        self._resident: tuple[torch.Tensor, torch.Tensor] | None = None
        if dataset.nbytes(part) <= _RESIDENT_BYTES:
            self._resident = self._moved(slice(None))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        if self._resident is None:
            return self._moved(rows)
        chosen = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self._device)
        inputs, targets = self._resident
        return inputs[chosen], targets[chosen]

    def _moved(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = self._read(rows)
        return torch.from_numpy(inputs).to(self._device), torch.from_numpy(targets).to(self._device)


@torch.no_grad()
def evaluate(model: nn.Module, samples: Samples) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in evaluation mode; NaN where there are no samples."""
    if not len(samples):
        return float("nan"), float("nan")
    model.eval()
    loss, correct = 0.0, 0
    for first in range(0, len(samples), _EVALUATION_BATCH):
        inputs, targets = samples[first : first + _EVALUATION_BATCH]
        outputs = model(inputs)
        loss += functional.cross_entropy(outputs, targets, reduction="sum").item()
        correct += int((outputs.argmax(dim=1) == targets).sum().item())
    return loss / len(samples), correct / len(samples)


@contextmanager
def deterministic() -> Iterator[None]:
    """Ask torch for algorithms that give the same result each time, wherever it has them."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    # Read by cuBLAS when it starts; without it torch refuses its matrix products.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What the optimizer remembers of each parameter (momentum, Adam's moments), by name."""
    return {
        f"{index}/{name}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if settings.optimizer == "adam":
        return torch.optim.Adam(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        parameters,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


@contextmanager
def _torch_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch for the block, and leave its random state as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _digest(
    model: nn.Module,
    dataset: Dataset,
    settings: TrainingSettings,
    seed: int,
    start_epoch: int,
) -> str:
    """A digest of all that decides how a training goes on."""
    plan = json.dumps([asdict(settings), seed, start_epoch, dataset.digest], sort_keys=True)
    digest = hashlib.sha256(plan.encode())
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _belongs(resume_path: str, digest: str) -> bool:
    """Whether there is the state of a training with this digest."""
    if not Path(resume_path).exists():
        return False
    try:
        with safe_open(resume_path, framework="pt") as file:
            found = (file.metadata() or {}).get("digest")
    except SafetensorError as error:
        logger.warning("%s: passed over: %s", resume_path, error)
        return False
    if found != digest:
        logger.warning("%s: passed over: left by a training with other settings", resume_path)
    return found == digest
