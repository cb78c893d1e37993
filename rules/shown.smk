"""The figures and tables: what each shows, from which files, drawn by which script."""

from collections.abc import Callable
from typing import NamedTuple


class Figure(NamedTuple):
    """A figure. Its caption is report/<name>.rst, its files are figures/<name>.png and .pdf.

    `shows` is what the settings say of it, and None leaves it out of the study; `inputs` and `params`
    make the script's inputs and parameters from that. The report has it in its chapter `chapter`.
    """

    name: str
    title: str
    shows: dict | None
    script: str
    inputs: Callable[[dict], dict]
    params: Callable[[dict], dict] = lambda shown: {}
    chapter: str = "figures"


def shown(figure, key=None):
    """What the settings say that a figure shows; None where they, or this `key`, leave it out."""
    content = SETTINGS["figures"][figure]
    return None if content is None or key not in (None, *content) else content


def escape_inputs(content):
    return {"times": escape_results("times"), "theories": escape_results("theories")}


def decay_inputs(content):
    noise = {state: noise_of(content[state], content["batch_size"]) for state in STATES}
    training = {
        f"training_{state}": run_file(content[state], "training.parquet")
        for state in STATES
    }
    return {**noise, **training}


def noise_and_fits(run, batch_size):
    return {"noise": noise_of(run, batch_size), "fits": fits_of(run, batch_size)}


STATES = ("before", "after", "without")

# In the order of the report. A new figure has its script, its caption and an entry here.
FIGURES = [
    Figure(
        "figure_1",
        "Figure 1",
        shown("escape", "figure_1"),
        "plot_escape_times.py",
        escape_inputs,
        lambda content: {"batch_sizes": content["figure_1"]},
    ),
    Figure(
        "figure_2",
        "Figure 2",
        shown("decay"),
        "plot_decay.py",
        decay_inputs,
        lambda content: {"seed": seed("figure", 2)},
    ),
    Figure(
        "figure_3",
        "Figure 3",
        shown("histograms", "figure_3"),
        "plot_histograms.py",
        lambda content: noise_and_fits(content["figure_3"], content["batch_size"]),
        lambda content: {"choose": "random", "seed": seed("figure", 3)},
    ),
    Figure(
        "figure_4",
        "Figure 4",
        shown("histograms", "figure_4"),
        "plot_histograms.py",
        lambda content: noise_and_fits(content["figure_4"], content["batch_size"]),
        lambda content: {"choose": "random", "seed": seed("figure", 4)},
    ),
    Figure(
        "figure_5",
        "Figure 5",
        shown("histograms", "figure_5"),
        "plot_histograms.py",
        lambda content: noise_and_fits(content["figure_5"], content["batch_size"]),
        lambda content: {"choose": "first_layers", "seed": seed("figure", 5)},
    ),
    Figure(
        "figure_6",
        "Figure 6",
        shown("escape", "figure_6"),
        "plot_escape_times.py",
        escape_inputs,
        lambda content: {"batch_sizes": content["figure_6"]},
    ),
    Figure(
        "figure_7",
        "Figure 7",
        shown("alpha_by_network"),
        "plot_alpha_by_network.py",
        lambda content: {
            "fits": [fits_of(run, content["batch_size"]) for run in content["runs"]]
        },
        lambda content: {
            "labels": content["runs"],
            "batch_size": content["batch_size"],
        },
    ),
    Figure(
        "figure_8",
        "Figure 8",
        shown("alpha_by_layer"),
        "plot_alpha_by_layer.py",
        lambda content: {
            side: [layers_of(run) for run in content[side]]
            for side in ("left", "right")
        },
        lambda content: {
            "left_labels": content["left"],
            "right_labels": content["right"],
            "batch_size": content["batch_size"],
        },
    ),
    Figure(
        "figure_9",
        "Figure 9",
        shown("exit_axis"),
        "plot_exit_axis.py",
        lambda content: {"exits": f"{RESULTS}/sde/exit_axis.parquet"},
    ),
    Figure(
        "theory",
        "Theory",
        shown("theory"),
        "plot_theory.py",
        lambda content: {"exits": f"{RESULTS}/sde/exit_time.parquet"},
        chapter="theory",
    ),
]
FIGURES = [figure for figure in FIGURES if figure.shows is not None]


def figure_files(*kinds, names=None):
    """The files of the study's figures, or of those of these names, of some kinds (png, pdf)."""
    return [
        f"{RESULTS}/figures/{figure.name}.{kind}"
        for kind in kinds
        for figure in FIGURES
        if names is None or figure.name in names
    ]


# The numbered tables; `kind` names what `make_table.py` compares. A study names more of them in its
# settings; a new kind has an entry in `KINDS` there and in the schema.
TABLES = {
    name: SETTINGS["tables"][name]
    for name in sorted(SETTINGS["tables"], key=lambda name: (len(name), name))
    if SETTINGS["tables"][name] is not None
}


def table_files(*kinds):
    """The files of the study's tables, of some kinds (csv, md, tex)."""
    return [f"{RESULTS}/tables/{name}.{kind}" for kind in kinds for name in TABLES]


def table_rows(name):
    """One entry a row of the table: which fits it shows and what to call them."""
    content = TABLES[name]
    return [
        {
            "run": run,
            "dataset": RUNS[run]["dataset"] if run in RUNS else "synthetic",
            "batch_size": batch_size,
        }
        for run in content["runs"]
        for batch_size in content["batch_sizes"]
        if batch_size in batch_sizes_of(run)
    ]


def nothing_for(target, section):
    """The one line with which a target answers that the study has nothing to make for it."""
    return (
        f"Nothing to make for '{target}': the study '{STUDY}' leaves out the section '{section}', "
        "which schemas/config.schema.yaml describes."
    )
