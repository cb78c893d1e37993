"""Stochastic gradient noise: measuring it, fitting laws to it, and what it does to SGD.

Measure a network, in order of how much they do for you:

    measure(model, loss, data)     a table: the fit of each law to the noise of each parameter
    Probe(model, loss, data)       the same during your own training: alpha over time
    gradients, noise               the two steps apart: per_sample_gradients, mini_batch_noise
    datasets, sources              the data sets of the workflow, and what they are read from

Fit laws to numbers, one row or many:

    fit_stable, fit_gaussian, fit_student_t, fit_laplace, fit_generalised_gaussian,
    fit_normal_inverse_gaussian, fit_stable_shared_alpha, fit_law (by name)
                                   -> a Fit: to_frame(), confidence_interval(), plot()
    stable                         density, distribution function, quantiles, random numbers
    laws                           the list of laws
    goodness                       histograms, sums of squared errors, held-out likelihood
    block_log_moment_alpha, characteristic_function_alpha, quantile_alpha
                                   alpha by other estimators, to compare with

What the noise does to SGD:

    escape                         escape times from a minimum, and theories of them
    sde                            exits of the Levy-driven equation

On a terminal, ``sgnoise fit numbers.csv`` prints a table of laws. What measures a network needs the
extra ``torch``: pip install 'sgnoise[torch]'.
"""

# The public names stand in __init__.pyi alone, which type checkers read as well. Each is imported
# when it is first asked for, so that fits start without torch, and the digest of a script covers
# what the script imports and no more.

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _public() -> dict[str, tuple[str, str, str]]:
    """Module, name there and extra that it needs (or nothing), of each public name."""
    text = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom):
            extra = lines[node.lineno - 1].partition("# needs ")[2]
            for alias in node.names:
                found[alias.asname or alias.name] = (node.module or "", alias.name, extra)
    return found


# What is there if an extra is.
_WITNESSES = {"torch": "torch", "workflow": "snakemake"}


def _missing(extra: str) -> bool:
    return bool(extra) and importlib.util.find_spec(_WITNESSES[extra]) is None


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name != "__version__":
        raise AttributeError(f"module 'sgnoise' has no attribute {name!r}")
    public = _public()
    if name not in public:
        near = difflib.get_close_matches(name, public, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module 'sgnoise' has no attribute {name!r}{hint}", name=name)
    module, attribute, extra = public[name]
    try:
        owner = vars(importlib.import_module(module))
        if attribute in owner:
            value = owner[attribute]
        else:  # a module that its package does not import
            value = importlib.import_module(f"{module}.{attribute}")
    except ModuleNotFoundError as error:
        if not extra or (error.name or "").startswith(__name__):
            raise
        raise ImportError(
            f"sgnoise.{name} needs {error.name}: pip install 'sgnoise[{extra}]'"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All public names but those that need an extra that is not installed."""
    here = [name for name, (_, _, extra) in _public().items() if not _missing(extra)]
    return sorted({*here, *(name for name in globals() if name.startswith("__"))})
