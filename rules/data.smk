rule fetch_dataset:
    """A data set as arrays, standardised and split, with a manifest of where it came from."""
    input:
        lambda wildcards: SETTINGS["datasets"][wildcards.dataset].get("path", []),
    output:
        arrays="results/data/{dataset}/arrays.npz",
        manifest="results/data/{dataset}/manifest.json",
    log:
        "results/data/logs/fetch_dataset/{dataset}.log",
    benchmark:
        "results/data/benchmarks/fetch_dataset/{dataset}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=lambda wildcards: SETTINGS["datasets"][wildcards.dataset],
        seed=lambda wildcards: seed("data", wildcards.dataset),
        code=code("fetch_dataset.py"),
    script:
        "../scripts/fetch_dataset.py"
