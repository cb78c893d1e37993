"""What the rules share: the settings, lookups in them, seeds, paths and the digest of the code."""

import hashlib
import os
import re
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger as snakemake_logger

# Threads that spin while they wait bring every other job on a busy machine to a crawl.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Of this workflow, also where another one imports it as a module.
FOLDER = Path(str(workflow.current_basedir)).parent
SCRIPTS = FOLDER / "scripts"

# The workflow uses the library that lies beside it, whatever else is installed, named in PYTHONPATH,
# or imported before, and so do its jobs: the digests below are of this one.
sys.path.insert(0, str(SCRIPTS))
for name in [name for name in sys.modules if name.partition(".")[0] == "sgnoise"]:
    if not Path(sys.modules[name].__file__ or "").is_relative_to(SCRIPTS):
        del sys.modules[name]

from sgnoise import resources as needs
from sgnoise.digest import Scripts, library_version, network_digest
from sgnoise.inputs import Contents, InputError, dataset_inputs, weights_inputs
from sgnoise.jobs import import_first
from sgnoise.printing import print_briefly
from sgnoise.seeds import integer_seed
from sgnoise.settings import (
    SettingsError,
    check_duplicates,
    complete_settings,
    load_schema,
)

# The rules of a workflow that imports this one.
OTHER_RULES = list(workflow.rules)

import_first(SCRIPTS)
print_briefly(snakemake_logger, dry_run=workflow.output_settings.dryrun)

try:
    for path in workflow.configfiles:
        check_duplicates(path)
    SETTINGS = complete_settings(
        config, load_schema(FOLDER / "schemas" / "config.schema.yaml")
    )
except SettingsError as error:
    raise WorkflowError(f"The settings cannot be used. {error}") from None

STUDY = SETTINGS["study"]
RESULTS = f"results/{STUDY}"
RUNS = {run["name"]: run for run in SETTINGS["runs"]}
CONTROLS = {control["name"]: control for control in SETTINGS["controls"]}
ESCAPE = SETTINGS["escape"]
ENVIRONMENT = FOLDER / "envs" / "sgnoise.yaml"
GPUS = 1 if SETTINGS["device"] == "cuda" else 0


# The captions of figures and tables read the settings there, completed.
config = SETTINGS


# Jobs learn of the mirror through the environment, not through a parameter: it says where files are
# found and not what is in them, as their checksums are pinned, so that to name another one must not
# make anything run again, the report of the settings included.
MIRROR = SETTINGS.pop("mirror")
if MIRROR is not None:
    os.environ.update(SGNOISE_MIRROR=MIRROR)


wildcard_constraints:
    run="[A-Za-z0-9_.-]+",
    dataset="[A-Za-z0-9_.-]+",
    batch_size=r"\d+",
    first=r"\d+",
    last=r"\d+",
    minimum=r"\d+",


CODE = Scripts(SCRIPTS, Path(".snakemake") / "sgnoise_scripts.json")


def code(script):
    """The digest that makes a rule run again when what its script reaches changes."""
    return CODE.digest(script)


def source(path):
    """A file of the workflow as seen from the working directory, so that a clone can be moved."""
    return os.path.relpath(FOLDER / path)


def by_name(declared):
    """A parameter that tells which value each parameter of a rule has, and what each input is.

    Snakemake compares a job with its last run by the set of the values of its parameters and by that
    of its inputs, both without names: two values that change places would rerun nothing, nor would a
    value that becomes what another one is, nor two runs that change places in a figure.

    Args:
        declared: the parameters of the rule.

    Returns:
        A function of the wildcards and all that Snakemake hands to it. Were the inputs among its
        arguments by name, Snakemake would take the parameter for a part of them and not compare it.
    """
    params = dict(declared.items())

    def digest(wildcards, **job):
        values = {
            name: value(wildcards) if callable(value) else value
            for name, value in params.items()
        }
        files = job["input"]
        names = {name: str(part) for name, part in files.items()}
        text = repr((values, list(map(str, files)), names))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    return digest


CONTENTS = Contents(Path(".snakemake") / "sgnoise_contents.json")


def own_files(dataset):
    """The user's files and folders that a data set is read from; see `sgnoise.inputs`."""
    prepared = Path(f"results/data/{dataset}/arrays.npz").exists()
    return dataset_inputs(dataset, SETTINGS["datasets"][dataset], prepared=prepared)


@cache
def own_content(dataset):
    """A digest of what is in these files and folders."""
    return CONTENTS.digest(own_files(dataset))


def own_weights(run):
    """The user's file or folder of weights with which a run starts, if any."""
    return weights_inputs(list(RUNS).index(run), RUNS[run])


# What the networks of other libraries depend on besides the code of this workflow.
NETWORK_LIBRARIES = {
    "bert": "transformers",
    "huggingface": "transformers",
    "open_clip": "open_clip",
    "timm": "timm",
}


@cache
def network_code(run):
    """What decides how a network is built, where that is not the code of this workflow.

    The digest of the user's own network (`module:function`), the release of the library that has
    the network, or None.
    """
    name = RUNS[run]["model"]["name"]
    package, separator, _ = name.partition(":")
    if package in NETWORK_LIBRARIES:
        library = NETWORK_LIBRARIES[package]
        return f"{library}=={library_version(library)}"
    return network_digest(name, Path("."), SCRIPTS) if separator else None


# What the settings name is there, or nothing starts: Snakemake takes a result for up to date if an
# input of it that no rule makes is missing.
try:
    used = {run["dataset"] for run in RUNS.values()}
    for dataset in sorted(used | set(ESCAPE["datasets"] if ESCAPE else [])):
        own_files(dataset)
    for run in RUNS:
        own_weights(run)
except InputError as error:
    raise WorkflowError(f"The settings cannot be used. {error}") from None
for index, run in enumerate(RUNS):
    try:
        network_code(run)
    except (FileNotFoundError, SyntaxError) as error:
        raise WorkflowError(
            f"The settings cannot be used. runs[{index}].model.name: "
            f"'{RUNS[run]['model']['name']}' cannot be read: {error}"
        ) from None


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


def batch_sizes_of(run):
    """The mini-batch sizes at which the noise of a run or control is drawn."""
    if run in RUNS:
        return RUNS[run]["batch_sizes"]
    return SETTINGS["noise"]["batch_sizes"]


def fits_of(run, batch_size):
    return run_file(run, f"fits/b{batch_size}.parquet")


def noise_of(run, batch_size):
    return run_file(run, f"noise/b{batch_size}.parquet")


def layers_of(run):
    return run_file(run, "layers.parquet")


def escape_files(dataset):
    """The escape times of a data set, one file a minimum, batch size and range of learning rates."""
    step = needs.rates_per_job(ESCAPE)
    firsts = range(0, RATE_COUNT, step)
    return expand(
        f"{RESULTS}/escape/{dataset}/m{{minimum}}/b{{batch_size}}/rates{{rates}}.parquet",
        minimum=range(ESCAPE["minima"]),
        batch_size=ESCAPE["batch_sizes"],
        rates=[f"{first}-{min(first + step, RATE_COUNT) - 1}" for first in firsts],
    )


def escape_results(*names):
    """Results of all data sets of the escapes, by file name; none without escapes."""
    datasets = [] if ESCAPE is None else ESCAPE["datasets"]
    return [
        f"{RESULTS}/escape/{dataset}/{name}.parquet"
        for dataset in datasets
        for name in names
    ]


def theory_results(*names):
    """Results of the theory beside simulation, by file name; none without it."""
    return [f"{RESULTS}/{name}" for name in names if SETTINGS["sde"] is not None]


ESCAPE_TABLES = [] if ESCAPE is None else [f"{RESULTS}/tables/escape_theories.csv"]
THEORY_TABLES = theory_results("tables/theorems.csv")


def mini_batch_setting(run, value):
    """``value`` for a run whose gradients are those of mini-batches; others do not depend on it."""
    return value if RUNS[run]["gradients"]["mode"] == "mini_batch" else None


def data_paths():
    """Every Parquet file that the study computes."""
    paths = []
    for run in RUNS:
        paths += [run_file(run, "training.parquet"), run_file(run, "gradients.parquet")]
    for run in [*RUNS, *CONTROLS]:
        paths += [fits_of(run, batch_size) for batch_size in batch_sizes_of(run)]
        paths.append(layers_of(run))
    return [
        *paths,
        *escape_results("times", "theories"),
        *theory_results(
            "sde/exit_axis.parquet",
            "sde/exit_time.parquet",
            "sde/covariance.parquet",
            "sde/experiments.parquet",
        ),
    ]


def decoding_threads(wildcards):
    """Images of these sources are decoded one by one: a thread for each 20,000 of them.

    A job of several threads waits until so many are free, so a small one takes a single thread.
    """
    spec = SETTINGS["datasets"][wildcards.dataset]
    if spec["source"] not in ("cinic10", "image_folder", "imagenet", "webdataset"):
        return 1
    return min(4, 1 + needs.training_samples(spec) // 20_000)


def growing(least):
    """A resource of which a job is given ``least`` at first, and so much more at each new attempt."""
    return lambda wildcards, attempt: attempt * least


def dataset_need(wildcards):
    """What preparing a data set needs of a machine."""
    return needs.dataset_need(SETTINGS["datasets"][wildcards.dataset])


def training_need(wildcards):
    """What training a run needs of a machine."""
    run = RUNS[wildcards.run]
    return needs.training_need(
        run, SETTINGS["datasets"][run["dataset"]], SETTINGS["device"]
    )


def gradients_need(wildcards):
    """What dumping the gradients of a run needs of a machine."""
    run = RUNS[wildcards.run]
    dataset = SETTINGS["datasets"][run["dataset"]]
    return needs.gradients_need(
        run, dataset, SETTINGS["device"], SETTINGS["noise"]["draws"]
    )


def noise_need(wildcards):
    """What drawing the noise of a run or control needs of a machine."""
    return needs.noise_need(*noise_size(wildcards.run), SETTINGS["noise"]["draws"])


def fit_need(wildcards):
    """What fitting the noise of a run or control needs of a machine."""
    parameters, _ = noise_size(wildcards.run)
    return needs.fit_need(
        parameters, SETTINGS["noise"]["draws"], len(SETTINGS["fits"]["laws"])
    )


def escape_need(wildcards):
    """What the escapes of a data set at one batch size and range of learning rates need."""
    return needs.escape_need(SETTINGS["datasets"][wildcards.dataset], ESCAPE)


def noise_size(run):
    """Parameters, and the samples behind their noise, of a run or control, at most."""
    if run in CONTROLS:
        return CONTROLS[run]["count"], CONTROLS[run].get("samples", 0)
    dataset = SETTINGS["datasets"][RUNS[run]["dataset"]]
    parameters = needs.parameters(RUNS[run]["gradients"])
    return parameters, needs.training_samples(dataset)


def parent_files(wildcards):
    """The weights with which a run starts, if they come from a file.

    That is the checkpoint of the run from which it goes on, or a file of pre-trained weights.
    """
    run = RUNS[wildcards.run]
    if "start_from" in run:
        return {"parent_model": run_file(run["start_from"], "model.safetensors")}
    weights = own_weights(wildcards.run)
    return {"weights": ancient(weights)} if weights else {}
