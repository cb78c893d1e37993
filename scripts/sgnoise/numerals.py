"""Numbers with their uncertainty: intervals of shares, and a value written with its error."""

from __future__ import annotations

import math

# Two-sided 95 % of a normal law.
Z95 = 1.959963984540054

_MOST_DECIMALS = 6
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def wilson_interval(successes: int, trials: int) -> tuple[float, float, float]:
    """A share and its 95 % interval (Wilson 1927), which is right near 0 and 1, too.

    >>> [round(number, 3) for number in wilson_interval(40, 100)]
    [0.4, 0.309, 0.498]

    Args:
        successes: of the trials.
        trials: how many.

    Returns:
        Share, lower and upper end; NaN without trials.
    """
    if trials == 0:
        return math.nan, math.nan, math.nan
    share, spread = successes / trials, Z95**2 / trials
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    # At the ends rounding could put the share outside.
    return share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def with_error(value: float, error: float) -> str:
    """A value to the second digit of its error; without the error where there is none.

    >>> with_error(0.01803, 0.00487)
    '0.0180 ± 0.0049'
    >>> with_error(3.2e-6, 4.1e-8)
    '(3.200 ± 0.041)×10⁻⁶'
    >>> with_error(0.02, float("nan"))
    '0.02'
    """
    if not (math.isfinite(error) and error > 0):
        return f"{value:.3g}"
    decimals = 1 - math.floor(math.log10(error))
    if decimals > _MOST_DECIMALS or abs(value) >= 1e5:
        exponent = math.floor(math.log10(max(abs(value), error)))
        decimals = max(0, decimals + exponent)
        scale = 10.0**exponent
        power = str(exponent).translate(SUPERSCRIPTS)
        return f"({value / scale:.{decimals}f} ± {error / scale:.{decimals}f})×10{power}"
    decimals = max(0, decimals)
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"
