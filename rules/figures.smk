rule plot_figure_1:
    """Figures 1 and 6: mean escape time against learning rate."""
    input:
        times=expand(
            f"{RESULTS}/escape/{{dataset}}/times.parquet", dataset=ESCAPE["datasets"]
        ),
        theories=expand(
            f"{RESULTS}/escape/{{dataset}}/theories.parquet",
            dataset=ESCAPE["datasets"],
        ),
    output:
        **figure_outputs(1),
    log:
        f"{RESULTS}/logs/figures/figure_1.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/figure_1.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        batch_sizes=FIGURES["escape"]["figure_1"],
        code=code("plot_escape_times.py"),
    script:
        "../scripts/plot_escape_times.py"


use rule plot_figure_1 as plot_figure_6 with:
    output:
        **figure_outputs(6),
    log:
        f"{RESULTS}/logs/figures/figure_6.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/figure_6.tsv"
    params:
        batch_sizes=FIGURES["escape"]["figure_6"],
        code=code("plot_escape_times.py"),


rule plot_figure_2:
    """Figure 2: the noise of one parameter around a learning-rate decay, and the loss."""
    input:
        before=noise_of(FIGURES["decay"]["before"], FIGURES["decay"]["batch_size"]),
        after=noise_of(FIGURES["decay"]["after"], FIGURES["decay"]["batch_size"]),
        without=noise_of(FIGURES["decay"]["without"], FIGURES["decay"]["batch_size"]),
        training_before=run_file(FIGURES["decay"]["before"], "training.parquet"),
        training_after=run_file(FIGURES["decay"]["after"], "training.parquet"),
        training_without=run_file(FIGURES["decay"]["without"], "training.parquet"),
    output:
        **figure_outputs(2),
    log:
        f"{RESULTS}/logs/figures/figure_2.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/figure_2.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        seed=seed("figure", 2),
        code=code("plot_decay.py"),
    script:
        "../scripts/plot_decay.py"


rule plot_figure_3:
    """Figures 3 to 5: histograms of the noise of single parameters."""
    input:
        noise=noise_of(
            FIGURES["histograms"]["figure_3"], FIGURES["histograms"]["batch_size"]
        ),
        fits=fits_of(
            FIGURES["histograms"]["figure_3"], FIGURES["histograms"]["batch_size"]
        ),
    output:
        **figure_outputs(3),
    log:
        f"{RESULTS}/logs/figures/figure_3.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/figure_3.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        choose="random",
        seed=seed("figure", 3),
        code=code("plot_histograms.py"),
    script:
        "../scripts/plot_histograms.py"


use rule plot_figure_3 as plot_figure_4 with:
    input:
        noise=noise_of(
            FIGURES["histograms"]["figure_4"], FIGURES["histograms"]["batch_size"]
        ),
        fits=fits_of(
            FIGURES["histograms"]["figure_4"], FIGURES["histograms"]["batch_size"]
        ),
    output:
        **figure_outputs(4),
    log:
        f"{RESULTS}/logs/figures/figure_4.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/figure_4.tsv"
    params:
        choose="random",
        seed=seed("figure", 4),
        code=code("plot_histograms.py"),


use rule plot_figure_3 as plot_figure_5 with:
    input:
        noise=noise_of(
            FIGURES["histograms"]["figure_5"], FIGURES["histograms"]["batch_size"]
        ),
        fits=fits_of(
            FIGURES["histograms"]["figure_5"], FIGURES["histograms"]["batch_size"]
        ),
    output:
        **figure_outputs(5),
    log:
        f"{RESULTS}/logs/figures/figure_5.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/figure_5.tsv"
    params:
        choose="first_layers",
        seed=seed("figure", 5),
        code=code("plot_histograms.py"),


rule plot_figure_7:
    """Figure 7: alpha of single weights, network by network."""
    input:
        fits=[
            fits_of(run, FIGURES["alpha_by_network"]["batch_size"])
            for run in FIGURES["alpha_by_network"]["runs"]
        ],
    output:
        **figure_outputs(7),
    log:
        f"{RESULTS}/logs/figures/figure_7.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/figure_7.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        labels=FIGURES["alpha_by_network"]["runs"],
        batch_size=FIGURES["alpha_by_network"]["batch_size"],
        code=code("plot_alpha_by_network.py"),
    script:
        "../scripts/plot_alpha_by_network.py"


rule plot_figure_8:
    """Figure 8: alpha by layer."""
    input:
        left=[
            layers_of(run, FIGURES["alpha_by_layer"]["batch_size"])
            for run in FIGURES["alpha_by_layer"]["left"]
        ],
        right=[
            layers_of(run, FIGURES["alpha_by_layer"]["batch_size"])
            for run in FIGURES["alpha_by_layer"]["right"]
        ],
    output:
        **figure_outputs(8),
    log:
        f"{RESULTS}/logs/figures/figure_8.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/figure_8.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        left_labels=FIGURES["alpha_by_layer"]["left"],
        right_labels=FIGURES["alpha_by_layer"]["right"],
        batch_size=FIGURES["alpha_by_layer"]["batch_size"],
        code=code("plot_alpha_by_layer.py"),
    script:
        "../scripts/plot_alpha_by_layer.py"


rule plot_figure_9:
    """Figure 9: the probability of leaving through the axis with the lower alpha."""
    input:
        exits=f"{RESULTS}/sde/exit_axis.parquet",
    output:
        **figure_outputs(9),
    log:
        f"{RESULTS}/logs/figures/figure_9.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/figure_9.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code("plot_exit_axis.py"),
    script:
        "../scripts/plot_exit_axis.py"


rule make_table:
    """A table of the paper, as CSV, Markdown and LaTeX."""
    input:
        fits=lambda wildcards: [
            fits_of(row["run"], row["batch_size"])
            for row in table_rows(wildcards.number)
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
        number="[123]",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        rows=lambda wildcards: table_rows(wildcards.number),
        kind=lambda wildcards: TABLE_KINDS[wildcards.number],
        code=code("make_table.py"),
    script:
        "../scripts/make_table.py"
