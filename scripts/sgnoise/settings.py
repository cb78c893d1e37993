"""Reading the settings of a study: defaults, and one clear message for what is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match, relevance

from sgnoise.laws import LAWS
from sgnoise.messages import nearest


class SettingsError(ValueError):
    """The settings of the study cannot be used; the message says where, why and what is allowed."""


def _path(parts: Iterable[str | int]) -> str:
    """``["runs", 0, "model"]`` as ``runs[0].model``."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".") or "the top level"


def _resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a ``$ref`` within the schema; keys beside it win."""
    if "$ref" not in schema:
        return schema
    found: Any = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return {**found, **{key: value for key, value in schema.items() if key != "$ref"}}


def _by_source(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The alternatives of ``schema`` that differ in the constant ``source``, by that."""
    branches = [_resolve(branch, root) for branch in schema.get("oneOf", [])]
    return {branch["properties"]["source"]["const"]: branch for branch in branches}


def _fill(settings: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> None:
    """Put the schema's defaults where ``settings`` says nothing."""
    schema = _resolve(schema, root)
    if "oneOf" in schema:
        schema = _by_source(schema, root)[settings["source"]]
    if isinstance(settings, dict):
        for key, part in schema.get("properties", {}).items():
            part = _resolve(part, root)
            if key not in settings and "default" in part:
                settings[key] = copy.deepcopy(part["default"])
            if key in settings:
                _fill(settings[key], part, root)
        other = schema.get("additionalProperties")
        if isinstance(other, dict):
            for key in settings.keys() - schema.get("properties", {}).keys():
                _fill(settings[key], other, root)
    elif isinstance(settings, list) and "items" in schema:
        for item in settings:
            _fill(item, schema["items"], root)


def _type_name(value: Any) -> str:
    names = {bool: "true or false", dict: "a mapping", list: "a list", str: "a string"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _explain(error: ValidationError, root: Mapping[str, Any]) -> str:
    """One sentence about an error of the schema ``root``: where, what is wrong, what is allowed."""
    where = _path(error.absolute_path)
    shown = json.dumps(error.instance, default=str)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    kind: Any = error.validator
    expected: Any = error.validator_value
    schema: Any = error.schema
    instance: Any = error.instance
    if kind == "additionalProperties":
        known = sorted(schema.get("properties", {}))
        unknown = sorted(set(instance) - set(known))[0]
        return (
            f"{where}: unknown key '{unknown}'{nearest(unknown, known)} "
            f"Allowed are: {', '.join(known)}."
        )
    if kind == "required":
        missing = next(key for key in expected if key not in instance)
        return f"{where}: the key '{missing}' is missing."
    if kind == "enum":
        hint = nearest(instance, map(str, expected)) if isinstance(instance, str) else "."
        return (
            f"{where}: {shown} is not allowed{hint} Allowed are: {', '.join(map(str, expected))}."
        )
    if kind == "type":
        wanted = " or ".join([expected] if isinstance(expected, str) else expected)
        return f"{where}: {shown} is {_type_name(instance)}; it must be of type {wanted}."
    if kind == "anyOf" and "enum" in expected[0]:
        known, other = expected[0]["enum"], expected[1]["description"]
        return (
            f"{where}: there is no {shown}{nearest(str(instance), known)} "
            f"Allowed are: {', '.join(known)}, {other}."
        )
    if kind == "anyOf":
        options = " or ".join(
            json.dumps(option["const"])
            if "const" in option
            else option.get("type", "another value")
            for option in expected
        )
        return f"{where}: {shown} is not allowed; it must be {options}."
    if kind == "pattern":
        allowed = schema.get("description", f"text that matches {expected}")
        return f"{where}: {shown} is not a valid name; allowed are {allowed}."
    if kind == "oneOf":
        sources = list(_by_source(schema, root))
        source = instance["source"]
        if source not in sources:
            return (
                f"{where}.source: there is no source '{source}'{nearest(str(source), sources)} "
                f"Allowed are: {', '.join(sources)}."
            )
        branch = sources.index(source)
        inner = [each for each in error.context or () if each.relative_schema_path[0] == branch]
        return f"{_explain(max(inner, key=relevance), root)} (The source is '{source}'.)"
    limits = {
        "minimum": "at least",
        "exclusiveMinimum": "greater than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    if kind in limits:
        return f"{where}: {shown} must be {limits[kind]} {expected}."
    if kind == "minItems":
        return f"{where}: {len(instance)} entries are too few; at least {expected} are needed."
    if kind == "uniqueItems":
        return f"{where}: {shown} names something twice."
    return f"{where}: {error.message}."


def _check_known(where: str, name: str, known: Iterable[str], what: str) -> None:
    known = list(known)
    if name not in known:
        raise SettingsError(
            f"{where}: there is no {what} '{name}'{nearest(name, known)} "
            f"Declared are: {', '.join(known)}."
        )


def _check_references(settings: Mapping[str, Any]) -> None:
    """Names that the settings use must be declared in the settings, once."""
    datasets = list(settings["datasets"])
    runs = [run["name"] for run in settings["runs"]]
    measured = runs + [control["name"] for control in settings["controls"]]
    for name in measured:
        if measured.count(name) > 1:
            raise SettingsError(
                f"runs, controls: the name '{name}' is used twice; names are folders."
            )

    epochs = {run["name"]: run["training"]["epochs"] for run in settings["runs"]}
    earlier: list[str] = []
    for index, run in enumerate(settings["runs"]):
        where = f"runs[{index}]"
        _check_known(f"{where}.dataset", run["dataset"], datasets, "data set")
        parent = run.get("start_from")
        if parent is not None:
            if parent not in earlier:
                _check_known(f"{where}.start_from", parent, runs, "run")
                raise SettingsError(
                    f"{where}.start_from: the run '{parent}' must stand before '{run['name']}' "
                    "in the list."
                )
            if epochs[parent] >= run["training"]["epochs"]:
                raise SettingsError(
                    f"{where}.training.epochs: {run['training']['epochs']} must be more than the "
                    f"{epochs[parent]} epochs of '{parent}', from which the run goes on."
                )
        earlier.append(run["name"])

    for index, name in enumerate(settings["escape"]["datasets"]):
        _check_known(f"escape.datasets[{index}]", name, datasets, "data set")
    low, high = settings["escape"]["target_iterations"]
    if low >= high:
        raise SettingsError(f"escape.target_iterations: {low} must be less than {high}.")

    for law in ("gaussian", "stable", "stable_shared_alpha"):
        if law not in settings["fits"]["laws"]:
            raise SettingsError(f"fits.laws: the tables need the law '{law}'.")
    for index, run in enumerate(settings["runs"]):
        if run["loss"] == "contrastive" and run["gradients"]["mode"] != "mini_batch":
            raise SettingsError(
                f"runs[{index}].gradients.mode: the contrastive loss is one of mini-batches, a "
                "sample has no gradient of its own; set mini_batch."
            )
        training = run["training"]
        if "stop" in training and training["evaluate_every"] != 1:
            raise SettingsError(
                f"runs[{index}].training.evaluate_every: 'stop' looks at the loss of every epoch; "
                "leave out evaluate_every."
            )
        if run["gradients"]["mode"] == "mini_batch" and len(run["batch_sizes"]) > 1:
            raise SettingsError(
                f"runs[{index}].batch_sizes: with gradients.mode mini_batch a dump holds the "
                f"gradients of one batch size; {len(run['batch_sizes'])} are given."
            )
    _check_shown(settings, runs, measured)


def _check_shown(settings: Mapping[str, Any], runs: list[str], measured: list[str]) -> None:
    """The runs and batch sizes that figures and tables show must exist."""
    figures = settings["figures"]
    for figure, batch_sizes in figures["escape"].items():
        for batch_size in batch_sizes:
            _check_batch_size(
                f"figures.escape.{figure}", batch_size, settings["escape"]["batch_sizes"]
            )
    noise_sizes = {run["name"]: run["batch_sizes"] for run in settings["runs"]}
    for figure in ("decay", "histograms", "alpha_by_network", "alpha_by_layer"):
        for key, value in figures[figure].items():
            if key == "batch_size":
                continue
            where = f"figures.{figure}.{key}"
            for name in [value] if isinstance(value, str) else value:
                _check_known(where, name, runs, "run")
                _check_batch_size(
                    f"figures.{figure}.batch_size",
                    figures[figure]["batch_size"],
                    noise_sizes[name],
                    f" for the run '{name}'",
                )
    for table, shown in settings["tables"].items():
        for name in shown["runs"]:
            _check_known(f"tables.{table}.runs", name, measured, "run or control")
            sizes = noise_sizes.get(name, settings["noise"]["batch_sizes"])
            if not set(sizes) & set(shown["batch_sizes"]):
                raise SettingsError(
                    f"tables.{table}.batch_sizes: none of them is declared for '{name}'; "
                    f"declared are: {', '.join(map(str, sizes))}."
                )


def _check_batch_size(where: str, batch_size: int, declared: list[int], whose: str = "") -> None:
    if batch_size not in declared:
        raise SettingsError(
            f"{where}: no batch size {batch_size} is declared{whose}; "
            f"declared are: {', '.join(map(str, declared))}."
        )


def load_schema(path: str | Path) -> dict[str, Any]:
    """The schema as a mapping, with the names of the laws that there are."""
    with open(path, encoding="utf-8") as stream:
        schema = yaml.safe_load(stream)
    schema["$defs"]["law"]["enum"] = list(LAWS)
    return schema


def complete_settings(settings: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` with the schema's defaults, checked.

    Each run has ``batch_sizes`` and ``gradients`` of its own: the study's where it names none.

    Args:
        settings: as read from the configuration files.
        schema: as ``load_schema`` returns it.

    Raises:
        SettingsError: a wrong key, type, value or reference; the message names the path of the key
            (``runs[0].model.name``), what is allowed and the nearest valid name.
    """
    error = best_match(Draft202012Validator(schema).iter_errors(settings))
    if error is not None:
        while error.parent is not None:  # name the alternatives, not why one of them does not fit
            error = error.parent
        raise SettingsError(_explain(error, schema))
    filled = copy.deepcopy(dict(settings))
    _fill(filled, schema, schema)
    for run in filled["runs"]:
        run.setdefault("batch_sizes", filled["noise"]["batch_sizes"])
        run["gradients"] = filled["gradients"] | run.get("gradients", {})
    _check_references(filled)
    return filled
