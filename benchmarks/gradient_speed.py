"""Gradients of single samples, by this project and by its peers, in one run on the same batch.

The network is ResNet-18 for 32-pixel images in float32; the gradients are those of some 10,500
sampled weights. Compared are

- plain: forward and backward pass for the gradient of the whole batch, as in training; the same in
  evaluation mode with activations channels-last; and forward and backward through the activations
  alone, which any gradient of a sample needs;
- ours: ``sgnoise.gradients.PerSampleGradients``;
- loop: a forward and backward pass for each sample, keeping the sampled weights;
- vmap: ``torch.func.vmap(grad)``, in chunks that fit in memory;
- Opacus: ``GradSampleModule``, hooks that form the gradients of all weights for each sample (but
  those of batch normalisation, which it does not take), in such chunks.

All but ours form all gradients and then keep the sampled ones. The network is in evaluation mode
but for the plain pass, as training is. Each peak of memory is measured in a fresh process. The
error is relative to gradients in double precision (of a few samples); a loop of single samples has
one, too, as rounding can decide whether a ReLU lets a gradient pass.

Run: ``python benchmarks/gradient_speed.py`` (about three minutes).
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from sgnoise import gradients, models

PIXELS, CLASSES, BATCH = 32, 10, 128
UNIFORM, PER_LAYER = 10_000, 12
VMAP_CHUNK = 16
# Samples whose gradients are compared with those in double precision.
EXACT = 8


class Setting:
    """The network, the batch and the sampled weights.

    Args:
        batch: samples.
    """

    def __init__(self, batch: int) -> None:
        shape = (3, PIXELS, PIXELS)
        self.model = models.build_model(
            {"name": "resnet18"}, input_shape=shape, classes=CLASSES, seed=1
        )
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(batch, *shape, generator=generator)
        self.targets = torch.randint(CLASSES, (batch,), generator=generator)
        with torch.no_grad():  # Running statistics of activations, as after training.
            self.model.train()(self.inputs)
        self.model.eval()
        self.sample = gradients.sample_parameters(
            self.model, uniform=UNIFORM, per_layer=PER_LAYER, seed=2
        )
        self.places = {
            name: np.flatnonzero(np.array(self.sample.names) == name)
            for name in dict.fromkeys(self.sample.names)
        }

    def exact(self, samples: int) -> torch.Tensor:
        """The same gradients of the first samples in double precision, by the loop."""
        double = copy.copy(self)
        double.model = copy.deepcopy(self.model).double()
        double.inputs = self.inputs[:samples].double()
        double.targets = self.targets[:samples]
        return loop(double)()

    def keep(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """(samples, sampled weights) of gradients (samples, ...); NaN where there are none."""
        samples = len(next(iter(found.values())))
        kept = torch.full((samples, len(self.sample)), torch.nan, dtype=torch.float64)
        offsets = torch.from_numpy(self.sample.frame["offset"].to_numpy())
        for name, columns in self.places.items():
            if name in found:
                kept[:, columns] = found[name].reshape(samples, -1)[:, offsets[columns]].double()
        return kept


def plain(setting: Setting) -> Callable[[], torch.Tensor]:
    model = copy.deepcopy(setting.model).train()

    def run() -> torch.Tensor:
        model.zero_grad()
        functional.cross_entropy(model(setting.inputs), setting.targets).backward()
        return torch.empty(0)

    return run


def plain_channels_last(setting: Setting) -> Callable[[], torch.Tensor]:
    layout = torch.channels_last
    model = copy.deepcopy(setting.model).to(memory_format=layout)
    inputs = setting.inputs.contiguous(memory_format=layout)

    def run() -> torch.Tensor:
        model.zero_grad()
        functional.cross_entropy(model(inputs), setting.targets).backward()
        return torch.empty(0)

    return run


def activations(setting: Setting) -> Callable[[], torch.Tensor]:
    model = copy.deepcopy(setting.model).requires_grad_(False)
    # The gradient of the inputs of the first layer is needed by nobody.
    anchor = torch.zeros((), requires_grad=True)
    model.get_submodule("conv1").register_forward_hook(lambda module, args, output: output + anchor)
    inputs = setting.inputs.contiguous(memory_format=torch.channels_last)

    def run() -> torch.Tensor:
        functional.cross_entropy(model(inputs), setting.targets).backward()
        return torch.empty(0)

    return run


def ours(setting: Setting) -> Callable[[], torch.Tensor]:
    engine = gradients.PerSampleGradients(setting.model, functional.cross_entropy, setting.sample)
    return lambda: engine(setting.inputs, setting.targets).T


def loop(setting: Setting) -> Callable[[], torch.Tensor]:
    weights = dict(setting.model.named_parameters())

    def run() -> torch.Tensor:
        rows = []
        for x, y in zip(setting.inputs, setting.targets, strict=True):
            value = functional.cross_entropy(setting.model(x[None]), y[None])
            found = torch.autograd.grad(value, list(weights.values()))
            named = zip(weights, found, strict=True)
            rows.append(setting.keep({name: gradient[None] for name, gradient in named}))
        return torch.cat(rows)

    return run


def vmap(setting: Setting) -> Callable[[], torch.Tensor]:
    model = setting.model
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def value(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        outputs = torch.func.functional_call(model, weights, (x[None],))
        return functional.cross_entropy(outputs, y[None])

    transformed = torch.func.vmap(torch.func.grad(value), in_dims=(None, 0, 0))

    def run() -> torch.Tensor:
        rows = []
        for first in range(0, len(setting.targets), VMAP_CHUNK):
            part = slice(first, first + VMAP_CHUNK)
            found = transformed(weights, setting.inputs[part], setting.targets[part])
            rows.append(setting.keep(found))
        return torch.cat(rows)

    return run


def opacus(setting: Setting) -> Callable[[], torch.Tensor]:
    from opacus.grad_sample import GradSampleModule  # type: ignore[import-untyped]
    from torchvision.models.resnet import BasicBlock

    def out_of_place(block: BasicBlock, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if block.downsample is None else block.downsample(x)
        x = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x)))))
        return block.relu(x + shortcut)

    # Its hooks work in training mode only, and it takes no batch normalisation, which would mix
    # samples then: that one stays in evaluation mode, and its few weights are left out.
    model = copy.deepcopy(setting.model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    # Its hooks of the backward pass allow nothing in place.
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
        elif isinstance(module, BasicBlock):
            module.forward = partial(out_of_place, module)
    model = GradSampleModule(model, strict=False, loss_reduction="mean")

    def run() -> torch.Tensor:
        rows = []
        for first in range(0, len(setting.targets), VMAP_CHUNK):
            part = slice(first, first + VMAP_CHUNK)
            model.zero_grad()
            outputs = model(setting.inputs[part])
            functional.cross_entropy(outputs, setting.targets[part]).backward()
            found = {
                name.removeprefix("_module."): weight.grad_sample
                for name, weight in model.named_parameters()
                if weight.requires_grad
            }
            rows.append(setting.keep(found))
        return torch.cat(rows)

    return run


WAYS: dict[str, Callable[[Setting], Callable[[], torch.Tensor]]] = {
    "plain forward and backward": plain,
    "plain, evaluation mode, channels-last": plain_channels_last,
    "activations alone, channels-last": activations,
    "ours": ours,
    "loop of single samples": loop,
    "torch.func vmap(grad)": vmap,
    "Opacus": opacus,
}


def best_of(rounds: int, function: Callable[[], object]) -> float:
    """The shortest time in seconds: other work on the machine only adds."""
    best = np.inf
    for _ in range(rounds):
        begun = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begun)
    return best


def peak_resident() -> int:
    """The largest resident size of this process so far, in bytes (from Linux's /proc)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def peak_memory(way: str, batch: int) -> None:
    """Print the megabytes by which a call raises the peak of resident memory."""
    setting = Setting(2)
    warm = WAYS[way](setting)
    warm()  # Compiles and loads what it needs.
    setting = Setting(batch)
    call = WAYS[way](setting)
    Path("/proc/self/clear_refs").write_text("5")  # The peak counts from here.
    before = peak_resident()
    call()
    print((peak_resident() - before) / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--memory-of", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", message="Full backward hook is firing")  # Opacus
    if arguments.memory_of:
        peak_memory(arguments.memory_of, arguments.batch)
        return

    setting = Setting(arguments.batch)
    print(
        f"{platform.processor() or platform.machine()}, {arguments.threads} threads, load before "
    )
    print(
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(f"ResNet-18, {PIXELS} pixels, {arguments.batch} samples, {len(setting.sample)} weights")
    print()
    print("| | seconds | times the plain pass | memory, MiB | error |")
    print("| --- | ---: | ---: | ---: | ---: |")
    calls = {name: make(setting) for name, make in WAYS.items()}
    results = {name: call() for name, call in calls.items()}
    expected = setting.exact(EXACT)
    # One round of all after another, as the speed of a machine drifts; the slow peers but once.
    seconds = dict.fromkeys(calls, np.inf)
    for number in range(arguments.rounds):
        for name, call in calls.items():
            if number == 0 or seconds[name] < 2 * seconds["plain forward and backward"]:
                seconds[name] = min(seconds[name], best_of(1, call))
    for name in calls:
        command = [sys.executable, __file__, "--memory-of", name]
        command += ["--threads", str(arguments.threads), "--batch", str(arguments.batch)]
        memory = float(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
        )
        found = results[name]
        gap = "-"
        if found.numel():
            known = ~found[0].isnan()
            error = (found[:EXACT] - expected)[:, known].norm() / expected[:, known].norm()
            gap = f"{error:.0e}"
        ratio = seconds[name] / seconds["plain forward and backward"]
        print(f"| {name} | {seconds[name]:.2f} | {ratio:.2f} | {memory:.0f} | {gap} |", flush=True)


if __name__ == "__main__":
    main()
