"""Gradients of sampled parameters against plain autograd."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from dump_gradients import dump_gradients
from sgnoise import devices, gradients, models, noise, seeds, store
from sgnoise.data import datasets
from sgnoise.data.sources import prepare
from sgnoise.gradients import contractions, rules

CLASSES = 3
SAMPLES = 5

# The kernels for a GPU run in Triton's interpreter where there is none, see conftest.py.
ROUTES = ["cpu", "torch"]
if importlib.util.find_spec("triton") and not torch.cuda.is_available():
    ROUTES.append("gpu")

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def take_route(patch: pytest.MonkeyPatch, route: str) -> None:
    """Have the sums formed by the kernels for a CPU or for a GPU, or by torch in small chunks."""
    patch.setattr(contractions, "_has_kernels", lambda *tensors: route == "cpu")
    patch.setattr(contractions, "_has_gpu_kernels", lambda *tensors: route == "gpu")
    patch.setattr(contractions, "CHUNK_NUMBERS", 100)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So that the time of the tests does not depend on what else the machine does."""
    with devices.cpu_threads(1):
        yield


def randomised(model: nn.Module) -> nn.Module:
    """Running statistics and affine weights as after some training, not their neutral values."""
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            for tensor in (module.weight, module.bias):
                tensor.data += 0.3 * torch.randn(tensor.shape, generator=generator)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            noise = torch.randn(2, module.num_features, generator=generator)
            module.get_buffer("running_mean").add_(0.3 * noise[0])
            module.get_buffer("running_var").mul_((0.3 * noise[1]).exp())
    return model


def loop(
    model: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    sample: gradients.ParameterSample,
) -> torch.Tensor:
    """The same gradients, one sample after another, with nothing but autograd."""
    model.eval()
    parameters = dict(model.named_parameters())
    columns = []
    for x, y in zip(inputs, targets, strict=True):
        model.zero_grad()
        functional.cross_entropy(model(x[None]), y[None]).backward()
        columns.append(
            torch.stack(
                [
                    parameters[name].new_zeros(())
                    if (grad := parameters[name].grad) is None
                    else grad.flatten()[o]
                    for name, o in zip(sample.names, sample.frame["offset"], strict=True)
                ]
            )
        )
    model.zero_grad()
    return torch.stack(columns, dim=1)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def data(*shape: int, samples: int = SAMPLES, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, *shape, generator=generator)
    return inputs, torch.randint(CLASSES, (samples,), generator=generator)


def build(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return randomised(make())


def head(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(CLASSES))


class Shared(nn.Module):
    """One layer called three times, and an embedding whose weights are a linear layer's as well."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.inner = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 7, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedding(x)
        for _ in range(3):
            x = torch.tanh(self.inner(x))
        return self.decoder(x).mean(dim=1)


class Scaled(nn.Module):
    """Weights of its own, used without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 4))
        self.linear = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.sin(x * self.scale))


class Functional(nn.Module):
    """Weights of layers that are never called, and views of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 6)
        self.last = nn.Parameter(torch.linspace(-1, 1, 4 * CLASSES).reshape(4, CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.linear(self.first(x).relu(), self.second.weight[:4], self.second.bias[:4])
        return x.tanh() @ self.last + functional.linear(x, self.last.T)


class Tokens(nn.Module):
    """A vision transformer's way with weights: class token, positions, attention, layer scale."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.embedding = nn.Embedding(7, 4, padding_idx=0)
        self.places = nn.Embedding(5, 4)
        self.token = nn.Parameter(torch.linspace(-1, 1, 4))
        self.positions = nn.Parameter(torch.linspace(-1, 1, 24).reshape(1, 6, 4))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=batch_first)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 4))
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedding(x) + self.places(torch.arange(5)[None])
        x = torch.cat([self.token[None, None].expand(len(x), -1, -1), x], dim=1) + self.positions
        y = x if self.batch_first else x.transpose(0, 1)
        y, _ = self.attention(y, y, y, need_weights=False)
        x = x + (y if self.batch_first else y.transpose(0, 1)) * self.scale
        return self.head(x[:, 0])


class Squared(nn.Module):
    """Weights that are transformed before they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 4))
        self.linear = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.sin(x * self.scale.square()))


class Hidden(torch.autograd.Function):
    """A product with a matrix where no function of torch shows it."""

    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x @ weight.T

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight = ctx.saved_tensors
        return gradient @ weight, gradient.T @ x

    generate_vmap_rule = True


class Opaque(nn.Module):
    """Weights that only a function of somebody else sees."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, CLASSES, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Hidden.apply(self.first(x).relu(), self.second.weight)


class SequenceFirst(nn.Module):
    """A linear layer that sees the samples in its second dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 4)
        self.outer = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.tanh(self.inner(x.transpose(0, 1)).transpose(0, 1)).mean(dim=1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: head(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4, bias=False)), (6,)),
    "linear on tokens": (lambda: head(nn.Linear(6, 5), nn.GELU()), (2, 3, 6)),
    "conv1d": (lambda: head(nn.Conv1d(3, 4, 3, stride=2, padding=2, dilation=2)), (3, 9)),
    "conv1d circular": (
        lambda: head(nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular")),
        (2, 6),
    ),
    "conv2d": (lambda: head(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True)), (3, 5, 6)),
    "conv2d strided": (lambda: head(nn.Conv2d(2, 4, (3, 2), (2, 3), (1, 0))), (2, 7, 8)),
    "conv2d dilated": (lambda: head(nn.Conv2d(2, 3, 3, padding=2, dilation=2)), (2, 6, 5)),
    "conv2d wide padding": (lambda: head(nn.Conv2d(2, 3, 3, padding=3, stride=3)), (2, 4, 4)),
    "conv2d kernel beyond image": (lambda: head(nn.Conv2d(2, 3, 5, padding=2)), (2, 2, 1)),
    "conv2d same": (lambda: head(nn.Conv2d(2, 3, 3, padding="same", dilation=2)), (2, 5, 5)),
    "conv2d reflect": (
        lambda: head(nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect")),
        (2, 5, 6),
    ),
    "conv2d grouped": (lambda: head(nn.Conv2d(4, 6, 3, groups=2)), (4, 5, 5)),
    "conv2d depthwise": (lambda: head(nn.Conv2d(4, 8, 3, stride=2, groups=4)), (4, 6, 6)),
    "batch norm 1d": (lambda: head(nn.Linear(4, 5), nn.BatchNorm1d(5)), (4,)),
    "batch norm 2d": (lambda: head(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), (2, 5, 5)),
    "layer norm": (lambda: head(nn.Linear(4, 6), nn.LayerNorm(6)), (3, 4)),
    "layer norm 2d": (lambda: head(nn.LayerNorm((3, 4))), (2, 3, 4)),
    "conv2d same, even kernel": (
        lambda: head(nn.Conv2d(2, 3, (2, 4), padding="same", dilation=(1, 3))),
        (2, 6, 7),
    ),
    "layer scale": (Scaled, (4,)),
    "functional": (Functional, (4,)),
    "rms norm": (lambda: head(nn.Linear(4, 6), nn.RMSNorm(6)), (3, 4)),
    "group norm": (lambda: head(nn.Conv2d(2, 6, 3), nn.GroupNorm(3, 6)), (2, 5, 5)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_equals_autograd(name: str, caplog: pytest.LogCaptureFixture) -> None:
    make, shape = NETWORKS[name]
    inputs, targets = data(*shape)
    model = build(make)
    model(inputs)
    sample = gradients.sample_parameters(model, uniform=60, per_layer=20, seed=2)
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    found = engine(inputs, targets)
    expected = loop(model, inputs, targets, sample)
    assert found.shape == (len(sample), SAMPLES)
    assert not engine.fallback
    assert not caplog.records
    for layer in sample.frame["layer"].unique():
        rows = (sample.frame["layer"] == layer).to_numpy()
        assert relative_error(found[rows], expected[rows]) < 1e-5


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("route", ROUTES[1:])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_rules_for_other_devices_agree(
    name: str, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, shape = NETWORKS[name]
    inputs, targets = data(*shape)
    model = build(make)
    model(inputs)
    sample = gradients.sample_parameters(model, uniform=60, per_layer=20, seed=2)
    arguments = (model, functional.cross_entropy, inputs, targets, sample)
    with_kernels = gradients.per_sample_gradients(*arguments)
    take_route(monkeypatch, route)
    assert relative_error(gradients.per_sample_gradients(*arguments), with_kernels) < 1e-5


@given(
    image=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    route=st.sampled_from(ROUTES),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_convolution_equals_autograd(
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    route: str,
) -> None:
    conv = nn.Conv2d(2, 2, kernel, stride, padding, dilation, bias=False)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if any(s + 2 * p < r for s, p, r in zip(image, padding, reach, strict=True)):
        return
    x = torch.randn(2, 2, *image, generator=torch.Generator().manual_seed(3))
    y = conv(x)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    count = conv.weight.numel()
    rows = torch.zeros(count, 2)
    with pytest.MonkeyPatch.context() as patch:
        take_route(patch, route)
        rule = rules.RULES[functional.conv2d]
        call = rule(x, conv.weight, None, stride, padding, dilation)
        call.parts[0].add(rows, contractions.Offsets(np.arange(count)), x, g)
    for s in range(2):
        (expected,) = torch.autograd.grad(conv(x[s : s + 1]), conv.weight, g[s : s + 1])
        torch.testing.assert_close(rows[:, s], expected.flatten(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mlp", (1, 8, 8)), ("resnet20", (1, 8, 8)), ("mobilenet_v3_small", (3, 8, 8))],
)
def test_networks_equal_autograd(name: str, shape: tuple[int, ...]) -> None:
    inputs, targets = data(*shape, samples=3)
    model = models.build_model({"name": name}, input_shape=shape, classes=CLASSES, seed=1)
    with torch.no_grad():  # statistics of real activations, as after training
        for _ in range(3):
            model.train()(data(*shape, samples=32)[0])
    sample = gradients.sample_parameters(model, uniform=300, per_layer=3, seed=2)
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    found = engine(inputs, targets)
    assert not engine.fallback
    assert relative_error(found, loop(model, inputs, targets, sample)) < 1e-5


def test_a_batch_is_taken_in_parts_where_its_activations_are_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, shape = NETWORKS["conv2d strided"]
    inputs, targets = data(*shape)
    model = build(make)
    model(inputs)
    sample = gradients.sample_parameters(model, uniform=60, per_layer=20, seed=2)
    expected = loop(model, inputs, targets, sample)
    whole = gradients.PerSampleGradients._pass_through_activations
    sizes = []

    def passes(engine: Any, inputs: torch.Tensor, *rest: torch.Tensor) -> None:
        sizes.append(len(inputs))
        whole(engine, inputs, *rest)

    monkeypatch.setattr(gradients.PerSampleGradients, "_pass_through_activations", passes)
    monkeypatch.setattr("sgnoise.gradients.engine._LARGEST_ACTIVATIONS", 1)
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    for _ in range(2):
        assert relative_error(engine(inputs, targets), expected) < 1e-5
    # The first pass shows how large they are.
    assert sizes == [SAMPLES] + [1] * SAMPLES


@pytest.mark.parametrize("route", ROUTES)
def test_a_view_without_sampled_weights_has_no_rows(
    route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_route(monkeypatch, route)
    none = contractions.Offsets(np.arange(0))
    x, g = torch.ones(2, 3), torch.ones(2, 4)
    rows = torch.zeros(0, 2)
    for part in rules.RULES[functional.linear](x, g, g).parts:
        part.add(rows, none, x, g)


COMPILATION = """
import itertools
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sgnoise.gradients import gpu

kernel = gpu._contractions_kernel
flags = ("with_input", "shifted", "scaled", "double")
pointers = ("rows", "x", "g", "shift", "scale")
for kind, values in itertools.product(
    ("fp32", "fp64", "bf16"), ((1, 0, 0, 0), (1, 1, 1, 0), (0, 0, 0, 0), (1, 1, 1, 1))
):
    constants = dict(zip(flags, map(bool, values)), weights=32, step=32)
    signature = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(constants, "constexpr")
    signature |= dict.fromkeys(pointers, f"*{kind}") | {"pairs": "*i32"}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    print(len(triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]))
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton")
def test_the_kernels_for_a_gpu_compile_without_one(tmp_path: Path) -> None:
    """The interpreter accepts more than the compiler."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILATION],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 12


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    with devices.full_precision():
        yield torch.device("cuda")


# In a deep network rounding decides whether a ReLU is open, between two ways of computing on a GPU.
@on_a_gpu
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", ["mlp", "resnet20", "mobilenet_v3_small", "resnet18"])
def test_on_a_gpu_networks_equal_autograd(
    name: str, kind: torch.dtype, tolerance: float, gpu: torch.device
) -> None:
    shape = (3, 32, 32)
    model = models.build_model({"name": name}, input_shape=shape, classes=CLASSES, seed=1).to(gpu)
    with torch.no_grad():  # statistics of real activations, as after training
        for _ in range(3):
            model.train()(data(*shape, samples=32)[0].to(gpu))
    model.to(kind)
    sample = gradients.sample_parameters(model, uniform=300, per_layer=3, seed=2)
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    for seed, samples in [(0, 4), (1, 4), (2, 4), (3, 2)]:  # From the second on, by the graph.
        inputs, targets = data(*shape, samples=samples, seed=seed)
        inputs, targets = inputs.to(gpu, kind), targets.to(gpu)
        expected = loop(model, inputs, targets, sample)
        assert relative_error(engine(inputs, targets), expected) < tolerance
    assert engine.recorded
    assert not engine.fallback


@on_a_gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_on_a_gpu_every_layer_equals_autograd(name: str, gpu: torch.device) -> None:
    make, shape = NETWORKS[name]
    model = build(make)
    model(data(*shape)[0])
    sample = gradients.sample_parameters(model, uniform=60, per_layer=20, seed=2)
    batches = [data(*shape, seed=seed) for seed in range(3)]
    expected = [loop(model, *batch, sample) for batch in batches]
    engine = gradients.PerSampleGradients(model.to(gpu), functional.cross_entropy, sample)
    for (inputs, targets), right in zip(batches, expected, strict=True):
        assert relative_error(engine(inputs.to(gpu), targets.to(gpu)).cpu(), right) < 1e-5


class Clipped(nn.Module):
    """Its course depends on the values of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.clamp(max=1) if x.max() > 1 else x)


@on_a_gpu
def test_on_a_gpu_what_cannot_be_recorded_is_exact_as_well(
    gpu: torch.device, caplog: pytest.LogCaptureFixture
) -> None:
    model = build(Clipped).to(gpu)
    sample = gradients.sample_parameters(model, uniform=60, per_layer=20, seed=2)
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    with caplog.at_level(logging.INFO, "sgnoise"):
        for scale in (0.1, 10.0, 0.1):
            inputs, targets = data(4)
            inputs, targets = scale * inputs.to(gpu), targets.to(gpu)
            expected = loop(model, inputs, targets, sample)
            assert relative_error(engine(inputs, targets), expected) < 1e-5
    assert not engine.recorded
    assert "not recorded as a CUDA graph" in caplog.text


@on_a_gpu
def test_on_a_gpu_weights_may_change_and_move(gpu: torch.device) -> None:
    model = build(lambda: head(nn.Linear(4, 6), nn.ReLU()))
    model(data(4)[0])
    model.to(gpu)
    sample = gradients.sample_parameters(model, uniform=60, per_layer=20, seed=2)
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    inputs, targets = (tensor.to(gpu) for tensor in data(4))
    for move in (False, False, True, True):
        for parameter in model.parameters():
            parameter.data = 1.1 * parameter.data if move else parameter.data.mul_(0.9)
        expected = loop(model, inputs, targets, sample)
        assert relative_error(engine(inputs, targets), expected) < 1e-5


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("route", ROUTES)
def test_attention_and_weights_without_a_layer(
    batch_first: bool, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_route(monkeypatch, route)
    model = build(lambda: Tokens(batch_first))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(7, (SAMPLES, 5), generator=generator)
    _, targets = data(1)
    sample = gradients.sample_parameters(model, uniform=1000, per_layer=10, seed=2)
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    found = engine(inputs, targets)
    assert not engine.fallback
    expected = loop(model, inputs, targets, sample)
    for name in set(sample.names):
        rows = np.array(sample.names) == name
        assert relative_error(found[rows], expected[rows]) < 1e-5


class Bert(nn.Module):
    """A small BERT for sequences, 0 where there is no token."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=12,
        )
        config.num_labels = CLASSES
        self.net = BertForSequenceClassification(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(input_ids=x, attention_mask=(x != 0).long()).logits


def torchvision_vit() -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    return VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=CLASSES)


def timm_model(name: str, **options: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    return timm.create_model(name, num_classes=CLASSES, **options)


SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
LIBRARY_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "torchvision vit": torchvision_vit,
    "timm vit": lambda: timm_model("vit_tiny_patch16_224", init_values=0.1, **SMALL),
    "timm flexivit": lambda: timm_model("flexivit_small", **SMALL),
    "timm efficientnet": lambda: timm_model("efficientnet_b0"),
    "bert": Bert,
}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_a_gpu)])
@pytest.mark.parametrize("name", LIBRARY_NETWORKS)
def test_networks_of_libraries_equal_autograd(name: str, device: str) -> None:
    if name == "bert":
        pytest.importorskip("transformers")
    model = build(LIBRARY_NETWORKS[name])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # Class tokens and the like begin at zero.
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    inputs, targets = data(3, 16, 16, samples=4)
    if name == "bert":
        inputs = torch.randint(1, 50, (4, 10), generator=generator)
        inputs[1, 6:] = 0
    model, inputs, targets = model.to(device), inputs.to(device), targets.to(device)
    sample = gradients.sample_parameters(model, uniform=1000, per_layer=10, seed=2)
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    with devices.full_precision():
        expected = loop(model, inputs, targets, sample)
        for _ in range(2):  # On a GPU the second time by a graph, where there can be one.
            assert relative_error(engine(inputs, targets), expected) < 1e-5
    assert not engine.fallback


def test_shared_weights_are_summed_over_their_uses() -> None:
    model = build(Shared)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(7, (SAMPLES, 6), generator=generator)
    targets = torch.randint(7, (SAMPLES,), generator=generator)
    sample = gradients.sample_parameters(model, uniform=1000, per_layer=10, seed=2)
    assert list(sample.frame["layer"].unique()) == ["embedding", "inner"]
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    found = engine(inputs, targets)
    assert not engine.fallback
    assert relative_error(found, loop(model, inputs, targets, sample)) < 1e-5


@pytest.mark.parametrize(
    ("make", "shape", "fallback", "reason"),
    [
        (Squared, (4,), {"scale"}, "used by square, which has no rule"),
        (
            Opaque,
            (4,),
            {"second.weight"},
            "used in a way that the rules do not know",
        ),
        (
            SequenceFirst,
            (SAMPLES, 2),
            {"inner.weight", "inner.bias"},
            "used in a way that the rules do not know",
        ),
        (SequenceFirst, (SAMPLES + 1, 2), {"inner.weight", "inner.bias"}, "first dimension"),
    ],
)
def test_what_has_no_rule_falls_back_and_says_so(
    make: Callable[[], nn.Module],
    shape: tuple[int, ...],
    fallback: set[str],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    inputs, targets = data(*shape)
    model = build(make)
    sample = gradients.sample_parameters(model, uniform=1000, per_layer=5, seed=2)
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    with caplog.at_level(logging.WARNING, "sgnoise"):
        found = [engine(inputs, targets) for _ in range(2)]
    assert engine.fallback == fallback
    assert len(caplog.records) == 1
    assert all(name in caplog.text for name in fallback)
    assert reason in caplog.text
    expected = loop(model, inputs, targets, sample)
    for part in found:
        assert relative_error(part, expected) < 1e-5


def test_rows_averaged_over_a_batch_are_its_gradient() -> None:
    inputs, targets = data(1, 8, 8, samples=12)
    model = models.build_model({"name": "resnet20"}, input_shape=(1, 8, 8), classes=3, seed=1)
    sample = gradients.sample_parameters(model, uniform=200, per_layer=5, seed=2)
    by_sample = gradients.per_sample_gradients(
        model, functional.cross_entropy, inputs, targets, sample
    )
    by_batch = gradients.mini_batch_gradients(
        model,
        functional.cross_entropy,
        inputs,
        targets,
        sample,
        batch_size=5,
        passes=2,
        batch_statistics=False,
        seed=3,
    )
    assert by_batch.shape == (len(sample), 4)
    order = np.random.default_rng(seeds.seed_sequence(3, "pass", 1)).permutation(12)
    expected = by_sample[:, torch.from_numpy(order[5:10])].mean(dim=1)
    assert relative_error(by_batch[:, 3], expected) < 1e-5


def test_a_loss_that_compares_samples_has_gradients_of_mini_batches_only() -> None:
    def contrastive(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        others = functional.one_hot(targets, CLASSES).float()
        return functional.cross_entropy(outputs @ others.T, torch.arange(len(outputs)))

    inputs, targets = data(6, samples=9)
    model = build(lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, CLASSES)))
    sample = gradients.sample_parameters(model, uniform=30, per_layer=5, seed=2)
    found = gradients.mini_batch_gradients(
        model,
        contrastive,
        inputs,
        targets,
        sample,
        batch_size=4,
        passes=1,
        batch_statistics=True,
        seed=3,
    )
    batches = list(noise.mini_batches_of_passes(9, 4, passes=1, seed=3))
    parameters = dict(model.named_parameters())
    for column, batch in zip(found.T, batches, strict=True):
        model.zero_grad()
        contrastive(model(inputs[batch]), targets[batch]).backward()
        expected = [
            parameters[name].grad.flatten()[offset]  # type: ignore[union-attr]
            for name, offset in zip(sample.names, sample.frame["offset"], strict=True)
        ]
        assert relative_error(column, torch.stack(expected)) < 1e-5
    with pytest.raises(ValueError, match="not the mean of the losses of its samples"):
        gradients.per_sample_gradients(model, contrastive, inputs, targets, sample)


def test_batch_statistics_are_used_where_asked_and_leave_no_trace() -> None:
    inputs, targets = data(2, 5, 5, samples=6)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(27, 3)
    )
    randomised(model)
    model[0].train(False)
    model[1].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sample = gradients.sample_parameters(model, uniform=50, per_layer=5, seed=2)
    assert "weight" not in sample.frame.loc[sample.frame["layer"] == "1", "tensor"].to_list()
    found = gradients.mini_batch_gradients(
        model,
        functional.cross_entropy,
        inputs,
        targets,
        sample,
        batch_size=6,
        passes=1,
        batch_statistics=True,
        seed=3,
    )
    gradients.per_sample_gradients(model, functional.cross_entropy, inputs, targets, sample)
    assert [module.training for module in model] == [False, True, True, True, True]
    assert not model[1].weight.requires_grad
    assert model[0].weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])

    model[2].eval()
    functional.cross_entropy(model(inputs), targets).backward()
    parameters = dict(model.named_parameters())
    expected = torch.stack(
        [
            parameters[name].grad.flatten()[offset]  # type: ignore[union-attr]
            for name, offset in zip(sample.names, sample.frame["offset"], strict=True)
        ]
    )
    assert relative_error(found[:, 0], expected) < 1e-5


def test_a_vector_of_losses_serves_as_well() -> None:
    inputs, targets = data(6)
    model = build(lambda: nn.Linear(6, CLASSES))
    sample = gradients.sample_parameters(model, uniform=50, per_layer=0, seed=2)

    def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs, targets, reduction="none")

    found = gradients.per_sample_gradients(model, losses, inputs, targets, sample)
    assert relative_error(found, loop(model, inputs, targets, sample)) < 1e-5


def test_a_loss_that_is_no_mean_is_refused() -> None:
    inputs, targets = data(6)
    model = build(lambda: nn.Linear(6, CLASSES))
    sample = gradients.sample_parameters(model, uniform=5, per_layer=0, seed=2)
    with pytest.raises(ValueError, match="not the mean of the losses of its samples"):
        gradients.per_sample_gradients(
            model, nn.CrossEntropyLoss(reduction="sum"), inputs, targets, sample
        )
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 10.0]))
    with pytest.raises(ValueError, match="not the mean of the losses of its samples"):
        gradients.per_sample_gradients(model, weighted, inputs, targets, sample)


def test_batch_norm_without_running_statistics_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False))
    sample = gradients.sample_parameters(model, uniform=5, per_layer=0, seed=2)
    with pytest.raises(ValueError, match=r"layer '1' \(BatchNorm1d\) normalises by the statistics"):
        gradients.PerSampleGradients(model, functional.cross_entropy, sample)


def test_an_activation_changed_in_place_is_refused() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + 1
            y = self.linear(x)
            x.zero_()
            return y

    model = build(Overwriting)
    sample = gradients.sample_parameters(model, uniform=50, per_layer=0, seed=2)
    with pytest.raises(ValueError, match=r"linear.weight: .* changed in place"):
        gradients.per_sample_gradients(model, functional.cross_entropy, *data(4), sample)


def test_the_sample_of_parameters_is_ordered_distinct_and_complete() -> None:
    model = models.build_model({"name": "resnet20"}, input_shape=(1, 8, 8), classes=10, seed=1)
    sample = gradients.sample_parameters(model, uniform=500, per_layer=20, seed=2)
    frame = sample.frame
    assert list(frame.columns) == list(store.PARAMETER_COLUMNS)
    assert frame["parameter_index"].to_list() == list(range(len(frame)))
    assert (frame["stratum"] == "uniform").sum() == 500
    assert not frame.duplicated(["stratum", "layer", "tensor", "offset"]).any()
    # 19 convolutions, 19 normalisations, 1 linear layer; each has 20 weights or more.
    per_layer = frame[frame["stratum"] == "per_layer"]
    assert per_layer.groupby("layer_index").size().to_list() == [20] * 39
    for _, stratum in frame.groupby("stratum"):
        is_bias = stratum["tensor"] == "bias"
        keys = list(zip(stratum["layer_index"], is_bias, stratum["offset"], strict=True))
        assert keys == sorted(keys)
    parameters = dict(model.named_parameters())
    values = [
        parameters[name].flatten()[offset].item()
        for name, offset in zip(sample.names, frame["offset"], strict=True)
    ]
    np.testing.assert_array_equal(sample.values(model), np.array(values, dtype=np.float32))
    again = gradients.sample_parameters(model, uniform=500, per_layer=20, seed=2)
    assert again.frame.equals(frame)
    other = gradients.sample_parameters(model, uniform=500, per_layer=20, seed=3)
    assert not other.frame.equals(frame)


def test_a_sample_larger_than_the_network_is_all_of_it() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    sample = gradients.sample_parameters(model, uniform=1000, per_layer=1000, seed=2)
    assert sample.frame.groupby("stratum").size().to_dict() == {"per_layer": 14, "uniform": 14}


def test_the_uniform_stratum_is_uniform() -> None:
    model = nn.Sequential(nn.Linear(30, 30, bias=False), nn.Linear(30, 10, bias=False))
    counts = np.zeros(1200)
    for seed in range(200):
        frame = gradients.sample_parameters(model, uniform=60, per_layer=0, seed=seed).frame
        counts[frame["offset"] + 900 * (frame["layer"] == "1")] += 1
    # Each weight is chosen with probability 0.05: the sum of squares is near its expectation.
    chi_square = ((counts - 10) ** 2).sum() / (10 * 0.95)
    assert abs(chi_square - 1200) < 5 * np.sqrt(2 * 1200)


def test_a_network_without_trainable_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="no trainable parameters"):
        gradients.sample_parameters(nn.ReLU(), uniform=5, per_layer=5, seed=0)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A data set and the weights of a small network on it."""
    folder = tmp_path_factory.mktemp("run")
    spec = {"source": "bundled", "name": "wine", "test_fraction": 0.2}
    dataset = prepare(spec, seed=1)
    datasets.save(dataset, str(folder / "arrays.npz"), str(folder / "manifest.json"))
    model = {"name": "mlp", "widths": [6]}
    network = models.build_model(model, input_shape=(13,), classes=3, seed=1)
    models.save_weights(folder / "model.safetensors", network, metadata={})
    return {
        "arrays_path": str(folder / "arrays.npz"),
        "model_path": str(folder / "model.safetensors"),
        "model": model,
        "loss": "cross_entropy",
        "uniform": 40,
        "per_layer": 8,
        "study": "test",
        "run": "wine",
        "seed": 4,
        "device": "cpu",
        "threads": 2,
    }


def expected_dump(run: dict[str, Any]) -> tuple[gradients.ParameterSample, torch.Tensor]:
    dataset = datasets.load(run["arrays_path"])
    network = models.build_model(run["model"], input_shape=(13,), classes=3, seed=0)
    models.load_weights(run["model_path"], network)
    seed = seeds.integer_seed(run["seed"], "sample")
    sample = gradients.sample_parameters(network, uniform=40, per_layer=8, seed=seed)
    inputs, targets = (torch.from_numpy(part) for part in dataset.batch("train", slice(None)))
    return sample, loop(network, inputs, targets, sample)


def test_dump_of_samples(
    small_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dump_gradients.CHUNK", 50)
    monkeypatch.setattr("dump_gradients.ROW_GROUP_BYTES", 4 * 142 * 10)
    path = str(tmp_path / "gradients.parquet")
    dump_gradients(**small_run, gradients_path=path, mode="per_sample", batch_size=None, draws=None)
    sample, expected = expected_dump(small_run)
    table = pq.read_table(path)
    assert table.num_rows == len(sample)
    assert pq.read_metadata(path).num_row_groups == -(-len(sample) // 10)
    found = store.matrix(table, "gradient")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(
        table["full_gradient"].to_numpy(), found.mean(axis=1, dtype=float), rtol=1e-6
    )
    frame = table.select(list(store.PARAMETER_COLUMNS)).to_pandas()
    assert frame.equals(sample.frame)
    metadata = store.read_metadata(path)
    assert metadata["settings"] == {
        "run": "wine",
        "mode": "per_sample",
        "uniform": 40,
        "per_layer": 8,
    }
    assert sorted(file.name for file in tmp_path.iterdir()) == ["gradients.parquet"]


def test_a_dump_takes_as_many_samples_together_as_memory_does(
    small_run: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = str(tmp_path / "gradients.parquet")
    options: dict[str, Any] = {"mode": "per_sample", "batch_size": None, "draws": None}
    dump_gradients(**small_run, gradients_path=path, **options)
    expected = store.matrix(pq.read_table(path), "gradient")
    whole = gradients.PerSampleGradients.__call__

    def small(engine: Any, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if len(targets) > most:
            raise torch.OutOfMemoryError
        return whole(engine, inputs, targets)

    monkeypatch.setattr(gradients.PerSampleGradients, "__call__", small)
    most = 40
    dump_gradients(**small_run, gradients_path=path, **options)
    found = store.matrix(pq.read_table(path), "gradient")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    assert "going on with 32 samples" in caplog.text
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        dump_gradients(**small_run, gradients_path=path, **options)


def test_dump_of_mini_batches_agrees_with_that_of_samples(
    small_run: dict[str, Any], tmp_path: Path
) -> None:
    path = str(tmp_path / "gradients.parquet")
    dump_gradients(**small_run, gradients_path=path, mode="mini_batch", batch_size=71, draws=3)
    _, expected = expected_dump(small_run)
    table = pq.read_table(path)
    found = store.matrix(table, "gradient")
    # 142 samples make two mini-batches a pass; three draws are rounded up to two passes.
    assert found.shape[1] == 4
    assert store.read_metadata(path)["settings"]["batch_size"] == 71
    full = expected.mean(dim=1).numpy()
    np.testing.assert_allclose(table["full_gradient"].to_numpy(), full, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found[:, :2].mean(axis=1), full, rtol=1e-4, atol=1e-7)
    assert not np.array_equal(found[:, 0], found[:, 2])


def test_dump_refuses_what_it_cannot_do(small_run: dict[str, Any], tmp_path: Path) -> None:
    path = str(tmp_path / "gradients.parquet")
    with pytest.raises(ValueError, match=r"batch_size is 200, .* 142 training samples"):
        dump_gradients(**small_run, gradients_path=path, mode="mini_batch", batch_size=200, draws=1)
    with pytest.raises(ValueError, match="need 'batch_size' and 'draws'"):
        dump_gradients(
            **small_run, gradients_path=path, mode="mini_batch", batch_size=None, draws=None
        )
    with pytest.raises(ValueError, match="unknown mode of gradients 'batch'"):
        dump_gradients(**small_run, gradients_path=path, mode="batch", batch_size=1, draws=1)


# What follows is ordinary in other people's networks, and is neither refused nor changed.


def calling(function: Callable[..., Any], **members: Any) -> Any:
    """A network of these members whose forward pass is ``function(network, inputs)``."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, member in members.items():
                if isinstance(member, torch.Tensor) and not isinstance(member, nn.Parameter):
                    self.register_buffer(name, member)
                else:
                    setattr(self, name, member)

        def forward(self, x: torch.Tensor) -> Any:
            return function(self, x)

    return Network()


def tensor_errors(
    model: nn.Module,
    found: torch.Tensor,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    sample: gradients.ParameterSample,
    loss: Callable[..., torch.Tensor] = functional.cross_entropy,
) -> dict[str, float]:
    """The largest error in each tensor, relative to the largest gradient of that tensor."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    parameters = dict(model.named_parameters())
    names = np.array(sample.names)
    errors: dict[str, float] = dict.fromkeys(names, 0.0)
    with torch.inference_mode(False), torch.enable_grad():
        inputs = inputs.clone()
        for i in range(len(targets)):
            value = loss(model(inputs[i : i + 1].clone()), targets[i : i + 1].clone()).sum()
            for name in errors:
                (g,) = torch.autograd.grad(
                    value, [parameters[name]], allow_unused=True, retain_graph=True
                )
                g = torch.zeros_like(parameters[name]) if g is None else g
                g = (g.to_dense() if g.layout == torch.sparse_coo else g).reshape(-1)
                rows = names == name
                true = g[torch.from_numpy(sample.frame["offset"].to_numpy()[rows])]
                size = float(true.abs().max())
                if size > 1e-12:
                    error = float((found[rows, i] - true).abs().max()) / size
                    errors[name] = max(errors[name], error)
                else:
                    assert float(found[rows, i].abs().max()) <= 1e-10
    for module, mode in modes.items():
        module.training = mode
    return errors


def exact(
    model: nn.Module,
    *batches: tuple[torch.Tensor, torch.Tensor],
    loss: Callable[..., torch.Tensor] = functional.cross_entropy,
) -> gradients.PerSampleGradients:
    """An engine that was exact, in every tensor, on each of the batches."""
    sample = gradients.sample_parameters(model, uniform=1, per_layer=10**6, seed=0)
    engine = gradients.PerSampleGradients(model, loss, sample)
    for inputs, targets in batches:
        before = inputs.clone()
        found = engine(inputs, targets)
        assert torch.equal(inputs, before)
        errors = tensor_errors(model, found, inputs, targets, sample, loss)
        assert max(errors.values()) < 1e-4, errors
    return engine


def tokens(length: int, samples: int = SAMPLES, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sentences of different lengths, 0 behind their ends."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randint(1, 12, (samples, length), generator=generator)
    lengths = torch.randint(1, length + 1, (samples,), generator=generator)
    found[torch.arange(length) >= lengths[:, None]] = 0
    found[0, -1] = 1  # One is as long as can be.
    return found, torch.randint(CLASSES, (samples,), generator=generator)


@pytest.mark.parametrize(
    "flat",
    [
        lambda x: x.view(x.size(0), -1),
        lambda x: x.view(-1, x.shape[1] * x.shape[2] * x.shape[3]),
    ],
)
def test_images_stay_as_they_are_where_a_network_views_them(
    flat: Callable[[torch.Tensor], torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    model = calling(
        lambda net, x: net.last(flat(torch.relu(net.conv(x)))),
        conv=nn.Conv2d(3, 4, 3),
        last=nn.Linear(64, CLASSES),
    )
    with caplog.at_level(logging.INFO, "sgnoise"):
        engine = exact(model, data(3, 6, 6), data(3, 6, 6, seed=1))
    assert not engine.fallback
    assert caplog.text.count("not taken with the channels last") == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.sub_(0.5).div_(0.25),
        lambda x: x.clamp_(min=0),
        lambda x: nn.functional.relu(x, inplace=True),
        lambda x: x.mul_(2) if x.isfinite().all() else x,
    ],
)
def test_inputs_that_the_network_changes_stay_the_callers(
    change: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    model = calling(lambda net, x: net.last(change(x)), last=nn.Linear(4, CLASSES))
    assert not exact(model, data(4), data(4, seed=1)).fallback
    sample = gradients.sample_parameters(model, uniform=5, per_layer=0, seed=0)
    inputs, targets = data(4)
    gradients.mini_batch_gradients(
        model,
        functional.cross_entropy,
        inputs,
        targets,
        sample,
        batch_size=5,
        passes=1,
        batch_statistics=False,
        seed=0,
    )
    assert torch.equal(inputs, data(4)[0])


def test_everything_else_of_the_user_stays_as_well() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        net.calls += 1
        net.mean = 0.9 * net.mean + 0.1 * x.detach().mean()
        torch.rand(3)
        return net.last(net.inner(x) - 0.1 * net.mean)

    model = calling(
        forward,
        inner=nn.Linear(4, 4),
        last=nn.Linear(4, CLASSES),
        calls=torch.zeros((), dtype=torch.int64),
        mean=torch.full((), 0.5),
    )
    model.train().inner.eval()
    model.inner.weight.grad = torch.ones(4, 4)
    head_of_the_loss = nn.Linear(CLASSES, CLASSES)
    head_of_the_loss.weight.grad = torch.ones(CLASSES, CLASSES)
    mean, calls = model.mean, model.calls
    engine = gradients.PerSampleGradients(
        model,
        lambda outputs, targets: functional.cross_entropy(head_of_the_loss(outputs), targets),
        gradients.sample_parameters(model, uniform=50, per_layer=5, seed=0),
    )
    state, numbers = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    found = [engine(*data(4)) for _ in range(3)]
    assert torch.equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers[1])  # type: ignore[index]  # noqa: NPY002
    assert model.mean is mean
    assert float(mean) == 0.5
    assert model.calls is calls
    assert int(calls) == 0
    assert model.training
    assert not model.inner.training
    assert torch.equal(model.inner.weight.grad, torch.ones(4, 4))
    assert model.last.weight.grad is None
    assert torch.equal(head_of_the_loss.weight.grad, torch.ones(CLASSES, CLASSES))
    assert head_of_the_loss.bias.grad is None


class Straight(torch.autograd.Function):
    """Rounding that lets gradients through, in the form that torch.func does not take."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.size = x.numel()
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.clone()


def packed(net: Any, x: torch.Tensor) -> torch.Tensor:
    lengths = (x != 0).sum(dim=1).cpu()
    sentences = nn.utils.rnn.pack_padded_sequence(
        net.embedding(x), lengths, batch_first=True, enforce_sorted=False
    )
    _, (state, _) = net.recurrent(sentences)
    return net.last(state[-1])


def cells(net: Any, x: torch.Tensor) -> torch.Tensor:
    state = None
    for step in net.embedding(x).unbind(dim=1):
        state = net.recurrent(step, state)
    return net.last(state)


def unpacked(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.last(net.recurrent(net.embedding(x))[0].mean(dim=1))


def recurrent(forward: Callable[..., Any], layer: nn.Module, width: int = 4) -> nn.Module:
    return calling(
        forward, embedding=nn.Embedding(12, 3), recurrent=layer, last=nn.Linear(width, CLASSES)
    )


RECURRENT: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: recurrent(unpacked, nn.LSTM(3, 4, batch_first=True)),
    "two ways": lambda: recurrent(
        unpacked, nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True, proj_size=2)
    ),
    "gru": lambda: recurrent(unpacked, nn.GRU(3, 4, batch_first=True)),
    "rnn": lambda: recurrent(unpacked, nn.RNN(3, 4, batch_first=True, dropout=0.0)),
    "cell": lambda: recurrent(cells, nn.GRUCell(3, 4)),
    "packed": lambda: recurrent(packed, nn.LSTM(3, 4, batch_first=True)),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_networks_are_exact(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model = build(RECURRENT[name])
    engine = exact(model, tokens(6), tokens(SAMPLES, seed=1), tokens(4, samples=3, seed=2))
    slow = {name for name, _ in model.named_parameters() if name.startswith("recurrent")}
    assert slow <= engine.fallback
    if name != "packed":
        assert engine.fallback == slow
        assert len(caplog.records) == 1
    assert all(name in caplog.text for name in slow)


def asserting(net: Any, x: torch.Tensor) -> torch.Tensor:
    assert x.isfinite().all(), "not finite"
    return net.last((x * net.scale.square()).tanh())


def branching(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = x * net.scale.square()
    return net.last(y if float(y.abs().max()) < 1000 else -y)


def counting(net: Any, x: torch.Tensor) -> torch.Tensor:
    net.count += 1
    net.mean.mul_(0.9).add_(x.detach().mean(), alpha=0.1)
    return net.last((x * net.scale.square()).tanh())


def straight(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.last(Straight.apply(3 * x * net.scale.square()))


def one_at_a_time(net: Any, x: torch.Tensor) -> torch.Tensor:
    if len(x) != 1:
        raise NotImplementedError("batches of one only")
    return net.last(x * net.scale)


@pytest.mark.parametrize(
    ("forward", "looped"),
    [
        (asserting, {"scale"}),
        (branching, {"scale"}),
        (counting, {"scale"}),
        (straight, {"scale"}),
    ],
)
def test_what_vmap_cannot_do_goes_through_a_loop(
    forward: Callable[..., Any], looped: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = calling(
        forward,
        scale=nn.Parameter(torch.linspace(0.5, 1.5, 4)),
        last=nn.Linear(4, CLASSES),
        count=torch.zeros((), dtype=torch.int64),
        mean=torch.zeros(()),
    )
    engine = exact(model, data(4), data(4, seed=1), data(4, samples=3, seed=2))
    assert engine.loops == engine.fallback == looped
    assert len(caplog.records) == 1
    assert "a loop over samples" in caplog.text
    count = int(model.get_buffer("count"))
    engine(*data(4))
    assert int(model.get_buffer("count")) == count


def test_a_network_of_batches_of_one_is_exact(caplog: pytest.LogCaptureFixture) -> None:
    model = calling(one_at_a_time, scale=nn.Parameter(torch.ones(4)), last=nn.Linear(4, CLASSES))
    assert not exact(model, data(4), data(4, seed=1)).loops
    assert len(caplog.records) == 1
    assert "batches of one only" in caplog.text


def test_an_error_of_the_network_itself_is_told() -> None:
    model = calling(asserting, scale=nn.Parameter(torch.ones(4)), last=nn.Linear(4, CLASSES))
    sample = gradients.sample_parameters(model, uniform=9, per_layer=0, seed=0)
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    inputs, targets = data(4)
    with pytest.raises(AssertionError, match="not finite"):
        engine(inputs / 0, targets)
    assert engine(inputs, targets).isfinite().all()


def sorting(net: Any, x: torch.Tensor) -> torch.Tensor:
    order = x[:, 0].argsort()
    return net.last(net.inner(x[order]).tanh()[order.argsort()])


def sequence_first(net: Any, x: torch.Tensor) -> torch.Tensor:
    x = x[:, : int((x != 0).any(dim=2).sum(dim=1).max())]
    return net.last(net.inner(x.transpose(0, 1)).tanh().transpose(0, 1).mean(dim=1))


def test_samples_that_change_places_are_found() -> None:
    model = calling(sorting, inner=nn.Linear(4, 6), last=nn.Linear(6, CLASSES))
    inputs, targets = data(4, samples=8)
    ordered = inputs[:, 0].argsort()
    # The first batch is in order, so that nothing is wrong yet.
    engine = exact(model, (inputs[ordered], targets[ordered]), (inputs, targets), data(4, seed=3))
    assert engine.fallback == {"inner.weight", "inner.bias"}


def test_lengths_like_the_number_of_samples_are_found_whenever_they_come() -> None:
    model = calling(sequence_first, inner=nn.Linear(4, 6), last=nn.Linear(6, CLASSES))
    longer, equal = data(2 * SAMPLES, 4), data(2 * SAMPLES, 4, seed=1)
    # The same shape as those before: the network itself cuts it to as many steps as samples.
    equal[0][:, SAMPLES:] = 0
    engine = exact(model, longer, longer, longer, longer, equal, longer)
    assert engine.fallback == {"inner.weight", "inner.bias"}


def test_what_turns_wrong_unseen_ends_with_an_error() -> None:
    model = calling(sorting, inner=nn.Linear(4, 6), last=nn.Linear(6, CLASSES))
    sample = gradients.sample_parameters(model, uniform=99, per_layer=0, seed=0)
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    inputs, targets = data(4, samples=8)
    ordered = inputs[:, 0].argsort()
    batches = [(inputs[ordered], targets[ordered])] * 7 + [(inputs, targets)]
    with pytest.raises(ValueError, match=r"inner.weight.* in batch 8 .* in batch 4"):
        list(engine.stream(batches))
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    # The last batch of all is looked at as well.
    with pytest.raises(ValueError, match="mixes the samples"):
        list(engine.stream([*batches[:6], (inputs, targets)]))


@pytest.mark.parametrize("power", [1e-4, 1e-7, 1e4])
def test_tensors_of_very_different_scales_are_checked_each_by_itself(power: float) -> None:
    """The tensor that is used in an unknown way has gradients far from those of the others."""

    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        return net.last(x) + power * Hidden.apply(x, net.hidden.weight)

    model = calling(forward, last=nn.Linear(4, CLASSES), hidden=nn.Linear(4, CLASSES, bias=False))
    assert exact(model, data(4)).fallback == {"hidden.weight"}


def test_gradients_that_are_zero_but_for_rounding_are_no_error() -> None:
    """That of the bias of keys: a softmax does not see it."""
    model = build(lambda: Tokens(True))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(7, (SAMPLES, 5), generator=generator)
    sample = gradients.sample_parameters(model, uniform=1, per_layer=1000, seed=0)
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    for seed in range(4):
        engine(inputs.roll(seed, dims=0), data(1, seed=seed)[1])
    assert not engine.fallback


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("make", [lambda: nn.Linear(4, CLASSES), Squared, lambda: Opaque()])
def test_a_penalty_on_the_weights_is_part_of_the_gradient(
    make: Callable[[], nn.Module], vector: bool
) -> None:
    model = build(make)

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        penalty = 0.1 * sum(p.square().sum() for p in model.parameters())
        reduction = "none" if vector else "mean"
        return functional.cross_entropy(outputs, targets, reduction=reduction) + penalty

    engine = exact(model, data(4), data(4, seed=1), loss=loss)
    assert not engine.loops


@pytest.mark.parametrize("bias", [-9.0, 0.0, 9.0])
def test_outputs_and_targets_of_different_shapes_are_refused(bias: float) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    # All outputs below all targets, among them, or above.
    nn.init.constant_(model.bias, bias)
    inputs, targets = data(4)[0], torch.linspace(0, 1, SAMPLES)
    sample = gradients.sample_parameters(model, uniform=5, per_layer=0, seed=0)
    for loss in (
        functional.mse_loss,
        functional.l1_loss,
        lambda outputs, targets: (outputs - targets).square(),
    ):
        with pytest.raises(ValueError, match=r"returns \(5, 1\) and the targets are \(5,\)"):
            gradients.per_sample_gradients(model, loss, inputs, targets, sample)
    exact(model, (inputs, targets[:, None]), loss=functional.mse_loss)
    exact(model, (inputs, targets), loss=lambda o, t: functional.mse_loss(o.squeeze(1), t))


@pytest.mark.parametrize(
    "noisy",
    [
        lambda x: functional.dropout(x, 0.5),
        lambda x: x + 0.01 * torch.randn_like(x),
        lambda x: x * float(np.random.default_rng().uniform(0.5, 1)),
        lambda x: x * float(np.random.rand() + 1),  # noqa: NPY002
    ],
)
def test_networks_that_are_random_in_evaluation_mode_are_refused(
    noisy: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    model = calling(
        lambda net, x: net.last(noisy(net.inner(x))),
        inner=nn.Linear(4, 6),
        last=nn.Linear(6, CLASSES),
    )
    sample = gradients.sample_parameters(model, uniform=9, per_layer=0, seed=0)
    with pytest.raises(ValueError, match="random in evaluation mode"):
        gradients.per_sample_gradients(model, functional.cross_entropy, *data(4), sample)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("layer", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_embeddings_are_exact(layer: type[nn.Module], sparse: bool) -> None:
    model = calling(
        lambda net, x: net.last(net.first(x).flatten(1)),
        first=layer(12, 3, sparse=sparse),
        last=nn.LazyLinear(CLASSES),
    )
    model(tokens(6)[0])
    exact(model, tokens(6), tokens(6, seed=1))


@pytest.mark.parametrize("use", [torch.exp, torch.sigmoid, lambda s: s, lambda s: s + 1])
def test_weights_without_dimensions_are_exact(use: Callable[[torch.Tensor], Any]) -> None:
    model = calling(
        lambda net, x: functional.normalize(net.last(x)) * use(net.scale),
        last=nn.Linear(4, CLASSES),
        scale=nn.Parameter(torch.tensor(1.5)),
    )
    assert exact(model, data(4), data(4, seed=1)).fallback <= {"scale"}


def test_complex_weights_are_refused() -> None:
    model = calling(
        lambda net, x: (x * net.scale).abs(),
        scale=nn.Parameter(torch.ones(4, dtype=torch.complex64)),
    )
    sample = gradients.sample_parameters(model, uniform=2, per_layer=0, seed=0)
    with pytest.raises(ValueError, match="'scale' is complex"):
        gradients.PerSampleGradients(model, functional.cross_entropy, sample)


@pytest.mark.parametrize("first", [False, True])
def test_checkpointed_blocks_are_exact(first: bool) -> None:
    from torch.utils.checkpoint import checkpoint, checkpoint_sequential

    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        return net.last(checkpoint(net.block, x if first else net.first(x), use_reentrant=False))

    def block() -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))

    batches = data(4), data(4, seed=1)
    model = calling(forward, first=nn.Linear(4, 4), block=block(), last=nn.Linear(4, CLASSES))
    assert not exact(model, *batches).fallback
    model = calling(
        lambda net, x: net.last(checkpoint_sequential(net.block, 2, x, use_reentrant=False)),
        block=block(),
        last=nn.Linear(4, CLASSES),
    )
    assert not exact(model, *batches).fallback
    model = calling(
        lambda net, x: net.last(checkpoint(net.embedding, x, use_reentrant=False).mean(dim=1)),
        embedding=nn.Embedding(12, 4),
        last=nn.Linear(4, CLASSES),
    )
    exact(model, tokens(6))


def test_reentrant_checkpoints_are_exact() -> None:
    from torch.utils.checkpoint import checkpoint

    forward, plain = (
        lambda net, x: net.last(checkpoint(net.block, net.first(x), use_reentrant=True)),
        lambda net, x: net.last(net.block(net.first(x))),
    )
    members = {
        "first": nn.Linear(4, 4),
        "block": nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4)),
        "last": nn.Linear(4, CLASSES),
    }
    found = []
    for function in (forward, plain):
        model = calling(function, **members)
        sample = gradients.sample_parameters(model, uniform=99, per_layer=0, seed=0)
        arguments = (model, functional.cross_entropy, *data(4), sample)
        found.append(gradients.per_sample_gradients(*arguments))
        assert all(parameter.grad is None for parameter in model.parameters())
    assert relative_error(*found) < 1e-5


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, CLASSES))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_networks_are_exact(backend: str) -> None:
    compiled: Any = torch.compile(two_layers(), backend=backend)
    assert not exact(compiled, data(4)).fallback
    inner = nn.Sequential(compiled, nn.Linear(CLASSES, CLASSES))
    assert not exact(inner, data(4)).fallback


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
# In a network of seed 30 all hidden units are dead for the sample that was looked at.
@pytest.mark.parametrize("seed", [0, 30, 42])
def test_scripted_networks_are_exact(seed: int) -> None:
    script: Any = torch.jit.script
    torch.manual_seed(seed)
    exact(script(two_layers()), data(4), data(4, seed=1))
    exact(torch.jit.trace(two_layers(), data(4)[0]), data(4), data(4, seed=1))
    mixed = nn.Sequential(nn.Linear(4, 4), script(two_layers()), nn.Linear(CLASSES, 3))
    engine = exact(mixed, data(4), data(4, seed=1))
    assert all(name.startswith("1.") for name in engine.fallback)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("make", [two_layers, Squared])
def test_the_caller_may_have_turned_gradients_off(
    around: Callable[[], Any], make: Callable[[], nn.Module]
) -> None:
    model = make()
    with around():
        exact(model, data(4), data(4, seed=1))
    exact(model, data(4))


def test_an_empty_batch_has_no_gradients() -> None:
    model = two_layers()
    sample = gradients.sample_parameters(model, uniform=9, per_layer=2, seed=0)
    engine = gradients.PerSampleGradients(model, functional.cross_entropy, sample)
    inputs, targets = data(4)
    assert engine(inputs[:0], targets[:0]).shape == (len(sample), 0)
    assert engine(inputs, targets).shape == (len(sample), SAMPLES)
    assert engine(inputs[:0], targets[:0]).shape == (len(sample), 0)


@pytest.mark.parametrize("weights", [[1.0, 2.0, 3.0], [1.0, 50.0, 1.0]])
def test_classes_with_weights_of_their_own_have_no_gradients_of_samples(
    weights: list[float],
) -> None:
    """Their loss is divided by the sum of the weights, so that halves of a batch hardly differ."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(300, 6), torch.randint(3, (300,))
    model = nn.Linear(6, 3)
    sample = gradients.sample_parameters(model, uniform=21, per_layer=0, seed=0)
    loss = nn.CrossEntropyLoss(weight=torch.tensor(weights))
    with pytest.raises(ValueError, match="where classes have weights of their own"):
        gradients.per_sample_gradients(model, loss, inputs, targets, sample)
    by_sample = nn.CrossEntropyLoss(weight=torch.tensor(weights), reduction="none")
    found = gradients.per_sample_gradients(model, by_sample, inputs, targets, sample)
    plain = gradients.per_sample_gradients(
        model, nn.CrossEntropyLoss(reduction="none"), inputs, targets, sample
    )
    assert relative_error(found, plain * torch.tensor(weights)[targets]) < 1e-6
