"""Escape times: the compiled kernel against a plain loop, independence, the scripts on a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import find_minimum
import fit_escape
import measure_escape_noise
import plan_escape
import predict_escape
import simulate_escape
import tabulate_escape
from sgnoise import escape, gradients, store
from sgnoise.data import datasets
from sgnoise.data.sources import prepare
from sgnoise.escape import kernels, simulation

BATCH_SIZE = 16
LEARNING_RATE = 0.2
LOSS_DELTA = 0.1
TOLERANCE = 3e-3
KINDS = pytest.mark.parametrize(
    "kind",
    [
        {"activation": activation, "loss": loss}
        for activation in escape.ACTIVATIONS
        for loss in escape.LOSSES
    ],
    ids=lambda kind: "-".join(kind.values()),
)


def make_problem(
    samples: int,
    features: int,
    widths: list[int],
    classes: int,
    seed: int = 0,
    *,
    activation: str = "relu",
    loss: str = "cross_entropy",
) -> tuple[escape.Problem, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(samples, features)).astype(np.float32)
    targets = rng.integers(classes, size=samples)
    problem = escape.make_problem(
        inputs, targets, classes, widths, activation=activation, loss=loss
    )
    return problem, escape.initial_parameters(problem.sizes, rng=rng)


@pytest.fixture(scope="module")
def problem() -> escape.Problem:
    """Three overlapping clouds: a network cannot separate them, so there is a minimum."""
    rng = np.random.default_rng(1)
    targets = rng.integers(3, size=150)
    inputs = rng.normal(size=(150, 5)) + 0.8 * rng.normal(size=(3, 5))[targets]
    return escape.make_problem(inputs.astype(np.float32), targets, 3, [6, 4])


@pytest.fixture(scope="module")
def descent(problem: escape.Problem) -> escape.Descent:
    start = escape.initial_parameters(problem.sizes, rng=np.random.default_rng(2))
    return escape.descend(
        problem,
        start,
        key=3,
        learning_rate=0.1,
        batch_size=256,
        tolerance=TOLERANCE,
        patience=100,
        max_iterations=5000,
    )


def run_escapes(
    problem: escape.Problem,
    descent: escape.Descent,
    keys: np.ndarray,
    *,
    loss_delta: float = LOSS_DELTA,
    max_iterations: int = 400,
    check_every: int = 1,
    threads: int = 1,
    learning_rate: float = LEARNING_RATE,
) -> escape.Escapes:
    return escape.escape_times(
        problem,
        descent.parameters,
        keys=keys,
        learning_rate=learning_rate,
        batch_size=BATCH_SIZE,
        minimum_loss=float(descent.losses[-1]),
        loss_delta=loss_delta,
        max_iterations=max_iterations,
        check_every=check_every,
        threads=threads,
    )


def columns(found: escape.Escapes) -> list[np.ndarray]:
    return [found.iterations, found.escaped, found.diverged, found.final_loss]


# --- the plain loop ------------------------------------------------------------------------------


def torch_layers(problem: escape.Problem, parameters: np.ndarray) -> list[torch.Tensor]:
    flat = parameters.copy()
    return [
        torch.from_numpy(part.copy()).requires_grad_()
        for layer in escape.layers_of(flat, problem.sizes)
        for part in layer
    ]


def torch_loss(
    problem: escape.Problem, layers: list[torch.Tensor], batch: np.ndarray | slice = slice(None)
) -> torch.Tensor:
    signal = torch.from_numpy(problem.rows[batch]).to(layers[0].dtype)
    targets = torch.from_numpy(problem.targets[batch])
    for index in range(0, len(layers), 2):
        signal = torch.nn.functional.linear(signal, layers[index], layers[index + 1])
        if index + 2 < len(layers):
            signal = torch.tanh(signal) if problem.use_tanh else torch.relu(signal)
    if problem.squared:
        wanted = torch.nn.functional.one_hot(targets, signal.shape[1]).to(signal.dtype)
        return torch.nn.functional.mse_loss(signal, wanted)
    return torch.nn.functional.cross_entropy(signal, targets)


def torch_step(
    problem: escape.Problem, layers: list[torch.Tensor], batch: np.ndarray, rate: float
) -> None:
    loss = torch_loss(problem, layers, batch)
    gradients = torch.autograd.grad(loss, layers)
    with torch.no_grad():
        for layer, gradient in zip(layers, gradients, strict=True):
            layer -= rate * gradient


def flatten(layers: list[torch.Tensor]) -> np.ndarray:
    return torch.cat([layer.detach().ravel() for layer in layers]).numpy()


@pytest.mark.parametrize(
    ("samples", "features", "widths", "classes", "batch_size"),
    [(150, 5, [7, 4], 3, 8), (64, 3, [9], 2, 32), (65, 12, [16, 16, 8], 5, 65)],
)
@KINDS
def test_steps_follow_the_plain_loop(
    samples: int,
    features: int,
    widths: list[int],
    classes: int,
    batch_size: int,
    kind: dict[str, Any],
) -> None:
    problem, parameters = make_problem(samples, features, widths, classes, **kind)
    onward = torch_layers(problem, parameters)
    state, order, used = np.array([7], np.uint64), np.arange(samples), 0
    batch = np.empty(batch_size, np.int64)
    for _ in range(30):
        used = kernels.draw_batch(state, order, used, batch)
        # Each step from the same weights; and the loop's own way, on which rounding adds up.
        single = torch_layers(problem, parameters)
        kernels.sgd_step(problem, parameters, batch, np.float32(0.1))
        torch_step(problem, single, batch, 0.1)
        torch_step(problem, onward, batch, 0.1)
        np.testing.assert_allclose(parameters, flatten(single), rtol=1e-5, atol=1e-6)
        expected = torch_loss(problem, onward).item()
        assert escape.data_loss(problem, parameters) == pytest.approx(expected, rel=2e-5)


def test_escape_is_the_first_iteration_above_the_threshold(
    problem: escape.Problem, descent: escape.Descent
) -> None:
    found = run_escapes(problem, descent, np.array([11], np.uint64))
    threshold = descent.losses[-1] + LOSS_DELTA
    layers = torch_layers(problem, descent.parameters)
    state, order, used = np.array([11], np.uint64), np.arange(len(problem.targets)), 0
    batch = np.empty(BATCH_SIZE, np.int64)
    losses = []
    for _ in range(int(found.iterations[0])):
        used = kernels.draw_batch(state, order, used, batch)
        torch_step(problem, layers, batch, LEARNING_RATE)
        losses.append(torch_loss(problem, layers).item())
    assert found.escaped[0]
    assert len(losses) > 3
    assert losses[-1] > threshold
    assert max(losses[:-1]) < threshold
    assert found.final_loss[0] == pytest.approx(losses[-1], rel=1e-4)


@settings(deadline=None, max_examples=40)
@given(
    samples=st.integers(1, 200),
    widths=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    classes=st.integers(2, 12),
    growth=st.floats(0.1, 30),
    seed=st.integers(0, 1000),
    activation=st.sampled_from(escape.ACTIVATIONS),
    loss=st.sampled_from(escape.LOSSES),
)
def test_data_loss_is_the_loss_of_all_samples(
    samples: int,
    widths: list[int],
    classes: int,
    growth: float,
    seed: int,
    activation: str,
    loss: str,
) -> None:
    problem, parameters = make_problem(
        samples, 4, widths, classes, seed, activation=activation, loss=loss
    )
    parameters *= np.float32(growth)
    layers = [layer.detach().double() for layer in torch_layers(problem, parameters)]
    expected = torch_loss(problem, layers).item()
    assert escape.data_loss(problem, parameters) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 20, -1])
@KINDS
def test_a_broken_weight_breaks_the_loss(value: float, where: int, kind: dict[str, Any]) -> None:
    problem, parameters = make_problem(70, 4, [6, 5], 3, **kind)
    parameters[where] = value
    # tanh is 1 at infinity.
    harmless = kind["activation"] == "tanh" and np.isinf(value) and where != -1
    assert np.isfinite(escape.data_loss(problem, parameters)) == harmless


# --- mini-batches --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(samples=st.integers(1, 60), share=st.floats(0.01, 1), key=st.integers(0, 2**64 - 1))
def test_a_pass_takes_every_sample_at_most_once(samples: int, share: float, key: int) -> None:
    size = max(1, int(share * samples))
    state, order, used = np.array([key], np.uint64), np.arange(samples), 0
    for _ in range(3):
        drawn = []
        for _ in range(samples // size):
            batch = np.empty(size, np.int64)
            used = kernels.draw_batch(state, order, used, batch)
            drawn.append(batch)
        assert len(set(np.concatenate(drawn).tolist())) == samples // size * size
        assert sorted(order.tolist()) == list(range(samples))


def test_every_sample_is_as_likely_in_every_place() -> None:
    state, order, used = np.array([5], np.uint64), np.arange(7), 0
    counts = np.zeros((7, 7))
    batch = np.empty(7, np.int64)
    for _ in range(7000):
        used = kernels.draw_batch(state, order, used, batch)
        counts[np.arange(7), batch] += 1
    # Rows and columns sum to 7000, so χ² has 36 degrees of freedom: above 68 once in a thousand.
    assert np.sum((counts - 1000) ** 2 / 1000) < 68


# --- replicas ------------------------------------------------------------------------------------


def test_a_replica_depends_on_its_key_only(
    problem: escape.Problem, descent: escape.Descent
) -> None:
    keys = np.arange(20, 32).astype(np.uint64)
    together = columns(run_escapes(problem, descent, keys))
    threaded = columns(run_escapes(problem, descent, keys[::-1], threads=3))
    alone = [columns(run_escapes(problem, descent, keys[i : i + 1])) for i in range(len(keys))]
    for name, column in enumerate(together):
        np.testing.assert_array_equal(column, threaded[name][::-1])
        np.testing.assert_array_equal(column, np.concatenate([one[name] for one in alone]))
    assert len(np.unique(together[0])) > 5


def test_a_budget_censors(problem: escape.Problem, descent: escape.Descent) -> None:
    keys = np.arange(30).astype(np.uint64)
    full = run_escapes(problem, descent, keys)
    budget = int(np.median(full.iterations))
    cut = run_escapes(problem, descent, keys, max_iterations=budget)
    np.testing.assert_array_equal(cut.escaped, full.escaped & (full.iterations <= budget))
    np.testing.assert_array_equal(cut.iterations, np.minimum(full.iterations, budget))
    assert 0 < cut.escaped.sum() < len(keys)
    assert (cut.final_loss[~cut.escaped] <= descent.losses[-1] + LOSS_DELTA).all()


def test_divergence_is_an_escape_and_is_marked(
    problem: escape.Problem, descent: escape.Descent
) -> None:
    found = run_escapes(problem, descent, np.arange(3).astype(np.uint64), learning_rate=1e30)
    assert found.escaped.all()
    assert (found.diverged == ~np.isfinite(found.final_loss)).all()
    assert found.diverged.any()
    assert not run_escapes(problem, descent, np.arange(3).astype(np.uint64)).diverged.any()


@pytest.mark.parametrize("check_every", [2, 7, 1000])
def test_rewinding_at_every_look_is_exact(
    problem: escape.Problem,
    descent: escape.Descent,
    check_every: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simulation, "REPLAY_SHARE", -1e9)
    keys = np.arange(12).astype(np.uint64)
    exact = columns(run_escapes(problem, descent, keys))
    rewound = columns(run_escapes(problem, descent, keys, check_every=check_every))
    for one, other in zip(exact, rewound, strict=True):
        np.testing.assert_array_equal(one, other)


def test_looking_rarely_never_finds_an_escape_too_early(
    problem: escape.Problem, descent: escape.Descent
) -> None:
    keys = np.arange(40).astype(np.uint64)
    exact = run_escapes(problem, descent, keys)
    rare = run_escapes(problem, descent, keys, check_every=9)
    assert (rare.iterations >= exact.iterations).all()
    assert (rare.iterations == exact.iterations).mean() > 0.7


def test_settings_out_of_range_are_refused(
    problem: escape.Problem, descent: escape.Descent
) -> None:
    keys = np.arange(2).astype(np.uint64)
    with pytest.raises(ValueError, match="loss_delta"):
        run_escapes(problem, descent, keys, loss_delta=0)
    with pytest.raises(ValueError, match="learning_rate"):
        run_escapes(problem, descent, keys, learning_rate=-1)
    small, parameters = make_problem(10, 2, [3], 2)
    with pytest.raises(ValueError, match="batch_size 16"):
        run_escapes(small, escape.Descent(parameters, np.zeros(1), True), keys)


@pytest.mark.parametrize(
    ("inputs", "targets", "widths", "message"),
    [
        (np.zeros((3, 2)), np.array([0, 1]), [4], "one target for each sample"),
        (np.zeros((2, 2)), np.array([0, 2]), [4], "0 to 2, not within 0..1"),
        (np.full((2, 2), np.nan), np.array([0, 1]), [4], "not finite"),
        (np.zeros((2, 2)), np.array([0, 1]), [], "widths"),
        (np.zeros((2, 2)), np.array([0, 1]), [4, 0], "widths"),
    ],
)
def test_data_that_cannot_be_used_are_refused(
    inputs: np.ndarray, targets: np.ndarray, widths: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        escape.make_problem(inputs, targets, 2, widths)


@pytest.mark.parametrize("what", ["activation", "loss"])
def test_an_unknown_kind_of_network_is_refused(what: str) -> None:
    wrong: dict[str, Any] = {what: "sigmoid"}
    with pytest.raises(ValueError, match=f"unknown {what} 'sigmoid'"):
        escape.make_problem(np.zeros((2, 2)), np.array([0, 1]), 2, [3], **wrong)


# --- the minimum ---------------------------------------------------------------------------------


def test_descent_ends_when_the_loss_first_stands_still(descent: escape.Descent) -> None:
    windows = np.lib.stride_tricks.sliding_window_view(descent.losses, 101)
    spans = windows.max(axis=1) - windows.min(axis=1)
    assert descent.criterion_met
    assert spans[-1] <= TOLERANCE
    assert (spans[:-1] > TOLERANCE).all()


def test_a_descent_out_of_budget_says_so(problem: escape.Problem) -> None:
    start = escape.initial_parameters(problem.sizes, rng=np.random.default_rng(2))

    def descend(learning_rate: float) -> escape.Descent:
        return escape.descend(
            problem,
            start,
            key=3,
            learning_rate=learning_rate,
            batch_size=16,
            tolerance=1e-12,
            patience=10,
            max_iterations=50,
        )

    found = descend(0.2)
    assert not found.criterion_met
    assert len(found.losses) == 51
    assert escape.data_loss(problem, found.parameters) == found.losses[-1]
    with pytest.raises(ValueError, match="lower the learning rate"):
        descend(1e30)


@KINDS
def test_gradient_and_curvature(kind: dict[str, Any]) -> None:
    problem, parameters = make_problem(90, 4, [5, 4], 3, **kind)
    parameters *= np.float32(2)
    layers = [layer.detach().double() for layer in torch_layers(problem, parameters)]
    sizes = [layer.numel() for layer in layers]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = torch.split(flat, sizes)
        shaped = [part.view_as(layer) for part, layer in zip(parts, layers, strict=True)]
        return torch_loss(problem, shaped)

    point = torch.cat([layer.ravel() for layer in layers])
    gradient = torch.autograd.functional.jacobian(loss, point).numpy()
    np.testing.assert_allclose(escape.loss_gradient(problem, parameters), gradient, atol=1e-12)
    hessian = torch.autograd.functional.hessian(loss, point).numpy()
    found = escape.hessian_top(problem, parameters, count=4)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(hessian)[:-5:-1], rtol=1e-5)
    np.testing.assert_allclose(
        escape.loss_curvature(problem, parameters), np.diag(hessian), atol=1e-12
    )


# --- the plan ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(
    power=st.floats(1, 20), start=st.floats(1e-4, 1e3), low=st.floats(5, 100), span=st.floats(2, 99)
)
def test_rates_meet_their_targets(power: float, start: float, low: float, span: float) -> None:
    def mean(rate: float) -> float:
        return 300.0 * rate**-power

    rates = plan_escape.choose_rates(
        lambda rate, target: mean(rate) > target,
        count=5,
        start=start,
        target_low=low,
        target_high=low * span,
    )
    assert len(rates) == 5
    assert mean(rates[-1]) <= low < mean(rates[-1] / 1.11)
    lowest = (300 / (low * span)) ** (1 / power)
    assert rates[0] == pytest.approx(min(rates[0], rates[-1] / 1.2))
    assert rates[0] <= lowest * 1.11
    assert rates[0] == pytest.approx(rates[-1] / 1.2) or rates[0] >= lowest
    np.testing.assert_allclose(np.diff(np.log(rates)), np.diff(np.log(rates))[0])


def test_no_rate_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="change the target, or give loss_delta"):
        plan_escape.rate_for(lambda rate, target: True, 50, 0.1)


def test_the_loss_of_an_escape(problem: escape.Problem) -> None:
    shares = np.bincount(problem.targets) / len(problem.targets)
    entropy = -np.sum(shares * np.log(shares))
    assert plan_escape.loss_rise(problem, 0.2) == pytest.approx(0.1 * (entropy - 0.2))
    with pytest.raises(ValueError, match="learnt nothing"):
        plan_escape.loss_rise(problem, 2.0)
    # Of squared error: the mean square of one-hot targets around the frequencies.
    wanted = np.eye(3)[problem.targets]
    blind = np.mean((wanted - shares) ** 2)
    squared = problem._replace(squared=True)
    assert plan_escape.loss_rise(squared, 0.1) == pytest.approx(0.1 * (blind - 0.1))


# --- the scripts ---------------------------------------------------------------------------------

NAMES: dict[str, Any] = {"study": "test", "dataset": "wine", "seed": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arrays, a minimum and a plan of the wine table."""
    path = tmp_path_factory.mktemp("escape")
    wine = prepare({"source": "bundled", "name": "wine", "test_fraction": 0.0}, seed=0)
    datasets.save(wine, str(path / "arrays.npz"), str(path / "manifest.json"))
    find_minimum.find_minimum(
        arrays_path=str(path / "arrays.npz"),
        minimum_path=str(path / "minimum.npz"),
        widths=[6, 4],
        activation="relu",
        loss="cross_entropy",
        learning_rate=0.1,
        batch_size=256,
        tolerance=1e-3,
        patience=100,
        max_iterations=3000,
        **NAMES,
    )
    make_plan(path, learning_rates=3)
    return path


def make_plan(
    path: Path, learning_rates: int | list[float], name: str = "plan.json"
) -> dict[str, object]:
    plan_escape.plan_escape(
        arrays_path=str(path / "arrays.npz"),
        minimum_path=str(path / "minimum.npz"),
        plan_path=str(path / name),
        batch_sizes=[8],
        learning_rates=learning_rates,
        loss_delta=None,
        target_low=20,
        target_high=200,
        max_iterations=600,
        pilot_replicas=6,
        minimum_index=0,
        **NAMES,
    )
    return json.loads((path / name).read_text())


def simulate(
    path: Path, name: str, *, rates: tuple[int, int], replicas: int, threads: int = 1
) -> Path:
    simulate_escape.simulate_escape(
        arrays_path=str(path / "arrays.npz"),
        minimum_path=str(path / "minimum.npz"),
        plan_path=str(path / "plan.json"),
        escape_path=str(path / name),
        batch_size=8,
        first_rate=rates[0],
        last_rate=rates[1],
        replicas=replicas,
        check_every=1,
        threads=threads,
        minimum_index=0,
        **NAMES,
    )
    return path / name


def measure_noise(path: Path, batch_sizes: list[int], name: str = "noise.parquet") -> Path:
    measure_escape_noise.measure_escape_noise(
        arrays_path=str(path / "arrays.npz"),
        minimum_path=str(path / "minimum.npz"),
        noise_path=str(path / name),
        batch_sizes=batch_sizes,
        draws=200,
        minimum_index=0,
        threads=1,
        **NAMES,
    )
    return path / name


def predict(path: Path, noise: Path) -> Path:
    predict_escape.predict_escape(
        arrays_path=str(path / "arrays.npz"),
        minimum_path=str(path / "minimum.npz"),
        plan_path=str(path / "plan.json"),
        noise_path=str(noise),
        basin_path=str(path / "basin.parquet"),
        prediction_path=str(path / "prediction.parquet"),
        paths=32,
        minimum_index=0,
        threads=1,
        **NAMES,
    )
    return path / "prediction.parquet"


def test_the_minimum_is_recorded(folder: Path) -> None:
    minimum = escape.load_minimum(str(folder / "minimum.npz"))
    wine = datasets.load(str(folder / "arrays.npz"))
    problem = escape.make_problem(*wine.batch("train", slice(None)), 3, minimum.widths)
    assert minimum.widths == [6, 4]
    assert escape.data_loss(problem, minimum.parameters) == minimum.loss
    with np.load(folder / "minimum.npz") as arrays:
        assert arrays["criterion_met"]
        assert arrays["iterations"] == len(arrays["losses"]) - 1
        assert arrays["losses"][-1] == minimum.loss < arrays["losses"][0]
        assert 0 < arrays["gradient_norm"] < 0.1
        assert (np.diff(arrays["hessian_top"]) <= 0).all()
        assert json.loads(str(arrays["provenance"]))["seed"] == 4


def test_the_plan_brackets_the_targets(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    rates = plan["learning_rates"]["8"]
    assert rates == sorted(rates)
    assert plan["max_iterations"] == 600
    assert plan["sharpness"] > 0
    measured = {(entry["learning_rate"], entry["target"]) for entry in plan["pilot"]["8"]}
    assert all(target in (20, 200) for _, target in measured)
    slow, fast = (
        pd.read_parquet(simulate(folder, f"end{index}.parquet", rates=(index, index), replicas=40))
        for index in (0, 2)
    )
    # Six pilot replicas place a rate to within a factor of a few in the mean.
    assert fast["escaped"].mean() > 0.8
    assert slow["iterations"].sum() > 2 * fast["iterations"].sum()


def test_a_pilot_decides_as_the_full_mean_would(
    problem: escape.Problem, descent: escape.Descent
) -> None:
    loss = float(descent.losses[-1])
    minimum = escape.Minimum(descent.parameters, [6, 4], "relu", "cross_entropy", loss, np.ones(1))
    keys = list(range(10))
    pilot = plan_escape._Pilot(
        problem,
        minimum,
        keys=keys,
        batch_size=BATCH_SIZE,
        loss_delta=LOSS_DELTA,
        max_iterations=400,
    )
    full = run_escapes(problem, descent, np.array(keys, np.uint64))
    mean = full.iterations.sum() / full.escaped.sum()
    decisions = [pilot(LEARNING_RATE, target) for target in (mean / 3, mean - 0.5, mean + 0.5)]
    assert decisions == [True, True, False]
    assert pilot.found[0]["iterations"] <= 10 * mean / 3 + 1


def test_rates_by_hand_are_taken_as_they_are(folder: Path) -> None:
    plan = make_plan(folder, [0.5, 0.1, 0.2], "by_hand.json")
    assert plan["learning_rates"] == {"8": [0.1, 0.2, 0.5]}
    assert plan["pilot"] == {"8": []}


def test_more_replicas_and_threads_leave_the_first_ones_alone(folder: Path) -> None:
    few = pd.read_parquet(simulate(folder, "few.parquet", rates=(1, 1), replicas=5))
    many = pd.read_parquet(simulate(folder, "many.parquet", rates=(1, 1), replicas=9, threads=2))
    pd.testing.assert_frame_equal(few, many.iloc[:5])
    assert len(many["iterations"].unique()) > 3


def test_rates_in_one_job_are_those_of_single_jobs(folder: Path) -> None:
    together = pd.read_parquet(simulate(folder, "all.parquet", rates=(0, 2), replicas=4))
    alone = [
        pd.read_parquet(simulate(folder, f"only{index}.parquet", rates=(index, index), replicas=4))
        for index in range(3)
    ]
    pd.testing.assert_frame_equal(together, pd.concat(alone, ignore_index=True))
    plan = json.loads((folder / "plan.json").read_text())
    assert together["learning_rate"].unique().tolist() == plan["learning_rates"]["8"]


def test_a_rate_that_the_plan_lacks_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="no learning rates 2 to 3 at batch size 8"):
        simulate(folder, "none.parquet", rates=(2, 3), replicas=2)


def test_replicas_become_times_and_theories(folder: Path) -> None:
    paths = [
        str(simulate(folder, f"rates{first}-{last}.parquet", rates=(first, last), replicas=12))
        for first, last in ((0, 1), (2, 2))
    ]
    schema = pq.read_schema(paths[0])
    assert schema.field("iterations").type == "int64"
    assert schema.field("escaped").type == schema.field("diverged").type == "bool"
    noise = measure_noise(folder, [8])
    fitted = NAMES | {"times_path": str(folder / "times.parquet"), "bootstrap": 200}
    fitted["theories_path"] = str(folder / "theories.parquet")
    fitted |= {"noise_paths": [str(noise)], "prediction_paths": [str(predict(folder, noise))]}
    fit_escape.fit_escape(escape_paths=paths, **fitted)
    times = pd.read_parquet(folder / "times.parquet")
    theories = pd.read_parquet(folder / "theories.parquet")
    tables = pd.concat([pd.read_parquet(path) for path in paths])
    cells = [replicas for _, replicas in tables.groupby("learning_rate")]
    for replicas, row in zip(cells, times.to_dict("records"), strict=True):
        assert row["learning_rate"] == replicas["learning_rate"].iloc[0]
        assert row["replicas"] == 12
        assert row["censored"] == (~replicas["escaped"]).sum()
        mean = replicas["iterations"].sum() / replicas["escaped"].sum()
        assert row["mean_low"] <= row["mean_escape_time"] == mean <= row["mean_high"]
    assert list(theories["theory"]) == ["levy", "diffusion", "kramers"]
    assert (theories["exponent_se"] > 0).all()
    assert theories["exponent"].between(theories["exponent_low"], theories["exponent_high"]).all()
    table = folder / "escape_theories.csv"
    tabulate_escape.tabulate_escape(
        theories_paths=[str(folder / "theories.parquet")], table_path=str(table)
    )
    assert pd.read_csv(table)["theory"].tolist() == ["levy", "diffusion", "kramers"]
    alpha = pd.read_parquet(noise)["alpha"].dropna()
    assert theories["noise_alpha"].iloc[0] == pytest.approx(alpha.mean())
    assert store.read_metadata(folder / "times.parquet")["settings"]["bootstrap"] == 200
    with pytest.raises(ValueError, match="replica 0 of batch size 8 and learning rate"):
        fit_escape.fit_escape(escape_paths=[*paths, paths[0]], **fitted)


# --- the noise at the minimum --------------------------------------------------------------------


@KINDS
def test_the_gradients_of_samples_add_up(kind: dict[str, Any]) -> None:
    problem, parameters = make_problem(60, 4, [5, 4], 3, **kind)
    minimum = escape.Minimum(parameters, [5, 4], kind["activation"], kind["loss"], 0.0, np.ones(1))
    network = measure_escape_noise.network_of(minimum, problem)
    by_sample = gradients.per_sample_gradients(
        network,
        measure_escape_noise.squared_error if problem.squared else functional.cross_entropy,
        torch.from_numpy(problem.rows),
        torch.from_numpy(problem.targets),
        gradients.sample_parameters(network, uniform=10**6, per_layer=0, seed=0),
    ).numpy()
    assert by_sample.shape == (len(parameters), 60)
    np.testing.assert_allclose(
        by_sample.mean(axis=1), escape.loss_gradient(problem, parameters), atol=1e-6
    )


def test_noise_is_that_of_every_weight_in_the_order_of_the_minimum(folder: Path) -> None:
    noise = pd.read_parquet(measure_noise(folder, [32, 8], "both.parquet"))
    parameters = escape.load_minimum(str(folder / "minimum.npz")).parameters
    assert len(noise) == 2 * len(parameters)
    assert noise["batch_size"].unique().tolist() == [32, 8]
    large, small = (
        part.reset_index(drop=True) for _, part in noise.groupby("batch_size", sort=False)
    )
    assert large["parameter_index"].tolist() == list(range(len(parameters)))
    keys = list(store.PARAMETER_COLUMNS)
    pd.testing.assert_frame_equal(large[keys], small[keys])
    # Layer after layer: its weights row by row, then its biases.
    for _, layer in large.groupby("layer_index"):
        assert layer["tensor"].drop_duplicates().tolist() == ["weight", "bias"]
        for _, tensor in layer.groupby("tensor"):
            assert tensor["offset"].tolist() == list(range(len(tensor)))
    # A mean of four times as many samples is closer to the normal law, and less often exactly zero.
    assert np.isfinite(large["alpha"]).sum() > 50
    assert large["alpha"].median() > small["alpha"].median()
    assert (large["zero_fraction"] <= small["zero_fraction"]).all()


def test_a_prediction_needs_the_noise_of_every_batch_size_of_the_plan(folder: Path) -> None:
    noise = measure_noise(folder, [32], "other.parquet")
    with pytest.raises(ValueError, match="noise of 0 weights at batch size 8"):
        predict(folder, noise)


def test_a_basin_has_the_curvature_and_edges_of_every_weight(folder: Path) -> None:
    predict(folder, measure_noise(folder, [8]))
    basin = pd.read_parquet(folder / "basin.parquet")
    minimum = escape.load_minimum(str(folder / "minimum.npz"))
    wine = datasets.load(str(folder / "arrays.npz"))
    problem = minimum.problem(*wine.batch("train", slice(None)), 3)
    np.testing.assert_array_equal(
        basin["curvature"], escape.loss_curvature(problem, minimum.parameters)
    )
    assert (basin["edge_low"] < 0).all()
    assert (basin["edge_high"] > 0).all()
    assert np.isfinite(basin["edge_high"]).sum() > 10


def test_an_edge_is_where_the_loss_crosses(
    problem: escape.Problem, descent: escape.Descent
) -> None:
    threshold = descent.losses[-1] + LOSS_DELTA
    lower, upper = escape.basin_edges(problem, descent.parameters, threshold=threshold)
    assert (lower < 0).all()
    assert (upper > 0).all()
    checked = 0
    for edges in (lower, upper):
        for index in np.flatnonzero(np.isfinite(edges)):
            losses = []
            for share in (1.0, 1 / 1.06):
                moved = descent.parameters.copy()
                moved[index] += np.float32(share * edges[index])
                losses.append(escape.data_loss(problem, moved))
            assert losses[1] <= threshold < losses[0]
            checked += 1
    assert checked > 50


def test_the_system_steps_as_sgd_does_with_stable_noise() -> None:
    alpha, scale, rate = np.array([1.2, 1.7]), np.array([0.3, 2.0]), 0.05
    system = predict_escape.noise_system(alpha, scale, np.ones(2), rate)
    np.testing.assert_allclose(
        system.increment_scale(np.array([0.0, rate]))[0], rate * scale, rtol=1e-12
    )


def test_small_noise_leaves_by_one_jump() -> None:
    """Where jumps are rare the simulated time is that of the first jump that leads out."""
    alpha, scale = np.full(3, 1.2), np.array([1.0, 2.0, 3.0])
    predicted = predict_escape.predict_times(
        predict_escape.noise_system(alpha, scale, np.full(3, 50.0), 1e-3),
        np.full(3, -1.0),
        np.full(3, 2.0),
        learning_rate=1e-3,
        max_iterations=20_000,
        paths=512,
        seed=1,
        threads=1,
    )
    # Three standard errors of 512 paths, and what smaller jumps add.
    assert predicted["mean_exit_time"] == pytest.approx(predicted["small_noise_exit_time"], rel=0.2)
    assert predicted["censored"] == 0


def test_the_cross_check_reads_the_slope() -> None:
    rates = np.geomspace(0.01, 0.1, 5)
    prediction = pd.DataFrame(
        {
            "learning_rate": rates,
            "mean_exit_time": 2 * rates**-1.5,
            "small_noise_exit_time": [np.inf, *(3 * rates[1:] ** -1.4)],
        }
    )
    times = pd.DataFrame({"learning_rate": rates, "mean_escape_time": 4 * rates**-1.5})
    noise = pd.DataFrame({"alpha": [1.2, 1.6, np.nan]})
    found = fit_escape.cross_check(noise, prediction, times)
    assert found["noise_alpha"] == pytest.approx(1.4)
    assert found["noise_weights"] == 2
    assert found["predicted_exponent"] == pytest.approx(1.5)
    assert found["predicted_ratio"] == pytest.approx(0.5)
    assert found["small_noise_exponent"] == pytest.approx(1.4)


@pytest.mark.parametrize(
    ("theory", "low", "high", "expected"),
    [
        ("levy", 0.0, 0.0, ""),
        ("kramers", 1.0, 9.0, "levy"),
        ("kramers", -9.0, -1.0, "kramers"),
        ("kramers", -1.0, 9.0, "undecided"),
        ("kramers", np.nan, np.nan, ""),
    ],
)
def test_the_interval_of_the_ratio_decides(
    theory: str, low: float, high: float, expected: str
) -> None:
    assert fit_escape.preferred(theory, low, high) == expected
