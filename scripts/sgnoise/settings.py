"""Reading the settings of a study: defaults, and one clear message for what is wrong."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match, relevance

from sgnoise import shown
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


def resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a ``$ref`` within the schema; keys beside it win."""
    if "$ref" not in schema:
        return schema
    found: Any = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return {**found, **{key: value for key, value in schema.items() if key != "$ref"}}


def _by_source(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The alternatives of ``schema`` that differ in the constant ``source``, by that."""
    branches = [resolve(branch, root) for branch in schema.get("oneOf", [])]
    return {branch["properties"]["source"]["const"]: branch for branch in branches}


def _fill(settings: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> None:
    """Put the schema's defaults where ``settings`` says nothing."""
    schema = resolve(schema, root)
    if "oneOf" in schema:
        schema = _by_source(schema, root)[settings["source"]]
    if isinstance(settings, dict):
        for key, part in schema.get("properties", {}).items():
            part = resolve(part, root)
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

    if settings["escape"] is not None:
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


def _check_shown(settings: Mapping[str, Any]) -> None:
    """The runs and batch sizes that figures and tables show must exist."""
    noise_sizes = {run["name"]: run["batch_sizes"] for run in settings["runs"]}
    measured = [*noise_sizes, *(control["name"] for control in settings["controls"])]
    for figure, content in settings["figures"].items():
        for key, value in (content or {}).items():
            where = f"figures.{figure}.{key}"
            if figure == "escape":
                for batch_size in value:
                    _check_batch_size(where, batch_size, settings["escape"]["batch_sizes"])
            elif key != "batch_size":
                for name in [value] if isinstance(value, str) else value:
                    _check_known(where, name, noise_sizes, "run")
                    _check_batch_size(
                        f"figures.{figure}.batch_size",
                        content["batch_size"],
                        noise_sizes[name],
                        f" for the run '{name}'",
                    )
    for table, content in settings["tables"].items():
        if content is None:
            continue
        for name in content["runs"]:
            _check_known(f"tables.{table}.runs", name, measured, "run or control")
            sizes = noise_sizes.get(name, settings["noise"]["batch_sizes"])
            if not set(sizes) & set(content["batch_sizes"]):
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


def _leave_out(settings: dict[str, Any], name: str, where: str = "") -> None:
    """Let null alone stand for a section that is left out."""
    if settings.get(name) is True:
        raise SettingsError(
            f"{where}{name}: true says nothing; give the section, false to leave it out, or no "
            f"'{name}' at all for what holds by default."
        )
    if settings.get(name) is False:
        settings[name] = None


def _complete_shown(settings: dict[str, Any]) -> None:
    """What the figures and tables show where the settings do not say."""
    for kind, automatic in (("figures", shown.FIGURES), ("tables", shown.TABLES)):
        # The section left out is each of its figures or tables left out.
        given: dict[str, Any] = (
            dict.fromkeys(automatic) if settings[kind] is None else settings[kind]
        )
        settings[kind] = {}
        for name in dict.fromkeys([*automatic, *given]):
            content = given[name] if name in given else automatic[name](settings)
            if content is not None:
                content = {key: value for key, value in content.items() if value is not None}
                if kind == "tables":
                    content.setdefault("kind", shown.table_kind(name))
            settings[kind][name] = content
    if settings["escape"] is None:
        settings["figures"]["escape"] = None
    for figure, content in settings["figures"].items():
        # Figures 1 and 6 are of the batch sizes of escapes, not of one at which runs are measured.
        if figure != "escape" and content and "batch_size" not in content:
            names = [
                name
                for value in content.values()
                for name in ([value] if isinstance(value, str) else value)
            ]
            content["batch_size"] = shown.shared_batch_size(settings, names)
            if content["batch_size"] is None:
                raise SettingsError(
                    f"figures.{figure}: the runs {', '.join(names)} share no batch size; give them "
                    "one by their batch_sizes."
                )


# The loader in C takes a tenth of the time.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_duplicates(path: str | Path) -> None:
    """Refuse a configuration file that gives a key twice: YAML keeps the last and says nothing.

    Raises:
        SettingsError: the file, the key and both lines.
    """
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=_LOADER)
    except yaml.YAMLError:
        return  # JSON with tabs, which Snakemake has read
    waiting: list[tuple[list[str | int], yaml.Node | None]] = [([], root)]
    seen: set[int] = set()
    while waiting:
        where, node = waiting.pop()
        if node is None or id(node) in seen:  # an anchor and its aliases are one node
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [([*where, index], part) for index, part in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, part in node.value:
                waiting.append(([*where, str(key.value)], part))
                if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                    continue
                line = key.start_mark.line + 1
                if (key.tag, key.value) in lines:
                    first = lines[key.tag, key.value]
                    raise SettingsError(
                        f"{path}: {_path(where)}: the key '{key.value}' stands twice, in lines "
                        f"{first} and {line}; remove one of them."
                    )
                lines[key.tag, key.value] = line


_Leaf = Callable[[Any, set[str]], Any]


def _mapped(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], leaf: _Leaf) -> Any:
    """``value`` with its keys in the order of the schema, and each number or text as ``leaf`` says.

    Keys that the schema leaves open follow in alphabetical order. ``leaf`` is given a value and the
    types that it may have.
    """
    schema = resolve(schema, root)
    if "oneOf" in schema and isinstance(value, dict):
        schema = _by_source(schema, root).get(str(value.get("source")), {})
    options = [schema, *(resolve(option, root) for option in schema.get("anyOf", []))]
    if isinstance(value, dict):
        known = schema.get("properties", {})
        other = schema.get("additionalProperties")
        rest = sorted(value.keys() - known.keys(), key=str)
        return {
            key: _mapped(
                value[key], known.get(key, other if isinstance(other, dict) else {}), root, leaf
            )
            for key in (*(key for key in known if key in value), *rest)
        }
    if isinstance(value, list):
        items: Mapping[str, Any] = next(
            (option["items"] for option in options if "items" in option), {}
        )
        return [_mapped(item, items, root, leaf) for item in value]
    types: set[str] = set()
    for option in options:
        found = option.get("type", [])
        types |= {found} if isinstance(found, str) else set(found)
    return leaf(value, types)


def _as_number(value: Any, types: set[str]) -> Any:
    """A text that YAML 1.1 takes for no number, as ``1e-3``, where a number is wanted."""
    number = "number" in types and "string" not in types
    if number and isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value


def _as_declared(value: Any, types: set[str]) -> Any:
    """A number as the schema has it: 1.0 where it may be any number, 1 where it must be whole."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and "number" in types and "integer" not in types:
        return float(value)
    if (
        isinstance(value, float)
        and value.is_integer()
        and types & {"number", "integer"} == {"integer"}
    ):
        return int(value)
    return value


def load_schema(path: str | Path) -> dict[str, Any]:
    """The schema as a mapping, with the names of the laws that there are."""
    with open(path, encoding="utf-8") as stream:
        schema = yaml.load(stream, Loader=_LOADER)
    schema["$defs"]["law"]["enum"] = list(LAWS)
    return schema


def complete_settings(settings: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` with the schema's defaults, checked, in one form.

    That form does not depend on the order of keys, on whether a default is written out, or on
    whether a number is written 1 or 1.0. Each run has ``batch_sizes`` and ``gradients`` of its own:
    the study's where it names none. A section, figure or table that the study
    leaves out, or has nothing to show in, is None; see ``sgnoise.shown``.

    Args:
        settings: as read from the configuration files.
        schema: as ``load_schema`` returns it.

    Raises:
        SettingsError: a wrong key, type, value or reference; the message names the path of the key
            (``runs[0].model.name``), what is allowed and the nearest valid name.
    """
    settings = _mapped(dict(settings), schema, schema, _as_number)
    error = best_match(Draft202012Validator(schema).iter_errors(settings))
    if error is not None:
        while error.parent is not None:  # name the alternatives, not why one of them does not fit
            error = error.parent
        raise SettingsError(_explain(error, schema))
    filled: dict[str, Any] = copy.deepcopy(dict(settings))
    _fill(filled, schema, schema)
    for section in ("escape", "sde", "figures", "tables"):
        _leave_out(filled, section)
    for section in ("figures", "tables"):
        for name in list(filled[section] or {}):
            _leave_out(filled[section], name, f"{section}.")
    for run in filled["runs"]:
        run.setdefault("batch_sizes", list(filled["noise"]["batch_sizes"]))
        run["gradients"] = filled["gradients"] | run.get("gradients", {})
    _check_references(filled)
    _complete_shown(filled)
    _check_shown(filled)
    return _mapped(filled, schema, schema, _as_declared)
