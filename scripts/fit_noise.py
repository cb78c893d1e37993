"""Fit every law to the gradient noise of every parameter, and measure how well it fits."""

from typing import Any

from sgnoise import goodness, readers, store
from sgnoise.comparison import compare_laws
from sgnoise.jobs import running_job
from sgnoise.progress import logger


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
    single precision.

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
    table = compare_laws(keys, noise, laws, threads=threads, **settings)
    critical = goodness.null_quantile(noise.shape[1])
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
