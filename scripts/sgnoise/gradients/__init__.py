"""Gradients of sampled parameters of a network, for each sample or for each mini-batch."""

from sgnoise.gradients.engine import (
    STRATA,
    Loss,
    MiniBatchGradients,
    ParameterSample,
    PerSampleGradients,
    mini_batch_gradients,
    per_sample_gradients,
    prefers_channels_last,
    sample_parameters,
)

__all__ = [
    "STRATA",
    "Loss",
    "MiniBatchGradients",
    "ParameterSample",
    "PerSampleGradients",
    "mini_batch_gradients",
    "per_sample_gradients",
    "prefers_channels_last",
    "sample_parameters",
]
