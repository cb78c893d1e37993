"""The theorems beside simulation: verdicts, the simulations, and the table that they make."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from judge_theorems import judge_theorems
from sgnoise import store, theorems, theory
from sgnoise.theorems import FAILS, HOLDS, SCALING, Case, Simulations, Statement, slope_of, verdict
from simulate_exit_axis import simulate_exit_axis
from simulate_exit_time import simulate_exit_time
from simulate_theorems import simulate_theorems, small_jump_positions

# --- verdicts -------------------------------------------------------------------------------------


def cases(*ratios: float, error: float = 0.05) -> list[Case]:
    """One case an epsilon: 0.1, 0.01, ..."""
    return [
        Case(ratio, ratio * (1 - error), ratio * (1 + error), 10.0**-k)
        for k, ratio in enumerate(ratios, start=1)
    ]


@pytest.mark.parametrize(
    ("rule", "ratios", "expected"),
    [
        ("bound", (5.0, 1.2, 0.97), HOLDS),
        ("bound", (0.5, 0.5, 0.5), SCALING),
        ("bound", (5.0, 1.2, 0.5), FAILS),
        ("equation", (1.1, 0.9, 1.0), HOLDS),
        ("equation", (2.0, 2.05, 1.95), SCALING),
        ("equation", (2.0, 4.0, 8.0), FAILS),
        ("empty bound", (9.0, 9.0, 9.0), SCALING),
        ("empty bound", (9.0, 90.0, 900.0), FAILS),
        ("order", (1.0, 3.0, 9.0), HOLDS),
        ("order", (0.5, 0.5, 0.5), FAILS),
    ],
)
def test_verdicts(rule: str, ratios: tuple[float, ...], expected: str) -> None:
    assert verdict(cases(*ratios), rule) == expected  # type: ignore[arg-type]


def test_slope_of_a_power() -> None:
    slope, margin = slope_of(cases(1.0, 10**0.5, 10.0))
    assert slope == pytest.approx(-0.5)
    # Three points a decade apart in epsilon, each within 5 %.
    assert margin == pytest.approx(0.05 / (math.log(10) * math.sqrt(2)), rel=0.01)


# --- the simulations ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study: its two tables of exits, a table of covariances, and the experiments."""
    folder = tmp_path_factory.mktemp("sde")
    common: dict[str, Any] = {"box": 1.0, "step": 0.01, "rho": 0.5, "seed": 3, "threads": 1}
    common["study"] = "test"
    simulate_exit_axis(
        exit_path=str(folder / "exit_axis.parquet"),
        alphas=[0.55, 0.95],
        deltas=[0.5],
        epsilon=0.15,
        paths=1000,
        max_steps=20_000,
        **common,
    )
    simulate_exit_time(
        exit_path=str(folder / "exit_time.parquet"),
        alphas=[0.75, 1.5],
        epsilons=[0.02, 0.05, 0.1],
        gammas=[1.0, 0.8],
        dimensions=[1, 2],
        paths=300,
        max_steps=100_000,
        cutoff=0.1,
        **common,
    )
    covariance = pd.DataFrame(
        {
            "compared": "row sums",
            "where": "at the minimum",
            "variant": "text",
            "measured": [1.0, 2.0, -3.0],
            "formula": [1.05, 2.0, -3.0],
        }
    )
    store.write_table(folder / "covariance.parquet", covariance, store.provenance(study="test"))
    simulate_theorems(
        experiments_path=str(folder / "experiments.parquet"),
        rho=0.5,
        study="test",
        seed=1,
        threads=1,
    )
    return folder


def test_exit_axis_table(study: Path) -> None:
    table = pd.read_parquet(study / "exit_axis.parquet")
    assert len(table) == 2
    first = table[table["alpha_1"] == 0.55].iloc[0]
    assert first["alpha_2"] == pytest.approx(1.05)
    assert first["exits"] == 1000
    assert first["low"] < first["probability"] < first["high"]
    # The paper's one number, which this noise reaches.
    assert first["probability"] == pytest.approx(0.82, abs=0.04)
    ratio = 0.15 ** (-0.5 * 0.5)
    assert first["corollary"] == pytest.approx(ratio / (1 + ratio))
    assert store.read_metadata(study / "exit_axis.parquet")["settings"]["step"] == 0.01


def test_exit_time_table(study: Path) -> None:
    table = pd.read_parquet(study / "exit_time.parquet")
    assert len(table) == 2 * 3 * 2 * 2
    assert (table["censored"] == 0).all()
    assert set(table["simulator"]) == {"euler_maruyama", "by_jumps"}
    assert np.isinf(table.loc[table["dimensions"] == 1, "bound_text"]).all()
    many = table[table["dimensions"] == 2]
    assert (many["bound_text"] > many["low"]).all()
    assert table.loc[table["gamma"] < 1, "corollary_text"].isna().all()
    # Both simulators and the limit of small noise: within the error of 300 paths.
    close = table[table["epsilon"] < 0.1]
    np.testing.assert_allclose(close["mean_exit_time"], close["small_noise_time"], rtol=0.3)
    np.testing.assert_allclose(table["mean_exit_time"], table["jump_mean_exit_time"], rtol=0.3)


def test_exit_axis_needs_a_second_alpha_below_two(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="below 2"):
        simulate_exit_axis(
            exit_path=str(tmp_path / "x.parquet"),
            alphas=[1.7],
            deltas=[0.5],
            epsilon=0.1,
            box=1.0,
            step=0.01,
            paths=10,
            max_steps=10,
            rho=0.5,
            study="test",
            seed=1,
            threads=1,
        )


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
def test_covariance_of_a_small_network(tmp_path: Path) -> None:
    from check_covariance import check_covariance

    path = tmp_path / "covariance.parquet"
    common: dict[str, Any] = {"widths": [3], "decay": 0.02, "batch_size": 8, "alpha": 1.5}
    common |= {"epsilon": 0.01, "rho": 0.5, "study": "test", "seed": 1}
    check_covariance(
        covariance_path=str(path), distances=[0.003], starts=20, times=[1e-4], **common
    )
    table = pd.read_parquet(path)
    size = 4 * 3 + 3 + 3 * 3 + 3

    def error(compared: str, variant: str, where: str) -> float:
        part = table[(table["compared"] == compared) & (table["variant"] == variant)]
        part = part[part["where"].str.contains(where, regex=False)]
        return float(
            np.linalg.norm(part["formula"] - part["measured"]) / np.linalg.norm(part["measured"])
        )

    # At the minimum the text's formula is the covariance itself; the appendix divides by D = 150.
    assert error("row sums", "text", "at the minimum") < 1e-7
    assert error("row sums", "appendix", "at the minimum") == pytest.approx(149 / 150, rel=1e-6)
    assert 0 < error("row sums", "text", "opposite") < 0.01
    # The second term: without cancellation it misses the first order, which the paper drops.
    assert error("change", "text", "opposite") < error("change", "text", "point by point")
    assert error("change", "text", "point by point") > 0.9
    # Right after the jump nothing has moved.
    moments = (table["compared"] == "moment") & (table["variant"] == "without A")
    assert moments.sum() == size * (size - 1) / 2
    assert error("moment", "without A", "t 0.0001") < 0.01
    with pytest.raises(ValueError, match="even"):
        check_covariance(
            covariance_path=str(path), distances=[0.1], starts=3, times=[1.0], **common
        )


def test_between_jumps_follows_the_linear_equation() -> None:
    """Against a sum over small steps, for a Hessian that is not diagonal."""
    from check_covariance import between_jumps

    bend = np.array([[2.0, 0.7], [0.7, 1.0]])
    start, time, steps, diffusion = np.array([1.0, -0.5]), 0.8, 4000, 0.3
    mean, spread = between_jumps(bend, start, time, diffusion)
    step = np.eye(2) - bend * time / steps
    drift, covariance = start, np.zeros((2, 2))
    for _ in range(steps):
        drift = step @ drift
        covariance = step @ covariance @ step.T + np.eye(2) * diffusion * time / steps
    np.testing.assert_allclose(mean, drift, rtol=1e-3)
    np.testing.assert_allclose(spread, covariance, rtol=1e-3)


def test_small_jumps_have_no_first_moment_to_add() -> None:
    """Lemma 3.3 fails: simulated, E[Z_l Z_j] is the product of the flows, without A."""
    start, bend, alpha = np.array([0.5, 0.4]), np.array([1.0, 2.0]), np.array([1.25, 1.25])
    z = small_jump_positions(
        0.5, start, bend, alpha, 0.05, rho=0.5, paths=40_000, rng=np.random.default_rng(1)
    )
    error = 3.3 * float(np.std(z[0] * z[1])) / math.sqrt(40_000)
    flow = float(np.prod(start * np.exp(-bend * 0.5)))
    lemma = theory.cross_moment(0.5, start, bend, alpha, 0.05, rho=0.5)[0, 1]
    assert abs(float(np.mean(z[0] * z[1])) - flow) < error
    assert lemma - flow > 10 * error
    # The positions have the variance of the measure, through the drift.
    variance = theory.small_jump_variance(alpha, 0.05, rho=0.5) * 0.05**2
    expected = variance * (1 - np.exp(-2 * bend * 0.5)) / (2 * bend)
    np.testing.assert_allclose(z.var(axis=1), expected, rtol=0.05)


# --- the table ------------------------------------------------------------------------------------


def judge(study: Path, table: Path, **paths: Path) -> pd.DataFrame:
    """theorems.csv of a study, some of its tables replaced."""
    names = ("exit_axis", "exit_time", "covariance", "experiments")
    tables = {f"{name}_path": study / f"{name}.parquet" for name in names} | paths
    judge_theorems(**{name: str(path) for name, path in tables.items()}, theorems_path=str(table))
    return pd.read_csv(table)


@pytest.fixture(scope="module")
def table(study: Path) -> pd.DataFrame:
    return judge(study, study / "theorems.csv")


def test_every_statement_has_a_verdict(table: pd.DataFrame) -> None:
    assert set(table["verdict"]) <= {HOLDS, SCALING, FAILS}
    assert not table.isna().any().any()
    verdicts = table.groupby("theorem")["verdict"].agg(set)
    assert verdicts["Lemma 3.1"] == {HOLDS}
    assert verdicts["Lemma 3.3"] == {FAILS}
    assert verdicts["Lemma 3.3 without A"] == {HOLDS}
    assert verdicts["Theorem 4.1 (text)"] == {HOLDS}
    assert verdicts["Proposition 3.4 (text)"] == {HOLDS}
    assert verdicts["Corollary 4.4, exponent"] == {FAILS}
    assert verdicts["Equation 12"] == {HOLDS}
    assert verdicts["Corollary 4.2 (text), noise level"] == {HOLDS}
    assert verdicts["Theorem 4.1 (text), noise level"] == {FAILS}


def test_regions_say_what_was_simulated(table: pd.DataFrame) -> None:
    regions = table.groupby("theorem")["region"].agg(list)
    assert regions["Lemma 3.1"][0].endswith("|w|^2/2 + |w|^4/4; 16 starts each")
    assert [region.split(", alpha")[0] for region in regions["Proposition 3.2"]] == [
        "rho 0.5, theta < 1 - rho",
        "rho 0.9, theta > 1 - rho",
    ]
    assert regions["Equation 12"] == [
        "pairs (0.55, 1.05), (0.75, 1.25), (1.0, 1.5), epsilon 0.005 to 0.04, rho 0.5"
    ]
    assert (
        "no decay: alpha 0.75 to 1.5, epsilon 0.02 to 0.1, gamma 1, N 1 to 2"
        in (regions["Theorem 4.1 (text)"])
    )


def test_what_a_study_cannot_tell_is_left_out(study: Path, tmp_path: Path) -> None:
    """One coordinate, two epsilons, no decay: no finite bound and no exponent."""
    grid = pd.read_parquet(study / "exit_time.parquet")
    few = grid[(grid["dimensions"] == 1) & (grid["epsilon"] > 0.02) & (grid["gamma"] == 1)]
    store.write_table(tmp_path / "few.parquet", few, store.provenance(study="test"))
    found = judge(study, tmp_path / "theorems.csv", exit_time_path=tmp_path / "few.parquet")
    names = set(found["theorem"])
    assert "Theorem 4.1, exponent (text)" not in names
    assert "Theorem 4.3 (text)" not in names
    assert {"Theorem 4.1 (text)", "Lemma 3.1", "Equation 12"} <= names


def test_a_theorem_is_one_function(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lighter_tails_leave_later(data: Simulations) -> Iterator[Statement]:
        rows = theorems.records(data.experiment("basin"))
        times = {found["alpha"]: theorems.simulated_case(found) for found in rows}
        yield Statement(
            theorem="A further theorem",
            statement="The mean exit time grows with alpha.",
            compared="simulated mean exit time, alpha 1.75 / 0.75",
            region="epsilon 0.03",
            rule="order",
            cases=[theorems.quotient_case(times[1.75], times[0.75], 0.03)],
        )

    monkeypatch.setattr(theorems, "THEOREMS", (*theorems.THEOREMS, lighter_tails_leave_later))
    last = judge(study, tmp_path / "theorems.csv").iloc[-1]
    assert last["theorem"] == "A further theorem"
    assert last["verdict"] == HOLDS


def test_an_experiment_that_was_not_run_is_named(study: Path, tmp_path: Path) -> None:
    experiments = pd.read_parquet(study / "experiments.parquet")
    store.write_table(
        tmp_path / "few.parquet",
        experiments[experiments["experiment"] != "pair"],
        store.provenance(study="test"),
    )
    with pytest.raises(ValueError, match="no experiment 'pair' was simulated, only flow, "):
        judge(study, tmp_path / "theorems.csv", experiments_path=tmp_path / "few.parquet")


def test_a_step_down_compares_with_the_constant_rate() -> None:
    rows = [
        {"alpha": alpha, "epsilon": 0.1, "milestone": milestone, "value": value}
        for alpha, milestone, value in (
            (0.75, math.nan, 10.0),
            (0.75, 3.0, 8.0),
            (1.75, math.nan, 100.0),
            (1.75, 3.0, 400.0),
        )
    ]
    experiments = pd.DataFrame(rows).assign(experiment="step")
    experiments = experiments.assign(
        low=experiments["value"] * 0.99, high=experiments["value"] * 1.01
    )
    nothing = pd.DataFrame()
    data = Simulations(nothing, nothing, nothing, experiments)
    below, above = (statement.row() for statement in theorems.step_down(data))
    assert (below["ratio"], below["verdict"]) == (pytest.approx(0.8), FAILS)
    assert (above["ratio"], above["verdict"]) == (pytest.approx(4.0), HOLDS)


def test_exits_by_the_lower_alpha_grow_as_the_noise_shrinks() -> None:
    """Odds that are the power alpha_1 - alpha_2 of epsilon, exactly."""
    rows = []
    for epsilon in (0.01, 0.1):
        ratio = epsilon ** (0.8 - 1.2)
        share = ratio / (1 + ratio)
        rows.append(
            {
                "experiment": "pair",
                "alpha": 0.8,
                "alpha_2": 1.2,
                "epsilon": epsilon,
                "rho": 0.5,
                "value": share,
                "low": share - 1e-4,
                "high": share + 1e-4,
            }
        )
    nothing = pd.DataFrame()
    data = Simulations(nothing, nothing, nothing, pd.DataFrame(rows))
    (equation,) = theorems.equation_12(data)
    assert equation.cases[0].ratio == pytest.approx(1)
    assert equation.row()["verdict"] == HOLDS
    values, exponent = theorems.corollary_4_4(data)
    assert values.region == "pairs (0.8, 1.2), epsilon 0.01 to 0.1, rho 0.5"
    assert exponent.cases[0].ratio == pytest.approx(0.5)
    assert exponent.row()["verdict"] == FAILS


@pytest.mark.parametrize(
    ("formula", "expected"),
    [([2.0, -4.0], (2.0, 2.0)), ([2.0, 4.0], (0.0, math.inf)), ([2.0, -1.0], (0.8, 1.25))],
)
def test_vectors_are_compared_by_regression_either_way(
    formula: list[float], expected: tuple[float, float]
) -> None:
    covariance = pd.DataFrame(
        {
            "compared": "change",
            "where": "away",
            "variant": "text",
            "measured": [1.0, -2.0],
            "formula": formula,
        }
    )
    nothing = pd.DataFrame()
    (statement,) = theorems.proposition_3_4_second_term(
        Simulations(nothing, nothing, covariance, nothing)
    )
    assert tuple(case.ratio for case in statement.cases) == pytest.approx(expected)
    assert statement.region == "away, 2 values"
