"""Readers of tables of one's own: CSV, TSV and Parquet files, and NPZ archives of arrays.

A table is taken as it is or refused by name: no column, row, digit or class is guessed at.
"""

from __future__ import annotations

import codecs
import csv
import io
import logging
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from sgnoise.data.downloads import digest_of
from sgnoise.data.reading import Raw, Workspace, class_numbers
from sgnoise.messages import unknown_name

logger = logging.getLogger("sgnoise")

# Cells that say that a number is missing. In the target they are names of classes, unless the
# other classes are numbers.
_MISSING = (
    *("", "NA", "N/A", "n/a", "<NA>", "#N/A", "#NA", "NaN", "nan", "-NaN", "-nan"),
    *("NULL", "null", "None", "none", "NONE", "?"),
)
# Columns of row numbers: one without a name, as pandas and R write it, and what pandas makes of it.
_ROW_NUMBERS = re.compile(r"|Unnamed: \d+(\.\d+)*|__index_level_\d+__")
_MOST_CHANNELS = 4


def read_table(
    workspace: Workspace, *, path: str, target: str, form: str = "table", test_fraction: float = 0.0
) -> Raw:
    """A table of one's own.

    Text files are in UTF-8, with a line of names first, commas between (``.tsv``: tabs) and
    decimal points. All columns but the target are features, and numbers; row numbers that pandas
    or R wrote are left out. An NPZ file holds the features as the array ``inputs``, (samples,
    features) or (samples, channels, height, width), and the target under its name, (samples,).

    Args:
        workspace: see there.
        path: the file; its suffix, in any case, says what it is.
        target: column (or array) that holds the class.
        form: ``image`` for an array of images, else ``table``.
        test_fraction: share to hold back for the test.

    Raises:
        ValueError: the file is damaged or means something else; which, where, and what to do.
    """
    file = Path(path)
    if not file.is_file():
        what = "a folder or a device, not a file" if file.exists() else "no such file"
        raise ValueError(f"{path}: {what} (relative paths start at {Path.cwd()})")
    suffix = file.suffix.lower()
    if suffix not in _READERS:
        raise unknown_name(f"suffix of the table {path}:", file.suffix, _READERS)
    inputs, labels = _READERS[suffix](file, target)
    forms = ["table", "image"] if inputs.ndim == 4 else ["table"]
    if form not in forms:
        raise unknown_name(f"form of {path}:", form, forms)
    if form == "table":
        inputs = inputs.reshape(len(inputs), int(np.prod(inputs.shape[1:]))).astype(np.float64)
    elif inputs.shape[1] > _MOST_CHANNELS >= inputs.shape[3]:
        raise ValueError(
            f"{path}: 'inputs' has shape {inputs.shape}: the channels seem to be last, and belong "
            "before height and width; save inputs.transpose(0, 3, 1, 2)"
        )
    if not len(inputs):
        raise ValueError(f"{path}: the table has no rows")
    if not inputs.size:
        raise ValueError(
            f"{path}: no features: the inputs of a sample have shape {inputs.shape[1:]}"
        )
    if not np.isfinite(inputs).all():
        rows = np.unique(np.nonzero(~np.isfinite(inputs))[0])
        raise ValueError(
            f"{path}: {len(rows)} rows have missing or infinite values (first: row {rows[0]}, "
            "counted from 0); fill them in or leave these rows out"
        )
    targets, class_names = class_numbers(labels, f"{path}: {target!r}")
    if form == "table":
        copies = np.flatnonzero((inputs == targets[:, None]).all(axis=0))
        if len(copies):
            logger.warning(
                "%s: feature %d (counted from 0) is the number of the class; leave it out if it "
                "is the target once more",
                *(path, copies[0]),
            )
    return Raw(
        kind=form,
        inputs=inputs,
        targets=targets,
        class_names=class_names,
        description={
            "name": file.stem,
            "title": file.stem,
            "source": file.name,
            "source_sha256": digest_of(file),
            "licence": "that of the file",
            "form": form,
        },
    )


def read_npz(path: Path, target: str, inputs_name: str = "inputs") -> tuple[np.ndarray, np.ndarray]:
    """Inputs, bytes or float64, and labels, (samples,), of an NPZ file.

    Raises:
        ValueError: the file is damaged, an array is missing, or it holds something else.
    """
    arrays = _arrays(path, inputs_name, target)
    inputs, labels = arrays[inputs_name], arrays[target]
    for name, array in arrays.items():
        if np.iscomplexobj(array):
            raise ValueError(
                f"{path}: {name!r} has an imaginary part; save its real part, or real and "
                "imaginary part as two features"
            )
    if inputs.dtype.kind not in "biuf":
        raise ValueError(
            f"{path}: {inputs_name!r} has the type {inputs.dtype}, not numbers; save numbers"
        )
    if labels.dtype.kind not in "biufSU":
        raise ValueError(
            f"{path}: {target!r} has the type {labels.dtype}; save whole numbers or text"
        )
    if inputs.dtype != np.uint8:
        inputs = inputs.astype(np.float64)
    if inputs.ndim not in (2, 4):
        raise ValueError(
            f"{path}: {inputs_name!r} has shape {inputs.shape}; expected (samples, features) or "
            "(samples, channels, height, width); grey images: save inputs[:, None]"
        )
    if labels.shape != inputs.shape[:1]:
        raise ValueError(
            f"{path}: {len(inputs)} inputs, but {target!r} has shape {labels.shape}; expected a "
            "class for each sample (of one-hot rows: argmax(axis=1))"
        )
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "backslashreplace")
    return inputs, labels


def _arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """The arrays of these names."""
    reached = ""
    arrays = {}
    try:
        # An open file, as numpy leaves one open that it cannot read.
        with open(path, "rb") as file:
            opened = np.load(file, allow_pickle=False)
            if isinstance(opened, np.ndarray):
                raise ValueError(f"{path}: one array without a name; np.savez gives it one")
            for name in names:
                if name not in opened:
                    raise unknown_name(f"array of {path}:", name, opened.files)
                reached = name
                arrays[name] = opened[name]
        return arrays
    except (ValueError, OSError, EOFError, MemoryError, RuntimeError, SyntaxError) as error:
        if str(path) in str(error) and type(error) is ValueError:
            raise
        objects = " as numbers or text, not as objects" if "pickle" in str(error) else ""
        where = f"{path}: array {reached!r}" if reached else str(path)
        raise ValueError(
            f"{where} cannot be read: {error}; save it anew with np.savez{objects}"
        ) from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: damaged or no NPZ file: {error}; copy or save it again"
        ) from error


def _read_parquet(path: Path, target: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        _check_names(pq.read_schema(path).names, path)
        frame = pd.read_parquet(path)
    except (
        *(ValueError, TypeError, LookupError, AttributeError),
        *(OSError, MemoryError, NotImplementedError),
    ) as error:
        if type(error) is ValueError and str(path) in str(error):
            raise
        first_line = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: damaged or no Parquet file: {first_line}; copy or save it again"
        ) from error
    index = [str(name) for name in frame.index.names if name is not None]
    if target in index:
        raise ValueError(
            f"{path}: {target!r} is the index of the table; make it a column by reset_index()"
        )
    if index:
        logger.warning("%s: left out: the index %s", path, ", ".join(index))
    frame.columns = [str(name) for name in frame.columns]
    _check_target(list(frame.columns), path, target)
    return _features(frame.drop(columns=target), path), frame[target].to_numpy()


def _read_text(path: Path, target: str, separator: str) -> tuple[np.ndarray, np.ndarray]:
    text = _text_of(path)
    names = _checked_header(text, path, target, separator)
    _check_names(names, path)
    _check_target(names, path, target)
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            # By position: pandas renames what has no name.
            names=[str(column) for column in range(len(names))],
            header=0,
            index_col=False,
            dtype={str(names.index(target)): str},
            keep_default_na=False,
            na_values={
                str(column): list(_MISSING) for column, name in enumerate(names) if name != target
            },
            low_memory=False,
        )
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: cannot be read as a table: {error}; save it anew") from error
    frame.columns = names
    return _features(frame.drop(columns=target), path), _labels(
        frame[target], f"{path}: {target!r}"
    )


def _text_of(path: Path) -> str:
    """The text of a file in UTF-8, without a mark of the byte order."""
    content = path.read_bytes()
    for name, marks in (
        ("UTF-32", (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
        ("UTF-16", (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
    ):
        if content.startswith(marks):
            raise ValueError(
                f"{path}: the text is in {name}; save it as UTF-8 (iconv -f {name} -t UTF-8)"
            )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}: line {line}: the text is not in UTF-8 (byte {content[error.start]:#04x}); "
            "save it as UTF-8, from Latin-1 or Windows for instance by iconv -f WINDOWS-1252 "
            "-t UTF-8"
        ) from error
    if not text.strip():
        raise ValueError(f"{path}: the file is empty")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(
            f"{path}: line {line}: bytes of 0, which no text in UTF-8 has: another format, or "
            "UTF-16; save it as UTF-8"
        )
    return text


def _checked_header(text: str, path: Path, target: str, separator: str) -> list[str]:
    """The names of the columns; every line must have as many fields."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names: list[str] = []
    try:
        for fields in lines:
            if not fields:
                continue
            if not names:
                names = [name.strip() for name in fields]
                _check_separator(names, path, target, separator)
            elif len(fields) != len(names):
                raise ValueError(
                    f"{path}: line {lines.line_num} has {len(fields)} fields, and the header "
                    f"{len(names)}; mend the line, or put text with separators between quotes"
                )
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {lines.line_num}: {error}; is a quotation mark not closed?"
        ) from error
    return names


def _check_separator(names: Sequence[str], path: Path, target: str, separator: str) -> None:
    if target in names:
        return
    marks = [mark for mark in _MARKS if mark != separator]
    counts = {mark: max(name.count(mark) for name in names) for mark in marks}
    other = max(counts, key=lambda mark: counts[mark])
    # Names have spaces in them, and so have lines that are no header.
    if counts[other] >= len(names) and (other != " " or target in names[0].split()):
        raise ValueError(
            f"{path}: line 1: the fields seem to lie between {_MARKS[other]}, and belong between "
            f"{_MARKS[separator]} in a file {path.suffix}; save it so, with decimal points"
        )
    if len(names) > 1 and all(_is_number(name) for name in names):
        raise ValueError(
            f"{path}: line 1 holds numbers; it must name the columns, {target!r} among them"
        )


_MARKS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_names(names: Sequence[str], path: Path) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise ValueError(
            f"{path}: columns that are there twice: {', '.join(twice)}; rename or remove one of "
            "each"
        )


def _check_target(names: Sequence[str], path: Path, target: str) -> None:
    if target not in names:
        raise unknown_name(f"target column of {path}:", target, names)
    if len(names) == 1:
        raise ValueError(f"{path}: no column but the target {target!r}")


def _features(frame: pd.DataFrame, path: Path) -> np.ndarray:
    """All columns but those of row numbers, float64, (rows, features)."""
    kept = []
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        if not _ROW_NUMBERS.fullmatch(name) or not len(frame):
            kept.append(position)
        elif pd.api.types.is_integer_dtype(column) and column.is_unique and column.min() >= 0:
            logger.warning("%s: left out: row numbers in the column %r", path, name)
        else:
            raise ValueError(
                f"{path}: column {name!r} (number {position + 1} of the features) has no name of "
                "its own; name it if it is a feature, or remove it"
            )
    frame = frame.iloc[:, kept]
    if frame.columns.empty:
        raise ValueError(f"{path}: no column but the target and row numbers")
    wrong = [
        f"{name}{_first_text(frame[name])}"
        for name in frame.columns
        if len(frame) and not _is_numeric(frame[name])
    ]
    if wrong:
        raise ValueError(
            f"{path}: columns that are not numbers: {', '.join(wrong)}; encode them or leave "
            "them out"
        )
    counting = [
        name
        for name in frame.columns
        if len(frame) > 2
        and pd.api.types.is_integer_dtype(frame[name])
        and (np.diff(frame[name].to_numpy(np.float64, na_value=np.nan)) == 1).all()
    ]
    if counting:
        logger.warning(
            "%s: columns that count the rows are features: %s; leave them out if they are row "
            "numbers",
            *(path, ", ".join(counting)),
        )
    if not len(frame):
        return np.empty((0, len(frame.columns)))
    return _with_finite(frame, path)


def _with_finite(frame: pd.DataFrame, path: Path) -> np.ndarray:
    values = frame.to_numpy(np.float64, na_value=np.nan)
    wrong = ~np.isfinite(values)
    if wrong.any():
        rows = np.flatnonzero(wrong.any(axis=1))
        columns = frame.columns[wrong.any(axis=0)]
        raise ValueError(
            f"{path}: {len(rows)} rows have missing or infinite values (first: row {rows[0]}, "
            f"counted from 0 without the header; columns: {', '.join(columns)}); fill them in or "
            "leave these rows out"
        )
    return values


def _is_numeric(column: pd.Series) -> bool:
    numeric = pd.api.types.is_numeric_dtype(column)
    return numeric and not pd.api.types.is_complex_dtype(column)


def _first_text(column: pd.Series) -> str:
    """The first cell that is no number, and where, to be put behind the column's name."""
    if not (pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column)):
        return f" ({column.dtype})"
    texts = [(row, cell) for row, cell in enumerate(column) if isinstance(cell, str)]
    if not texts:
        return f" ({type(column.iloc[0]).__name__})"
    # Digits in such numbers that they are text to pandas are the other cause.
    longest = max(texts, key=lambda text: len(text[1]))
    row, cell = next((text for text in texts if not _is_number(text[1])), longest)
    comma = re.fullmatch(r"\s*[-+]?[\d.]+,\d+\s*", cell)
    hint = ": write a decimal point, and nothing between thousands" if comma else ""
    return f" (row {row}: {cell[:40]!r}{hint})"


def _check_zeros(text: pd.Series, numbers: pd.Series, where: str) -> None:
    """Classes "01" and "1" are one number."""
    begun = text[text.str.fullmatch(r"[-+]?0\d+")].drop_duplicates()
    others = text.loc[numbers.isin(numbers[begun.index]) & ~text.isin(begun)]
    if len(others):
        raise ValueError(
            f"{where}: {begun.iloc[0]!r} and the like stand beside {others.iloc[0]!r}; write each "
            "class in one way"
        )


def _labels(column: pd.Series, where: str) -> np.ndarray:
    """Labels of a text file as numbers, if all are, or as text; None where they are missing."""
    text = column.str.strip()
    given = text[~text.isin(_MISSING)]
    numbers = pd.to_numeric(given, errors="coerce")
    if len(given) and numbers.notna().all():
        _check_zeros(given, numbers, where)
        # A missing number among numbers; "NA" among names is a name.
        numbers = pd.to_numeric(given)
        return (numbers if len(given) == len(text) else numbers.reindex(text.index)).to_numpy()
    labels = text.to_numpy(object)
    labels[(text == "").to_numpy()] = None
    return labels


def _read_csv(path: Path, target: str) -> tuple[np.ndarray, np.ndarray]:
    return _read_text(path, target, ",")


def _read_tsv(path: Path, target: str) -> tuple[np.ndarray, np.ndarray]:
    return _read_text(path, target, "\t")


_READERS: dict[str, Callable[[Path, str], tuple[np.ndarray, np.ndarray]]] = {
    ".csv": _read_csv,
    ".npz": read_npz,
    ".parquet": _read_parquet,
    ".tsv": _read_tsv,
}
