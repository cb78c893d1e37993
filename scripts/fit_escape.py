"""Mean escape times with their censoring, and the theories of them fitted and compared."""

import math
from typing import Any

import numpy as np
import pandas as pd

from sgnoise import seeds, store
from sgnoise.escape.survival import (
    exponential_mean,
    exponential_p,
    exponential_quantiles,
    mean_interval,
    resampled_totals,
)
from sgnoise.escape.theories import (
    REFERENCE,
    THEORIES,
    TheoryFit,
    aicc,
    fit_by_least_squares,
    fit_by_likelihood,
    leave_one_out_error,
    saturated_log_likelihood,
)
from sgnoise.jobs import running_job


def summarise_times(
    replicas: pd.DataFrame, budget: int, bootstrap: int, *, rng: np.random.Generator
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """One row of times.parquet from the replicas of one batch size and learning rate.

    Returns:
        The row; and events and exposure, each (bootstrap,), of resampled replicas.
    """
    times = replicas["iterations"].to_numpy()
    escaped = replicas["escaped"].to_numpy()
    events, exposure = resampled_totals(times, escaped, bootstrap, rng=rng)
    low, high = mean_interval(events, exposure)
    expected, observed, median = exponential_quantiles(times, escaped)
    row = {
        "dataset": replicas["dataset"].iloc[0],
        "minimum": int(replicas["minimum"].iloc[0]),
        "batch_size": int(replicas["batch_size"].iloc[0]),
        "learning_rate": float(replicas["learning_rate"].iloc[0]),
        "replicas": len(replicas),
        "censored": int((~escaped).sum()),
        "diverged": int(replicas["diverged"].sum()),
        "iterations": int(times.sum()),
        "mean_escape_time": float(exponential_mean(escaped.sum(), times.sum())),
        "mean_low": low,
        "mean_high": high,
        "kaplan_meier_median": median,
        "exponential_p": exponential_p(times, escaped, budget, rng=rng),
        "exponential_quantiles": expected,
        "observed_quantiles": observed,
        "flag": "" if escaped.any() else "all_censored",
    }
    return row, events, exposure


def compare_theories(
    learning_rates: np.ndarray,
    events: np.ndarray,
    exposure: np.ndarray,
    resampled_events: np.ndarray,
    resampled_exposure: np.ndarray,
) -> list[dict[str, Any]]:
    """The rows of theories.parquet for one minimum and batch size, less the names of these.

    ``coefficient`` and ``exponent`` maximise the likelihood of all replicas. A bootstrap over
    replicas gives ``exponent_se``, the 95 % intervals of ``exponent`` and of
    ``log_likelihood_ratio``, log L(REFERENCE) − log L(theory), above 0 where the first does better;
    ``better`` says which of the two the interval prefers, ``undecided`` if 0 lies in it. AICc takes
    the likelihood of each replica at its word, for which escape times must be exponential; the
    bootstrap asks no law of them. ``deviance`` is twice what the theory
    loses in log-likelihood against a free mean for each learning rate: about ``deviance_degrees``
    if it holds and times are exponential. ``r_squared`` belongs to the least-squares fit, in which
    rates without escapes have no part; ``flag`` names those.

    Args:
        learning_rates: (rates,).
        events: replicas that escaped, (rates,).
        exposure: iterations of all replicas, (rates,).
        resampled_events: (bootstrap, rates).
        resampled_exposure: (bootstrap, rates).
    """
    silent = [f"{rate:.6g}" for rate in learning_rates[events == 0]]
    flag = "not_in_least_squares:" + ",".join(silent) if silent else ""
    fits: dict[str, TheoryFit] = {}
    resampled: dict[str, TheoryFit] = {}
    for name, theory in THEORIES.items():
        fits[name] = fit_by_likelihood(theory, learning_rates, events, exposure)
        resampled[name] = fit_by_likelihood(
            theory, learning_rates, resampled_events, resampled_exposure
        )
    rows = []
    for name, theory in THEORIES.items():
        fit, again = fits[name], resampled[name]
        log_coefficient, exponent, r_squared = fit_by_least_squares(
            theory, learning_rates, events, exposure
        )
        ratios = resampled[REFERENCE].log_likelihood - again.log_likelihood
        ratios = ratios[np.isfinite(ratios)]
        ratio_low = ratio_high = np.nan
        if len(ratios):
            ratio_low, ratio_high = np.quantile(ratios, [0.025, 0.975])
        known = np.isfinite(again.exponent)
        exponent_low = exponent_high = np.nan
        if known.any():
            exponent_low, exponent_high = np.quantile(again.exponent[known], [0.025, 0.975])
        covariance = np.full((2, 2), np.nan)
        if known.sum() > 1:
            covariance = np.cov(again.log_coefficient[known], again.exponent[known])
        saturated = saturated_log_likelihood(events, exposure)
        rows.append(
            {
                "theory": name,
                "coefficient": float(np.exp(fit.log_coefficient)),
                "exponent": float(fit.exponent),
                "exponent_se": float(np.sqrt(covariance[1, 1])),
                "exponent_low": float(exponent_low),
                "exponent_high": float(exponent_high),
                "log_coefficient_se": float(np.sqrt(covariance[0, 0])),
                "log_coefficient_exponent_covariance": float(covariance[0, 1]),
                "r_squared": r_squared,
                "aicc": aicc(float(fit.log_likelihood), float(events.sum())),
                "log_likelihood": float(fit.log_likelihood),
                "log_likelihood_ratio": float(fits[REFERENCE].log_likelihood - fit.log_likelihood),
                "log_likelihood_ratio_low": float(ratio_low),
                "log_likelihood_ratio_high": float(ratio_high),
                "better": preferred(name, float(ratio_low), float(ratio_high)),
                "deviance": float(2 * (saturated - fit.log_likelihood)),
                "deviance_degrees": len(learning_rates) - 2,
                "leave_one_out_error": leave_one_out_error(
                    theory, learning_rates, events, exposure
                ),
                "least_squares_coefficient": float(np.exp(log_coefficient)),
                "least_squares_exponent": exponent,
                "flag": flag if np.isfinite(fit.exponent) else "too_few_escapes",
            }
        )
    return rows


def preferred(theory: str, ratio_low: float, ratio_high: float) -> str:
    """Which of REFERENCE and ``theory`` the interval of their likelihood ratio prefers."""
    if theory == REFERENCE or math.isnan(ratio_low):
        return ""
    if ratio_low > 0:
        return REFERENCE
    return theory if ratio_high < 0 else "undecided"


def cross_check(
    noise: pd.DataFrame, prediction: pd.DataFrame, times: pd.DataFrame
) -> dict[str, float]:
    """What the noise at the minimum says of the escape times, for one minimum and batch size.

    Corollary 4.2 makes the exponent of the power law the noise's alpha. ``noise_alpha`` is the mean
    over weights, with its 5 % and 95 % quantiles; ``predicted_exponent`` the slope of the SDE's
    log time against −log rate, from the simulated means where there are at least two and in the
    limit of small noise; ``predicted_ratio`` the geometric mean of predicted over measured times.

    Args:
        noise: rows of noise.parquet.
        prediction: rows of prediction.parquet.
        times: rows of times.parquet, at the same learning rates.
    """
    alpha = noise["alpha"].dropna()
    low, high = alpha.quantile([0.05, 0.95]) if len(alpha) else (math.nan, math.nan)
    found = {
        "noise_alpha": float(alpha.mean()),
        "noise_alpha_low": float(low),
        "noise_alpha_high": float(high),
        "noise_weights": float(len(alpha)),
    }
    both = prediction.merge(times, on="learning_rate", suffixes=("", "_measured"))
    for column, name in (
        ("mean_exit_time", "predicted"),
        ("small_noise_exit_time", "small_noise"),
    ):
        usable = both[np.isfinite(both[column]) & (both[column] > 0)]
        slope = ratio = math.nan
        if len(usable) >= 2:
            rates, logs = np.log(usable["learning_rate"]), np.log(usable[column])
            slope = -float(np.polyfit(rates, logs, 1)[0])
        measured = usable[np.isfinite(usable["mean_escape_time"])]
        if len(measured):
            ratio = float(np.exp(np.mean(np.log(measured[column] / measured["mean_escape_time"]))))
        found |= {f"{name}_exponent": slope, f"{name}_ratio": ratio}
    return found


def fit_escape(
    *,
    escape_paths: list[str],
    noise_paths: list[str],
    prediction_paths: list[str],
    times_path: str,
    theories_path: str,
    bootstrap: int,
    study: str,
    dataset: str,
    seed: int,
) -> None:
    """Summarise the replicas of a data set and fit the theories for each minimum and batch size.

    Args:
        escape_paths: tables of replicas; between them, all of each minimum, batch size and learning
            rate once.
        noise_paths: alpha of the noise, one file a minimum.
        prediction_paths: escape times of the SDE with that noise, likewise.
        times_path: gets one row for each minimum, batch size and learning rate.
        theories_path: gets one row for each minimum, batch size and theory.
        bootstrap: samples behind the intervals.
        study: for the provenance.
        dataset: for the rows and the random stream.
        seed: of the bootstrap.

    Raises:
        ValueError: a replica stands in the tables twice.
    """
    replicas = pd.concat(
        [
            pd.read_parquet(path).assign(
                budget=store.read_metadata(path)["settings"]["max_iterations"]
            )
            for path in escape_paths
        ],
        ignore_index=True,
    )
    cell = ["minimum", "batch_size", "learning_rate"]
    repeated = replicas[replicas.duplicated([*cell, "replica"])]
    if len(repeated):
        raise ValueError(
            f"{dataset}: replica {repeated['replica'].iloc[0]} of batch size "
            f"{repeated['batch_size'].iloc[0]} and learning rate "
            f"{repeated['learning_rate'].iloc[0]:g} stands in the tables twice"
        )
    summaries = []
    totals = []
    for name, group in replicas.groupby(cell):
        rng = seeds.generator(seed, "bootstrap", dataset, *map(str, name))
        budget = int(group["budget"].iloc[0])
        row, events, exposure = summarise_times(group, budget, bootstrap, rng=rng)
        summaries.append(row)
        totals.append((events, exposure))
    times = pd.DataFrame(summaries)

    noise = pd.concat([pd.read_parquet(path) for path in noise_paths])
    prediction = pd.concat([pd.read_parquet(path) for path in prediction_paths])
    theories = []
    for (minimum, batch_size), group in times.groupby(["minimum", "batch_size"]):
        events = (group["replicas"] - group["censored"]).to_numpy(dtype=np.float64)
        rows = compare_theories(
            group["learning_rate"].to_numpy(),
            events,
            group["iterations"].to_numpy(dtype=np.float64),
            np.stack([totals[i][0] for i in group.index], axis=1),
            np.stack([totals[i][1] for i in group.index], axis=1),
        )
        names = {"dataset": dataset, "minimum": minimum, "batch_size": batch_size}
        here = (noise["minimum"] == minimum) & (noise["batch_size"] == batch_size)
        there = (prediction["minimum"] == minimum) & (prediction["batch_size"] == batch_size)
        shared = {
            "learning_rates_tested": len(group),
            "censored_share": float(group["censored"].sum() / group["replicas"].sum()),
            "not_exponential": int((group["exponential_p"] < 0.05).sum()),
            **cross_check(noise[here], prediction[there], group),
        }
        theories += [{**names, **row, **shared} for row in rows]

    about = store.provenance(study=study, seed=seed, dataset=dataset, bootstrap=bootstrap)
    store.write_table(times_path, times, about)
    store.write_table(theories_path, pd.DataFrame(theories), about)


if __name__ == "__main__":
    with running_job() as job:
        fit_escape(
            escape_paths=list(job.input.escapes),
            noise_paths=list(job.input.noise),
            prediction_paths=list(job.input.prediction),
            times_path=job.output.times,
            theories_path=job.output.theories,
            bootstrap=job.params.bootstrap,
            study=job.params.study,
            dataset=job.params.dataset,
            seed=job.params.seed,
        )
