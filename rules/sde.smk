rule simulate_exit_axis:
    """Through which axis a two-dimensional process leaves its box (Figure 9)."""
    output:
        exits=f"{RESULTS}/sde/exit_axis.parquet",
    log:
        f"{RESULTS}/logs/simulate_exit_axis.log",
    benchmark:
        f"{RESULTS}/benchmarks/simulate_exit_axis.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(60),
    params:
        study=STUDY,
        exit_axis=SETTINGS["sde"]["exit_axis"],
        seed=seed("sde", "exit_axis"),
        code=code("simulate_exit_axis.py"),
    script:
        "../scripts/simulate_exit_axis.py"


rule simulate_exit_time:
    """Mean exit times over a grid of alpha, noise, schedule and dimension, beside the bounds."""
    output:
        exits=f"{RESULTS}/sde/exit_time.parquet",
    log:
        f"{RESULTS}/logs/simulate_exit_time.log",
    benchmark:
        f"{RESULTS}/benchmarks/simulate_exit_time.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(60),
    params:
        study=STUDY,
        exit_time=SETTINGS["sde"]["exit_time"],
        seed=seed("sde", "exit_time"),
        code=code("simulate_exit_time.py"),
    script:
        "../scripts/simulate_exit_time.py"


rule check_covariance:
    """The covariance of the noise around a minimum beside Proposition 3.4, with exact Hessians."""
    output:
        covariance=f"{RESULTS}/sde/covariance.parquet",
    log:
        f"{RESULTS}/logs/check_covariance.log",
    benchmark:
        f"{RESULTS}/benchmarks/check_covariance.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        study=STUDY,
        covariance=SETTINGS["sde"]["covariance"],
        seed=seed("sde", "covariance"),
        code=code("check_covariance.py"),
    script:
        "../scripts/check_covariance.py"


rule simulate_theorems:
    """The simulations that only the table of theorems needs."""
    output:
        experiments=f"{RESULTS}/sde/experiments.parquet",
    log:
        f"{RESULTS}/logs/simulate_theorems.log",
    benchmark:
        f"{RESULTS}/benchmarks/simulate_theorems.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(60),
    params:
        study=STUDY,
        rho=SETTINGS["sde"]["exit_time"]["rho"],
        seed=seed("sde", "theory"),
        code=code("simulate_theorems.py"),
    script:
        "../scripts/simulate_theorems.py"


rule judge_theorems:
    """Each lemma, proposition, theorem and corollary beside the simulation, with a verdict."""
    input:
        exit_axis=f"{RESULTS}/sde/exit_axis.parquet",
        exit_time=f"{RESULTS}/sde/exit_time.parquet",
        covariance=f"{RESULTS}/sde/covariance.parquet",
        experiments=f"{RESULTS}/sde/experiments.parquet",
    output:
        theorems=report(
            f"{RESULTS}/tables/theorems.csv",
            caption="../report/theorems.rst",
            category="Tables",
            labels={"table": "theorems"},
        ),
    log:
        f"{RESULTS}/logs/judge_theorems.log",
    benchmark:
        f"{RESULTS}/benchmarks/judge_theorems.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=code("judge_theorems.py"),
    script:
        "../scripts/judge_theorems.py"
