"""Figures 3, 4 and 5: the noise of single parameters, with the Gaussian and SαS fits."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import binom, norm

from sgnoise import plots, readers, seeds, stable
from sgnoise.jobs import running_job
from sgnoise.laws import LOOKS
from sgnoise.numerals import with_error

_RANDOM_COUNT = 4
_LAYER_COUNT = 2
# In units of the fitted scale: what the linear panel shows, and where the tail's panel begins.
_CORE = 8.0
_TAIL_START = 0.3
_CORE_BINS = 48
_BAND = 0.15
_LAWS = ("stable", "gaussian")


def choose_parameters(fits: pd.DataFrame, choose: str, seed: int) -> pd.DataFrame:
    """Rows of the parameters to draw, chosen by chance.

    A parameter whose noise has no scale (a dead unit) has no histogram and is not drawn.

    Args:
        fits: the SαS fits.
        choose: ``random`` for four of the uniformly sampled parameters, ``first_layers`` for one
            weight in each of the two layers nearest the input (or in the only one), normalisation
            left aside.
        seed: of the choice.

    Raises:
        ValueError: an unknown ``choose``, or too few parameters.
    """
    usable = fits[np.isfinite(fits["alpha"]) & (fits["scale"] > 0)]
    if choose == "random":
        pools = [usable[usable["stratum"] == "uniform"]]
        counts = [_RANDOM_COUNT]
    elif choose == "first_layers":
        weights = usable[
            (usable["tensor"] == "weight") & ~usable["layer_type"].str.contains("Norm")
        ]
        pools = [pool for _, pool in weights.groupby("layer_index")][:_LAYER_COUNT]
        # A network of one layer has but one to show.
        counts = [1] * max(len(pools), 1)
    else:
        raise ValueError(f"choose is {choose!r}; it must be 'random' or 'first_layers'")
    if len(pools) < len(counts) or any(map(lambda pool, n: len(pool) < n, pools, counts)):
        raise ValueError(
            f"choose {choose!r}: {len(usable)} parameters with noise are too few for the figure; "
            "sample more parameters of the network"
        )
    rng = seeds.generator(seed, "parameters")
    chosen = [
        pool.iloc[np.sort(rng.choice(len(pool), count, replace=False))]
        for pool, count in zip(pools, counts, strict=True)
    ]
    return pd.concat(chosen)


def densities(row: pd.Series, x: np.ndarray) -> dict[str, np.ndarray]:
    """Fitted densities at ``x``, (point,), in units of the SαS scale around the SαS location."""
    shift = (row["gaussian_location"] - row["location"]) / row["scale"]
    return {
        "stable": stable.pdf(x, row["alpha"]),
        "gaussian": norm.pdf(x, loc=shift, scale=row["gaussian_scale"] / row["scale"]),
    }


def exceedances(row: pd.Series, x: np.ndarray) -> dict[str, np.ndarray]:
    """Fitted probabilities of a magnitude above ``x``, (point,), in the units of ``densities``."""
    shift = (row["gaussian_location"] - row["location"]) / row["scale"]
    normal = norm(loc=shift, scale=row["gaussian_scale"] / row["scale"])
    return {
        "stable": 2 * stable.cdf(-x, row["alpha"]),
        "gaussian": normal.sf(x) + normal.cdf(-x),
    }


def draw_core(axes: Axes, noise: np.ndarray, row: pd.Series) -> None:
    """Histogram of the central part of ``noise``, (draw,) in units of the scale."""
    edges = np.linspace(-_CORE, _CORE, _CORE_BINS + 1)
    counts, _ = np.histogram(noise, bins=edges)
    # Per draw, not per draw shown: the bars then compare with the whole law.
    height = counts / (noise.size * np.diff(edges))
    axes.stairs(height, edges, fill=True, color=plots.PALE)
    grid = np.linspace(-_CORE, _CORE, 400)
    for law, density in densities(row, grid).items():
        axes.plot(grid, density, LOOKS[law].line, color=LOOKS[law].colour)
    axes.set(xlim=(-_CORE, _CORE), ylim=(0, None), xlabel=r"$\zeta / \hat{\sigma}$")


def draw_tail(axes: Axes, noise: np.ndarray, row: pd.Series) -> None:
    """Share of ``noise``, (draw,), beyond each magnitude, on logarithmic axes, and what laws say.

    A band is where 95 % of such shares would lie, magnitude by magnitude, if the law held.
    """
    size = np.abs(noise)
    low, high = _TAIL_START, 1.5 * max(size.max(), _CORE)
    # Half a draw: below it there is nothing to see.
    floor = 0.5 / size.size
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(floor, 1.3))
    grid = np.geomspace(low, high, 300)
    for law, share in exceedances(row, grid).items():
        colour = LOOKS[law].colour
        axes.plot(grid, share, LOOKS[law].line, color=colour)
        band = np.array(binom.interval(0.95, size.size, share)) / size.size
        axes.fill_between(grid, *band.clip(floor / 2), color=colour, alpha=_BAND, linewidth=0)
    sns.ecdfplot(x=size, complementary=True, color=plots.INK, linewidth=1, ax=axes)
    axes.set(xlabel=r"$|\zeta| / \hat{\sigma}$", ylabel="share beyond")
    plots.log_ticks(axes.xaxis, low, high)
    plots.log_ticks(axes.yaxis, floor, 1)


def draw_parameter(figure: SubFigure, noise: np.ndarray, row: pd.Series) -> None:
    """Core and tail of one parameter's noise, (draw,), under its name and fit."""
    scaled = (noise - row["location"]) / row["scale"]
    core, tail = figure.subplots(1, 2)
    draw_core(core, scaled, row)
    draw_tail(tail, scaled, row)
    core.set_ylabel(r"density $\times\,\hat{\sigma}$")
    alpha = with_error(row["alpha"], row["alpha_se"])
    flag = f"  ({row['flag']})" if row["flag"] else ""
    figure.suptitle(
        f"{readers.parameter_name(row)}\n"
        rf"$\hat{{\alpha}}$ = {alpha},  $\hat{{\sigma}}$ = {plots.scientific(row['scale'])}{flag}",
        fontsize=9,
    )


def draw_legend(figure: Figure, draws: int) -> None:
    """What bars, points and lines mean, the same in all panels."""
    handles = [
        Patch(color=plots.PALE, label=f"{draws:,} mini-batches"),
        Line2D([], [], color=plots.INK, linewidth=1, label="share beyond"),
        *(
            Line2D(
                [],
                [],
                color=LOOKS[law].colour,
                linestyle=LOOKS[law].line,
                label=f"{LOOKS[law].title} fit",
            )
            for law in _LAWS
        ),
        Patch(color=plots.GREY, alpha=_BAND, linewidth=0, label="95 % if the law held"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def plot_histograms(
    *,
    noise_path: str,
    fits_path: str,
    choose: str,
    png_path: str,
    pdf_path: str,
    seed: int,
) -> None:
    """Draw the noise of a few parameters: the core on plain axes, the tail on logarithmic ones.

    Args:
        noise_path: the noise of a run at one batch size.
        fits_path: its fits.
        choose: which parameters, see ``choose_parameters``.
        png_path: where the PNG goes.
        pdf_path: where the PDF goes.
        seed: of the choice.
    """
    fits = readers.read_law(fits_path, "stable", ["alpha", "alpha_se", "scale", "location"])
    normal = readers.read_law(fits_path, "gaussian", ["scale", "location"])
    fits = fits.merge(
        normal.set_index("parameter_index")[["scale", "location"]].add_prefix("gaussian_"),
        left_on="parameter_index",
        right_index=True,
        validate="one_to_one",
    )
    chosen = choose_parameters(fits, choose, seed)
    noise = readers.read_noise(noise_path, chosen["parameter_index"].tolist())
    columns = min(len(chosen), 2)
    rows = len(chosen) // columns
    with plots.drawing(
        png_path, pdf_path, title="Noise of single parameters", height=0.4 + 2.6 * rows
    ) as figure:
        draw_legend(figure, noise.shape[1])
        cells = figure.subfigures(rows, columns, squeeze=False).reshape(-1)
        for cell, values, (_, row) in zip(cells, noise, chosen.iterrows(), strict=True):
            draw_parameter(cell, values, row)


if __name__ == "__main__":
    with running_job() as job:
        plot_histograms(
            noise_path=job.input.noise,
            fits_path=job.input.fits,
            choose=job.params.choose,
            png_path=job.output.png,
            pdf_path=job.output.pdf,
            seed=job.params.seed,
        )
