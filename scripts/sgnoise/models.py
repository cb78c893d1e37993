"""Networks: from a short specification to an initialised module, and weights to and from files.

A specification is a mapping with a ``name`` and the options of that network, for instance
``{name: resnet20}``, ``{name: mlp, widths: [64, 64]}``, ``{name: "timm:vit_small_patch16_224",
pretrained: true}``, or ``{name: "my_module:my_function", ...}`` for a network of one's own.

A network takes one tensor, a batch of inputs, and returns logits (n, classes); one for the
contrastive loss returns image features (see ``sgnoise.losses``).
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from sgnoise.files import atomic_path
from sgnoise.library_networks import LIBRARIES, bert
from sgnoise.messages import unknown_name
from sgnoise.networks import BUILDERS

# Tensors under such a name are not weights of the model (no module can have a name like it).
EXTRA_PREFIX = "@"


def build_model(
    spec: Mapping[str, Any],
    *,
    input_shape: Sequence[int],
    classes: int,
    seed: int,
    vocabulary: int | None = None,
    fill: bool = True,
) -> nn.Module:
    """Build and initialise a network.

    Args:
        spec: ``name`` and options. Names: ``resnet20``, ``resnet32``, ``resnet56``, ``resnet110``
            (option ``shortcut``), ``resnet18``, ``resnet34``, ``resnet50`` (option ``width``, the
            channels of the first stage), ``mobilenet_v3_small``, ``mobilenet_v3_large``, ``mlp``
            (option ``widths``), ``bert``, ``timm:name``, ``huggingface:name``, ``open_clip:name``
            (see ``sgnoise.library_networks`` for their options), or ``module:function``, which is
            imported from the working directory or an installed package and called with
            ``input_shape``, ``classes``, the options and, for texts, ``vocabulary``.
        input_shape: of one sample: (features,), (channels, height, width), or (length,) of a text.
        classes: the number of outputs.
        seed: of the initial weights; torch's own random state is left as it was.
        vocabulary: the number of token ids, if the samples are texts.
        fill: whether to get the pre-trained weights that ``spec`` asks for; pointless where all
            weights are read from a file afterwards.

    Raises:
        ValueError: an unknown name or option, an input that the network cannot take, a library
            that is not installed, or weights that cannot be had.
    """
    options = dict(spec)
    if "name" not in options:
        raise ValueError(f"the specification of a model needs 'name'; found {sorted(options)}")
    name = str(options.pop("name"))
    builder = _builder(name, fill)
    arguments: dict[str, Any] = {
        "input_shape": tuple(int(size) for size in input_shape),
        "classes": classes,
    }
    if vocabulary is not None:
        arguments["vocabulary"] = vocabulary
    _check_arguments(name, builder, arguments, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = builder(**arguments, **options)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name!r}: expected a torch.nn.Module, found {type(model)}")
    return model


def _builder(name: str, fill: bool) -> Callable[..., nn.Module]:
    """The function that builds the network of that name."""
    prefix, separator, rest = name.partition(":")
    if prefix in LIBRARIES and separator:
        return partial(LIBRARIES[prefix], rest, fill=fill)
    if separator:
        return _imported(name)
    if name not in NETWORKS:
        others = [f"{library}:name" for library in LIBRARIES] + ["module:function of your own"]
        raise unknown_name("model", name, [*NETWORKS, *others])
    return NETWORKS[name]


def _check_arguments(
    name: str,
    builder: Callable[..., nn.Module],
    arguments: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    signature = inspect.signature(builder)
    expected = signature.parameters
    if "vocabulary" in arguments and "vocabulary" not in expected:
        raise ValueError(
            f"model {name!r} takes no texts: its function has no argument 'vocabulary'"
        )
    needed = "vocabulary" in expected and expected["vocabulary"].default is inspect.Parameter.empty
    if needed and "vocabulary" not in arguments:
        raise ValueError(f"model {name!r} takes texts, which the data set has none of")
    try:
        signature.bind(**arguments, **options)
    except TypeError as error:
        raise ValueError(f"model {name!r}: wrong options: {error}") from error


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
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=dict(metadata))
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order, which the library writes in a random one."""
    with open(path, "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise ValueError(f"{path}: a header of {length} bytes, which {len(text)} do not fit in")
        file.seek(8)
        file.write(text.ljust(length))


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


NETWORKS: dict[str, Callable[..., nn.Module]] = {**BUILDERS, "bert": bert}


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
        # For what is imported when the network is built or run; last, so that it hides no library.
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"model {name!r}: {module_name!r} has no function {function_name!r}")
    return function
