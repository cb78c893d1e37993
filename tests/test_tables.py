"""Tables 1 to 3: their numbers, and their three forms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import make_table
from sgnoise import store
from sgnoise.laws import LOOKS

CRITICAL = 2.2
PARAMETERS = 300


def make_fits(seed: int, *, parameters: int = PARAMETERS) -> pd.DataFrame:
    """Fits of three laws to parameters of two strata; three of the uniform ones failed."""
    rng = np.random.default_rng(seed)
    frames = []
    for law, sse in {"gaussian": 0.02, "stable_shared_alpha": 0.012, "stable": 0.01}.items():
        frames.append(
            pd.DataFrame(
                {
                    "parameter_index": np.arange(parameters + 50),
                    "stratum": np.repeat(["uniform", "per_layer"], [parameters, 50]),
                    "law": law,
                    "alpha": {"gaussian": np.nan, "stable_shared_alpha": 1.625}.get(law, 1.7),
                    "log_likelihood": rng.normal(0, 3, parameters + 50),
                    "held_out_log_likelihood": rng.normal(0, 1, parameters + 50),
                    "sse": sse * rng.gamma(4, 0.25, parameters + 50),
                    "sse_floor": 0.0009,
                    "converged": True,
                }
            )
        )
    fits = pd.concat(frames, ignore_index=True)
    failed = fits["parameter_index"].isin([1, 5]) & (fits["law"] == "stable")
    failed |= (fits["parameter_index"] == 9) & (fits["law"] == "gaussian")
    measures = ["alpha", "log_likelihood", "held_out_log_likelihood", "sse", "sse_floor"]
    fits.loc[failed, measures] = np.nan
    fits.loc[failed, "converged"] = False
    return fits


def write_fits(path: Path, fits: pd.DataFrame, **changes: Any) -> str:
    measured: dict[str, Any] = {
        "run": path.stem,
        "batch_size": 32,
        "bins": 100,
        "span": "full",
        "scaling": "mass",
        "critical_likelihood_ratio": CRITICAL,
    }
    store.write_table(path, fits, store.provenance(study="test", **(measured | changes)))
    return str(path)


def make(tmp_path: Path, kind: str, fits_paths: list[str], names: list[str]) -> dict[str, Path]:
    paths = {form: tmp_path / f"table.{form}" for form in ("csv", "md", "tex")}
    make_table.make_table(
        fits_paths=fits_paths,
        rows=[{"run": name, "dataset": "a_b & 50%", "batch_size": 32} for name in names],
        kind=kind,
        csv_path=str(paths["csv"]),
        markdown_path=str(paths["md"]),
        latex_path=str(paths["tex"]),
    )
    return paths


@pytest.fixture(scope="module")
def fits() -> dict[str, pd.DataFrame]:
    return {"net_1": make_fits(1), "net_2": make_fits(2)}


@pytest.fixture(scope="module", params=["gaussian_stable", "shared_alpha"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tables(
    fits: dict[str, pd.DataFrame], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp(kind)
    paths = [write_fits(folder / f"{name}.parquet", each) for name, each in fits.items()]
    return make(folder, kind, paths, list(fits))


def test_numbers_equal_an_independent_computation(
    fits: dict[str, pd.DataFrame], kind: str, tables: dict[str, Path]
) -> None:
    table = pd.read_csv(tables["csv"]).set_index("run")
    rival = {"gaussian_stable": "gaussian", "shared_alpha": "stable_shared_alpha"}[kind]
    for name, each in fits.items():
        found = table.loc[name]
        wide = each[each["stratum"] == "uniform"].set_index(["parameter_index", "law"]).unstack()
        # The parameters that failed in any law: 1, 5 and 9.
        wide = wide.drop(index=[1, 5, 9])
        assert (found["n"], found["n_flagged"]) == (PARAMETERS - 3, 3)
        for law in make_table.KINDS[kind].laws:
            sse = wide["sse"][law]
            assert found[f"{law}_sse"] == pytest.approx(sse.mean())
            assert found[f"{law}_sse_se"] == pytest.approx(sse.sem())
        assert found["sse_floor"] == pytest.approx(0.0009)
        hits = {
            "stable_wins": wide["sse"]["stable"] < wide["sse"][rival],
            "held_out_wins": wide["held_out_log_likelihood"]["stable"]
            > wide["held_out_log_likelihood"][rival],
        }
        if kind == "gaussian_stable":
            likelihood = wide["log_likelihood"]
            hits["significant"] = 2 * (likelihood["stable"] - likelihood["gaussian"]) > CRITICAL
        else:
            assert found["shared_alpha"] == 1.625
        for share, hit in hits.items():
            interval = stats.binomtest(int(hit.sum()), len(hit)).proportion_ci(method="wilson")
            assert found[share] == pytest.approx(hit.mean())
            assert found[f"{share}_low"] == pytest.approx(interval.low)
            assert found[f"{share}_high"] == pytest.approx(interval.high)


def test_csv_keeps_full_precision(fits: dict[str, pd.DataFrame], tables: dict[str, Path]) -> None:
    table = pd.read_csv(tables["csv"], float_precision="round_trip").set_index("run")
    each = fits["net_1"]
    used = each[(each["stratum"] == "uniform") & ~each["parameter_index"].isin([1, 5, 9])]
    expected = np.mean(used.loc[used["law"] == "stable", "sse"].to_numpy())
    assert table.loc["net_1", "stable_sse"] == expected


def test_markdown_is_a_pipe_table_with_a_caption(kind: str, tables: dict[str, Path]) -> None:
    text = tables["md"].read_text(encoding="utf-8")
    pipes, caption = text.strip().split("\n\n")
    lines = pipes.splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    for title in [LOOKS[law].heading for law in make_table.KINDS[kind].laws]:
        assert f"| {title} |" in lines[0]
    assert "standard error of the mean" in caption
    assert "100 bins from the smallest to the largest draw" in caption


def test_latex_is_balanced_and_escaped(tables: dict[str, Path]) -> None:
    text = tables["tex"].read_text(encoding="utf-8")
    assert text.isascii()
    bare = text.replace(r"\\", "").replace(r"\{", "").replace(r"\}", "").replace(r"\$", "")
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    opened = re.findall(r"\\begin\{(\w+)\}", text)
    closed = re.findall(r"\\end\{(\w+)\}", text)
    assert opened == closed[::-1] == ["table", "tabular"]
    columns = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)[0]
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == len(columns) - 1
        assert not re.search(r"(?<!\\)[%#]", row)
    assert r"a\_b \& 50\%" in rows[1]
    # Outside of mathematics, an underscore or a caret must be escaped.
    outside = re.sub(r"(?<!\\)\$.*?(?<!\\)\$", "", text)
    assert not re.search(r"(?<!\\)[_^]", outside)


@given(text=st.text(st.sampled_from("ab_%&$#{}~^\\αS±–×⁻⁶"), max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_text_is_escaped(text: str) -> None:
    plain, character = "[a-zS-]", r"\\[_%&$#{}]|\\text(?:backslash|asciitilde|asciicircum)\{\}"
    formula = r"\$(?:\\[a-z]+|\^\{[-0-9]+\})\$"
    assert re.fullmatch(f"(?:{plain}|{character}|{formula})*", make_table.escape_latex(text))


def test_fits_measured_in_different_ways_do_not_share_a_table(
    fits: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    paths = [
        write_fits(tmp_path / "net_1.parquet", fits["net_1"]),
        write_fits(tmp_path / "net_2.parquet", fits["net_2"], bins=50),
    ]
    with pytest.raises(ValueError, match="must share bins, span and scaling"):
        make(tmp_path, "gaussian_stable", paths, ["net_1", "net_2"])


def test_a_row_must_be_what_its_file_is(fits: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    path = write_fits(tmp_path / "net_1.parquet", fits["net_1"])
    with pytest.raises(ValueError, match="holds net_1 at batch size 32, but its row is net_2"):
        make(tmp_path, "gaussian_stable", [path], ["net_2"])


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no table 'table_4'"):
        make(tmp_path, "table_4", [], [])


def test_a_run_without_usable_fits_is_refused(
    fits: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    path = write_fits(tmp_path / "net_1.parquet", fits["net_1"].assign(converged=False))
    with pytest.raises(ValueError, match="none of 300 uniformly sampled parameters"):
        make(tmp_path, "gaussian_stable", [path], ["net_1"])
