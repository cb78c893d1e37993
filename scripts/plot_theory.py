"""The bounds of Theorem 4.1 beside the simulated mean exit times."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from sgnoise import plots
from sgnoise.jobs import running_job

_VARIANTS: dict[str, Any] = {"text": "-", "appendix": ":"}


def plot_theory(*, exit_time_path: str, png_path: str, pdf_path: str) -> None:
    """Draw mean exit times against the noise, and below them how far the bounds lie above them.

    One column a decay of the learning rate, with the least number of parameters for which the
    bounds are finite in the upper row and all of those in the lower.

    Args:
        exit_time_path: exit_time.parquet.
        png_path: where the PNG goes.
        pdf_path: where the PDF goes.

    Raises:
        ValueError: no cell of the grid has a finite bound.
    """
    grid = pd.read_parquet(exit_time_path)
    grid = grid[np.isfinite(grid["bound_text"])]
    if grid.empty:
        raise ValueError(
            f"{exit_time_path}: no finite bound; exit_time.dimensions needs a number above 1"
        )
    gammas = sorted(grid["gamma"].unique(), reverse=True)
    alphas = sorted(grid["alpha"].unique())
    sizes = sorted(grid["dimensions"].unique())
    with plots.drawing(
        png_path, pdf_path, title="Bounds of the mean exit time against simulation", height=5.8
    ) as figure:
        axes = figure.subplots(2, len(gammas), sharex=True, sharey="row", squeeze=False)
        for column, gamma in enumerate(gammas):
            part = grid[grid["gamma"] == gamma]
            above, below = axes[:, column]
            below.axhline(1, color=plots.GREY, linewidth=1)
            for colour, alpha in zip(plots.SERIES, alphas, strict=False):
                rows = part[part["alpha"] == alpha].sort_values("epsilon")
                few = rows[rows["dimensions"] == sizes[0]]
                for variant, line in _VARIANTS.items():
                    above.plot(few["epsilon"], few[f"bound_{variant}"], line, color=colour)
                mean = few["mean_exit_time"]
                above.errorbar(
                    few["epsilon"],
                    mean,
                    # An interval of a mean of few exits may reach below zero.
                    yerr=[np.minimum(mean - few["low"], 0.99 * mean), few["high"] - mean],
                    color=colour,
                    marker="o",
                    linestyle="",
                    capsize=2,
                    elinewidth=1,
                )
                for marker, size in zip(plots.MARKERS, sizes, strict=False):
                    some = rows[rows["dimensions"] == size]
                    for variant, line in _VARIANTS.items():
                        below.plot(
                            some["epsilon"],
                            some[f"bound_{variant}"] / some["mean_exit_time"],
                            line,
                            color=colour,
                            marker=marker,
                            markersize=4,
                            linewidth=1,
                        )
            above.set_title("no decay" if gamma == 1 else f"decay, γ = {gamma:g}")
            below.set_xlabel("noise ε")
            for each in (above, below):
                each.set_xscale("log")
                each.set_yscale("log")
                plots.log_ticks(each.xaxis, grid["epsilon"].min(), grid["epsilon"].max())
        for row in axes:
            plots.log_ticks(row[0].yaxis, *row[0].get_ylim())
        axes[0, 0].set_ylabel(f"mean exit time, N = {sizes[0]}")
        axes[1, 0].set_ylabel("bound / simulated")
        handles = [
            Line2D([], [], color=plots.INK, linestyle=line, label=f"Theorem 4.1 ({variant})")
            for variant, line in _VARIANTS.items()
        ]
        handles += [
            Line2D([], [], color=plots.INK, marker=marker, linestyle="", label=f"N = {size}")
            for marker, size in zip(plots.MARKERS, sizes, strict=False)
        ]
        handles += [
            Line2D([], [], color=colour, linewidth=4, label=f"α = {alpha:g}")
            for colour, alpha in zip(plots.SERIES, alphas, strict=False)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=4)


if __name__ == "__main__":
    with running_job() as job:
        plot_theory(
            exit_time_path=job.input.exits,
            png_path=job.output.png,
            pdf_path=job.output.pdf,
        )
