"""The table of theorems: what the paper states beside what was simulated, with a verdict."""

import pandas as pd

from sgnoise.files import atomic_path
from sgnoise.jobs import running_job
from sgnoise.progress import logger
from sgnoise.theorems import Simulations, statements


def judge_theorems(
    *,
    exit_axis_path: str,
    exit_time_path: str,
    covariance_path: str,
    experiments_path: str,
    theorems_path: str,
) -> None:
    """Write one row a statement: what was compared and where, the ratio, its range, the verdict.

    A statement of which the study has no case is left out, with a line in the log.

    Args:
        exit_axis_path: exits of two coordinates with different alpha.
        exit_time_path: exit times over the grid.
        covariance_path: covariance of the noise of a small network beside Proposition 3.4.
        experiments_path: what ``simulate_theorems`` found.
        theorems_path: CSV to write.
    """
    data = Simulations(
        exit_axis=pd.read_parquet(exit_axis_path),
        exit_time=pd.read_parquet(exit_time_path),
        covariance=pd.read_parquet(covariance_path),
        experiments=pd.read_parquet(experiments_path),
    )
    rows = []
    for statement in statements(data):
        if statement.cases:
            rows.append(statement.row())
            logger.info("%s: %s", statement.theorem, rows[-1]["verdict"])
        else:
            logger.info("%s: no case in the study (%s)", statement.theorem, statement.region)
    with atomic_path(theorems_path) as path:
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.6g")


if __name__ == "__main__":
    with running_job() as job:
        judge_theorems(
            exit_axis_path=job.input.exit_axis,
            exit_time_path=job.input.exit_time,
            covariance_path=job.input.covariance,
            experiments_path=job.input.experiments,
            theorems_path=job.output.theorems,
        )
