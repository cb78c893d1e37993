# Training is worth keeping between workflows (`snakemake --cache`), and a rule that takes part in
# that cannot have a benchmark. One thread, as the weights depend on their number, which would
# otherwise be that of `--cores` at most.
rule pretrain:
    """A network trained to the checkpoint of its run."""
    input:
        unpack(parent_files),
        arrays=lambda wildcards: f"results/data/{RUNS[wildcards.run]['dataset']}/arrays.npz",
    output:
        multiext(
            f"{RESULTS}/runs/{{run}}/",
            model="model.safetensors",
            training="training.parquet",
        ),
    log:
        f"{RESULTS}/logs/pretrain/{{run}}.log",
    wildcard_constraints:
        run=names_pattern(RUNS),
    cache: "omit-software"
    # The longest chain of jobs begins here.
    priority: 20
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: attempt * training_need(wildcards).memory_mb,
        runtime=lambda wildcards, attempt: attempt * training_need(wildcards).minutes,
        gpu=GPUS,
    params:
        study=STUDY,
        run="{run}",
        model=lambda wildcards: RUNS[wildcards.run]["model"],
        network_code=lambda wildcards: network_code(wildcards.run),
        weights=lambda wildcards: CONTENTS.digest(own_weights(wildcards.run)),
        loss=lambda wildcards: RUNS[wildcards.run]["loss"],
        training=lambda wildcards: RUNS[wildcards.run]["training"],
        device=SETTINGS["device"],
        seed=lambda wildcards: seed("training", root_of(wildcards.run)),
        code=code("pretrain.py"),
    script:
        "../scripts/pretrain.py"
