"""Each claim of the paper beside what the study measured, with a verdict."""

from dataclasses import asdict

import pandas as pd

from sgnoise import claims, controls, store
from sgnoise.files import atomic_path
from sgnoise.jobs import running_job
from sgnoise.progress import logger, track


def collect_claims(
    *,
    fits_paths: list[str],
    layers_paths: list[str],
    theories_paths: list[str],
    theorems_path: str | None,
    exit_axis_path: str | None,
    claims_path: str,
) -> None:
    """Write one row a claim; the columns are those of ``sgnoise.claims.Claim``.

    Args:
        fits_paths: fits of networks and controls, at every batch size; each file says what it is.
        layers_paths: alpha by layer of the networks, at every batch size.
        theories_paths: theories of escape times, one file a data set; none if none were measured.
        theorems_path: CSV with a verdict on each theorem, if the theory was simulated.
        exit_axis_path: simulated exits behind Figure 9, likewise.
        claims_path: CSV to write.
    """
    fits = [read_fits(path) for path in track(fits_paths, "fits")]
    theories = [pd.read_parquet(path) for path in theories_paths]
    measurements = claims.Measurements(
        networks=[each for each in fits if not each.law],
        controls=[each for each in fits if each.law],
        layers=[layers for path in layers_paths for layers in read_layers(path)],
        theories=pd.concat(theories, ignore_index=True) if theories else None,
        theorems=None if theorems_path is None else pd.read_csv(theorems_path),
        exit_axis=None if exit_axis_path is None else pd.read_parquet(exit_axis_path),
    )
    found = [measure(measurements) for measure in claims.TESTED] + list(claims.UNTESTED)
    for claim in found:
        logger.info("%s: %s", claim.claim, claim.verdict)
    with atomic_path(claims_path) as path:
        pd.DataFrame([asdict(claim) for claim in found]).to_csv(path, index=False)


def read_fits(path: str) -> claims.NoiseFits:
    """What the claims need of a file of fits: the uniform sample, the laws that they compare."""
    settings = store.read_metadata(path)["settings"]
    fits = pd.read_parquet(
        path,
        columns=[*claims.COLUMNS, "layer", "layer_type"],
        filters=[("law", "in", list(claims.LAWS)), ("stratum", "==", "uniform")],
    )
    law = controls.law_of_layer(fits["layer"].iloc[0], fits["layer_type"].iloc[0])
    return claims.NoiseFits(
        run=settings["run"],
        law=law,
        batch_size=settings["batch_size"],
        critical=settings["critical_likelihood_ratio"],
        fits=fits[list(claims.COLUMNS)],
    )


def read_layers(path: str) -> list[claims.LayerStatistics]:
    """Alpha by layer at each batch size, with the run that the file names."""
    run = store.read_metadata(path)["settings"]["run"]
    return [
        claims.LayerStatistics(run, int(str(batch_size)), layers)
        for batch_size, layers in pd.read_parquet(path).groupby("batch_size")
    ]


if __name__ == "__main__":
    with running_job() as job:
        collect_claims(
            fits_paths=list(job.input.fits),
            layers_paths=list(job.input.layers),
            theories_paths=list(job.input.theories),
            theorems_path=next(iter(job.input.theorems), None),
            exit_axis_path=next(iter(job.input.exit_axis), None),
            claims_path=job.output.claims,
        )
