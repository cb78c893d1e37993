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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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

from sgnoise import models, seeds
from sgnoise.data.datasets import Dataset, Part, Rows
from sgnoise.gradients import world
from sgnoise.losses import Loss, loss_function
from sgnoise.messages import unknown_name

logger = logging.getLogger("sgnoise")

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Samples that are evaluated together at most, and numbers in their inputs: on the CPU so few that
# the activations stay in its cache (half the time of batches of 512 for a ResNet-20).
_CPU_EVALUATION = (128, 2**17)
_GPU_EVALUATION = (512, 2**24)
# A part of a data set whose inputs take less is copied to the device once; of a larger one each
# batch is read when it is needed.
_RESIDENT_BYTES = 2**30
# The name, in a checkpoint, of the state that belongs to no parameter.
_SCALER = "scaler"


@dataclass(frozen=True)
class Stop:
    """When a training has reached a minimum (A.4).

    Attributes:
        tolerance: the largest change of the loss of the full training data that counts as none.
        patience: epochs without a change: the training ends after the first epoch at which the
            losses after it and after each of the ``patience`` epochs before differ by at most
            ``tolerance``.
    """

    tolerance: float
    patience: int

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise ValueError(f"training: stop.tolerance is {self.tolerance}; it must be positive")
        if self.patience < 1:
            raise ValueError(f"training: stop.patience is {self.patience}, below 1")

    def reached(self, losses: Sequence[float]) -> bool:
        """Whether the last of these losses, one an epoch, is that of a minimum."""
        last = losses[-self.patience - 1 :]
        return len(last) > self.patience and max(last) - min(last) <= self.tolerance


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        epochs: the last epoch, counted from the first start: a run that continues from epoch 5 to
            ``epochs`` 8 trains three epochs. With 0 the weights stay as they are.
        learning_rate: of the first epochs.
        batch_size: samples in a step.
        optimizer: one of ``OPTIMIZERS``.
        momentum: of ``sgd``.
        weight_decay: ``adamw`` takes it from the weights, the others add it to the gradients.
        milestones: epochs after which the learning rate is multiplied by ``decay`` (once for each):
            with milestone 5, epoch 6 is the first at the new rate.
        decay: see ``milestones``.
        precision: ``float32``, or ``bfloat16`` or ``float16`` for mixed precision, which is fast on
            a GPU: the weights and the recorded losses stay those of float32.
        evaluate_every: epochs from one evaluation of all data to the next.
        stop: end before ``epochs`` when the loss stands still; None: do not.
    """

    epochs: int
    learning_rate: float = 0.01
    batch_size: int = 128
    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    milestones: Sequence[int] = ()
    decay: float = 0.1
    precision: str = "float32"
    evaluate_every: int = 1
    stop: Stop | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer of the training", self.optimizer, OPTIMIZERS)
        if self.precision not in PRECISIONS:
            raise unknown_name("precision of the training", self.precision, PRECISIONS)
        if self.optimizer != "sgd" and self.momentum:
            raise ValueError("training: momentum is an option of 'sgd' only")
        for name, smallest in (("epochs", 0), ("batch_size", 1), ("evaluate_every", 1)):
            if getattr(self, name) < smallest:
                raise ValueError(f"training: {name} is {getattr(self, name)}, below {smallest}")
        for name in ("learning_rate", "decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"training: {name} is {getattr(self, name)}; it must be positive")
        if self.stop is not None and self.evaluate_every != 1:
            raise ValueError("training: 'stop' looks at every epoch; leave out 'evaluate_every'")

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
        for name in known:
            if name not in training and name != "stop":
                raise ValueError(f"training: the setting {name!r} is missing")
        settings = dict(training)
        if settings.get("stop") is not None:
            settings["stop"] = Stop(**settings["stop"])
        return cls(**settings)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        passed = sum(epoch > milestone for milestone in self.milestones)
        return self.learning_rate * self.decay**passed

    def evaluated(self, epoch: int) -> bool:
        """Whether all data are evaluated after this epoch."""
        return epoch % self.evaluate_every == 0 or epoch == self.epochs


def _sgd(weights: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        weights,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def _adam(weights: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.Adam(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _adamw(weights: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)


OPTIMIZERS = {"sgd": _sgd, "adam": _adam, "adamw": _adamw}


@dataclass(frozen=True)
class Trained:
    """What a training leaves besides the weights.

    Attributes:
        epoch: the last.
        history: a row for each epoch that was evaluated: ``epoch``, ``learning_rate``, and loss and
            accuracy over the whole training and test parts (NaN if empty) after it, in evaluation
            mode; epoch 0 is the state before any training and has no learning rate.
        state: what the optimizer remembers, by name; what a training that goes on needs.
    """

    epoch: int
    history: pd.DataFrame
    state: dict[str, torch.Tensor]


def train(
    model: nn.Module,
    dataset: Dataset,
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device,
    loss: str = "cross_entropy",
    parent_path: str | None = None,
    resume_path: str | None = None,
    resume_key: str = "",
    checkpoint_seconds: float = 20.0,
) -> Trained:
    """Train ``model`` in place up to epoch ``settings.epochs``, or until ``settings.stop``.

    The result depends on nothing but the arguments, the machine and the number of torch's threads
    (sums are split among them): not on whether the training was killed and resumed.

    Args:
        model: the network, initialised; its weights are overwritten if there is a parent.
        dataset: training and test parts; the test part may be empty.
        settings: how.
        seed: of the order of the samples and of what is random in the network (dropout).
        device: where.
        loss: see ``sgnoise.losses``.
        parent_path: weights of a training to continue, from its last epoch on.
        resume_path: where to keep the state of an unfinished training. If the state of a training
            with these very settings is there, it goes on from there. The caller removes it, after
            it has written the result.
        resume_key: what else decides the training and is not seen from the weights, such as what
            the network does with them, as text; the state of a training with another one is passed
            over.
        checkpoint_seconds: the least time between two writings of that state; times the seconds
            that a writing takes, if more than one.

    Raises:
        ValueError: the parent is already past the last epoch, or a loss is no longer finite.
    """
    model.to(device)
    samples, test_samples = Samples(dataset, "train", device), Samples(dataset, "test", device)
    objective = loss_function(loss, model)
    strides = [parameter.stride() for parameter in model.parameters()]
    if len(dataset.input_shape) == 3:
        _channels_last(model, objective, samples)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = OPTIMIZERS[settings.optimizer](weights, settings)
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")

    start_epoch = 0
    if parent_path is not None:
        start_epoch = int(models.load_weights(parent_path, model).get("epoch", 0))
        _load_state(optimizer, scaler, models.load_extra(parent_path))
        if start_epoch >= settings.epochs:
            raise ValueError(
                f"{parent_path} was trained to epoch {start_epoch}; 'epochs' counts from the first "
                f"start and is {settings.epochs}: nothing is left to train"
            )
    digest = _digest(model, dataset, settings, loss, seed, start_epoch, resume_key)
    history: list[dict[str, float]] = []
    epoch = start_epoch
    if resume_path is not None and _belongs(resume_path, digest):
        metadata = models.load_weights(resume_path, model)
        _load_state(optimizer, scaler, models.load_extra(resume_path))
        history, epoch = json.loads(metadata["history"]), int(metadata["epoch"])
        logger.info("resuming after epoch %d", epoch)

    def record() -> None:
        train_loss, train_accuracy = evaluate(model, objective, samples, settings.batch_size)
        test_loss, test_accuracy = evaluate(model, objective, test_samples, settings.batch_size)
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

    def at_minimum() -> bool:
        losses = [row["train_loss"] for row in history]
        return settings.stop is not None and settings.stop.reached(losses)

    if epoch == 0 and not history:
        record()
    written, pause = time.monotonic(), checkpoint_seconds
    while epoch < settings.epochs and not at_minimum():
        epoch += 1
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(epoch)
        model.train()
        with _torch_seed(seeds.integer_seed(seed, "dropout", epoch), device):
            order = batches(len(samples), settings.batch_size, seed=seed, epoch=epoch)
            for inputs, targets in samples.stream(order):
                optimizer.zero_grad(set_to_none=True)
                with _autocast(device, settings.precision):
                    value = objective(model(inputs), targets)
                scaler.scale(value).backward()
                scaler.step(optimizer)
                scaler.update()
        if settings.evaluated(epoch):
            record()
        if resume_path is not None and time.monotonic() - written >= pause:
            started = time.monotonic()
            models.save_weights(
                resume_path,
                model,
                metadata={"digest": digest, "epoch": str(epoch), "history": json.dumps(history)},
                extra=_state(optimizer, scaler),
            )
            written = time.monotonic()
            # A large network's state takes seconds to write: 5 % of the time at most.
            pause = checkpoint_seconds * max(1.0, written - started)
    if settings.stop is not None and not at_minimum():
        logger.warning(
            "not a minimum by A.4: in the last %d epochs the training loss still varied by more "
            "than %g; raise 'epochs' or the tolerance",
            settings.stop.patience,
            settings.stop.tolerance,
        )
    for parameter, stride in zip(model.parameters(), strides, strict=True):
        if parameter.stride() != stride:
            before = torch.empty_strided(
                parameter.shape, stride, dtype=parameter.dtype, device=parameter.device
            )
            parameter.data = before.copy_(parameter.detach())
    return Trained(epoch, pd.DataFrame(history), _state(optimizer, scaler))


def _channels_last(model: nn.Module, loss: Loss, samples: Samples) -> None:
    """Arrange weights with the channels last in memory, unless the network refuses that.

    Convolutions of torch are fastest so, some by a factor of two. But ``x.view(len(x), -1)`` behind
    a convolution, as many networks have it, needs the channels first.
    """
    inputs, targets = samples[0:2]
    model.to(memory_format=torch.channels_last)
    if _passes(model, loss, inputs, targets):
        return
    model.to(memory_format=torch.contiguous_format)
    if _passes(model, loss, inputs, targets):
        logger.info(
            "so the network does not take images with the channels last in memory, and training "
            "may be slower"
        )
    else:
        # Two samples are not enough for it, or it is at fault: the training itself will tell.
        model.to(memory_format=torch.channels_last)


def _passes(model: nn.Module, loss: Loss, inputs: torch.Tensor, targets: torch.Tensor) -> bool:
    """Whether a pass in each mode ends without an error; model and random numbers stay as they are.

    The error goes to the log and no further: were it handed on, the words of all errors of this
    project would count in the digest of the code.
    """
    modes = [(module, module.training) for module in model.modules()]
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    buffers, random_state = world.Buffers(model), world.RandomState(inputs.device)
    try:
        for training in (True, False):
            value = loss(model.train(training)(inputs.clone()), targets)
            torch.autograd.grad(value, weights, allow_unused=True)
    except Exception as error:
        logger.info("a pass of two samples ends with: %s", str(error).partition("\n")[0])
        return False
    finally:
        for module, mode in modes:
            module.training = mode
        buffers.put_back()
        random_state.put_back()
    return True


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
        self.device = device
        self._resident: tuple[torch.Tensor, torch.Tensor] | None = None
        if dataset.nbytes(part) <= _RESIDENT_BYTES:
            self._resident = self._moved(slice(None))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        if self._resident is None:
            return self._moved(rows)
        chosen = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.device)
        inputs, targets = self._resident
        return inputs[chosen], targets[chosen]

    def stream(self, parts: Iterable[Rows]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batch after batch; what is not in memory is read while the batch before it is in use."""
        if self._resident is not None:
            for rows in parts:
                yield self[rows]
            return
        with ThreadPoolExecutor(1) as reader:
            coming: Future[tuple[torch.Tensor, torch.Tensor]] | None = None
            for rows in parts:
                following = reader.submit(self._moved, rows)
                if coming is not None:
                    yield coming.result()
                coming = following
            if coming is not None:
                yield coming.result()

    def _moved(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = self._read(rows)
        return torch.from_numpy(inputs).to(self.device), torch.from_numpy(targets).to(self.device)


@torch.no_grad()
def evaluate(
    model: nn.Module, loss: Loss, samples: Samples, batch_size: int
) -> tuple[float, float]:
    """Mean loss and accuracy in evaluation mode; NaN where there are no samples.

    Args:
        model: the network.
        loss: of its outputs.
        samples: all of them are evaluated.
        batch_size: samples in a batch, where the loss depends on that.
    """
    count = len(samples)
    if not count:
        return float("nan"), float("nan")
    model.eval()
    if loss.by_sample:
        most, numbers = _CPU_EVALUATION if samples.device.type == "cpu" else _GPU_EVALUATION
        batch_size = min(most, max(16, numbers // samples[0:1][0].numel()))
    total, correct = torch.zeros(2, dtype=torch.float64, device=samples.device)
    for inputs, targets in samples.stream(
        slice(first, first + batch_size) for first in range(0, count, batch_size)
    ):
        outputs = model(inputs)
        total += loss(outputs, targets).double() * len(targets)
        correct += loss.correct(outputs, targets).sum()
    return total.item() / count, correct.item() / count


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


def _state(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> dict[str, torch.Tensor]:
    """What the optimizer remembers of each parameter (momentum, Adam's moments), by name.

    Of mixed precision with float16 also the factor of the loss.
    """
    tensors = {
        f"{index}/{name}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }
    scaling = {
        f"{_SCALER}/{name}": torch.tensor(value, dtype=torch.float64)
        for name, value in scaler.state_dict().items()
    }
    return tensors | scaling


def _load_state(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """What ``_state`` returned, also of another kind of optimizer or precision."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    scaling = dict(scaler.state_dict())
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        if index == _SCALER and name in scaling:
            scaling[name] = type(scaling[name])(tensor.item())
        elif index != _SCALER:
            state.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    if scaling:
        scaler.load_state_dict(scaling)


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision for the block, if asked for."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


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
    loss: str,
    seed: int,
    start_epoch: int,
    key: str,
) -> str:
    """A digest of all that decides how a training goes on."""
    facts = [asdict(settings), loss, seed, start_epoch, dataset.digest, key]
    plan = json.dumps(facts, sort_keys=True)
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
        logger.warning("%s: passed over: left by another training", resume_path)
    return found == digest
