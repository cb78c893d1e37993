rule fetch_dataset:
    """A data set, checked, split and with its statistics, and a manifest of where it came from."""
    input:
        lambda wildcards: ancient(own_files(wildcards.dataset)),
    output:
        arrays="results/data/{dataset}/arrays.npz",
        manifest="results/data/{dataset}/manifest.json",
    log:
        "results/data/logs/fetch_dataset/{dataset}.log",
    benchmark:
        "results/data/benchmarks/fetch_dataset/{dataset}.tsv"
    # The trainings, the longest jobs, wait for it.
    priority: 30
    conda:
        ENVIRONMENT
    threads: decoding_threads
    resources:
        mem_mb=lambda wildcards, attempt: attempt * dataset_need(wildcards).memory_mb,
        runtime=lambda wildcards, attempt: attempt * dataset_need(wildcards).minutes,
    params:
        spec=lambda wildcards: SETTINGS["datasets"][wildcards.dataset],
        content=lambda wildcards: own_content(wildcards.dataset),
        seed=lambda wildcards: seed("data", wildcards.dataset),
        code=code("fetch_dataset.py"),
    script:
        "../scripts/fetch_dataset.py"
