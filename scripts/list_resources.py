"""Print what the jobs of a study will need of a machine, as a table in Markdown.

Run: ``python scripts/list_resources.py [studies/paper.yaml]`` beside the Snakefile.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sgnoise import resources, settings

FOLDER = Path(__file__).parents[1]


def read_study(path: str | Path = FOLDER / "config.yaml") -> dict[str, Any]:
    """The settings of a study, completed."""
    settings.check_duplicates(path)
    schema = settings.load_schema(FOLDER / "schemas" / "config.schema.yaml")
    return settings.complete_settings(yaml.safe_load(Path(path).read_text("utf-8")), schema)


def list_jobs(study: Mapping[str, Any]) -> Iterator[tuple[str, str, resources.Need]]:
    """Rule, what it is about, and its need, for the jobs whose size depends on the settings."""
    runs, draws = study["runs"], study["noise"]["draws"]
    escapes = [] if study["escape"] is None else study["escape"]["datasets"]
    used = {run["dataset"] for run in runs} | set(escapes)
    for name, spec in study["datasets"].items():
        if name in used:
            yield "fetch_dataset", name, resources.dataset_need(spec)
    for run in runs:
        spec = study["datasets"][run["dataset"]]
        count = resources.parameters(run["gradients"])
        samples = resources.training_samples(spec)
        device = study["device"]
        yield "pretrain", run["name"], resources.training_need(run, spec, device)
        yield "dump_gradients", run["name"], resources.gradients_need(run, spec, device, draws)
        yield "draw_noise", run["name"], resources.noise_need(count, samples, draws)
        laws = len(study["fits"]["laws"])
        yield "fit_noise", run["name"], resources.fit_need(count, draws, laws)
    for name in escapes:
        spec = study["datasets"][name]
        yield "simulate_escape", name, resources.escape_need(spec, study["escape"])


def table(study: Mapping[str, Any]) -> str:
    """The table, one row a job (``draw_noise``, ``fit_noise``: a batch size; ``simulate_escape``: a
    batch size and ``rates_per_job`` learning rates)."""
    lines = [
        "| Rule | Of | runtime (min) | mem_mb | gpu |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {rule} | {name} | {need.minutes} | {need.memory_mb} | {need.gpus} |"
        for rule, name, need in list_jobs(study)
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(read_study(*sys.argv[1:])))
