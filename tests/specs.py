"""Data sets as a study's settings describe them, with what holds where a test says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgnoise.data import sources
from sgnoise.data.datasets import Dataset
from sgnoise.settings import load_schema

SCHEMA = load_schema(Path(__file__).parents[1] / "schemas" / "config.schema.yaml")


def complete(spec: Mapping[str, Any]) -> dict[str, Any]:
    """``spec`` with the schema's defaults for its source, but nothing held back for the test."""
    known = SCHEMA["$defs"].get(f"source_{spec.get('source')}", {"properties": {}})
    defaults = {}
    for key, part in known["properties"].items():
        part = SCHEMA["$defs"].get(part.get("$ref", "").removeprefix("#/$defs/"), {}) | part
        if "default" in part:
            defaults[key] = 0.0 if key == "test_fraction" else part["default"]
    return {**defaults, **spec}


def prepare(spec: Mapping[str, Any], **options: Any) -> Dataset:
    """The data set of the completed ``spec``; see ``sgnoise.data.sources.prepare``."""
    return sources.prepare(complete(spec), **options)
