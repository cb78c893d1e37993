"""Train a network to the checkpoint at which its gradient noise is to be measured."""

import json
from collections.abc import Mapping
from typing import Any

from sgnoise import datasets, models, seeds, store, training
from sgnoise.jobs import logger, running_job


def pretrain(
    *,
    arrays_path: str,
    parent_path: str | None,
    model_path: str,
    training_path: str,
    resume_path: str,
    model: Mapping[str, Any],
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
        resume_path: where an unfinished training keeps its state.
        model: see ``sgnoise.models.build_model``.
        recipe: see ``sgnoise.training.TrainingSettings``.
        study: name of the study.
        run: name of the run.
        seed: of the initial weights and of the order of the samples.
        device: ``cpu``, ``cuda``, or ``auto``.
        threads: of the CPU.
    """
    dataset = datasets.load(arrays_path)
    settings = training.TrainingSettings.from_mapping(recipe)
    network = models.build_model(
        model,
        input_shape=dataset.input_shape,
        classes=dataset.classes,
        seed=seeds.integer_seed(seed, "model"),
    )
    logger.info("%d weights", sum(parameter.numel() for parameter in network.parameters()))
    with models.cpu_threads(threads), training.deterministic():
        history, optimizer = training.train(
            network,
            dataset,
            settings,
            seed=seed,
            device=models.resolve_device(device),
            parent_path=parent_path,
            resume_path=resume_path,
        )
    provenance = store.provenance(
        study=study, seed=seed, run=run, model=dict(model), training=dict(recipe)
    )
    models.save_weights(
        model_path,
        network,
        metadata={"epoch": str(settings.epochs), "sgnoise": json.dumps(provenance, sort_keys=True)},
        extra=training.optimizer_tensors(optimizer),
    )
    store.write_table(training_path, history, provenance)


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
            recipe=job.params.training,
            study=job.params.study,
            run=job.params.run,
            seed=job.params.seed,
            device=job.params.device,
            threads=job.threads,
        )
