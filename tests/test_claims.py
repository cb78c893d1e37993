"""Each claim's verdict follows from planted numbers, in every direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import collect_claims
from sgnoise import claims, controls, store, theorems

COUNT = 200


def make_noise(
    run: str = "net",
    *,
    batch_size: int = 32,
    law: str = "",
    seed: int = 0,
    sse: dict[str, float] | None = None,
    wins: float = 1.0,
    significant: float = 1.0,
    held_out: dict[str, float] | None = None,
    alpha: float = 1.6,
    spread: float = 0.0,
) -> claims.NoiseFits:
    """Fits with planted means: SSE and held-out likelihood by law, shares, alpha and its spread."""
    rng = np.random.default_rng([seed, batch_size])
    sse = {"gaussian": 0.02, "stable": 0.01, "stable_shared_alpha": 0.015} | (sse or {})
    held_out = held_out or {}
    index = np.arange(COUNT)
    alphas = np.minimum(alpha + np.hypot(0.03, spread) * rng.standard_normal(COUNT), 2.0)
    noise_of_sse = 1 + 0.1 * rng.standard_normal(COUNT)
    frames = []
    for name in claims.LAWS:
        sse_of_law = sse.get(name, 0.01) * noise_of_sse
        if name == "stable":
            lost = index >= round(wins * COUNT)
            sse_of_law = np.where(lost, 1.01 * sse["gaussian"] * noise_of_sse, sse_of_law)
        likelihood = np.zeros(COUNT)
        if name == "stable":
            likelihood[: round(significant * COUNT)] = 5.0
        frames.append(
            pd.DataFrame(
                {
                    "parameter_index": index,
                    "stratum": "uniform",
                    "law": name,
                    "alpha": alphas if name == "stable" else np.nan,
                    "alpha_se": 0.03 if name == "stable" else np.nan,
                    "log_likelihood": likelihood,
                    "held_out_log_likelihood": held_out.get(name, 0.0)
                    + 0.001 * rng.standard_normal(COUNT),
                    "sse": sse_of_law,
                    "converged": True,
                }
            )
        )
    return claims.NoiseFits(run, law, batch_size, 2.5, pd.concat(frames, ignore_index=True))


def make_layers(run: str, means: dict[str, float], *, seed: int = 0) -> claims.LayerStatistics:
    rng = np.random.default_rng(seed)
    layers = pd.DataFrame({"layer": list(means), "alpha_mean": list(means.values())})
    layers["alpha_mean"] += 0.002 * rng.standard_normal(len(layers))
    layers["layer_index"] = np.arange(len(layers))
    return claims.LayerStatistics(run, 32, layers)


def make_theories(gains: dict[str, float], batch_size: int) -> pd.DataFrame:
    """Log-likelihood ratios of the Lévy law to the better of the other two, known to ± 2."""
    rows = []
    for dataset, gain in gains.items():
        for theory, ratio in {"levy": 0.0, "diffusion": 5.0 + gain, "kramers": gain}.items():
            rows.append(
                {
                    "dataset": dataset,
                    "minimum": 0,
                    "batch_size": batch_size,
                    "theory": theory,
                    "log_likelihood_ratio": ratio,
                    "log_likelihood_ratio_low": ratio - 2,
                    "log_likelihood_ratio_high": ratio + 2,
                    "exponent": 1.5,
                    "exponent_low": 1.3,
                    "exponent_high": 1.7,
                    "noise_alpha": 1.6,
                    "noise_alpha_low": 1.4,
                    "noise_alpha_high": 1.8,
                }
            )
    names = ["dataset", "minimum", "batch_size", "theory", "log_likelihood_ratio"]
    names += ["log_likelihood_ratio_low", "log_likelihood_ratio_high"]
    for quantity in ("exponent", "noise_alpha"):
        names += [quantity, f"{quantity}_low", f"{quantity}_high"]
    return pd.DataFrame(rows, columns=names)


def make_exits(probability: float, half: float = 0.01) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "alpha_1": [0.55, 0.95],
            "alpha_2": [1.05, 1.15],
            "probability": [probability, 0.6],
            "low": [probability - half, 0.58],
            "high": [probability + half, 0.62],
        }
    )


NOTHING = claims.Measurements(
    networks=[],
    controls=[],
    layers=[],
    theories=make_theories({}, 32),
    theorems=pd.DataFrame({"theorem": [], "verdict": []}),
    exit_axis=pd.DataFrame(
        {"alpha_1": [], "alpha_2": [], "probability": [], "low": [], "high": []}
    ),
)


def data(**parts: Any) -> claims.Measurements:
    return replace(NOTHING, **parts)


GAUSSIAN = make_noise("control-gaussian", law="gaussian", wins=0.6, significant=0.05)
ALIKE = make_noise("control-stable", law="stable", seed=1)

# For each claim about networks: one in which it holds, one in which it does not, and controls.
NETWORKS: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any], list[Any]]] = {
    "sse_wins": (claims.sse_wins, {"wins": 0.98}, {"wins": 0.95}, []),
    "sse_wins_beyond_controls": (
        claims.sse_wins_beyond_controls,
        {"wins": 0.98},
        {"wins": 0.65},
        [GAUSSIAN],
    ),
    "gaussian_rejected": (
        claims.gaussian_rejected,
        {"significant": 0.7},
        {"significant": 0.52},
        [GAUSSIAN],
    ),
    "sse_ratio": (claims.sse_ratio, {}, {"sse": {"stable": 0.021}}, []),
    "own_alpha_fits_better": (
        claims.own_alpha_fits_better,
        {},
        {"sse": {"stable_shared_alpha": 0.009}},
        [],
    ),
    "own_alpha_predicts_better": (
        claims.own_alpha_predicts_better,
        {"held_out": {"stable": 0.01}},
        {"held_out": {"stable": -0.01}},
        [ALIKE],
    ),
    "one_alpha_no_better_than_gaussian": (
        claims.one_alpha_no_better_than_gaussian,
        {"sse": {"stable_shared_alpha": 0.022}},
        {"sse": {"stable_shared_alpha": 0.019}},
        [],
    ),
    "stable_beats_student_t": (
        claims.stable_beats_student_t,
        {"held_out": {"stable": 0.01}},
        {"held_out": {"student_t": 0.01}},
        [ALIKE],
    ),
    "alpha_differs": (claims.alpha_differs, {"spread": 0.1}, {"spread": 0.0}, [ALIKE]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_verdict_about_networks(name: str) -> None:
    measure, holds, fails, yardsticks = NETWORKS[name]
    good, bad = make_noise("good", seed=2, **holds), make_noise("bad", seed=3, **fails)
    for networks, verdict in (
        ([good], claims.REPRODUCED),
        ([good, bad], claims.PARTLY),
        ([bad], claims.NOT_REPRODUCED),
        ([], claims.NOT_TESTED),
    ):
        found = measure(data(networks=networks, controls=yardsticks))
        assert (found.claim, found.verdict) == (name, verdict)
        assert found.low <= found.measured_value <= found.high or not networks
    for control in yardsticks:
        assert control.title in found.details


def test_sse_wins_are_counted() -> None:
    found = claims.sse_wins(data(networks=[make_noise("a", wins=0.98), make_noise("b", wins=0.9)]))
    assert (found.measured_value, found.low, found.high) == pytest.approx((0.94, 0.9, 0.98))
    assert "lowest b (B = 32), highest a (B = 32)" in found.details


@pytest.mark.parametrize(
    ("wins", "verdict"), [(0.99, claims.NOT_REPRODUCED), (0.8, claims.REPRODUCED)]
)
def test_what_a_win_shows(wins: float, verdict: str) -> None:
    student = make_noise("control-t", law="student_t", wins=wins)
    found = claims.sse_wins_identify_the_law(data(controls=[GAUSSIAN, ALIKE, student]))
    assert found.verdict == verdict
    assert found.measured_value == pytest.approx(wins)


def test_spread_counts_only_beyond_that_of_the_controls() -> None:
    networks = [make_noise(spread=0.1)]
    wide = make_noise("control-wide", law="student_t", spread=0.2)
    other_batch = make_noise("control-wide", law="student_t", spread=0.2, batch_size=8)
    verdict = claims.alpha_differs(data(networks=networks, controls=[wide])).verdict
    assert verdict == claims.NOT_REPRODUCED
    verdict = claims.alpha_differs(data(networks=networks, controls=[other_batch])).verdict
    assert verdict == claims.REPRODUCED


@pytest.mark.parametrize(
    ("slope", "verdict"),
    [(-0.3, claims.REPRODUCED), (0.0, claims.NOT_REPRODUCED), (0.3, claims.NOT_REPRODUCED)],
)
def test_alpha_by_depth(slope: float, verdict: str) -> None:
    means = {f"layer{index}": 1.7 + slope * index / 9 for index in range(10)}
    found = claims.alpha_falls_with_depth(data(layers=[make_layers("net", means)]))
    assert found.verdict == verdict
    assert found.measured_value == pytest.approx(slope, abs=0.01)


@pytest.mark.parametrize(
    ("raise_", "verdict"), [(0.2, claims.REPRODUCED), (-0.1, claims.NOT_REPRODUCED)]
)
def test_alpha_in_front_of_a_hard_sigmoid(raise_: float, verdict: str) -> None:
    means = {f"features.{index}.block.0.0": 1.5 for index in range(6)}
    means |= {f"features.{index}.block.2.fc2": 1.5 + raise_ for index in range(6)}
    layers = [make_layers("mobilenet", means)]
    found = claims.hard_sigmoid_raises_alpha(data(layers=layers))
    assert found.verdict == verdict
    assert found.measured_value == pytest.approx(raise_, abs=0.01)
    # The figure's other half is about networks without such layers.
    assert claims.alpha_falls_with_depth(data(layers=layers)).verdict == claims.NOT_TESTED


@pytest.mark.parametrize(
    ("start", "end", "verdict"),
    [
        (1.6, 1.6, claims.REPRODUCED),
        (1.5, 1.8, claims.NOT_REPRODUCED),
        (1.99, 1.99, claims.NOT_TESTED),
    ],
)
def test_alpha_and_the_batch_size(start: float, end: float, verdict: str) -> None:
    networks = [
        make_noise(batch_size=8, alpha=start),
        make_noise(batch_size=64, alpha=end),
    ]
    control = [
        make_noise("control-t", law="student_t", batch_size=size, alpha=1.4) for size in (8, 64)
    ]
    found = claims.alpha_keeps_with_batch_size(data(networks=networks, controls=control))
    assert found.verdict == verdict
    assert "control-t" in found.details
    if verdict != claims.NOT_TESTED:
        assert found.measured_value == pytest.approx(end - start, abs=0.02)


@pytest.mark.parametrize(
    ("gains", "large", "small"),
    [
        ({"a": 5.0, "b": 2.1}, claims.REPRODUCED, claims.NOT_REPRODUCED),
        ({"a": 5.0, "b": 1.9}, claims.PARTLY, claims.REPRODUCED),
        ({"a": -5.0, "b": 0.0}, claims.NOT_REPRODUCED, claims.PARTLY),
        ({"a": np.nan}, claims.NOT_TESTED, claims.NOT_TESTED),
    ],
)
def test_escape_theories(gains: dict[str, float], large: str, small: str) -> None:
    found = claims.levy_escape(data(theories=make_theories(gains, 32)))
    assert found.verdict == large
    assert claims.levy_escape_small_batch(data(theories=make_theories(gains, 8))).verdict == small
    other = claims.levy_escape(data(theories=make_theories(gains, 16)))
    assert other.verdict == claims.NOT_TESTED
    known = [gain for gain in gains.values() if np.isfinite(gain)]
    if known:
        assert (found.low, found.high) == pytest.approx((min(known), max(known)))


def test_a_further_theory_of_escapes_changes_no_claim_of_the_paper() -> None:
    table = make_theories({"a": 5.0, "b": 1.9}, 32)
    further = table[table["theory"] == "kramers"].assign(
        theory="quadratic", log_likelihood_ratio=-50.0, log_likelihood_ratio_low=-60.0
    )
    both = data(theories=pd.concat([table, further], ignore_index=True))
    for measure in (claims.levy_escape, claims.escape_exponent_is_alpha):
        assert measure(both) == measure(data(theories=table))


@pytest.mark.parametrize(
    ("exponents", "verdict"),
    [
        ([1.5, 1.9], claims.REPRODUCED),
        ([1.5, 6.0], claims.PARTLY),
        ([0.9, 6.0], claims.NOT_REPRODUCED),
        ([np.nan], claims.NOT_TESTED),
    ],
)
def test_the_exponent_and_alpha(exponents: list[float], verdict: str) -> None:
    theories = make_theories({f"set {number}": 1.0 for number in range(len(exponents))}, 8)
    for number, exponent in enumerate(exponents):
        rows = theories["dataset"] == f"set {number}"
        theories.loc[rows, "exponent"] = exponent
        theories.loc[rows, "exponent_low"] = exponent - 0.2
        theories.loc[rows, "exponent_high"] = exponent + 0.2
    found = claims.escape_exponent_is_alpha(data(theories=theories))
    assert found.verdict == verdict
    if verdict != claims.NOT_TESTED:
        assert found.high == pytest.approx(max(exponents) - 1.6)


@pytest.mark.parametrize(
    ("probability", "verdict"),
    [
        (0.85, claims.REPRODUCED),
        (0.95, claims.PARTLY),
        (0.55, claims.PARTLY),
        (0.5, claims.NOT_REPRODUCED),
    ],
)
def test_exit_probability(probability: float, verdict: str) -> None:
    found = claims.exit_probability(data(exit_axis=make_exits(probability)))
    assert found.verdict == verdict
    assert found.measured_value == probability
    every = claims.exit_lower_alpha(data(exit_axis=make_exits(probability)))
    assert every.verdict == (claims.REPRODUCED if probability > 0.51 else claims.PARTLY)


@pytest.mark.parametrize(
    ("verdicts", "verdict", "share"),
    [
        (["holds", "holds"], claims.REPRODUCED, 1.0),
        (["holds", "fails"], claims.PARTLY, 0.5),
        (["holds as scaling only", "fails"], claims.PARTLY, 0.0),
        (["fails", "fails"], claims.NOT_REPRODUCED, 0.0),
    ],
)
def test_theory(verdicts: list[str], verdict: str, share: float) -> None:
    found = claims.theory_holds(data(theorems=pd.DataFrame({"verdict": verdicts})))
    assert (found.verdict, found.measured_value) == (verdict, share)


def test_the_verdicts_on_theorems_are_those_that_are_counted() -> None:
    words = (theorems.HOLDS, theorems.SCALING, theorems.FAILS)
    table = pd.DataFrame({"verdict": words})
    found = claims.theory_holds(data(theorems=table))
    assert (found.verdict, found.measured_value) == (claims.PARTLY, pytest.approx(1 / 3))
    only_scaling = data(theorems=table[table["verdict"] == theorems.SCALING])
    assert claims.theory_holds(only_scaling).verdict == claims.PARTLY


@pytest.mark.parametrize(
    "nothing", [NOTHING, replace(NOTHING, theories=None, theorems=None, exit_axis=None)]
)
def test_nothing_measured_is_nothing_tested(nothing: claims.Measurements) -> None:
    for measure in claims.TESTED:
        found = measure(nothing)
        assert found.verdict == claims.NOT_TESTED
        assert found.details.startswith("Needs "), found.claim
        assert np.isnan(found.measured_value)


def test_claims_have_names_of_their_own_and_say_where_they_stand() -> None:
    found = [measure(NOTHING) for measure in claims.TESTED] + list(claims.UNTESTED)
    assert len({claim.claim for claim in found}) == len(found)
    for claim in found:
        assert claim.source
        assert claim.statement
        assert claim.rule or claim in claims.UNTESTED


def write_noise(path: Path, noise: claims.NoiseFits) -> str:
    """A file of fits as fit_noise writes it, with a parameter of the other stratum."""
    layer = f"{noise.law}.0" if noise.law else "layer1.0.conv1"
    fits = noise.fits.assign(
        layer=layer, layer_type=controls.LAYER_TYPE if noise.law else "Conv2d", ks=0.1
    )
    extra = fits.tail(1).assign(stratum="per_layer", sse=1e6, parameter_index=COUNT)
    store.write_table(
        path,
        pd.concat([fits, extra], ignore_index=True),
        store.provenance(
            study="test",
            run=noise.run,
            batch_size=noise.batch_size,
            critical_likelihood_ratio=noise.critical,
        ),
    )
    return str(path)


def test_collected_claims_are_those_of_the_files(tmp_path: Path) -> None:
    net = make_noise("net", wins=0.98)
    layers = make_layers("net", {f"layer{index}": 1.8 - 0.02 * index for index in range(10)})
    layers_path = tmp_path / "layers.parquet"
    store.write_table(
        layers_path,
        layers.layers.assign(batch_size=32),
        store.provenance(study="test", run="net", batch_sizes=[32]),
    )
    theories_paths = []
    for dataset in ("a", "b"):
        path = tmp_path / f"{dataset}.parquet"
        make_theories({dataset: 4.0}, 32).to_parquet(path)
        theories_paths.append(str(path))
    assert NOTHING.theorems is not None
    NOTHING.theorems.to_csv(tmp_path / "theorems.csv", index=False)
    make_exits(0.82).to_parquet(tmp_path / "exits.parquet")
    collect_claims.collect_claims(
        fits_paths=[
            write_noise(tmp_path / "net.parquet", net),
            write_noise(tmp_path / "control.parquet", GAUSSIAN),
        ],
        layers_paths=[str(layers_path)],
        theories_paths=theories_paths,
        theorems_path=str(tmp_path / "theorems.csv"),
        exit_axis_path=str(tmp_path / "exits.parquet"),
        claims_path=str(tmp_path / "claims.csv"),
    )
    table = pd.read_csv(tmp_path / "claims.csv").set_index("claim")
    assert list(table.index) == [measure(NOTHING).claim for measure in claims.TESTED] + [
        claim.claim for claim in claims.UNTESTED
    ]
    for claim in ("sse_wins", "sse_wins_beyond_controls", "alpha_falls_with_depth"):
        assert table.loc[claim, "verdict"] == claims.REPRODUCED
    for claim in ("levy_escape", "exit_probability"):
        assert table.loc[claim, "verdict"] == claims.REPRODUCED
    assert table.loc["sse_wins", "measured_value"] == pytest.approx(0.98)
    assert "control-gaussian (B = 32) 0.6" in str(table.loc["sse_wins_beyond_controls", "details"])
