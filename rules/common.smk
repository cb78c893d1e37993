"""What the rules share: the settings, lookups in them, seeds, paths and the digest of the code."""

import glob
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# Threads that spin while they wait bring every other job on a busy machine to a crawl.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

FOLDER = Path(workflow.basedir)
SCRIPTS = FOLDER / "scripts"
sys.path.insert(0, str(SCRIPTS))

from sgnoise.digest import code_digest
from sgnoise.seeds import integer_seed
from sgnoise.settings import SettingsError, complete_settings, load_schema

try:
    SETTINGS = complete_settings(
        config, load_schema(FOLDER / "schemas" / "config.schema.yaml")
    )
except SettingsError as error:
    raise WorkflowError(f"The settings cannot be used. {error}") from None

STUDY = SETTINGS["study"]
RESULTS = f"results/{STUDY}"
RUNS = {run["name"]: run for run in SETTINGS["runs"]}
CONTROLS = {control["name"]: control for control in SETTINGS["controls"]}
BATCH_SIZES = SETTINGS["noise"]["batch_sizes"]
ESCAPE = SETTINGS["escape"]
ENVIRONMENT = FOLDER / "envs" / "sgnoise.yaml"
GPUS = 1 if SETTINGS["device"] == "cuda" else 0

FIGURES = SETTINGS["figures"]
TABLE_KINDS = {"1": "gaussian_stable", "2": "shared_alpha", "3": "gaussian_stable"}

RATES = ESCAPE["learning_rates"]
RATE_COUNT = len(RATES) if isinstance(RATES, list) else RATES


# Jobs learn of the mirror through the environment, not through a parameter: it says where files are
# found and not what is in them, as their checksums are pinned, so that to name another one must not
# make anything run again.
if SETTINGS["mirror"] is not None:
    os.environ.update(SGNOISE_MIRROR=SETTINGS["mirror"])


wildcard_constraints:
    run="[A-Za-z0-9_.-]+",
    dataset="[A-Za-z0-9_.-]+",
    batch_size=r"\d+",
    rate=r"\d+",


def code(script):
    """The digest that makes a rule run again when its script, or what that imports, changes."""
    return code_digest(script, SCRIPTS)


def source(path):
    """A file of the workflow as seen from the working directory, so that a clone can be moved."""
    return os.path.relpath(FOLDER / path)


def if_decoded(many, few):
    """``many`` of a resource for sources whose images have to be decoded one by one, else ``few``."""
    decoded = ("cinic10", "image_folder", "imagenet", "webdataset")

    def amount(wildcards):
        return (
            many
            if SETTINGS["datasets"][wildcards.dataset]["source"] in decoded
            else few
        )

    return amount


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


def network_code(run):
    """The digest of the user's own network (`module:function`), None for a registered one."""
    package, separator, _ = RUNS[run]["model"]["name"].partition(":")
    file = Path(*package.split(".")).with_suffix(".py")
    if not separator or not file.is_file():
        return None
    return code_digest(file, Path("."))


def seed(*names):
    """The seed of the random stream that `names` have in this study."""
    return integer_seed(SETTINGS["seed"], *names)


def root_of(run):
    """The run with which the chain of `start_from` begins: all of a chain share its random streams."""
    while "start_from" in RUNS[run]:
        run = RUNS[run]["start_from"]
    return run


def names_pattern(names):
    """A wildcard constraint that matches just these names; of no names, nothing."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


def run_file(run, name):
    """A file of a run or of a control."""
    return f"{RESULTS}/runs/{run}/{name}"


def fits_of(run, batch_size):
    return run_file(run, f"fits/b{batch_size}.parquet")


def noise_of(run, batch_size):
    return run_file(run, f"noise/b{batch_size}.parquet")


def layers_of(run, batch_size):
    return run_file(run, f"layers/b{batch_size}.parquet")


def escape_files(dataset):
    """The escape times of a data set, one file a batch size and learning rate."""
    return expand(
        f"{RESULTS}/escape/{dataset}/b{{batch_size}}/lr{{rate}}.parquet",
        batch_size=ESCAPE["batch_sizes"],
        rate=range(RATE_COUNT),
    )


def figure_paths():
    return expand(
        f"{RESULTS}/figures/figure_{{number}}.{{kind}}",
        number=range(1, 10),
        kind=["png", "pdf"],
    )


def table_paths():
    return expand(
        f"{RESULTS}/tables/table_{{number}}.{{kind}}",
        number=range(1, 4),
        kind=["csv", "md", "tex"],
    )


def data_paths():
    """Every Parquet file that the study computes."""
    paths = []
    for run in RUNS:
        paths += [run_file(run, "training.parquet"), run_file(run, "gradients.parquet")]
    for run in [*RUNS, *CONTROLS]:
        paths += [fits_of(run, batch_size) for batch_size in BATCH_SIZES]
        paths += [layers_of(run, batch_size) for batch_size in BATCH_SIZES]
    for dataset in ESCAPE["datasets"]:
        paths += expand(
            f"{RESULTS}/escape/{dataset}/{{name}}.parquet", name=["times", "theories"]
        )
    return paths + [
        f"{RESULTS}/sde/exit_axis.parquet",
        f"{RESULTS}/sde/exit_time.parquet",
        f"{RESULTS}/sde/covariance.parquet",
    ]


def parent_files(wildcards):
    """The checkpoint from which a run goes on, if it does not start afresh."""
    parent = RUNS[wildcards.run].get("start_from")
    if parent is None:
        return {}
    return {"parent_model": run_file(parent, "model.safetensors")}


def figure_outputs(number):
    """The two files of a figure, the PNG with a caption for `snakemake --report`."""
    stem = f"{RESULTS}/figures/figure_{number}"
    return {
        "png": report(
            f"{stem}.png",
            caption=f"../report/figure_{number}.rst",
            category="Figures",
            labels={"figure": str(number)},
        ),
        "pdf": f"{stem}.pdf",
    }


def table_rows(number):
    """One entry a row of the table: which fits it shows and what to call them."""
    shown = SETTINGS["tables"][f"table_{number}"]
    return [
        {
            "run": run,
            "dataset": RUNS[run]["dataset"] if run in RUNS else "synthetic",
            "batch_size": batch_size,
        }
        for run in shown["runs"]
        for batch_size in shown["batch_sizes"]
    ]
