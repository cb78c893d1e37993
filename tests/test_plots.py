"""The figures: what they show, that they read well, and that they repeat to the byte."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.testing import assert_allclose
from scipy.special import erfc, gamma

import plot_alpha_by_layer
import plot_alpha_by_network
import plot_decay
import plot_escape_times
import plot_exit_axis
import plot_histograms
import plot_theory
from sgnoise import plots, readers, stable, store
from sgnoise.escape import theories as escape_theories
from sgnoise.laws import LOOKS

DRAWS = 600
DATASETS = ("breast_cancer", "wine", "digits")
PROVENANCE = store.provenance(study="test", seed=1)
LAYERS = (("conv1", "Conv2d"), ("bn1", "BatchNorm2d"), ("conv2", "Conv2d"), ("fc", "Linear"))


# --- Small inputs, as the data contracts have them ---


def make_keys(count: int) -> pd.DataFrame:
    """Keys of ``count`` weights, half of the uniform stratum, spread over the layers."""
    layer = np.arange(count) % len(LAYERS)
    return pd.DataFrame(
        {
            "parameter_index": np.arange(count, dtype=np.int32),
            "layer": [LAYERS[n][0] for n in layer],
            "layer_index": layer.astype(np.int16),
            "layer_type": [LAYERS[n][1] for n in layer],
            "tensor": "weight",
            "offset": 7 * np.arange(count, dtype=np.int64),
            "stratum": np.where(np.arange(count) % 8 < 4, "uniform", "per_layer"),
        }
    )


def make_noise(path: Path, *, count: int = 40, scale: float = 1e-4, dead: int = 0) -> str:
    """Student-t noise of ``count`` weights, the first ``dead`` without any, in two row groups."""
    noise = scale * np.random.default_rng(5).standard_t(3, size=(count, DRAWS))
    noise[:dead] = 0
    table = pa.Table.from_pandas(make_keys(count), preserve_index=False)
    table = table.append_column("noise", store.list_column(noise))
    with store.table_writer(path, table.schema, PROVENANCE) as writer:
        for part in (table.slice(0, count // 2), table.slice(count // 2)):
            writer.write_table(part.cast(writer.schema))
    return str(path)


def make_fits(path: Path, *, count: int = 40, scale: float = 1e-4, flagged: int = 0) -> str:
    """Gaussian and SαS fits of ``make_noise``'s parameters; ``flagged`` of them without alpha."""
    keys = make_keys(count)
    alpha = np.clip(np.random.default_rng(6).normal(1.6, 0.2, count), 0.6, 2.0)
    alpha[:flagged] = np.nan
    stable = keys.assign(law="stable", alpha=alpha, alpha_se=0.05, scale=0.8 * scale, location=0.0)
    gaussian = keys.assign(law="gaussian", scale=1.7 * scale, location=0.0)
    stable["flag"] = np.where(np.isnan(alpha), "constant", "")
    gaussian["flag"] = ""
    stable["converged"] = np.isfinite(alpha)
    gaussian["converged"] = True
    store.write_table(path, pd.concat([stable, gaussian], ignore_index=True), PROVENANCE)
    return str(path)


def make_training(path: Path, epochs: range, learning_rate: float, slope: float) -> str:
    """A loss that falls exponentially at a constant learning rate."""
    table = pd.DataFrame({"epoch": epochs, "learning_rate": learning_rate})
    table["train_loss"] = 2.0 * np.exp(-slope * table["epoch"])
    store.write_table(path, table, PROVENANCE)
    return str(path)


def make_escape(folder: Path, dataset: str, *, missing: bool = False) -> tuple[str, str]:
    """Times at batch sizes 32 and 8: some censored, at one rate all; and the fitted theories."""
    times, theories = [], []
    for batch_size in (32, 8):
        # A small batch needs other learning rates, and here a range too narrow for decades.
        rates = np.geomspace(0.02, 0.5, 6) if batch_size == 32 else np.geomspace(0.004, 0.006, 6)
        for number, rate in enumerate(rates):
            mean = np.inf if number == 0 else 4.0 * batch_size * rate**-1.5
            times.append(
                {
                    "dataset": dataset,
                    "minimum": 0,
                    "batch_size": batch_size,
                    "learning_rate": rate,
                    "replicas": 50,
                    "censored": (50, 20, 0, 0, 0, 0)[number],
                    "mean_escape_time": mean,
                    "mean_low": 0.8 * mean,
                    "mean_high": 1.3 * mean,
                }
            )
        fits = (("levy", 1.5, 0.0), ("diffusion", 0.06, 0.94), ("kramers", 0.03, -2.0))
        for theory, exponent, ratio in fits:
            theories.append(
                {
                    "dataset": dataset,
                    "minimum": 0,
                    "batch_size": batch_size,
                    "theory": theory,
                    "coefficient": np.nan if missing else 4.0 * batch_size,
                    "exponent": exponent,
                    "exponent_se": 0.012,
                    "log_coefficient_se": 0.03,
                    "log_coefficient_exponent_covariance": -0.0003,
                    "log_likelihood_ratio": ratio,
                }
            )
    paths = folder / f"{dataset}_times.parquet", folder / f"{dataset}_theories.parquet"
    store.write_table(paths[0], pd.DataFrame(times), PROVENANCE)
    store.write_table(paths[1], pd.DataFrame(theories), PROVENANCE)
    return str(paths[0]), str(paths[1])


def make_layers(path: Path, count: int) -> str:
    """Layers of two types, one of them without a mean, some of them before a hard sigmoid."""
    types = ("Conv2d", "BatchNorm2d")
    table = pd.DataFrame({"batch_size": 32, "layer_index": np.arange(count, dtype=np.int16)})
    table["layer_type"] = [types[n % 2] if n < count - 1 else "Linear" for n in range(count)]
    table["layer"] = [f"features.{n}.block.2.fc{1 + (n % 9 == 4)}" for n in range(count)]
    table["alpha_mean"] = 1.5 + 0.3 * np.sin(np.arange(count) / 3)
    table.loc[1, "alpha_mean"] = np.nan
    table["alpha_se"] = 0.02
    table["alpha_q25"] = table["alpha_mean"] - 0.12
    table["alpha_q75"] = table["alpha_mean"] + 0.1
    store.write_table(path, table, PROVENANCE)
    return str(path)


def make_exit_axis(path: Path) -> str:
    rows = [
        {
            "alpha_1": alpha,
            "alpha_2": alpha + delta,
            "delta": delta,
            "epsilon": 0.1,
            "box": 1.0,
            "paths": 4000,
            "probability": 0.55 + 0.5 * delta + 0.02 * alpha,
            "low": 0.53 + 0.5 * delta + 0.02 * alpha,
            "high": 0.57 + 0.5 * delta + 0.02 * alpha,
            "corollary": 0.6 + 0.5 * delta,
            "small_noise": 0.55 + 0.6 * delta,
        }
        for alpha in (0.55, 0.75, 0.95, 1.15)
        for delta in (0.2, 0.35, 0.5)
    ]
    store.write_table(path, pd.DataFrame(rows), PROVENANCE)
    return str(path)


def make_exit_time(path: Path) -> str:
    rows = []
    for alpha, epsilon, power, size in itertools.product(
        (0.75, 1.75), (0.05, 0.2), (1.0, 0.8), (1, 2)
    ):
        mean = epsilon**-alpha / size
        rows.append(
            {
                "alpha": alpha,
                "epsilon": epsilon,
                "gamma": power,
                "dimensions": size,
                "mean_exit_time": mean,
                "low": 0.9 * mean,
                "high": 1.1 * mean,
                "bound_text": np.inf if size == 1 else 4 * mean,
                "bound_appendix": np.inf if size == 1 else 4 * mean / power**8,
            }
        )
    store.write_table(path, pd.DataFrame(rows), PROVENANCE)
    return str(path)


# --- All figures from small inputs ---


def draw(name: str, folder: Path) -> None:
    """Draw a figure from inputs made in ``folder``, to figure.png and figure.pdf there."""
    out = {"png_path": str(folder / "figure.png"), "pdf_path": str(folder / "figure.pdf")}
    if name in ("escape_1", "escape_6"):
        pairs = [make_escape(folder, dataset) for dataset in DATASETS]
        plot_escape_times.plot_escape_times(
            times_paths=[times for times, _ in pairs],
            theories_paths=[theories for _, theories in pairs],
            batch_sizes=[32] if name == "escape_1" else [32, 8],
            **out,
        )
    elif name == "decay":
        plot_decay.plot_decay(
            noise_paths={
                state: make_noise(folder / f"{state}.parquet", scale=scale, dead=30)
                for state, scale in (("before", 3e-4), ("after", 1e-4), ("without", 2e-4))
            },
            training_paths={
                "before": make_training(folder / "tb.parquet", range(25), 0.1, 0.1),
                "after": make_training(folder / "ta.parquet", range(25, 31), 0.01, 0.14),
                "without": make_training(folder / "tw.parquet", range(25, 31), 0.1, 0.11),
            },
            seed=3,
            **out,
        )
    elif name in ("random", "first_layers"):
        plot_histograms.plot_histograms(
            noise_path=make_noise(folder / "noise.parquet"),
            fits_path=make_fits(folder / "fits.parquet"),
            choose=name,
            seed=3,
            **out,
        )
    elif name == "alpha_by_network":
        labels = ["mlp", "resnet20", "resnet18", "mobilenet_v3_small"]
        plot_alpha_by_network.plot_alpha_by_network(
            fits_paths=[
                make_fits(folder / f"{label}.parquet", count=400, flagged=9 * (label == "mlp"))
                for label in labels
            ],
            labels=labels,
            batch_size=32,
            **out,
        )
    elif name == "alpha_by_layer":
        plot_alpha_by_layer.plot_alpha_by_layer(
            left_paths=[make_layers(folder / f"left{n}.parquet", n) for n in (40, 43)],
            left_labels=["resnet18", "resnet20"],
            right_paths=[make_layers(folder / "right.parquet", 70)],
            right_labels=["mobilenet_v3_small"],
            batch_size=32,
            **out,
        )
    elif name == "theory":
        plot_theory.plot_theory(exit_time_path=make_exit_time(folder / "exit_time.parquet"), **out)
    else:
        plot_exit_axis.plot_exit_axis(
            exit_axis_path=make_exit_axis(folder / "exit_axis.parquet"), **out
        )


FIGURES = (
    "escape_1",
    "escape_6",
    "decay",
    "random",
    "first_layers",
    "alpha_by_network",
    "alpha_by_layer",
    "exit_axis",
    "theory",
)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function from a figure's name to (folder, matplotlib figure, its texts with places)."""

    @cache
    def drawn(name: str) -> tuple[Path, Any, list[tuple[str, Any]]]:
        folder = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            caught = catch_figures(patch)
            draw(name, folder)
        return folder, *caught[0]

    return drawn


def catch_figures(patch: pytest.MonkeyPatch) -> list[tuple[Any, list[tuple[str, Any]]]]:
    """Keep each figure that is saved, with its texts, while the style is in force."""
    caught: list[tuple[Any, list[tuple[str, Any]]]] = []
    save = plots.save_figure

    def save_and_keep(figure: Figure, png_path: str, pdf_path: str, title: str) -> None:
        save(figure, png_path, pdf_path, title)
        FigureCanvasAgg(figure).draw()
        caught.append(
            (figure, [(text.get_text(), text.get_window_extent()) for text in shown_texts(figure)])
        )

    patch.setattr(plots, "save_figure", save_and_keep)
    return caught


def shown_texts(figure: Any) -> list[Text]:
    """All texts of a figure that can be seen: tick labels outside the axes' limits cannot."""
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for part in figure.subfigs:
        texts += shown_texts(part)
    for axes in figure.axes if isinstance(figure, Figure) else []:
        texts += [axes.title, *axes.texts]
        legend = axes.get_legend()
        texts += legend.get_texts() if legend else []
        for axis in (axes.xaxis, axes.yaxis):
            texts += [axis.label, axis.get_offset_text()]
            low, high = sorted(axis.get_view_interval())
            texts += [
                tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high
            ]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def clashes(texts: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of texts of which one lies on the other."""
    return [
        (one, other)
        for (one, first), (other, second) in itertools.combinations(texts, 2)
        if first.padded(-1).overlaps(second.padded(-1))
    ]


# --- How the figures read ---


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off(gallery: Any, name: str) -> None:
    folder, _, _ = gallery(name)
    pixels = matplotlib.image.imread(folder / "figure.png")[..., :3]
    edge = np.concatenate([pixels[:2].ravel(), pixels[-2:].ravel(), pixels[:, :2].ravel()])
    assert edge.min() == 1, f"{name}: ink at the edge"
    assert pixels[:, -2:].min() == 1, f"{name}: ink at the right edge"
    assert pixels.shape[1] == plots.WIDTH * plots.DPI


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_lies_on_another(gallery: Any, name: str) -> None:
    _, _, texts = gallery(name)
    assert len(texts) > 10
    assert clashes(texts) == []


@pytest.mark.parametrize("name", FIGURES)
def test_legends_cover_no_axes(gallery: Any, name: str) -> None:
    _, figure, _ = gallery(name)
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    for legend in filter(None, legends):
        for axes in figure.axes:
            assert not legend.get_window_extent().overlaps(axes.bbox.padded(-1))


# Figures 6 and 5 come from the same code as Figures 1 and 3.
@pytest.mark.parametrize("name", sorted({*FIGURES} - {"escape_6", "first_layers"}))
def test_same_data_same_bytes(gallery: Any, name: str, tmp_path: Path) -> None:
    folder, _, _ = gallery(name)
    # A reader's own settings must not show either.
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black", "lines.linewidth": 9}):
        draw(name, tmp_path)
    for file in ("figure.png", "figure.pdf"):
        assert (folder / file).read_bytes() == (tmp_path / file).read_bytes()


LABELS = {
    "escape_1": ["learning rate η", "mean escape time τ\n(iterations)", "wine\nbatch size 32"],
    "escape_6": ["breast_cancer\nbatch size 32", "breast_cancer\nbatch size 8"],
    "decay": ["epoch", "training loss", "mini-batches (%)", "decay", "no decay"],
    "random": ["600 mini-batches", "SαS fit", "Gaussian fit", r"density $\times\,\hat{\sigma}$"],
    "first_layers": ["SαS fit"],
    "alpha_by_network": ["mlp\n195 weights\n5 left out", "resnet20\n200 weights"],
    "alpha_by_layer": ["Conv2d", "BatchNorm2d", "Linear", "before a hard sigmoid", "resnet20"],
    "exit_axis": ["Δ = 0.2", "Δ = 0.5", "Corollary 4.4", "exits through axis 1 (%)"],
    "theory": [
        *("no decay", "decay, γ = 0.8", "bound (text) / simulated", "α = 0.75, N = 2"),
        *("mean exit time, N = 2", "Theorem 4.1 (appendix)"),
    ],
}


@pytest.mark.parametrize("name", FIGURES)
def test_labels(gallery: Any, name: str) -> None:
    _, _, texts = gallery(name)
    assert set(LABELS[name]) <= {text for text, _ in texts}


@pytest.mark.parametrize("name", FIGURES)
def test_files_name_their_content(gallery: Any, name: str) -> None:
    folder, _, _ = gallery(name)
    content = (folder / "figure.png").read_bytes()
    assert b"tEXtTitle" in content
    assert b"CreationDate" not in (folder / "figure.pdf").read_bytes()


# --- What the figures show ---


def test_escape_panels_show_times_and_theories(gallery: Any) -> None:
    folder, figure, _ = gallery("escape_1")
    strip, panel = figure.axes[0], figure.axes[3]
    times = pd.read_parquet(folder / "breast_cancer_times.parquet").query("batch_size == 32")
    marks = [line for line in panel.lines if line.get_marker() in ("o", "^")]
    places = np.array([(line.get_xdata()[0], line.get_ydata()[0]) for line in marks])
    assert_allclose(places[:, 0], times["learning_rate"])
    assert_allclose(places[1:, 1], times["mean_escape_time"].iloc[1:])
    assert [line.get_marker() for line in marks] == ["^", *"ooooo"]
    filled = [line.get_markerfacecolor() != "white" for line in marks]
    assert filled == [False, False, True, True, True, True]
    levy = next(line for line in panel.lines if line.get_color() == plots.BLUE)
    assert_allclose(levy.get_ydata(), 128 * np.asarray(levy.get_xdata()) ** -1.5)
    heights = [segment[1][1] for segment in strip.collections[0].get_segments()]
    assert_allclose(heights, [100, 40, 0, 0, 0, 0])
    # Bands of the bootstrap: log τ = log c − k log η, at the panel's left edge.
    x = np.log(levy.get_xdata()[0])
    width = 1.96 * np.sqrt(0.03**2 + (x * 0.012) ** 2 + 2 * x * 0.0003)
    bands = [part.get_paths()[0] for part in panel.collections]
    assert len(bands) == 3
    left = bands[0].vertices[np.isclose(bands[0].vertices[:, 0], levy.get_xdata()[0])][:, 1]
    assert_allclose(np.log(left.max() / left.min()), 2 * width)
    legend = [text.get_text() for text in panel.get_legend().get_texts()]
    assert [entry.partition(",")[2] for entry in legend] == [
        rf"  $\Delta\,\ln L$ = ${gain}$" for gain in ("+0.0", "-0.9", "+2.0")
    ]
    assert legend[0].startswith("$k$ = 1.500 ± 0.012,")


def test_every_row_of_escape_times_shows_its_own_learning_rates(gallery: Any) -> None:
    _, figure, _ = gallery("escape_6")
    panels = [axes for axes in figure.axes if axes.get_legend() is not None]
    assert len(panels) == 2 * len(DATASETS)
    for axes in panels:
        low, high = axes.get_xlim()
        places = [line.get_xdata()[0] for line in axes.lines if line.get_marker() in ("o", "^")]
        assert len(places) == 6
        assert low < min(places) < max(places) < high
        assert max(places) > high / 3
        shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert 2 <= len(shown) <= 5


def test_a_theory_that_was_not_fitted_is_named_so(tmp_path: Path) -> None:
    times, theories = make_escape(tmp_path, "wine", missing=True)
    with pytest.MonkeyPatch.context() as patch:
        caught = catch_figures(patch)
        plot_escape_times.plot_escape_times(
            times_paths=[times],
            theories_paths=[theories],
            batch_sizes=[32],
            png_path=str(tmp_path / "f.png"),
            pdf_path=str(tmp_path / "f.pdf"),
        )
    assert [text for text, _ in caught[0][1]].count("not fitted") == 3


@pytest.mark.parametrize("batch_sizes", [[32], [32, 8]])
def test_a_further_theory_is_drawn_by_its_entry_alone(
    batch_sizes: list[int], tmp_path: Path
) -> None:
    pairs = [make_escape(tmp_path, dataset) for dataset in DATASETS]
    with pytest.MonkeyPatch.context() as patch:
        theory = escape_theories.Theory(regressor=lambda rate: rate**-2, offset=np.zeros_like)
        patch.setitem(escape_theories.THEORIES, "quadratic", theory)
        look = escape_theories.Look("quadratic", r"$\tau = c\,e^{k/\eta^2}$", plots.PURPLE, "-.")
        patch.setitem(escape_theories.LOOKS, "quadratic", look)
        # Fitted to one of the data sets.
        table = pd.read_parquet(pairs[0][1])
        fourth = table[table["theory"] == "levy"].assign(theory="quadratic", exponent=0.001)
        store.write_table(pairs[0][1], pd.concat([table, fourth]), PROVENANCE)
        caught = catch_figures(patch)
        plot_escape_times.plot_escape_times(
            times_paths=[times for times, _ in pairs],
            theories_paths=[fitted for _, fitted in pairs],
            batch_sizes=batch_sizes,
            png_path=str(tmp_path / "f.png"),
            pdf_path=str(tmp_path / "f.pdf"),
        )
    ((figure, texts),) = caught
    panels = [axes for axes in figure.axes if axes.get_legend() is not None]
    for axes in panels:
        shown = [text.get_text() for text in axes.get_legend().get_texts()]
        assert len(shown) == 4
        drawn = [line for line in axes.lines if line.get_color() == plots.PURPLE]
        assert (shown[-1] == "not fitted") == (not drawn)
        for line in drawn:
            x, y = np.asarray(line.get_xdata()), np.log(line.get_ydata())
            assert_allclose(np.diff(y) / np.diff(x**-2.0), 0.001, rtol=1e-6)
    assert sum(axes.get_legend().get_texts()[-1].get_text() != "not fitted" for axes in panels) == (
        len(batch_sizes)
    )
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert len(named) == 7
    assert r"quadratic: $\tau = c\,e^{k/\eta^2}$" in named
    assert clashes(texts) == []


def test_more_data_sets_make_a_wider_figure(tmp_path: Path) -> None:
    pairs = [make_escape(tmp_path, f"{name}_with_a_long_name") for name in "abcd"]
    with pytest.MonkeyPatch.context() as patch:
        caught = catch_figures(patch)
        plot_escape_times.plot_escape_times(
            times_paths=[times for times, _ in pairs],
            theories_paths=[theories for _, theories in pairs],
            batch_sizes=[32],
            png_path=str(tmp_path / "f.png"),
            pdf_path=str(tmp_path / "f.pdf"),
        )
    ((figure, texts),) = caught
    assert figure.get_figwidth() == pytest.approx(plots.WIDTH * 4 / 3)
    assert clashes(texts) == []


def test_a_batch_size_without_times_is_an_error(tmp_path: Path) -> None:
    times, theories = make_escape(tmp_path, "wine")
    with pytest.raises(ValueError, match=r"no escape times at batch size 64, only at \[8, 32\]"):
        plot_escape_times.plot_escape_times(
            times_paths=[times],
            theories_paths=[theories],
            batch_sizes=[64],
            png_path=str(tmp_path / "f.png"),
            pdf_path=str(tmp_path / "f.pdf"),
        )
    assert not (tmp_path / "f.png").exists()


def test_decay_shows_one_parameter_with_noise_in_all_states(gallery: Any) -> None:
    _, figure, _ = gallery("decay")
    title = figure.get_suptitle()
    offset = int(title.partition("[")[2].partition("]")[0])
    # The first thirty have no noise; every parameter's offset is seven times its number.
    assert offset // 7 >= 30
    before, after, without, loss = figure.axes
    assert before.get_xlim() == after.get_xlim() == without.get_xlim()
    assert [axes.get_title().split(":")[0] for axes in (before, after, without)] == [
        "(a) before the decay, epoch 24",
        "(b) after the decay, epoch 30",
        "(c) without decay, epoch 30",
    ]
    for axes in (before, after, without):
        share = axes.patches[0].get_data().values
        assert_allclose(share.sum(), 100)
    parent, decayed, constant = loss.lines[:3]
    for child in (decayed, constant):
        assert child.get_xdata()[0] == parent.get_xdata()[-1] == 24
        assert child.get_ydata()[0] == parent.get_ydata()[-1]
        assert child.get_xdata()[-1] == 30


def test_decay_needs_the_same_parameters_and_a_decay(tmp_path: Path) -> None:
    one = make_noise(tmp_path / "one.parquet")
    other = make_noise(tmp_path / "other.parquet", count=30)
    with pytest.raises(ValueError, match=r"other\.parquet: not the parameters of .*one\.parquet"):
        plot_decay.choose_parameter({"before": one, "after": other, "without": one}, seed=1)
    dead = make_noise(tmp_path / "dead.parquet", dead=40)
    with pytest.raises(ValueError, match="none of 20 sampled parameters has any noise"):
        plot_decay.choose_parameter({"before": one, "after": dead, "without": one}, seed=1)
    course = pd.DataFrame({"epoch": [0, 1, 2], "learning_rate": [np.nan, 0.1, 0.1]})
    later = pd.DataFrame({"epoch": [3, 4, 5], "learning_rate": [0.1, 0.01, 0.01]})
    assert plot_decay.decay_epoch(course, later, "after") == 3
    with pytest.raises(ValueError, match="the learning rate never falls"):
        plot_decay.decay_epoch(course, course, "after")


def histogram_fits(folder: Path, flagged: int = 0) -> pd.DataFrame:
    path = make_fits(folder / "fits.parquet", flagged=flagged)
    return readers.read_law(path, "stable", ["alpha", "alpha_se", "scale", "location"])


def test_choice_of_parameters(tmp_path: Path) -> None:
    fits = histogram_fits(tmp_path, flagged=4)
    chosen = plot_histograms.choose_parameters(fits, "random", seed=3)
    assert len(chosen) == chosen["parameter_index"].nunique() == 4
    assert set(chosen["stratum"]) == {"uniform"}
    again = plot_histograms.choose_parameters(fits, "random", seed=3)
    pd.testing.assert_frame_equal(chosen, again)
    seen = {
        index
        for seed in range(20)
        for index in plot_histograms.choose_parameters(fits, "random", seed)["parameter_index"]
    }
    # Over many seeds every uniformly sampled parameter with noise comes up, and none without.
    assert seen == {index for index in range(4, 40) if index % 8 < 4}
    first = plot_histograms.choose_parameters(fits, "first_layers", seed=3)
    assert list(first["layer"]) == ["conv1", "conv2"]
    with pytest.raises(ValueError, match="must be 'random' or 'first_layers'"):
        plot_histograms.choose_parameters(fits, "all", seed=3)
    with pytest.raises(ValueError, match="too few for the figure"):
        plot_histograms.choose_parameters(fits.head(7), "random", seed=3)
    only = fits[fits["layer"] == "conv1"]
    chosen = plot_histograms.choose_parameters(only, "first_layers", seed=3)
    assert list(chosen["layer"]) == ["conv1"]
    with pytest.raises(ValueError, match="too few for the figure"):
        plot_histograms.choose_parameters(only.assign(tensor="bias"), "first_layers", seed=3)


def test_histograms_show_the_noise_and_the_fitted_laws(gallery: Any) -> None:
    folder, figure, _ = gallery("first_layers")
    core, tail = figure.axes[:2]
    chosen = plot_histograms.choose_parameters(
        readers.read_law(str(folder / "fits.parquet"), "stable", ["alpha", "scale"]),
        "first_layers",
        seed=3,
    )
    noise = readers.read_noise(str(folder / "noise.parquet"), chosen["parameter_index"].tolist())[0]
    scaled = noise / chosen["scale"].iloc[0]
    alpha = chosen["alpha"].iloc[0]
    heights, edges, _ = core.patches[0].get_data()
    assert_allclose((heights * np.diff(edges)).sum(), np.mean(np.abs(scaled) <= 8))
    curves = {line.get_color(): line for line in core.lines}
    gauss = curves[LOOKS["gaussian"].colour]
    sd = 1.7 / 0.8
    assert_allclose(
        gauss.get_ydata(),
        np.exp(-0.5 * (np.asarray(gauss.get_xdata()) / sd) ** 2) / (sd * np.sqrt(2 * np.pi)),
    )
    stable = curves[LOOKS["stable"].colour]
    # The SαS density at its centre is Γ(1 + 1/α)/π.
    middle = np.interp(0, stable.get_xdata(), stable.get_ydata())
    assert_allclose(middle, gamma(1 + 1 / alpha) / np.pi, rtol=2e-4)
    # On the right shares of magnitudes: of both signs together.
    stable, gauss, seen = tail.lines
    assert stable.get_color() == LOOKS["stable"].colour
    x = np.asarray(stable.get_xdata())
    at_end = 2 * np.sin(np.pi * alpha / 2) * gamma(alpha) / np.pi * x[-1] ** -alpha
    assert_allclose(stable.get_ydata()[-1], at_end, rtol=0.05)
    assert_allclose(gauss.get_ydata(), erfc(x / (sd * np.sqrt(2))))
    assert seen.get_drawstyle() == "steps-post"
    assert_allclose(np.sort(np.abs(scaled)), seen.get_xdata()[1:])
    assert_allclose(seen.get_ydata(), 1 - np.arange(DRAWS + 1) / DRAWS, atol=1e-12)


def test_bands_of_the_tail_hold_what_a_true_law_gives(tmp_path: Path) -> None:
    row = pd.Series({"alpha": 1.5, "scale": 1.0, "location": 0.0})
    row["gaussian_scale"], row["gaussian_location"] = 2.0, 0.0
    inside = []
    for seed in range(40):
        axes = Figure().subplots()
        draws = stable.rvs(1.5, size=DRAWS, rng=np.random.default_rng(seed))
        plot_histograms.draw_tail(axes, draws, row)
        band = np.asarray(axes.collections[0].get_paths()[0].vertices)
        x = 4.0
        share = np.mean(np.abs(draws) > x)
        edges = [
            np.interp(x, *half[np.argsort(half[:, 0])].T) for half in np.array_split(band[1:-1], 2)
        ]
        inside.append(min(edges) <= share <= max(edges))
    # Binomial: 40 times 0.95, less four standard deviations.
    assert sum(inside) >= 32


def test_spread_of_errors() -> None:
    def limits(alpha: np.ndarray, error: np.ndarray) -> np.ndarray:
        spread = plot_alpha_by_network.spread_of_errors(alpha, error)
        return np.quantile(spread, [0.025, 0.5, 0.975])

    alpha = np.full(500, 1.5)
    known = limits(alpha, np.full(500, 0.1))
    assert_allclose(known, [1.304, 1.5, 1.696], atol=2e-3)
    # A weight without a standard error says nothing; near 2 the estimates stop there.
    assert_allclose(limits(alpha, np.r_[np.full(499, 0.1), np.nan]), known)
    assert limits(alpha + 0.45, np.full(500, 0.1))[2] == 2
    assert plot_alpha_by_network.spread_of_errors(alpha, np.full(500, np.nan)).size == 0


def test_alpha_by_network_shows_weights_and_both_spreads(gallery: Any) -> None:
    folder, figure, _ = gallery("alpha_by_network")
    (axes,) = figure.axes
    fits = readers.read_law(str(folder / "mlp.parquet"), "stable", ["alpha", "alpha_se"])
    fits = fits[(fits["stratum"] == "uniform") & np.isfinite(fits["alpha"])]
    alpha, error = fits["alpha"].to_numpy(), fits["alpha_se"].to_numpy()
    dots = next(part for part in axes.collections if len(part.get_offsets()) == len(fits))
    x, y = np.asarray(dots.get_offsets()).T
    assert_allclose(y, alpha)
    # Beside the boxes, and not on one line.
    assert -0.5 < x.min() < x.max() < -0.13
    assert x.std() > 0.03
    boxes = [part for part in axes.collections if isinstance(part, PatchCollection)]
    assert len(boxes) == 2 * 4
    for part, values in (
        (boxes[0], alpha),
        (boxes[1], plot_alpha_by_network.spread_of_errors(alpha, error)),
    ):
        corners = np.concatenate([np.asarray(path.vertices)[:, 1] for path in part.get_paths()])
        tails = np.array([1 / 64, 63 / 64])
        assert_allclose([corners.min(), corners.max()], np.quantile(values, tails), atol=1e-6)


def test_a_network_without_usable_fits_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no usable SαS fit"):
        plot_alpha_by_network.plot_alpha_by_network(
            fits_paths=[make_fits(tmp_path / "fits.parquet", flagged=40)],
            labels=["mlp"],
            batch_size=8,
            png_path=str(tmp_path / "f.png"),
            pdf_path=str(tmp_path / "f.pdf"),
        )


def test_a_network_has_one_colour_and_a_line_joins_layers_of_one_type(gallery: Any) -> None:
    folder, figure, _ = gallery("alpha_by_layer")
    left, right = figure.axes
    names = {
        text.get_text(): line.get_color()
        for axes in (left, right)
        for text, line in zip(
            axes.get_legend().get_texts(), axes.get_legend().get_lines(), strict=True
        )
    }
    assert len(set(names.values())) == len(names) == 3
    layers = pd.read_parquet(folder / "right.parquet")
    batch_norm = next(
        line for line in right.lines if line.get_marker() == "s" and len(line.get_xdata()) > 9
    )
    assert batch_norm.get_color() == names["mobilenet_v3_small"]
    shown = layers[(layers["layer_type"] == "BatchNorm2d") & layers["alpha_mean"].notna()]
    assert_allclose(batch_norm.get_ydata(), shown["alpha_mean"])


def test_layers_without_a_mean_are_left_out(gallery: Any) -> None:
    _, figure, _ = gallery("alpha_by_layer")
    right = figure.axes[1]
    dots = np.concatenate(
        [line.get_xdata() for line in right.lines if line.get_marker() in ("s", "^")]
        + [
            line.get_xdata()
            for line in right.lines
            if line.get_marker() == "o" and line.get_markersize() == 4
        ]
    )
    assert sorted(dots) == [0, *range(2, 70)]


def test_exit_axis_shows_the_table(gallery: Any) -> None:
    folder, figure, _ = gallery("exit_axis")
    axes = figure.axes[0]
    exits = pd.read_parquet(folder / "exit_axis.parquet")
    points = np.concatenate(
        [line.get_ydata() for line in axes.lines if line.get_marker() in ("o", "s", "^")]
    )
    assert_allclose(np.sort(points.astype(float)), np.sort(100 * exits["probability"]))
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert_allclose([line.get_ydata()[0] for line in dashed], [70, 77.5, 85])
    assert any(list(line.get_ydata()) == [50, 50] for line in axes.lines)


def test_theory_shows_the_ratios_and_which_bounds_are_broken(tmp_path: Path) -> None:
    path = make_exit_time(tmp_path / "exit_time.parquet")
    table = pd.read_parquet(path)
    broken = (table["alpha"] == 1.75) & (table["gamma"] == 0.8)
    table.loc[broken, "bound_appendix"] = 0.25 * table["mean_exit_time"]
    store.write_table(path, table, PROVENANCE)
    with pytest.MonkeyPatch.context() as patch:
        caught = catch_figures(patch)
        plot_theory.plot_theory(
            exit_time_path=path,
            png_path=str(tmp_path / "f.png"),
            pdf_path=str(tmp_path / "f.pdf"),
        )
    ((figure, _),) = caught
    panels: dict[str, list[Any]] = {}
    for axes in figure.axes[2:6]:
        cells = [text.get_text() for text in axes.texts]
        panels.setdefault(axes.get_title(), []).append((cells, axes.collections[0]))
    # Without decay, and with it: two alphas, two noises; one parameter alone has no finite bound.
    (_, text), (_, appendix) = panels.items()
    assert [cells for cells, _ in text] == [["4"] * 4, ["4"] * 4]
    assert appendix[1][0] == [f"{4 / 0.8**8:.3g}"] * 2 + ["0.25"] * 2
    red, _, blue, _ = appendix[1][1].get_facecolors().T
    assert list(red > blue) == [False, False, True, True]


def test_drawing_leaves_nothing_behind(tmp_path: Path) -> None:
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    before = dict(mpl.rcParams)
    for name in ("alpha_by_network", "theory"):
        (tmp_path / name).mkdir()
        draw(name, tmp_path / name)
    assert_allclose(np.random.random(3), expected)  # noqa: NPY002
    assert dict(mpl.rcParams) == before
    assert pyplot.get_fignums() == []


def test_sparse_results_still_make_figures(tmp_path: Path) -> None:
    out = {"png_path": str(tmp_path / "f.png"), "pdf_path": str(tmp_path / "f.pdf")}
    layers = make_layers(tmp_path / "layers.parquet", 6)
    table = pd.read_parquet(layers)
    table[["alpha_mean", "alpha_se", "alpha_q25", "alpha_q75"]] = np.nan
    store.write_table(layers, table, PROVENANCE)
    plot_alpha_by_layer.plot_alpha_by_layer(
        left_paths=[layers],
        left_labels=["mlp"],
        right_paths=[layers],
        right_labels=["mlp"],
        batch_size=32,
        **out,
    )
    exits = make_exit_axis(tmp_path / "exit_axis.parquet")
    table = pd.read_parquet(exits)
    table.loc[0, ["probability", "low", "high"]] = np.nan
    table.loc[1, ["probability", "low", "high"]] = [1.0, 0.7, 1 - 1e-16]
    table.loc[2, ["probability", "low", "high"]] = [0.0, 1e-17, 0.3]
    store.write_table(exits, table, PROVENANCE)
    plot_exit_axis.plot_exit_axis(exit_axis_path=exits, **out)


# --- Reading the data, writing numbers ---


def test_read_noise(tmp_path: Path) -> None:
    path = make_noise(tmp_path / "noise.parquet", count=12)
    everything = store.matrix(pq.read_table(path), "noise")
    # The order asked for, over the border between the two row groups.
    assert_allclose(readers.read_noise(path, [9, 2, 5]), everything[[9, 2, 5]])
    with pytest.raises(ValueError, match=r"no noise of the parameters \[12, 99\]"):
        readers.read_noise(path, [3, 12, 99])


def test_read_law(tmp_path: Path) -> None:
    path = make_fits(tmp_path / "fits.parquet")
    fits = readers.read_law(path, "gaussian", ["scale"])
    assert len(fits) == 40
    assert list(fits) == [*store.PARAMETER_COLUMNS, "flag", "scale"]
    with pytest.raises(ValueError, match="no fits of the law 'laplace'"):
        readers.read_law(path, "laplace", ["scale"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.002, "0.002"),
        (0.5, "0.5"),
        (50, "50"),
        (20000, "20,000"),
        (1e5, "$10^{5}$"),
        (2e-4, r"$2\times10^{-4}$"),
        (1e-4, "$10^{-4}$"),
        (1000, "1,000"),
    ],
)
def test_tick_text(value: float, text: str) -> None:
    assert plots.tick_text(value) == text


@given(st.floats(-12, 8), st.floats(0.1, 12))
@settings(max_examples=40, deadline=None)
def test_log_axes_have_few_plain_ticks(start: float, decades: float) -> None:
    low, high = 10**start, 10 ** (start + decades)
    axes = Figure().subplots()
    axes.set(xscale="log", xlim=(low, high))
    plots.log_ticks(axes.xaxis, low, high)
    ticks = [tick for tick in axes.xaxis.get_majorticklocs() if low <= tick <= high]
    assert len(ticks) <= 9
    if decades >= 1:
        assert ticks
    labels = [axes.xaxis.get_major_formatter()(tick) for tick in ticks]
    assert len(set(labels)) == len(ticks)
