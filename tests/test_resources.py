"""What jobs ask for: estimates that grow with the work, and the table of the paper's study."""

from pathlib import Path
from typing import Any

import pytest

import list_resources
from sgnoise import resources

ROOT = Path(__file__).parent.parent
IMAGES = {"source": "cifar10"}


def run(**changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": "resnet18"},
        "training": {"epochs": 1, "batch_size": 128},
        "gradients": {"mode": "per_sample", "uniform": 10_000, "per_layer": 100},
        "batch_sizes": [128],
    } | changes


def test_more_epochs_take_longer_and_a_gpu_less() -> None:
    short = resources.training_need(run(), IMAGES, "cpu")
    long = resources.training_need(run(training={"epochs": 10, "batch_size": 128}), IMAGES, "cpu")
    fast = resources.training_need(run(), IMAGES, "cuda")
    assert long.minutes > 5 * short.minutes
    assert fast.minutes < short.minutes
    assert (short.gpus, fast.gpus) == (0, 1)


def test_a_subset_is_what_counts() -> None:
    assert resources.training_samples(IMAGES) == 50_000
    assert resources.training_samples(IMAGES | {"subset": {"train": 500}}) == 500
    few = resources.training_need(run(), IMAGES | {"subset": {"train": 500}}, "cpu")
    assert few.minutes < resources.training_need(run(), IMAGES, "cpu").minutes


def test_passes_for_mini_batches_are_counted() -> None:
    gradients = run()["gradients"] | {"mode": "mini_batch"}
    spec = IMAGES | {"subset": {"train": 2000}}
    one = resources.gradients_need(run(), spec, "cpu", 1000)
    # 15 mini-batches a pass: 67 passes for 1,000 draws.
    many = resources.gradients_need(run(gradients=gradients), spec, "cpu", 1000)
    assert many.minutes > 10 * one.minutes


def test_a_network_of_the_users_own_is_taken_for_a_large_one() -> None:
    own = resources.training_need(run(model={"name": "networks:build"}), IMAGES, "cpu")
    assert own.minutes > resources.training_need(run(), IMAGES, "cpu").minutes


def test_memory_grows_with_what_is_held() -> None:
    assert resources.fit_need(20_000, 1000, 7).memory_mb > (
        resources.fit_need(10_000, 1000, 7).memory_mb
    )
    assert resources.noise_need(10_000, 50_000, 2000).memory_mb > (
        resources.noise_need(10_000, 50_000, 1000).memory_mb
    )


def test_learning_rates_in_one_job_take_longer() -> None:
    escape = list_resources.read_study()["escape"] | {"max_iterations": 10**5}
    spec = {"source": "adbench"}
    together, alone = (
        resources.escape_need(spec, escape | {"rates_per_job": rates}) for rates in (None, 1)
    )
    assert resources.rates_per_job(escape) == 8
    assert together.minutes > 5 * alone.minutes
    by_hand = escape | {"learning_rates": [0.1, 0.2, 0.3], "rates_per_job": 2}
    assert resources.rates_per_job(by_hand) == 2


@pytest.mark.parametrize("study", ["config", "studies/laptop", "studies/paper"])
def test_every_study_fits_a_week(study: str) -> None:
    jobs = list(list_resources.list_jobs(list_resources.read_study(ROOT / f"{study}.yaml")))
    assert len(jobs) > 20
    assert all(10 <= need.minutes <= 7 * 24 * 60 for _, _, need in jobs)
    gpus = {rule for rule, _, need in jobs if need.gpus}
    assert gpus == ({"pretrain", "dump_gradients"} if study == "studies/paper" else set())


def test_the_table_of_the_paper_is_up_to_date() -> None:
    study = list_resources.read_study(ROOT / "studies" / "paper.yaml")
    # python scripts/list_resources.py studies/paper.yaml prints it.
    assert list_resources.table(study) in (ROOT / "docs" / "resources.md").read_text("utf-8")
