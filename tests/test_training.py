"""Training: repeatable, continued and resumed exactly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from pretrain import pretrain
from sgnoise import devices, models, store, training
from sgnoise.data import datasets
from sgnoise.data.sources import prepare
from sgnoise.settings import load_schema

CPU = torch.device("cpu")
BASE: dict[str, Any] = {
    "epochs": 4,
    "learning_rate": 0.1,
    "batch_size": 32,
    "optimizer": "sgd",
    "momentum": 0.0,
    "weight_decay": 0.0,
    "milestones": [],
    "decay": 0.1,
    "precision": "float32",
    "evaluate_every": 1,
}
RECIPES: dict[str, dict[str, Any]] = {
    "sgd": BASE,
    "momentum": {**BASE, "momentum": 0.9, "weight_decay": 1e-3, "milestones": [2], "decay": 0.5},
    "adam": {**BASE, "optimizer": "adam", "learning_rate": 0.01},
    "adamw": {**BASE, "optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
    "mixed": {**BASE, "precision": "float16", "optimizer": "adam", "learning_rate": 0.01},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So that the time of the tests does not depend on what else the machine does."""
    with devices.cpu_threads(1):
        yield


@pytest.fixture(scope="module")
def wine() -> datasets.Dataset:
    spec = {"source": "bundled", "name": "wine", "test_fraction": 0.2}
    return prepare(spec, seed=1)


@pytest.fixture(scope="module")
def arrays_path(wine: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("wine")
    datasets.save(wine, str(folder / "arrays.npz"), str(folder / "manifest.json"))
    return str(folder / "arrays.npz")


def network() -> nn.Module:
    """With batch normalisation and dropout, so that their state is part of the tests."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Linear(13, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
        )


def run(
    dataset: datasets.Dataset, recipe: dict[str, Any], **options: Any
) -> tuple[nn.Module, pd.DataFrame]:
    model = network()
    options = {"seed": 3, "device": CPU, **options}
    chosen = training.TrainingSettings.from_mapping(recipe)
    return model, training.train(model, dataset, chosen, **options).history


def assert_same_weights(first: nn.Module, second: nn.Module) -> None:
    assert first.state_dict().keys() == second.state_dict().keys()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_training_learns_and_reports(wine: datasets.Dataset) -> None:
    model, history = run(wine, {**BASE, "epochs": 30, "milestones": [10, 20], "decay": 0.5})
    assert history["epoch"].to_list() == list(range(31))
    rates = [np.nan] + [0.1] * 10 + [0.05] * 10 + [0.025] * 10
    np.testing.assert_allclose(history["learning_rate"], rates)
    assert history["train_accuracy"].iloc[-1] > 0.97
    assert history["test_accuracy"].iloc[-1] > 0.9
    with torch.no_grad():
        outputs = model.eval()(torch.from_numpy(wine.train_inputs))
        loss = nn.functional.cross_entropy(outputs, torch.from_numpy(wine.train_targets))
    np.testing.assert_allclose(history["train_loss"].iloc[-1], loss, rtol=1e-5)


def test_each_step_is_one_of_plain_sgd(wine: datasets.Dataset) -> None:
    trained, _ = run(wine, {**BASE, "epochs": 1})
    model = network()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seeds.integer_seed(3, "dropout", 1))
        for rows in training.batches(len(wine.train_targets), 32, seed=3, epoch=1):
            outputs = model(torch.from_numpy(wine.train_inputs[rows]))
            loss = nn.functional.cross_entropy(outputs, torch.from_numpy(wine.train_targets[rows]))
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(parameter.grad, alpha=0.1)
    for name, tensor in trained.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name])


def test_training_repeats_and_leaves_the_random_state_alone(wine: datasets.Dataset) -> None:
    state = torch.random.get_rng_state()
    (first, history), (again, repeated) = run(wine, BASE), run(wine, BASE)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert_same_weights(first, again)
    assert history.equals(repeated)
    other, _ = run(wine, BASE, seed=4)
    assert not torch.equal(first.state_dict()["0.weight"], other.state_dict()["0.weight"])


def test_a_data_set_too_large_for_memory_trains_the_same(
    wine: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, history = run(wine, BASE)
    monkeypatch.setattr(training, "_RESIDENT_BYTES", -1)
    found, again = run(wine, BASE)
    assert_same_weights(found, expected)
    assert history.equals(again)


def test_no_test_part_gives_no_numbers() -> None:
    dataset = prepare({"source": "bundled", "name": "wine"}, seed=1)
    _, history = run(dataset, {**BASE, "epochs": 1})
    assert history[["test_loss", "test_accuracy"]].isna().all().all()
    assert history["train_loss"].notna().all()


@given(
    samples=st.integers(2, 200),
    batch_size=st.integers(1, 250),
    epoch=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_an_epoch_takes_each_sample_once(samples: int, batch_size: int, epoch: int) -> None:
    parts = list(training.batches(samples, batch_size, seed=1, epoch=epoch))
    assert sorted(np.concatenate(parts)) == list(range(samples))
    sizes = [len(part) for part in parts]
    assert set(sizes[:-1]) <= {batch_size}
    if batch_size > 1:
        assert 2 <= sizes[-1] <= batch_size + 1


def test_epochs_have_orders_of_their_own() -> None:
    orders = [
        np.concatenate(list(training.batches(50, 7, seed=1, epoch=epoch))) for epoch in range(3)
    ]
    assert all(not np.array_equal(*pair) for pair in pairwise(orders))


def test_a_last_batch_of_one_sample_does_not_stop_batch_norm(wine: datasets.Dataset) -> None:
    # 142 training samples: 141 + 1.
    _, history = run(wine, {**BASE, "batch_size": 141, "epochs": 1})
    assert np.isfinite(history["train_loss"]).all()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_killed_training_resumes_exactly(
    recipe: str, wine: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, history = run(wine, RECIPES[recipe])
    path = tmp_path / "unfinished"
    options = {"resume_path": str(path), "checkpoint_seconds": 0}
    batches = training.batches
    started = []

    def interrupted(*args: Any, epoch: int, **kwargs: Any) -> Iterator[np.ndarray]:
        started.append(epoch)
        for number, rows in enumerate(batches(*args, epoch=epoch, **kwargs)):
            if started == [1, 2, 3] and number == 2:
                raise KeyboardInterrupt
            yield rows

    monkeypatch.setattr(training, "batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(wine, RECIPES[recipe], **options)
    assert path.exists()
    resumed, resumed_history = run(wine, RECIPES[recipe], **options)
    assert started == [1, 2, 3, 3, 4]
    assert_same_weights(resumed, expected)
    assert resumed_history.equals(history)


@pytest.mark.parametrize("change", [{"learning_rate": 0.2}, {"epochs": 3}])
def test_the_state_of_another_training_is_passed_over(
    change: dict[str, Any],
    wine: datasets.Dataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "unfinished"
    options = {"resume_path": str(path), "checkpoint_seconds": 0}
    run(wine, BASE, **options)
    assert path.exists()
    expected, history = run(wine, {**BASE, **change})
    found, found_history = run(wine, {**BASE, **change}, **options)
    assert "left by another training" in caplog.text
    assert_same_weights(found, expected)
    assert found_history.equals(history)


def test_the_state_of_a_network_with_other_code_is_passed_over(
    wine: datasets.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a network does with its weights may change while their names and first values stay."""
    options = {"resume_path": str(tmp_path / "unfinished"), "checkpoint_seconds": 0}
    run(wine, BASE, **options, resume_key="ReLU")
    run(wine, BASE, **options, resume_key="ReLU")
    assert "left by another training" not in caplog.text
    run(wine, BASE, **options, resume_key="tanh")
    assert "left by another training" in caplog.text


def test_a_torn_state_is_passed_over(
    wine: datasets.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "unfinished"
    path.write_bytes(b"torn")
    expected, _ = run(wine, BASE)
    found, _ = run(wine, BASE, resume_path=str(path))
    assert "passed over" in caplog.text
    assert_same_weights(found, expected)


def pretrained(arrays_path: str, folder: Path, recipe: dict[str, Any], **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    arguments = {
        "parent_path": None,
        "model": {"name": "mlp", "widths": [6]},
        "code": ["1", None],
        "loss": "cross_entropy",
        "study": "test",
        "run": folder.name,
        "seed": 5,
        "device": "cpu",
        "threads": 1,
        **options,
    }
    pretrain(
        arrays_path=arrays_path,
        model_path=str(folder / "model.safetensors"),
        training_path=str(folder / "training.parquet"),
        resume_path=str(folder / "unfinished"),
        recipe=recipe,
        **arguments,
    )
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_going_on_from_a_checkpoint_equals_one_long_training(
    recipe: str, arrays_path: str, tmp_path: Path
) -> None:
    settings = RECIPES[recipe]
    whole = pretrained(arrays_path, tmp_path / "whole", settings)
    short = settings | {"milestones": [], "epochs": 2}
    parent = pretrained(arrays_path, tmp_path / "parent", short)
    parent_path = str(parent / "model.safetensors")
    child = pretrained(arrays_path, tmp_path / "child", settings, parent_path=parent_path)
    expected, found = (load_file(part / "model.safetensors") for part in (whole, child))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    rows = [
        pd.read_parquet(part / "training.parquet").set_index("epoch")
        for part in (whole, parent, child)
    ]
    assert rows[1].index.to_list() == [0, 1, 2]
    assert rows[2].index.to_list() == [3, 4]
    pd.testing.assert_frame_equal(pd.concat(rows[1:]), rows[0])


def test_pretrain_writes_what_it_says(arrays_path: str, tmp_path: Path) -> None:
    folder = pretrained(arrays_path, tmp_path / "run", BASE)
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.safetensors",
        "training.parquet",
    ]
    frame = pd.read_parquet(folder / "training.parquet")
    assert list(frame.columns) == [
        "epoch",
        "learning_rate",
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
    ]
    assert frame["epoch"].dtype == np.int64
    metadata = store.read_metadata(folder / "training.parquet")
    assert metadata["settings"] == {
        "run": "run",
        "model": {"name": "mlp", "widths": [6]},
        "loss": "cross_entropy",
        "training": BASE,
    }
    model = models.build_model({"name": "mlp", "widths": [6]}, input_shape=(13,), classes=3, seed=0)
    found = models.load_weights(folder / "model.safetensors", model)
    assert found["epoch"] == "4"
    assert json.loads(found["sgnoise"]) == metadata
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_parent_past_the_last_epoch_is_refused(arrays_path: str, tmp_path: Path) -> None:
    parent = pretrained(arrays_path, tmp_path / "parent", BASE)
    with pytest.raises(ValueError, match=r"was trained to epoch 4; .* nothing is left to train"):
        pretrained(
            arrays_path,
            tmp_path / "child",
            {**BASE, "epochs": 4},
            parent_path=str(parent / "model.safetensors"),
        )


# Each is put in the place of a function and kills the process when it is called.
KILLED = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from sgnoise import models, store, training
import pretrain

moment, arrays_path, folder, recipe = sys.argv[1], sys.argv[2], sys.argv[3], eval(sys.argv[4])
batches, train, save_file = training.batches, training.train, models.save_file
write_table = store.write_table
calls = []

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def die_in_an_epoch(*args, epoch, **kwargs):
    for number, rows in enumerate(batches(*args, epoch=epoch, **kwargs)):
        if epoch == 3 and number == 2:
            die()
        yield rows

def die_while_writing(tensors, path, metadata):
    save_file(tensors, path, metadata=metadata)
    calls.append(path)
    if (moment == "state" and len(calls) == 2) or (moment == "weights" and len(calls) == 5):
        os.truncate(path, os.path.getsize(path) // 2)
        die()

if moment == "epoch":
    training.batches = die_in_an_epoch
elif moment in ("state", "weights"):
    models.save_file = die_while_writing
elif moment == "table":
    store.write_table = die
elif moment == "removal":
    store.write_table = lambda *args: (write_table(*args), die())
training.train = lambda *args, **kwargs: train(*args, **kwargs, checkpoint_seconds=0)
pretrain.pretrain(
    arrays_path=arrays_path, parent_path=None, model_path=folder + "/model.safetensors",
    training_path=folder + "/training.parquet", resume_path=folder + "/unfinished",
    recipe=recipe, model={{"name": "mlp", "widths": [6]}}, code=["1", None], loss="cross_entropy",
    study="test",
    run="killed", seed=5, device="cpu", threads=1,
)
"""


def start_killed(moment: str, arrays_path: str, folder: Path, recipe: dict[str, Any]) -> Any:
    folder.mkdir()
    arguments = ["-c", KILLED, moment, arrays_path, str(folder), repr(recipe)]
    return subprocess.Popen([sys.executable, *arguments])


def assert_finishes_like(
    expected: Path, killed: Path, arrays_path: str, recipe: dict[str, Any]
) -> None:
    pretrained(arrays_path, killed, recipe)
    assert sorted(path.name for path in killed.iterdir()) == [
        "model.safetensors",
        "training.parquet",
    ]
    weights, right = (load_file(part / "model.safetensors") for part in (killed, expected))
    assert weights.keys() == right.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in right.items())
    found, true = (pd.read_parquet(part / "training.parquet") for part in (killed, expected))
    pd.testing.assert_frame_equal(found, true)


@pytest.mark.parametrize(
    ("moment", "epochs_left"),
    [
        ("epoch", [3, 4]),
        ("state", [2, 3, 4]),
        ("weights", []),
        ("table", []),
        ("removal", []),
    ],
)
def test_a_process_that_is_killed_leaves_no_trace_in_the_result(
    moment: str,
    epochs_left: list[int],
    arrays_path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = RECIPES["momentum"]
    expected = pretrained(arrays_path, tmp_path / "expected", recipe)
    killed = tmp_path / "killed"
    process = start_killed(moment, arrays_path, killed, recipe)
    assert process.wait() == -signal.SIGKILL
    assert (killed / "unfinished").exists()
    started: list[int] = []
    batches = training.batches

    def counted(*args: Any, epoch: int, **kwargs: Any) -> Iterator[np.ndarray]:
        started.append(epoch)
        return batches(*args, epoch=epoch, **kwargs)

    monkeypatch.setattr(training, "batches", counted)
    assert_finishes_like(expected, killed, arrays_path, recipe)
    assert started == epochs_left


def test_a_process_may_be_killed_from_outside_at_any_moment(
    arrays_path: str, tmp_path: Path
) -> None:
    recipe = {**RECIPES["adam"], "epochs": 100}
    expected = pretrained(arrays_path, tmp_path / "expected", recipe)
    killed = tmp_path / "killed"
    process = start_killed("outside", arrays_path, killed, recipe)
    while process.poll() is None and not (killed / "unfinished").exists():
        time.sleep(0.001)
    time.sleep(0.1)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert_finishes_like(expected, killed, arrays_path, recipe)


def test_a_training_that_diverges_says_so(wine: datasets.Dataset) -> None:
    with pytest.raises(ValueError, match=r"training loss is (nan|inf) .* lower the learning rate"):
        run(wine, {**BASE, "learning_rate": 1e30})


def test_images_train_as_well() -> None:
    spec = {"source": "bundled", "name": "digits", "form": "image", "test_fraction": 0.9}
    dataset = prepare(spec, seed=1)
    model = models.build_model({"name": "resnet20"}, input_shape=(1, 8, 8), classes=10, seed=1)
    chosen = training.TrainingSettings.from_mapping({**BASE, "epochs": 2})
    history = training.train(model, dataset, chosen, seed=1, device=CPU).history
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learningrate": 1}, "'learningrate'; did you mean 'learning_rate'?"),
        ({"optimizer": "sgdm"}, "optimizer of the training 'sgdm'; did you mean 'sgd'?"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum is an option of 'sgd' only"),
        ({"epochs": -1}, "epochs is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be positive"),
        ({"decay": -1}, "decay is -1"),
        ({"precision": "half"}, "precision of the training 'half'"),
        ({"evaluate_every": 0}, "evaluate_every is 0"),
        ({"stop": {"tolerance": 0, "patience": 2}}, "stop.tolerance is 0; it must be positive"),
        ({"stop": {"tolerance": 1, "patience": 0}}, "stop.patience is 0, below 1"),
        (
            {"stop": {"tolerance": 1, "patience": 2}, "evaluate_every": 2},
            "'stop' looks at every epoch",
        ),
    ],
)
def test_wrong_settings_are_explained(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        training.TrainingSettings.from_mapping({**BASE, **change})


def test_missing_settings_are_named() -> None:
    with pytest.raises(ValueError, match="the setting 'epochs' is missing"):
        training.TrainingSettings.from_mapping({"learning_rate": 1.0})


def test_the_recipe_of_the_paper_is_what_holds_if_nothing_is_said() -> None:
    schema = load_schema(Path(__file__).parents[1] / "schemas" / "config.schema.yaml")
    defaults = {
        name: part["default"]
        for name, part in schema["$defs"]["run"]["properties"]["training"]["properties"].items()
        if "default" in part
    }
    recipe = {**defaults, "epochs": 500, "milestones": [200, 400]}
    chosen = training.TrainingSettings.from_mapping(recipe)
    assert (chosen.optimizer, chosen.batch_size) == ("sgd", 128)
    assert (chosen.momentum, chosen.weight_decay) == (0.0, 0.0)
    rates = [chosen.rate(epoch) for epoch in (1, 200, 201, 400, 401, 500)]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.001, 0.001, 1e-4, 1e-4])


def test_pretrained_weights_may_be_taken_as_they_are(arrays_path: str, tmp_path: Path) -> None:
    folder = pretrained(arrays_path, tmp_path / "run", {**BASE, "epochs": 0})
    spec = {"name": "mlp", "widths": [6]}
    seed = training.seeds.integer_seed(5, "model")
    initial = models.build_model(spec, input_shape=(13,), classes=3, seed=seed)
    model = models.build_model(spec, input_shape=(13,), classes=3, seed=0)
    assert models.load_weights(folder / "model.safetensors", model)["epoch"] == "0"
    assert_same_weights(model, initial)
    frame = pd.read_parquet(folder / "training.parquet")
    assert frame["epoch"].to_list() == [0]
    assert np.isfinite(frame[["train_loss", "train_accuracy"]].to_numpy()).all()


def test_a_training_stops_at_a_minimum(arrays_path: str, tmp_path: Path) -> None:
    stop = {"tolerance": 0.01, "patience": 3}
    recipe = {**BASE, "epochs": 200, "stop": stop}
    folder = pretrained(arrays_path, tmp_path / "run", recipe)
    history = pd.read_parquet(folder / "training.parquet")
    losses = history["train_loss"].to_numpy()
    spans = np.array([np.ptp(losses[last - 3 : last + 1]) for last in range(3, len(losses))])
    assert spans[-1] <= 0.01
    assert (spans[:-1] > 0.01).all()
    last = int(history["epoch"].iloc[-1])
    assert 4 < last < 200
    model = models.build_model({"name": "mlp", "widths": [6]}, input_shape=(13,), classes=3, seed=0)
    assert models.load_weights(folder / "model.safetensors", model)["epoch"] == str(last)
    # The same steps as without the criterion, and a run may go on from there.
    other = pretrained(arrays_path, tmp_path / "other", {**BASE, "epochs": last})
    weights, right = (load_file(part / "model.safetensors") for part in (folder, other))
    assert all(torch.equal(weights[name], tensor) for name, tensor in right.items())
    parent_path = str(folder / "model.safetensors")
    after = {**BASE, "epochs": last + 2}
    child = pretrained(arrays_path, tmp_path / "child", after, parent_path=parent_path)
    assert pd.read_parquet(child / "training.parquet")["epoch"].to_list() == [last + 1, last + 2]


def test_no_minimum_is_said(wine: datasets.Dataset, caplog: pytest.LogCaptureFixture) -> None:
    run(wine, {**BASE, "stop": {"tolerance": 1e-9, "patience": 2}})
    assert "not a minimum by A.4" in caplog.text


def test_all_data_are_evaluated_as_often_as_asked(wine: datasets.Dataset) -> None:
    model, history = run(wine, {**BASE, "epochs": 8})
    same, seldom = run(wine, {**BASE, "epochs": 8, "evaluate_every": 3})
    assert_same_weights(model, same)
    assert seldom["epoch"].to_list() == [0, 3, 6, 8]
    pd.testing.assert_frame_equal(
        seldom, history.iloc[[0, 3, 6, 8]].reset_index(drop=True), check_exact=True
    )


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_as_well(precision: str, wine: datasets.Dataset) -> None:
    recipe = {**BASE, "epochs": 30}
    exact, right = run(wine, recipe)
    model, history = run(wine, {**recipe, "precision": precision})
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    weights = list(zip(model.parameters(), exact.parameters(), strict=True))
    assert not all(torch.equal(*pair) for pair in weights)
    # bfloat16 keeps 8 bits, that is 0.4 %, of each number.
    np.testing.assert_allclose(
        history["train_loss"].iloc[-1], right["train_loss"].iloc[-1], rtol=0.1
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_on_a_gpu_learns_and_repeats(precision: str, wine: datasets.Dataset) -> None:
    recipe = {**BASE, "epochs": 30, "precision": precision}
    with training.deterministic():
        first, history = run(wine, recipe, device=torch.device("cuda"))
        again, _ = run(wine, recipe, device=torch.device("cuda"))
    assert_same_weights(first, again)
    assert history["train_accuracy"].iloc[-1] > 0.95


def test_texts_train_as_well() -> None:
    # Class 1 where token 7 occurs.
    rng = np.random.default_rng(1)
    ids = rng.integers(1, 7, (64, 6))
    targets = rng.integers(0, 2, 64)
    ids[targets == 1, rng.integers(0, 4, 64)[targets == 1]] = 7
    ids[::3, 4:] = datasets.PADDING
    texts = datasets.Dataset(ids, targets, ids[:0], targets[:0], 2, {}, "text", vocabulary=8)
    spec = {"name": "bert", "hidden_size": 16, "layers": 1, "intermediate_size": 32}
    model = models.build_model(spec, input_shape=(6,), classes=2, vocabulary=8, seed=1)
    chosen = training.TrainingSettings.from_mapping(
        {**BASE, "epochs": 15, "learning_rate": 0.01, "batch_size": 16, "optimizer": "adam"}
    )
    history = training.train(model, texts, chosen, seed=1, device=CPU).history
    assert history["train_accuracy"].iloc[-1] > 0.95


class ImagesAndTexts(nn.Module):
    """A linear map of each, for the contrastive loss."""

    def __init__(self) -> None:
        super().__init__()
        self.images = nn.Linear(12, 8)
        self.texts = nn.EmbeddingBag(16, 8)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    @property
    def logit_scale(self) -> torch.Tensor:
        return self.log_scale.exp()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.images(images.flatten(1)), dim=1)

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.texts(ids), dim=1)


def test_images_with_texts_train_as_well() -> None:
    rng = np.random.default_rng(1)
    images = rng.standard_normal((16, 3, 2, 2)).astype(np.float32)
    ids = rng.permuted(np.tile(np.arange(16), (16, 1)), axis=1)[:, :4]
    pairs = datasets.Dataset(images, ids, images[:0], ids[:0], 0, {}, "image_text")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = ImagesAndTexts()
    chosen = training.TrainingSettings.from_mapping(
        {**BASE, "epochs": 60, "learning_rate": 0.05, "batch_size": 8, "optimizer": "adam"}
    )
    history = training.train(model, pairs, chosen, loss="contrastive", seed=1, device=CPU).history
    assert history["train_loss"].iloc[-1] < 0.2 * history["train_loss"].iloc[0]
    assert history["train_accuracy"].iloc[-1] > 0.9


class Viewing(nn.Module):
    """A network of images that views what a convolution returns, which is then not to be moved."""

    def __init__(self, view: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Linear(64, 2)
        self.view = view
        self.layouts: set[bool] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.layouts.add(self.conv.weight.is_contiguous(memory_format=torch.channels_last))
        x = torch.relu(self.norm(self.conv(x)))
        return self.last(x.view(len(x), -1) if self.view else x.flatten(1))


def test_images_are_moved_only_for_networks_that_take_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    images = np.random.default_rng(0).integers(0, 255, (24, 3, 6, 6)).astype(np.float32)
    labels = np.arange(24) % 2
    dataset = datasets.Dataset(images, labels, images[:8], labels[:8], 2, {}, "image")
    settings = training.TrainingSettings(epochs=1, batch_size=8)
    weights = []
    for view in (True, False):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = Viewing(view)
        state = torch.get_rng_state()
        with caplog.at_level("INFO", "sgnoise"):
            training.train(model, dataset, settings, seed=0, device=CPU)
        assert torch.equal(torch.get_rng_state(), state)
        assert model.conv.weight.is_contiguous()
        # Three steps, not those of the trial as well.
        assert int(model.norm.get_buffer("num_batches_tracked")) == 3
        assert model.layouts == ({True, False} if view else {True})
        weights.append(model.last.weight.detach())
    torch.testing.assert_close(*weights)
    assert caplog.text.count("does not take images with the channels last") == 1
