"""Every figure and table, from the registry of `shown.smk`."""

for figure in FIGURES:

    rule:
        """A figure of the paper, as PNG and PDF, with a caption for the report of Snakemake."""
        name:
            f"plot_{figure.name}"
        input:
            **figure.inputs(figure.shows),
        output:
            png=report(
                f"{RESULTS}/figures/{figure.name}.png",
                caption=f"../report/{figure.name}.rst",
                category="Figures",
                labels={"figure": figure.title},
            ),
            pdf=f"{RESULTS}/figures/{figure.name}.pdf",
        log:
            f"{RESULTS}/logs/figures/{figure.name}.log",
        benchmark:
            f"{RESULTS}/benchmarks/figures/{figure.name}.tsv"
        conda:
            ENVIRONMENT
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(10),
        params:
            **figure.params(figure.shows),
            # Read when the job runs, when the loop is over.
            script=figure.script,
            code=code(figure.script),
        script:
            "../scripts/{params.script}"


rule make_table:
    """A table of the paper, as CSV, Markdown and LaTeX."""
    input:
        fits=lambda wildcards: [
            fits_of(row["run"], row["batch_size"])
            for row in table_rows(f"table_{wildcards.number}")
        ],
    output:
        csv=report(
            f"{RESULTS}/tables/table_{{number}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{number}"},
        ),
        markdown=f"{RESULTS}/tables/table_{{number}}.md",
        latex=f"{RESULTS}/tables/table_{{number}}.tex",
    log:
        f"{RESULTS}/logs/tables/table_{{number}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/table_{{number}}.tsv"
    wildcard_constraints:
        number=names_pattern(name.removeprefix("table_") for name in TABLES),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        rows=lambda wildcards: table_rows(f"table_{wildcards.number}"),
        kind=lambda wildcards: TABLES[f"table_{wildcards.number}"]["kind"],
        code=code("make_table.py"),
    script:
        "../scripts/make_table.py"
