"""Maximum-likelihood fits of symmetric laws to the noise of many parameters at once.

Noise is an array (P, M), or a table of P rows: M draws for each of P parameters; every row is
fitted by itself. A list, a Series or an array of one dimension is one row. All laws are symmetric
about a known location and have a scale; ``sgnoise.laws`` lists them with their densities. The
parameters of a law are its shape, if it has one, and its scale.

Location. Noise is the full gradient minus a mini-batch's, so its location is 0, and that is the
default, "zero". Where rows look as if theirs were another, a warning says so: most of their values
lie on one side of 0 (by 6 standard errors, which chance does once in half a billion rows), and the
mean is on the way to the median as well. The last is what tells them from skewed noise, which the
gradients of small batches often are: its median is off 0, but its mean is not. Where the location
is known, give it as a number, ``location=0.0``: then there is no warning. ``location="median"`` is
for data with an unknown centre (the median converges for every alpha, the mean does not for
alpha <= 1), an array gives each row its own. The location is orthogonal to alpha and scale, so that
a good one costs them no precision.

Masks. Of a masked array the values that are not masked are fitted; each row has to keep as many.

Zeros. A parameter behind an inactive unit has noise that is exactly zero in many batches: an atom,
which no density describes. Where two values or more equal the location, they are taken out,
reported as ``zero_fraction``, and the law is fitted to the rest.

A row that cannot be fitted never stops the others: its parameters are NaN and ``flag`` says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgnoise import fit_kernels as kernels
from sgnoise import stable
from sgnoise.estimators import block_log_moment_alpha as block_log_moment_alpha
from sgnoise.estimators import characteristic_function_alpha as characteristic_function_alpha
from sgnoise.estimators import quantile_alpha as quantile_alpha
from sgnoise.laws import LAWS
from sgnoise.messages import unknown_name
from sgnoise.rows import Location, as_rows, in_blocks, locations

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# What ``flag`` can say, in the order of the kernels' status codes.
FLAGS = (
    "",
    "not_finite",  # NaN or infinity among the values (only with nan_policy="flag")
    "all_zero",
    "too_few_values",  # fewer than 20 that are not zero
    "constant",  # more than half of the values that are not zero are one and the same
    "alpha_below_range",  # the likelihood still rises at alpha = 0.5, which is reported
    "shape_at_bound",  # the likelihood still rises at the end of the shape's range
    "not_converged",
)
_FLAG_NAMES = np.array(FLAGS)
MIN_VALUES = kernels.MIN_VALUES

# Standard errors by which the values on one side of the location outnumber those on the other where
# it is suspected to be wrong, and rows that are then looked at closely.
_ONE_SIDED = 6.0
_SUSPECTS = 64

_Array = NDArray[np.float64]
NanPolicy = Literal["raise", "flag"]


@dataclass(frozen=True, eq=False)
class Fit:
    """A law fitted to each of P rows; all arrays have length P.

    ``fit[rows]`` is the fit of some rows, and ``len(fit)`` their number.

    >>> rng = np.random.default_rng(0)
    >>> fit = fit_stable(rng.standard_cauchy((2, 1000)))
    >>> fit
    Fit(stable, 2 rows: median alpha 1.04, median scale 1.05)
    >>> fit[0]
    Fit(stable, 1 row: alpha 1.04 ± 0.037, scale 1.09 ± 0.049)

    Attributes:
        law: its name.
        parameters: the law's parameters by name, standard errors under ``<name>_se``, and the
            location. Each is an attribute too: ``fit.alpha``, ``fit.scale_se``, ``fit.location``.
        log_likelihood: of the values in use (``n_values``) at the fitted parameters.
        zero_fraction: share of the values that equal the location and were taken out.
        n_values: how many were left.
        converged: whether the fit is the maximum (at a bound of the shape, too).
        flag: empty, or what is wrong with the row (``FLAGS``).
        free_parameters: how many a row has; an alpha shared by all rows is not counted.
        values: what was fitted, (P, M): the caller's own array where it was one.
    """

    law: str
    parameters: dict[str, _Array]
    log_likelihood: _Array
    zero_fraction: _Array
    n_values: NDArray[np.int64]
    converged: NDArray[np.bool_]
    flag: NDArray[np.str_]
    free_parameters: int
    values: NDArray[np.generic]

    def __len__(self) -> int:
        return len(self.flag)

    def __iter__(self) -> Iterator[Fit]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, rows: int | slice | NDArray[np.generic]) -> Fit:
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"row {rows} of a fit of {len(self)} rows")
            rows = slice(rows, rows + 1 or None)
        return replace(
            self,
            parameters={name: values[rows] for name, values in self.parameters.items()},
            log_likelihood=self.log_likelihood[rows],
            zero_fraction=self.zero_fraction[rows],
            n_values=self.n_values[rows],
            converged=self.converged[rows],
            flag=self.flag[rows],
            values=self.values[rows],
        )

    def __repr__(self) -> str:
        rows = len(self)
        words = []
        for name in self._estimated:
            values, errors = self.parameters[name], self.parameters[f"{name}_se"]
            if rows == 1:
                words.append(f"{name} {values[0]:.3g} ± {errors[0]:.2g}")
            elif np.isfinite(values).any():
                words.append(f"median {name} {np.nanmedian(values):.3g}")
        flagged = int(np.count_nonzero(self.flag != ""))
        about = f": {', '.join(words)}" if words else ""
        ending = f"; {flagged} flagged" if flagged else ""
        return f"Fit({self.law}, {rows} row{'' if rows == 1 else 's'}{about}{ending})"

    def __getattr__(self, name: str) -> _Array:
        try:
            return self.__dict__["parameters"][name]
        except KeyError:
            raise AttributeError(
                f"a fit of the law {self.__dict__.get('law')!r} has no {name!r}"
            ) from None

    @property
    def _estimated(self) -> list[str]:
        """The parameters that have a standard error: the shape, if there is one, and the scale."""
        return [name for name in self.parameters if f"{name}_se" in self.parameters]

    def to_frame(self) -> pd.DataFrame:
        """The fit as a table, one row a parameter, with the columns of the workflow's fits.

        >>> frame = fit_laplace(np.random.default_rng(0).laplace(size=(3, 100))).to_frame()
        >>> list(frame.columns)[:5]
        ['law', 'scale', 'scale_se', 'location', 'log_likelihood']
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "law": self.law,
                **self.parameters,
                "log_likelihood": self.log_likelihood,
                "zero_fraction": self.zero_fraction,
                "n_values": self.n_values,
                "converged": self.converged,
                "flag": self.flag.astype(object),
            }
        )

    def confidence_interval(self, level: float = 0.95) -> pd.DataFrame:
        """Intervals of shape and scale, one row a parameter, from their standard errors.

        alpha +- z alpha_se, cut at the ends of its range, so that it is one-sided at alpha = 2, the
        end at which a fit often lies. All else is positive: value * exp(+- z se/value). Coverage of
        alpha's: see ``fit_stable``. A shape that was held has the interval of its one value.

        At a bound of the range there is no standard error. Where the likelihood still rises there
        (``flag`` says so, as it does of rows without a fit), both ends are NaN; where infinitely
        many degrees of freedom fit best, the upper end is infinite and the lower one NaN.

        >>> fit = fit_stable(np.random.default_rng(0).standard_cauchy(1000))
        >>> fit.confidence_interval().round(2)
           alpha_low  alpha_high  scale_low  scale_high
        0       0.97        1.11        1.0        1.19

        Args:
            level: that the interval should cover the truth with, in (0, 1).

        Raises:
            ValueError: ``level`` is out of range.
        """
        import pandas as pd
        from scipy.special import ndtri

        if not 0.0 < level < 1.0:
            raise ValueError(f"level is {level}; it must be between 0 and 1")
        z = float(ndtri(0.5 + 0.5 * level))
        ends = {}
        for name in self._estimated:
            values, errors = self.parameters[name], self.parameters[f"{name}_se"]
            if name == "alpha":
                low = np.maximum(values - z * errors, stable.ALPHA_MIN)
                high = np.minimum(values + z * errors, 2.0)
            else:
                with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                    ratio = np.exp(z * errors / values)
                    low, high = values / ratio, values * ratio
                limit = np.isinf(values)
                low[limit], high[limit] = np.nan, np.inf
            ends[f"{name}_low"], ends[f"{name}_high"] = low, high
        return pd.DataFrame(ends)

    def plot(self, row: int = 0) -> Figure:
        """One row's values and fitted law: density, tail on logarithmic axes, and quantiles.

        Needs the extra ``report``. In a notebook the figure shows itself; elsewhere save it,
        ``fit.plot().savefig("fit.png")``.

        Args:
            row: which.

        Raises:
            ImportError: matplotlib is missing.
            IndexError: there is no such row.
            ValueError: the row has no fit.
        """
        from sgnoise import fit_figure

        return fit_figure.draw(self[row])

    def logpdf(self, x: ArrayLike, *, threads: int = 1) -> _Array:
        """ln of each row's fitted density at its points ``x`` (P, K); NaN without a fit.

        >>> fit = fit_gaussian([-1.0, 1.0] * 50)
        >>> fit.logpdf([0.0, 1.0]).round(3)
        array([[-0.919, -1.419]])

        Args:
            x: (P, K), or (K,) for a fit of one row.
            threads: how many to use.

        Raises:
            ValueError: not one row of points for each row of the fit.
        """
        points = as_rows(x, "x")
        return self._evaluate(kernels.LOG_DENSITY, points, points.shape, threads)

    def cdf(self, x: ArrayLike, *, threads: int = 1) -> _Array:
        """Each row's fitted distribution function at its points ``x`` (P, K), to 1e-7.

        Arguments and errors as for ``logpdf``.

        >>> fit_laplace([-1.0, 1.0] * 50).cdf([-1.0, 0.0, 1.0]).round(3)
        array([[0.184, 0.5  , 0.816]])
        """
        points = as_rows(x, "x")
        return self._evaluate(kernels.DISTRIBUTION, points, points.shape, threads)

    def ppf(self, probability: ArrayLike, *, threads: int = 1) -> _Array:
        """Quantiles of each row's fitted law at its probabilities (P, K), as ``stable.ppf``.

        >>> fit_gaussian([-1.0, 1.0] * 50).ppf([0.025, 0.5, 0.975]).round(2)
        array([[-1.96,  0.  ,  1.96]])
        """
        wanted = as_rows(probability, "probability")
        scale, location = (self.parameters[name][:, None] for name in ("scale", "location"))

        def lower_tail(distance: _Array) -> _Array:
            return self.cdf(location - scale * distance, threads=threads)

        return location + scale * stable.quantiles(lower_tail, wanted)

    def kolmogorov_smirnov(self, ordered: ArrayLike, *, threads: int = 1) -> _Array:
        """Largest distance between the empirical and the fitted distribution function, (P,).

        >>> fit_gaussian([-1.0, 1.0] * 50).kolmogorov_smirnov(np.sort([-1.0, 1.0] * 50)).round(3)
        array([0.341])

        Args:
            ordered: values in increasing order, NaN (not in use) last, (P, M).
            threads: how many to use.
        """
        values = as_rows(ordered, "ordered")
        return self._evaluate(kernels.DISTANCE, values, (len(values), 1), threads)[:, 0]

    def _evaluate(
        self, kind: int, points: NDArray[np.generic], shape: tuple[int, ...], threads: int
    ) -> _Array:
        scale = self.parameters["scale"]
        if len(points) != len(scale):
            raise ValueError(
                f"x has {len(points)} rows, the fit has {len(scale)}: give one row a fit"
            )
        shape_name = LAWS[self.law].shape
        form = np.ones_like(scale) if shape_name is None else self.parameters[shape_name]
        location = self.parameters["location"]
        code, tables = _code(self.law), stable.tables()
        out = np.empty(shape)

        def evaluate(block: _Array, rows: slice) -> None:
            kernels.law_rows(
                code, kind, block, form[rows], scale[rows], location[rows], tables, out[rows]
            )

        in_blocks(points, evaluate, threads)
        return out


def _code(law: str) -> int:
    """The number that stands for a law in the kernels."""
    return getattr(kernels, LAWS[law].kernel)


def _check_finite(status: NDArray[np.int64], nan_policy: NanPolicy) -> None:
    if nan_policy not in ("raise", "flag"):
        raise ValueError(f"nan_policy is {nan_policy!r}; it must be 'raise' or 'flag'")
    bad = status == kernels.NOT_FINITE
    if nan_policy == "raise" and bad.any():
        raise ValueError(
            f"noise has NaN or infinity in row {bad.argmax()} ({bad.sum()} of {bad.size} rows "
            "have); repair them, or pass nan_policy='flag' to fit the others"
        )


def _warn_of_location(values: NDArray[np.generic], out: _Array) -> None:
    """Warn where values lie about another location than 0, see the module.

    On the noise of the default study, of which up to nine rows in ten are so skewed (an MLP, mini-
    batches of 8), this warns of no file, and of one row in a thousand that is fitted by itself. The
    same laws moved by half their scale are found in all rows, by 0.3 in a quarter or more.
    """
    used = out[:, kernels.N_USED]
    # One single zero counts as above; two or more are not among those in use.
    excess = used - 2.0 * out[:, kernels.N_BELOW]
    one_sided = excess * excess > _ONE_SIDED**2 * used
    if not one_sided.any():
        return
    suspects = np.flatnonzero(one_sided & np.isfinite(out[:, kernels.LOG_LIKELIHOOD]))
    if not suspects.size:
        return
    suspects = suspects[:: -(-suspects.size // _SUSPECTS)]
    rows = values[suspects].astype(np.float64)
    medians = np.median(rows, axis=1)
    shifted = rows.mean(axis=1) * np.sign(medians) > 0.5 * np.abs(medians)
    if 2 * np.count_nonzero(shifted) > suspects.size:
        row = np.flatnonzero(shifted)[0]
        warnings.warn(
            f"the values of row {suspects[row]} have the median {medians[row]:.3g}, many standard "
            "errors from the location 0 of the fit; pass location='median' where the centre is "
            "unknown, or location=0.0 to say that it is 0",
            UserWarning,
            stacklevel=5,
        )


def _result(
    law: str,
    values: NDArray[np.generic],
    out: _Array,
    centres: _Array,
    location: Location,
    nan_policy: NanPolicy,
    free_parameters: int,
) -> Fit:
    status = out[:, kernels.STATUS].astype(np.int64)
    _check_finite(status, nan_policy)
    if isinstance(location, str) and location == "zero":
        _warn_of_location(values, out)
    parameters = {}
    shape = LAWS[law].shape
    if shape is not None:
        parameters[shape] = out[:, kernels.SHAPE].copy()
        parameters[f"{shape}_se"] = out[:, kernels.SHAPE_SE].copy()
    parameters["scale"] = out[:, kernels.SCALE].copy()
    parameters["scale_se"] = out[:, kernels.SCALE_SE].copy()
    parameters["location"] = centres
    return Fit(
        law=law,
        parameters=parameters,
        log_likelihood=out[:, kernels.LOG_LIKELIHOOD].copy(),
        zero_fraction=out[:, kernels.ZERO_FRACTION].copy(),
        n_values=out[:, kernels.N_USED].astype(np.int64),
        converged=np.isfinite(out[:, kernels.LOG_LIKELIHOOD]) & (status != kernels.NOT_CONVERGED),
        flag=_FLAG_NAMES[status],
        free_parameters=free_parameters,
        values=values,
    )


def _fit(
    law: str,
    noise: ArrayLike,
    location: Location,
    nan_policy: NanPolicy,
    threads: int | None,
    *,
    alpha: float = np.nan,
) -> Fit:
    values = as_rows(noise, "noise")
    centres = locations(values, location, threads)
    out = np.empty((len(values), kernels.COLUMNS))
    _fit_rows(law, values, centres, alpha, np.full(len(values), np.nan), threads, out)
    # A shape that is held at a value is not free.
    free_parameters = LAWS[law].free_parameters if np.isnan(alpha) else 1
    return _result(law, values, out, centres, location, nan_policy, free_parameters)


def _fit_rows(
    law: str,
    noise: NDArray[np.generic],
    location: _Array,
    alpha: float,
    log_scale: _Array,
    threads: int | None,
    out: _Array,
) -> None:
    code, tables = _code(law), stable.tables()

    def fit(block: _Array, rows: slice) -> None:
        kernels.fit_rows(code, block, location[rows], alpha, log_scale[rows], tables, out[rows])

    in_blocks(noise, fit, threads)


def _check_alpha(alpha: float) -> None:
    if not stable.ALPHA_MIN <= alpha <= 2.0:
        raise ValueError(f"alpha is {alpha}; it must be in [{stable.ALPHA_MIN}, 2]")


def fit_law(
    law: str,
    noise: ArrayLike,
    *,
    location: Location = "zero",
    nan_policy: NanPolicy = "raise",
    threads: int | None = None,
) -> Fit:
    """Fit the law of that name to each row. Arguments and errors as for ``fit_stable``.

    >>> noise = np.random.default_rng(0).laplace(size=(1, 10_000))
    >>> fits = [fit_law(law, noise) for law in ("gaussian", "laplace", "student_t")]
    >>> max(fits, key=lambda fit: fit.log_likelihood[0]).law
    'laplace'

    Args:
        law: one of ``sgnoise.laws.LAWS``.
        noise: (P, M).
        location: as for ``fit_stable``, like the others.
        nan_policy: likewise.
        threads: likewise.

    Raises:
        ValueError: there is no such law.
    """
    if law not in LAWS:
        raise unknown_name("law", law, LAWS)
    if LAWS[law].shared:
        return fit_stable_shared_alpha(
            noise, location=location, nan_policy=nan_policy, threads=threads
        )
    return _fit(law, noise, location, nan_policy, threads)


def fit_stable(
    noise: ArrayLike,
    *,
    alpha: float | None = None,
    location: Location = "zero",
    nan_policy: NanPolicy = "raise",
    threads: int | None = None,
) -> Fit:
    """Fit the symmetric alpha-stable law to each row: alpha and scale, or the scale at one alpha.

    Standard errors come from the observed information. At the boundary alpha = 2 (the likelihood
    falls as soon as alpha does) ``alpha_se`` is how far below 2 the likelihood has lost half a
    unit, which is the usual standard error where the slope is nil; the interval is one-sided then.
    With 1000 values, alpha +- 1.96 alpha_se covers the truth in 95 % of fits up to alpha = 1.6, in
    93.5 % at 1.8, 92 % at 1.9, 89 % at 1.95 and 86 % at 1.98.

    >>> noise = stable.rvs([[1.2], [1.8]], (2, 10_000), rng=np.random.default_rng(0))
    >>> fit_stable(noise).alpha.round(1)
    array([1.2, 1.8])

    Args:
        noise: (P, M) float32 or float64; anything else is converted to float64.
        alpha: hold it at this value, in [0.5, 2].
        location: see the module.
        nan_policy: "raise" on NaN or infinity, or "flag" these rows and fit the others.
        threads: how many to use; None: one for each core that the process may use.

    Raises:
        ValueError: noise not a matrix, NaN or infinity in it, or an argument out of its range.
    """
    if alpha is None:
        return _fit("stable", noise, location, nan_policy, threads)
    _check_alpha(alpha)
    return _fit("stable", noise, location, nan_policy, threads, alpha=float(alpha))


def fit_stable_shared_alpha(
    noise: ArrayLike,
    *,
    location: Location = "zero",
    nan_policy: NanPolicy = "raise",
    threads: int | None = None,
) -> Fit:
    """Fit one alpha to all rows and a scale to each, the paper's "SaS const alpha" (Table 2).

    Newton's method in theta = sqrt(2 - alpha) on the profile likelihood: at each alpha every row
    has its own best scale. ``alpha`` and ``alpha_se`` repeat the shared value for all fitted rows.
    Arguments and errors as for ``fit_stable``.

    >>> noise = stable.rvs(1.5, (3, 5000), scale=[[1], [10], [100]], rng=np.random.default_rng(0))
    >>> fit = fit_stable_shared_alpha(noise)
    >>> fit.alpha.round(1), (fit.scale / [1, 10, 100]).round(1)
    (array([1.5, 1.5, 1.5]), array([1., 1., 1.]))
    """
    values = as_rows(noise, "noise")
    centres = locations(values, location, threads)
    # A start: the median alpha of a few rows.
    some = np.linspace(0, len(values) - 1, min(len(values), 64)).astype(np.int64)
    start = np.empty((len(some), kernels.COLUMNS))
    unknown = np.full(len(values), np.nan)
    _fit_rows("stable", values[some], centres[some], np.nan, unknown[some], threads, start)
    found = start[np.isfinite(start[:, kernels.SHAPE]), kernels.SHAPE]
    theta = float(np.sqrt(2.0 - np.median(found))) if found.size else 0.5

    out = np.empty((len(values), kernels.COLUMNS))
    out[:, kernels.SCALE] = np.nan
    highest = float(np.sqrt(2.0 - stable.ALPHA_MIN))
    best, step = -np.inf, 0.0
    for _ in range(kernels.MAX_EVALUATIONS):
        log_scale = np.log(out[:, kernels.SCALE])
        alpha = 2.0 - theta * theta
        _fit_rows("stable", values, centres, alpha, log_scale, threads, out)
        fitted = np.isfinite(out[:, kernels.LOG_LIKELIHOOD])
        total = out[fitted].sum(axis=0)
        value, slope, bend = (
            float(total[k]) for k in (kernels.LOG_LIKELIHOOD, kernels.SLOPE, kernels.BEND)
        )
        if value < best - 1e-10 * abs(best):
            step *= 0.4
            theta -= 1.5 * step  # back to where it was, and a shorter way from there
            continue
        best = value
        # theta = 0 is always stationary; where it is a minimum, go away from it.
        trapped = theta == 0.0 and bend > 0.0
        step = 0.05 if trapped else slope / max(abs(bend), 1e-300)
        step = float(np.clip(np.clip(theta + step, 0.0, highest) - theta, -0.3, 0.3))
        if abs(step) < 1e-6:
            break
        theta += step
    if theta > 0.0:
        alpha_se = 2.0 * theta / np.sqrt(max(-bend, 1e-300))
    else:
        alpha_se = -1.0 / min(bend, -1e-300)  # half a unit lost at slope -bend/2
    at_bound = theta >= highest
    out[:, kernels.SHAPE] = np.where(fitted, alpha, np.nan)
    out[:, kernels.SHAPE_SE] = np.where(fitted, np.nan if at_bound else alpha_se, np.nan)
    if at_bound:
        out[fitted, kernels.STATUS] = kernels.ALPHA_BELOW_RANGE
    return _result("stable_shared_alpha", values, out, centres, location, nan_policy, 1)


def fit_gaussian(
    noise: ArrayLike,
    *,
    location: Location = "zero",
    nan_policy: NanPolicy = "raise",
    threads: int | None = None,
) -> Fit:
    """Fit the normal law: ``scale`` is the standard deviation. Arguments as for ``fit_stable``.

    >>> fit_gaussian(3.0 * np.random.default_rng(0).standard_normal(10_000)).scale.round(1)
    array([3.])
    """
    return _fit("gaussian", noise, location, nan_policy, threads)


def fit_laplace(
    noise: ArrayLike,
    *,
    location: Location = "zero",
    nan_policy: NanPolicy = "raise",
    threads: int | None = None,
) -> Fit:
    """Fit the Laplace law. Arguments as for ``fit_stable``.

    >>> fit_laplace(np.random.default_rng(0).laplace(scale=2.0, size=10_000)).scale.round(1)
    array([2.])
    """
    return _fit("laplace", noise, location, nan_policy, threads)


def fit_student_t(
    noise: ArrayLike,
    *,
    location: Location = "zero",
    nan_policy: NanPolicy = "raise",
    threads: int | None = None,
) -> Fit:
    """Fit Student's t: ``degrees_of_freedom`` in [0.1, infinity] and ``scale``.

    Where the sample's kurtosis is at most 3 the best t is the normal law: degrees_of_freedom is
    infinite and has no standard error. Arguments as for ``fit_stable``.

    >>> fit = fit_student_t(np.random.default_rng(0).standard_t(3, 10_000))
    >>> fit.degrees_of_freedom.round()
    array([3.])
    """
    return _fit("student_t", noise, location, nan_policy, threads)


def fit_generalised_gaussian(
    noise: ArrayLike,
    *,
    location: Location = "zero",
    nan_policy: NanPolicy = "raise",
    threads: int | None = None,
) -> Fit:
    """Fit the generalised Gaussian law: ``shape`` in [0.1, 20] (2 normal, 1 Laplace) and ``scale``.

    Arguments as for ``fit_stable``.

    >>> rng = np.random.default_rng(0)
    >>> fit_generalised_gaussian([rng.standard_normal(5000), rng.laplace(size=5000)]).shape.round()
    array([2., 1.])
    """
    return _fit("generalised_gaussian", noise, location, nan_policy, threads)


def fit_normal_inverse_gaussian(
    noise: ArrayLike,
    *,
    location: Location = "zero",
    nan_policy: NanPolicy = "raise",
    threads: int | None = None,
) -> Fit:
    """Fit the symmetric normal inverse Gaussian law: ``steepness`` and ``scale``.

    Their product goes from 1e-6 (Cauchy law) to 1e6 (normal law, of variance scale/steepness),
    where it ends if the sample's kurtosis is at most 3. Arguments as for ``fit_stable``.

    >>> from scipy.stats import norminvgauss
    >>> noise = norminvgauss.rvs(a=1.0, b=0.0, size=10_000, random_state=0)
    >>> fit = fit_normal_inverse_gaussian(noise)
    >>> fit.steepness.round(1), fit.scale.round(1)
    (array([1.]), array([1.]))
    """
    return _fit("normal_inverse_gaussian", noise, location, nan_policy, threads)
