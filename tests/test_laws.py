"""One list of the laws: everything that names a law agrees with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from sgnoise import controls, fitting, plots
from sgnoise import fit_kernels as kernels
from sgnoise.laws import LAWS, LOOKS
from sgnoise.settings import load_schema

SCHEMA = Path(__file__).parents[1] / "schemas" / "config.schema.yaml"


def test_each_law_has_a_kernel_of_its_own() -> None:
    codes = [getattr(kernels, law.kernel) for law in LAWS.values() if not law.shared]
    assert len(set(codes)) == len(codes)


def test_each_law_can_be_told_from_the_others() -> None:
    assert list(LOOKS) == list(LAWS)
    assert {look.colour for look in LOOKS.values()} == set(plots.SERIES)
    for kind in ("title", "heading"):
        assert len({getattr(look, kind) for look in LOOKS.values()}) == len(LAWS)


@pytest.mark.parametrize("law", LAWS)
def test_a_law_is_fitted_by_its_name_and_by_its_function(law: str) -> None:
    noise = np.random.default_rng(0).standard_t(3, (3, 200))
    fit, other = fitting.fit_law(law, noise), getattr(fitting, f"fit_{law}")(noise)
    assert fit.law == law
    assert fit.free_parameters == LAWS[law].free_parameters
    shape = LAWS[law].shape
    assert set(fit.parameters) == {"scale", "scale_se", "location"} | (
        set() if shape is None else {shape, f"{shape}_se"}
    )
    for name, values in fit.parameters.items():
        np.testing.assert_array_equal(values, other.parameters[name])


def test_unknown_law() -> None:
    with pytest.raises(ValueError, match="unknown law 'studentt'; did you mean 'student_t'"):
        fitting.fit_law("studentt", np.zeros((1, 20)))


def test_the_settings_take_the_laws_that_there_are() -> None:
    schema = load_schema(SCHEMA)
    assert schema["$defs"]["law"]["enum"] == list(LAWS)
    assert set(schema["properties"]["fits"]["properties"]["laws"]["default"]) <= set(LAWS)
    # The file itself lists none: a further law is not one more place to edit.
    assert "enum" not in yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))["$defs"]["law"]
    control = schema["$defs"]["control"]["properties"]["law"]["enum"]
    assert control == list(controls.MEANS)
