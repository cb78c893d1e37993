"""The bounds of Theorem 4.1 beside the simulated mean exit times, and their ratios."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sgnoise import plots
from sgnoise.jobs import running_job

_VARIANTS: dict[str, Any] = {"text": "-", "appendix": ":"}
# The colours part at 1: as many times too low is as strong as so many times too high.
_LEAST, _MOST = 1 / 30, 30
_COLOURS = sns.blend_palette(["#e58a4b", "white", "#4da3d6"], as_cmap=True)
# Inches: of a row of the ratios, and of all else.
_CELL_HEIGHT, _OTHER_HEIGHT = 0.26, 4.2


def draw_times(axes: Axes, cells: pd.DataFrame) -> None:
    """Mean exit times with their intervals and the bounds of both variants, a colour an alpha."""
    for colour, (_, rows) in zip(plots.SERIES, cells.groupby("alpha"), strict=False):
        for variant, line in _VARIANTS.items():
            axes.plot(rows["epsilon"], rows[f"bound_{variant}"], line, color=colour)
        mean = rows["mean_exit_time"]
        axes.errorbar(
            rows["epsilon"],
            mean,
            # An interval of a mean of few exits may reach below zero.
            yerr=[np.minimum(mean - rows["low"], 0.99 * mean), rows["high"] - mean],
            color=colour,
            marker="o",
            linestyle="",
            capsize=2,
            elinewidth=1,
        )
    axes.set(xscale="log", yscale="log", xlabel="noise ε")


def draw_ratios(axes: Axes, cells: pd.DataFrame, variant: str) -> None:
    """Bound over simulated mean: a row an alpha and number of parameters, a column a noise."""
    ratios = (
        cells.assign(ratio=cells[f"bound_{variant}"] / cells["mean_exit_time"])
        .pivot(index=["alpha", "dimensions"], columns="epsilon", values="ratio")
        .replace(np.inf, np.nan)
    )
    sns.heatmap(
        ratios,
        ax=axes,
        norm=LogNorm(_LEAST, _MOST),
        cmap=_COLOURS,
        annot=True,
        fmt=".3g",
        annot_kws={"fontsize": 7.5, "color": plots.INK},
        linewidths=1,
        cbar=False,
        xticklabels=[f"{epsilon:g}" for epsilon in ratios.columns],
        yticklabels=[f"α = {alpha:g}, N = {size}" for alpha, size in ratios.index],
    )
    axes.set(xlabel="noise ε", ylabel="")
    axes.tick_params(length=0, labelrotation=0)


def plot_theory(*, exit_time_path: str, png_path: str, pdf_path: str) -> None:
    """Draw mean exit times against the noise, and below them how far the bounds lie above them.

    One column a decay of the learning rate. In the upper row the least number of parameters for
    which the bounds are finite; below it, all of those, for either variant of the theorem.

    Args:
        exit_time_path: exit_time.parquet.
        png_path: where the PNG goes.
        pdf_path: where the PDF goes.

    Raises:
        ValueError: no cell of the grid has a finite bound.
    """
    grid = pd.read_parquet(exit_time_path)
    grid = grid[np.isfinite(grid["bound_text"])].sort_values("epsilon")
    if grid.empty:
        raise ValueError(
            f"{exit_time_path}: no finite bound; exit_time.dimensions needs a number above 1"
        )
    by_decay = sorted(grid.groupby("gamma"), reverse=True)
    fewest = grid["dimensions"].min()
    rows = len(grid[["alpha", "dimensions"]].drop_duplicates())
    with plots.drawing(
        png_path,
        pdf_path,
        title="Bounds of the mean exit time against simulation",
        height=_OTHER_HEIGHT + len(_VARIANTS) * rows * _CELL_HEIGHT,
    ) as figure:
        axes = figure.subplots(
            1 + len(_VARIANTS),
            len(by_decay),
            squeeze=False,
            height_ratios=[2.4, *[rows * _CELL_HEIGHT] * len(_VARIANTS)],
        )
        for column, (gamma, cells) in enumerate(by_decay):
            above, *below = axes[:, column]
            above.sharey(axes[0, 0])
            above.set_title("no decay" if gamma == 1 else f"decay, γ = {gamma:g}")
            draw_times(above, cells[cells["dimensions"] == fewest])
            plots.log_ticks(above.xaxis, grid["epsilon"].min(), grid["epsilon"].max())
            for part, variant in zip(below, _VARIANTS, strict=True):
                draw_ratios(part, cells, variant)
                part.set_title(f"bound ({variant}) / simulated")
                part.tick_params(labelleft=column == 0)
                part.label_outer()
            above.tick_params(labelleft=column == 0)
        plots.log_ticks(axes[0, 0].yaxis, *axes[0, 0].get_ylim())
        axes[0, 0].set_ylabel(f"mean exit time, N = {fewest}")
        bar = figure.colorbar(
            ScalarMappable(LogNorm(_LEAST, _MOST), _COLOURS),
            ax=axes,
            location="bottom",
            aspect=60,
            extend="both",
            label="bound / simulated: below 1 the bound is broken",
        )
        plots.log_ticks(bar.ax.xaxis, _LEAST, _MOST)
        draw_legend(figure, sorted(grid["alpha"].unique()))


def draw_legend(figure: Figure, alphas: list[float]) -> None:
    """What lines, marks and colours of the upper row mean."""
    handles = [
        Line2D([], [], color=plots.INK, marker="o", linestyle="", label="simulated"),
        *(
            Line2D([], [], color=plots.INK, linestyle=line, label=f"Theorem 4.1 ({variant})")
            for variant, line in _VARIANTS.items()
        ),
        *(
            Line2D([], [], color=colour, linewidth=4, label=f"α = {alpha:g}")
            for colour, alpha in zip(plots.SERIES, alphas, strict=False)
        ),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 6))


if __name__ == "__main__":
    with running_job() as job:
        plot_theory(
            exit_time_path=job.input.exits,
            png_path=job.output.png,
            pdf_path=job.output.pdf,
        )
