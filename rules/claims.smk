rule collect_claims:
    """Each claim of the paper beside what this study measured, with a verdict by a stated rule."""
    input:
        fits=[
            fits_of(name, batch_size)
            for name in [*RUNS, *CONTROLS]
            for batch_size in batch_sizes_of(name)
        ],
        layers=[layers_of(name) for name in RUNS],
        theories=escape_results("theories"),
        theorems=THEORY_TABLES,
        exit_axis=theory_results("sde/exit_axis.parquet"),
    output:
        claims=report(
            f"{RESULTS}/claims.csv",
            caption="../report/claims.rst",
            category="Claims",
        ),
    log:
        f"{RESULTS}/logs/collect_claims.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect_claims.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        code=code("collect_claims.py"),
    script:
        "../scripts/collect_claims.py"
