"""Alpha by layer: its mean, and its spread between parameters set apart from estimation error."""

import numpy as np
import pandas as pd

from sgnoise import evidence, store
from sgnoise.jobs import running_job
from sgnoise.progress import logger

# Below this number of usable fits, a layer has its counts but no statistics.
MINIMUM_FITS = 10

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


def aggregate_layers(
    *, fits_paths: list[str], batch_sizes: list[int], layers_path: str, study: str, run: str
) -> None:
    """Write one row a batch size and layer from the fits of the SαS law.

    Args:
        fits_paths: fits of all laws, a file a batch size.
        batch_sizes: mini-batch sizes of the noise, in the same order.
        layers_path: Parquet to write; ``batch_size`` and the columns of ``layer_table``.
        study: name of the study.
        run: name of the run.
    """
    tables = []
    for path, batch_size in zip(fits_paths, batch_sizes, strict=True):
        table = layer_table(pd.read_parquet(path, filters=[("law", "==", "stable")]))
        table.insert(0, "batch_size", np.int32(batch_size))
        tables.append(table)
    layers = pd.concat(tables, ignore_index=True)
    sparse = layers["alpha_mean"].isna().sum()
    logger.info(
        "%d layers, %d fits in use, %d flagged; %d layers with fewer than %d usable fits",
        len(layers),
        layers["n"].sum(),
        layers["n_flagged"].sum(),
        sparse,
        MINIMUM_FITS,
    )
    store.write_table(
        layers_path,
        layers,
        store.provenance(
            study=study, run=run, batch_sizes=list(batch_sizes), minimum_fits=MINIMUM_FITS
        ),
    )


def layer_table(fits: pd.DataFrame) -> pd.DataFrame:
    """Statistics of alpha by layer, in the order of the layers.

    Both strata are pooled: each is a uniform sample of the weights of a layer. A weight that both
    drew counts once. Every flagged fit is counted in ``n_flagged``; those without an estimate are
    left out, while one at the lower end of alpha's range stays.

    Args:
        fits: rows of the SαS law.

    Returns:
        ``layer``, ``layer_index``, ``layer_type``, ``n``, ``n_flagged``, ``alpha_mean``,
        ``alpha_se`` (of the mean), ``alpha_sd_between`` (estimation error taken away), and
        quantiles ``alpha_q05`` to ``alpha_q95``; NaN in layers with fewer than ``MINIMUM_FITS``.
    """
    parameters = fits.drop_duplicates(["layer", "tensor", "offset"])
    rows = []
    for (index, layer, layer_type), group in parameters.groupby(
        ["layer_index", "layer", "layer_type"], sort=True
    ):
        usable = group["converged"] & np.isfinite(group["alpha"])
        alpha = group.loc[usable, "alpha"].to_numpy(dtype=np.float64)
        alpha_se = group.loc[usable, "alpha_se"].to_numpy(dtype=np.float64)
        row = {
            "layer": layer,
            "layer_index": index,
            "layer_type": layer_type,
            "n": len(alpha),
            "n_flagged": int((group["flag"] != "").sum()),
            "alpha_mean": np.nan,
            "alpha_se": np.nan,
            "alpha_sd_between": np.nan,
            **{f"alpha_{name}": np.nan for name in QUANTILES},
        }
        if len(alpha) >= MINIMUM_FITS:
            spread = evidence.heterogeneity(alpha, alpha_se)
            row |= {
                "alpha_mean": spread.mean,
                "alpha_se": spread.mean_se,
                "alpha_sd_between": spread.sd,
            }
            quantiles = np.quantile(alpha, list(QUANTILES.values()))
            row |= {
                f"alpha_{name}": value for name, value in zip(QUANTILES, quantiles, strict=True)
            }
        rows.append(row)
    return pd.DataFrame(rows).astype(
        {"layer_index": np.int16, "n": np.int32, "n_flagged": np.int32}
    )


if __name__ == "__main__":
    with running_job() as job:
        aggregate_layers(
            fits_paths=list(job.input.fits),
            batch_sizes=job.params.batch_sizes,
            layers_path=job.output.layers,
            study=job.params.study,
            run=job.params.run,
        )
