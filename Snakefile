"""Stochastic gradient noise, from data sets to the report. See README.md."""

from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")


# The study is the file given with --configfile, which stands for itself; without one, config.yaml in the
# working directory; without that, the default study.
if not workflow.overwrite_configfiles:
    here = Path("config.yaml")

    configfile: here if here.exists() else Path(str(workflow.current_basedir)) / here


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/noise.smk"
include: "rules/fit.smk"


if ESCAPE is not None:

    include: "rules/escape.smk"


if SETTINGS["sde"] is not None:

    include: "rules/sde.smk"


include: "rules/shown.smk"
include: "rules/figures.smk"
include: "rules/claims.smk"
include: "rules/report.smk"


for declared in workflow.rules:
    if declared.script and declared not in OTHER_RULES:
        declared.set_params(by_name=by_name(declared.params))


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
        figure_files("png", "pdf"),
        table_files("csv", "md", "tex"),
        ESCAPE_TABLES,
        THEORY_TABLES,
        data_paths(),


rule figures:
    """All figures of the study, as PNG and PDF."""
    input:
        figure_files("png", "pdf"),
    message:
        None if FIGURES else nothing_for("figures", "figures")


rule tables:
    """The tables as CSV, Markdown and LaTeX, and the theories of escape times, as CSV."""
    input:
        table_files("csv", "md", "tex"),
        ESCAPE_TABLES,
    message:
        None if TABLES or ESCAPE else nothing_for("tables", "tables")


rule data:
    """All data sets, training curves, gradient dumps, noise, fits, escape times and exit times."""
    input:
        data_paths(),


rule escape:
    """Escape times, Figures 1 and 6, and the theories fitted to the times."""
    input:
        escape_results("times", "theories"),
        figure_files("png", "pdf", names=["figure_1", "figure_6"]),
        ESCAPE_TABLES,
    message:
        None if ESCAPE else nothing_for("escape", "escape")


rule theory:
    """The theory against simulation: the table of theorems, Figure 9 and the bounds."""
    input:
        THEORY_TABLES,
        figure_files("png", "pdf", names=["figure_9", "theory"]),
    message:
        None if THEORY_TABLES else nothing_for("theory", "sde")
