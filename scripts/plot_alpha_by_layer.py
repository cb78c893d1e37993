"""Figure 8: mean alpha of the noise in each layer, from the input to the output."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

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


def draw_layers(
    axes: Axes, layers: pd.DataFrame, colour: str, markers: dict[str, str], shift: float
) -> None:
    """Mean alpha by layer with its 95 % interval, behind it the middle half of the parameters."""
    x = layers["layer_index"] + shift
    axes.vlines(x, layers["alpha_q25"], layers["alpha_q75"], color=colour, linewidth=3, alpha=0.25)
    axes.errorbar(
        x,
        layers["alpha_mean"],
        yerr=_NORMAL_95 * layers["alpha_se"],
        fmt="none",
        color=colour,
        elinewidth=1,
    )
    axes.plot(x, layers["alpha_mean"], color=colour, linewidth=0.7, alpha=0.6)
    ringed = evidence.before_hard_sigmoid(layers)
    axes.plot(x[ringed], layers.loc[ringed, "alpha_mean"], zorder=3, **_RING)
    for layer_type, rows in layers.groupby("layer_type"):
        axes.plot(
            rows["layer_index"] + shift,
            rows["alpha_mean"],
            markers[str(layer_type)],
            color=colour,
            markersize=4,
            markeredgecolor="white",
            markeredgewidth=0.4,
        )


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
    """Draw mean alpha against the layer's place, in two panels.

    Args:
        left_paths: the layers' tables of the networks on the left.
        left_labels: their names.
        right_paths: the same for the right panel.
        right_labels: their names.
        batch_size: of the noise, for the axis.
        png_path: where the PNG goes.
        pdf_path: where the PDF goes.
    """
    sides = [
        [(label, pd.read_parquet(path)) for path, label in zip(paths, labels, strict=True)]
        for paths, labels in ((left_paths, left_labels), (right_paths, right_labels))
    ]
    types = list(
        dict.fromkeys(
            name
            for side in sides
            for _, layers in side
            for name in layers.sort_values("layer_index")["layer_type"]
        )
    )
    markers = {name: plots.MARKERS[n % len(plots.MARKERS)] for n, name in enumerate(types)}
    with plots.drawing(png_path, pdf_path, title="Alpha by layer", height=4.6) as figure:
        handles = [
            Line2D([], [], color=plots.GREY, marker=markers[name], linestyle="", label=name)
            for name in types
        ]
        if any(evidence.before_hard_sigmoid(layers).any() for side in sides for _, layers in side):
            handles.append(Line2D([], [], label="before a hard sigmoid", **_RING))
        handles.append(
            Line2D([], [], color=plots.INK, linewidth=0.8, linestyle=":", label="Gaussian (α = 2)")
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
        grid = figure.subplots(1, 2, sharey=True)
        for axes, side in zip(grid, sides, strict=True):
            lines = []
            for number, (label, layers) in enumerate(side):
                usable = layers[np.isfinite(layers["alpha_mean"])].sort_values("layer_index")
                shift = _OFFSET * (number - (len(side) - 1) / 2)
                colour = plots.SERIES[number % len(plots.SERIES)]
                draw_layers(axes, usable, colour, markers, shift)
                lines.append(Line2D([], [], color=colour, label=label))
            axes.axhline(2, color=plots.INK, linewidth=0.8, linestyle=":")
            axes.legend(
                handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=max(len(side), 1)
            )
            axes.set_xlabel("layer, from the input")
            axes.xaxis.get_major_locator().set_params(integer=True)
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
