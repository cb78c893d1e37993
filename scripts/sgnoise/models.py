"""Networks: from a short specification to an initialised module, and weights to and from files.

A specification is a mapping with a ``name`` and the options of that network, for instance
``{name: resnet20}``, ``{name: mlp, widths: [64, 64]}``, or ``{name: my_module:my_function, ...}``
for a network of one's own.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from sgnoise import store
from sgnoise.datasets import unknown_name

# Below this side, in pixels, the stems made for 224-pixel images would discard most of an image.
SMALL_IMAGE = 64

# Tensors under such a name are not weights of the model (no module can have a name like it).
EXTRA_PREFIX = "@"


def build_model(
    spec: Mapping[str, Any], *, input_shape: Sequence[int], classes: int, seed: int
) -> nn.Module:
    """Build and initialise a network.

    Args:
        spec: ``name`` and options. Names: ``resnet20``, ``resnet32``, ``resnet56``, ``resnet110``
            (option ``shortcut``), ``resnet18``, ``resnet34``, ``resnet50``,
            ``mobilenet_v3_small``, ``mlp`` (option ``widths``), or ``module:function``, which is
            imported from the working directory or an installed package and called with
            ``input_shape``, ``classes`` and the options.
        input_shape: of one sample, (features,) or (channels, height, width).
        classes: the number of outputs.
        seed: of the initial weights; torch's own random state is left as it was.

    Raises:
        ValueError: an unknown name or option, or an input that the network cannot take.
    """
    options = dict(spec)
    if "name" not in options:
        raise ValueError(f"the specification of a model needs 'name'; found {sorted(options)}")
    name = str(options.pop("name"))
    builder = _imported(name) if ":" in name else _BUILDERS.get(name)
    if builder is None:
        raise unknown_name("model", name, [*_BUILDERS, "module:function of your own"])
    shape = tuple(int(size) for size in input_shape)
    try:
        inspect.signature(builder).bind(input_shape=shape, classes=classes, **options)
    except TypeError as error:
        raise ValueError(f"model {name!r}: wrong options: {error}") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = builder(input_shape=shape, classes=classes, **options)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name!r}: expected a torch.nn.Module, found {type(model)}")
    return model


def resolve_device(device: str) -> torch.device:
    """The device of that name; ``auto`` is a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


@contextmanager
def cpu_threads(threads: int) -> Iterator[None]:
    """Let torch use so many threads, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def save_weights(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    metadata: Mapping[str, str],
    extra: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write the parameters and buffers of ``model`` to a safetensors file, all or nothing.

    Args:
        path: the file.
        model: the network.
        metadata: texts that go with it.
        extra: more tensors, which ``load_weights`` passes over.
    """
    tensors = dict(model.state_dict())
    tensors |= {f"{EXTRA_PREFIX}{name}": tensor for name, tensor in (extra or {}).items()}
    # Shared weights must not share memory in the file.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    with store.atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=dict(metadata))


def load_weights(path: str | os.PathLike[str], model: nn.Module) -> dict[str, str]:
    """Read parameters and buffers into ``model``; return the metadata.

    Raises:
        ValueError: the file is of another network.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        names = [name for name in file.keys() if not name.startswith(EXTRA_PREFIX)]  # noqa: SIM118
        tensors = {name: file.get_tensor(name) for name in names}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path}: not the weights of this network: {error}") from error
    return metadata


def load_extra(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The tensors that ``save_weights`` took as ``extra``."""
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(EXTRA_PREFIX)]  # noqa: SIM118
        return {name.removeprefix(EXTRA_PREFIX): file.get_tensor(name) for name in names}


class SubsampledIdentity(nn.Module):
    """Shortcut A of He et al. (2015): every other pixel, new channels filled with zeros."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels = channels
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to (n, channels, h / stride, w / stride)."""
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, 0, self.channels - x.shape[1]))


class CifarBlock(nn.Module):
    """Two 3x3 convolutions, each with batch normalisation, and a shortcut around both."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = SubsampledIdentity(outputs, stride)
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """The residual network for small images of He et al. (2015), section 4.2.

    A 3x3 convolution, three stages of ``blocks`` blocks with 16, 32 and 64 channels, each stage at
    half the resolution of the one before, mean over pixels, one linear layer: 6 ``blocks`` + 2
    weighted layers.
    """

    def __init__(self, channels: int, classes: int, blocks: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.stage1 = self._stage(16, 16, 1, blocks, shortcut)
        self.stage2 = self._stage(16, 32, 2, blocks, shortcut)
        self.stage3 = self._stage(32, 64, 2, blocks, shortcut)
        self.fc = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int, blocks: int, shortcut: str) -> nn.Sequential:
        first = CifarBlock(inputs, outputs, stride, shortcut)
        rest = [CifarBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)]
        return nn.Sequential(first, *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) to (n, classes)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(x.mean(dim=(2, 3)))


def _cifar_resnet(depth: int) -> Callable[..., nn.Module]:
    def build(*, input_shape: tuple[int, ...], classes: int, shortcut: str = "A") -> nn.Module:
        channels, _, _ = _image_shape(input_shape, f"resnet{depth}")
        if shortcut not in ("A", "B"):
            raise ValueError(
                f"resnet{depth}: shortcut {shortcut!r} is neither 'A' (identity, padded with "
                "zeros; no weights) nor 'B' (1x1 convolution)"
            )
        return CifarResNet(channels, classes, (depth - 2) // 6, shortcut)

    return build


def _torchvision_resnet(depth: int) -> Callable[..., nn.Module]:
    def build(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        from torchvision.models import resnet

        channels, height, width = _image_shape(input_shape, f"resnet{depth}")
        model = getattr(resnet, f"resnet{depth}")(weights=None, num_classes=classes)
        side = min(height, width)
        if side < SMALL_IMAGE:
            model.conv1 = _new_conv(channels, 64, kernel=3, stride=1)
            model.maxpool = nn.Identity()
            # On a single pixel all but the middle of a 3x3 kernel would never meet the image.
            for stage in (model.layer2, model.layer3, model.layer4):
                side = -(-side // 2)
                if side < 2:
                    for conv in _halvings(stage):
                        conv.stride = (1, 1)
        elif channels != 3:
            model.conv1 = _new_conv(channels, 64, kernel=7, stride=2)
        return model

    return build


def _mobilenet_v3_small(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Torchvision's; for small images without the first halvings, so that 4 pixels remain."""
    from torchvision.models import mobilenetv3

    channels, height, width = _image_shape(input_shape, "mobilenet_v3_small")
    model = mobilenetv3.mobilenet_v3_small(weights=None, num_classes=classes)
    if channels != 3:
        model.features[0][0] = _new_conv(channels, 16, kernel=3, stride=2)
    side = min(height, width)
    if side < SMALL_IMAGE:
        halvings = _halvings(model)
        while halvings and -(-side // 2 ** len(halvings)) < 4:
            halvings.pop(0).stride = (1, 1)
        # Torchvision's running statistics (momentum 0.01) are made for trainings of very many
        # steps; in a short one they stay far from the activations.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1
    return model


def _mlp(
    *, input_shape: tuple[int, ...], classes: int, widths: Sequence[int] = (128, 128)
) -> nn.Module:
    """Fully connected layers with ReLU between them; images are flattened."""
    features = 1
    for size in input_shape:
        features *= size
    layers: list[nn.Module] = [nn.Flatten()]
    for width in widths:
        layers += [nn.Linear(features, width), nn.ReLU()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, classes))


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": _cifar_resnet(depth) for depth in (20, 32, 56, 110)},
    **{f"resnet{depth}": _torchvision_resnet(depth) for depth in (18, 34, 50)},
    "mobilenet_v3_small": _mobilenet_v3_small,
    "mlp": _mlp,
}


def _halvings(module: nn.Module) -> list[nn.Conv2d]:
    """The convolutions that halve the resolution, first to last."""
    return [
        part for part in module.modules() if isinstance(part, nn.Conv2d) and part.stride == (2, 2)
    ]


def _new_conv(inputs: int, outputs: int, *, kernel: int, stride: int) -> nn.Conv2d:
    """A first convolution, initialised as torchvision initialises the one that it replaces."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _image_shape(input_shape: tuple[int, ...], name: str) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise ValueError(
            f"model {name!r} takes images (channels, height, width), not samples of shape "
            f"{input_shape}; choose 'mlp', or the image form of the data set"
        )
    return input_shape[0], input_shape[1], input_shape[2]


def _imported(name: str) -> Callable[..., nn.Module]:
    """The function that ``module:function`` names, looked up in the working directory first."""
    module_name, _, function_name = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"model {name!r}: cannot import {module_name!r} ({error}); it must be a file in "
            f"{os.getcwd()} or an installed package"
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"model {name!r}: {module_name!r} has no function {function_name!r}")
    return function
