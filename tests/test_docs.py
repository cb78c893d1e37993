"""Pages that are made from the code are up to date."""

from __future__ import annotations

from pathlib import Path

import list_columns
import list_settings
from sgnoise import store
from sgnoise.columns import FILES

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_columns_is_up_to_date() -> None:
    # python scripts/list_columns.py > docs/columns.md
    assert (DOCS / "columns.md").read_text("utf-8") == list_columns.page()


def test_the_page_of_settings_is_up_to_date() -> None:
    # python scripts/list_settings.py > docs/settings.md
    assert (DOCS / "settings.md").read_text("utf-8") == list_settings.page()


def test_every_setting_says_what_it_is() -> None:
    rows = [line for line in list_settings.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if row.endswith("|  |")] == []


def test_tables_of_parameters_start_with_the_keys() -> None:
    for path in ("runs/{run}/gradients.parquet", "runs/{run}/fits/b{batch_size}.parquet"):
        columns = [column.name for column in FILES[path].columns]
        assert tuple(columns[: len(store.PARAMETER_COLUMNS)]) == store.PARAMETER_COLUMNS
        assert len(set(columns)) == len(columns)


def test_every_column_says_what_it_is() -> None:
    for file in FILES.values():
        for column in file.columns:
            assert column.meaning.endswith("."), column
            assert "|" not in column.meaning
