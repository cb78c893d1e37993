"""The command ``sgnoise``: laws fitted to numbers in a file."""

from __future__ import annotations

import argparse
import codecs
import csv
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from sgnoise import fitting, goodness
from sgnoise.laws import LAWS, LOOKS
from sgnoise.messages import nearest
from sgnoise.numerals import with_error
from sgnoise.rows import Location
from sgnoise.version import __version__

# Samples that the terminal shows one by one; of more, it shows medians.
FEW = 20

_DESCRIPTION = "Stochastic gradient noise: fit symmetric laws, heavy-tailed and other, to numbers."
_FIT = """\
Fit symmetric laws to each sample of a file by maximum likelihood, and say which is closest.

The file is CSV, TSV, text (numbers apart by space), Parquet or NPY, by its suffix; - reads text
from the standard input. A sample is a column of a table, a row of an NPY array, or a list in a
Parquet column of lists, as in the workflow's files of noise; see --samples.

The best law by Akaike's criterion comes first: dAIC is how much the criterion of the others is
higher. KS is the largest distance between the empirical and the fitted distribution function."""
_EXAMPLES = """\
examples:
  sgnoise fit numbers.csv
  sgnoise fit noise.parquet --column noise --output fits.csv
  sgnoise fit returns.csv --column close --laws stable,student_t --location median
  grep loss train.log | cut -d= -f2 | sgnoise fit -
"""

# What tables have in place of a number.
_MISSING = {"nan", "-nan", "na", "n/a", "#n/a", "<na>", "null", "none"}

Sample = tuple[str, np.ndarray]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (None: those of the process); 0 if it did its work."""
    options = _parser().parse_args(arguments)
    try:
        fit_file(
            options.file,
            columns=options.column or [],
            laws=options.laws.split(",") if options.laws else _default_laws(),
            location=_location(options.location),
            rows=None if options.samples is None else options.samples == "rows",
            output=options.output,
        )
    except BrokenPipeError:  # Whatever reads the table has seen enough.
        return 1
    except (ValueError, ImportError, OSError) as error:
        print(f"sgnoise: {_words(error)}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sgnoise", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"sgnoise {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    fit = commands.add_parser(
        "fit",
        help="fit laws to numbers in a file and print a table",
        description=_FIT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fit.add_argument(
        "file", metavar="FILE", help="CSV, TSV, text, Parquet or NPY; - is standard input"
    )
    fit.add_argument(
        "--column",
        metavar="NAME",
        action="append",
        help="fit this column of a table only; may be given again (default: all that hold numbers)",
    )
    fit.add_argument(
        "--laws",
        metavar="NAME,NAME",
        help=f"laws to fit, of {', '.join(LAWS)} (default: all but stable_shared_alpha)",
    )
    fit.add_argument(
        "--location",
        default="zero",
        metavar="WHERE",
        help="centre of the laws: zero (default), median (of each sample), or a number",
    )
    fit.add_argument(
        "--samples",
        choices=("columns", "rows"),
        help="where a sample lies (default: in a column of a table, in a row of an array)",
    )
    fit.add_argument(
        "--output", metavar="FILE", help="write the full table as well, as CSV, TSV or Parquet"
    )
    return parser


def _default_laws() -> list[str]:
    return [law.name for law in LAWS.values() if not law.shared]


def _location(text: str) -> Location:
    if text in ("zero", "median"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--location is {text!r}; it must be zero, median or a number") from None


def _words(error: Exception) -> str:
    """What an error says; of the system's errors, which name the file last, the file first."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def fit_file(
    file: str,
    *,
    columns: Sequence[str],
    laws: Sequence[str],
    location: Location,
    rows: bool | None,
    output: str | None,
) -> None:
    """Print the table of laws of a file's samples.

    Args:
        file: see the command's help, as for all.
        columns: names.
        laws: names.
        location: as for ``fitting.fit_stable``.
        rows: whether a sample is a row; None: by the kind of file.
        output: a file to write the full table to, or None.

    Raises:
        ValueError: something in the file or in an argument cannot be used.
        OSError: a file cannot be read or written.
        ImportError: a package is missing that the kind of file needs.
    """
    if output is not None:
        _check_output(Path(output))
    samples = read_samples(file, columns=columns, rows=rows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        table = fit_samples(samples, laws, location)
    if any(issubclass(each.category, UserWarning) for each in caught):
        print(
            f"sgnoise: {file}: the values lie about another location than 0; --location median "
            "fits about theirs, --location 0 says that it is 0",
            file=sys.stderr,
        )
    if output is not None:
        _WRITERS[Path(output).suffix](table, output)
    show(table, samples, "standard input" if file == "-" else file, sys.stdout)


def _check_output(path: Path) -> None:
    """Before the fits, which take time."""
    if path.suffix not in _WRITERS:
        raise ValueError(f"{path}: the suffix must be one of {', '.join(_WRITERS)}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}; make it first")
    if path.suffix == ".parquet":
        _require_pyarrow(path, "write")


def _require_pyarrow(path: str | Path, to: str) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError(f"{path}: to {to} Parquet needs pyarrow: pip install pyarrow")


# --- reading ------------------------------------------------------------------------------------


def read_samples(
    file: str, *, columns: Sequence[str] = (), rows: bool | None = None
) -> list[Sample]:
    """The samples of a file with their names; see the command's help.

    Raises:
        ValueError: the file holds something else than numbers, or no sample, or not that column.
        OSError: the file cannot be read.
    """
    if file != "-" and not Path(file).is_file():
        raise ValueError(f"{file}: there is no such file")
    suffix = Path(file).suffix.lower()
    if suffix == ".npy":
        return _of_array(file, columns, rows)
    if suffix == ".parquet":
        table = _parquet_table(file)
    elif file == "-" or suffix in (".csv", ".tsv", ".txt", ".dat", ""):
        table = _text_table(file, {".csv": ",", ".tsv": "\t"}.get(suffix))
    else:
        raise ValueError(
            f"{file}: the suffix {suffix!r} is unknown; it must be .csv, .tsv, .txt, .parquet or "
            ".npy"
        )
    names = [str(name) for name in table.columns]
    for column in columns:
        if column not in names:
            raise ValueError(
                f"{file}: there is no column {column!r}{nearest(column, names)} It has "
                f"{', '.join(names)}"
            )
    table.columns = pd.Index(names)
    if columns:
        table = table[list(columns)]
    samples: list[Sample] = []
    for position, name in enumerate(table.columns):  # of two columns with one name, both
        samples += _of_column(table.iloc[:, position], name, file, asked=bool(columns))
    if rows:
        samples = _of_rows(samples, file)
    if not samples:
        first = f"; the first line reads {', '.join(map(str, table.iloc[0]))}" if len(table) else ""
        raise ValueError(
            f"{file}: there is no column of numbers; it has {', '.join(names) or 'none'}{first}"
        )
    return samples


def _of_array(file: str, columns: Sequence[str], rows: bool | None) -> list[Sample]:
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        reason = str(error).partition(". ")[0]
        raise ValueError(f"{file}: cannot be read as an NPY file of numbers: {reason}") from None
    if columns:
        raise ValueError(f"{file}: an array has no columns with names; leave out --column")
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{file}: an array of shape {array.shape} and type {array.dtype}; it must hold real "
            "numbers in one or two dimensions"
        )
    if not array.size:
        raise ValueError(f"{file}: there is nothing in it, an array of shape {array.shape}")
    if array.ndim == 1:
        return [("values", array)]
    kind, samples = ("column", array.T) if rows is False else ("row", array)
    return [(f"{kind} {number}", sample) for number, sample in enumerate(samples)]


def _parquet_table(file: str) -> pd.DataFrame:
    _require_pyarrow(file, "read")
    import pyarrow.parquet as pq

    try:
        return pq.read_table(file).to_pandas()
    except ValueError as error:
        raise ValueError(f"{file}: cannot be read as a Parquet file: {error}") from None


def _text_table(file: str, separator: str | None) -> pd.DataFrame:
    """A table of text; its first line is one of names unless all in it are numbers.

    Args:
        file: ``-`` is standard input.
        separator: of cells where the first line has none of tab, semicolon and comma; None: space.
    """
    title = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else _decoded(Path(file).read_bytes())
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{title}: not a text in UTF-8 ({error.reason}); save it in that encoding"
        ) from None
    lines = [line for line in text.splitlines() if line.strip()]
    comments = list(takewhile(lambda line: line.startswith("#"), lines))
    lines = lines[len(comments) :]
    if not lines:
        raise ValueError(f"{title}: there is nothing in it")
    separator = next((mark for mark in "\t;," if mark in lines[0]), separator)
    cells = _cells(lines, separator)
    header = None
    if not all(_is_number(cell) for cell in cells[0] if cell):
        header = cells.pop(0)
    elif comments:  # as NumPy writes it
        names = _cells([comments[-1].lstrip("# ")], separator)[0]
        header = names if len(names) == len(cells[0]) else None
    width = max(map(len, [header or [], *cells]))
    if header is not None and width > len(header):
        number = next(i for i, row in enumerate(cells) if len(row) > len(header))
        raise ValueError(
            f"{title}: line {number + 2} has {len(cells[number])} cells, the first line has "
            f"{len(header)} names"
        )
    names = [name or f"column {number}" for number, name in enumerate(header or [""] * width, 1)]
    table = pd.DataFrame([row + [""] * (width - len(row)) for row in cells], columns=names)
    numbered = header is not None and header[0] == "" and width > 1
    if numbered and list(table.iloc[:, 0]) == list(map(str, range(len(table)))):
        return table.iloc[:, 1:]  # the numbers of the rows, which pandas writes beside them
    return table


def _decoded(content: bytes) -> str:
    """A text in UTF-8, or in UTF-16 as spreadsheets write it, with a mark at its beginning."""
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf_16 else "utf-8-sig")


def _cells(lines: list[str], separator: str | None) -> list[list[str]]:
    """The cells of each line, without space around them."""
    if separator is None:
        return [line.split() for line in lines]
    cells = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    if separator != ";":
        return cells
    # Spreadsheets put semicolons between the cells where the decimal point is a comma.
    return [
        [point if _is_number(point := cell.replace(",", ".")) else cell for cell in row]
        for row in cells
    ]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _of_column(column: pd.Series, name: str, file: str, *, asked: bool) -> list[Sample]:
    """A column's samples: itself, or each list in it; none, unless asked for, of other things."""
    # A release of pandas may have a type of its own for text.
    if pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column):
        column = column.astype(object)
        present = column[column.notna() & (column.astype(str) != "")]
        if len(present) and present.map(lambda value: isinstance(value, np.ndarray)).all():
            return [(f"{name} {row}", np.asarray(values, float)) for row, values in present.items()]
        numbers = pd.to_numeric(present, errors="coerce")
        wrong = present[numbers.isna() & ~present.astype(str).str.lower().isin(_MISSING)]
        if len(wrong):
            # A column of words beside the numbers is no sample; one wrong number is an error.
            if asked or len(wrong) < 0.5 * len(present):
                raise ValueError(
                    f"{file}: {wrong.iloc[0]!r} in row {wrong.index[0] + 1} of column {name!r} is "
                    "no number; mend it, or name the columns to fit by --column"
                )
            return []
        column = numbers
    if column.dtype.kind not in "biuf":
        if asked:
            raise ValueError(
                f"{file}: column {name!r} has type {column.dtype}; it holds no numbers"
            )
        return []
    values = column.dropna().to_numpy(dtype=float)
    # Behind a separator at the end of each line there is an empty column.
    return [(name, values)] if len(values) or asked else []


def _of_rows(columns: list[Sample], file: str) -> list[Sample]:
    """The rows across columns as samples."""
    if len({len(values) for _, values in columns}) > 1:
        raise ValueError(
            f"{file}: with --samples rows, no cell of a column of numbers may be empty"
        )
    matrix = np.column_stack([values for _, values in columns])
    return [(f"row {number}", values) for number, values in enumerate(matrix)]


# --- fitting ------------------------------------------------------------------------------------


def fit_samples(samples: list[Sample], laws: Sequence[str], location: Location) -> pd.DataFrame:
    """One row a sample and law: the fit, and how near it is.

    Raises:
        ValueError: an unknown law, or one alpha for samples of several lengths.
    """
    lengths: dict[int, list[int]] = {}
    for number, (_, values) in enumerate(samples):
        lengths.setdefault(len(values), []).append(number)
    tables = []
    for numbers in lengths.values():
        matrix = np.stack([samples[number][1] for number in numbers])
        for law in laws:
            if law in LAWS and LAWS[law].shared and len(lengths) > 1:
                raise ValueError(
                    f"{law}: all samples must have as many values; they have {min(lengths)} to "
                    f"{max(lengths)}"
                )
            fit = fitting.fit_law(law, matrix, location=location, nan_policy="flag")
            table = fit.to_frame()
            table.insert(0, "sample", [samples[number][0] for number in numbers])
            table.insert(0, "number", numbers)
            table["aic"] = goodness.aic(fit.log_likelihood, fit.free_parameters)
            centred = matrix - fit.location[:, None]
            ordered = np.sort(goodness.without_atom(centred), axis=1) + fit.location[:, None]
            table["ks"] = fit.kolmogorov_smirnov(ordered)
            tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    table["delta_aic"] = table["aic"] - table.groupby("number")["aic"].transform("min")
    table = table.sort_values(["number", "delta_aic"], kind="stable", ignore_index=True)
    last = ["log_likelihood", "aic", "delta_aic", "ks", "zero_fraction", "n_values"]
    last += ["converged", "flag"]
    return table[[*table.columns.drop(["number", *last]), *last]]


# --- showing ------------------------------------------------------------------------------------


def show(table: pd.DataFrame, samples: list[Sample], file: str, stream: TextIO) -> None:
    """Write the table for a person: of few samples each, of many the medians."""
    if len(samples) > FEW:
        print(f"{file}: {len(samples):,} samples, medians over them", file=stream)
        _print(_summary(table), stream)
        return
    laws = len(table) // len(samples)
    for number, (name, values) in enumerate(samples):
        rows = table[number * laws : (number + 1) * laws]
        where = f"{file}, {name}" if len(samples) > 1 else file
        line = f"{where}: {len(values):,} values, location {rows['location'].iloc[0]:.4g}"
        if (zeros := rows["zero_fraction"].iloc[0]) > 0:
            line += f"; {zeros:.1%} equal the location and are left out"
        print(line, file=stream)
        _print(rows.apply(_shown, axis=1), stream)


def _shown(row: pd.Series) -> pd.Series:
    """One line of the table."""
    shape = LAWS[row["law"]].shape
    words = {
        "law": LOOKS[row["law"]].title,
        "shape": "" if shape is None else _estimate(shape.replace("_", " "), row, shape),
        "scale": _estimate("", row, "scale"),
        "log-likelihood": _number(row["log_likelihood"], 2),
        "dAIC": _number(row["delta_aic"], 2),
        "KS": _number(row["ks"], 4),
        "flag": row["flag"].replace("_", " "),
    }
    return pd.Series(words)


def _summary(table: pd.DataFrame) -> pd.DataFrame:
    """One line a law: medians over samples, and in how many it is the best."""
    lines = []
    for law, rows in table.groupby("law", sort=False):
        shape = LAWS[str(law)].shape
        median = "" if shape is None else f"{shape.replace('_', ' ')} {rows[shape].median():.4g}"
        lines.append(
            {
                "law": LOOKS[str(law)].title,
                "shape": median,
                "scale": f"{rows['scale'].median():.4g}",
                "dAIC": _number(rows["delta_aic"].median(), 2),
                "best in": f"{(rows['delta_aic'] == 0).mean():.1%}",
                "KS": _number(rows["ks"].median(), 4),
                "flagged": f"{(rows['flag'] != '').sum():,}",
            }
        )
    return pd.DataFrame(lines)


def _estimate(name: str, row: pd.Series, column: str) -> str:
    value, error = row[column], row[f"{column}_se"]
    if np.isnan(value):
        return ""
    number = with_error(value, error) if np.isfinite(error) and error > 0 else f"{value:.4g}"
    return f"{name} {number}".strip()


def _number(value: float, decimals: int) -> str:
    return "" if np.isnan(value) else f"{value:,.{decimals}f}"


def _print(table: pd.DataFrame, stream: TextIO) -> None:
    """The columns side by side, words to the left and numbers to the right; none that is empty."""
    columns = [name for name in table.columns if (table[name] != "").any()]
    words = {"law", "shape", "scale", "flag"}
    cells = []
    for name in columns:
        width = max(len(name), *(len(cell) for cell in table[name]))
        align = str.ljust if name in words else str.rjust
        cells.append([align(cell, width) for cell in (name, *table[name])])
    for line in zip(*cells, strict=True):
        print("  " + "  ".join(line).rstrip(), file=stream)


_WRITERS = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}
