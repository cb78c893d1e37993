"""Figure 2: the noise of one parameter around a decay of the learning rate, and the loss."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sgnoise import plots, readers, seeds
from sgnoise.jobs import running_job

_COLOURS = {"before": plots.GREY, "after": plots.BLUE, "without": plots.VERMILLION}
_LETTERS = {"before": "a", "after": "b", "without": "c"}
_TITLES = {"before": "before the decay", "after": "after the decay", "without": "without decay"}
_CANDIDATES = 100
_BINS = 61


def choose_parameter(noise_paths: dict[str, str], seed: int) -> tuple[str, dict[str, np.ndarray]]:
    """A parameter taken at random of those with noise in all states, and its noise in each.

    Args:
        noise_paths: the noise in each state, of the same sampled parameters.
        seed: of the choice.

    Returns:
        The parameter's name, and its noise, (draw,), by state.

    Raises:
        ValueError: the files do not share their parameters, or the noise of all candidates is zero.
    """
    keys = {state: readers.read_keys(path) for state, path in noise_paths.items()}
    first = next(iter(keys.values()))
    for state, others in keys.items():
        if not others.equals(first):
            raise ValueError(
                f"{noise_paths[state]}: not the parameters of {next(iter(noise_paths.values()))}; "
                "the runs of Figure 2 must sample the same ones: start them from one another"
            )
    uniform = first[first["stratum"] == "uniform"]
    count = min(_CANDIDATES, len(uniform))
    order = seeds.generator(seed, "parameter").choice(len(uniform), count, replace=False)
    candidates = uniform.iloc[order]
    indices = candidates["parameter_index"].tolist()
    noise = {state: readers.read_noise(path, indices) for state, path in noise_paths.items()}
    alive = np.all([np.ptp(values, axis=1) > 0 for values in noise.values()], axis=0)
    if not alive.any():
        raise ValueError(f"none of {count} sampled parameters has any noise in all three states")
    chosen = int(np.argmax(alive))
    name = readers.parameter_name(candidates.iloc[chosen])
    return name, {state: values[chosen] for state, values in noise.items()}


def decay_epoch(before: pd.DataFrame, after: pd.DataFrame, path: str) -> int:
    """The last epoch with the learning rate of before, in the run that goes on with a lower one.

    Raises:
        ValueError: the learning rate does not fall.
    """
    course = pd.concat([before, after])
    lowered = course[course["learning_rate"] < before["learning_rate"].iloc[-1]]
    if lowered.empty:
        raise ValueError(
            f"{path}: the learning rate never falls below that of the run before; give the run of "
            "Figure 2 'after' a milestone"
        )
    return int(lowered["epoch"].iloc[0]) - 1


def draw_noise(axes: Axes, noise: np.ndarray, limit: float, colour: str) -> None:
    """Share of the mini-batches by noise, (draw,), in bins from ``-limit`` to ``limit``."""
    exponent = int(np.floor(np.log10(limit)))
    limit = limit / 10.0**exponent
    edges = np.linspace(-limit, limit, _BINS + 1)
    counts, _ = np.histogram(noise / 10.0**exponent, bins=edges)
    axes.stairs(100 * counts / noise.size, edges, fill=True, color=colour)
    axes.set(yscale="log", xlim=(-limit, limit))
    axes.set_xlabel(f"gradient noise ζ ($10^{{{exponent}}}$ loss per unit of weight)")
    axes.set_ylabel("mini-batches (%)")


def draw_loss(axes: Axes, training: dict[str, pd.DataFrame], last: int) -> None:
    """The course of the training loss; the runs with and without decay go on from the first."""
    names = {"after": "decay", "without": "no decay"}
    before = training["before"]
    # The names stand apart, however close the curves end.
    upper = max(names, key=lambda state: training[state]["train_loss"].iloc[-1])
    axes.plot(before["epoch"], before["train_loss"], color=_COLOURS["before"])
    for state, name in names.items():
        course = pd.concat([before.tail(1), training[state]])
        axes.plot(course["epoch"], course["train_loss"], color=_COLOURS[state])
        axes.annotate(
            name,
            (course["epoch"].iloc[-1], course["train_loss"].iloc[-1]),
            xytext=(4, 0),
            textcoords="offset points",
            va="bottom" if state == upper else "top",
            color=_COLOURS[state],
            annotation_clip=False,
        )
    axes.axvline(last, color=plots.INK, linewidth=0.8, linestyle=":")
    axes.set(yscale="log", xlabel="epoch", ylabel="training loss")
    low, high = axes.get_ylim()
    plots.log_ticks(axes.yaxis, low, high)
    axes.set_title(f"(d) training loss, decay after epoch {last}")


def plot_decay(
    *,
    noise_paths: dict[str, str],
    training_paths: dict[str, str],
    png_path: str,
    pdf_path: str,
    seed: int,
) -> None:
    """Draw the noise of one parameter in three states of the training, and the loss.

    Args:
        noise_paths: noise ``before`` the decay, ``after`` it, and at the same epoch ``without`` it.
        training_paths: training.parquet of the same three runs.
        png_path: where the PNG goes.
        pdf_path: where the PDF goes.
        seed: of the choice of the parameter.

    Raises:
        ValueError: the runs do not share their sampled parameters, or no learning rate falls.
    """
    training = {
        state: pd.read_parquet(path).sort_values("epoch") for state, path in training_paths.items()
    }
    last = decay_epoch(training["before"], training["after"], training_paths["after"])
    name, noise = choose_parameter(noise_paths, seed)
    limit = 1.02 * max(np.abs(values).max() for values in noise.values())
    with plots.drawing(
        png_path, pdf_path, title="Gradient noise around learning-rate decay", height=5.4
    ) as figure:
        figure.suptitle(f"noise of {name}, {noise['before'].size:,} mini-batches", fontsize=9.5)
        grid = figure.subplots(2, 2).reshape(-1)
        for axes, state in zip(grid, _TITLES, strict=False):
            if axes is not grid[0]:
                axes.sharey(grid[0])
            draw_noise(axes, noise[state], limit, _COLOURS[state])
            deviation = plots.scientific(noise[state].std())
            epoch = training[state]["epoch"].iloc[-1]
            axes.set_title(f"({_LETTERS[state]}) {_TITLES[state]}, epoch {epoch}: s.d. {deviation}")
        # Half a mini-batch: below it there is nothing to see.
        low, high = grid[0].set_ylim(bottom=50 / noise["before"].size)
        plots.log_ticks(grid[0].yaxis, low, high)
        draw_loss(grid[-1], training, last)


if __name__ == "__main__":
    with running_job() as job:
        states = ("before", "after", "without")
        plot_decay(
            noise_paths={state: job.input[state] for state in states},
            training_paths={state: job.input[f"training_{state}"] for state in states},
            png_path=job.output.png,
            pdf_path=job.output.pdf,
            seed=job.params.seed,
        )
