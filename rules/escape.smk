rule find_minimum:
    """A minimum of a small ReLU network, from which the escapes start."""
    input:
        arrays="results/data/{dataset}/arrays.npz",
    output:
        minimum=f"{RESULTS}/escape/{{dataset}}/minimum.npz",
    log:
        f"{RESULTS}/logs/find_minimum/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/find_minimum/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        study=STUDY,
        dataset="{dataset}",
        widths=ESCAPE["widths"],
        minimum=ESCAPE["minimum"],
        seed=lambda wildcards: seed("minimum", wildcards.dataset),
        code=code("find_minimum.py"),
    script:
        "../scripts/find_minimum.py"


rule plan_escape:
    """Learning rates and loss threshold at which escapes take neither too few nor too many iterations."""
    input:
        arrays="results/data/{dataset}/arrays.npz",
        minimum=f"{RESULTS}/escape/{{dataset}}/minimum.npz",
    output:
        plan=f"{RESULTS}/escape/{{dataset}}/plan.json",
    log:
        f"{RESULTS}/logs/plan_escape/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/plan_escape/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        study=STUDY,
        dataset="{dataset}",
        batch_sizes=ESCAPE["batch_sizes"],
        learning_rates=RATES,
        loss_delta=ESCAPE["loss_delta"],
        target_iterations=ESCAPE["target_iterations"],
        max_iterations=ESCAPE["max_iterations"],
        pilot_replicas=ESCAPE["pilot_replicas"],
        seed=lambda wildcards: seed("pilot", wildcards.dataset),
        code=code("plan_escape.py"),
    script:
        "../scripts/plan_escape.py"


rule simulate_escape:
    """Escape times of all replicas at one batch size and one learning rate of the plan."""
    input:
        arrays="results/data/{dataset}/arrays.npz",
        minimum=f"{RESULTS}/escape/{{dataset}}/minimum.npz",
        plan=f"{RESULTS}/escape/{{dataset}}/plan.json",
    output:
        escape=f"{RESULTS}/escape/{{dataset}}/b{{batch_size}}/lr{{rate}}.parquet",
    log:
        f"{RESULTS}/logs/simulate_escape/{{dataset}}/b{{batch_size}}/lr{{rate}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/simulate_escape/{{dataset}}/b{{batch_size}}/lr{{rate}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=120,
    params:
        study=STUDY,
        dataset="{dataset}",
        batch_size=lambda wildcards: int(wildcards.batch_size),
        rate=lambda wildcards: int(wildcards.rate),
        replicas=ESCAPE["replicas"],
        check_every=ESCAPE["check_every"],
        seed=lambda wildcards: seed("escape", wildcards.dataset),
        code=code("simulate_escape.py"),
    script:
        "../scripts/simulate_escape.py"


rule fit_escape:
    """Mean escape times with their censoring, and the theories fitted to them."""
    input:
        escapes=lambda wildcards: escape_files(wildcards.dataset),
    output:
        times=f"{RESULTS}/escape/{{dataset}}/times.parquet",
        theories=f"{RESULTS}/escape/{{dataset}}/theories.parquet",
    log:
        f"{RESULTS}/logs/fit_escape/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fit_escape/{{dataset}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        study=STUDY,
        dataset="{dataset}",
        bootstrap=ESCAPE["bootstrap"],
        seed=lambda wildcards: seed("bootstrap", wildcards.dataset),
        code=code("fit_escape.py"),
    script:
        "../scripts/fit_escape.py"
