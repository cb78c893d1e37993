"""Figure 7: alpha of single weights by network, beside the spread that estimation error gives."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.stats import norm

from sgnoise import plots, readers
from sgnoise.jobs import running_job

_QUANTILES = (0.025, 0.5, 0.975)
_STRIP_WIDTH = 0.5
_OBSERVED_AT, _ERROR_AT = 0.36, 0.48
_STRIPS_IN_WIDTH = 5
_DENSITY_BINS = 60
_ERROR_POINTS = 99
_GOLDEN = (np.sqrt(5) - 1) / 2


def strip_offsets(alpha: np.ndarray) -> np.ndarray:
    """Sideways places of dots, (weight,) within ±0.5, the wider the more weights share their alpha.

    A golden-ratio sequence in place of chance: even, and the same each time.
    """
    counts, edges = np.histogram(alpha, bins=_DENSITY_BINS)
    density = counts[np.clip(np.digitize(alpha, edges) - 1, 0, _DENSITY_BINS - 1)] / counts.max()
    place = np.empty(alpha.size)
    place[np.argsort(alpha, kind="stable")] = (np.arange(alpha.size) * _GOLDEN) % 1 - 0.5
    return place * np.sqrt(density)


def error_spread(alpha: np.ndarray, standard_error: np.ndarray) -> np.ndarray:
    """Quantiles of estimates that would be seen if all weights had the same alpha, the median.

    A mixture of normal errors with each weight's own standard error, cut off at 2.

    Args:
        alpha: estimates, (weight,).
        standard_error: theirs, (weight,); weights without one are left out.

    Returns:
        The 2.5 %, 50 % and 97.5 % points.
    """
    known = standard_error[np.isfinite(standard_error)]
    if not known.size:
        return np.full(len(_QUANTILES), np.nan)
    steps = norm.ppf((np.arange(_ERROR_POINTS) + 0.5) / _ERROR_POINTS)
    estimates = np.median(alpha) + known[:, None] * steps
    return np.quantile(np.minimum(estimates, 2.0), _QUANTILES)


def draw_interval(axes: Axes, x: float, quantiles: np.ndarray, colour: str) -> None:
    """A bar from the lower to the upper quantile with a mark at the median."""
    low, median, high = quantiles
    axes.vlines(x, low, high, color=colour, linewidth=4)
    axes.plot(x, median, "_", color="white", markersize=6, markeredgewidth=1.5)


def plot_alpha_by_network(
    *, fits_paths: list[str], labels: list[str], batch_size: int, png_path: str, pdf_path: str
) -> None:
    """Draw alpha of uniformly sampled weights, a strip for each network.

    Args:
        fits_paths: the fits of each network.
        labels: its name.
        batch_size: of the noise, for the axis.
        png_path: where the PNG goes.
        pdf_path: where the PDF goes.

    Raises:
        ValueError: a network has no usable fit of a uniformly sampled weight.
    """
    with plots.drawing(
        png_path,
        pdf_path,
        title="Alpha of single weights by network",
        height=4.4,
        width=plots.WIDTH * max(1.0, len(labels) / _STRIPS_IN_WIDTH),
    ) as figure:
        axes = figure.subplots()
        ticks = []
        for place, (path, label) in enumerate(zip(fits_paths, labels, strict=True)):
            fits = readers.read_law(path, "stable", ["alpha", "alpha_se", "converged"])
            uniform = fits[fits["stratum"] == "uniform"]
            usable = uniform[uniform["converged"] & np.isfinite(uniform["alpha"])]
            if usable.empty:
                raise ValueError(f"{path}: no usable SαS fit of a uniformly sampled parameter")
            alpha, error = usable["alpha"].to_numpy(), usable["alpha_se"].to_numpy()
            colour = plots.SERIES[place % len(plots.SERIES)]
            axes.plot(
                place + _STRIP_WIDTH * strip_offsets(alpha),
                alpha,
                linestyle="",
                marker="o",
                markersize=2,
                markeredgewidth=0,
                alpha=0.5,
                color=colour,
                # Thousands of dots would weigh megabytes as PDF paths.
                rasterized=True,
            )
            draw_interval(axes, place + _OBSERVED_AT, np.quantile(alpha, _QUANTILES), colour)
            draw_interval(axes, place + _ERROR_AT, error_spread(alpha, error), plots.GREY)
            ticks.append(f"{label}\n{counted(uniform, usable)}")
        axes.axhline(2, color=plots.INK, linewidth=0.8, linestyle=":")
        axes.set_xticks(range(len(labels)), ticks)
        axes.set_xlim(-0.45, len(labels) - 0.3)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(rf"$\hat{{\alpha}}$ of a weight's noise, batch size {batch_size}")
        handles = [
            Line2D([], [], color=plots.INK, marker="o", markersize=2, linestyle="", label="weight"),
            Line2D([], [], color=plots.INK, linewidth=4, label="central 95 % seen, median"),
            Line2D([], [], color=plots.GREY, linewidth=4, label="95 % by estimation error alone"),
            Line2D([], [], color=plots.INK, linewidth=0.8, linestyle=":", label="Gaussian (α = 2)"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def counted(uniform: pd.DataFrame, usable: pd.DataFrame) -> str:
    """How many weights a strip shows, and how many were left out."""
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
