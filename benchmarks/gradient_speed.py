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
but for the plain pass, as training is. The error is relative to gradients in double precision (of a
few samples); a loop of single samples has one, too, as rounding can decide whether a ReLU lets a
gradient pass. Each peak of memory is measured in a fresh process.

On a GPU memory is that of the GPU, and includes what a way keeps from one call to the next.
Convolutions are in full float32 there, or with ``--tf32`` as torch has them unless told otherwise.

Run: ``python benchmarks/gradient_speed.py`` (about three minutes), with ``--device cuda`` on a GPU.
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
# Samples that the peers take at a time: all of them where memory allows.
CHUNKS = {"cpu": 16, "cuda": 128}
# Samples whose gradients are compared with those in double precision.
EXACT = 8


class Setting:
    """The network, the batch and the sampled weights.

    Args:
        batch: samples.
        device: where.
    """

    def __init__(self, batch: int, device: str) -> None:
        shape = (3, PIXELS, PIXELS)
        self.model = models.build_model(
            {"name": "resnet18"}, input_shape=shape, classes=CLASSES, seed=1
        )
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(batch, *shape, generator=generator)
        self.targets = torch.randint(CLASSES, (batch,), generator=generator)
        with torch.no_grad():  # Running statistics of activations, as after training.
            self.model.train()(self.inputs)
        self.model.eval().to(device)
        self.inputs, self.targets = self.inputs.to(device), self.targets.to(device)
        self.chunk = CHUNKS[device]
        self.sample = gradients.sample_parameters(
            self.model, uniform=UNIFORM, per_layer=PER_LAYER, seed=2
        )
        names = np.array(self.sample.names)
        offsets = self.sample.frame["offset"].to_numpy()
        self.located = {}
        for name in dict.fromkeys(self.sample.names):
            rows = np.flatnonzero(names == name)
            self.located[name] = (
                torch.from_numpy(rows).to(device),
                torch.from_numpy(offsets[rows]).to(device),
            )

    def exact(self, samples: int) -> torch.Tensor:
        """The same gradients of the first samples in double precision, by the loop."""
        double = copy.copy(self)
        double.model = copy.deepcopy(self.model).double()
        double.inputs = self.inputs[:samples].double()
        double.targets = self.targets[:samples]
        return loop(double)()

    def keep(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """(sampled weights, samples) of gradients (samples, ...); NaN where there are none."""
        first = next(iter(found.values()))
        samples = len(first)
        kept = first.new_full((len(self.sample), samples), torch.nan)
        for name, (rows, offsets) in self.located.items():
            if name in found:
                kept[rows] = found[name].reshape(samples, -1)[:, offsets].T
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
    anchor = torch.zeros((), device=setting.inputs.device, requires_grad=True)
    model.get_submodule("conv1").register_forward_hook(lambda module, args, output: output + anchor)
    inputs = setting.inputs
    if gradients.prefers_channels_last(inputs):
        inputs = inputs.contiguous(memory_format=torch.channels_last)

    def run() -> torch.Tensor:
        functional.cross_entropy(model(inputs), setting.targets).backward()
        return torch.empty(0)

    return run


def ours(setting: Setting) -> Callable[[], torch.Tensor]:
    engine = gradients.PerSampleGradients(setting.model, functional.cross_entropy, setting.sample)
    return lambda: engine(setting.inputs, setting.targets)


def loop(setting: Setting) -> Callable[[], torch.Tensor]:
    weights = dict(setting.model.named_parameters())

    def run() -> torch.Tensor:
        parts = []
        for x, y in zip(setting.inputs, setting.targets, strict=True):
            value = functional.cross_entropy(setting.model(x[None]), y[None])
            found = torch.autograd.grad(value, list(weights.values()))
            named = zip(weights, found, strict=True)
            parts.append(setting.keep({name: gradient[None] for name, gradient in named}))
        return torch.cat(parts, dim=1)

    return run


def vmap(setting: Setting) -> Callable[[], torch.Tensor]:
    model = setting.model
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def value(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        outputs = torch.func.functional_call(model, weights, (x[None],))
        return functional.cross_entropy(outputs, y[None])

    transformed = torch.func.vmap(torch.func.grad(value), in_dims=(None, 0, 0))

    def run() -> torch.Tensor:
        parts = []
        for first in range(0, len(setting.targets), setting.chunk):
            part = slice(first, first + setting.chunk)
            found = transformed(weights, setting.inputs[part], setting.targets[part])
            parts.append(setting.keep(found))
        return torch.cat(parts, dim=1)

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
        parts = []
        for first in range(0, len(setting.targets), setting.chunk):
            part = slice(first, first + setting.chunk)
            model.zero_grad()
            outputs = model(setting.inputs[part])
            functional.cross_entropy(outputs, setting.targets[part]).backward()
            found = {
                name.removeprefix("_module."): weight.grad_sample
                for name, weight in model.named_parameters()
                if weight.requires_grad
            }
            parts.append(setting.keep(found))
        return torch.cat(parts, dim=1)

    return run


WAYS: dict[str, Callable[[Setting], Callable[[], torch.Tensor]]] = {
    "plain forward and backward": plain,
    "plain, evaluation mode, channels-last": plain_channels_last,
    "activations alone": activations,
    "ours": ours,
    "loop of single samples": loop,
    "torch.func vmap(grad)": vmap,
    "Opacus": opacus,
}


def seconds_of(function: Callable[[], object]) -> float:
    """The mean time of a call in seconds, over half a second at least."""
    wait()
    begun = time.perf_counter()
    calls, passed = 0, 0.0
    while passed < 0.5:
        for _ in range(calls + 1):
            function()
        wait()
        calls += calls + 1
        passed = time.perf_counter() - begun
    return passed / calls


def wait() -> None:
    """Until a GPU has done what it was told."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_resident() -> int:
    """The largest resident size of this process so far, in bytes (from Linux's /proc)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def peak_on_the_cpu(way: str, batch: int) -> float:
    """The megabytes by which a call raises the peak of resident memory."""
    setting = Setting(2, "cpu")
    warm = WAYS[way](setting)
    warm()  # Compiles and loads what it needs.
    setting = Setting(batch, "cpu")
    call = WAYS[way](setting)
    Path("/proc/self/clear_refs").write_text("5")  # The peak counts from here.
    before = peak_resident()
    call()
    return (peak_resident() - before) / 2**20


def peak_on_the_gpu(way: str, setting: Setting) -> float:
    """The megabytes that a way takes at most, with all that it keeps from one call to another."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call = WAYS[way](setting)
    call()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--device", choices=list(CHUNKS), default="cpu")
    parser.add_argument("--tf32", action="store_true", help="as torch does on a GPU by default")
    parser.add_argument("--memory-of", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = arguments.tf32
    warnings.filterwarnings("ignore", message="Full backward hook is firing")  # Opacus
    device = arguments.device
    if arguments.memory_of:
        print(peak_on_the_cpu(arguments.memory_of, arguments.batch))
        return

    setting = Setting(arguments.batch, device)
    processor = platform.processor() or platform.machine()
    machine = f"{processor}, {arguments.threads} threads"
    if device == "cuda":
        machine = torch.cuda.get_device_name() + ", " + ("TF32" if arguments.tf32 else "float32")
    print(f"{machine}, load before {os.getloadavg()[0]:.1f}")
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    print(f"ResNet-18, {PIXELS} pixels, {arguments.batch} samples, {len(setting.sample)} weights")
    print()
    print("| | milliseconds | times the plain pass | memory, MiB | error |")
    print("| --- | ---: | ---: | ---: | ---: |")
    calls = {name: make(setting) for name, make in WAYS.items()}
    results = {name: call() for name, call in calls.items()}
    expected = setting.exact(EXACT).cpu()
    # One round of all after another, as the speed of a machine drifts; the slow peers but once.
    # Of the rounds the best counts: other work on the machine only adds.
    seconds = dict.fromkeys(calls, np.inf)
    for number in range(arguments.rounds):
        for name, call in calls.items():
            if number == 0 or seconds[name] < 2 * seconds["plain forward and backward"]:
                seconds[name] = min(seconds[name], seconds_of(call))
    for name in WAYS:
        if device == "cuda":
            calls.pop(name)
            memory = peak_on_the_gpu(name, setting)
        else:
            command = [sys.executable, __file__, "--memory-of", name]
            command += ["--threads", str(arguments.threads), "--batch", str(arguments.batch)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            memory = float(done.stdout.split()[-1])
        found = results[name].cpu().double()
        gap = "-"
        if found.numel():
            known = ~found[:, 0].isnan()
            error = (found[:, :EXACT] - expected)[known].norm() / expected[known].norm()
            gap = f"{error:.0e}"
        milliseconds = 1e3 * seconds[name]
        ratio = seconds[name] / seconds["plain forward and backward"]
        print(f"| {name} | {milliseconds:.3g} | {ratio:.2f} | {memory:.0f} | {gap} |", flush=True)


if __name__ == "__main__":
    main()
