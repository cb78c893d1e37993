"""Networks of timm, Hugging Face and OpenCLIP, with weights from files and without any."""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sgnoise import devices, library_networks, losses, models

VIT = {
    "name": "timm:vit_small_patch16_224",
    "embed_dim": 24,
    "depth": 1,
    "num_heads": 2,
    "patch_size": 4,
}
BERT = {"name": "bert", "hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 32}
CLIP = {"name": "open_clip:tiny"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with devices.cpu_threads(1):
        yield


@pytest.fixture(scope="module", autouse=True)
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> None:
    open_clip = importlib.import_module("open_clip")
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 6, "vocab_size": 40, "width": 16, "heads": 2, "layers": 1},
    }
    path = tmp_path_factory.mktemp("clip") / "tiny.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)


def build(
    spec: dict[str, Any],
    shape: tuple[int, ...],
    *,
    classes: int = 5,
    vocabulary: int | None = None,
    seed: int = 1,
    fill: bool = True,
) -> nn.Module:
    return models.build_model(
        spec, input_shape=shape, classes=classes, vocabulary=vocabulary, seed=seed, fill=fill
    ).eval()


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


SPECS: list[tuple[dict[str, Any], tuple[int, ...], int | None]] = [
    (VIT, (3, 16, 16), None),
    ({"name": "timm:efficientnet_b2"}, (1, 32, 32), None),
    (BERT, (8,), 30),
    (CLIP, (3, 16, 16), 40),
]


@pytest.mark.parametrize(("spec", "shape", "vocabulary"), SPECS)
def test_the_seed_decides_the_weights_and_a_checkpoint_restores_them(
    spec: dict[str, Any], shape: tuple[int, ...], vocabulary: int | None, tmp_path: Path
) -> None:
    state = torch.random.get_rng_state()
    model, again, other = (
        build(spec, shape, vocabulary=vocabulary, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same(model, again)
    assert not same(model, other)
    if vocabulary == 30:
        inputs = torch.randint(1, vocabulary, (2, *shape), generator=torch.Generator())
    else:
        inputs = torch.randn(2, *shape, generator=torch.Generator())
    with torch.no_grad():
        assert model(inputs).shape == (2, 12 if spec is CLIP else 5)
    models.save_weights(tmp_path / "model.safetensors", model, metadata={})
    models.load_weights(tmp_path / "model.safetensors", other)
    assert same(model, other)


@pytest.mark.parametrize(
    ("spec", "shape", "classes", "expected"),
    [
        # As timm, Hugging Face and the papers of these networks have it.
        ({"name": "timm:efficientnet_b2"}, (3, 256, 256), 1000, 9109994),
        ({"name": "timm:efficientnet_b3"}, (3, 288, 288), 1000, 12233232),
        ({"name": "timm:efficientnet_b4"}, (3, 320, 320), 1000, 19341616),
        ({"name": "timm:flexivit_base"}, (3, 240, 240), 1000, 86589160),
        ({"name": "timm:vit_base_patch16_224"}, (3, 224, 224), 1000, 86567656),
        ({"name": "timm:vit_small_patch16_224"}, (3, 224, 224), 1000, 22050664),
        (
            {**BERT, "hidden_size": 768, "layers": 12, "heads": 12, "intermediate_size": 3072},
            (512,),
            2,
            109483778,
        ),
    ],
)
def test_the_networks_of_the_paper_have_their_size(
    spec: dict[str, Any], shape: tuple[int, ...], classes: int, expected: int
) -> None:
    vocabulary = 30522 if len(shape) == 1 else None
    with torch.device("meta"):
        model = build(spec, shape, classes=classes, vocabulary=vocabulary)
    assert size(model) == expected


@pytest.mark.parametrize(
    ("name", "side"),
    [("ViT-B-32", 224), ("ViT-B-16", 224), ("ViT-B-16-plus-240", 240), ("ViT-L-14", 224)],
)
def test_the_open_clip_models_of_the_paper_are_known(name: str, side: int) -> None:
    spec = {"name": f"open_clip:{name}", "pretrained": "laion400m_e32"}
    with pytest.raises(ValueError, match=rf"takes images of shape \(3, {side}, {side}\)"):
        build(spec, (3, 32, 32), classes=0)


def test_vision_transformers_are_built_for_the_size_of_the_image() -> None:
    small, large = build(VIT, (3, 16, 16)), build(VIT, (3, 32, 32))
    assert small.get_parameter("pos_embed").shape[1] == 1 + 16
    assert large.get_parameter("pos_embed").shape[1] == 1 + 64


def test_padding_does_not_matter_to_a_text() -> None:
    model = build(BERT, (8,), vocabulary=30)
    ids = torch.randint(1, 30, (3, 6), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        short, long = model(ids), model(nn.functional.pad(ids, (0, 2)))
        assert not torch.allclose(model(ids[:, :5]), short)
    torch.testing.assert_close(long, short)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_timm_takes_weights_from_a_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"vit{suffix}"
    source = build(VIT, (3, 16, 16), seed=2)
    if suffix == ".pth":
        torch.save(source.state_dict(), path)
    else:
        save_file(source.state_dict(), path)
    spec = {**VIT, "weights": str(path)}
    assert same(build(spec, (3, 16, 16)), source)
    assert not same(build(spec, (3, 16, 16), fill=False), source)
    # Another number of classes: another head, the rest as it was.
    state = build(spec, (3, 16, 16), classes=3).state_dict()
    assert state["head.weight"].shape == (3, 24)
    for name, tensor in source.state_dict().items():
        assert name.startswith("head.") or torch.equal(state[name], tensor)


def test_hugging_face_takes_weights_from_a_folder(tmp_path: Path) -> None:
    source = build(BERT, (8,), vocabulary=30, seed=2)
    source.get_submodule("transformer").save_pretrained(tmp_path)  # type: ignore[operator]
    assert (tmp_path / "model.safetensors").is_file()
    spec = {"name": "huggingface:own/bert", "weights": str(tmp_path)}
    found = build(spec, (8,), vocabulary=30)
    assert same(found, source)
    assert all(parameter.dtype == torch.float32 for parameter in found.parameters())
    assert not same(build(spec, (8,), vocabulary=30, fill=False), source)
    state = build(spec, (8,), classes=3, vocabulary=30).state_dict()
    head = "transformer.classifier"
    assert state[f"{head}.weight"].shape == (3, 16)
    for name, tensor in source.state_dict().items():
        assert name.startswith(head) or torch.equal(state[name], tensor)
    with pytest.raises(ValueError, match="knows 30 tokens, the data set has 31"):
        build(spec, (8,), vocabulary=31)
    with pytest.raises(ValueError, match="takes texts of 8 tokens; those of the data set have 9"):
        build(spec, (9,), vocabulary=30)
    with pytest.raises(ValueError, match="fills up texts with the token 1"):
        build({**spec, "pad_token_id": 1}, (8,), vocabulary=30)
    with pytest.raises(ValueError, match="wrong options: hiden_dropout"):
        build({**spec, "hiden_dropout": 0.0}, (8,), vocabulary=30)
    dropped = build({**spec, "hidden_dropout_prob": 0.5}, (8,), vocabulary=30)
    config: Any = dropped.get_submodule("transformer").config
    assert config.hidden_dropout_prob == 0.5
    for options in ({"num_hidden_layers": 2}, {"intermediate_size": 8}):
        with pytest.raises(ValueError, match=r"lack \d+ tensors of this network, such as bert\."):
            build({**spec, **options}, (8,), vocabulary=30)
    with pytest.raises(ValueError, match=r"it must be a folder with config\.json"):
        build({**spec, "weights": str(tmp_path.parent)}, (8,), vocabulary=30)


def test_open_clip_takes_weights_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    source = build(CLIP, (3, 16, 16), seed=2)
    save_file(source.get_submodule("clip").state_dict(), path)
    spec = {**CLIP, "weights": str(path)}
    assert same(build(spec, (3, 16, 16)), source)
    assert not same(build(spec, (3, 16, 16), fill=False), source)


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("spec", [VIT, CLIP])
def test_no_code_is_run_from_a_file_of_weights(spec: dict[str, Any], tmp_path: Path) -> None:
    path, trace = tmp_path / "harmful.pth", tmp_path / "trace"
    torch.save({"state_dict": Harmful(trace)}, path)
    with pytest.raises(ValueError, match=r"harmful\.pth are not its weights"):
        build({**spec, "weights": str(path)}, (3, 16, 16))
    assert not trace.exists()
    pickle.loads(pickle.dumps(Harmful(trace)))
    assert trace.exists()


@pytest.mark.parametrize(
    ("spec", "shape", "vocabulary"),
    [
        ({"name": "timm:vit_small_patch16_224", "pretrained": True}, (3, 224, 224), None),
        ({"name": "huggingface:google-bert/bert-base-uncased", "pretrained": True}, (8,), 30),
        ({"name": "open_clip:ViT-B-32", "pretrained": "laion400m_e32"}, (3, 224, 224), 49408),
    ],
)
def test_without_a_connection_the_message_says_what_to_do(
    spec: dict[str, Any], shape: tuple[int, ...], vocabulary: int | None
) -> None:
    message = r"its weights could not be downloaded .* set 'weights:' to its path"
    with pytest.raises(ValueError, match=f"(?s){spec['name']}.*{message}"):
        build(spec, shape, vocabulary=vocabulary)


@pytest.mark.parametrize(
    ("spec", "shape", "vocabulary", "message"),
    [
        ({"name": "timm:vit_smal"}, (3, 16, 16), None, "timm has no model 'vit_smal'; it has "),
        ({**VIT, "widht": 3}, (3, 16, 16), None, "wrong options: .*'widht'"),
        ({**VIT, "weights": "no.pth"}, (3, 16, 16), None, "there are no weights at 'no.pth'"),
        ({**VIT, "pretrained": "in1k"}, (3, 16, 16), None, "it must be true or false"),
        (VIT, (16,), None, "takes images"),
        (VIT, (8,), 30, "takes no texts"),
        (BERT, (3, 16, 16), 30, "takes texts"),
        ({**BERT, "heads": 3}, (8,), 30, "hidden_size 16 is no multiple of heads 3"),
        ({"name": "huggingface:own/bert"}, (8,), 30, "its configuration is not on this machine"),
        ({"name": "open_clip:ViT-B-31"}, (3, 16, 16), None, "no model 'ViT-B-31'; it has ViT-B"),
        ({**CLIP, "pretrained": "laion"}, (3, 16, 16), None, "has no weights 'laion' for 'tiny'"),
        (CLIP, (3, 16, 16), 41, "knows 40 tokens, the data set has 41"),
    ],
)
def test_wrong_specifications_are_explained(
    spec: dict[str, Any], shape: tuple[int, ...], vocabulary: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(spec, shape, vocabulary=vocabulary)


@pytest.mark.parametrize(
    ("spec", "shape", "vocabulary", "package"),
    [
        (VIT, (3, 16, 16), None, "timm"),
        (BERT, (8,), 30, "transformers"),
        (CLIP, (3, 16, 16), None, "open-clip-torch"),
    ],
)
def test_a_missing_library_is_named(
    spec: dict[str, Any],
    shape: tuple[int, ...],
    vocabulary: int | None,
    package: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(library_networks.importlib, "import_module", missing)
    with pytest.raises(ValueError, match=rf"needs the library '{package}'.*pip install {package}"):
        build(spec, shape, vocabulary=vocabulary)


def test_the_contrastive_loss_is_that_of_open_clip() -> None:
    # In double precision, as the two add up the same terms in another order.
    model = build(CLIP, (3, 16, 16)).double()
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, 16, 16, generator=generator, dtype=torch.float64)
    ids = torch.randint(1, 40, (4, 6), generator=generator)
    expected = importlib.import_module("open_clip.loss").ClipLoss()(
        *model.get_submodule("clip")(images, ids)
    )
    loss = losses.loss_function("contrastive", model)
    outputs = model(images)
    torch.testing.assert_close(loss(outputs, ids), expected)
    gradients = torch.autograd.grad(loss(outputs, ids), list(model.parameters()))
    for found, true in zip(
        gradients, torch.autograd.grad(expected, list(model.parameters())), strict=True
    ):
        torch.testing.assert_close(found, true)
    assert not loss.by_sample
    own = [0, 2, 1, 3]  # the features of its own text, but for two images
    texts = model.encode_text(ids)  # type: ignore[operator]
    assert loss.correct(texts[own], ids).tolist() == [True, False, False, True]


def test_losses_by_name() -> None:
    logits, targets = torch.tensor([[2.0, 0.0], [3.0, 1.0]]), torch.tensor([0, 1])
    loss = losses.loss_function("cross_entropy", nn.Identity())
    torch.testing.assert_close(loss(logits, targets), nn.functional.cross_entropy(logits, targets))
    assert loss.by_sample
    assert loss.correct(logits, targets).tolist() == [True, False]
    with pytest.raises(
        ValueError, match=r"unknown loss 'contrastiv'; did you mean 'contrastive'\?"
    ):
        losses.loss_function("contrastiv", nn.Identity())
    with pytest.raises(ValueError, match="needs a network of images and texts"):
        losses.loss_function("contrastive", nn.Identity())
