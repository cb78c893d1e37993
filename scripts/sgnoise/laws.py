"""The symmetric laws that are fitted to noise, one entry each: what the fits and the figures know.

This is the list that everything else reads: the fits, the settings, tables and figures. A further
law is an entry here, in ``LAWS`` and in ``LOOKS``, and its likelihood, density and distribution
function in ``sgnoise.fit_kernels``. All laws are symmetric about a known location and have a scale.

>>> [law.name for law in LAWS.values() if law.shape is None]
['gaussian', 'laplace']
>>> LAWS["stable"].free_parameters, LAWS["stable_shared_alpha"].free_parameters
(2, 1)
>>> LOOKS["stable"].title
'SαS'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Law:
    """A law as the fits know it.

    Attributes:
        name: in settings, tables and results.
        kernel: the constant of ``sgnoise.fit_kernels`` that stands for it there.
        density: up to a factor, with z = (x - location)/scale (cf: the characteristic function).
        shape: name of its shape parameter, or None if it has a scale alone.
        shared: the shape is one number for all parameters, of which each has a scale of its own.
    """

    name: str
    kernel: str
    density: str
    shape: str | None = None
    shared: bool = False

    @property
    def free_parameters(self) -> int:
        """How many a row has; a shape that all rows share is not counted."""
        return 1 if self.shape is None or self.shared else 2


@dataclass(frozen=True)
class Look:
    """A law as readers see it, apart from ``Law`` so that another colour reruns no fit.

    Attributes:
        title: in text and legends.
        heading: of a column of a table.
        colour: of its line, in hexadecimal digits, one of ``sgnoise.plots.SERIES``.
        line: style of its line, as matplotlib names it.
    """

    title: str
    heading: str
    colour: str
    line: Literal["-", "--", "-.", ":"]


LAWS = {
    law.name: law
    for law in (
        Law("gaussian", "GAUSSIAN", "exp(-z^2/2)"),  # scale: the standard deviation
        Law("stable", "STABLE", "cf exp(-|scale u|^alpha)", "alpha"),
        # The paper's "SaS const alpha" (Table 2).
        Law("stable_shared_alpha", "STABLE", "cf exp(-|scale u|^alpha)", "alpha", shared=True),
        Law("student_t", "STUDENT_T", "(1 + z^2/nu)^(-(nu + 1)/2)", "degrees_of_freedom"),
        Law("generalised_gaussian", "GENERALISED_GAUSSIAN", "exp(-|z|^shape)", "shape"),
        Law("laplace", "LAPLACE", "exp(-|z|)"),
        Law(
            "normal_inverse_gaussian",
            "NORMAL_INVERSE_GAUSSIAN",
            "K1(steepness scale r)/r, r^2 = 1 + z^2",
            "steepness",
        ),
    )
}

LOOKS = {
    "gaussian": Look("Gaussian", "Gauss", "#d55e00", "--"),
    "stable": Look("SαS", "SαS", "#0072b2", "-"),
    "stable_shared_alpha": Look("SαS, one α for all", "SαS const α", "#3a8fb7", "-."),
    "student_t": Look("Student's t", "Student's t", "#009e73", ":"),
    "generalised_gaussian": Look("generalised Gaussian", "Gen. Gauss", "#a8578a", "-."),
    "laplace": Look("Laplace", "Laplace", "#b07d00", ":"),
    "normal_inverse_gaussian": Look("normal inverse Gaussian", "NIG", "#333333", "--"),
}
