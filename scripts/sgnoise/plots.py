"""What all figures share: one style, one palette and one way to save.

A figure is drawn without a display, on axes of its own and not on pyplot's current ones; seaborn
takes the same style and colours. The same data give the same bytes, in PNG and in PDF: no times in
the metadata, seeded jitter, fonts that come with matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from sgnoise.files import atomic_path

# Inches. At this width the text of 9 points is read easily in a page column of 800 pixels.
WIDTH = 8.0
DPI = 160

# Okabe and Ito's colours: told apart under the common forms of colour blindness.
BLUE, VERMILLION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#a8578a"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, "#b07d00", "#3a8fb7", "#333333")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK = "#222222"
GREY = "#8a8a8a"
PALE = "#d9d9d9"

STYLE: dict[str, Any] = {
    "axes.prop_cycle": cycler(color=SERIES),
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "pdf.fonttype": 42,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}

_JITTER_SEED = 1
_DECADE_STEPS = {True: (1.0, 2.0, 5.0), False: (1.0,)}


def save_figure(figure: Figure, png_path: str, pdf_path: str, title: str) -> None:
    """Write ``figure`` as PNG and PDF; neither holds a date, so equal figures are equal files."""
    with atomic_path(png_path) as path:
        figure.savefig(path, dpi=DPI, metadata={"Title": title, "Software": None})
    # The layout stands: to find it again for the second file would double the time.
    figure.set_layout_engine("none")
    with atomic_path(pdf_path) as path:
        figure.savefig(path, dpi=DPI, metadata={"Title": title, "CreationDate": None})


@contextmanager
def seeded_jitter() -> Iterator[None]:
    """NumPy's global generator, which seaborn takes jitter from, in one state; as before after."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(_JITTER_SEED)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


@contextmanager
def style() -> Iterator[None]:
    """The project's style, in which the reader's own matplotlib settings play no part."""
    # Not through matplotlib.style, which reads every style file of the machine.
    settings: Any = {key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"}
    with mpl.rc_context(settings | STYLE):
        yield


@contextmanager
def drawing(
    png_path: str, pdf_path: str, *, title: str, height: float, width: float = WIDTH
) -> Iterator[Figure]:
    """A figure in the project's style, ``width`` by ``height`` inches, saved when the block ends.

    ``title`` goes into the files' metadata.
    """
    with style(), seeded_jitter():
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        save_figure(figure, png_path, pdf_path, title)


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis that shows ``low`` to ``high``: plain numbers, not too many.

    Within two decades 1, 2 and 5 are marked, beyond that whole decades only.
    """
    decades = math.log10(high / low)
    axis.set_major_locator(LogLocator(base=10, subs=_DECADE_STEPS[decades <= 2], numticks=8))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
    axis.set_minor_formatter(NullFormatter())


def tick_text(value: float) -> str:
    """``value`` as a tick label: 0.002, 50, 20,000, and powers of ten beyond that."""
    if 1e-3 <= value < 1e5:
        return f"{value:,g}" if value < 1e4 else f"{value:,.0f}"
    exponent = math.floor(math.log10(value) + 1e-9)
    factor = value / 10.0**exponent
    power = rf"10^{{{exponent}}}"
    return f"${power}$" if math.isclose(factor, 1) else rf"${factor:.3g}\times{power}$"


def scientific(value: float) -> str:
    """``value`` to two digits with a power of ten, as mathematical text."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"${mantissa}\times10^{{{int(exponent)}}}$"
