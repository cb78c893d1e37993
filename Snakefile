"""Stochastic gradient noise, from data sets to the report. See README.md."""

from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/noise.smk"
include: "rules/fit.smk"
include: "rules/escape.smk"
include: "rules/sde.smk"
include: "rules/figures.smk"
include: "rules/claims.smk"
include: "rules/report.smk"


report: "report/workflow.rst"


localrules:
    all,
    figures,
    tables,
    data,
    escape,
    theory,


rule all:
    """The whole study: data, fits, figures, tables and the report."""
    default_target: True
    input:
        rules.make_report.output,
        figure_paths(),
        table_paths(),
        theory_paths(),
        data_paths(),


rule figures:
    """All nine figures, as PNG and PDF."""
    input:
        figure_paths(),


rule tables:
    """The three tables, as CSV, Markdown and LaTeX, and the theories of escape times, as CSV."""
    input:
        table_paths(),


rule data:
    """All data sets, training curves, gradient dumps, noise, fits, escape times and exit times."""
    input:
        data_paths(),


rule escape:
    """Escape times, Figures 1 and 6, and the theories fitted to the times."""
    input:
        escape_paths(),
        expand(
            f"{RESULTS}/figures/figure_{{number}}.{{kind}}",
            number=[1, 6],
            kind=["png", "pdf"],
        ),
        rules.tabulate_escape.output,


rule theory:
    """The theory against simulation: the table of theorems, Figure 9 and the bounds."""
    input:
        theory_paths(),
