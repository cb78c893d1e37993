"""The real workflow, end to end, on a micro study; and what runs again after each change."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_wine

from sgnoise.columns import FILES

ROOT = Path(__file__).parent.parent
SOURCES = ["Snakefile", "config.yaml", "rules", "scripts", "schemas", "report", "profiles", "envs"]

# What a user would bring: a network and a table.
NETWORK = """from torch import nn


def build(*, input_shape: tuple[int, ...], classes: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(input_shape[0], width), nn.Tanh(), nn.Linear(width, classes))
"""

PAGE = "results/micro/report.html"


def snakemake(folder: Path, *arguments: str, check: bool = True) -> str:
    """Run the workflow in ``folder`` on the micro study; everything that it printed."""
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "snakemake", "--cores", "2"),
            *("--configfile", "micro.yaml", *arguments),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
    )
    printed = done.stdout + done.stderr
    if check and done.returncode:
        raise AssertionError(printed)
    return printed


def planned(folder: Path) -> set[str]:
    """The outputs of all jobs that snakemake would run in ``folder``."""
    printed = snakemake(folder, "--dry-run")
    outputs = re.findall(r"^ {4}output: (.*)$", printed, flags=re.MULTILINE)
    if not outputs:
        assert "Nothing to be done" in printed, printed
    return {path for line in outputs for path in line.split(", ")}


def copy_sources(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored, copy_function=shutil.copy)
        else:
            shutil.copy(source, folder / name)
    shutil.copy(ROOT / "tests" / "micro.yaml", folder / "micro.yaml")
    (folder / "networks.py").write_text(NETWORK)
    wine = load_wine(as_frame=True)
    wine.data.assign(label=wine.target_names[wine.target]).to_csv(folder / "own.csv", index=False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the micro study has run from nothing; tests must not change it."""
    folder = tmp_path_factory.mktemp("workflow") / "finished"
    copy_sources(folder)
    snakemake(folder)
    return folder


@pytest.fixture
def clone(finished: Path, tmp_path: Path) -> Path:
    """A fresh copy of the sources, with the results and the metadata of the finished study.

    Copying gives every file a new modification time, as a fresh clone does.
    """
    folder = tmp_path / "clone"
    copy_sources(folder)
    for name in ("results", ".snakemake"):
        shutil.copytree(finished / name, folder / name, copy_function=shutil.copy)
    return folder


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file} no longer holds {old!r}"
    file.write_text(text.replace(old, new, 1))


def test_the_study_makes_everything_that_it_promises(finished: Path) -> None:
    results = finished / "results" / "micro"
    for number in range(1, 10):
        assert (results / f"figures/figure_{number}.png").read_bytes().startswith(b"\x89PNG")
        assert (results / f"figures/figure_{number}.pdf").read_bytes().startswith(b"%PDF")
    for number in range(1, 4):
        for kind in ("csv", "md", "tex"):
            assert (results / f"tables/table_{number}.{kind}").stat().st_size > 0
    assert len(pd.read_csv(results / "tables/table_2.csv")) == 4
    assert (results / "report.html").read_text().count(
        "<img"
    ) == 10  # nine of the paper, and the theory
    assert not list(results.rglob("*.part*")), "a temporary file was left behind"


def test_gradients_keep_the_contract(finished: Path) -> None:
    schema = pq.read_schema(finished / "results/micro/runs/mlp/gradients.parquet")
    assert schema.names == [
        *("parameter_index", "layer", "layer_index", "layer_type", "tensor", "offset"),
        *("stratum", "value", "full_gradient", "gradient"),
    ]
    assert str(schema.field("gradient").type) == "fixed_size_list<element: float>[1437]"
    metadata = json.loads(schema.metadata[b"sgnoise"])
    assert metadata["study"] == "micro"
    assert metadata["settings"]["run"] == "mlp"
    assert metadata["settings"]["mode"] == "per_sample"
    assert metadata["software"]["torch"]


def test_every_column_of_every_table_is_documented(finished: Path) -> None:
    results = finished / "results/micro"
    patterns = {
        pattern: re.compile(re.sub(r"\{\w+\}", "[^/]+", pattern.replace(".", r"\.")))
        for pattern in FILES
    }
    written: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(results.rglob("*.parquet")):
        name = path.relative_to(results).as_posix()
        (pattern,) = [each for each, expression in patterns.items() if expression.fullmatch(name)]
        schema = pq.read_schema(path)
        columns = [(field.name, re.sub(r"\[\d+\]", "[M]", str(field.type))) for field in schema]
        assert written.setdefault(pattern, columns) == columns, name
    assert written == {
        pattern: [(column.name, column.type) for column in file.columns]
        for pattern, file in FILES.items()
    }


def test_no_parameter_is_lost_between_dump_and_fits(finished: Path) -> None:
    run = finished / "results/micro/runs/resnet20"
    parameters = pq.read_metadata(run / "gradients.parquet").num_rows
    fits = pd.read_parquet(run / "fits/b32.parquet")
    assert (fits.groupby("law").size() == parameters).all()
    assert fits["law"].nunique() == 7


def test_nothing_is_done_twice(finished: Path) -> None:
    assert planned(finished) == set()


def test_a_fresh_clone_with_copied_results_runs_nothing(clone: Path) -> None:
    assert planned(clone) == set()


def test_naming_a_mirror_runs_nothing(finished: Path, tmp_path: Path) -> None:
    printed = snakemake(finished, "--dry-run", "--config", f"mirror={tmp_path}")
    assert "Nothing to be done" in printed


def test_touching_every_source_runs_nothing(clone: Path) -> None:
    for name in SOURCES:
        for file in [clone / name, *(clone / name).rglob("*")]:
            os.utime(file)
    assert planned(clone) == set()


def test_an_edited_plot_reruns_its_figure_and_the_report(clone: Path) -> None:
    replace(clone / "scripts/plot_exit_axis.py", "exits through axis 1 (%)", "exits (%)")
    figure = "results/micro/figures/figure_9"
    assert planned(clone) == {f"{figure}.png", f"{figure}.pdf", PAGE}
    snakemake(clone)
    assert planned(clone) == set()


def test_edited_fits_rerun_fits_and_what_follows_but_no_training(clone: Path) -> None:
    replace(clone / "scripts/sgnoise/fitting.py", "_fit_rows(", "_fit_the_rows(")
    paths = planned(clone)
    fits = {path for path in paths if "/fits/" in path}
    # Five runs and two controls, each at two batch sizes.
    assert len(fits) == 14
    assert {PAGE, "results/micro/figures/figure_7.png", "results/micro/claims.csv"} <= paths
    # The noise at the minima of the escapes is fitted too; the escapes themselves stay.
    assert "results/micro/escape/wine/m0/noise.parquet" in paths
    escapes = ("minimum.npz", "plan.json", "/rates")
    for untouched in ("model.safetensors", "gradients.parquet", "/noise/", *escapes, "/sde/"):
        assert not [path for path in paths if untouched in path], untouched


def test_another_rule_for_theorems_judges_again_and_simulates_nothing(clone: Path) -> None:
    replace(clone / "scripts/sgnoise/theorems.py", "_EQUAL_WITHIN = 0.1", "_EQUAL_WITHIN = 0.2")
    assert planned(clone) == {
        "results/micro/tables/theorems.csv",
        "results/micro/claims.csv",
        PAGE,
    }


def test_a_setting_of_one_run_reruns_that_run_only(clone: Path) -> None:
    replace(
        clone / "micro.yaml",
        "model: {name: resnet20}\n    training: {learning_rate: 0.1",
        "model: {name: resnet20}\n    training: {learning_rate: 0.2",
    )
    paths = planned(clone)
    assert "results/micro/runs/resnet20/model.safetensors" in paths
    touched = {match[1] for path in paths if (match := re.search(r"/runs/([^/]+)/", path))}
    assert touched == {"resnet20"}
    assert not [path for path in paths if "/escape/" in path or "/sde/" in path]


def test_an_edited_network_of_the_users_own_reruns_its_runs_only(clone: Path) -> None:
    replace(clone / "networks.py", "nn.Tanh", "nn.ReLU")
    paths = planned(clone)
    assert "results/micro/runs/own/model.safetensors" in paths
    touched = {match[1] for path in paths if (match := re.search(r"/runs/([^/]+)/", path))}
    assert touched == {"own"}


@pytest.mark.parametrize(
    ("old", "new", "reruns"),
    [
        # The value of one parameter becomes that of another one, or two change places.
        ("replicas: 8", "replicas: 5", "results/micro/escape/wine/m0/b8/rates0-1.parquet"),
        ("{alphas: [0.75], deltas: [0.5]", "{alphas: [0.5], deltas: [0.75]", "exit_axis.parquet"),
        # Two runs change places in a figure.
        (
            "before: mlp, after: mlp-decayed, without: mlp-constant",
            "before: mlp, after: mlp-constant, without: mlp-decayed",
            "results/micro/figures/figure_2.png",
        ),
        ("left: [resnet20], right: [mlp]", "left: [mlp], right: [resnet20]", "figure_8.png"),
    ],
)
def test_values_that_change_places_count(clone: Path, old: str, new: str, reruns: str) -> None:
    replace(clone / "micro.yaml", old, new)
    assert [path for path in planned(clone) if path.endswith(reruns)]


def test_words_rerun_nothing(clone: Path) -> None:
    library = clone / "scripts/sgnoise"
    with open(library / "fitting.py", "a") as module:
        module.write("\n# A remark.\n")
    # A progress bar and how it is shown, the words of an error, a message, a docstring.
    replace(clone / "scripts/draw_noise.py", "track(", "track(  # shown\n        ")
    replace(library / "progress.py", "_LINE_SECONDS = 5.0", "_LINE_SECONDS = 9.0")
    replace(library / "fitting.py", "it must be in [", "it has to lie in the interval [")
    replace(library / "messages.py", "did you mean", "is it")
    replace(library / "training.py", '"resuming after epoch %d"', '"going on after epoch %d"')
    replace(clone / "scripts/pretrain.py", '"""Train', '"""Teach')
    assert planned(clone) == set()


def reversed_keys(value: Any) -> Any:
    """``value`` with the keys of all its mappings in reverse."""
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


def test_settings_that_mean_the_same_rerun_nothing(clone: Path) -> None:
    study = yaml.safe_load((clone / "micro.yaml").read_text())
    run = next(run for run in study["runs"] if run["name"] == "mlp")
    assert run["training"]["learning_rate"] == 0.1
    run["training"] |= {"learning_rate": "1e-1", "momentum": 0, "epochs": 2.0}
    study["gradients"]["mode"] = "per_sample"
    (clone / "micro.yaml").write_text(yaml.safe_dump(reversed_keys(study), sort_keys=False))
    assert planned(clone) == set()


def test_a_file_of_the_users_own_counts_by_its_content(clone: Path) -> None:
    table = clone / "own.csv"
    os.utime(table)
    assert planned(clone) == set()
    rows = table.read_text().splitlines()
    table.write_text("\n".join(rows[:-1]) + "\n")
    os.utime(table, (1, 1))  # older than all results
    paths = planned(clone)
    assert "results/data/own/arrays.npz" in paths
    touched = {match[1] for path in paths if (match := re.search(r"/runs/([^/]+)/", path))}
    assert touched == {"own"}


def test_a_picture_more_or_another_one_reruns_its_data_set(clone: Path) -> None:
    target = "results/data/pictures/arrays.npz"
    pictures = clone / "pictures"
    for number in range(8):
        file = pictures / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(file)
    study = {"datasets": {"pictures": {"source": "image_folder", "path": "pictures"}}}
    (clone / "pictures.yaml").write_text(yaml.safe_dump(study))

    def printed(*arguments: str) -> str:
        return snakemake(clone, "pictures.yaml", *arguments, "--", target)

    printed()
    os.utime(pictures)
    assert "Nothing to be done" in printed("--dry-run")
    file.write_bytes((pictures / "a/0.png").read_bytes())
    assert f"output: {target}" in printed("--dry-run")
    printed()
    shutil.copy(file, pictures / "a" / "9.png")
    assert f"output: {target}" in printed("--dry-run")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("path: own.csv", "path: own_new.csv", "datasets.own.path: there is no file 'own_new.csv'"),
        ("width: 8}", "width: 8, weights: w2.pt}", "runs[0].model.weights: there is no file or"),
        ("networks:build", "other:build", "runs[0].model.name: 'other:build' cannot be read: "),
        ("study: micro", "study: micro\nstudy: mine", "the key 'study' stands twice, in lines 2 "),
    ],
)
def test_what_is_not_there_stops_a_finished_study(
    clone: Path, old: str, new: str, message: str
) -> None:
    replace(clone / "micro.yaml", old, new)
    printed = snakemake(clone, "--dry-run", check=False)
    assert message in printed
    assert "job stats" not in printed.lower()
    assert "Traceback" not in printed


@pytest.mark.parametrize("imported", [False, True])
def test_jobs_use_the_library_of_their_clone(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imported: bool
) -> None:
    other = tmp_path / "site-packages"
    (other / "sgnoise").mkdir(parents=True)
    (other / "sgnoise" / "__init__.py").touch()
    path = other
    if imported:  # in each Python, before anything else
        path = tmp_path / "path"
        path.mkdir()
        text = f"import site\n\nsite.addsitedir({str(other)!r})\nimport sgnoise\n"
        (path / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(path))
    assert planned(clone) == set()
    table = clone / "results/micro/tables/table_1.csv"
    before = table.read_bytes()
    table.unlink()
    snakemake(clone, "--", "results/micro/tables/table_1.csv")
    assert table.read_bytes() == before


def test_a_wrong_setting_stops_before_anything_runs(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    copy_sources(folder)
    replace(folder / "micro.yaml", "draws: 100", "drawz: 100")
    printed = snakemake(folder, check=False)
    assert "noise: unknown key 'drawz'; did you mean 'draws'?" in printed
    assert "Traceback" not in printed
    assert not (folder / "results").exists()


def test_a_second_attempt_has_twice_the_memory_and_time(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    copy_sources(folder)
    first, second = (
        re.findall(
            r"^rule (\w+):.*?runtime=(\d+).*? mem_mb=(\d+)",
            snakemake(folder, "--dry-run", "--attempt", attempt),
            flags=re.MULTILINE | re.DOTALL,
        )
        for attempt in ("1", "2")
    )
    assert len({rule for rule, *_ in first}) > 20
    doubled = [(rule, str(2 * int(time)), str(2 * int(memory))) for rule, time, memory in first]
    assert sorted(doubled) == sorted(second)


def test_the_report_of_snakemake_is_made(finished: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    snakemake(finished, "--report", str(page))
    text = page.read_text()
    assert "figure_7.png" in text
    assert "table_1.csv" in text


@pytest.mark.parametrize("target", ["figures", "tables", "data", "escape"])
def test_named_targets_are_listed_and_done(finished: Path, target: str) -> None:
    listed = snakemake(finished, "--list-target-rules")
    assert target in listed
    assert "Nothing to be done" in snakemake(finished, "--dry-run", target)


# --- Elsewhere, and less than everything ---


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An empty folder beside a clone, both with a space in their names."""
    copy_sources(tmp_path / "a clone")
    folder = tmp_path / "my study"
    folder.mkdir()
    return folder


def run_elsewhere(folder: Path, *arguments: str) -> str:
    """Plan, in ``folder``, what ``arguments`` ask of snakemake."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--dry-run", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
    )
    return done.stdout + done.stderr


def job_counts(printed: str) -> dict[str, int]:
    """The first table of jobs that snakemake printed."""
    table = printed.partition("Job stats:")[2].partition("total")[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


SMALL = """\
study: small
datasets:
  digits: {source: bundled, name: digits, form: image}
runs:
  - name: mlp
    dataset: digits
    model: {name: mlp, widths: [16]}
    training: {epochs: 1}
"""


def test_a_small_study_has_no_job_of_another(elsewhere: Path) -> None:
    (elsewhere / "small.yaml").write_text(SMALL)
    clone = ("-s", "../a clone/Snakefile", "--configfile", "small.yaml")
    jobs = job_counts(run_elsewhere(elsewhere, *clone))
    assert {name for name in jobs if name.startswith("plot_")} == {
        f"plot_figure_{number}" for number in (3, 5, 7, 8)
    }
    assert jobs["fetch_dataset"] == jobs["pretrain"] == jobs["make_report"] == 1
    assert not [name for name in jobs if "escape" in name or "exit" in name or "control" in name]
    printed = run_elsewhere(elsewhere, "escape", *clone)
    assert "Nothing to make for 'escape': the study 'small' leaves out" in printed


def test_the_study_is_what_configfile_names_or_lies_here_or_is_the_default(elsewhere: Path) -> None:
    clone = ("-s", "../a clone/Snakefile")
    default = job_counts(run_elsewhere(elsewhere, *clone))
    less = job_counts(run_elsewhere(elsewhere, *clone, "--config", "escape=False", "sde=False"))
    gone = set(default) - set(less)
    assert gone >= {"simulate_escape", "simulate_exit_axis", "judge_theorems", "plot_figure_1"}
    rules = "\n".join((ROOT / f"rules/{name}.smk").read_text() for name in ("escape", "sde"))
    figures = {f"plot_{name}" for name in ("figure_1", "figure_6", "figure_9", "theory")}
    assert gone == figures | set(re.findall(r"^rule (\w+):", rules, re.MULTILINE))
    (elsewhere / "config.yaml").write_text(SMALL)
    here = run_elsewhere(elsewhere, *clone)
    assert job_counts(here)["pretrain"] == 1
    (elsewhere / "differs.yaml").write_text("study: other\nfigures: false\n")
    both = ("--configfile", "config.yaml", "differs.yaml")
    printed = run_elsewhere(elsewhere, *clone, *both)
    assert "results/other/report.html" in printed
    assert "plot_" not in printed


@pytest.mark.parametrize("prefix", ["", " as noise_*"])
def test_another_workflow_uses_this_one(elsewhere: Path, prefix: str) -> None:
    (elsewhere / "small.yaml").write_text(SMALL)
    (elsewhere / "Snakefile").write_text(f"""
configfile: "small.yaml"

module sgnoise:
    snakefile: "../a clone/Snakefile"
    config: config

use rule * from sgnoise{prefix}

rule compare:
    input: "results/small/runs/mlp/fits/b32.parquet"
    output: "compared.txt"
    shell: "touch {{output}}"
""")
    jobs = job_counts(run_elsewhere(elsewhere, "compare"))
    first = prefix.removeprefix(" as ").removesuffix("*")
    chain = ("fetch_dataset", "pretrain", "dump_gradients", "draw_noise", "fit_noise")
    assert jobs == {"compare": 1, **{first + name: 1 for name in chain}}
    assert job_counts(run_elsewhere(elsewhere))[f"{first}make_report"] == 1
