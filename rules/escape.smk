"""Escapes from minima of small networks, where the settings ask for them."""

RATES = ESCAPE["learning_rates"]
RATE_COUNT = len(RATES) if isinstance(RATES, list) else RATES


rule find_minimum:
    """A minimum of a small network, from which the escapes start."""
    input:
        arrays="results/data/{dataset}/arrays.npz",
    output:
        minimum=f"{RESULTS}/escape/{{dataset}}/m{{minimum}}/minimum.npz",
    log:
        f"{RESULTS}/logs/find_minimum/{{dataset}}/m{{minimum}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/find_minimum/{{dataset}}/m{{minimum}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        study=STUDY,
        dataset="{dataset}",
        widths=ESCAPE["widths"],
        activation=ESCAPE["activation"],
        loss=ESCAPE["loss"],
        minimum=ESCAPE["minimum"],
        seed=lambda wildcards: seed("minimum", wildcards.dataset, wildcards.minimum),
        code=code("find_minimum.py"),
    script:
        "../scripts/find_minimum.py"


rule plan_escape:
    """Learning rates and loss threshold at which escapes take neither too few nor too many iterations."""
    input:
        arrays="results/data/{dataset}/arrays.npz",
        minimum=f"{RESULTS}/escape/{{dataset}}/m{{minimum}}/minimum.npz",
    output:
        plan=f"{RESULTS}/escape/{{dataset}}/m{{minimum}}/plan.json",
    log:
        f"{RESULTS}/logs/plan_escape/{{dataset}}/m{{minimum}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/plan_escape/{{dataset}}/m{{minimum}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(60),
    params:
        study=STUDY,
        dataset="{dataset}",
        batch_sizes=ESCAPE["batch_sizes"],
        learning_rates=RATES,
        loss_delta=ESCAPE["loss_delta"],
        target_iterations=ESCAPE["target_iterations"],
        max_iterations=ESCAPE["max_iterations"],
        pilot_replicas=ESCAPE["pilot_replicas"],
        minimum=lambda wildcards: int(wildcards.minimum),
        seed=lambda wildcards: seed("pilot", wildcards.dataset),
        code=code("plan_escape.py"),
    script:
        "../scripts/plan_escape.py"


rule simulate_escape:
    """Escape times of all replicas at one batch size and some learning rates of the plan."""
    input:
        arrays="results/data/{dataset}/arrays.npz",
        minimum=f"{RESULTS}/escape/{{dataset}}/m{{minimum}}/minimum.npz",
        plan=f"{RESULTS}/escape/{{dataset}}/m{{minimum}}/plan.json",
    output:
        escape=f"{RESULTS}/escape/{{dataset}}/m{{minimum}}/b{{batch_size}}/rates{{first}}-{{last}}.parquet",
    log:
        f"{RESULTS}/logs/simulate_escape/{{dataset}}/m{{minimum}}/b{{batch_size}}/rates{{first}}-{{last}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/simulate_escape/{{dataset}}/m{{minimum}}/b{{batch_size}}/rates{{first}}-{{last}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: attempt * escape_need(wildcards).memory_mb,
        runtime=lambda wildcards, attempt: attempt * escape_need(wildcards).minutes,
    params:
        study=STUDY,
        dataset="{dataset}",
        batch_size=lambda wildcards: int(wildcards.batch_size),
        first_rate=lambda wildcards: int(wildcards.first),
        last_rate=lambda wildcards: int(wildcards.last),
        replicas=ESCAPE["replicas"],
        check_every=ESCAPE["check_every"],
        minimum=lambda wildcards: int(wildcards.minimum),
        seed=lambda wildcards: seed("escape", wildcards.dataset),
        code=code("simulate_escape.py"),
    script:
        "../scripts/simulate_escape.py"


rule measure_escape_noise:
    """Alpha of the gradient noise of every weight at a minimum."""
    input:
        arrays="results/data/{dataset}/arrays.npz",
        minimum=f"{RESULTS}/escape/{{dataset}}/m{{minimum}}/minimum.npz",
    output:
        noise=f"{RESULTS}/escape/{{dataset}}/m{{minimum}}/noise.parquet",
    log:
        f"{RESULTS}/logs/measure_escape_noise/{{dataset}}/m{{minimum}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_escape_noise/{{dataset}}/m{{minimum}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        study=STUDY,
        dataset="{dataset}",
        batch_sizes=ESCAPE["batch_sizes"],
        draws=ESCAPE["noise_draws"],
        minimum=lambda wildcards: int(wildcards.minimum),
        seed=lambda wildcards: seed("escape noise", wildcards.dataset),
        code=code("measure_escape_noise.py"),
    script:
        "../scripts/measure_escape_noise.py"


rule predict_escape:
    """The escape times that the SDE makes of the noise at a minimum."""
    input:
        arrays="results/data/{dataset}/arrays.npz",
        minimum=f"{RESULTS}/escape/{{dataset}}/m{{minimum}}/minimum.npz",
        plan=f"{RESULTS}/escape/{{dataset}}/m{{minimum}}/plan.json",
        noise=f"{RESULTS}/escape/{{dataset}}/m{{minimum}}/noise.parquet",
    output:
        basin=f"{RESULTS}/escape/{{dataset}}/m{{minimum}}/basin.parquet",
        prediction=f"{RESULTS}/escape/{{dataset}}/m{{minimum}}/prediction.parquet",
    log:
        f"{RESULTS}/logs/predict_escape/{{dataset}}/m{{minimum}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict_escape/{{dataset}}/m{{minimum}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(60),
    params:
        study=STUDY,
        dataset="{dataset}",
        paths=ESCAPE["exit_paths"],
        minimum=lambda wildcards: int(wildcards.minimum),
        seed=lambda wildcards: seed("escape noise", wildcards.dataset),
        code=code("predict_escape.py"),
    script:
        "../scripts/predict_escape.py"


rule fit_escape:
    """Mean escape times with their censoring, and the theories fitted to them."""
    input:
        escapes=lambda wildcards: escape_files(wildcards.dataset),
        noise=expand(
            f"{RESULTS}/escape/{{{{dataset}}}}/m{{minimum}}/noise.parquet",
            minimum=range(ESCAPE["minima"]),
        ),
        prediction=expand(
            f"{RESULTS}/escape/{{{{dataset}}}}/m{{minimum}}/prediction.parquet",
            minimum=range(ESCAPE["minima"]),
        ),
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
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        study=STUDY,
        dataset="{dataset}",
        bootstrap=ESCAPE["bootstrap"],
        seed=lambda wildcards: seed("bootstrap", wildcards.dataset),
        code=code("fit_escape.py"),
    script:
        "../scripts/fit_escape.py"


rule tabulate_escape:
    """All theories of all escape times, with the likelihood ratios between them, in one table."""
    input:
        theories=expand(
            f"{RESULTS}/escape/{{dataset}}/theories.parquet",
            dataset=ESCAPE["datasets"],
        ),
    output:
        table=report(
            f"{RESULTS}/tables/escape_theories.csv",
            caption="../report/escape_theories.rst",
            category="Tables",
            labels={"table": "escape theories"},
        ),
    log:
        f"{RESULTS}/logs/tables/escape_theories.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/escape_theories.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=code("tabulate_escape.py"),
    script:
        "../scripts/tabulate_escape.py"
