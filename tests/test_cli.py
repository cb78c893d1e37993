"""The command ``sgnoise fit``: what it reads and prints, and what it says of all else."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sgnoise
from sgnoise import stable
from sgnoise.cli import main, read_samples
from sgnoise.laws import LAWS, LOOKS

ROOT = Path(__file__).parent.parent
CAUCHY = stable.rvs(1.0, 300, rng=np.random.default_rng(0))
NORMAL = np.random.default_rng(1).standard_normal(300)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read_lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The cells of each line that was printed."""
    return [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]


def test_a_column_of_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame({"x": CAUCHY}).to_csv("numbers.csv", index=False)
    assert main(["fit", "numbers.csv"]) == 0
    title, names, *lines = read_lines(capsys)
    assert title == ["numbers.csv: 300 values, location 0"]
    assert names == ["law", "shape", "scale", "log-likelihood", "dAIC", "KS"]
    expected = [look.title for law, look in LOOKS.items() if not LAWS[law].shared]
    assert {line[0] for line in lines} == set(expected)
    gaps = [float(line[-2].replace(",", "")) for line in lines]
    assert gaps[0] == 0
    assert gaps == sorted(gaps)
    fit = sgnoise.fit_stable(CAUCHY)
    line = next(line for line in lines if line[0] == LOOKS["stable"].title)
    assert float(line[1].split()[1]) == pytest.approx(fit.alpha[0], abs=0.01)
    assert float(line[-3].replace(",", "")) == pytest.approx(fit.log_likelihood[0], abs=0.01)


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "txt", "npy", "plain", "lists"])
def test_all_kinds_of_files_hold_the_same_samples(kind: str) -> None:
    table = pd.DataFrame({"a": CAUCHY, "b": NORMAL})
    with_words = table.assign(name="word")
    name = f"numbers.{'csv' if kind == 'plain' else 'parquet' if kind == 'lists' else kind}"
    if kind == "csv":
        with_words.to_csv(name, index=False)
    elif kind == "tsv":
        with_words.to_csv(name, index=False, sep="\t")
    elif kind == "parquet":
        with_words.to_parquet(name)
    elif kind == "lists":
        pd.DataFrame({"word": ["a", "b"], "noise": [CAUCHY, NORMAL]}).to_parquet(name)
    elif kind == "npy":
        np.save(name, table.to_numpy().T)
    else:
        separator = "," if kind == "plain" else " "
        table.to_csv(name, index=False, header=kind == "txt", sep=separator)
    names, values = zip(*read_samples(name), strict=True)
    assert names == {
        "npy": ("row 0", "row 1"),
        "plain": ("column 1", "column 2"),
        "lists": ("noise 0", "noise 1"),
    }.get(kind, ("a", "b"))
    np.testing.assert_allclose(values, [CAUCHY, NORMAL], rtol=1e-12)


def test_rows_and_columns_change_places() -> None:
    np.save("m.npy", np.arange(6.0).reshape(2, 3))
    pd.DataFrame(np.arange(6.0).reshape(2, 3)).to_csv("m.csv", index=False, header=False)
    by_row, by_column = [[0, 1, 2], [3, 4, 5]], [[0, 3], [1, 4], [2, 5]]
    for file in ("m.npy", "m.csv"):
        assert [list(values) for _, values in read_samples(file, rows=True)] == by_row
        assert [list(values) for _, values in read_samples(file, rows=False)] == by_column


def test_columns_may_have_holes_and_be_chosen() -> None:
    Path("holes.csv").write_text("a,b,c\n1,,x\n2,5,y\n3,NaN,\n")
    found = dict(read_samples("holes.csv"))
    assert found.keys() == {"a", "b"}
    assert found["b"].tolist() == [5]
    assert [name for name, _ in read_samples("holes.csv", columns=["b"])] == ["b"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a;b\n1.5;2\n", {"a": [1.5], "b": [2]}),
        (b"a;b\n1,5;2\n-2,5e3;4\n", {"a": [1.5, -2500], "b": [2, 4]}),
        (b"a\tb\n1.5\t2\n", {"a": [1.5], "b": [2]}),
        (b"a,b,\n1,2,\n3,4,\n", {"a": [1, 3], "b": [2, 4]}),
        (b",a\n0,1.5\n1,2.5\n", {"a": [1.5, 2.5]}),
        (b",a\n7,1.5\n1,2.5\n", {"column 1": [7, 1], "a": [1.5, 2.5]}),
        (b"x\n1\nN/A\nnull\n\n-2\n", {"x": [1, -2]}),
        (b"# a,b\n1,2\n", {"a": [1], "b": [2]}),
        (b"# by hand\n# today\na,b\n1,2\n", {"a": [1], "b": [2]}),
        (b"# by hand\n1,2\n", {"column 1": [1], "column 2": [2]}),
        (b'"a b"\r\n"1.5"\r\n', {"a b": [1.5]}),
        ("\ufeffgröße\n1.5\n".encode(), {"größe": [1.5]}),
        ("größe\n1.5\n".encode("utf-16"), {"größe": [1.5]}),
    ],
)
def test_csv_comes_in_dialects(content: bytes, expected: dict[str, list[float]]) -> None:
    Path("numbers.csv").write_bytes(content)
    assert {name: list(values) for name, values in read_samples("numbers.csv")} == expected


def test_two_columns_of_one_name_are_two_samples() -> None:
    Path("numbers.csv").write_text("a,a,b\n1,2,3\n")
    for columns in ([], ["a"]):
        found = [list(values) for _, values in read_samples("numbers.csv", columns=columns)]
        assert found == [[1], [2], [3]][: 2 if columns else 3]


def test_what_numpy_writes_as_text() -> None:
    np.savetxt("numbers.txt", [[1.5, 2.0], [3.0, 4.0]], header="a b")
    found = [(name, list(values)) for name, values in read_samples("numbers.txt")]
    assert found == [("a", [1.5, 3]), ("b", [2, 4])]


def test_text_has_a_type_of_its_own_in_newer_pandas() -> None:
    Path("numbers.csv").write_text("name,x\na,1\nb,2.5\n")
    with pd.option_context("future.infer_string", True):
        assert [(name, list(values)) for name, values in read_samples("numbers.csv")] == [
            ("x", [1, 2.5])
        ]


def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(map(str, NORMAL))))
    assert main(["fit", "-", "--laws", "gaussian,laplace", "--location", "median"]) == 0
    title, _, first, _ = read_lines(capsys)
    assert title[0] == f"standard input: 300 values, location {np.median(NORMAL):.4g}"
    assert first[0] == "Gaussian"


def test_of_many_samples_the_medians(capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(2).standard_normal((50, 200))
    noise[7] = 0
    np.save("noise.npy", noise)
    options = ["--laws", "gaussian,stable,stable_shared_alpha", "--output", "fits.parquet"]
    assert main(["fit", "noise.npy", *options]) == 0
    title, names, *lines = read_lines(capsys)
    assert title == ["noise.npy: 50 samples, medians over them"]
    assert [line[-1] for line in lines] == ["1", "1", "1"]
    assert float(next(line for line in lines if line[0] == "Gaussian")[1]) == pytest.approx(1, 0.05)
    assert names[-3:] == ["best in", "KS", "flagged"]
    table = pd.read_parquet("fits.parquet")
    assert len(table) == 150
    assert (table.groupby("sample")["delta_aic"].min().dropna() == 0).all()
    assert (table.loc[table["sample"] == "row 7", "flag"] == "all_zero").all()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("x\n1\nabc\n3\n", [], "'abc' in row 2 of column 'x' is no number"),
        ("", [], "there is nothing in it"),
        ("x\na\nb\n", [], "there is no column of numbers; it has x; the first line reads a"),
        ("x\n", [], "there is no column of numbers; it has x"),
        ("# x\n", [], "there is nothing in it"),
        ("x,y\n1,2\n1,2,3\n", [], "line 3 has 3 cells, the first line has 2 names"),
        ("price\n1\n", ["--column", "prise"], "no column 'prise'; did you mean 'price'?"),
        ("x\n1\n", ["--laws", "stabel"], "unknown law 'stabel'; did you mean 'stable'?"),
        ("x\n1\n", ["--location", "mean"], "--location is 'mean'; it must be zero, median or a"),
        ("x\n1\n", ["--output", "a.xlsx"], "a.xlsx: the suffix must be one of .csv"),
        ("x\n1\n", ["--output", "no/a.csv"], "no/a.csv: there is no folder no; make it first"),
        ("x,y\n1,2\n3,\n", ["--samples", "rows"], "no cell of a column of numbers may be empty"),
        (
            "x,y\n1,2\n3,\n",
            ["--laws", "stable_shared_alpha"],
            "all samples must have as many values; they have 1 to 2",
        ),
    ],
)
def test_what_cannot_be_used_is_named(
    text: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("numbers.csv").write_text(text)
    assert main(["fit", "numbers.csv", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sgnoise: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_files_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    Path("numbers.xlsx").write_text("")
    np.save("words.npy", np.array(["a"]))
    np.save("objects.npy", np.array([None]), allow_pickle=True)
    np.save("nothing.npy", np.empty((0, 5)))
    Path("cut.npy").write_bytes(Path("nothing.npy").read_bytes()[:20])
    Path("text.npy").write_text("1.5")
    Path("empty.npy").write_text("")
    Path("text.parquet").write_text("1.5")
    Path("latin.csv").write_bytes("größe\n1.5\n".encode("latin-1"))
    for file, message in {
        "none.csv": "none.csv: there is no such file",
        "numbers.xlsx": "the suffix '.xlsx' is unknown; it must be .csv",
        "words.npy": "it must hold real numbers in one or two dimensions",
        "objects.npy": "objects.npy: cannot be read as an NPY file of numbers: Object arrays",
        "nothing.npy": "nothing.npy: there is nothing in it, an array of shape (0, 5)",
        "cut.npy": "cut.npy: cannot be read as an NPY file",
        "text.npy": "text.npy: cannot be read as an NPY file",
        "empty.npy": "empty.npy: cannot be read as an NPY file",
        "text.parquet": "text.parquet: cannot be read as a Parquet file",
        "latin.csv": "latin.csv: not a text in UTF-8 (invalid start byte); save it in that encod",
    }.items():
        assert main(["fit", file]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_parquet_without_pyarrow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pd.DataFrame({"x": NORMAL}).to_parquet("numbers.parquet")
    np.save("numbers.npy", NORMAL)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for arguments, message in {
        ("numbers.parquet",): "numbers.parquet: to read Parquet needs pyarrow: pip install pyarrow",
        ("numbers.npy", "--output", "a.parquet"): "a.parquet: to write Parquet needs pyarrow: pip",
    }.items():
        assert main(["fit", *arguments]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.out == ""


def test_a_forgotten_location_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("shifted.npy", NORMAL + 5)
    assert main(["fit", "shifted.npy", "--laws", "gaussian"]) == 0
    assert "--location median fits about theirs" in capsys.readouterr().err
    for location in ("median", "0", "5"):
        assert main(["fit", "shifted.npy", "--laws", "gaussian", "--location", location]) == 0
        assert capsys.readouterr().err == ""


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in {
        ("--help",): ["fit", "fit laws to numbers in a file"],
        ("fit", "--help"): ["Parquet", "--column", "--location", "examples:", *LAWS],
        ("--version",): [sgnoise.__version__],
    }.items():
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert ended.value.code == 0
        out = capsys.readouterr().out
        assert [word for word in words if word not in out] == []


def test_the_package_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sgnoise", "--version"],
        env={"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"sgnoise {sgnoise.__version__}\n"
