"""Fit every law to the gradient noise of every parameter, and measure how well it fits."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from sgnoise import fitting, goodness, readers, store
from sgnoise.jobs import running_job
from sgnoise.progress import logger, track

# Parameters whose evidence is computed together.
BLOCK = 500


def fit_noise(
    *,
    noise_path: str,
    fits_path: str,
    laws: list[str],
    bins: int,
    span: str | float,
    scaling: str,
    held_out_fraction: float,
    study: str,
    run: str,
    batch_size: int,
    threads: int,
) -> None:
    """Write one row a parameter and law; no row is dropped, ``flag`` says where a fit failed.

    One alpha for all parameters needs all their noise, so this holds the file's noise in memory in
    single precision, and half of it once more for the held-out fits; everything else goes through
    blocks of ``BLOCK`` parameters.

    Args:
        noise_path: keys, ``noise``.
        fits_path: Parquet to write. A column that does not belong to a law is null in its rows.
        laws: names in ``sgnoise.laws.LAWS``.
        bins: see ``sgnoise.goodness.histogram``.
        span: likewise.
        scaling: see ``sgnoise.goodness.sum_of_squared_errors``.
        held_out_fraction: part of the draws that the held-out likelihood does not fit.
        study: name of the study.
        run: name of the run.
        batch_size: mini-batch size of the noise.
        threads: of the CPU.

    Raises:
        ValueError: unknown law, or a setting out of range.
    """
    keys, noise = readers.read_all_noise(noise_path)
    settings: dict[str, Any] = {
        "bins": bins,
        "span": span,
        "scaling": scaling,
        "held_out_fraction": held_out_fraction,
    }
    fitted_draws, _ = goodness.split_draws(noise, held_out_fraction)
    fits, held_out_fits = {}, {}
    for law in track(laws, "laws"):
        fits[law] = fitting.fit_law(law, noise, nan_policy="flag", threads=threads)
        held_out_fits[law] = fitting.fit_law(law, fitted_draws, nan_policy="flag", threads=threads)

    def measure(rows: slice) -> pd.DataFrame:
        return evidence_table(
            keys[rows],
            noise[rows],
            {law: rows_of(fit, rows) for law, fit in fits.items()},
            {law: rows_of(fit, rows) for law, fit in held_out_fits.items()},
            **settings,
        )

    blocks = [slice(start, start + BLOCK) for start in range(0, len(noise), BLOCK)]
    with ThreadPoolExecutor(threads) as pool:
        tables = list(track(pool.map(measure, blocks), "blocks of parameters", total=len(blocks)))
    critical = goodness.null_quantile(noise.shape[1])
    table = pd.concat(tables, ignore_index=True)
    flagged = table.loc[table["flag"] != "", ["law", "flag"]].value_counts()
    logger.info("%d parameters; flagged: %s", len(noise), flagged.to_dict() or "none")
    store.write_table(
        fits_path,
        table,
        store.provenance(
            study=study,
            run=run,
            batch_size=batch_size,
            laws=list(laws),
            draws=noise.shape[1],
            critical_likelihood_ratio=critical,
            **settings,
        ),
    )


def rows_of(fit: fitting.Fit, rows: slice) -> fitting.Fit:
    """The fits of some parameters only."""
    return replace(
        fit,
        parameters={name: values[rows] for name, values in fit.parameters.items()},
        log_likelihood=fit.log_likelihood[rows],
        zero_fraction=fit.zero_fraction[rows],
        n_values=fit.n_values[rows],
        converged=fit.converged[rows],
        flag=fit.flag[rows],
    )


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
        bins: as for ``fit_noise``, like the others.
        span: likewise.
        scaling: likewise.
        held_out_fraction: likewise.
    """
    used = goodness.without_atom(noise)
    _, held_out = goodness.split_draws(used, held_out_fraction)
    ordered = np.sort(used, axis=1)
    histograms = goodness.histogram(used, bins=bins, span=span)
    tables = []
    for law, fit in fits.items():
        sse, sse_floor = goodness.sum_of_squared_errors(histograms, fit, scaling=scaling)
        measures = {
            "law": law,
            **fit.parameters,
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
    first = [*keys.columns, "law", *parameters]
    return table[[*first, *table.columns.drop(first)]]


if __name__ == "__main__":
    with running_job() as job:
        fit_noise(
            noise_path=job.input.noise,
            fits_path=job.output.fits,
            **job.params.fits,
            study=job.params.study,
            run=job.params.run,
            batch_size=job.params.batch_size,
            threads=job.threads,
        )
