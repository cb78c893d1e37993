"""Laws compared on the noise of many parameters: fits and measures of fit, one row each.

Arrays of noise are (P, M): parameter, draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from sgnoise import estimators, fitting, goodness
from sgnoise.progress import track

# Parameters whose evidence is computed together.
BLOCK = 500


def compare_laws(
    keys: pd.DataFrame,
    noise: np.ndarray,
    laws: Sequence[str],
    *,
    bins: int,
    span: str | float,
    scaling: str,
    held_out_fraction: float,
    threads: int,
) -> pd.DataFrame:
    """Fit laws to the noise of each parameter, and measure how well each fits.

    No row is dropped: ``flag`` says where a fit failed. Beside the noise this holds blocks of
    ``BLOCK`` parameters in double precision, one a thread.

    >>> noise = np.random.default_rng(0).standard_normal((3, 400))
    >>> keys = pd.DataFrame({"parameter_index": range(3)})
    >>> table = compare_laws(keys, noise, ["gaussian", "stable"], bins=50, span="full",
    ...     scaling="mass", held_out_fraction=0.5, threads=1)
    >>> table.groupby("law").size().to_dict()
    {'gaussian': 3, 'stable': 3}

    Args:
        keys: of the parameters, P rows; its columns come first in the table.
        noise: (P, M).
        laws: names in ``sgnoise.laws.LAWS``.
        bins: see ``sgnoise.goodness.histogram``.
        span: likewise.
        scaling: see ``sgnoise.goodness.sum_of_squared_errors``.
        held_out_fraction: part of the draws that the held-out likelihood does not fit.
        threads: of the CPU.

    Returns:
        one row a parameter and law, in the order of the parameters within a block, law after law;
        a column that does not belong to a law is missing (NaN) in its rows.

    Raises:
        ValueError: unknown law, or a setting out of range.
    """
    # The full gradient minus a mini-batch's: its location is known to be 0.
    fitted_draws, _ = goodness.split_draws(noise, held_out_fraction)
    fits, held_out_fits = {}, {}
    for law in track(laws, "laws"):
        fits[law], held_out_fits[law] = (
            fitting.fit_law(law, draws, location=0.0, nan_policy="flag", threads=threads)
            for draws in (noise, fitted_draws)
        )

    def measure(rows: slice) -> pd.DataFrame:
        return evidence_table(
            keys[rows],
            noise[rows],
            {law: fit[rows] for law, fit in fits.items()},
            {law: fit[rows] for law, fit in held_out_fits.items()},
            bins=bins,
            span=span,
            scaling=scaling,
            held_out_fraction=held_out_fraction,
        )

    blocks = [slice(start, start + BLOCK) for start in range(0, len(noise), BLOCK)]
    with ThreadPoolExecutor(threads) as pool:
        tables = list(track(pool.map(measure, blocks), "blocks of parameters", total=len(blocks)))
    return pd.concat(tables, ignore_index=True)


def evidence_table(
    keys: pd.DataFrame,
    noise: np.ndarray,
    fits: dict[str, fitting.Fit],
    held_out_fits: dict[str, fitting.Fit],
    *,
    bins: int,
    span: str | float,
    scaling: str,
    held_out_fraction: float,
) -> pd.DataFrame:
    """Fits and measures of fit of some parameters, one row a parameter and law.

    Args:
        keys: of the parameters.
        noise: theirs, (P, M).
        fits: to all draws, by law.
        held_out_fits: to the draws that are not held out, by law.
        bins: as for ``compare_laws``, like the others.
        span: likewise.
        scaling: likewise.
        held_out_fraction: likewise.
    """
    used = goodness.without_atom(noise)
    _, held_out = goodness.split_draws(used, held_out_fraction)
    ordered = np.sort(used, axis=1)
    histograms = goodness.histogram(used, bins=bins, span=span)
    # Blocks of as many values as fit into the draws: a prime number of them has none.
    cut = noise[:, : noise.shape[1] // 10 * 10]
    others = {
        "alpha_log_moment": estimators.block_log_moment_alpha(cut, threads=1),
        "alpha_quantile": estimators.quantile_alpha(noise, threads=1),
    }
    tables = []
    for law, fit in fits.items():
        sse, sse_floor = goodness.sum_of_squared_errors(histograms, fit, scaling=scaling)
        measures = {
            "law": law,
            **fit.parameters,
            **(others if law == "stable" else {}),
            "log_likelihood": fit.log_likelihood,
            "held_out_log_likelihood": goodness.held_out_log_likelihood(
                held_out, held_out_fits[law]
            ),
            "aic": goodness.aic(fit.log_likelihood, fit.free_parameters),
            "bic": goodness.bic(fit.log_likelihood, fit.free_parameters, fit.n_values),
            "sse": sse,
            "sse_floor": sse_floor,
            "ks": fit.kolmogorov_smirnov(ordered),
            "zero_fraction": fit.zero_fraction,
            "converged": fit.converged,
            "flag": fit.flag.astype(object),
        }
        tables.append(pd.concat([keys.reset_index(drop=True), pd.DataFrame(measures)], axis=1))
    table = pd.concat(tables, ignore_index=True)
    parameters = dict.fromkeys(name for fit in fits.values() for name in fit.parameters)
    first = [*keys.columns, "law", *parameters, *(others if "stable" in fits else {})]
    return table[[*first, *table.columns.drop(first)]]
