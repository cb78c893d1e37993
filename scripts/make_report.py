"""The report of a study: one HTML file with claims, figures, tables, theory and provenance."""

import base64
import csv
import math
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sgnoise import store
from sgnoise.files import atomic_path
from sgnoise.jobs import running_job

_CLAIM_COLUMNS = (
    "claim",
    "source",
    "statement",
    "paper_value",
    "quantity",
    "measured_value",
    "low",
    "high",
    "interval",
    "rule",
    "verdict",
    "details",
)
_VERDICT_CLASSES = {
    "reproduced": "yes",
    "partly": "partly",
    "not reproduced": "no",
    "not tested here": "open",
    # Of the theorems.
    "holds": "yes",
    "holds as scaling only": "partly",
    "fails": "no",
}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXAMPLE = """\
import pandas as pd
import pyarrow.parquet as pq

fits = pd.read_parquet("results/{study}/runs/{run}/fits/b{batch_size}.parquet")
print(fits.groupby("law")[["held_out_log_likelihood", "sse"]].mean())
print(pq.read_schema("results/{study}/runs/{run}/gradients.parquet").metadata[b"sgnoise"])

# or without loading a file whole:
# duckdb -c "select layer, avg(alpha) from 'results/{study}/runs/{run}/fits/b{batch_size}.parquet'
#            where law = 'stable' group by layer"
"""


@dataclass(frozen=True)
class Caption:
    """A title and the paragraphs below it."""

    title: str
    paragraphs: list[str]


def read_paragraphs(path: str, config: Mapping[str, Any], **wildcards: Any) -> list[str]:
    """The paragraphs of a caption file, filled in as ``snakemake --report`` fills it in.

    A caption is plain text: paragraphs apart by blank lines, no markup.

    Args:
        path: the caption, a template that may use ``snakemake.config`` and ``.wildcards``.
        config: the settings of the study.
        wildcards: the wildcards of the rule's output.

    Raises:
        jinja2.UndefinedError: the caption asks for a setting that the study lacks.
    """
    # The two block settings are those of snakemake.
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = environment.from_string(Path(path).read_text(encoding="utf-8"))
    snakemake = SimpleNamespace(config=config, wildcards=SimpleNamespace(**wildcards))
    text = template.render(snakemake=snakemake)
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def read_caption(path: str, config: Mapping[str, Any], **wildcards: Any) -> Caption:
    """A caption file whose first paragraph is the title; see ``read_paragraphs``."""
    title, *paragraphs = read_paragraphs(path, config, **wildcards)
    return Caption(title, paragraphs)


def png_size(content: bytes, path: str) -> tuple[int, int]:
    """Width and height in pixels.

    Raises:
        ValueError: not a PNG.
    """
    if not content.startswith(_PNG_SIGNATURE):
        raise ValueError(f"{path}: not a PNG; remove it and run the workflow again")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def read_figure(name: str, png_path: str, caption: Caption) -> dict[str, Any]:
    """What the page needs of a figure: its name, its caption, its bytes in base64, its size."""
    content = Path(png_path).read_bytes()
    width, height = png_size(content, png_path)
    return {
        "name": name,
        "file": Path(png_path).stem,
        "title": caption.title,
        "paragraphs": caption.paragraphs,
        "image": base64.b64encode(content).decode(),
        "width": width,
        "height": height,
    }


def read_markdown_table(path: str) -> tuple[list[str], list[list[str]], list[str]]:
    """Headings, rows and the paragraphs below of a file that holds one pipe table.

    Raises:
        ValueError: no table, or a row with another number of cells than the headings.
    """
    table, *below = Path(path).read_text(encoding="utf-8").strip().split("\n\n")
    lines = [
        [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        for line in table.splitlines()
    ]
    if len(lines) < 2 or any(len(line) != len(lines[0]) for line in lines):
        raise ValueError(f"{path}: not a table with the same number of cells in each row")
    return lines[0], lines[2:], [" ".join(paragraph.split()) for paragraph in below]


def read_csv(path: str) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a CSV file, as text."""
    with open(path, newline="", encoding="utf-8") as stream:
        headings, *rows = csv.reader(stream)
    return headings, rows


def shown_number(text: str) -> str:
    """A number as a reader wants it, to four digits; other text as it is."""
    try:
        value = float(text)
    except ValueError:
        return text
    if math.isnan(value):
        return "–"
    return text if value.is_integer() and "e" not in text.lower() else f"{value:.4g}"


def as_cell(text: str, heading: str) -> dict[str, Any]:
    """A cell with how to set it: as a verdict, as a number, or as text."""
    numeric = bool(re.match(r"^[(\[]?[-+−]?\d", text)) and not re.search(r"[a-zA-Z]{3}", text)
    if numeric:
        # An interval is not torn apart at the end of a line.
        text = text.replace(", ", ",\N{NO-BREAK SPACE}")
    return {"text": text, "numeric": numeric, "verdict": heading == "verdict"}


def read_table(number: int, markdown_path: str, caption: Caption) -> dict[str, Any]:
    """What the page needs of a table; its own caption comes first, then where the paper differs."""
    headings, rows, below = read_markdown_table(markdown_path)
    return {
        "number": number,
        "title": caption.title,
        "label": f"Table {number}",
        "paragraphs": [*below, *caption.paragraphs],
        "headings": headings,
        "rows": [
            [as_cell(cell, heading) for cell, heading in zip(row, headings, strict=True)]
            for row in rows
        ],
    }


def read_theorems(path: str, caption: Caption) -> dict[str, Any]:
    """What the page needs of the table that compares the theory with simulation."""
    headings, rows = read_csv(path)
    return {
        "title": caption.title,
        "label": "Theory",
        "paragraphs": caption.paragraphs,
        "headings": [heading.replace("_", " ") for heading in headings],
        "rows": [
            [as_cell(shown_number(text), name) for text, name in zip(row, headings, strict=True)]
            for row in rows
        ],
    }


def read_claims(path: str) -> list[dict[str, str]]:
    """The claims, with their numbers rounded.

    Raises:
        ValueError: a column is missing.
    """
    headings, rows = read_csv(path)
    missing = [name for name in _CLAIM_COLUMNS if name not in headings]
    if missing:
        raise ValueError(f"{path}: lacks the columns {missing}; run collect_claims again")
    claims = []
    for row in rows:
        claim = dict(zip(headings, row, strict=True))
        measured, low, high = (
            shown_number(claim[name] or "nan") for name in ("measured_value", "low", "high")
        )
        claim["measured"] = measured
        claim["bounds"] = "" if "–" in (low, high) else f"[{low}, {high}]"
        claims.append(claim)
    return claims


def verdict_class(verdict: str) -> str:
    """The style class of a verdict; one that is not known is set like an open one."""
    return _VERDICT_CLASSES.get(verdict, "open")


def make_report(
    *,
    study: str,
    config: Mapping[str, Any],
    figures: list[dict[str, str]],
    figure_paths: list[str],
    figure_captions: list[str],
    tables: list[int],
    table_paths: list[str],
    table_caption: str,
    claims_path: str,
    claims_caption: str,
    theorems_path: str | None,
    theorems_caption: str,
    workflow_caption: str,
    template_path: str,
    style_path: str,
    report_path: str,
) -> None:
    """Write the report: one file that needs nothing beside it, neither network nor scripts.

    Args:
        study: name of the study.
        config: its settings.
        figures: for each figure its ``title`` (Figure 3) and ``chapter``: ``figures``, or
            ``theory`` for one below the table of theorems.
        figure_paths: their PNGs, in the same order.
        figure_captions: their captions, likewise; see ``read_caption``.
        tables: numbers of the tables.
        table_paths: the tables in Markdown, in the same order, each with its caption below.
        table_caption: the caption of all tables, by the wildcard ``number``.
        claims_path: claims.csv.
        claims_caption: its caption.
        theorems_path: theorems.csv; None if the theory was not simulated.
        theorems_caption: its caption.
        workflow_caption: what the study is, without a title.
        template_path: the page, in jinja2.
        style_path: its style sheet, put into the page.
        report_path: where the HTML goes.

    Raises:
        ValueError: an input that does not hold what it must; the message names it.
    """
    chapters: dict[str, list[dict[str, Any]]] = {"figures": [], "theory": []}
    for figure, png_path, caption in zip(figures, figure_paths, figure_captions, strict=True):
        chapters[figure["chapter"]].append(
            read_figure(figure["title"], png_path, read_caption(caption, config, study=study))
        )
    shown_tables = [
        read_table(number, path, read_caption(table_caption, config, study=study, number=number))
        for number, path in zip(tables, table_paths, strict=True)
    ]
    theorems = None
    if theorems_path is not None:
        theorems = read_theorems(theorems_path, read_caption(theorems_caption, config, study=study))
    claims = read_claims(claims_path)
    counts = Counter(claim["verdict"] for claim in claims)
    order = [*_VERDICT_CLASSES, *sorted(counts.keys() - _VERDICT_CLASSES.keys())]
    claims_text = read_caption(claims_caption, config, study=study)

    template = Path(template_path)
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["verdict_class"] = verdict_class
    page = environment.get_template(template.name).render(
        study=study,
        config=config,
        introduction=read_paragraphs(workflow_caption, config, study=study),
        tally={name: counts[name] for name in order if counts[name]},
        claims={
            "title": claims_text.title,
            "paragraphs": claims_text.paragraphs,
            "rows": claims,
        },
        figures=chapters["figures"],
        tables=shown_tables,
        theorems=theorems,
        theory=chapters["theory"],
        example=_EXAMPLE.format(
            study=study,
            run=config["runs"][0]["name"],
            batch_size=config["runs"][0]["batch_sizes"][0],
        ),
        software=store.software_versions(),
        settings=yaml.safe_dump(
            dict(config), sort_keys=False, default_flow_style=None, allow_unicode=True, width=90
        ),
        style=Path(style_path).read_text(encoding="utf-8"),
    )
    with atomic_path(report_path) as path:
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    with running_job() as job:
        make_report(
            study=job.params.study,
            config=job.params.config,
            figures=job.params.figures,
            figure_paths=list(job.input.figures),
            figure_captions=list(job.input.figure_captions),
            tables=job.params.tables,
            table_paths=list(job.input.tables),
            table_caption=job.input.table_caption,
            claims_path=job.input.claims,
            claims_caption=job.input.claims_caption,
            theorems_path=next(iter(job.input.theorems), None),
            theorems_caption=job.input.theorems_caption,
            workflow_caption=job.input.workflow_caption,
            template_path=job.input.template,
            style_path=job.input.style,
            report_path=job.output.report,
        )
