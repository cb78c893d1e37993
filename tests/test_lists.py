"""One list for each kind of thing: everything that names one agrees with it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sgnoise import (
    controls,
    fitting,
    library_networks,
    losses,
    measuring,
    models,
    noise,
    plots,
    training,
)
from sgnoise import fit_kernels as kernels
from sgnoise.data import images, sources
from sgnoise.escape import problem
from sgnoise.laws import LAWS, LOOKS
from sgnoise.settings import load_schema

PATH = Path(__file__).parents[1] / "schemas" / "config.schema.yaml"
SCHEMA = load_schema(PATH)


def test_each_law_has_a_kernel_of_its_own() -> None:
    codes = [getattr(kernels, law.kernel) for law in LAWS.values() if not law.shared]
    assert len(set(codes)) == len(codes)


def test_each_law_can_be_told_from_the_others() -> None:
    assert list(LOOKS) == list(LAWS)
    assert {look.colour for look in LOOKS.values()} <= set(plots.SERIES)
    assert len({(look.colour, look.line) for look in LOOKS.values()}) == len(LAWS)
    for kind in ("title", "heading"):
        assert len({getattr(look, kind) for look in LOOKS.values()}) == len(LAWS)


@pytest.mark.parametrize("law", LAWS)
def test_a_law_is_fitted_by_its_name(law: str) -> None:
    fit = fitting.fit_law(law, np.random.default_rng(0).standard_t(3, (3, 200)))
    assert fit.law == law
    assert fit.free_parameters == LAWS[law].free_parameters
    shape = LAWS[law].shape
    assert set(fit.parameters) == {"scale", "scale_se", "location"} | (
        set() if shape is None else {shape, f"{shape}_se"}
    )


def test_a_function_of_a_law_fits_that_law() -> None:
    noise = np.random.default_rng(0).standard_t(3, (3, 200))
    functions = {
        name.removeprefix("fit_"): function
        for name, function in vars(fitting).items()
        if name.startswith("fit_") and name != "fit_law"
    }
    assert functions.keys() <= LAWS.keys()
    for law, function in functions.items():
        expected = fitting.fit_law(law, noise)
        for name, values in function(noise).parameters.items():
            np.testing.assert_array_equal(values, expected.parameters[name])


def test_unknown_law() -> None:
    with pytest.raises(ValueError, match="unknown law 'studentt'; did you mean 'student_t'"):
        fitting.fit_law("studentt", np.zeros((1, 20)))


def test_the_schema_lists_no_laws_itself() -> None:
    # A further law is not one more file to edit.
    assert "enum" not in yaml.safe_load(PATH.read_text(encoding="utf-8"))["$defs"]["law"]
    assert set(SCHEMA["properties"]["fits"]["properties"]["laws"]["default"]) <= set(LAWS)


RUN, ESCAPE = SCHEMA["$defs"]["run"]["properties"], SCHEMA["properties"]["escape"]["properties"]
MODEL = RUN["model"]["properties"]["name"]["anyOf"]


@pytest.mark.parametrize(
    ("allowed", "known"),
    [
        (SCHEMA["$defs"]["law"]["enum"], LAWS),
        (SCHEMA["$defs"]["control"]["properties"]["law"]["enum"], controls.MEANS),
        (RUN["training"]["properties"]["optimizer"]["enum"], training.OPTIMIZERS),
        (RUN["training"]["properties"]["precision"]["enum"], training.PRECISIONS),
        (RUN["loss"]["enum"], losses.LOSSES),
        (MODEL[0]["enum"], models.NETWORKS),
        (
            MODEL[1]["pattern"].partition("(")[2].partition(")")[0].split("|"),
            library_networks.LIBRARIES,
        ),
        (ESCAPE["activation"]["enum"], problem.ACTIVATIONS),
        (ESCAPE["loss"]["enum"], problem.LOSSES),
        (SCHEMA["$defs"]["source_bundled"]["properties"]["name"]["enum"], sources.BUNDLED),
        (SCHEMA["$defs"]["source_adbench"]["properties"]["name"]["enum"], sources.ADBENCH),
        (SCHEMA["$defs"]["normalisation"]["enum"], ("data", *images.STATISTICS)),
    ],
    ids=lambda names: ",".join(names)[:40],
)
def test_settings_take_the_names_that_the_library_has(
    allowed: Collection[str], known: Collection[str]
) -> None:
    assert sorted(allowed) == sorted(known)


def test_settings_and_readers_of_data_agree() -> None:
    branches = [
        SCHEMA["$defs"][branch["$ref"].removeprefix("#/$defs/")]
        for branch in SCHEMA["$defs"]["dataset"]["oneOf"]
    ]
    assert [branch["properties"]["source"]["const"] for branch in branches] == list(sources.SOURCES)
    for branch in branches:
        source = branch["properties"]["source"]["const"]
        reader = sources.SOURCES[source]
        bound = reader.keywords if isinstance(reader, partial) else {}
        _, *taken = inspect.signature(reader).parameters.values()
        assert {each.name for each in taken} - {*bound} == {*branch["properties"]} - {"source"}
        # By hand as in a study, but that nothing is held back for the test unless it is asked for.
        by_hand = {
            each.name: each.default
            for each in taken
            if each.default is not each.empty and each.name not in bound
        }
        nothing_held_back = {"test_fraction": 0.0} if "test_fraction" in by_hand else {}
        assert by_hand == {**defaults_of(branch), **nothing_held_back}, source


def defaults_of(branch: dict[str, Any]) -> dict[str, Any]:
    """What holds for the keys of a source that a study leaves out."""
    parts = {
        key: SCHEMA["$defs"].get(part.get("$ref", "").removeprefix("#/$defs/"), {}) | part
        for key, part in branch["properties"].items()
    }
    return {key: part["default"] for key, part in parts.items() if "default" in part}


FITS, NOISE = (
    SCHEMA["properties"]["fits"]["properties"],
    SCHEMA["properties"]["noise"]["properties"],
)


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        (measuring.measure, FITS | NOISE),
        (measuring.Probe, NOISE),
        (noise.mini_batch_noise, NOISE),
        (training.train, RUN),
        (training.TrainingSettings, RUN["training"]["properties"]),
        (problem.make_problem, ESCAPE),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_a_function_takes_for_granted_is_what_a_study_does(
    function: Callable[..., Any], settings: dict[str, Any]
) -> None:
    """Functions that are called by hand as well have defaults; they are the schema's.

    But for the laws: by hand, three are fitted.
    """
    shared = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty and "default" in settings.get(name, {})
    }
    assert shared
    for name in shared.keys() - {"laws"}:
        given = shared[name]
        found = list(given) if isinstance(given, tuple) else given
        assert found == settings[name]["default"], name
