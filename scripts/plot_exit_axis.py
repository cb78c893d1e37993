"""Figure 9: the probability of leaving the box through the axis whose noise has the lower alpha."""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from sgnoise import plots
from sgnoise.jobs import running_job

# Series side by side rather than on top of each other, in units of alpha.
_OFFSET = 0.008


def plot_exit_axis(*, exit_axis_path: str, png_path: str, pdf_path: str) -> None:
    """Draw simulated probabilities beside Corollary 4.4 and the limit of small noise.

    Args:
        exit_axis_path: exit_axis.parquet.
        png_path: where the PNG goes.
        pdf_path: where the PDF goes.
    """
    exits = pd.read_parquet(exit_axis_path)
    panels = list(exits.groupby(["epsilon", "box"]))
    deltas = sorted(exits["delta"].unique())
    with plots.drawing(
        png_path, pdf_path, title="Probability of exit through each axis", height=3.9
    ) as figure:
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, ((epsilon, box), panel) in zip(grid, panels, strict=True):
            axes.axhline(50, color=plots.GREY, linewidth=1)
            for number, delta in enumerate(deltas):
                rows = panel[panel["delta"] == delta].sort_values("alpha_1")
                x = rows["alpha_1"] + _OFFSET * (number - (len(deltas) - 1) / 2)
                probability, low, high = (
                    100 * rows[name] for name in ("probability", "low", "high")
                )
                colour, marker = plots.SERIES[number], plots.MARKERS[number]
                axes.plot(rows["alpha_1"], 100 * rows["corollary"], "--", color=colour)
                axes.plot(
                    rows["alpha_1"], 100 * rows["small_noise"], ":", color=colour, linewidth=1
                )
                axes.errorbar(
                    x,
                    probability,
                    # At 0 or 1 rounding may put the bound on the wrong side.
                    yerr=np.maximum([probability - low, high - probability], 0),
                    color=colour,
                    marker=marker,
                    linestyle="",
                    capsize=2,
                    elinewidth=1,
                )
            paths = f"{panel['paths'].min():,} paths a point"
            axes.set_title(f"ε = {epsilon:g}, box of half width {box:g}, {paths}")
            axes.set_xlabel("$α_1$, the lower of the two")
            axes.set_xticks(sorted(panel["alpha_1"].unique()))
            shown = exits[["low", "corollary", "small_noise"]]
            axes.set_ylim(bottom=min(48, 100 * shown.min().min() - 2))
        grid[0].set_ylabel("exits through axis 1 (%)")
        handles = [
            Line2D([], [], color=colour, marker=marker, linestyle="", label=f"Δ = {delta:g}")
            for colour, marker, delta in zip(plots.SERIES, plots.MARKERS, deltas, strict=False)
        ]
        handles += [
            Line2D([], [], color=plots.INK, linestyle="--", label="Corollary 4.4"),
            Line2D([], [], color=plots.INK, linestyle=":", linewidth=1, label="jump intensities"),
            Line2D([], [], color=plots.GREY, linewidth=1, label="no preference"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


if __name__ == "__main__":
    with running_job() as job:
        plot_exit_axis(
            exit_axis_path=job.input.exits,
            png_path=job.output.png,
            pdf_path=job.output.pdf,
        )
