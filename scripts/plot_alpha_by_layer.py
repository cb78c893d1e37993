"""Figure 8: mean alpha of the noise in each layer, from the input to the output."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sgnoise import evidence, plots
from sgnoise.jobs import running_job

_NORMAL_95 = 1.96
_OFFSET = 0.2
_RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "none",
    "color": plots.INK,
    "linestyle": "",
}


def read_layers(paths: list[str], labels: list[str], batch_size: int) -> pd.DataFrame:
    """Layers with a mean alpha of several networks, with ``network`` and the position ``x``.

    The positions of networks in one panel are side by side.
    """
    tables = []
    for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
        layers = pd.read_parquet(path, filters=[("batch_size", "==", batch_size)])
        layers = layers.sort_values("layer_index")
        layers["x"] = layers["layer_index"] + _OFFSET * (number - (len(paths) - 1) / 2)
        tables.append(layers[np.isfinite(layers["alpha_mean"])].assign(network=label))
    return pd.concat(tables, ignore_index=True)


def draw_layers(
    axes: Axes, layers: pd.DataFrame, colours: dict[str, str], markers: dict[str, str]
) -> None:
    """Mean alpha by layer with its 95 % interval, behind it the middle half of the parameters."""
    for network, rows in layers.groupby("network"):
        x, mean, colour = rows["x"], rows["alpha_mean"], colours[str(network)]
        axes.vlines(x, rows["alpha_q25"], rows["alpha_q75"], color=colour, linewidth=3, alpha=0.25)
        error = _NORMAL_95 * rows["alpha_se"]
        axes.errorbar(x, mean, error, fmt="none", color=colour, elinewidth=1)
        # A line joins layers of one type: between them lie those of others, at another height.
        sns.lineplot(
            rows,
            x="x",
            y="alpha_mean",
            color=colour,
            style="layer_type",
            markers=markers,
            dashes=False,
            estimator=None,
            linewidth=0.7,
            markersize=4,
            markeredgewidth=0.4,
            legend=False,
            ax=axes,
        )
    ringed = layers[evidence.before_hard_sigmoid(layers)]
    axes.plot(ringed["x"], ringed["alpha_mean"], zorder=3, **_RING)
    axes.axhline(2, color=plots.INK, linewidth=0.8, linestyle=":")
    axes.set(xlabel="layer, from the input", ylabel="")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def plot_alpha_by_layer(
    *,
    left_paths: list[str],
    left_labels: list[str],
    right_paths: list[str],
    right_labels: list[str],
    batch_size: int,
    png_path: str,
    pdf_path: str,
) -> None:
    """Draw mean alpha against the layer's position, in two panels; in one if none is on the right.

    Args:
        left_paths: the layers' tables of the networks on the left.
        left_labels: their names.
        right_paths: the same for the right panel, if any.
        right_labels: their names.
        batch_size: of the noise: which rows are drawn.
        png_path: where the PNG goes.
        pdf_path: where the PDF goes.
    """
    sides = [read_layers(left_paths, left_labels, batch_size)]
    if right_paths:
        sides.append(read_layers(right_paths, right_labels, batch_size))
    layers = pd.concat(sides)
    colours = dict(zip(layers["network"].unique(), itertools.cycle(plots.SERIES)))
    markers = dict(zip(layers["layer_type"].unique(), itertools.cycle(plots.MARKERS)))
    with plots.drawing(png_path, pdf_path, title="Alpha by layer", height=4.6) as figure:
        handles = [
            Line2D([], [], color=plots.GREY, marker=marker, linestyle="", label=name)
            for name, marker in markers.items()
        ]
        if evidence.before_hard_sigmoid(layers).any():
            handles.append(Line2D([], [], label="before a hard sigmoid", **_RING))
        handles.append(
            Line2D([], [], color=plots.INK, linewidth=0.8, linestyle=":", label="Gaussian (α = 2)")
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
        grid = figure.subplots(1, len(sides), sharey=True, squeeze=False)[0]
        for axes, side in zip(grid, sides, strict=True):
            draw_layers(axes, side, colours, markers)
            names = [Line2D([], [], color=colours[n], label=n) for n in side["network"].unique()]
            axes.legend(
                handles=names, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=max(len(names), 1)
            )
        grid[0].set_ylabel(f"mean $\\hat{{\\alpha}}$ of the layer, batch size {batch_size}")


if __name__ == "__main__":
    with running_job() as job:
        plot_alpha_by_layer(
            left_paths=list(job.input.left),
            left_labels=job.params.left_labels,
            right_paths=list(job.input.right),
            right_labels=job.params.right_labels,
            batch_size=job.params.batch_size,
            png_path=job.output.png,
            pdf_path=job.output.pdf,
        )
