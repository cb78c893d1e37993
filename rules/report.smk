# The captions are shared with `snakemake --report`.
rule make_report:
    """The report: claims, figures, tables, theorems and provenance in one page."""
    input:
        figures=figure_files("png"),
        pdfs=figure_files("pdf"),
        tables=table_files("md"),
        claims=f"{RESULTS}/claims.csv",
        theorems=THEORY_TABLES,
        figure_captions=[source(f"report/{figure.name}.rst") for figure in FIGURES],
        table_caption=source("report/table.rst"),
        claims_caption=source("report/claims.rst"),
        theorems_caption=source("report/theorems.rst"),
        workflow_caption=source("report/workflow.rst"),
        template=source("report/page.html.j2"),
        style=source("report/page.css"),
    output:
        report=f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/make_report.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_report.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        study=STUDY,
        config=SETTINGS,
        figures=[
            {"title": figure.title, "chapter": figure.chapter} for figure in FIGURES
        ],
        tables=[int(name.removeprefix("table_")) for name in TABLES],
        code=code("make_report.py"),
    script:
        "../scripts/make_report.py"
