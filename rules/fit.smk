rule fit_noise:
    """Every law fitted to the noise of every parameter, with its measures of fit."""
    input:
        noise=f"{RESULTS}/runs/{{run}}/noise/b{{batch_size}}.parquet",
    output:
        fits=f"{RESULTS}/runs/{{run}}/fits/b{{batch_size}}.parquet",
    log:
        f"{RESULTS}/logs/fit_noise/{{run}}/b{{batch_size}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fit_noise/{{run}}/b{{batch_size}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: attempt * fit_need(wildcards).memory_mb,
        runtime=lambda wildcards, attempt: attempt * fit_need(wildcards).minutes,
    params:
        study=STUDY,
        run="{run}",
        batch_size=lambda wildcards: int(wildcards.batch_size),
        fits=SETTINGS["fits"],
        code=code("fit_noise.py"),
    script:
        "../scripts/fit_noise.py"


rule aggregate_layers:
    """Alpha by layer, with the spread between parameters set apart from estimation error."""
    input:
        fits=lambda wildcards: [
            fits_of(wildcards.run, batch_size)
            for batch_size in batch_sizes_of(wildcards.run)
        ],
    output:
        layers=f"{RESULTS}/runs/{{run}}/layers.parquet",
    log:
        f"{RESULTS}/logs/aggregate_layers/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/aggregate_layers/{{run}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        study=STUDY,
        run="{run}",
        batch_sizes=lambda wildcards: batch_sizes_of(wildcards.run),
        code=code("aggregate_layers.py"),
    script:
        "../scripts/aggregate_layers.py"
