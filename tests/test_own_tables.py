"""Tables of one's own: what is understood, and what is refused, with which words."""

from __future__ import annotations

import datetime
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from sgnoise.data.datasets import Dataset
from sgnoise.data.sources import prepare

ROWS = 24


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "width": rng.normal(3, 2, ROWS),
            "count": rng.integers(0, 9, ROWS),
            "label": rng.permutation(["a", "b", "c"] * (ROWS // 3)),
        }
    )


def read(path: Path, **settings: Any) -> Dataset:
    return prepare({"source": "table", "path": str(path), "target": "label", **settings}, seed=1)


def refused(path: Path, message: str, **settings: Any) -> None:
    """It is, by this name, with these words, and as a plain ValueError."""
    with pytest.raises(ValueError, match=message) as caught:
        read(path, **settings)
    assert type(caught.value) is ValueError
    assert path.name in str(caught.value)


@pytest.fixture(name="expected")
def read_plainly(tmp_path: Path) -> Dataset:
    frame().to_csv(tmp_path / "plain.csv", index=False)
    return read(tmp_path / "plain.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tabs.tsv", frame().to_csv(index=False, sep="\t")),
        ("capitals.CSV", frame().to_csv(index=False)),
        ("windows.csv", "\ufeff" + frame().to_csv(index=False, lineterminator="\r\n")),
        ("old_mac.csv", frame().to_csv(index=False, lineterminator="\r")),
        ("spaces.csv", frame().to_csv(index=False).replace(",", " , ")),
        ("quoted.csv", frame().to_csv(index=False, quoting=2)),
        ("blank_lines.csv", "\n" + frame().to_csv(index=False).replace("\n", "\n\n")),
        ("target_first.csv", frame()[["label", "width", "count"]].to_csv(index=False)),
    ],
)
def test_text_in_many_forms_is_the_same(
    tmp_path: Path, expected: Dataset, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content, "utf-8", newline="")
    found = read(tmp_path / name)
    assert found.digest == expected.digest
    assert found.description["class_names"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table,
        lambda table: table.set_index(pd.RangeIndex(1, ROWS + 1)),
        lambda table: table.set_index(np.random.default_rng(3).permutation(99)[:ROWS]),
        lambda table: table.reset_index(names="Unnamed: 0"),
    ],
)
def test_row_numbers_are_no_feature(
    tmp_path: Path, expected: Dataset, change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    change(frame()).to_csv(tmp_path / "mine.csv")
    assert read(tmp_path / "mine.csv").digest == expected.digest
    assert "mine.csv: left out: row numbers in the column ''" in caplog.text
    change(frame()).to_parquet(tmp_path / "mine.parquet")
    assert read(tmp_path / "mine.parquet").digest == expected.digest


def test_other_columns_without_a_name_are_refused(tmp_path: Path) -> None:
    for index in (["x"] * ROWS, [0, 1] * (ROWS // 2), np.linspace(0, 1, ROWS)):
        frame().set_index(pd.Index(index)).to_csv(tmp_path / "mine.csv")
        refused(tmp_path / "mine.csv", "column '' .* has no name of its own; name it")


def test_a_column_that_counts_or_is_the_target_is_pointed_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = frame().assign(number=range(ROWS))
    table["coded"] = table["label"].map({"a": 0, "b": 1, "c": 2})
    table.to_csv(tmp_path / "mine.csv", index=False)
    assert read(tmp_path / "mine.csv").input_shape == (4,)
    assert "columns that count the rows are features: number; leave them" in caplog.text
    assert "feature 3 (counted from 0) is the number of the class" in caplog.text


@pytest.mark.parametrize(
    "names",
    [
        *(["NA", "EU"], ["None", "Some"], ["null", "full"], ["nan", "bread"], ["N/A", "x"]),
        *(["NA", "None", "null"], ["True", "False"], ["-", "+"], ["1", "one"], ["NULL", "?"]),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_classes_may_have_any_name(tmp_path: Path, names: list[str], suffix: str) -> None:
    labels = [names[row % len(names)] for row in range(ROWS)]
    table = frame().assign(label=labels)
    path = tmp_path / f"mine.{suffix}"
    if suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="," if suffix == "csv" else "\t")
    dataset = read(path)
    assert dataset.description["class_names"] == sorted(names)
    found = np.array(dataset.description["class_names"])[dataset.train_targets]
    assert found.tolist() == labels


@pytest.mark.parametrize("missing", ["", "NA", "nan", "None"])
def test_a_number_may_be_missing_among_numbers(tmp_path: Path, missing: str) -> None:
    table = frame().assign(label=["0", "1", missing] * (ROWS // 3))
    table.to_csv(tmp_path / "mine.csv", index=False)
    refused(tmp_path / "mine.csv", r"target has missing values in 8 rows \(first: row 2")


def test_a_name_that_is_missing_is_refused(tmp_path: Path) -> None:
    table = frame().assign(label=["NA", "x", "  "] * (ROWS // 3))
    table.to_csv(tmp_path / "mine.csv", index=False)
    refused(tmp_path / "mine.csv", r"target has missing values in 8 rows \(first: row 2")


def test_numbers_of_classes_keep_their_order(tmp_path: Path) -> None:
    table = frame().assign(label=[10, 9, -1] * (ROWS // 3))
    table.to_csv(tmp_path / "mine.csv", index=False)
    dataset = read(tmp_path / "mine.csv")
    assert dataset.description["class_names"] == ["-1", "9", "10"]
    assert dataset.train_targets[:3].tolist() == [2, 1, 0]


PLAIN = frame().to_csv(index=False)
GERMAN = frame().to_csv(index=False, sep=";", decimal=",")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "latin.csv",
            PLAIN.replace("a\n", "ä\n", 1).encode("latin-1"),
            r"line \d+: .* UTF-8 .*0xe4",
        ),
        ("windows.csv", b"gr\xf6\xdfe,label\n1,2\n", "line 1: .* iconv -f WINDOWS-1252 -t UTF-8"),
        ("utf16.csv", PLAIN.encode("utf-16"), "in UTF-16; save it as UTF-8"),
        ("utf32.tsv", PLAIN.encode("utf-32"), "in UTF-32; save it as UTF-8"),
        ("no_mark.csv", PLAIN.encode("utf-16-le"), "line 1: bytes of 0"),
        ("binary.csv", b"PK\x03\x04\x00\x00", "line 1: bytes of 0"),
        ("long.csv", (PLAIN + "1,2,a,4\n").encode(), "line 26 has 4 fields, and the header 3"),
        ("short.csv", (PLAIN + "1,2\n").encode(), "line 26 has 2 fields, and the header 3"),
        ("all_long.csv", b"a,label\n1,2,x\n3,4,y\n", "line 2 has 3 fields, and the header 2"),
        ("open.csv", (PLAIN + '1,2,"a\n').encode(), "line 26: .*a quotation mark not closed"),
        ("empty.csv", b"", "the file is empty"),
        ("blank.csv", b" \n\n", "the file is empty"),
        ("mark.csv", b"\xef\xbb\xbf", "the file is empty"),
        ("header.csv", b"a,b,label\n", "no rows"),
        ("header.tsv", b"a\tb\tlabel\n", "no rows"),
        ("german.csv", GERMAN.encode(), "between semicolons, and belong between commas"),
        ("german.tsv", GERMAN.encode(), "between semicolons, and belong between tabs"),
        ("tabs.csv", PLAIN.replace(",", "\t").encode(), "between tabs, and belong between commas"),
        ("commas.tsv", PLAIN.encode(), "between commas, and belong between tabs"),
        ("bars.csv", PLAIN.replace(",", "|").encode(), "between bars, and belong between commas"),
        ("spaces.csv", PLAIN.replace(",", " ").encode(), "between spaces, and belong between com"),
        ("headless.csv", b"0.5,1.5,1\n0.1,0.2,0\n", "line 1 holds numbers; it must name"),
        ("twice.csv", b"a,label,label\n1,0,0\n2,1,1\n", "there twice: label; rename or remove"),
        ("twice.tsv", b"a\ta\tlabel\n1\t0\t0\n2\t1\t1\n", "there twice: a; rename or remove"),
        ("alone.csv", b"label\n1\n2\n", "no column but the target 'label'"),
        ("numbers.csv", b",label\n0,x\n1,y\n", "no column but the target and row numbers"),
        ("decimal.csv", b'a,label\n"1,5",x\n"2,5",y\n', r"a \(row 0: '1,5': write a decimal poi"),
        ("thousands.csv", b'a,label\n"1.234,5",x\n2,y\n', r"row 0: '1.234,5': write a decimal poi"),
        ("digits.csv", b"a,label\n1" + b"0" * 30 + b",x\n2,y\n", r"not numbers: a \(row 0: '1000"),
        ("zeros.csv", b"a,label\n1,01\n2,1\n3,1\n", "'01' and the like stand beside '1'; write"),
        ("page.csv", b"<html>\n<body>404 not found</body>\n", "unknown target column"),
        ("dates.csv", b"a,label\n2020-01-01,x\n2020-01-02,y\n", r"a \(row 0: '2020-01-01'\)"),
        ("complex.csv", b"a,label\n1,x\n1+2j,y\n", r"not numbers: a \(row 1: '1\+2j'\)"),
        ("gap.csv", b"a,b,label\n1,2,x\n,2,y\n", r"1 rows .* \(first: row 1, .*; columns: a\)"),
        ("infinite.csv", b"a,b,label\n1,-inf,x\n2,1,y\n", r"first: row 0, .*; columns: b\)"),
        ("unknown.csv", b"a,b,label\n1,?,x\n2,1,y\n", r"first: row 0, .*; columns: b\)"),
        ("huge.csv", b"a,label\n1e300,x\n-1e300,y\n1,x\n", "cannot be standardised"),
        ("names.csv", b"a,label\n1,x\n2,y\n3,z\n", "as many classes as there are samples"),
        ("real.csv", b"a,label\n1,.5\n2,.25\n3,1\n", r"fractions, .*\(regression\); expected clas"),
        ("integers.csv", b"a,label\n1,50\n2,25\n3,10\n", "as many classes .*regression"),
    ],
)
def test_text_that_is_no_plain_table_is_explained(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    refused(tmp_path / "folder.csv", "a folder or a device, not a file")
    refused(tmp_path / "none.csv", "no such file")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([datetime.datetime(2020, 1, 1)] * ROWS, r"not numbers: extra \(datetime64"),
        (pd.Categorical(["x", "y"] * (ROWS // 2)), r"not numbers: extra \(row 0: 'x'\)"),
        ([b"x"] * ROWS, r"not numbers: extra \(bytes\)"),
        ([[1, 2]] * ROWS, r"not numbers: extra \("),
        (["x"] * ROWS, r"not numbers: extra \(row 0: 'x'\)"),
        (pd.array([1, None] * (ROWS // 2), "Int64"), r"12 rows .*\(first: row 1, .*columns: extra"),
    ],
)
def test_columns_of_parquet_that_are_no_numbers(tmp_path: Path, column: Any, message: str) -> None:
    frame().assign(extra=column).to_parquet(tmp_path / "mine.parquet")
    refused(tmp_path / "mine.parquet", message)


def test_names_that_stand_twice_in_parquet(tmp_path: Path) -> None:
    columns = [pa.array([1.0, 2.0, 3.0]), pa.array([0, 1, 0]), pa.array([0, 1, 0])]
    for names in (["a", "label", "label"], ["a", "a", "label"]):
        parquet.write_table(pa.table(columns, names=names), tmp_path / "mine.parquet")
        refused(tmp_path / "mine.parquet", f"there twice: {names[1]}; rename")


def test_harm_to_what_pandas_wrote_of_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    table = pa.Table.from_pandas(frame())
    words = table.schema.metadata[b"pandas"].replace(b"float64", b"fmoat64")
    words = words.replace(b'"object"', b'"fmoat64"')
    parquet.write_table(table.replace_schema_metadata({b"pandas": words}), path)
    refused(path, "damaged or no Parquet file: .*; copy or save it again")


def test_an_index_is_no_column(
    tmp_path: Path, expected: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    frame().set_index("label").to_parquet(tmp_path / "mine.parquet")
    refused(tmp_path / "mine.parquet", r"'label' is the index .*reset_index\(\)")
    frame().set_index(pd.Index(range(ROWS), name="day")).to_parquet(tmp_path / "mine.parquet")
    assert read(tmp_path / "mine.parquet").digest == expected.digest
    assert "mine.parquet: left out: the index day" in caplog.text


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pd.to_datetime(["2020-01-01", "2020-01-02"] * (ROWS // 2)), "the type datetime64"),
        ([1.0, np.inf] * (ROWS // 2), "infinite values"),
        ([1.0, None] * (ROWS // 2), r"missing values in 12 rows \(first: row 1"),
        (["x", " "] * (ROWS // 2), "blank in row 1"),
        (["x", None] * (ROWS // 2), r"missing values in 12 rows \(first: row 1"),
    ],
)
def test_targets_of_parquet_that_are_no_classes(tmp_path: Path, labels: Any, message: str) -> None:
    frame().assign(label=labels).to_parquet(tmp_path / "mine.parquet")
    refused(tmp_path / "mine.parquet", message)


def test_columns_of_true_and_false_are_numbers(tmp_path: Path) -> None:
    table = frame().assign(extra=[True, False] * (ROWS // 2))
    table.to_parquet(tmp_path / "mine.parquet")
    table.to_csv(tmp_path / "mine.csv", index=False)
    dataset = read(tmp_path / "mine.parquet")
    np.testing.assert_array_equal(dataset.train_inputs[:, 2], [1, -1] * (ROWS // 2))
    assert read(tmp_path / "mine.csv").digest == dataset.digest


@pytest.mark.parametrize("name", ["mine.parquet", "mine.npz"])
@pytest.mark.parametrize("harm", ["empty", "cut", "changed", "text"])
def test_damaged_files_are_named(tmp_path: Path, name: str, harm: str) -> None:
    path = tmp_path / name
    if path.suffix == ".npz":
        np.savez_compressed(
            path, inputs=np.random.default_rng(0).normal(size=(9, 50)), label=[0] * 9
        )
    else:
        frame().to_parquet(path)
    whole = path.read_bytes()
    harmed = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "changed": whole[:200] + bytes(200) + whole[400:],
        "text": PLAIN.encode(),
    }
    path.write_bytes(harmed[harm])
    refused(path, "damaged or no|cannot be read")


GOOD = {"inputs": np.random.default_rng(0).normal(size=(9, 4)), "label": np.arange(9) % 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": GOOD["inputs"] + 1j}, "'inputs' has an imaginary part; save its real part"),
        ({"label": GOOD["label"] + 0j}, "'label' has an imaginary part"),
        ({"inputs": GOOD["inputs"].astype(object)}, "array 'inputs' cannot .*, not as objects"),
        ({"label": np.array([{}] * 9)}, "array 'label' cannot be read: .*, not as objects"),
        ({"inputs": GOOD["inputs"].astype(str)}, "'inputs' has the type <U32, not numbers"),
        ({"inputs": GOOD["inputs"].astype("M8[s]")}, "'inputs' has the type .*, not numbers"),
        ({"label": GOOD["label"].astype("M8[s]")}, "'label' has the type datetime64"),
        ({"label": np.eye(9)}, r"'label' has shape \(9, 9\).*one-hot rows: argmax"),
        ({"label": GOOD["label"][:, None]}, r"'label' has shape \(9, 1\); expected a class for"),
        ({"label": np.arange(9)}, "as many classes as there are samples"),
        ({"inputs": np.zeros((9, 4, 4))}, r"grey images: save inputs\[:, None\]"),
        ({"inputs": np.zeros((9, 0))}, r"no features: the inputs of a sample have shape \(0,\)"),
        ({"label": np.array(["x", ""] * 4 + ["x"])}, "blank in row 1"),
        ({"inputs": np.float64(3)}, r"'inputs' has shape \(\); expected"),
        ({"inputs": np.where(GOOD["inputs"] > 1, np.nan, 1)}, r"\(first: row \d, counted from 0"),
    ],
)
def test_arrays_that_mean_something_else_are_explained(
    tmp_path: Path, change: dict[str, np.ndarray], message: str
) -> None:
    arrays: dict[str, Any] = {**GOOD, **change}
    np.savez(tmp_path / "mine.npz", **arrays)
    refused(tmp_path / "mine.npz", message)


@pytest.mark.parametrize("shape", [(9, 8, 8, 3), (9, 8, 8, 1), (9, 28, 6, 4)])
def test_channels_that_are_last_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    inputs = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "mine.npz"
    np.savez(path, inputs=inputs, label=GOOD["label"])
    refused(path, re.escape("save inputs.transpose(0, 3, 1, 2)"), form="image")
    np.savez(path, inputs=inputs.transpose(0, 3, 1, 2), label=GOOD["label"])
    assert read(path, form="image").input_shape == (shape[3], *shape[1:3])


@pytest.mark.parametrize("labels", [[b"x", b"y", b"z"], ["x", "y", "z"], [True, False, True]])
def test_labels_of_arrays_have_names(tmp_path: Path, labels: list[Any]) -> None:
    np.savez(tmp_path / "mine.npz", inputs=GOOD["inputs"], label=np.array(labels * 3))
    names = ["x", "y", "z"] if isinstance(labels[0], bytes | str) else ["False", "True"]
    assert read(tmp_path / "mine.npz").description["class_names"] == names


def test_an_array_without_a_name_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "mine.npz", "wb") as file:
        np.save(file, GOOD["inputs"])
    refused(tmp_path / "mine.npz", "one array without a name")
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
        archive.writestr("notes.txt", "x")
    refused(tmp_path / "mine.npz", "unknown array of .*: 'inputs'")


def test_a_class_without_samples_to_train_with_is_pointed_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = frame()
    table.loc[0, "label"] = "rare"
    table.to_csv(tmp_path / "mine.csv", index=False)
    for seed in range(6):
        dataset = prepare(
            {
                "source": "table",
                "path": str(tmp_path / "mine.csv"),
                "target": "label",
                "test_fraction": 0.7,
            },
            seed=seed,
        )
        assert set(dataset.train_targets.tolist()) == {0, 1, 2, 3}
    assert "1 classes have too few samples for a test part of 0.7" in caplog.text
