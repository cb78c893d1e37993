import glob

# Jobs learn of the mirror through the environment, not through a parameter: it says where files are
# found and not what is in them, as their checksums are pinned, so that to name another one must not
# make anything run again.
if SETTINGS["mirror"] is not None:
    os.environ["SGNOISE_MIRROR"] = SETTINGS["mirror"]


def decoding_threads(wildcards):
    """Images of these sources have to be decoded one by one."""
    decoded = ("cinic10", "image_folder", "imagenet", "webdataset")
    return 4 if SETTINGS["datasets"][wildcards.dataset]["source"] in decoded else 1


def dataset_need(wildcards):
    """What preparing a data set needs of a machine."""
    return needs.dataset_need(SETTINGS["datasets"][wildcards.dataset])


def own_files(dataset):
    """The user's files that a data set is read from, apart from those with a pinned checksum.

    Where they are missing, the job says what to put where; the graph can be looked at without them.
    ImageNet's folder is left out: its content is known, and it may be removed once it has been read.
    """
    spec = SETTINGS["datasets"][dataset]
    if spec["source"] == "table":
        return [spec["path"]]
    if spec["source"] == "image_folder" and spec["sha256"] is None:
        return glob.glob(glob.escape(spec["path"]))
    return sorted(path for shard in spec.get("shards", []) for path in glob.glob(shard))


rule fetch_dataset:
    """A data set, checked, split and with its statistics, and a manifest of where it came from."""
    input:
        lambda wildcards: own_files(wildcards.dataset),
    output:
        arrays="results/data/{dataset}/arrays.npz",
        manifest="results/data/{dataset}/manifest.json",
    log:
        "results/data/logs/fetch_dataset/{dataset}.log",
    benchmark:
        "results/data/benchmarks/fetch_dataset/{dataset}.tsv"
    conda:
        ENVIRONMENT
    threads: decoding_threads
    resources:
        mem_mb=lambda wildcards: dataset_need(wildcards).memory_mb,
        runtime=lambda wildcards: dataset_need(wildcards).minutes,
    params:
        spec=lambda wildcards: SETTINGS["datasets"][wildcards.dataset],
        seed=lambda wildcards: seed("data", wildcards.dataset),
        code=code("fetch_dataset.py"),
    script:
        "../scripts/fetch_dataset.py"
