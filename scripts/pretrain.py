"""Train a network to the checkpoint at which its gradient noise is to be measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgnoise import devices, models, seeds, store, training
from sgnoise.data import datasets
from sgnoise.files import remove_partial
from sgnoise.jobs import running_job
from sgnoise.progress import logger


def pretrain(
    *,
    arrays_path: str,
    parent_path: str | None,
    model_path: str,
    training_path: str,
    resume_path: str,
    model: Mapping[str, Any],
    code: Sequence[str | None],
    loss: str,
    recipe: Mapping[str, Any],
    study: str,
    run: str,
    seed: int,
    device: str,
    threads: int,
) -> None:
    """Train, and write the weights and the course of the training.

    Args:
        arrays_path: the data set.
        parent_path: weights of another run to continue from, with the last epoch of that run; the
            runs of one family share ``seed``, hence the order of the samples.
        model_path: safetensors to write: parameters, buffers, and the state of the optimizer.
        training_path: Parquet to write; see ``sgnoise.training.train``. A run with a parent has
            the epochs after its parent's only.
        resume_path: where an unfinished training keeps its state; removed at the end.
        model: see ``sgnoise.models.build_model``; pre-trained weights are those of epoch 0.
        code: digests of the code and files that the network is made of; by another one, an
            unfinished training is started anew.
        loss: see ``sgnoise.losses``.
        recipe: see ``sgnoise.training.TrainingSettings``.
        study: name of the study.
        run: name of the run.
        seed: of the initial weights and of the order of the samples.
        device: ``cpu``, ``cuda``, or ``auto``.
        threads: of the CPU.
    """
    for path in (model_path, training_path, resume_path):
        remove_partial(path)
    dataset = datasets.load(arrays_path)
    settings = training.TrainingSettings.from_mapping(recipe)
    network = models.build_model(
        model,
        input_shape=dataset.input_shape,
        classes=dataset.classes,
        vocabulary=dataset.vocabulary,
        seed=seeds.integer_seed(seed, "model"),
        fill=parent_path is None,
    )
    logger.info("%d weights", sum(parameter.numel() for parameter in network.parameters()))
    with devices.cpu_threads(threads), training.deterministic():
        trained = training.train(
            network,
            dataset,
            settings,
            seed=seed,
            device=devices.resolve_device(device),
            loss=loss,
            parent_path=parent_path,
            resume_path=resume_path,
            resume_key=json.dumps([dict(model), list(code)], sort_keys=True),
        )
    provenance = store.provenance(
        study=study, seed=seed, run=run, model=dict(model), loss=loss, training=dict(recipe)
    )
    models.save_weights(
        model_path,
        network,
        metadata={"epoch": str(trained.epoch), "sgnoise": json.dumps(provenance, sort_keys=True)},
        extra=trained.state,
    )
    store.write_table(training_path, trained.history, provenance)
    Path(resume_path).unlink(missing_ok=True)


if __name__ == "__main__":
    with running_job() as job:
        pretrain(
            arrays_path=job.input.arrays,
            parent_path=job.input.get("parent_model"),
            model_path=job.output.model,
            training_path=job.output.training,
            # Beside the output, but not an output: those are removed when a job fails.
            resume_path=f"{job.output.model}.unfinished",
            model=job.params.model,
            code=[job.params.code, job.params.network_code, job.params.weights],
            loss=job.params.loss,
            recipe=job.params.training,
            study=job.params.study,
            run=job.params.run,
            seed=job.params.seed,
            device=job.params.device,
            threads=job.threads,
        )
