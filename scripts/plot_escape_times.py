"""Figures 1 and 6: mean escape time against the learning rate, with the theories fitted to it."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sgnoise import plots
from sgnoise.escape.theories import LOOKS, THEORIES
from sgnoise.jobs import running_job
from sgnoise.numerals import with_error

_MARKS: dict[str, dict[str, Any]] = {
    "all replicas escaped": {"marker": "o", "markerfacecolor": plots.INK},
    "some replicas censored": {"marker": "o", "markerfacecolor": "white"},
    "no replica escaped": {"marker": "^", "markerfacecolor": "white"},
}
# Where a mark without a mean stands, in units of the panel's height.
_TOP = 0.94
_MARGIN = 1.3
_FEW_TICKS = 6.0
_COLUMNS_IN_WIDTH = 3
_STRIP_RATIOS = (1, 5)


def draw_times(axes: Axes, times: pd.DataFrame) -> None:
    """Mean escape times with their intervals; open marks where replicas were censored."""
    for row in times.to_dict("records"):
        rate, mean = row["learning_rate"], row["mean_escape_time"]
        kind = list(_MARKS)[int(row["censored"] > 0) + int(not np.isfinite(mean))]
        frame = axes.transData
        if np.isfinite(mean):
            bounds = (row["mean_low"], row["mean_high"])
            low, high = (bound if np.isfinite(bound) else mean for bound in bounds)
            axes.plot([rate, rate], [low, high], color=plots.INK, linewidth=1, zorder=3)
        else:
            mean, frame = _TOP, axes.get_xaxis_transform()
        axes.plot(
            rate, mean, color=plots.INK, linestyle="", transform=frame, zorder=4, **_MARKS[kind]
        )


def draw_censored(axes: Axes, times: pd.DataFrame) -> None:
    """The share of replicas that had not escaped when the budget ended, as stems."""
    share = 100 * times["censored"] / times["replicas"]
    axes.vlines(times["learning_rate"], 0, share, color=plots.GREY, linewidth=4, zorder=3)
    axes.set(ylim=(0, 100), yticks=(0, 100))
    axes.tick_params(labelbottom=False, bottom=False)


def draw_theories(axes: Axes, theories: pd.DataFrame, rates: np.ndarray) -> None:
    """Curves of the fitted theories at ``rates``, with their exponents in a legend below.

    A band is the fit's 95 % interval: the errors of log c and k and their covariance, from the
    bootstrap over replicas.
    """
    handles = []
    for name, theory in THEORIES.items():
        look = LOOKS[name]
        style: dict[str, Any] = {"color": look.colour, "linestyle": look.line}
        fit = theories[theories["theory"] == name]
        text = "not fitted"
        if len(fit) and 0 < fit["coefficient"].iloc[0] < np.inf:
            row = fit.iloc[0]
            # In logarithms, as e^(k/η) leaves the range of floating point long before the plot.
            log_time = theory.log_time(rates, np.log(row["coefficient"]), row["exponent"])
            shown = np.abs(log_time) < 700
            axes.plot(rates[shown], np.exp(log_time[shown]), **style)
            x = theory.regressor(rates)
            variance = row["log_coefficient_se"] ** 2 + (x * row["exponent_se"]) ** 2
            variance += 2 * x * row["log_coefficient_exponent_covariance"]
            margin = 1.96 * np.sqrt(np.maximum(variance, 0))
            shown &= np.isfinite(margin) & (np.abs(log_time) + margin < 700)
            edges = np.exp(log_time[shown] - margin[shown]), np.exp(log_time[shown] + margin[shown])
            axes.fill_between(rates[shown], *edges, color=look.colour, alpha=0.12, linewidth=0)
            text = f"$k$ = {with_error(row['exponent'], row['exponent_se'])}"
            text += rf",  $\Delta\,\ln L$ = ${0 - row['log_likelihood_ratio']:+.1f}$"
        handles.append(Line2D([], [], **style, label=text))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.26), borderaxespad=0)


def draw_panel(axes: Axes, times: pd.DataFrame, theories: pd.DataFrame) -> None:
    """One panel: the times of a data set at a batch size, and the theories fitted to them."""
    axes.set(xscale="log", yscale="log")
    rates = times["learning_rate"]
    x_low, x_high = rates.min() / _MARGIN, rates.max() * _MARGIN
    known = times[["mean_escape_time", "mean_low", "mean_high"]].to_numpy(dtype=float)
    known = known[np.isfinite(known) & (known > 0)]
    low, high = (known.min(), known.max()) if known.size else (1.0, 10.0)
    # Room at the top for the marks of learning rates at which no replica escaped.
    y_low, y_high = low / _MARGIN**2, high * (high / low) ** 0.1 * _MARGIN**2
    # Before anything is drawn: a theory may run out of all bounds within the panel's width.
    axes.set(xlim=(x_low, x_high), ylim=(y_low, y_high))
    draw_theories(axes, theories, np.geomspace(x_low, x_high, 200))
    draw_times(axes, times)
    plots.log_ticks(axes.xaxis, x_low, x_high)
    if x_high < _FEW_TICKS * x_low:
        # Too narrow for 1, 2 and 5 of each decade.
        ticks = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(x_low, x_high)
        axes.set_xticks(ticks[(ticks >= x_low) & (ticks <= x_high)])
    plots.log_ticks(axes.yaxis, y_low, y_high)


def draw_legend(figure: Figure) -> None:
    """What lines and marks mean, the same in all panels."""
    lines = [
        Line2D(
            [],
            [],
            color=look.colour,
            linestyle=look.line,
            label=f"{look.label}: {look.formula}",
        )
        for look in LOOKS.values()
    ]
    marks = [
        Line2D([], [], color=plots.INK, linestyle="", label=label, **mark)
        for label, mark in _MARKS.items()
    ]
    # A legend fills column by column: the pairs put the lines in one row and the marks in the next.
    pairs = itertools.zip_longest(lines, marks)
    handles = [handle for pair in pairs for handle in pair if handle is not None]
    columns = max(len(lines), len(marks))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)


def plot_escape_times(
    *,
    times_paths: list[str],
    theories_paths: list[str],
    batch_sizes: list[int],
    png_path: str,
    pdf_path: str,
) -> None:
    """Draw mean escape times: a column for each data set and minimum, a row for each batch size.

    Args:
        times_paths: times.parquet of each data set.
        theories_paths: theories.parquet of the same data sets in the same order.
        batch_sizes: one for each row, top to bottom.
        png_path: where the PNG goes.
        pdf_path: where the PDF goes.

    Raises:
        ValueError: a data set has no times at one of the batch sizes.
    """
    tables = []
    for paths in zip(times_paths, theories_paths, strict=True):
        times, theories = map(pd.read_parquet, paths)
        for minimum, chosen in times.groupby("minimum"):
            name = chosen["dataset"].iloc[0]
            if times["minimum"].nunique() > 1:
                name += f", minimum {minimum}"
            tables.append((paths[0], name, chosen, theories[theories["minimum"] == minimum]))
    rows, columns = len(batch_sizes), len(tables)
    with plots.drawing(
        png_path,
        pdf_path,
        title="Mean escape time against learning rate",
        height=0.5 + 3.8 * rows,
        width=plots.WIDTH * max(1.0, columns / _COLUMNS_IN_WIDTH),
    ) as figure:
        draw_legend(figure)
        # Each row is a thin strip with the share of censored replicas above the times.
        grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=_STRIP_RATIOS * rows)
        for column, (times_path, name, times, theories) in enumerate(tables):
            for row, batch_size in enumerate(batch_sizes):
                strip, axes = grid[2 * row : 2 * row + 2, column]
                # Each batch size has its own learning rates, so rows share no axis.
                strip.sharex(axes)
                chosen = times[times["batch_size"] == batch_size]
                if chosen.empty:
                    measured = sorted(times["batch_size"].unique().tolist())
                    raise ValueError(
                        f"{times_path}: no escape times at batch size {batch_size}, "
                        f"only at {measured}"
                    )
                draw_panel(axes, chosen, theories[theories["batch_size"] == batch_size])
                draw_censored(strip, chosen)
                strip.set_title(f"{name}\nbatch size {batch_size}")
                axes.set_xlabel("learning rate η")
                axes.tick_params(labelbottom=True)
        for strip, axes in zip(grid[::2, 0], grid[1::2, 0], strict=True):
            strip.set_ylabel("censored\n(%)", fontsize=7)
            axes.set_ylabel("mean escape time τ\n(iterations)")


if __name__ == "__main__":
    with running_job() as job:
        plot_escape_times(
            times_paths=list(job.input.times),
            theories_paths=list(job.input.theories),
            batch_sizes=job.params.batch_sizes,
            png_path=job.output.png,
            pdf_path=job.output.pdf,
        )
