"""What the figures and tables of a study show where its settings do not say.

A study of one network then has the figures and tables that make sense for one network. Each
function gives what the settings could have said, or None where the study has nothing to show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Shown = dict[str, Any] | None

# Lines that one panel of alpha by layer holds before they hide each other.
_LINES = 4


def usual_batch_size(settings: Mapping[str, Any]) -> int:
    """The batch size at which most runs are measured; of several, the one that is named first."""
    order = [*settings["noise"]["batch_sizes"], *_run_sizes(settings)]
    counts = Counter(_run_sizes(settings))
    return max(order, key=lambda size: (counts[size], -order.index(size)))


def shared_batch_size(settings: Mapping[str, Any], names: Sequence[str]) -> int | None:
    """The usual batch size if the runs of these names have it, else the first that all have."""
    shared = [
        size
        for size in (usual_batch_size(settings), *_run_sizes(settings))
        if all(size in run["batch_sizes"] for run in settings["runs"] if run["name"] in names)
    ]
    return shared[0] if shared else None


def _run_sizes(settings: Mapping[str, Any]) -> list[int]:
    return [size for run in settings["runs"] for size in run["batch_sizes"]]


def _measured(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The runs at the usual batch size; those that go on from another run come last."""
    size = usual_batch_size(settings)
    runs = [run for run in settings["runs"] if size in run["batch_sizes"]]
    return sorted(runs, key=lambda run: "start_from" in run)


# --- figures ------------------------------------------------------------------------------------


def escape(settings: Mapping[str, Any]) -> Shown:
    """Figure 1 at the first batch size; Figure 6 at all, if there are several."""
    if settings["escape"] is None:
        return None
    sizes = settings["escape"]["batch_sizes"]
    return {"figure_1": sizes[:1], "figure_6": sizes[:] if len(sizes) > 1 else None}


def decay(settings: Mapping[str, Any]) -> Shown:
    """The first run that goes on both with a lower learning rate and without."""
    for before in settings["runs"]:
        start = before["training"]["epochs"]
        going_on = [run for run in settings["runs"] if run.get("start_from") == before["name"]]
        lowered = [
            any(
                start <= epoch < run["training"]["epochs"]
                for epoch in run["training"]["milestones"]
            )
            for run in going_on
        ]
        if True in lowered and False in lowered:
            after = going_on[lowered.index(True)]["name"]
            without = going_on[lowered.index(False)]["name"]
            size = shared_batch_size(settings, [before["name"], after, without])
            if size is not None:
                shown = {"before": before["name"], "after": after, "without": without}
                return {**shown, "batch_size": size}
    return None


def histograms(settings: Mapping[str, Any]) -> Shown:
    """Random weights of the first two runs, and the first layers of the third or else the first."""
    names = [run["name"] for run in _measured(settings)]
    return {
        "figure_3": names[0],
        "figure_4": names[1] if len(names) > 1 else None,
        "figure_5": names[2] if len(names) > 2 else names[0],
        "batch_size": usual_batch_size(settings),
    }


def alpha_by_network(settings: Mapping[str, Any]) -> Shown:
    """Every run at the usual batch size."""
    names = [run["name"] for run in _measured(settings)]
    return {"runs": names, "batch_size": usual_batch_size(settings)}


def alpha_by_layer(settings: Mapping[str, Any]) -> Shown:
    """The first runs; on the right those with hard sigmoids, if there are both kinds."""
    runs = _measured(settings)
    sigmoid = [run["model"]["name"].startswith("mobilenet_v3") for run in runs]
    names = [run["name"] for run in runs]
    left = [name for name, hard in zip(names, sigmoid, strict=True) if not hard]
    right = [name for name, hard in zip(names, sigmoid, strict=True) if hard]
    if not left:
        left, right = right, []
    return {
        "left": left[:_LINES],
        "right": right[:_LINES],
        "batch_size": usual_batch_size(settings),
    }


def of_the_equation(settings: Mapping[str, Any]) -> Shown:
    """Figure 9 and the bounds show all that the section ``sde`` simulates."""
    return None if settings["sde"] is None else {}


# --- tables -------------------------------------------------------------------------------------


def table_kind(name: str) -> str:
    """What a table compares: the kinds of the paper's tables, and for others that of Table 1."""
    return "shared_alpha" if name == "table_2" else "gaussian_stable"


def table_1(settings: Mapping[str, Any]) -> Shown:
    """Every run and control at the usual batch size."""
    size = usual_batch_size(settings)
    names = [run["name"] for run in settings["runs"] if size in run["batch_sizes"]]
    if size in settings["noise"]["batch_sizes"]:
        names += [control["name"] for control in settings["controls"]]
    return {"runs": names, "batch_sizes": [size]}


def table_2(settings: Mapping[str, Any]) -> Shown:
    """Every run at all its batch sizes."""
    names = [run["name"] for run in settings["runs"]]
    return {"runs": names, "batch_sizes": sorted(set(_run_sizes(settings)))}


def table_3(settings: Mapping[str, Any]) -> Shown:
    """Every run at the batch sizes that are not the usual one, if there are any."""
    others = sorted(set(_run_sizes(settings)) - {usual_batch_size(settings)})
    names = [run["name"] for run in settings["runs"] if set(others) & set(run["batch_sizes"])]
    return {"runs": names, "batch_sizes": others} if names else None


FIGURES: dict[str, Callable[[Mapping[str, Any]], Shown]] = {
    "escape": escape,
    "decay": decay,
    "histograms": histograms,
    "alpha_by_network": alpha_by_network,
    "alpha_by_layer": alpha_by_layer,
    "exit_axis": of_the_equation,
    "theory": of_the_equation,
}
TABLES: dict[str, Callable[[Mapping[str, Any]], Shown]] = {
    "table_1": table_1,
    "table_2": table_2,
    "table_3": table_3,
}
