"""The networks that need no library but torch and torchvision, by name in ``BUILDERS``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# Below this side, in pixels, the stems made for 224-pixel images would discard most of an image.
SMALL_IMAGE = 64


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
        channels, _, _ = image_shape(input_shape, f"resnet{depth}")
        if shortcut not in ("A", "B"):
            raise ValueError(
                f"resnet{depth}: shortcut {shortcut!r} is neither 'A' (identity, padded with "
                "zeros; no weights) nor 'B' (1x1 convolution)"
            )
        return CifarResNet(channels, classes, (depth - 2) // 6, shortcut)

    return build


def _torchvision_resnet(depth: int) -> Callable[..., nn.Module]:
    def build(*, input_shape: tuple[int, ...], classes: int, width: int = 64) -> nn.Module:
        """Torchvision's, with a stem for small images; ``width`` channels in the first stage."""
        from torchvision.models import resnet

        channels, height, image_width = image_shape(input_shape, f"resnet{depth}")
        if width < 1:
            raise ValueError(f"resnet{depth}: width is {width}; it must be at least 1")
        model = getattr(resnet, f"resnet{depth}")(weights=None, num_classes=classes)
        if width != 64:
            model = _with_width(model, width, classes)
        side = min(height, image_width)
        if side < SMALL_IMAGE:
            model.conv1 = _new_conv(channels, width, kernel=3, stride=1)
            model.maxpool = nn.Identity()
            # On a single pixel all but the middle of a 3x3 kernel would never meet the image.
            for stage in (model.layer2, model.layer3, model.layer4):
                side = -(-side // 2)
                if side < 2:
                    for conv in _halvings(stage):
                        conv.stride = (1, 1)
        elif channels != 3:
            model.conv1 = _new_conv(channels, width, kernel=7, stride=2)
        return model

    return build


def _with_width(model: Any, width: int, classes: int) -> nn.Module:
    """A residual network of torchvision, its 64 to 512 channels scaled by ``width`` / 64.

    Torchvision fixes the channels of its stages; its own method builds them of any other size.
    """
    block = type(model.layer1[0])
    model.conv1 = _new_conv(3, width, kernel=7, stride=2)
    model.bn1 = nn.BatchNorm2d(width)
    model.inplanes = width
    for number in range(1, 5):
        blocks = len(getattr(model, f"layer{number}"))
        stage = model._make_layer(
            block, width * 2 ** (number - 1), blocks, stride=1 if number == 1 else 2
        )
        for module in stage.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        setattr(model, f"layer{number}", stage)
    model.fc = nn.Linear(8 * width * block.expansion, classes)
    return model


def _mobilenet_v3(size: str) -> Callable[..., nn.Module]:
    def build(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """Torchvision's; for small images without the first halvings, so that 4 pixels remain."""
        from torchvision.models import mobilenetv3

        name = f"mobilenet_v3_{size}"
        channels, height, width = image_shape(input_shape, name)
        model = getattr(mobilenetv3, name)(weights=None, num_classes=classes)
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

    return build


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


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": _cifar_resnet(depth) for depth in (20, 32, 56, 110)},
    **{f"resnet{depth}": _torchvision_resnet(depth) for depth in (18, 34, 50)},
    **{f"mobilenet_v3_{size}": _mobilenet_v3(size) for size in ("small", "large")},
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


def image_shape(input_shape: tuple[int, ...], name: str) -> tuple[int, int, int]:
    """Channels, height and width; a ValueError if the samples of the data set are no images."""
    if len(input_shape) != 3:
        raise ValueError(
            f"model {name!r} takes images (channels, height, width), not samples of shape "
            f"{input_shape}; choose 'mlp', or the image form of the data set"
        )
    return input_shape[0], input_shape[1], input_shape[2]
