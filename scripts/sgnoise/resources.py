"""What the jobs of a study will need of a machine: minutes, memory and GPUs, from its settings.

For schedulers, which kill what takes more than it asked for: the estimates are meant to be too
high, by a factor of two to five. No step reruns when they change: they change no result.

``python scripts/list_resources.py studies/paper.yaml`` prints them as a table.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

# Multiply-adds of a forward pass (10^9 a sample) at images of a side (pixels) or texts of a length
# (tokens), and weights (10^6). Convolutions scale with the area of the image, transformers with
# the number of tokens, which does so too; texts are linear in their length.
# Sources: the networks' papers and the tables of torchvision, timm and OpenCLIP.
_COSTS: dict[str, tuple[float, int, float]] = {
    "mlp": (0.001, 0, 1),
    "resnet20": (0.041, 32, 0.27),
    "resnet32": (0.069, 32, 0.46),
    "resnet56": (0.126, 32, 0.85),
    "resnet110": (0.255, 32, 1.7),
    "resnet18": (0.56, 32, 11.7),
    "resnet34": (1.16, 32, 21.8),
    "resnet50": (1.3, 32, 25.6),
    "mobilenet_v3_small": (0.06, 64, 2.5),
    "mobilenet_v3_large": (0.22, 64, 5.5),
    "bert": (0.3, 64, 6),
    "huggingface:.*bert.*base.*": (5.5, 64, 110),
    "timm:efficientnet_b2.*": (0.7, 224, 9.1),
    "timm:efficientnet_b3.*": (1.2, 224, 12.2),
    "timm:efficientnet_b4.*": (1.8, 224, 19.3),
    "timm:(flexi)?vit_base.*|timm:flexivit_base.*": (17.6, 224, 87),
    "timm:vit_small.*|timm:flexivit_small.*": (4.6, 224, 22),
    "open_clip:ViT-B-32.*": (7.4, 224, 151),
    "open_clip:ViT-B-16-plus.*": (25, 224, 208),
    "open_clip:ViT-B-16.*": (21, 224, 150),
    "open_clip:ViT-L-14.*": (88, 224, 428),
}
# Of a network that is not in the table, a user's own above all.
_UNKNOWN_COST = (2.0, 0, 100.0)

# Samples for training, and the side of the images (0: of tables, which have none).
_SIZES: dict[str, tuple[int, int]] = {
    "bundled": (1797, 8),
    "adbench": (6435, 0),
    "cola": (8551, 64),
    "cifar10": (50_000, 32),
    "cifar100": (50_000, 32),
    "cinic10": (90_000, 32),
    "imagenet": (200_000, 224),
    "webdataset": (200_000, 224),
}
_UNKNOWN_SIZE = (50_000, 32)

# Multiply-adds a second (10^9), as reached in training rather than promised.
_CPU_SPEED = 6.0
_GPU_SPEED = 2500.0
# A pass backward costs twice one forward, an evaluation in each epoch once more.
_TRAINING_PASSES, _GRADIENT_PASSES = 4, 3
# What a step costs beside its arithmetic, which small networks on a GPU notice.
_STEP_SECONDS = 0.02
_SAFETY = 2.0
_CHUNK = 128  # samples that pass through a network together when gradients are taken
_LAYERS = 100  # more than most networks have
_BASE_MB = 1500  # Python with torch
_BASE_MINUTES = 15
_LONGEST_MINUTES = 7 * 24 * 60


class Need(NamedTuple):
    """What one job asks for: minutes of wall time, MB of memory, GPUs."""

    minutes: int
    memory_mb: int
    gpus: int


def _need(seconds: float, memory_mb: float, gpus: int = 0) -> Need:
    minutes = min(math.ceil(_BASE_MINUTES + _SAFETY * seconds / 60), _LONGEST_MINUTES)
    return Need(minutes, 100 * math.ceil(memory_mb / 100), gpus)


def _cost(model: Mapping[str, Any], side: int) -> tuple[float, float]:
    """10^9 multiply-adds a sample, 10^6 weights."""
    name = str(model["name"])
    forward, reference, weights = next(
        (cost for pattern, cost in _COSTS.items() if re.fullmatch(pattern, name)), _UNKNOWN_COST
    )
    if not reference or not side:
        return forward, weights
    power = 1 if "bert" in name else 2
    return forward * (side / reference) ** power, weights


def training_samples(spec: Mapping[str, Any]) -> int:
    """How many samples a data set has for training, at most."""
    samples, _ = _SIZES.get(spec["source"], _UNKNOWN_SIZE)
    wanted = (spec.get("subset") or {}).get("train", samples)
    return min(samples, wanted) if spec["source"] in _SIZES else wanted


def _side(spec: Mapping[str, Any]) -> int:
    """The side of its images, or the length of its texts; 0 for a table."""
    if spec["source"] == "table" or spec.get("form") == "table":
        return 0
    _, side = _SIZES.get(spec["source"], _UNKNOWN_SIZE)
    return spec.get("image_size") or spec.get("length") or side


def dataset_need(spec: Mapping[str, Any]) -> Need:
    """``fetch_dataset``: a download at 2 MB/s at worst, then decoding at 200 images a second."""
    samples, side = training_samples(spec), _side(spec)
    megabytes = samples * 3 * max(side, 8) ** 2 / 1e6
    remote = spec["source"] not in ("bundled", "table", "image_folder", "webdataset", "imagenet")
    seconds = samples / 200 * (side > 64) + (megabytes / 2 if remote else megabytes / 20)
    return _need(seconds, 1000 + min(megabytes, 4000))


def _network_load(
    run: Mapping[str, Any], spec: Mapping[str, Any], device: str, passes: float, batch_size: int
) -> tuple[float, float, int]:
    """Seconds, MB and GPUs for so many passes of the training data through a network."""
    side, samples = _side(spec), training_samples(spec)
    forward, weights = _cost(run["model"], side)
    gpus = 1 if device == "cuda" else 0
    seconds = passes * samples * forward / (_GPU_SPEED if gpus else _CPU_SPEED)
    seconds += passes / _GRADIENT_PASSES * samples / batch_size * _STEP_SECONDS
    # Activations: about 40 bytes for each thousand multiply-adds of a sample.
    activations = 0.0 if gpus else 40 * forward * batch_size
    inputs = min(samples * 12 * max(side, 8) ** 2 / 1e6, 2000)
    return seconds, _BASE_MB + 16 * weights + activations + inputs, gpus


def training_need(run: Mapping[str, Any], spec: Mapping[str, Any], device: str) -> Need:
    """``pretrain``."""
    training = run["training"]
    passes = _TRAINING_PASSES * training["epochs"]
    return _need(*_network_load(run, spec, device, passes, training["batch_size"]))


def gradients_need(
    run: Mapping[str, Any], spec: Mapping[str, Any], device: str, draws: int
) -> Need:
    """``dump_gradients``; the columns are gathered on disk where they exceed 1 GB."""
    samples, passes, batch_size = training_samples(spec), 1, _CHUNK
    columns = samples
    if run["gradients"]["mode"] == "mini_batch":
        batch_size = run["batch_sizes"][0]
        in_a_pass = max(1, samples // batch_size)
        passes = math.ceil(draws / in_a_pass)
        columns = in_a_pass * passes
    seconds, memory, gpus = _network_load(run, spec, device, passes * _GRADIENT_PASSES, batch_size)
    dump = 4 * parameters(run["gradients"]) * columns / 1e6
    return _need(seconds + dump / 50, memory + min(2 * dump, 2500), gpus)


def parameters(gradients: Mapping[str, Any]) -> int:
    """Parameters that are sampled from a network, at most."""
    return gradients["uniform"] + _LAYERS * gradients["per_layer"]


def noise_need(count: int, samples: int, draws: int) -> Need:
    """``draw_noise`` for ``count`` parameters: reads the dump once, by row group."""
    return _need(4 * count * samples / 50e6, 1000 + 4 * count * draws * 2 / 1e6 + 500)


def fit_need(count: int, draws: int, laws: int) -> Need:
    """``fit_noise``: at most 1 ms a parameter, law and thousand draws."""
    return _need(
        1e-6 * count * draws * laws, 800 + 4 * count * draws * 3 / 1e6 + count * laws / 500
    )


def rates_per_job(escape: Mapping[str, Any]) -> int:
    """The learning rates of a job of ``simulate_escape``, at most."""
    rates = escape["learning_rates"]
    count = rates if isinstance(rates, int) else len(rates)
    return min(escape["rates_per_job"] or count, count)


def escape_need(spec: Mapping[str, Any], escape: Mapping[str, Any]) -> Need:
    """``simulate_escape`` with every replica running to its budget, as if all features were 64."""
    units = [64, *escape["widths"], 2]
    weights = sum(inner * outer for inner, outer in itertools.pairwise(units))
    steps = rates_per_job(escape) * escape["replicas"] * escape["max_iterations"]
    passes = training_samples(spec) / escape["check_every"] + 3 * max(escape["batch_sizes"])
    # Multiply-adds at 10^9.3 a second, and what an iteration takes beside them.
    return _need(steps * (weights * passes / 2e9 + 10e-6), 1000)
