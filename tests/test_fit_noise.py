"""From synthetic noise of known law to the fits and to alpha by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import aggregate_layers
import fit_noise
import simulate_control_gradients
import simulate_control_noise
from sgnoise import controls, fitting, goodness, store
from sgnoise.laws import LAWS

DRAWS = 400
SETTINGS: dict[str, Any] = {
    "bins": 50,
    "span": "full",
    "scaling": "mass",
    "held_out_fraction": 0.5,
    "study": "test",
    "run": "control",
    "batch_size": 8,
    "threads": 2,
}


def simulate(path: Path, **changes: Any) -> Path:
    call: dict[str, Any] = {
        "law": "stable",
        "parameters": {"alpha": 1.6},
        "count": 620,
        "draws": DRAWS,
        "batch_size": 8,
        "study": "test",
        "run": "control",
        "seed": 1,
    }
    simulate_control_noise.simulate_control_noise(noise_path=str(path), **(call | changes))
    return path


def replace_rows(path: Path, rows: dict[int, Any]) -> None:
    """Overwrite the noise of some parameters."""
    table = pq.read_table(path)
    noise = store.matrix(table, "noise").copy()
    for row, values in rows.items():
        noise[row] = values
    table = table.set_column(table.num_columns - 1, "noise", store.list_column(noise))
    store.write_table(path, table, store.read_metadata(path))


@pytest.fixture(scope="module")
def noise_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = simulate(tmp_path_factory.mktemp("noise") / "b8.parquet")
    atom = store.matrix(pq.read_table(path), "noise")[2].copy()
    atom[::4] = 0.0
    broken = atom.copy()
    broken[3] = np.nan
    replace_rows(path, {0: 0.0, 1: broken, 2: atom, 3: 1.0})
    return path


@pytest.fixture(scope="module")
def fits_path(noise_path: Path) -> Path:
    path = noise_path.with_name("fits.parquet")
    fit_noise.fit_noise(
        noise_path=str(noise_path), fits_path=str(path), laws=list(LAWS), **SETTINGS
    )
    return path


@pytest.fixture(scope="module")
def fits(fits_path: Path) -> pd.DataFrame:
    return pd.read_parquet(fits_path)


def test_there_is_a_row_for_every_parameter_and_law(fits: pd.DataFrame) -> None:
    assert len(fits) == 620 * len(LAWS)
    assert not fits.duplicated(["parameter_index", "law"]).any()
    assert tuple(fits.columns[:7]) == store.PARAMETER_COLUMNS
    assert set(fits["law"]) == set(LAWS)


def test_estimators_of_the_literature_stand_beside_the_stable_fit(fits: pd.DataFrame) -> None:
    columns = ["alpha_log_moment", "alpha_quantile"]
    assert fits.loc[fits["law"] != "stable", columns].isna().all().all()
    fitted = fits[(fits["law"] == "stable") & (fits["flag"] == "")]
    for column in columns:
        assert abs((fitted[column] - fitted["alpha"]).median()) < 0.1, column


def test_rows_that_cannot_be_fitted_say_why(fits: pd.DataFrame) -> None:
    for index, flag in {0: "all_zero", 1: "not_finite", 3: "constant"}.items():
        rows = fits[fits["parameter_index"] == index]
        assert set(rows["flag"]) == {flag}
        assert not rows["converged"].any()
        assert rows[["scale", "log_likelihood", "sse", "ks"]].isna().all(axis=None)
        assert rows["held_out_log_likelihood"].isna().all()
    fine = fits[~fits["parameter_index"].isin([0, 1, 3])]
    assert fine["converged"].all()
    assert fine[["scale", "sse", "ks", "held_out_log_likelihood"]].notna().all(axis=None)


def test_an_atom_at_zero_is_reported(fits: pd.DataFrame) -> None:
    rows = fits[fits["parameter_index"] == 2]
    assert np.allclose(rows["zero_fraction"], 0.25)
    assert rows["converged"].all()


def test_parameters_of_other_laws_are_null(fits_path: Path) -> None:
    table = pq.read_table(fits_path, filters=[("law", "==", "gaussian")])
    assert table["alpha"].null_count == len(table)
    assert table["degrees_of_freedom"].type == pa.float64()


def test_the_planted_law_is_found(fits: pd.DataFrame) -> None:
    stable = fits[(fits["law"] == "stable") & fits["converged"]]
    error = stable["alpha"].to_numpy().std() / np.sqrt(617)
    assert stable["alpha"].mean() == pytest.approx(1.6, abs=4 * error)
    shared = fits.loc[fits["law"] == "stable_shared_alpha", "alpha"].dropna().unique()
    assert shared == pytest.approx([1.6], abs=0.02)
    # Batches of 8: the mean of SαS values is SαS with a scale 8^(1/alpha - 1) times as large.
    truth = controls.parameter_scales(620) * 8 ** (1 / 1.6 - 1)
    relative = stable["scale"] / truth[stable["parameter_index"]]
    assert relative.mean() == pytest.approx(1, abs=0.01)


def test_measures_agree_with_a_computation_row_by_row(fits: pd.DataFrame, noise_path: Path) -> None:
    noise = store.matrix(pq.read_table(noise_path), "noise").astype(np.float64)
    stable = fits[fits["law"] == "stable"].set_index("parameter_index")
    gaussian = fits[fits["law"] == "gaussian"].set_index("parameter_index")
    # The first block, across its end, and the last row.
    for row in (10, 499, 500, 619):
        fit = fitting.fit_stable(noise[row : row + 1])
        first_half = fitting.fit_stable(noise[row : row + 1, : DRAWS // 2])
        found = stable.loc[row]
        counts, edges = np.histogram(noise[row], bins=50)
        mass = np.diff(fit.cdf(edges[None])[0])
        assert found["alpha"] == pytest.approx(fit.alpha[0])
        assert found["sse"] == pytest.approx(np.sum((counts / DRAWS - mass) ** 2), rel=1e-6)
        assert found["sse_floor"] == pytest.approx(np.sum(mass * (1 - mass)) / DRAWS, rel=1e-6)
        assert found["held_out_log_likelihood"] == pytest.approx(
            first_half.logpdf(noise[row : row + 1, DRAWS // 2 :]).mean()
        )
        assert found["aic"] == pytest.approx(4 - 2 * fit.log_likelihood[0])
        assert found["bic"] == pytest.approx(2 * np.log(DRAWS) - 2 * fit.log_likelihood[0])
        law = stats.norm(scale=gaussian.loc[row, "scale"])
        assert gaussian.loc[row, "ks"] == pytest.approx(stats.kstest(noise[row], law.cdf)[0])
        assert gaussian.loc[row, "log_likelihood"] == pytest.approx(
            law.logpdf(noise[row]).sum(), rel=1e-6
        )


def test_fits_say_how_they_were_made(fits_path: Path) -> None:
    found = store.read_metadata(fits_path)["settings"]
    assert {name: found[name] for name in ("run", "batch_size", "bins", "span", "scaling")} == {
        name: SETTINGS[name] for name in ("run", "batch_size", "bins", "span", "scaling")
    }
    assert found["draws"] == DRAWS
    assert found["critical_likelihood_ratio"] == goodness.null_quantile(DRAWS)


def test_an_unknown_law_is_refused(noise_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown law 'cauchy'"):
        fit_noise.fit_noise(
            noise_path=str(noise_path),
            fits_path=str(tmp_path / "fits.parquet"),
            laws=["cauchy"],
            **SETTINGS,
        )
    assert not list(tmp_path.iterdir())


# --- layers -------------------------------------------------------------------------------------


def test_layers_of_a_control(fits_path: Path, fits: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "layers.parquet"
    aggregate_layers.aggregate_layers(
        fits_paths=[str(fits_path)] * 2,
        batch_sizes=[8, 32],
        layers_path=str(path),
        study="test",
        run="control",
    )
    both = pd.read_parquet(path)
    assert list(both["batch_size"].unique()) == [8, 32]
    layers = both[both["batch_size"] == 8]
    assert list(layers["layer_index"]) == list(range(controls.LAYERS))
    assert layers["layer"].iloc[3] == "stable(alpha=1.6).3"
    assert layers["n"].sum() == 617
    assert list(layers["n_flagged"]) == [3] + [0] * 9
    stable = fits[(fits["law"] == "stable") & fits["converged"]]
    groups = stable.groupby("layer_index")["alpha"]
    np.testing.assert_allclose(layers["alpha_mean"], groups.mean())
    np.testing.assert_allclose(layers["alpha_se"], groups.sem())
    np.testing.assert_allclose(layers["alpha_q25"], groups.quantile(0.25))
    # One alpha in all parameters: what is left is far below the errors of about 0.08.
    assert stable["alpha_se"].mean() > 0.06
    assert layers["alpha_sd_between"].median() < 0.03
    assert store.read_metadata(path)["settings"]["run"] == "control"


def layer_fits(**changes: Any) -> pd.DataFrame:
    count = 30
    rng = np.random.default_rng(5)
    columns = {
        "layer": "conv",
        "layer_index": np.int16(2),
        "layer_type": "Conv2d",
        "tensor": "weight",
        "offset": np.arange(count),
        "alpha": rng.uniform(1.4, 1.8, count),
        "alpha_se": 0.05,
        "converged": True,
        "flag": "",
    }
    return pd.DataFrame(columns | changes)


def test_a_parameter_in_both_strata_counts_once() -> None:
    once = layer_fits()
    twice = pd.concat([once, once.iloc[:10]])
    pd.testing.assert_frame_equal(
        aggregate_layers.layer_table(once), aggregate_layers.layer_table(twice)
    )


def test_a_layer_with_few_fits_has_counts_only() -> None:
    failed = np.arange(30) >= aggregate_layers.MINIMUM_FITS - 1
    fits = layer_fits(converged=~failed, flag=np.where(failed, "all_zero", ""))
    row = aggregate_layers.layer_table(fits).iloc[0]
    assert (row["n"], row["n_flagged"]) == (9, 21)
    assert row.filter(like="alpha_").isna().all()


def test_a_fit_at_the_lower_end_is_flagged_and_stays() -> None:
    lowest = np.arange(30) == 0
    fits = layer_fits(
        alpha=np.where(lowest, 0.5, 1.6),
        alpha_se=np.where(lowest, np.nan, 0.05),
        flag=np.where(lowest, "alpha_below_range", ""),
    )
    row = aggregate_layers.layer_table(fits).iloc[0]
    assert (row["n"], row["n_flagged"]) == (30, 1)
    assert row["alpha_mean"] == pytest.approx(fits["alpha"].mean())


# --- controls -----------------------------------------------------------------------------------

UNIT_LAWS: dict[str, tuple[dict[str, float], Any]] = {
    "gaussian": ({}, stats.norm()),
    "laplace": ({}, stats.laplace()),
    "student_t": ({"degrees_of_freedom": 3.0}, stats.t(3)),
    "stable": ({"alpha": 1.0}, stats.cauchy()),
}


@pytest.mark.parametrize("law", UNIT_LAWS)
def test_single_values_follow_the_law(law: str) -> None:
    parameters, truth = UNIT_LAWS[law]
    values = controls.draw_means(law, parameters, (4, 5000), 1, rng=np.random.default_rng(9))
    assert stats.kstest(values.ravel(), truth.cdf).pvalue > 0.01


@pytest.mark.parametrize("law", UNIT_LAWS)
def test_means_follow_the_law_of_means(law: str) -> None:
    parameters, truth = UNIT_LAWS[law]
    size = (1, 40_000)
    found = controls.draw_means(law, parameters, size, 6, rng=np.random.default_rng(10))[0]
    means = truth.rvs((size[1], 6), random_state=np.random.default_rng(11)).mean(axis=1)
    assert stats.ks_2samp(found, means).pvalue > 0.01
    # A scale that is off by 5 % would have been noticed.
    assert stats.ks_2samp(1.05 * found, means).pvalue < 0.01


@given(count=st.integers(controls.LAYERS, 400))
@settings(max_examples=20, deadline=None)
def test_a_control_is_laid_out_in_ten_layers(count: int) -> None:
    table = controls.parameter_table("stable", {"alpha": 1.7}, count)
    sizes = table.groupby("layer_index").size()
    assert len(sizes) == controls.LAYERS
    assert sizes.max() - sizes.min() <= 1
    assert not table.duplicated(["layer", "tensor", "offset"]).any()
    assert (table.groupby("layer")["offset"].min() == 0).all()


def test_the_law_of_a_control_stands_in_its_layers() -> None:
    for law, (parameters, _) in UNIT_LAWS.items():
        table = controls.parameter_table(law, parameters, 10)
        assert controls.law_of_layer(table["layer"].iloc[0], table["layer_type"].iloc[0]) == law
    assert controls.law_of_layer("layer1.0.conv1", "Conv2d") == ""


@pytest.mark.parametrize(
    ("law", "parameters", "message"),
    [
        ("cauchy", {}, "no control with the law 'cauchy'"),
        ("stable", {}, "takes alpha; given: none"),
        ("gaussian", {"alpha": 2.0}, "takes no parameters; given: alpha"),
    ],
)
def test_a_wrong_law_is_refused(
    law: str, parameters: dict[str, float], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path / "noise.parquet", law=law, parameters=parameters)
    assert not list(tmp_path.iterdir())


def test_control_noise_depends_on_its_seed_only(tmp_path: Path) -> None:
    first, second, other = (
        store.matrix(pq.read_table(simulate(tmp_path / f"{seed}.parquet", seed=seed % 2)), "noise")
        for seed in (0, 2, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_control_gradients_are_a_finite_data_set(tmp_path: Path) -> None:
    path = tmp_path / "gradients.parquet"
    simulate_control_gradients.simulate_control_gradients(
        gradients_path=str(path),
        law="gaussian",
        parameters={},
        count=520,
        samples=300,
        study="test",
        run="control",
        seed=3,
    )
    table = pq.read_table(path)
    gradients = store.matrix(table, "gradient")
    assert gradients.shape == (520, 300)
    assert gradients.dtype == np.float32
    scales = controls.parameter_scales(520)
    assert (gradients.std(axis=1) / scales).mean() == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(
        table["full_gradient"].to_numpy(), gradients.mean(axis=1, dtype=np.float64), rtol=1e-6
    )
    assert [field.name for field in table.schema][:7] == list(store.PARAMETER_COLUMNS)
    assert store.read_metadata(path)["settings"]["mode"] == "per_sample"
