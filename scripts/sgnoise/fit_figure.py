"""The picture of one fit: what was seen and what the law says, in the middle and in the tail."""

from __future__ import annotations

from io import BytesIO

import numpy as np

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
except ModuleNotFoundError as error:
    raise ImportError(
        f"a picture of a fit needs {error.name}: pip install 'sgnoise[report]'"
    ) from error

from sgnoise import plots
from sgnoise.fitting import Fit
from sgnoise.laws import LOOKS
from sgnoise.numerals import with_error

# Of the values, the histogram shows this share in the middle; the other panels show all.
_CENTRAL = 0.99
_BINS = 60


class _Shown(Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=plots.DPI)
        return buffer.getvalue()


def draw(fit: Fit) -> Figure:
    """Density, tail and quantiles of a fit of one row.

    Raises:
        ValueError: the row has no fit.
    """
    location = float(fit.location[0])
    values = fit.values[0].astype(np.float64)
    # As in the fit: two values or more at the location are an atom, which is no part of the law.
    away = values[values != location]
    used = values if len(values) - len(away) < 2 else away
    if not np.isfinite(fit.log_likelihood[0]):
        raise ValueError(f"the row has no fit to draw: its flag is '{fit.flag[0]}'")
    with plots.style():
        figure = _Shown(figsize=(plots.WIDTH, 2.9), layout="constrained")
        density, tail, quantiles = figure.subplots(1, 3)
        _density(density, fit, used)
        _tail(tail, fit, np.sort(np.abs(used - location))[::-1])
        _quantiles(quantiles, fit, np.sort(used))
        figure.suptitle(_title(fit), fontsize=plots.STYLE["axes.titlesize"])
    return figure


def _title(fit: Fit) -> str:
    look = LOOKS[fit.law]
    words = [
        f"{name.replace('_', ' ')} {with_error(values[0], fit.parameters[f'{name}_se'][0])}"
        for name, values in fit.parameters.items()
        if f"{name}_se" in fit.parameters
    ]
    return f"{look.title}: {', '.join(words)}; {fit.n_values[0]} values"


def _density(axes: Axes, fit: Fit, used: np.ndarray) -> None:
    low, high = np.quantile(used, [0.5 - 0.5 * _CENTRAL, 0.5 + 0.5 * _CENTRAL])
    edges = np.linspace(low, high, min(_BINS, max(10, len(used) // 20)) + 1)
    counts, _ = np.histogram(used, edges)
    heights = counts / len(used) / np.diff(edges)
    axes.stairs(heights, edges, fill=True, color=plots.PALE)
    points = np.linspace(low, high, 401)
    look = LOOKS[fit.law]
    axes.plot(points, np.exp(fit.logpdf(points))[0], look.line, color=look.colour)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.ticklabel_format(scilimits=(-2, 4))
    axes.set(xlabel="value", ylabel="density", title="Density")


def _tail(axes: Axes, fit: Fit, distances: np.ndarray) -> None:
    """Share of the values further from the location, on logarithmic axes."""
    distances = distances[distances > 0]
    shares = (np.arange(len(distances)) + 0.5) / len(distances)
    axes.plot(distances, shares, ".", color=plots.GREY, markersize=3, label="values")
    points = np.geomspace(distances[-1], 3 * distances[0], 401)
    look = LOOKS[fit.law]
    beyond = 2 * fit.cdf(fit.location[0] - points)[0]
    curve = np.where(beyond > 0, beyond, np.nan)
    axes.plot(points, curve, look.line, color=look.colour, label=look.title)
    axes.set(xscale="log", yscale="log", ylim=(0.3 / len(distances), 1.5))
    # The middle has nothing to show on these axes.
    axes.set_xlim(distances[min(len(distances) - 1, int(0.9 * len(distances)))], points[-1])
    axes.set(xlabel="distance from the location", ylabel="share beyond", title="Tail")
    axes.legend(loc="lower left")


def _quantiles(axes: Axes, fit: Fit, ordered: np.ndarray) -> None:
    """Both about the location; linear in the middle, logarithmic outside, for tails of decades."""
    probabilities = (np.arange(len(ordered)) + 0.5) / len(ordered)
    expected = fit.ppf(probabilities)[0] - fit.location[0]
    seen = ordered - fit.location[0]
    axes.plot(expected, seen, ".", color=plots.GREY, markersize=3)
    furthest = float(max(np.abs(expected).max(), np.abs(seen).max()))
    axes.plot([-furthest, furthest], [-furthest, furthest], color=LOOKS[fit.law].colour, lw=1)
    middle = float(np.quantile(np.abs(seen), 0.9))
    powers = 10.0 ** np.arange(np.floor(np.log10(middle)), np.floor(np.log10(furthest)) + 1)
    outside = powers[powers > middle] if powers[-1] > middle else powers[-1:]
    ticks = outside[:: -max(1, -(-len(outside) // 2))]  # two on each side at most
    # What lies close together shows where the axes are logarithmic.
    steps = np.outer(powers, np.arange(2, 10)).ravel()
    between = steps[(steps > middle) & (steps < furthest)]
    axes.set_xscale("symlog", linthresh=middle)
    axes.set_yscale("symlog", linthresh=middle)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([*-ticks, 0.0, *ticks]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _signed(value)))
        axis.set_minor_locator(FixedLocator([*-between, *between]))
    axes.set(xlabel="quantile of the law", ylabel="quantile of the values", title="Quantiles")


def _signed(value: float) -> str:
    text = plots.tick_text(abs(value)) if value else "0"
    return f"\N{MINUS SIGN}{text}" if value < 0 else text
