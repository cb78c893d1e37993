rule dump_gradients:
    """The gradient of each sampled parameter for each training sample (or mini-batch)."""
    input:
        arrays=lambda wildcards: f"results/data/{RUNS[wildcards.run]['dataset']}/arrays.npz",
        model=f"{RESULTS}/runs/{{run}}/model.safetensors",
    output:
        gradients=f"{RESULTS}/runs/{{run}}/gradients.parquet",
    log:
        f"{RESULTS}/logs/dump_gradients/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/dump_gradients/{{run}}.tsv"
    wildcard_constraints:
        run=names_pattern(RUNS),
    priority: 10
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: attempt * gradients_need(wildcards).memory_mb,
        runtime=lambda wildcards, attempt: attempt * gradients_need(wildcards).minutes,
        gpu=GPUS,
    params:
        study=STUDY,
        run="{run}",
        model=lambda wildcards: RUNS[wildcards.run]["model"],
        network_code=lambda wildcards: network_code(wildcards.run),
        loss=lambda wildcards: RUNS[wildcards.run]["loss"],
        sampling=lambda wildcards: RUNS[wildcards.run]["gradients"],
        batch_size=lambda wildcards: mini_batch_setting(
            wildcards.run, batch_sizes_of(wildcards.run)[0]
        ),
        draws=lambda wildcards: mini_batch_setting(
            wildcards.run, SETTINGS["noise"]["draws"]
        ),
        device=SETTINGS["device"],
        # The runs of one chain are measured at the same parameters.
        seed=lambda wildcards: seed("parameters", root_of(wildcards.run)),
        code=code("dump_gradients.py"),
    script:
        "../scripts/dump_gradients.py"


rule simulate_control_gradients:
    """Per-sample gradients of known law, to be resampled like those of a network."""
    output:
        gradients=f"{RESULTS}/runs/{{run}}/gradients.parquet",
    log:
        f"{RESULTS}/logs/simulate_control_gradients/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/simulate_control_gradients/{{run}}.tsv"
    wildcard_constraints:
        run=names_pattern(
            name
            for name, control in CONTROLS.items()
            if control["stage"] == "gradients"
        ),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        study=STUDY,
        run="{run}",
        control=lambda wildcards: CONTROLS[wildcards.run],
        seed=lambda wildcards: seed("control", wildcards.run),
        code=code("simulate_control_gradients.py"),
    script:
        "../scripts/simulate_control_gradients.py"


rule simulate_control_noise:
    """Noise of known law, exact."""
    output:
        noise=f"{RESULTS}/runs/{{run}}/noise/b{{batch_size}}.parquet",
    log:
        f"{RESULTS}/logs/simulate_control_noise/{{run}}/b{{batch_size}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/simulate_control_noise/{{run}}/b{{batch_size}}.tsv"
    wildcard_constraints:
        run=names_pattern(
            name for name, control in CONTROLS.items() if control["stage"] == "noise"
        ),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        study=STUDY,
        run="{run}",
        control=lambda wildcards: CONTROLS[wildcards.run],
        batch_size=lambda wildcards: int(wildcards.batch_size),
        draws=SETTINGS["noise"]["draws"],
        seed=lambda wildcards: seed("control", wildcards.run, wildcards.batch_size),
        code=code("simulate_control_noise.py"),
    script:
        "../scripts/simulate_control_noise.py"


rule draw_noise:
    """Draws of the gradient noise of each parameter at one mini-batch size."""
    input:
        gradients=f"{RESULTS}/runs/{{run}}/gradients.parquet",
    output:
        noise=f"{RESULTS}/runs/{{run}}/noise/b{{batch_size}}.parquet",
    log:
        f"{RESULTS}/logs/draw_noise/{{run}}/b{{batch_size}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_noise/{{run}}/b{{batch_size}}.tsv"
    wildcard_constraints:
        run=names_pattern(
            [
                *RUNS,
                *(
                    name
                    for name, control in CONTROLS.items()
                    if control["stage"] == "gradients"
                ),
            ]
        ),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: attempt * noise_need(wildcards).memory_mb,
        runtime=lambda wildcards, attempt: attempt * noise_need(wildcards).minutes,
    params:
        study=STUDY,
        run="{run}",
        batch_size=lambda wildcards: int(wildcards.batch_size),
        draws=SETTINGS["noise"]["draws"],
        replacement=SETTINGS["noise"]["replacement"],
        seed=lambda wildcards: seed("noise", wildcards.run, wildcards.batch_size),
        code=code("draw_noise.py"),
    script:
        "../scripts/draw_noise.py"
