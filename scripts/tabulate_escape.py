"""All theories of the escape times of a study in one table."""

import pandas as pd

from sgnoise.files import atomic_path
from sgnoise.jobs import running_job


def tabulate_escape(*, theories_paths: list[str], table_path: str) -> None:
    """Write one row a data set, minimum, batch size and theory.

    Args:
        theories_paths: theories.parquet of each data set.
        table_path: CSV to write.
    """
    theories = pd.concat([pd.read_parquet(path) for path in theories_paths], ignore_index=True)
    with atomic_path(table_path) as path:
        theories.to_csv(path, index=False, float_format="%.6g")


if __name__ == "__main__":
    with running_job() as job:
        tabulate_escape(theories_paths=list(job.input.theories), table_path=job.output.table)
