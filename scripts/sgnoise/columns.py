"""What each column of each Parquet file of the workflow is: type, unit and meaning.

``python scripts/list_columns.py`` prints it as ``docs/columns.md``; a test compares it with the
files that a small study writes.
"""

from __future__ import annotations

from typing import NamedTuple

from sgnoise.laws import LAWS

# Units that many columns have. A gradient is the loss per unit of its weight.
NONE, LOSS, GRADIENT, WEIGHT, ITERATIONS, TIME = (
    "",
    "loss",
    "loss / weight",
    "weight",
    "iterations",
    "time of the process",
)
_LOG_DENSITY = "ln(1 / gradient)"


class Column(NamedTuple):
    """One column of a Parquet file.

    Attributes:
        name: of the column.
        type: of its values in Arrow; M stands for the length of fixed-size lists.
        unit: empty for names, counts and pure numbers.
        meaning: what it is, in a sentence at most.
    """

    name: str
    type: str
    unit: str
    meaning: str


class File(NamedTuple):
    """One kind of Parquet file.

    Attributes:
        row: what one of its rows is.
        columns: in the order in which they are written.
    """

    row: str
    columns: tuple[Column, ...]


def _interval(of: str, unit: str, low: str = "low", high: str = "high") -> tuple[Column, Column]:
    """Both ends of a 95 % interval."""
    return (
        Column(low, "double", unit, f"Lower end of the 95 % interval of {of}."),
        Column(high, "double", unit, "Upper end of it."),
    )


_KEYS = (
    Column("parameter_index", "int32", NONE, "Number of the weight among those sampled, from 0."),
    Column("layer", "string", NONE, "Name of the module, as PyTorch has it."),
    Column("layer_index", "int16", NONE, "Position of the layer from the input, from 0."),
    Column("layer_type", "string", NONE, "Class of the module; `control` for synthetic noise."),
    Column("tensor", "string", NONE, "Name of the tensor in the module: `weight` or `bias`."),
    Column("offset", "int64", NONE, "Flat index of the weight in its tensor."),
    Column("stratum", "string", NONE, "Which sample it is from: `uniform` or `per_layer`."),
)

_SHAPE_UNITS = {"steepness": "1 / gradient"}


def _shapes() -> tuple[Column, ...]:
    """The shape parameters of all laws, each with its standard error."""
    columns = []
    for shape in dict.fromkeys(law.shape for law in LAWS.values() if law.shape is not None):
        laws = " and ".join(f"`{law.name}`" for law in LAWS.values() if law.shape == shape)
        unit = _SHAPE_UNITS.get(shape, NONE)
        columns += [
            Column(shape, "double", unit, f"Shape of {laws}; null in the rows of other laws."),
            Column(f"{shape}_se", "double", unit, "Its standard error; NaN at a bound."),
        ]
    return tuple(columns)


_FITS = (
    *_KEYS,
    Column("law", "string", NONE, "The law that was fitted, one of `sgnoise.laws`."),
    Column("scale", "double", GRADIENT, "Scale of the law."),
    Column("scale_se", "double", GRADIENT, "Its standard error."),
    Column("location", "double", GRADIENT, "Location, held at 0: noise is centred."),
    *_shapes(),
    Column(
        "alpha_log_moment",
        "double",
        NONE,
        "α by block log-moments (Mohammadi et al. 2015), zeros left out; with `stable`.",
    ),
    Column(
        "alpha_quantile",
        "double",
        NONE,
        "α by quantiles (McCulloch 1986), zeros included; with `stable`.",
    ),
    Column("log_likelihood", "double", _LOG_DENSITY, "Of the draws in use, summed."),
    Column(
        "held_out_log_likelihood",
        "double",
        _LOG_DENSITY,
        "Mean of the held-out draws under the law fitted to the others.",
    ),
    Column("aic", "double", NONE, "Akaike's information criterion; smaller is better."),
    Column("bic", "double", NONE, "Schwarz's information criterion; smaller is better."),
    Column(
        "sse",
        "double",
        NONE,
        "Sum of squared errors between histogram and law, as the settings `fits` say.",
    ),
    Column("sse_floor", "double", NONE, "What chance alone would give, were the law true."),
    Column("ks", "double", NONE, "Kolmogorov-Smirnov distance of draws and law."),
    Column(
        "zero_fraction", "double", NONE, "Share of draws that are exactly 0 and were taken out."
    ),
    Column("converged", "bool", NONE, "Whether the fit is the maximum of the likelihood."),
    Column("flag", "string", NONE, "Empty, or why there is no fit (`sgnoise.fitting.FLAGS`)."),
)

_LAYERS = (
    Column("batch_size", "int32", NONE, "Mini-batch size of the noise."),
    Column("layer", "string", NONE, "Name of the module."),
    Column("layer_index", "int16", NONE, "Position of the layer from the input, from 0."),
    Column("layer_type", "string", NONE, "Class of the module."),
    Column("n", "int32", NONE, "Weights with a usable fit, of both strata."),
    Column("n_flagged", "int32", NONE, "Weights whose fit has a flag."),
    Column("alpha_mean", "double", NONE, "Mean of α; NaN with few fits, like what follows."),
    Column("alpha_se", "double", NONE, "Standard error of the mean."),
    Column(
        "alpha_sd_between",
        "double",
        NONE,
        "Standard deviation between weights, estimation error taken away.",
    ),
    *(
        Column(f"alpha_q{percent:02}", "double", NONE, f"{percent} % quantile of α.")
        for percent in (5, 25, 50, 75, 95)
    ),
)

_TRAINING = (
    Column("epoch", "int64", NONE, "After which the row was taken; 0: before any training."),
    Column("learning_rate", "double", "weight² / loss", "Of the epoch; NaN at epoch 0."),
    Column("train_loss", "double", LOSS, "Mean over the training part, in evaluation mode."),
    Column("train_accuracy", "double", NONE, "Share of the training part that is right."),
    Column("test_loss", "double", LOSS, "Mean over the test part; NaN without one."),
    Column("test_accuracy", "double", NONE, "Share of the test part; NaN without one."),
)

_MINIMUM = (
    Column("dataset", "string", NONE, "Name of the data set in the settings."),
    Column("minimum", "int64", NONE, "Which of its minima, from 0."),
)
_BATCH_SIZE = Column("batch_size", "int64", NONE, "Samples in a mini-batch.")
_RATE = Column("learning_rate", "double", "weight² / loss", "Of SGD.")
_WEIGHT = Column(
    "parameter_index", "int32", NONE, "Number of the weight in the flat vector of all."
)

_REPLICAS = (
    Column("dataset", "string", NONE, "Name of the data set in the settings."),
    Column("minimum", "int32", NONE, "Which of its minima, from 0."),
    Column("batch_size", "int32", NONE, "Samples in a mini-batch."),
    _RATE,
    Column("replica", "int32", NONE, "Number of the replica, from 0."),
    Column("iterations", "int64", ITERATIONS, "Until the escape, or the budget if there was none."),
    Column("escaped", "bool", NONE, "Whether it left the minimum; if not, it is censored."),
    Column("diverged", "bool", NONE, "Whether it escaped to a loss that is not finite."),
    Column("final_loss", "double", LOSS, "Full-data loss at the end."),
)

_TIMES = (
    *_MINIMUM,
    _BATCH_SIZE,
    _RATE,
    Column("replicas", "int64", NONE, "How many ran."),
    Column("censored", "int64", NONE, "How many did not escape within the budget."),
    Column("diverged", "int64", NONE, "How many escaped to a loss that is not finite."),
    Column("iterations", "int64", ITERATIONS, "Of all replicas together."),
    Column(
        "mean_escape_time",
        "double",
        ITERATIONS,
        "Maximum-likelihood mean of an exponential law: all iterations over all escapes.",
    ),
    *_interval("that, by bootstrap", ITERATIONS, "mean_low", "mean_high"),
    Column("kaplan_meier_median", "double", ITERATIONS, "Median by Kaplan and Meier."),
    Column("exponential_p", "double", NONE, "p value of the test that times are exponential."),
    Column(
        "exponential_quantiles",
        "list<element: double>",
        ITERATIONS,
        "Quantiles of the exponential law with that mean, one an escape.",
    ),
    Column(
        "observed_quantiles", "list<element: double>", ITERATIONS, "Observed times beside them."
    ),
    Column("flag", "string", NONE, "Empty, or `all_censored`."),
)

_THEORIES = (
    *_MINIMUM,
    _BATCH_SIZE,
    Column("theory", "string", NONE, "One of `sgnoise.escape.theories`."),
    Column(
        "coefficient",
        "double",
        "depends on the theory",
        "c, by maximum likelihood of all replicas.",
    ),
    Column("exponent", "double", "depends on the theory", "k, likewise."),
    Column("exponent_se", "double", "depends on the theory", "Its standard error, by bootstrap."),
    *_interval("k, by bootstrap", "depends on the theory", "exponent_low", "exponent_high"),
    Column("log_coefficient_se", "double", NONE, "Standard error of ln c, by bootstrap."),
    Column(
        "log_coefficient_exponent_covariance",
        "double",
        "depends on the theory",
        "Covariance of ln c and k, by bootstrap.",
    ),
    Column("r_squared", "double", NONE, "Of the weighted least-squares fit of ln τ."),
    Column("aicc", "double", NONE, "Corrected Akaike criterion, with times taken as exponential."),
    Column("log_likelihood", "double", "ln(1 / iterations)", "Of all replicas, summed."),
    Column(
        "log_likelihood_ratio",
        "double",
        NONE,
        "ln L of the reference theory less ln L of this one; above 0 the reference does better.",
    ),
    *_interval("that, by bootstrap", NONE, "log_likelihood_ratio_low", "log_likelihood_ratio_high"),
    Column("better", "string", NONE, "Which of the two the interval prefers, or `undecided`."),
    Column(
        "deviance",
        "double",
        NONE,
        "Twice the log-likelihood that the theory loses against a free mean at each rate.",
    ),
    Column("deviance_degrees", "int64", NONE, "What the deviance is on average if it holds."),
    Column("leave_one_out_error", "double", NONE, "Error of ln τ at rates that were left out."),
    Column("least_squares_coefficient", "double", "depends on the theory", "c, by least squares."),
    Column("least_squares_exponent", "double", "depends on the theory", "k, by least squares."),
    Column("flag", "string", NONE, "Empty, or which rates had no part in the least squares."),
    Column("learning_rates_tested", "int64", NONE, "Learning rates behind the fits."),
    Column("censored_share", "double", NONE, "Share of all replicas that did not escape."),
    Column("not_exponential", "int64", NONE, "Learning rates with `exponential_p` below 0.05."),
    Column("noise_alpha", "double", NONE, "Mean α of the noise at the minimum, over weights."),
    Column("noise_alpha_low", "double", NONE, "5 % quantile of it over weights."),
    Column("noise_alpha_high", "double", NONE, "95 % quantile of it over weights."),
    Column("noise_weights", "double", NONE, "Weights with a fit of their noise."),
    Column(
        "predicted_exponent", "double", NONE, "Slope of ln τ of the simulated SDE against −ln η."
    ),
    Column("predicted_ratio", "double", NONE, "Geometric mean of its times over those of SGD."),
    Column("small_noise_exponent", "double", NONE, "The same slope in the limit of small noise."),
    Column("small_noise_ratio", "double", NONE, "The same mean in the limit of small noise."),
)

_ESCAPE_NOISE = (
    *_MINIMUM,
    _BATCH_SIZE,
    *_KEYS,
    Column("alpha", "double", NONE, "α of its gradient noise at the minimum; NaN without a fit."),
    Column("alpha_se", "double", NONE, "Its standard error."),
    Column("scale", "double", GRADIENT, "Scale of the noise."),
    Column("scale_se", "double", GRADIENT, "Its standard error."),
    Column(
        "zero_fraction", "double", NONE, "Share of draws that are exactly 0 and were taken out."
    ),
    Column("flag", "string", NONE, "Empty, or why there is no fit (`sgnoise.fitting.FLAGS`)."),
)

_BASIN = (
    *_MINIMUM,
    _WEIGHT,
    Column("curvature", "double", "loss / weight²", "Of the loss: diagonal of the Hessian."),
    Column(
        "edge_low",
        "double",
        WEIGHT,
        "How far the weight alone may fall until the loss passes the threshold; negative.",
    ),
    Column("edge_high", "double", WEIGHT, "How far it may rise; inf if it never does."),
)

_PREDICTION = (
    *_MINIMUM,
    _BATCH_SIZE,
    _RATE,
    Column("paths", "int64", NONE, "Simulated paths of the SDE."),
    Column("censored", "int64", NONE, "Paths that did not leave in time."),
    Column("mean_exit_time", "double", ITERATIONS, "Mean exit time of the SDE."),
    *_interval("that", ITERATIONS, "mean_low", "mean_high"),
    Column("small_noise_exit_time", "double", ITERATIONS, "The same in the limit of small noise."),
)

_EPSILON = Column("epsilon", "double", "width of the basin", "Amplitude of the noise.")
_BOX = Column("box", "double", "width of the basin", "Half width of the domain.")
_RHO = Column("rho", "double", NONE, "Exponent of the split of large jumps from small ones.")

_EXIT_AXIS = (
    Column("alpha_1", "double", NONE, "α of the first coordinate."),
    Column("alpha_2", "double", NONE, "α of the second coordinate."),
    Column("delta", "double", NONE, "α₂ − α₁."),
    _EPSILON,
    _BOX,
    _RHO,
    Column("paths", "int64", NONE, "Simulated paths."),
    Column("exits", "int64", NONE, "Paths that left in time."),
    Column("exits_axis_1", "int64", NONE, "Of these, those along the first coordinate."),
    Column("exits_upper_1", "int64", NONE, "Of these, those through its upper edge."),
    Column("probability", "double", NONE, "Share of exits along the first coordinate."),
    *_interval("that (Wilson)", NONE),
    Column("corollary", "double", NONE, "What Corollary 4.4 says of it."),
    Column("small_noise", "double", NONE, "The same in the limit of small noise."),
    Column("mean_exit_time", "double", TIME, "Of all paths, censored ones counted as such."),
    *_interval("that", TIME, "mean_low", "mean_high"),
    Column("small_noise_time", "double", TIME, "The same in the limit of small noise."),
    Column("bound_text", "double", TIME, "Bound of Theorem 4.1 as printed in the text."),
    Column("corollary_text", "double", TIME, "Bound of Corollary 4.2 as printed in the text."),
    Column("bound_probability", "double", NONE, "Bound of Theorem 4.3 for the first coordinate."),
    Column("large_jump_share", "double", NONE, "Share of exits at a jump above the split."),
)

_EXIT_TIME = (
    Column("alpha", "double", NONE, "α of all coordinates."),
    _EPSILON,
    Column("gamma", "double", NONE, "Exponent of the learning-rate schedule t^(γ − 1)."),
    Column("dimensions", "int64", NONE, "Coordinates N."),
    _BOX,
    _RHO,
    Column("paths", "int64", NONE, "Simulated paths of each simulator."),
    Column("simulator", "string", NONE, "Behind what follows: `euler_maruyama` or `by_jumps`."),
    Column("censored", "int64", NONE, "Paths that did not leave in time."),
    Column("mean_exit_time", "double", TIME, "Of all paths, censored ones counted as such."),
    *_interval("that", TIME),
    Column("probability", "double", NONE, "Share of exits by the first coordinate's upper edge."),
    *_interval("that (Wilson)", NONE, "probability_low", "probability_high"),
    Column("large_jump_share", "double", NONE, "Share of exits at a jump above the split."),
    *_interval("that (Wilson)", NONE, "large_jump_low", "large_jump_high"),
    Column("jump_mean_exit_time", "double", TIME, "Mean of the event-driven simulator."),
    *_interval("that", TIME, "jump_low", "jump_high"),
    Column("small_noise_time", "double", TIME, "Mean exit time in the limit of small noise."),
    Column("small_noise_probability", "double", NONE, "`probability` in that limit."),
    Column("relaxation_time", "double", TIME, "Of the way back to the minimum."),
    Column("jump_interval", "double", TIME, "Mean time between large jumps of a coordinate."),
    *(
        column
        for variant, where in (("text", "the text"), ("appendix", "the appendix"))
        for column in (
            Column(
                f"bound_{variant}", "double", TIME, f"Bound of Theorem 4.1 as printed in {where}."
            ),
            Column(
                f"corollary_{variant}",
                "double",
                TIME,
                f"Bound of Corollary 4.2 as printed in {where}; NaN where the rate decays.",
            ),
            Column(
                f"bound_probability_{variant}",
                "double",
                NONE,
                f"Bound of Theorem 4.3 as printed in {where}.",
            ),
        )
    ),
)

_COVARIANCE = (
    Column(
        "compared",
        "string",
        NONE,
        "What is compared: `row sums`, `change`, `moment`, `row sums by Lemma 3.3`.",
    ),
    Column("where", "string", NONE, "At which points of the network's weights."),
    Column(
        "variant",
        "string",
        NONE,
        "Form of the formula: `text`, `appendix`, `with A` or `without A`.",
    ),
    Column("measured", "double", "that of the entry", "The exact value."),
    Column("formula", "double", "that of the entry", "What the paper's formula gives."),
)

_EXPERIMENTS = (
    Column("experiment", "string", NONE, "What was simulated; see `simulate_theorems.py`."),
    Column("potential", "string", NONE, "Of `flow`: the loss that is descended."),
    Column("value", "double", "that of the experiment", "What came out."),
    *_interval("that", "that of the experiment"),
    Column("alpha", "double", NONE, "α of the first coordinate."),
    _EPSILON,
    _RHO,
    Column("theta", "double", NONE, "Of `deviation`: exponent of the distance ε^θ."),
    Column("alpha_2", "double", NONE, "α of the second coordinate."),
    Column("time", "double", TIME, "Of `cross moment`: since the large jump."),
    Column("start", "double", "width of the basin", "Where the first coordinate was then."),
    Column("start_2", "double", "width of the basin", "Where the second was."),
    Column("curvature", "double", "1 / time", "Of the potential along the first coordinate."),
    Column("curvature_2", "double", "1 / time", "Along the second."),
    Column("milestone", "double", TIME, "Of `step`: when the learning rate falls; NaN: never."),
    Column("row_sum", "double", NONE, "Of `noise level`: row sum of the noise covariance."),
    Column("near", "double", "width of the basin", "Of `basin`: distance of the near edge."),
    Column("far", "double", "width of the basin", "Of `basin`: distance of the far edge."),
)

# Below the folder of the study, by the pattern of their names.
FILES = {
    "runs/{run}/training.parquet": File("an epoch that was evaluated", _TRAINING),
    "runs/{run}/gradients.parquet": File(
        "a sampled weight",
        (
            *_KEYS,
            Column("value", "float", WEIGHT, "Of the weight, at the checkpoint."),
            Column("full_gradient", "float", GRADIENT, "Mean of the gradients."),
            Column(
                "gradient",
                "fixed_size_list<element: float>[M]",
                GRADIENT,
                "One a training sample (or a mini-batch, by `gradients.mode`).",
            ),
        ),
    ),
    "runs/{run}/noise/b{batch_size}.parquet": File(
        "a sampled weight",
        (
            *_KEYS,
            Column(
                "noise",
                "fixed_size_list<element: float>[M]",
                GRADIENT,
                "Full gradient less that of a mini-batch, one a draw.",
            ),
        ),
    ),
    "runs/{run}/fits/b{batch_size}.parquet": File("a sampled weight and law", _FITS),
    "runs/{run}/layers.parquet": File("a batch size and layer", _LAYERS),
    "escape/{dataset}/m{minimum}/b{batch_size}/rates{first}-{last}.parquet": File(
        "a replica of SGD", _REPLICAS
    ),
    "escape/{dataset}/m{minimum}/noise.parquet": File("a weight and batch size", _ESCAPE_NOISE),
    "escape/{dataset}/m{minimum}/basin.parquet": File("a weight", _BASIN),
    "escape/{dataset}/m{minimum}/prediction.parquet": File(
        "a batch size and learning rate", _PREDICTION
    ),
    "escape/{dataset}/times.parquet": File("a minimum, batch size and learning rate", _TIMES),
    "escape/{dataset}/theories.parquet": File("a minimum, batch size and theory", _THEORIES),
    "sde/exit_axis.parquet": File("a pair of α", _EXIT_AXIS),
    "sde/exit_time.parquet": File("a cell of the grid", _EXIT_TIME),
    "sde/covariance.parquet": File("an entry of a matrix or vector", _COVARIANCE),
    "sde/experiments.parquet": File("a simulated case", _EXPERIMENTS),
}
