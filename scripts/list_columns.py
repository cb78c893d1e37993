"""Print ``docs/columns.md``: every column of every Parquet file of the workflow.

Run: ``python scripts/list_columns.py > docs/columns.md`` beside the Snakefile.
"""

from sgnoise.columns import FILES, File

_HEAD = """# Columns

Every Parquet file of a study, below `results/<study>/`, and what its columns are. A missing number
is NaN or null. M stands for the number of draws or samples. Where no unit is given, the value is a
name, a count or a pure number. How a file was made (study, settings, seed, versions) stands in its
schema, under the key `sgnoise`.

This page is made by `python scripts/list_columns.py` from `scripts/sgnoise/columns.py`.
"""


def page() -> str:
    """The page, in Markdown."""
    return "\n".join([_HEAD, *(section(path, file) for path, file in FILES.items())])


def section(path: str, file: File) -> str:
    """One kind of file: a heading and a table."""
    lines = [
        f"## `{path}`",
        "",
        f"One row: {file.row}.",
        "",
        "| Column | Type | Unit | Meaning |",
        "| --- | --- | --- | --- |",
        *(
            f"| `{column.name}` | {column.type} | {column.unit} | {column.meaning} |"
            for column in file.columns
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
