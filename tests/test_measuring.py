"""The noise of a network in one call, and over the course of a training that notices nothing."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import sgnoise
from draw_noise import draw_noise
from dump_gradients import dump_gradients
from fit_noise import fit_noise
from sgnoise import Probe, gradients, measure, models, noise, seeds
from sgnoise.data import datasets, sources
from sgnoise.measuring import CHUNK
from sgnoise.store import PARAMETER_COLUMNS

CLASSES = 3


def data(samples: int = 150) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, 6, generator=generator)
    return inputs, torch.randint(CLASSES, (samples,), generator=generator)


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, CLASSES)
        )


def small(model: nn.Module, given: Any, **options: Any) -> pd.DataFrame:
    settings: dict[str, Any] = {"batch_sizes": [8, 20], "uniform": 12, "per_layer": 4, "draws": 200}
    return measure(model, functional.cross_entropy, given, **(settings | options))


def test_a_row_for_each_parameter_batch_size_and_law() -> None:
    table = small(network(), data(), laws=["gaussian", "stable"])
    sample = gradients.sample_parameters(
        network(), uniform=12, per_layer=4, seed=seeds.integer_seed(0, "sample")
    )
    assert len(table) == len(sample) * 2 * 2
    counts = table.groupby(["parameter_index", "batch_size", "law"]).size()
    assert (counts == 1).all()
    assert list(table.columns[:9]) == [*PARAMETER_COLUMNS, "batch_size", "law"]
    assert {"alpha", "alpha_se", "scale", "held_out_log_likelihood", "sse", "ks", "flag"} <= set(
        table
    )


def test_the_two_steps_apart_give_the_same() -> None:
    model, (inputs, targets) = network(), data()
    table = small(model, (inputs, targets), seed=5)
    sample = gradients.sample_parameters(
        model, uniform=12, per_layer=4, seed=seeds.integer_seed(5, "sample")
    )
    by_sample = gradients.per_sample_gradients(
        model, functional.cross_entropy, inputs, targets, sample
    )
    for batch_size in (8, 20):
        drawn = noise.mini_batch_noise(by_sample, batch_size, 200, seed=5)
        fit = sgnoise.fit_stable(drawn, location=0.0, nan_policy="flag")
        rows = table[(table["law"] == "stable") & (table["batch_size"] == batch_size)]
        np.testing.assert_allclose(rows["alpha"], fit.alpha, rtol=1e-4)
        np.testing.assert_allclose(rows["scale"], fit.scale, rtol=1e-4)


def test_the_workflow_gives_the_same(tmp_path: Path) -> None:
    spec = {"source": "bundled", "name": "wine", "form": "table", "test_fraction": 0.2}
    dataset = sources.prepare(spec, seed=1)
    arrays, weights = str(tmp_path / "arrays.npz"), str(tmp_path / "model.safetensors")
    datasets.save(dataset, arrays, str(tmp_path / "manifest.json"))
    kind = {"name": "mlp", "widths": [6]}
    model = models.build_model(kind, input_shape=dataset.input_shape, classes=3, seed=0)
    models.save_weights(weights, model, metadata={})
    steps: dict[str, Any] = {"study": "test", "run": "r", "seed": 4}
    dump_gradients(
        arrays_path=arrays,
        model_path=weights,
        gradients_path=str(tmp_path / "gradients.parquet"),
        model=kind,
        loss="cross_entropy",
        mode="per_sample",
        uniform=12,
        per_layer=4,
        batch_size=None,
        draws=None,
        device="cpu",
        threads=1,
        **steps,
    )
    draw_noise(
        gradients_path=str(tmp_path / "gradients.parquet"),
        noise_path=str(tmp_path / "noise.parquet"),
        batch_size=8,
        draws=200,
        replacement=False,
        **steps,
    )
    evidence: dict[str, Any] = {
        "laws": ["gaussian", "student_t"],
        "bins": 40,
        "span": "full",
        "scaling": "density",
        "held_out_fraction": 0.25,
    }
    fit_noise(
        noise_path=str(tmp_path / "noise.parquet"),
        fits_path=str(tmp_path / "fits.parquet"),
        study="test",
        run="r",
        batch_size=8,
        threads=1,
        **evidence,
    )
    expected = pd.read_parquet(tmp_path / "fits.parquet")
    found = small(
        model, dataset.batch("train", slice(None)), batch_sizes=[8], seed=4, **evidence
    ).drop(columns="batch_size")
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


class Streamed(IterableDataset):
    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield from zip(*data(), strict=True)


class Listed(Dataset):
    def __len__(self) -> int:
        return 150

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        inputs, targets = data()
        return inputs[index], int(targets[index])


@pytest.mark.parametrize(
    "form",
    [
        lambda: [part.numpy() for part in data()],
        lambda: TensorDataset(*data()),
        lambda: Listed(),
        lambda: DataLoader(TensorDataset(*data()), batch_size=32),
        lambda: DataLoader(Streamed(), batch_size=7),
        lambda: Streamed(),
        lambda: (pair for pair in zip(*(part.split(40) for part in data()), strict=True)),
    ],
)
def test_data_come_in_many_forms(form: Any) -> None:
    expected = small(network(), data())
    pd.testing.assert_frame_equal(small(network(), form()), expected, rtol=1e-3)


def test_progress_is_told_of_tensors_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="sgnoise")
    small(network(), data())
    assert f"batches of samples: {-(-150 // CHUNK)}/2 in " in caplog.text


def test_the_first_samples_alone() -> None:
    inputs, targets = data()
    expected = small(network(), (inputs[:70], targets[:70]))
    loader = DataLoader(TensorDataset(*data()), batch_size=32)
    pd.testing.assert_frame_equal(small(network(), loader, samples=70), expected, rtol=1e-3)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(TypeError, match="data is of type int; it must be a DataLoader, a Dataset"):
        small(network(), 3)
    for message, given in {
        "a batch of the data is a dict; it must be a pair": [{"inputs": 1}],
        "a batch of the data is a list of 3; it must be a pair": [[*data(), 1]],
        "a batch of the data is a Tensor; it must be a pair": [data()[0]],
        "data is of type dict; it must be a DataLoader": dict(zip("xy", data(), strict=True)),
        "data is of type Tensor; it must be": data()[0],
        "data is of type str; it must be": "data.csv",
        "single samples and not batches": DataLoader(TensorDataset(*data()), batch_size=None),
    }.items():
        with pytest.raises(TypeError, match=message):
            small(network(), given)
    with pytest.raises(ValueError, match="150 inputs, but 149 targets"):
        small(network(), (data()[0], data()[1][:-1]))
    with pytest.raises(ValueError, match="batch_size is 151; there are 150 samples"):
        small(network(), data(), batch_sizes=[151])
    with pytest.raises(ValueError, match="batch_size is 8; there are 0 samples"):
        small(network(), [])
    with pytest.raises(ValueError, match=r"unknown law 'stabel'; did you mean 'stable'"):
        small(network(), data(), laws=["stabel"])
    with pytest.raises(ValueError, match="every is 0"):
        Probe(network(), functional.cross_entropy, data(), every=0)
    with pytest.raises(ValueError, match="nothing was measured yet: call step"):
        Probe(network(), functional.cross_entropy, data()).frame()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": nn.Linear}, "model is the class Linear; it must be a network, an object"),
        ({"model": len}, "model is a builtin_function_or_method; it must be a network"),
        ({"loss": nn.CrossEntropyLoss}, r"the class CrossEntropyLoss; give CrossEntropyLoss\(\)"),
        ({"loss": "mse"}, "loss is a str; it must be a function of outputs and targets, such as"),
        ({"uniform": -1}, "uniform is -1; it must be at least 0"),
        ({"per_layer": -1}, "per_layer is -1; it must be at least 0"),
        ({"uniform": 0, "per_layer": 0}, "no weight is chosen; raise one"),
        ({"draws": 0}, "draws is 0; it must be at least 1"),
        ({"samples": 0}, "samples is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"batch_sizes": 32}, r"batch_sizes is 32; it must be a list, such as \[32, 128\]"),
        ({"batch_sizes": []}, r"batch_sizes is \[\]; it must name one at least"),
        ({"batch_sizes": [8, 8]}, "and none twice"),
        ({"batch_sizes": [8.5]}, r"batch_sizes has 8.5, a float; it must be as in \[32, 128\]"),
        ({"laws": "stable"}, "laws is 'stable'; it must be a list, such as"),
        ({"laws": []}, r"laws is \[\]; it must name one at least"),
        ({"laws": ["stabel"]}, "unknown law 'stabel'; did you mean 'stable'"),
        ({"threads": 0}, "threads is 0; it must be at least 1"),
    ],
)
def test_a_wrong_argument_is_named_before_the_gradients_are_taken(
    wrong: dict[str, Any], message: str
) -> None:
    def never(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        assert "threads" in wrong, "the gradients are taken"
        return functional.cross_entropy(outputs, targets)

    given: dict[str, Any] = {"model": network(), "loss": never, "data": data()}
    with pytest.raises((TypeError, ValueError), match=message):
        measure(**(given | {"batch_sizes": [8], "draws": 50} | wrong))
    if not wrong.keys() & {"batch_sizes", "laws", "threads"}:
        with pytest.raises((TypeError, ValueError), match=message):
            Probe(**(given | wrong))


def test_numbers_of_numpy_are_numbers() -> None:
    table = small(network(), data(), batch_sizes=np.array([8, 20]))
    pd.testing.assert_frame_equal(table, small(network(), data()))


@pytest.mark.filterwarnings("default")  # whatever the compiler of torch warns of
def test_a_compiled_network_is_measured_as_the_network_that_it_has_compiled() -> None:
    model = network()
    compiled: Any = torch.compile(model, backend="eager")
    pd.testing.assert_frame_equal(small(compiled, data()), small(model, data()))
    probe = Probe(compiled, functional.cross_entropy, data(), batch_size=8, draws=50)
    probe(1)
    assert set(probe.frame()["layer"]) == {"0", "1", "4"}


class Augmented(Dataset):
    """Draws from all global generators for each sample."""

    def __len__(self) -> int:
        return 150

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = data()
        jitter = random.random() + np.random.standard_normal() + torch.randn(())  # noqa: NPY002
        return inputs[index] + 0.1 * jitter, targets[index]


@pytest.mark.parametrize("own_generator", [False, True])
def test_a_training_does_not_notice_a_probe(own_generator: bool) -> None:
    def train(probed: bool) -> tuple[nn.Sequential, list[Any], Probe | None]:
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        torch.manual_seed(3)
        model = network()
        model[4].weight.requires_grad_(False)
        generator = torch.Generator().manual_seed(4) if own_generator else None
        loader = DataLoader(Augmented(), batch_size=32, shuffle=True, generator=generator)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        loss = functional.cross_entropy
        probe = Probe(model, loss, loader, every=2, uniform=8, draws=100) if probed else None
        seen: list[Any] = []
        for _ in range(2):
            model.train()
            model[1].eval()
            for inputs, targets in loader:
                loss(model(inputs), targets).backward()
                optimizer.step()
                if probe is not None:
                    probe.step()
                seen += [None if p.grad is None else p.grad.clone() for p in model.parameters()]
                seen += [torch.get_rng_state(), np.random.random(), random.random()]  # noqa: NPY002
                seen.append(
                    [
                        (m.training, p.requires_grad)
                        for m, p in zip(model.modules(), model.parameters(), strict=False)
                    ]
                )
                optimizer.zero_grad()
        return model, seen, probe

    (plain, seen, _), (probed, seen_too, probe) = train(False), train(True)
    for (name, value), other in zip(
        plain.state_dict().items(), probed.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    for one, other in zip(seen, seen_too, strict=True):
        same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        assert same
    assert probe is not None
    table = probe.frame()
    assert table["step"].unique().tolist() == [2, 4, 6, 8, 10]
    assert set(PARAMETER_COLUMNS) < set(table)
    assert table.groupby("step").size().nunique() == 1
    by_layer = probe.layers()
    assert by_layer.groupby("step")["layer"].apply(list).tolist() == [["0", "1", "4"]] * 5
    row = by_layer.iloc[0]
    chosen = table[(table["step"] == 2) & (table["layer"] == "0")]
    chosen = chosen[chosen["stratum"] == "per_layer"]
    assert row["alpha_mean"] == pytest.approx(chosen["alpha"].mean())
    assert row["n"] == chosen["alpha"].notna().sum()


def test_a_probe_follows_the_network() -> None:
    model, given = network(), data(3 * CHUNK)
    probe = Probe(model, functional.cross_entropy, given, batch_size=8, uniform=12, per_layer=0)
    probe(0)
    model.load_state_dict({k: v.clone() for k, v in network().state_dict().items()})
    for parameter in model.parameters():  # Other memory: an engine made before must not go on.
        parameter.data = 1.5 * parameter.data
    probe(7)
    after = probe.frame().query("step == 7")
    expected = measure(
        model, functional.cross_entropy, given, [8], uniform=12, per_layer=0, laws=["stable"]
    )
    np.testing.assert_allclose(after["alpha"], expected["alpha"], rtol=1e-6)
    assert not np.allclose(after["scale"], probe.frame().query("step == 0")["scale"])


def test_a_notebook_shows_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small(network(), data())
    assert capsys.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    small(network(), data())
    assert "batches of samples" in capsys.readouterr().err


def test_other_modes_of_autograd_do_not_matter() -> None:
    expected = small(network(), data())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = small(network(), data())
    pd.testing.assert_frame_equal(found, expected)
