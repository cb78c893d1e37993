"""Print ``docs/settings.md``: every key that a study may set.

Run: ``python scripts/list_settings.py > docs/settings.md`` beside the Snakefile.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sgnoise import settings

FOLDER = Path(__file__).parents[1]

_HEAD = """# Settings

Every key of a study's file: where it stands, its type, what holds if it is left out, what is
allowed and what it means. `name[]` is each entry of a list, `*` any name of your own.

This page is made by `python scripts/list_settings.py` from `schemas/config.schema.yaml`.
"""

_LIMITS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "a multiple of {}",
    "minItems": "{} or more",
    "maxItems": "{} or fewer",
}
_TYPES = {"object": "mapping", "array": "list", "string": "text", "boolean": "true or false"}

Schema = Mapping[str, Any]


def page() -> str:
    """The page, in Markdown."""
    schema = settings.load_schema(FOLDER / "schemas" / "config.schema.yaml")
    parts = [_HEAD]
    plain: list[str] = []
    for key, part in schema["properties"].items():
        rows = list(_rows(key, part, schema, required=key in schema["required"]))
        if len(rows) == 1:
            plain += rows
        else:
            parts.append(_table(f"`{key}`", rows))
    parts.insert(1, _table("The study", plain))
    sources = schema["$defs"]["dataset"]["oneOf"]
    for branch in sources:
        known = settings.resolve(branch, schema)
        name = known["properties"]["source"]["const"]
        rows = [
            row
            for key, part in known["properties"].items()
            if key != "source"
            for row in _rows(
                f"datasets.*.{key}", part, schema, required=key in known.get("required", [])
            )
        ]
        parts.append(_table(f"Data sets with `source: {name}`", rows, known["description"]))
    return "\n".join(parts)


def _table(title: str, rows: list[str], about: str = "") -> str:
    lines = [f"## {title}", ""]
    lines += [about, ""] if about else []
    if rows:
        lines += ["| Key | Type | Default | Allowed | Meaning |", "| --- | --- | --- | --- | --- |"]
        lines += [*rows, ""]
    return "\n".join(lines)


def _rows(path: str, part: Schema, root: Schema, *, required: bool) -> Iterator[str]:
    """The row of a key, and those of the keys below it."""
    # What is said of all names is what is allowed, not what this one means.
    is_name = part.get("$ref") == "#/$defs/name"
    meaning = part.get("description", "") if is_name else None
    part = settings.resolve(part, root)
    default = "needed" if required else _default(part)
    cells = [f"`{path}`", _type(part, root), default, _allowed(part, root)]
    cells.append(" ".join((part.get("description", "") if meaning is None else meaning).split()))
    yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield from _rows_below(path, part, root)


def _rows_below(path: str, part: Schema, root: Schema) -> Iterator[str]:
    for key, below in part.get("properties", {}).items():
        yield from _rows(f"{path}.{key}", below, root, required=key in part.get("required", []))
    for path_below, key in ((f"{path}[]", "items"), (f"{path}.*", "additionalProperties")):
        below = part.get(key)
        if isinstance(below, Mapping):
            yield from _rows_below(path_below, settings.resolve(below, root), root)


def _default(part: Schema) -> str:
    return f"`{json.dumps(part['default'], ensure_ascii=False)}`" if "default" in part else ""


def _type(part: Schema, root: Schema) -> str:
    if "enum" in part:
        return "name"
    if "anyOf" in part:
        return " or ".join(dict.fromkeys(_type(each, root) for each in part["anyOf"]))
    if "const" in part:
        return f"`{part['const']}`"
    names = part.get("type", "mapping" if "properties" in part else "")
    names = [names] if isinstance(names, str) else names
    text = " or ".join(_TYPES.get(name, name) for name in names)
    if "items" in part:
        text += f" of {_type(settings.resolve(part['items'], root), root)}"
    return text


def _allowed(part: Schema, root: Schema) -> str:
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if "anyOf" in part:
        options = (settings.resolve(each, root) for each in part["anyOf"])
        return "; ".join(
            filter(None, (each.get("description") or _allowed(each, root) for each in options))
        )
    words = [text.format(part[key]) for key, text in _LIMITS.items() if key in part]
    if part.get("uniqueItems"):
        words.append("no two alike")
    if "pattern" in part:
        is_name = part["pattern"] == root["$defs"]["name"]["pattern"]
        words.append(root["$defs"]["name"]["description"] if is_name else f"`{part['pattern']}`")
    if "items" in part:
        each = _allowed(settings.resolve(part["items"], root), root)
        words += [f"each {each}"] if each else []
    return ", ".join(words)


if __name__ == "__main__":
    print(page(), end="")
