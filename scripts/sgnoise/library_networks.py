"""Networks of other libraries, which are optional: timm, transformers (Hugging Face), OpenCLIP.

A network is built without its weights, hence without a network connection, unless the
specification asks for them: with ``pretrained`` they come from the library's own source, once, and
stay in its cache; with ``weights`` they come from a file. Neither way runs code from a file: the
formats are safetensors and what ``torch.load(weights_only=True)`` takes.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from sgnoise.data.datasets import PADDING
from sgnoise.networks import image_shape


class TextClassifier(nn.Module):
    """A sequence classifier of Hugging Face as a network of one tensor, the token ids.

    Attributes:
        transformer: the classifier of Hugging Face.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (n, length), int64, 0 where there is no token, to logits (n, classes)."""
        return self.transformer(input_ids=ids, attention_mask=(ids != PADDING).long()).logits


class ImageTextNetwork(nn.Module):
    """A model of OpenCLIP: calling it encodes images; texts are encoded for the contrastive loss.

    Attributes:
        clip: the model of OpenCLIP.
    """

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    @property
    def logit_scale(self) -> torch.Tensor:
        """What a cosine is multiplied by to be a logit."""
        return self.clip.logit_scale.exp()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) to features (n, features) of norm 1."""
        return self.clip.encode_image(images, normalize=True)

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (n, length), int64, to features (n, features) of norm 1."""
        return self.clip.encode_text(ids, normalize=True)


def timm_model(
    name: str,
    *,
    input_shape: tuple[int, ...],
    classes: int,
    pretrained: bool = False,
    weights: str | None = None,
    fill: bool = True,
    **options: Any,
) -> nn.Module:
    """A classifier of timm.

    The last layer has ``classes`` outputs: its pre-trained weights are kept where they fit.

    Args:
        name: as ``timm.list_models()`` has it.
        input_shape: (channels, height, width); networks made for one size of image, such as vision
            transformers, are built for this one.
        classes: the number of outputs.
        pretrained: with the weights that timm has for it.
        weights: a file with such weights, instead of timm's source.
        fill: whether to get the weights at all.
        options: go to ``timm.create_model``.
    """
    timm = _library("timm", "timm")
    channels, height, width = image_shape(input_shape, f"timm:{name}")
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0]}*")[:5]
        raise ValueError(
            f"timm has no model {name!r}" + (f"; it has {', '.join(near)}" if near else "")
        )
    known = timm.get_pretrained_cfg(name)
    if known.fixed_input_size and (channels, height, width) != known.input_size:
        options.setdefault("img_size", (height, width))
    loading = fill and _wanted("timm", name, pretrained, weights)
    if loading and weights is None and not known.has_weights:
        raise ValueError(f"timm has no weights for {name!r}; set 'pretrained: false'")
    with _explained("timm", name, loading, weights):
        # timm keeps the last layer if its source, as the overlay describes it, has as many classes.
        overlay = None
        if loading and weights is not None:
            state = timm.models.load_state_dict(weights, weights_only=True)
            last = state.get(f"{known.classifier}.weight")
            found = known.num_classes if last is None else len(last)
            overlay = {"file": weights, "num_classes": found}
        return timm.create_model(
            name,
            pretrained=loading,
            pretrained_cfg_overlay=overlay,
            num_classes=classes,
            in_chans=channels,
            **options,
        )


def huggingface_model(
    name: str,
    *,
    input_shape: tuple[int, ...],
    classes: int,
    vocabulary: int,
    pretrained: bool = False,
    weights: str | None = None,
    fill: bool = True,
    **options: Any,
) -> nn.Module:
    """A sequence classifier of Hugging Face, with pre-trained weights, and a last layer of its own.

    Args:
        name: of the model on the Hugging Face hub, such as ``google-bert/bert-base-uncased``.
        input_shape: (length,), in tokens.
        classes: the number of outputs.
        vocabulary: the number of token ids in the data, whose tokeniser must be the model's.
        pretrained: with the weights of the hub.
        weights: a folder with ``config.json`` and ``model.safetensors``, instead of the hub.
        fill: whether to get the weights at all; the configuration is needed in any case.
        options: go to the configuration.
    """
    transformers = _library("transformers", "transformers")
    full_name = f"huggingface:{name}"
    length = _text_length(input_shape, full_name)
    wanted = _wanted("huggingface", name, pretrained, weights)
    if weights is not None and not (Path(weights) / "config.json").is_file():
        raise ValueError(
            f"model {full_name!r}: 'weights' is {weights!r}; it must be a folder with config.json "
            "and model.safetensors"
        )
    source = weights or name
    try:
        with _explained("huggingface", name, wanted, weights):
            config, unknown = transformers.AutoConfig.from_pretrained(
                source,
                num_labels=classes,
                local_files_only=weights is not None or not wanted,
                trust_remote_code=False,
                return_unused_kwargs=True,
                **options,
            )
    except OSError as error:
        raise ValueError(
            f"model {full_name!r}: its configuration is not on this machine. Set 'pretrained: true'"
            " where there is a connection, or 'weights:' to a folder with config.json and "
            "model.safetensors; or choose 'bert', which is built from sizes"
        ) from error
    if unknown:
        raise ValueError(f"model {full_name!r}: wrong options: {', '.join(sorted(unknown))}")
    if config.pad_token_id not in (PADDING, None):
        raise ValueError(
            f"model {full_name!r} fills up texts with the token {config.pad_token_id}, the data "
            f"sets here with {PADDING}; choose a model of the BERT family"
        )
    if vocabulary > config.vocab_size:
        raise ValueError(
            f"model {full_name!r} knows {config.vocab_size} tokens, the data set has {vocabulary}; "
            "its texts need the tokeniser of the model"
        )
    longest = getattr(config, "max_position_embeddings", length)
    if length > longest:
        raise ValueError(
            f"model {full_name!r} takes texts of {longest} tokens; those of the data set have "
            f"{length}"
        )
    classifier = transformers.AutoModelForSequenceClassification
    if not (fill and wanted):
        return TextClassifier(classifier.from_config(config))
    with _explained("huggingface", name, True, weights):
        network, report = classifier.from_pretrained(
            source,
            output_loading_info=True,
            config=config,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            local_files_only=weights is not None,
            trust_remote_code=False,
            dtype=torch.float32,
        )
    # The last layer may be new; the body must not be.
    missing = {*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])}
    missing = {key for key in missing if key.startswith(f"{network.base_model_prefix}.")}
    if missing:
        raise ValueError(
            f"model {full_name!r}: the weights of {source} lack {len(missing)} tensors of this "
            f"network, such as {min(missing)}"
        )
    return TextClassifier(network)


def bert(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    vocabulary: int,
    hidden_size: int = 128,
    layers: int = 2,
    heads: int = 2,
    intermediate_size: int = 512,
) -> nn.Module:
    """A BERT classifier with random weights, of any size; BERT base is 768, 12, 12, 3072.

    Args:
        input_shape: (length,), in tokens.
        classes: the number of outputs.
        vocabulary: the number of token ids.
        hidden_size: features of a token.
        layers: of attention.
        heads: of each layer.
        intermediate_size: units between the two linear maps of each layer.
    """
    transformers = _library("transformers", "transformers")
    length = _text_length(input_shape, "bert")
    if hidden_size % heads:
        raise ValueError(f"bert: hidden_size {hidden_size} is no multiple of heads {heads}")
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=length,
        num_labels=classes,
        pad_token_id=PADDING,
    )
    return TextClassifier(transformers.BertForSequenceClassification(config))


def open_clip_model(
    name: str,
    *,
    input_shape: tuple[int, ...],
    classes: int,
    vocabulary: int | None = None,
    pretrained: str | None = None,
    weights: str | None = None,
    fill: bool = True,
) -> nn.Module:
    """A model of OpenCLIP, for the contrastive loss.

    Args:
        name: as ``open_clip.list_models()`` has it.
        input_shape: (channels, height, width) of the images, as the model has it.
        classes: not used: the texts take the place of classes.
        vocabulary: the number of token ids in the texts, if known.
        pretrained: the tag of the weights, such as ``laion400m_e32``.
        weights: a file with such weights, instead of OpenCLIP's source.
        fill: whether to get the weights at all.
    """
    open_clip = _library("open_clip", "open-clip-torch")
    shape = image_shape(input_shape, f"open_clip:{name}")
    if name not in open_clip.list_models():
        near = [known for known in open_clip.list_models() if known.startswith(name[:5])][:5]
        raise ValueError(
            f"open_clip has no model {name!r}" + (f"; it has {', '.join(near)}" if near else "")
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained and pretrained not in tags:
        raise ValueError(
            f"open_clip has no weights {pretrained!r} for {name!r}; it has {', '.join(tags)}"
        )
    config = open_clip.get_model_config(name)
    tokens = config["text_cfg"]["vocab_size"]
    if vocabulary is not None and vocabulary > tokens:
        raise ValueError(
            f"model 'open_clip:{name}' knows {tokens} tokens, the data set has {vocabulary}; its "
            "texts need the tokeniser of the model"
        )
    size = config["vision_cfg"]["image_size"]
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if shape != (3, *sides):
        raise ValueError(
            f"model 'open_clip:{name}' takes images of shape {(3, *sides)}, not {shape}; set the "
            "size of the data set's images"
        )
    loading = fill and _wanted("open_clip", name, bool(pretrained), weights)
    with _explained("open_clip", name, loading, weights), _quiet():
        network = open_clip.create_model(
            name,
            pretrained=(weights or pretrained) if loading else None,
            pretrained_text=False,
            weights_only=True,
        )
    return ImageTextNetwork(network)


LIBRARIES: dict[str, Callable[..., nn.Module]] = {
    "timm": timm_model,
    "huggingface": huggingface_model,
    "open_clip": open_clip_model,
}


def _library(module: str, package: str) -> ModuleType:
    """An optional library.

    Not by an ``import`` statement: the digest of the code would then rerun every network when the
    library of another one changes.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ValueError(
            f"this network needs the library {package!r}, which is not installed; install it "
            f"(pip install {package}) or choose another network"
        ) from error


def _wanted(library: str, name: str, pretrained: bool, weights: str | None) -> bool:
    """Whether the network is to have weights from elsewhere; a file must be there."""
    if not isinstance(pretrained, bool):
        raise ValueError(
            f"model '{library}:{name}': 'pretrained' is {pretrained!r}; it must be true or false"
        )
    if weights is not None and not Path(weights).exists():
        raise ValueError(
            f"model '{library}:{name}': there are no weights at {weights!r} (relative paths start "
            f"at {Path.cwd()})"
        )
    return pretrained or weights is not None


@contextmanager
def _explained(library: str, name: str, loading: bool, weights: str | None) -> Iterator[None]:
    """Say what to do about weights that cannot be had."""
    try:
        yield
    except TypeError as error:
        raise ValueError(f"model '{library}:{name}': wrong options: {error}") from error
    except Exception as error:
        if not loading:
            raise
        if weights is not None:
            raise ValueError(
                f"model '{library}:{name}': {weights} are not its weights: {error}"
            ) from error
        raise ValueError(
            f"model '{library}:{name}': its weights could not be downloaded "
            f"({type(error).__name__}: {error}). Run once where there is a connection, or fetch "
            "the file by other means and set 'weights:' to its path"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without OpenCLIP's warning of random weights, which are asked for or replaced later."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _text_length(input_shape: tuple[int, ...], name: str) -> int:
    if len(input_shape) != 1:
        raise ValueError(
            f"model {name!r} takes texts (length,) of token ids, not samples of shape {input_shape}"
        )
    return input_shape[0]
