"""Figure 7: alpha of single weights by network, beside the spread that estimation error gives."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.special import ndtri

from sgnoise import plots, readers
from sgnoise.jobs import running_job

# What stands side by side for each network, and its colour.
_COLUMNS = {"weight": plots.BLUE, "seen": plots.BLUE, "error": plots.GREY}
_NETWORKS_IN_WIDTH = 5
# Of each weight's error, and of the mixture of all.
_ERROR_POINTS, _ERROR_QUANTILES = 99, 999
# Boxes: the central 1/2, 3/4, 7/8, 15/16 and 31/32.
_BOXES = 5


def spread_of_errors(alpha: np.ndarray, standard_error: np.ndarray) -> np.ndarray:
    """Estimates that would be seen if all weights had the same alpha, the median.

    A mixture of normal errors with each weight's own standard error, cut off at 2.

    Args:
        alpha: estimates, (weight,).
        standard_error: theirs, (weight,); weights without one are left out.

    Returns:
        Evenly spaced quantiles of the mixture, (quantile,); none where no standard error is known.
    """
    known = standard_error[np.isfinite(standard_error)]
    if not known.size:
        return known
    estimates = np.median(alpha) + known[:, None] * ndtri(_midpoints(_ERROR_POINTS))
    return np.quantile(np.minimum(estimates, 2.0), _midpoints(_ERROR_QUANTILES))


def _midpoints(count: int) -> np.ndarray:
    """Probabilities in the middle of ``count`` equal parts of the unit interval."""
    return (np.arange(count) + 0.5) / count


def draw_alphas(axes: Axes, alphas: pd.DataFrame) -> None:
    """A dot for each weight, boxes of what is seen, and boxes of what estimation error gives.

    Args:
        axes: where.
        alphas: a row an estimate: ``network``, ``column`` (of ``_COLUMNS``) and ``alpha``.
    """
    shared: dict[str, Any] = {
        "x": "network",
        "y": "alpha",
        "hue": "column",
        "hue_order": list(_COLUMNS),
        "palette": _COLUMNS,
        "legend": False,
        "ax": axes,
    }
    sns.stripplot(
        alphas[alphas["column"] == "weight"],
        dodge=True,
        jitter=0.35,
        size=2,
        alpha=0.5,
        # Thousands of dots would weigh megabytes as PDF paths.
        rasterized=True,
        **shared,
    )
    sns.boxenplot(
        alphas[alphas["column"] != "weight"],
        k_depth=_BOXES,
        showfliers=False,
        gap=0.2,
        linewidth=0,
        line_kws={"color": plots.INK, "linewidth": 1.2},
        **shared,
    )


def plot_alpha_by_network(
    *, fits_paths: list[str], labels: list[str], batch_size: int, png_path: str, pdf_path: str
) -> None:
    """Draw alpha of uniformly sampled weights, network by network.

    Args:
        fits_paths: the fits of each network.
        labels: its name.
        batch_size: of the noise, for the axis.
        png_path: where the PNG goes.
        pdf_path: where the PDF goes.

    Raises:
        ValueError: a network has no usable fit of a uniformly sampled weight.
    """
    tables = []
    for path, label in zip(fits_paths, labels, strict=True):
        fits = readers.read_law(path, "stable", ["alpha", "alpha_se", "converged"])
        uniform = fits[fits["stratum"] == "uniform"]
        usable = uniform[uniform["converged"] & np.isfinite(uniform["alpha"])]
        if usable.empty:
            raise ValueError(f"{path}: no usable SαS fit of a uniformly sampled parameter")
        alpha, error = usable["alpha"].to_numpy(), usable["alpha_se"].to_numpy()
        columns = {"weight": alpha, "seen": alpha, "error": spread_of_errors(alpha, error)}
        network = f"{label}\n{counted(uniform, usable)}"
        tables += [
            pd.DataFrame({"alpha": values, "column": column, "network": network})
            for column, values in columns.items()
        ]
    alphas = pd.concat(tables, ignore_index=True)
    with plots.drawing(
        png_path,
        pdf_path,
        title="Alpha of single weights by network",
        height=4.4,
        width=plots.WIDTH * max(1.0, len(labels) / _NETWORKS_IN_WIDTH),
    ) as figure:
        axes = figure.subplots()
        draw_alphas(axes, alphas)
        axes.axhline(2, color=plots.INK, linewidth=0.8, linestyle=":")
        axes.set(
            xlabel="", ylabel=rf"$\hat{{\alpha}}$ of a weight's noise, batch size {batch_size}"
        )
        handles = [
            Line2D(
                [], [], color=plots.BLUE, marker="o", markersize=2, linestyle="", label="weight"
            ),
            Patch(color=plots.BLUE, label="seen"),
            Patch(color=plots.GREY, label="by estimation error alone"),
            Line2D([], [], color=plots.INK, linewidth=0.8, linestyle=":", label="Gaussian (α = 2)"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def counted(uniform: pd.DataFrame, usable: pd.DataFrame) -> str:
    """How many weights a network shows, and how many were left out."""
    left_out = len(uniform) - len(usable)
    return f"{len(usable):,} weights" + (f"\n{left_out:,} left out" if left_out else "")


if __name__ == "__main__":
    with running_job() as job:
        plot_alpha_by_network(
            fits_paths=list(job.input.fits),
            labels=job.params.labels,
            batch_size=job.params.batch_size,
            png_path=job.output.png,
            pdf_path=job.output.pdf,
        )
