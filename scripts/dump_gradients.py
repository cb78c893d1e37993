"""Dump the gradients of sampled parameters, of each training sample or of each mini-batch."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sgnoise import devices, gradients, losses, models, noise, seeds, store
from sgnoise.data import datasets
from sgnoise.jobs import running_job
from sgnoise.progress import logger, track

# Samples that pass through the network together.
CHUNK = 128
# Largest row group in bytes.
ROW_GROUP_BYTES = 2**25


def dump_gradients(
    *,
    arrays_path: str,
    model_path: str,
    gradients_path: str,
    model: Mapping[str, Any],
    loss: str,
    mode: str,
    uniform: int,
    per_layer: int,
    batch_size: int | None,
    draws: int | None,
    study: str,
    run: str,
    seed: int,
    device: str,
    threads: int,
) -> None:
    """Write the gradients of a sample of the parameters over the training data.

    Args:
        arrays_path: the data set.
        model_path: the weights.
        gradients_path: Parquet to write: keys, ``value``, ``full_gradient``, ``gradient``.
        model: see ``sgnoise.models.build_model``.
        loss: see ``sgnoise.losses``.
        mode: ``per_sample``: the gradient for each training sample, normalisation by running
            statistics; ``mini_batch``: for each mini-batch of passes through the data, batch
            normalisation by the statistics of the mini-batch.
        uniform: parameters sampled from the whole network.
        per_layer: parameters sampled from each layer.
        batch_size: of the mini-batches, where these are asked for.
        draws: the least number of mini-batches, rounded up to whole passes through the data.
        study: name of the study.
        run: name of the run.
        seed: of the sample of parameters and of the mini-batches.
        device: ``cpu``, ``cuda``, or ``auto``.
        threads: of the CPU.

    Raises:
        ValueError: an unknown mode, or no mini-batches to take.
    """
    if mode not in ("per_sample", "mini_batch"):
        raise ValueError(f"unknown mode of gradients {mode!r} (valid: per_sample, mini_batch)")
    chosen_device = devices.resolve_device(device)
    dataset = datasets.load(arrays_path)
    network = models.build_model(
        model,
        input_shape=dataset.input_shape,
        classes=dataset.classes,
        vocabulary=dataset.vocabulary,
        seed=0,
        fill=False,
    )
    models.load_weights(model_path, network)
    network.to(chosen_device)
    objective = losses.loss_function(loss, network)
    sample = gradients.sample_parameters(
        network, uniform=uniform, per_layer=per_layer, seed=seeds.integer_seed(seed, "sample")
    )
    settings = {"run": run, "mode": mode, "uniform": uniform, "per_layer": per_layer}
    # Of a sample's gradient TF32 leaves one digit: rounding decides which ReLU is open.
    with devices.cpu_threads(threads), devices.full_precision():
        if mode == "per_sample":
            parts = _per_sample(network, objective, dataset, sample)
            width = dataset.size("train")
        else:
            if batch_size is None or draws is None:
                raise ValueError("gradients of mini-batches need 'batch_size' and 'draws'")
            settings["batch_size"] = batch_size
            samples = dataset.size("train")
            if batch_size > samples:
                raise ValueError(
                    f"batch_size is {batch_size}, but {arrays_path} has {samples} training samples "
                    "only"
                )
            in_a_pass = samples // batch_size
            passes = -(-draws // in_a_pass)
            width = passes * in_a_pass
            parts = _mini_batches(
                network, objective, dataset, sample, chosen_device, batch_size, passes, seed
            )
        provenance = store.provenance(study=study, seed=seed, **settings)
        _write(gradients_path, network, sample, parts, width, provenance)
    logger.info("%d gradients of %d parameters", width, len(sample))


def _per_sample(
    network: torch.nn.Module,
    loss: losses.Loss,
    dataset: datasets.Dataset,
    sample: gradients.ParameterSample,
) -> Iterator[np.ndarray]:
    """(parameters, samples) of one chunk of the samples after another."""
    engine = gradients.PerSampleGradients(network, loss, sample)
    chunks = track(range(0, dataset.size("train"), CHUNK), "chunks of samples")
    arrays = (dataset.batch("train", slice(first, first + CHUNK)) for first in chunks)
    batches = ((torch.from_numpy(inputs), torch.from_numpy(targets)) for inputs, targets in arrays)
    return engine.stream(batches, together=CHUNK)


def _mini_batches(
    network: torch.nn.Module,
    loss: losses.Loss,
    dataset: datasets.Dataset,
    sample: gradients.ParameterSample,
    device: torch.device,
    batch_size: int,
    passes: int,
    seed: int,
) -> Iterator[np.ndarray]:
    """(parameters, 1) of one mini-batch after another."""
    engine = gradients.MiniBatchGradients(network, loss, sample, batch_statistics=True)
    samples = dataset.size("train")
    batches = noise.mini_batches_of_passes(samples, batch_size, passes=passes, seed=seed)
    for rows in track(batches, "mini-batches", passes * (samples // batch_size)):
        inputs, targets = dataset.batch("train", rows)
        found = engine(torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device))
        yield found.cpu().numpy()[:, None]


def _write(
    path: str,
    network: torch.nn.Module,
    sample: gradients.ParameterSample,
    parts: Iterator[np.ndarray],
    width: int,
    provenance: Mapping[str, Any],
) -> None:
    """Gather the columns, which come part by part, and write them row group by row group.

    The parts wait in a file, so that memory holds one part and one row group at a time.
    """
    values = sample.values(network)
    keys = pa.Table.from_pandas(sample.frame, preserve_index=False)
    schema = pa.schema(
        [
            *keys.schema,
            pa.field("value", pa.float32()),
            pa.field("full_gradient", pa.float32()),
            pa.field("gradient", pa.list_(pa.float32(), width)),
        ]
    )
    step = max(1, ROW_GROUP_BYTES // (4 * width))
    with (
        tempfile.TemporaryFile(dir=Path(path).parent, prefix=".gradients.") as spool,
        store.table_writer(path, schema, provenance) as writer,
    ):
        edges = [0]
        for part in parts:
            spool.write(np.ascontiguousarray(part, dtype=np.float32).data)
            edges.append(edges[-1] + part.shape[1])
        spool.flush()
        for first in range(0, len(sample), step):
            last = min(first + step, len(sample))
            block = np.empty((last - first, width), np.float32)
            for start, stop in pairwise(edges):
                # A part is (parameters, stop - start) and follows all columns before it.
                begin = start * len(sample) + first * (stop - start)
                size = block[:, start:stop].nbytes
                read = np.frombuffer(os.pread(spool.fileno(), size, 4 * begin), np.float32)
                block[:, start:stop] = read.reshape(last - first, stop - start)
            full = block.mean(axis=1, dtype=np.float64).astype(np.float32)
            table = keys.slice(first, step)
            table = table.append_column("value", pa.array(values[first:last]))
            table = table.append_column("full_gradient", pa.array(full))
            table = table.append_column("gradient", store.list_column(block))
            writer.write_table(table.cast(writer.schema))


if __name__ == "__main__":
    with running_job() as job:
        dump_gradients(
            arrays_path=job.input.arrays,
            model_path=job.input.model,
            gradients_path=job.output.gradients,
            model=job.params.model,
            loss=job.params.loss,
            **job.params.sampling,
            batch_size=job.params.batch_size,
            draws=job.params.draws,
            study=job.params.study,
            run=job.params.run,
            seed=job.params.seed,
            device=job.params.device,
            threads=job.threads,
        )
