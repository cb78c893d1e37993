"""Escapes of SGD from a minimum of a small network: the problem, the simulation, the landscape.

``sgnoise.escape.theories`` and ``sgnoise.escape.survival`` say what is made of escape times.
"""

from sgnoise.escape.kernels import data_loss
from sgnoise.escape.landscape import basin_edges, hessian_top, loss_curvature, loss_gradient
from sgnoise.escape.problem import (
    ACTIVATIONS,
    LOSSES,
    Minimum,
    Problem,
    initial_parameters,
    layers_of,
    load_minimum,
    make_problem,
)
from sgnoise.escape.simulation import Descent, Escapes, descend, escape_times

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "Descent",
    "Escapes",
    "Minimum",
    "Problem",
    "basin_edges",
    "data_loss",
    "descend",
    "escape_times",
    "hessian_top",
    "initial_parameters",
    "layers_of",
    "load_minimum",
    "loss_curvature",
    "loss_gradient",
    "make_problem",
]
