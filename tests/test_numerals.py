"""Intervals of shares, and numbers with their errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sgnoise.numerals import wilson_interval, with_error


@given(trials=st.integers(1, 500), data=st.data())
@settings(max_examples=50, deadline=None)
def test_wilson_interval_agrees_with_scipy(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    share, low, high = wilson_interval(successes, trials)
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert share == successes / trials
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= share <= high <= 1
    assert low < high


def test_no_trials_have_no_share() -> None:
    assert all(map(math.isnan, wilson_interval(0, 0)))


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (0.018, 0.0049, "0.0180 ± 0.0049"),
        (0.0038, 3.83e-6, "(3.8000 ± 0.0038)×10⁻³"),
        (3.2e-6, 4.1e-8, "(3.200 ± 0.041)×10⁻⁶"),
        (2.5e6, 3.1e5, "(2.50 ± 0.31)×10⁶"),
        (0.02, np.nan, "0.02"),
        (0.0, 0.0, "0"),
        (123.4, 21.0, "123 ± 21"),
        (-1.4142, 0.012, "-1.414 ± 0.012"),
    ],
)
def test_values_are_rounded_to_their_error(value: float, error: float, expected: str) -> None:
    assert with_error(value, error) == expected
