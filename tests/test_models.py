"""Networks and their weights on disk."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sgnoise import devices, models, networks

NAMES = ["resnet20", "resnet18", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large", "mlp"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So that the time of the tests does not depend on what else the machine does."""
    with devices.cpu_threads(1):
        yield


def build(
    name: str, shape: tuple[int, ...] = (1, 8, 8), seed: int = 1, **options: Any
) -> nn.Module:
    return models.build_model({"name": name, **options}, input_shape=shape, classes=5, seed=seed)


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
@pytest.mark.parametrize("name", NAMES)
def test_small_images_are_classified(name: str, shape: tuple[int, ...]) -> None:
    model = build(name, shape).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Table 6 of He et al. (2015): 0.27, 0.46, 0.85 and 1.7 million.
        ("resnet20", 269722),
        ("resnet32", 464154),
        ("resnet56", 853018),
        ("resnet110", 1727962),
        # Torchvision's 11,689,512, 21,797,672 and 25,557,032 with 1000 classes and a 7x7 stem.
        ("resnet18", 11689512 - 990 * 513 - 3 * 64 * 40),
        ("resnet34", 21797672 - 990 * 513 - 3 * 64 * 40),
        ("resnet50", 25557032 - 990 * 2049 - 3 * 64 * 40),
        ("mobilenet_v3_small", 2542856 - 990 * 1025),
        ("mobilenet_v3_large", 5483032 - 990 * 1281),
    ],
)
def test_networks_have_the_published_size(name: str, expected: int) -> None:
    model = models.build_model({"name": name}, input_shape=(3, 32, 32), classes=10, seed=1)
    assert size(model) == expected


def test_a_narrow_resnet() -> None:
    def expected(width: int) -> int:
        total, inputs = 3 * 9 * width + 2 * width, width
        for stage in range(4):
            outputs = width * 2**stage
            total += 9 * inputs * outputs + 3 * 9 * outputs**2 + 4 * 2 * outputs
            total += (inputs * outputs + 2 * outputs) if stage else 0
            inputs = outputs
        return total + 5 * (inputs + 1)

    for width in (64, 16, 10):
        assert size(build("resnet18", (3, 32, 32), width=width)) == expected(width)
    plain, same = build("resnet18"), build("resnet18", width=64)
    pairs = zip(plain.parameters(), same.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    for name in ("resnet34", "resnet50"):
        model = build(name, (1, 64, 64), width=8).eval()
        with torch.no_grad():
            assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 5)


def test_shortcuts() -> None:
    plain, padded, projected = (
        build("resnet20"),
        build("resnet20", shortcut="A"),
        build("resnet20", shortcut="B"),
    )
    assert size(plain) == size(padded)
    # Two 1x1 convolutions with batch normalisation, 16 to 32 and 32 to 64 channels.
    assert size(projected) - size(padded) == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    x = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    short = networks.SubsampledIdentity(5, 2)(x)
    assert short.shape == (2, 5, 2, 2)
    assert torch.equal(short[:, :3], x[:, :, ::2, ::2])
    assert not short[:, 3:].any()


def test_the_stem_depends_on_the_size_of_the_image() -> None:
    small, large = build("resnet18", (3, 63, 80)), build("resnet18", (1, 64, 64))
    assert isinstance(small.conv1, nn.Conv2d)
    assert small.conv1.kernel_size == (3, 3)
    assert isinstance(small.maxpool, nn.Identity)
    assert isinstance(large.conv1, nn.Conv2d)
    assert large.conv1.weight.shape == (64, 1, 7, 7)
    assert isinstance(large.maxpool, nn.MaxPool2d)


@pytest.mark.parametrize(("side", "last"), [(4, 2), (8, 2), (16, 2), (32, 4)])
def test_small_images_keep_some_pixels_in_resnet(side: int, last: int) -> None:
    model = build("resnet18", (1, side, side)).eval()
    x = torch.zeros(1, 1, side, side)
    with torch.no_grad():
        for name in ("conv1", "layer1", "layer2", "layer3", "layer4"):
            x = model.get_submodule(name)(x)
    assert x.shape == (1, 512, last, last)


@pytest.mark.parametrize(("side", "last"), [(8, 4), (32, 4), (63, 4), (64, 2)])
def test_small_images_keep_some_pixels_in_mobilenet(side: int, last: int) -> None:
    model = build("mobilenet_v3_small", (1, side, side)).eval()
    with torch.no_grad():
        assert model.get_submodule("features")(torch.zeros(1, 1, side, side)).shape[-1] == last


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_weights_and_nothing_else_is_touched(name: str) -> None:
    state = torch.random.get_rng_state()
    first, again, other = build(name), build(name), build(name, seed=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(*pair) for pair in pairs)
    pairs = list(zip(first.parameters(), other.parameters(), strict=True))
    assert any(not torch.equal(*pair) for pair in pairs)


def test_widths_of_an_mlp() -> None:
    assert size(build("mlp", (6,), widths=[4, 3])) == 7 * 4 + 5 * 3 + 4 * 5
    assert size(build("mlp", (6,), widths=[])) == 7 * 5


def test_a_network_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_network.py").write_text(
        "from torch import nn\n"
        "number = 3\n"
        "def make(input_shape, classes, bias=True):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], classes, bias))\n"
        "def nothing(input_shape, classes):\n"
        "    return None\n"
    )
    monkeypatch.chdir(tmp_path)
    assert size(build("own_network:make", (6,))) == 35
    assert size(build("own_network:make", (6,), bias=False)) == 30
    with pytest.raises(ValueError, match=r"expected a torch\.nn\.Module"):
        build("own_network:nothing", (6,))
    with pytest.raises(ValueError, match="'own_network' has no function 'mak'"):
        build("own_network:mak", (6,))
    with pytest.raises(ValueError, match="'own_network' has no function 'number'"):
        build("own_network:number", (6,))
    with pytest.raises(ValueError, match=r"cannot import 'own_networks'.* must be a file in"):
        build("own_networks:make", (6,))


def test_a_network_of_ones_own_may_import_when_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_late.py").write_text(
        "def make(input_shape, classes):\n"
        "    from own_blocks import block\n"
        "    return block(input_shape[0], classes)\n"
    )
    (tmp_path / "own_blocks.py").write_text("from torch.nn import Linear as block\n")
    # As in a job, whose script lies elsewhere.
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", ".")])
    monkeypatch.chdir(tmp_path)
    assert size(build("own_late:make", (6,))) == 35


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ({}, (6,), "a model needs 'name'"),
        ({"name": "resnet-20"}, (1, 8, 8), r"model 'resnet-20'; did you mean 'resnet20'\?"),
        ({"name": "mlp", "width": 3}, (6,), r"model 'mlp': wrong options: .*'width'"),
        ({"name": "resnet20", "shortcut": "C"}, (1, 8, 8), r"neither 'A' .* nor 'B'"),
        ({"name": "resnet18"}, (64,), r"'resnet18' takes images .* not samples of shape \(64,\)"),
        ({"name": "resnet18", "width": 0}, (1, 8, 8), "width is 0; it must be at least 1"),
        ({"name": "bert"}, (8,), "'bert' takes texts, which the data set has none of"),
    ],
)
def test_wrong_specifications_are_explained(
    spec: dict[str, Any], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        models.build_model(spec, input_shape=shape, classes=5, seed=1)


def test_weights_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = build("resnet20")
    model.get_buffer("bn1.running_mean").add_(1)
    extra = {"0/moment": torch.arange(3.0)}
    models.save_weights(path, model, metadata={"epoch": "3"}, extra=extra)
    other = build("resnet20", seed=2)
    assert models.load_weights(path, other) == {"epoch": "3"}
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    assert models.load_extra(path).keys() == extra.keys()
    assert torch.equal(models.load_extra(path)["0/moment"], extra["0/moment"])
    with pytest.raises(ValueError, match="not the weights of this network"):
        models.load_weights(path, build("resnet32"))


def test_the_same_weights_are_the_same_file(tmp_path: Path) -> None:
    model, metadata = (
        build("mlp"),
        {key: f"{key} \u00e9\n" for key in ("epoch", "sgnoise", "a", "b", "c")},
    )
    files = []
    for number in range(4):
        path = tmp_path / f"{number}.safetensors"
        models.save_weights(path, model, metadata=dict(reversed(metadata.items())))
        files.append(path.read_bytes())
        assert models.load_weights(path, model) == metadata
    assert len(set(files)) == 1


def test_shared_weights_on_disk(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    models.save_weights(tmp_path / "model.safetensors", model, metadata={})
    models.load_weights(tmp_path / "model.safetensors", model)
    assert model["b"].weight is model["a"].weight


def test_devices() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert devices.resolve_device("auto").type == expected
    assert devices.resolve_device("cpu").type == "cpu"
