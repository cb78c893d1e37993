"""Synthetic parameters whose noise has a known law: the yardstick of the analysis.

A control is laid out like a network of ten layers. Every parameter has the same law but for its
scale, which goes from 1e-6 to 1 over the control as gradients do over networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from sgnoise import seeds, stable, store
from sgnoise.laws import LAWS
from sgnoise.progress import track

LAYERS = 10
SMALLEST_SCALE = 1e-6
# Rows that are drawn, and written as a row group, together.
BLOCK = 500

# What tells a control's layers from a network's.
LAYER_TYPE = "control"


def check_law(law: str, parameters: Mapping[str, float]) -> None:
    """Raise ValueError if there is no such law or if its parameters are not exactly those given."""
    if law not in MEANS:
        raise ValueError(f"there is no control with the law '{law}'; there are {', '.join(MEANS)}")
    shape = LAWS[law].shape
    needed = () if shape is None else (shape,)
    if set(parameters) != set(needed):
        wanted = ", ".join(needed) or "no parameters"
        given = ", ".join(parameters) or "none"
        raise ValueError(f"the law '{law}' takes {wanted}; given: {given}")


def law_title(law: str, parameters: Mapping[str, float]) -> str:
    """``stable(alpha=1.7)``, as the names of a control's layers begin."""
    shape = ", ".join(f"{name}={value:g}" for name, value in parameters.items())
    return f"{law}({shape})" if shape else law


def law_of_layer(layer: str, layer_type: str) -> str:
    """The law that the name of a control's layer begins with; empty for a layer of a network."""
    return layer.rpartition(".")[0].partition("(")[0] if layer_type == LAYER_TYPE else ""


def parameter_table(law: str, parameters: Mapping[str, float], count: int) -> pd.DataFrame:
    """The key columns of ``count`` parameters, in ten layers of (almost) equal size.

    Raises:
        ValueError: fewer parameters than layers.
    """
    if count < LAYERS:
        raise ValueError(f"count is {count}; a control needs at least {LAYERS} parameters")
    layer_index = np.arange(count) * LAYERS // count
    title = law_title(law, parameters)
    first = np.searchsorted(layer_index, layer_index)
    return pd.DataFrame(
        {
            "parameter_index": np.arange(count, dtype=np.int32),
            "layer": [f"{title}.{index}" for index in layer_index],
            "layer_index": layer_index.astype(np.int16),
            "layer_type": LAYER_TYPE,
            "tensor": "weight",
            "offset": np.arange(count, dtype=np.int64) - first,
            "stratum": "uniform",
        },
        columns=list(store.PARAMETER_COLUMNS),
    )


def parameter_scales(count: int) -> np.ndarray:
    """The scale of each parameter, (count,)."""
    return np.geomspace(SMALLEST_SCALE, 1.0, count)


# --- means of independent values, exactly: (shape, (parameters, draws), batch size, rng) --------


def _gaussian_means(
    _: float, size: tuple[int, int], batch_size: int, rng: np.random.Generator
) -> np.ndarray:
    return rng.standard_normal(size) / np.sqrt(batch_size)


def _stable_means(
    alpha: float, size: tuple[int, int], batch_size: int, rng: np.random.Generator
) -> np.ndarray:
    return stable.rvs(alpha, size, scale=batch_size ** (1 / alpha - 1), rng=rng)


def _student_means(
    degrees_of_freedom: float, size: tuple[int, int], batch_size: int, rng: np.random.Generator
) -> np.ndarray:
    """A mixture of Gaussians of variance df / chi-squared(df); independent variances add."""
    half = degrees_of_freedom / 2
    variance = np.zeros(size)
    for _ in range(batch_size):
        variance += half / rng.standard_gamma(half, size)
    return np.sqrt(variance) / batch_size * rng.standard_normal(size)


def _laplace_means(
    _: float, size: tuple[int, int], batch_size: int, rng: np.random.Generator
) -> np.ndarray:
    """A Laplace value is the difference of two exponential ones, which add to gamma values."""
    return (
        rng.standard_gamma(batch_size, size) - rng.standard_gamma(batch_size, size)
    ) / batch_size


# The laws that a control may have.
MEANS = {
    "gaussian": _gaussian_means,
    "stable": _stable_means,
    "student_t": _student_means,
    "laplace": _laplace_means,
}


def draw_means(
    law: str,
    parameters: Mapping[str, float],
    size: tuple[int, int],
    batch_size: int,
    *,
    rng: np.random.Generator,
) -> np.ndarray:
    """Means of ``batch_size`` independent values of a law with unit scale, (parameters, draws).

    Exact: the law of the mean is known in closed form, or as a mixture of Gaussians.

    Args:
        law: one of ``MEANS``.
        parameters: its shape.
        size: (parameters, draws).
        batch_size: at least 1.
        rng: source of randomness.

    Raises:
        ValueError: wrong law, parameters or batch size.
    """
    check_law(law, parameters)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; at least 1 is needed")
    (shape,) = parameters.values() or (np.nan,)
    return MEANS[law](shape, size, batch_size, rng)


def drawn_blocks(
    law: str,
    parameters: Mapping[str, float],
    count: int,
    draws: int,
    batch_size: int,
    *,
    seed: int,
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """The keys of a control's parameters and what is drawn for them, one row group after another.

    Args:
        law: see ``draw_means``, like the others.
        parameters: likewise.
        count: synthetic parameters.
        draws: for each.
        batch_size: values in a mean.
        seed: of the draws.

    Returns:
        keys, and values (parameters, draws) in double precision, times the parameters' scales.
    """
    keys, scales = parameter_table(law, parameters, count), parameter_scales(count)
    for start in track(range(0, count, BLOCK), "blocks of parameters"):
        rows = slice(start, min(start + BLOCK, count))
        size = (rows.stop - rows.start, draws)
        rng = seeds.generator(seed, start)
        values = draw_means(law, parameters, size, batch_size, rng=rng) * scales[rows, None]
        yield pa.Table.from_pandas(keys[rows], key_schema(), preserve_index=False), values


def key_schema() -> pa.Schema:
    """The Arrow types of the key columns."""
    return pa.schema(
        [
            ("parameter_index", pa.int32()),
            ("layer", pa.string()),
            ("layer_index", pa.int16()),
            ("layer_type", pa.string()),
            ("tensor", pa.string()),
            ("offset", pa.int64()),
            ("stratum", pa.string()),
        ]
    )
