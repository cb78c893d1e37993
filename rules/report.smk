# The captions are shared with `snakemake --report`.
rule make_report:
    """The report: claims, figures, tables, theorems and provenance in one page."""
    input:
        figures=expand(f"{RESULTS}/figures/figure_{{number}}.png", number=range(1, 10)),
        pdfs=expand(f"{RESULTS}/figures/figure_{{number}}.pdf", number=range(1, 10)),
        tables=expand(f"{RESULTS}/tables/table_{{number}}.md", number=range(1, 4)),
        claims=f"{RESULTS}/claims.csv",
        theorems=f"{RESULTS}/tables/theorems.csv",
        theory=f"{RESULTS}/figures/theory.png",
        figure_captions=[
            source(f"report/figure_{number}.rst") for number in range(1, 10)
        ],
        table_caption=source("report/table.rst"),
        claims_caption=source("report/claims.rst"),
        theorems_caption=source("report/theorems.rst"),
        theory_caption=source("report/theory.rst"),
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
        mem_mb=1000,
        runtime=10,
    params:
        study=STUDY,
        config=SETTINGS,
        code=code("make_report.py"),
    script:
        "../scripts/make_report.py"
