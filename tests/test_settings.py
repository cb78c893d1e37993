"""The settings of a study: the defaults, and the message for each kind of mistake."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sgnoise.settings import (
    SettingsError,
    check_duplicates,
    complete_settings,
    load_schema,
)

ROOT = Path(__file__).parent.parent
SCHEMA = load_schema(ROOT / "schemas" / "config.schema.yaml")
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())


def test_the_default_study_is_valid_and_completed() -> None:
    settings = complete_settings(DEFAULT, SCHEMA)
    assert settings["runs"][0]["training"]["momentum"] == 0.0
    assert settings["escape"]["loss_delta"] is None
    assert "momentum" not in DEFAULT["runs"][0]["training"], "the input must stay as it was"


@pytest.mark.parametrize(
    "name",
    [
        "timm:vit_base_patch16_224.augreg2_in21k_ft_in1k",
        "huggingface:google-bert/bert-base-uncased",
        "open_clip:ViT-B-16-plus-240",
    ],
)
def test_networks_of_libraries_are_named_with_their_library(name: str) -> None:
    changed = copy.deepcopy(DEFAULT)
    changed["runs"][0] |= {"model": {"name": name}, "training": {"epochs": 0, "stop": {}}}
    training = complete_settings(changed, SCHEMA)["runs"][0]["training"]
    assert training["batch_size"] == 128
    assert training["stop"] == {"tolerance": 1e-4, "patience": 5}


def test_defaults_are_not_shared_between_entries() -> None:
    settings = complete_settings(DEFAULT, SCHEMA)
    settings["runs"][0]["training"]["milestones"].append(3)
    assert complete_settings(DEFAULT, SCHEMA)["runs"][0]["training"]["milestones"] == []


def test_a_data_set_gets_the_defaults_of_its_source_only() -> None:
    settings = copy.deepcopy(DEFAULT)
    settings["datasets"]["own"] = {"source": "cifar10", "subset": {"train": 10}}
    settings["datasets"]["table"] = {"source": "adbench", "name": "cardio"}
    completed = complete_settings(settings, SCHEMA)["datasets"]
    assert completed["own"] == {
        "source": "cifar10",
        "subset": {"train": 10},
        "normalisation": "data",
    }
    assert completed["table"] == {"source": "adbench", "name": "cardio", "test_fraction": 0.2}


MISTAKES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c.update(nosie=1), r"the top level: unknown key 'nosie'; did you mean 'noise'\?"),
    (
        lambda c: c["noise"].update(zzz=3),
        r"noise: unknown key 'zzz'\. Allowed are: batch_sizes, dr",
    ),
    (lambda c: c["noise"].update(draws="many"), r'noise\.draws: "many" is a string; .* integer'),
    (lambda c: c["noise"].update(draws=3), r"noise\.draws: 3 must be at least 40"),
    (lambda c: c.update(seed=True), r"seed: true is true or false; it must be of type integer"),
    (lambda c: c.update(device="gpu"), r"device: .*did you mean 'cpu'\? Allowed are: auto, cpu"),
    (lambda c: c["runs"][0]["training"].pop("epochs"), r"runs\[0\]\.training: the key 'epochs' is"),
    (
        lambda c: c["runs"][1]["model"].update(name="resnet_20"),
        r"runs\[1\]\.model\.name: .*did you mean 'resnet20'\?.*module:function",
    ),
    (
        lambda c: c["runs"][0].update(loss="contrastive"),
        r"runs\[0\]\.gradients\.mode: .* set mini_batch",
    ),
    (
        lambda c: c["runs"][0]["training"].update(stop={}, evaluate_every=2),
        r"runs\[0\]\.training\.evaluate_every: 'stop' looks at",
    ),
    (
        lambda c: c["runs"][0]["model"].update(name="tim:ViT-B-32"),
        r"runs\[0\]\.model\.name: .*Allowed are: .*, timm:name",
    ),
    (
        lambda c: c.update(fits={"span": 3}),
        r'fits\.span: 3 is not allowed; it must be "full" or num',
    ),
    (lambda c: c.update(fits={"laws": ["gaussian", "stabel"]}), r"fits\.laws\[1\].*'stable'"),
    (
        lambda c: c.update(fits={"laws": ["gaussian", "laplace"]}),
        r"the tables need the law 'stable'",
    ),
    (lambda c: c["runs"][0].update(name="a b"), r'runs\[0\]\.name: "a b" is not a valid name'),
    (lambda c: c.update(runs=[]), r"runs: 0 entries are too few; at least 1 "),
    (lambda c: c["noise"].update(batch_sizes=[8, 8]), r"noise\.batch_sizes: .*twice"),
    (
        lambda c: c["runs"][0].update(dataset="digit"),
        r"runs\[0\]\.dataset: .*did you mean 'digits'",
    ),
    (lambda c: c["runs"][0].update(name="resnet20"), r"'resnet20' is used twice"),
    (lambda c: c["runs"][0].update(start_from="resnet20"), r"must stand before 'mlp' in the list"),
    (
        lambda c: c["runs"][2].update(start_from="resnet"),
        r"runs\[2\]\.start_from: .*no run 'resnet'",
    ),
    (
        lambda c: c["runs"][2]["training"].update(epochs=1),
        r"runs\[2\]\.training\.epochs: 1 must be more than the \d+ epochs of 'resnet20'",
    ),
    (
        lambda c: c["datasets"]["wine"].pop("name"),
        r"datasets\.wine: the key 'name' is missing\. \(The source is 'bundled'",
    ),
    (
        lambda c: c["datasets"].update(own={"source": "table"}),
        r"datasets\.own: the key 'path' is missing",
    ),
    (
        lambda c: c["datasets"].update(own={"source": "cifar"}),
        r"datasets\.own\.source: .*did you mean 'cifar10'\? Allowed are: bundled, table, adbench",
    ),
    (
        lambda c: c["datasets"].update(own={"source": "cifar10", "subsets": {"train": 5}}),
        r"datasets\.own: unknown key 'subsets'; did you mean 'subset'\?",
    ),
    (
        lambda c: c["datasets"].update(own={"source": "cifar10", "length": 5}),
        r"datasets\.own: unknown key 'length'.* normalisation, source, subset\. .*'cifar10'",
    ),
    (
        lambda c: c["datasets"].update(own={"source": "cifar10", "subset": {"train": 0}}),
        r"datasets\.own\.subset\.train: 0 must be at least 1",
    ),
    (
        lambda c: c["datasets"].update(own={"source": "adbench", "name": "wine"}),
        r"datasets\.own\.name: .* is not allowed.* are: breastw, cardio, satellite.*'adbench'",
    ),
    (
        lambda c: c["datasets"].update(own={"source": "adbench", "name": "cardoi"}),
        r"datasets\.own\.name: .*did you mean 'cardio'\?",
    ),
    (
        lambda c: c["datasets"].update(
            own={"source": "image_folder", "path": "a.tar", "sha256": "12"}
        ),
        r'datasets\.own\.sha256: "12" is not a valid .*64 hexadecimal digits',
    ),
    (
        lambda c: c["datasets"].update(own={"source": "imagenet"}),
        r"the key 'path' is missing",
    ),
    (lambda c: c.update(mirror=3), r"mirror: 3 is int; it must be of type string or null"),
    (lambda c: c["escape"].update(datasets=["wien"]), r"escape\.datasets\[0\]: .*'wine'"),
    (
        lambda c: c["escape"].update(target_iterations=[9, 5]),
        r"escape\.target_iterations: 9 must be",
    ),
    (
        lambda c: c["gradients"].update(mode="mini_batch"),
        r"runs\[0\]\.batch_sizes: with gradients\.mode",
    ),
    (
        lambda c: c["figures"]["decay"].update(before="resnet2"),
        r"figures\.decay\.before: .*'resnet20'",
    ),
    (
        lambda c: c["figures"]["escape"].update(figure_1=[4]),
        r"figures\.escape\.figure_1: no batch ",
    ),
    (lambda c: c["figures"]["histograms"].update(batch_size=4), r"declared are: 8, 32, 64"),
    (
        lambda c: c["runs"][1].update(batch_sizes=[8]),
        r"figures\.decay\.batch_size: no batch size 32 is declared for the run 'resnet20'",
    ),
    (lambda c: c["tables"]["table_1"].update(runs=["nlp"]), r"tables\.table_1\.runs: .*'mlp'"),
    (lambda c: c.update(escape=True), r"escape: true says nothing; .* false to leave it out"),
    (lambda c: c["tables"].update(table_1=True), r"tables\.table_1: true says nothing"),
    (lambda c: c.update(sde=3), r"sde: 3 is int; it must be of type object or boolean or null"),
    (
        lambda c: c["tables"]["table_3"].update(batch_sizes=[4]),
        r"tables\.table_3\.batch_sizes: none of them is declared for 'mlp'",
    ),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES)
def test_a_mistake_is_named_with_its_path(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    settings = copy.deepcopy(DEFAULT)
    change(settings)
    with pytest.raises(SettingsError, match=message):
        complete_settings(settings, SCHEMA)


def test_a_model_of_the_users_own_is_allowed() -> None:
    settings = copy.deepcopy(DEFAULT)
    settings["runs"][0]["model"] = {"name": "my.networks:build", "depth": 3}
    assert complete_settings(settings, SCHEMA)["runs"][0]["model"]["depth"] == 3


def test_a_run_has_the_gradients_and_batch_sizes_of_the_study_or_its_own() -> None:
    settings = copy.deepcopy(DEFAULT)
    settings["runs"][0] |= {"gradients": {"mode": "mini_batch"}, "batch_sizes": [32]}
    # The tables that show the run at other batch sizes show it at this one, too.
    settings["tables"]["table_3"]["batch_sizes"] = [32, 64]
    own, other = complete_settings(settings, SCHEMA)["runs"][:2]
    assert own["gradients"] == settings["gradients"] | {"mode": "mini_batch"}
    assert own["batch_sizes"] == [32]
    assert other["gradients"] == settings["gradients"]
    assert other["batch_sizes"] == settings["noise"]["batch_sizes"]


def reversed_keys(value: Any) -> Any:
    """``value`` with the keys of all its mappings in reverse."""
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


def test_settings_that_mean_the_same_have_one_form() -> None:
    usual = complete_settings(DEFAULT, SCHEMA)
    # What is written out with all defaults stays as it is.
    for same in (reversed_keys(DEFAULT), usual, reversed_keys(usual)):
        assert repr(complete_settings(same, SCHEMA)) == repr(usual)
    changed = copy.deepcopy(DEFAULT)
    changed["runs"][0]["training"] |= {"epochs": 60.0, "weight_decay": 0, "learning_rate": "1e-1"}
    changed["controls"][2]["parameters"]["degrees_of_freedom"] = 3.0
    assert repr(complete_settings(changed, SCHEMA)) == repr(usual)


def test_options_of_a_network_have_one_order() -> None:
    settings = copy.deepcopy(DEFAULT)
    settings["runs"][0]["model"] = {"zeta": 1, "alpha": 1e-3, "name": "networks:build"}
    model = complete_settings(settings, SCHEMA)["runs"][0]["model"]
    assert list(model.items()) == [("name", "networks:build"), ("alpha", 1e-3), ("zeta", 1)]


def test_a_text_that_is_no_number_is_refused() -> None:
    settings = copy.deepcopy(DEFAULT)
    settings["runs"][0]["training"]["learning_rate"] = "1e-3.5"
    with pytest.raises(SettingsError, match=r'learning_rate: "1e-3.5" is a string'):
        complete_settings(settings, SCHEMA)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study: a\nseed: 1\nstudy: b\n", "the top level: the key 'study' .* lines 1 and 3"),
        (
            "runs:\n  - name: a\n    model: {name: mlp}\n    training:\n      epochs: 1\n"
            "      epochs: 2\n",
            r"runs\[0\]\.training: the key 'epochs' stands twice, in lines 5 and 6",
        ),
        ('{"noise": {"draws": 1, "draws": 2}}', "noise: the key 'draws' .* lines 1 and 1"),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=f"mine.yaml: {message}"):
        check_duplicates(file)


def test_an_anchor_that_is_used_twice_stands_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("a: &one {b: 1}\nc: *one\nd: {<<: *one, e: 1}\nf: {<<: *one, e: 1}\n")
    check_duplicates(file)


# --- What is shown where the settings do not say ---

DIGITS = DEFAULT["datasets"]["digits"]


def study(*names: str, **changes: Any) -> dict[str, Any]:
    """A study of runs of the default study, with nothing but what is needed."""
    runs = [copy.deepcopy(run) for run in DEFAULT["runs"] if run["name"] in names]
    for run in runs:
        run.pop("batch_sizes", None)
    own = {"study": "own", "datasets": {"digits": DIGITS}, "runs": runs}
    return {**own, **changes}


def test_three_sections_are_a_study() -> None:
    settings = complete_settings(study("mlp"), SCHEMA)
    assert (settings["escape"], settings["sde"], settings["controls"]) == (None, None, [])
    assert settings["noise"]["batch_sizes"] == [32, 128]
    assert settings["figures"] == {
        "escape": None,
        "decay": None,
        "histograms": {"figure_3": "mlp", "figure_5": "mlp", "batch_size": 32},
        "alpha_by_network": {"runs": ["mlp"], "batch_size": 32},
        "alpha_by_layer": {"left": ["mlp"], "right": [], "batch_size": 32},
        "exit_axis": None,
        "theory": None,
    }
    assert settings["tables"] == {
        "table_1": {"kind": "gaussian_stable", "runs": ["mlp"], "batch_sizes": [32]},
        "table_2": {"kind": "shared_alpha", "runs": ["mlp"], "batch_sizes": [32, 128]},
        "table_3": {"kind": "gaussian_stable", "runs": ["mlp"], "batch_sizes": [128]},
    }


def test_figures_show_all_that_a_study_has() -> None:
    names = [run["name"] for run in DEFAULT["runs"]]
    own = study(*names, controls=DEFAULT["controls"], noise=DEFAULT["noise"])
    own["datasets"] = DEFAULT["datasets"]
    own["escape"] = DEFAULT["escape"]
    own["runs"][0]["batch_sizes"] = [256]
    figures = complete_settings(own, SCHEMA)["figures"]
    assert figures["escape"] == {"figure_1": [32], "figure_6": [32, 8]}
    decay = {"before": "resnet20", "after": "resnet20-decayed", "without": "resnet20-constant"}
    assert figures["decay"] == decay | {"batch_size": 8}
    # The runs without the batch size that most have are left out, and children come last.
    measured = ["resnet20", "resnet18", "mobilenet_v3_small", "resnet20-decayed"]
    assert figures["alpha_by_network"]["runs"] == [*measured, "resnet20-constant"]
    assert figures["histograms"] == {
        "figure_3": "resnet20",
        "figure_4": "resnet18",
        "figure_5": "mobilenet_v3_small",
        "batch_size": 8,
    }
    assert figures["alpha_by_layer"]["right"] == ["mobilenet_v3_small"]
    tables = complete_settings(own, SCHEMA)["tables"]
    assert tables["table_1"]["runs"][-1] == DEFAULT["controls"][-1]["name"]
    assert (tables["table_2"]["runs"], tables["table_3"]["runs"]) == (names, names)
    assert tables["table_2"]["batch_sizes"] == [8, 32, 64, 256]
    assert tables["table_3"]["batch_sizes"] == [32, 64, 256]


@pytest.mark.parametrize("nothing", [False, None])
def test_what_is_false_is_left_out(nothing: bool | None) -> None:
    settings = complete_settings(
        {**DEFAULT, "escape": nothing, "sde": nothing, "tables": nothing}, SCHEMA
    )
    assert (settings["escape"], settings["sde"]) == (None, None)
    # The figures of the escapes go with them, though the settings name batch sizes for them.
    assert settings["figures"]["escape"] is None
    assert settings["figures"]["decay"] is not None
    assert set(settings["tables"].values()) == {None}
    # Those of the equation go where it stays, too.
    kept = complete_settings({**DEFAULT, "figures": {"theory": nothing}}, SCHEMA)["figures"]
    assert (kept["exit_axis"], kept["theory"]) == ({}, None)
    none = complete_settings({**DEFAULT, "figures": nothing}, SCHEMA)["figures"]
    assert set(none.values()) == {None}
    own = study("mlp", figures={"alpha_by_layer": nothing, "histograms": {"figure_4": "mlp"}})
    figures = complete_settings(own, SCHEMA)["figures"]
    assert figures["alpha_by_layer"] is None
    assert figures["histograms"] == {"figure_4": "mlp", "batch_size": 32}
    assert figures["alpha_by_network"] is not None


def test_a_study_has_tables_of_its_own() -> None:
    own = study(
        "mlp", tables={"table_1": False, "table_12": {"runs": ["mlp"], "batch_sizes": [32]}}
    )
    tables = complete_settings(own, SCHEMA)["tables"]
    assert tables["table_1"] is None
    assert tables["table_12"]["kind"] == "gaussian_stable"
    assert list(tables)[-1] == "table_12"
    own["tables"] = {"mine": {"runs": ["mlp"], "batch_sizes": [32]}}
    with pytest.raises(SettingsError, match=r'tables: "mine" is not .* table_1, table_2 and so on'):
        complete_settings(own, SCHEMA)


def test_figures_of_runs_without_a_common_batch_size_are_refused() -> None:
    own = study("mlp", "resnet18", figures={"alpha_by_network": {"runs": ["mlp", "resnet18"]}})
    own["runs"][0]["batch_sizes"] = [8]
    with pytest.raises(SettingsError, match=r"alpha_by_network: .* mlp, resnet18 share no batch"):
        complete_settings(own, SCHEMA)
