"""Tables 1 to 3: how well the laws fit, with what a sceptic asks beside it."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sgnoise import evidence, store
from sgnoise.files import atomic_path
from sgnoise.jobs import running_job
from sgnoise.laws import LOOKS
from sgnoise.numerals import SUPERSCRIPTS, with_error

Row = Mapping[str, Any]
Cell = Callable[[Row], str]


@dataclass(frozen=True)
class Kind:
    """What the tables of one kind compare, and what they show beside it.

    Attributes:
        laws: in the order of the columns.
        rival: the simpler law with which the SαS law with an alpha a parameter is compared.
        wins: heading of the share of parameters that SαS fits better.
        measure: what else a row has, from the uniform sample's fits and the 95 % point of the
            likelihood ratio of SαS to Gauss on Gaussian noise.
        heading: of that.
        cell: that as text.
        caption: what a reader must know of these columns.
    """

    laws: tuple[str, ...]
    rival: str
    wins: str
    measure: Callable[[pd.DataFrame, float], dict[str, float]]
    heading: str
    cell: Cell
    caption: str


def significance(fits: pd.DataFrame, critical: float) -> dict[str, float]:
    """``significant``: the share of parameters that reject the Gaussian at the 5 % level."""
    likelihood = evidence.by_law(fits, ["gaussian", "stable"], "log_likelihood")
    share = evidence.calibrated_wins(
        likelihood["stable"].to_numpy(), likelihood["gaussian"].to_numpy(), critical
    )
    return share_columns("significant", share)


def shared_alpha(fits: pd.DataFrame, critical: float) -> dict[str, float]:
    """``shared_alpha``: the one alpha of all parameters."""
    shared = fits.loc[fits["law"] == "stable_shared_alpha", "alpha"]
    return {"shared_alpha": float(shared.dropna().iloc[0])}


def share_columns(name: str, share: evidence.Share) -> dict[str, float]:
    """A share and the ends of its interval, as columns."""
    return {name: share.share, f"{name}_low": share.low, f"{name}_high": share.high}


def share_cell(row: Row, name: str) -> str:
    """``96.6 % [95.7, 97.4]``."""
    share, low, high = (100 * row[name + part] for part in ("", "_low", "_high"))
    return "–" if math.isnan(share) else f"{share:.1f} % [{low:.1f}, {high:.1f}]"


KINDS = {
    "gaussian_stable": Kind(
        laws=("gaussian", "stable"),
        rival="gaussian",
        wins="SαS wins",
        measure=significance,
        heading="Significant",
        cell=lambda row: share_cell(row, "significant"),
        caption=(
            "SαS wins: share of parameters that the SαS law fits better by SSE; as the Gaussian is "
            "SαS with α = 2, compare it with that of the Gaussian controls. Held-out wins: by the "
            "likelihood of draws that were not fitted. Significant: the Gaussian rejected at the "
            "5 % level by a likelihood ratio calibrated on Gaussian noise."
        ),
    ),
    "shared_alpha": Kind(
        laws=("gaussian", "stable_shared_alpha", "stable"),
        rival="stable_shared_alpha",
        wins="Wins",
        measure=shared_alpha,
        heading="Const α",
        cell=lambda row: f"{row['shared_alpha']:.3f}",
        caption=(
            "SαS const α: one α for all parameters, a scale for each. Wins: share of parameters to "
            "which an α of their own fits better by SSE; held-out wins: by the likelihood of draws "
            "that were not fitted."
        ),
    ),
}


def make_table(
    *,
    fits_paths: list[str],
    rows: list[dict[str, Any]],
    kind: str,
    csv_path: str,
    markdown_path: str,
    latex_path: str,
) -> None:
    """Write one table in three forms.

    Args:
        fits_paths: the fits behind each row.
        rows: for each of ``fits_paths`` what it is: ``run``, ``dataset``, ``batch_size``.
        kind: a name in ``KINDS``: ``gaussian_stable`` (Tables 1 and 3), ``shared_alpha`` (Table 2).
        csv_path: full precision.
        markdown_path: rounded, for people.
        latex_path: the same, for booktabs.

    Raises:
        ValueError: unknown kind, rows that do not match the files, or fits that were measured in
            different ways.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no table '{kind}'; there are {', '.join(KINDS)}")
    measured = []
    settings = []
    for path, row in zip(fits_paths, rows, strict=True):
        found = store.read_metadata(path)["settings"]
        if (found["run"], found["batch_size"]) != (row["run"], row["batch_size"]):
            raise ValueError(
                f"{path}: holds {found['run']} at batch size {found['batch_size']}, but its row is "
                f"{row['run']} at {row['batch_size']}"
            )
        settings.append({name: found[name] for name in ("bins", "span", "scaling")})
        fits = pd.read_parquet(path, filters=[("law", "in", list(KINDS[kind].laws))])
        critical = found["critical_likelihood_ratio"]
        measured.append(row | table_row(fits, kind=kind, critical=critical))
    if any(setting != settings[0] for setting in settings):
        raise ValueError(f"fits of one table must share bins, span and scaling; found {settings}")
    table = pd.DataFrame(measured)
    caption = table_caption(kind, **settings[0])
    with atomic_path(csv_path) as path_csv:
        table.to_csv(path_csv, index=False)
    with atomic_path(markdown_path) as path_markdown:
        path_markdown.write_text(markdown(table, kind, caption), encoding="utf-8")
    with atomic_path(latex_path) as path_latex:
        path_latex.write_text(latex(table, kind, caption), encoding="utf-8")


def table_row(fits: pd.DataFrame, *, kind: str, critical: float) -> dict[str, float]:
    """The numbers of one row.

    Only the uniform sample of the network's parameters counts, as a share of parameters is meant.
    A parameter enters if all the laws of the table converged on it; the others are counted in
    ``n_flagged``.

    Args:
        fits: one row a parameter and law.
        kind: of the table.
        critical: 95 % point of the likelihood ratio of SαS to Gauss on Gaussian noise.

    Returns:
        By name: ``n``, ``n_flagged``; mean SSE of each law with the standard error of the mean;
        ``sse_floor``, what chance alone leaves to the SαS law; shares, each with its 95 %
        interval: ``stable_wins`` (lower SSE), ``held_out_wins`` (higher held-out likelihood); and
        what the kind measures besides.
    """
    laws, rival = list(KINDS[kind].laws), KINDS[kind].rival
    fits = fits[fits["stratum"] == "uniform"]
    sse = evidence.by_law(fits, laws, "sse")
    parameters = fits["parameter_index"].nunique()
    if sse.empty:
        raise ValueError(f"none of {parameters} uniformly sampled parameters has fits of all laws")
    row: dict[str, float] = {"n": len(sse), "n_flagged": parameters - len(sse)}
    for law in laws:
        mean, error = evidence.mean_and_error(sse[law].to_numpy())
        row |= {f"{law}_sse": mean, f"{law}_sse_se": error}
    row["sse_floor"] = float(evidence.by_law(fits, laws, "sse_floor")["stable"].mean())
    held_out = evidence.by_law(fits, laws, "held_out_log_likelihood")
    wins = evidence.sse_wins(sse["stable"].to_numpy(), sse[rival].to_numpy())
    held_out_wins = evidence.likelihood_wins(
        held_out["stable"].to_numpy(), held_out[rival].to_numpy()
    )
    return {
        **row,
        **share_columns("stable_wins", wins),
        **share_columns("held_out_wins", held_out_wins),
        **KINDS[kind].measure(fits, critical),
    }


def table_caption(kind: str, *, bins: int, span: str | float, scaling: str) -> str:
    """What the table shows and how it was measured."""
    reach = (
        "from the smallest to the largest draw"
        if span == "full"
        else f"over the central {span:.4g}"
    )
    unit = {"mass": "probability a bin", "density": "density in units of the robust scale"}[scaling]
    caption = (
        "Sum of squared errors (SSE) between the histogram of a parameter's gradient noise and the "
        f"fitted law ({bins} bins {reach}, {unit}): mean ± standard error of the mean over the "
        "parameters, a uniform sample of the network's weights. The paper gives neither the bins "
        "nor the meaning of its ±. Floor: the mean SSE that chance leaves to a true SαS law. "
        "Flagged: parameters left out, as a fit failed. Brackets: 95 % intervals. A tie is no win. "
    )
    return caption + KINDS[kind].caption


# --- layout -------------------------------------------------------------------------------------


_PLAIN_DIGITS = {raised: plain for plain, raised in SUPERSCRIPTS.items()}


def layout(table: pd.DataFrame, kind: str) -> tuple[list[str], list[list[str]]]:
    """The headings and the rounded cells, for every form of the table but the CSV."""

    def law_cell(law: str) -> Cell:
        return lambda row: with_error(row[f"{law}_sse"], row[f"{law}_sse_se"])

    cells: dict[str, Cell] = {
        "Model": lambda row: str(row["run"]),
        "Data": lambda row: str(row["dataset"]),
        "B": lambda row: str(row["batch_size"]),
        **{LOOKS[law].heading: law_cell(law) for law in KINDS[kind].laws},
        KINDS[kind].wins: lambda row: share_cell(row, "stable_wins"),
        "Floor": lambda row: f"{row['sse_floor']:.3g}",
        "Held-out wins": lambda row: share_cell(row, "held_out_wins"),
        KINDS[kind].heading: KINDS[kind].cell,
        "n": lambda row: str(row["n"]),
        "Flagged": lambda row: str(row["n_flagged"]),
    }
    rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    return list(cells), [[cell(row) for cell in cells.values()] for row in rows]


def markdown(table: pd.DataFrame, kind: str, caption: str) -> str:
    """A pipe table with its caption below."""
    headings, body = layout(table, kind)
    lines = [headings, ["---"] * len(headings), *body]
    text = "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines
    )
    return f"{text}\n\n{caption}\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "α": r"$\alpha$",
    "±": r"$\pm$",
    "–": "--",
    "×": r"$\times$",
}


def escape_latex(text: str) -> str:
    """``text`` so that LaTeX prints it."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(
        "[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+",
        lambda power: f"$^{{{power[0].translate(_PLAIN_DIGITS)}}}$",
        escaped,
    )


def latex(table: pd.DataFrame, kind: str, caption: str) -> str:
    """A floating table in the style of booktabs."""
    headings, body = layout(table, kind)
    words = sum(heading in ("Model", "Data") for heading in headings)

    def line(cells: list[str]) -> str:
        return " & ".join(escape_latex(cell) for cell in cells) + r" \\"

    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}}}",
            rf"\begin{{tabular}}{{{'l' * words}{'r' * (len(headings) - words)}}}",
            r"\toprule",
            line(headings),
            r"\midrule",
            *(line(cells) for cells in body),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


if __name__ == "__main__":
    with running_job() as job:
        make_table(
            fits_paths=list(job.input.fits),
            rows=job.params.rows,
            kind=job.params.kind,
            csv_path=job.output.csv,
            markdown_path=job.output.markdown,
            latex_path=job.output.latex,
        )
