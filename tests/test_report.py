"""The report page and its captions."""

from __future__ import annotations

import base64
import struct
import zlib
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import docutils.core  # type: ignore[import-untyped]
import pandas as pd
import pytest
import yaml
from jinja2 import UndefinedError

import make_report
from sgnoise.settings import complete_settings, load_schema

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "report"
SCHEMA = load_schema(ROOT / "schemas" / "config.schema.yaml")
CONFIG = complete_settings(yaml.safe_load((ROOT / "config.yaml").read_text("utf-8")), SCHEMA)
FIGURE_CAPTIONS = [REPORT / f"figure_{number}.rst" for number in range(1, 10)]
TITLED = [
    *FIGURE_CAPTIONS,
    *(REPORT / f"{name}.rst" for name in ("theory", "table", "claims", "theorems")),
]
VOID = {"meta", "img", "br", "link", "hr"}


def make_png(path: Path, shade: int) -> bytes:
    """A grey image of 4 by 3 pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    rows = b"".join(b"\0" + bytes([shade] * 4) for _ in range(3))
    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 3, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    path.write_bytes(content)
    return content


def make_claims(path: Path) -> pd.DataFrame:
    claims = pd.DataFrame(
        [
            {
                "claim": f"claim number {number}",
                "source": f"Table {number}",
                "statement": "SαS fits better than Gauss & <b>everything</b> else",
                "paper_value": "" if verdict == "partly" else "at least 96.6 %",
                "quantity": "share of parameters, median over cases",
                "measured_value": value,
                "low": value - 0.1,
                "high": value + 0.1,
                "interval": "smallest and largest over networks",
                "rule": "above one half: reproduced",
                "verdict": verdict,
                "details": "Holds in 3 of 4 cases.",
            }
            for number, (verdict, value) in enumerate(
                [
                    ("reproduced", 0.98765),
                    ("partly", 12345.0),
                    ("not reproduced", 0.0012344),
                    ("not tested here", float("nan")),
                    ("reproduced", 2.0),
                ],
                start=1,
            )
        ]
    )
    claims.to_csv(path, index=False)
    return claims


TABLE = """\
| Model | Data | SαS wins |
| --- | --- | --- |
| mlp | digits | 96.6 % [95.7, 97.4] |
| a\\|b | digits | 0.0123 ± 0.0004 |

Sum of squared errors, in {number}.
"""


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    """Arguments of ``make_report`` on made-up results."""
    figures = [tmp_path / f"figure_{number}.png" for number in range(1, 10)]
    for number, path in enumerate(figures):
        make_png(path, shade=20 * number)
    make_png(tmp_path / "theory.png", shade=200)
    tables = [tmp_path / f"table_{number}.md" for number in range(1, 4)]
    for number, path in enumerate(tables, start=1):
        path.write_text(TABLE.format(number=number), encoding="utf-8")
    make_claims(tmp_path / "claims.csv")
    theorems = pd.DataFrame(
        {
            "item": ["Theorem 4.1", "Corollary 4.4"],
            "simulated_value": [1234.5678, 3.0],
            "verdict": ["not reproduced", "holds for alpha < 1"],
        }
    )
    theorems.to_csv(tmp_path / "theorems.csv", index=False)
    return {
        "study": CONFIG["study"],
        "config": CONFIG,
        "figures": [
            *({"title": f"Figure {number}", "chapter": "figures"} for number in range(1, 10)),
            {"title": "Theory", "chapter": "theory"},
        ],
        "figure_paths": [*map(str, figures), str(tmp_path / "theory.png")],
        "figure_captions": [*map(str, FIGURE_CAPTIONS), str(REPORT / "theory.rst")],
        "tables": [1, 2, 3],
        "table_paths": [str(path) for path in tables],
        "table_caption": str(REPORT / "table.rst"),
        "claims_path": str(tmp_path / "claims.csv"),
        "claims_caption": str(REPORT / "claims.rst"),
        "theorems_path": str(tmp_path / "theorems.csv"),
        "theorems_caption": str(REPORT / "theorems.rst"),
        "workflow_caption": str(REPORT / "workflow.rst"),
        "template_path": str(REPORT / "page.html.j2"),
        "style_path": str(REPORT / "page.css"),
        "report_path": str(tmp_path / "report.html"),
    }


class Page(HTMLParser):
    """The elements of a page; fails on one that is not closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.extend(data.split())

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(inputs: dict[str, Any]) -> Page:
    make_report.make_report(**inputs)
    return Page(Path(inputs["report_path"]).read_text(encoding="utf-8"))


# --- The page ---


def test_all_figures_are_inside(page: Page, inputs: dict[str, Any]) -> None:
    images = page.all("img")
    assert len(images) == 10
    assert images[-1]["alt"].startswith("Theory: ")
    for image, path in zip(images, inputs["figure_paths"], strict=True):
        kind, _, content = image["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content) == Path(path).read_bytes()
        assert (image["width"], image["height"]) == ("4", "3")
    for number, image in enumerate(images[:-1], start=1):
        assert image["alt"].startswith(f"Figure {number}: ")
        title = make_report.read_caption(str(FIGURE_CAPTIONS[number - 1]), CONFIG).title
        assert f"Figure {number}. {title}" in page.text


def test_all_claims_are_shown(page: Page, inputs: dict[str, Any]) -> None:
    claims = pd.read_csv(inputs["claims_path"], keep_default_na=False)
    for claim in claims.to_dict("records"):
        for name in ("claim", "source", "statement", "paper_value", "quantity", "rule", "details"):
            assert str(claim[name]) in page.text
    classes = Counter(span["class"] for span in page.all("span") if "verdict" in span["class"])
    # Each class once more in the tally; "open" is also that of the theory's free verdict.
    assert classes == {
        "verdict yes": 3,
        "verdict partly": 2,
        "verdict no": 3,
        "verdict open": 3,
    }
    assert "reproduced 2 · partly 1 · not reproduced 1 · not tested here 1" in page.text
    assert "0.9877 [0.8877, 1.088]" in page.text
    assert "0.001234 [-0.09877, 0.1012]" in page.text
    assert "no number" in page.text
    assert "nan" not in page.text.lower().split()


def test_all_tables_are_shown(page: Page) -> None:
    for number in (1, 2, 3):
        assert f"Table {number}." in page.text
        assert f"Sum of squared errors, in {number}." in page.text
    assert page.text.count("96.6 % [95.7, 97.4]") == 3
    assert page.text.count("a|b") == 3
    for text in ("simulated value", "Theorem 4.1", "1235", "holds for alpha < 1"):
        assert text in page.text
    numbers = [cell for cell in page.all("td") if cell.get("class") == "number"]
    assert len(numbers) == 3 * 2 + 2


def test_page_stands_alone(page: Page, inputs: dict[str, Any]) -> None:
    identifiers = [values["id"] for _, values in page.elements if "id" in values]
    assert len(set(identifiers)) == len(identifiers)
    links = [values["href"] for _, values in page.elements if "href" in values]
    assert len(links) == 5 + 9 + 3
    assert {link.removeprefix("#") for link in links} <= set(identifiers)
    assert all(values["src"].startswith("data:") for _, values in page.elements if "src" in values)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    style = Path(inputs["style_path"]).read_text(encoding="utf-8")
    assert "url(" not in style
    assert "@import" not in style
    text = Path(inputs["report_path"]).read_text(encoding="utf-8")
    assert style in text
    assert "http" not in text
    assert text.startswith("<!DOCTYPE html>")


def test_a_study_of_one_network_has_a_report_of_one_network(inputs: dict[str, Any]) -> None:
    own = {
        "study": "own",
        "datasets": {"digits": CONFIG["datasets"]["digits"]},
        "runs": [CONFIG["runs"][0]],
    }
    shown = [3, 5, 7, 8]
    inputs |= {
        "config": complete_settings(own, SCHEMA),
        "figures": [{"title": f"Figure {number}", "chapter": "figures"} for number in shown],
        "figure_paths": [inputs["figure_paths"][number - 1] for number in shown],
        "figure_captions": [inputs["figure_captions"][number - 1] for number in shown],
        "tables": [1, 3],
        "table_paths": [inputs["table_paths"][0], inputs["table_paths"][2]],
        "theorems_path": None,
    }
    make_report.make_report(**inputs)
    page = Page(Path(inputs["report_path"]).read_text(encoding="utf-8"))
    titles = [image["alt"].partition(":")[0] for image in page.all("img")]
    assert titles == [f"Figure {number}" for number in shown]
    assert "Table 3." in page.text
    assert "Table 2." not in page.text
    assert "escapes from minima" not in page.text
    links = {link["href"].removeprefix("#") for link in page.all("a")}
    assert links == {"claims", "figures", "tables", "table-1", "table-3", "provenance"} | {
        f"figure-{number}" for number in shown
    }


def test_text_is_escaped(inputs: dict[str, Any]) -> None:
    inputs["study"] = "<script>alert(1)</script>"
    make_report.make_report(**inputs)
    text = Path(inputs["report_path"]).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<b>everything" not in text


def test_same_results_same_page(inputs: dict[str, Any], tmp_path: Path) -> None:
    make_report.make_report(**inputs)
    again = tmp_path / "again.html"
    make_report.make_report(**{**inputs, "report_path": str(again)})
    assert again.read_bytes() == Path(inputs["report_path"]).read_bytes()


def test_settings_and_software_are_shown(page: Page) -> None:
    for text in (f"seed: {CONFIG['seed']}", CONFIG["runs"][-1]["name"], "pyarrow", "read_schema"):
        assert text in page.text
    assert (
        f"runs/{CONFIG['runs'][0]['name']}/fits/b{CONFIG['noise']['batch_sizes'][0]}" in page.text
    )


def test_wrong_inputs_are_named(inputs: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "figure_4.png").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match=r"figure_4\.png: not a PNG"):
        make_report.make_report(**inputs)
    make_png(tmp_path / "figure_4.png", 1)
    (tmp_path / "table_2.md").write_text("| a | b |\n| --- | --- |\n| 1 |\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"table_2\.md: not a table"):
        make_report.make_report(**inputs)
    (tmp_path / "table_2.md").write_text(TABLE, encoding="utf-8")
    make_claims(tmp_path / "claims.csv").drop(columns="rule").to_csv(
        tmp_path / "claims.csv", index=False
    )
    with pytest.raises(ValueError, match=r"claims\.csv: lacks the columns \['rule'\]"):
        make_report.make_report(**inputs)
    assert not Path(inputs["report_path"]).exists()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.123456", "0.1235"),
        ("12345.678", "1.235e+04"),
        ("4000", "4000"),
        ("nan", "–"),
        ("", ""),
        ("Theorem 4.1", "Theorem 4.1"),
        ("1e-30", "1e-30"),
    ],
)
def test_shown_number(text: str, shown: str) -> None:
    assert make_report.shown_number(text) == shown


# --- The captions ---


def caption_of(path: Path, config: dict[str, Any], number: int = 1) -> make_report.Caption:
    return make_report.read_caption(str(path), config, study="embedded", number=number)


@pytest.mark.parametrize(
    ("path", "number"),
    [(path, 1) for path in (*TITLED, REPORT / "workflow.rst")]
    + [(REPORT / "table.rst", number) for number in (2, 3)],
    ids=lambda value: getattr(value, "stem", None),
)
def test_captions_are_plain_text_for_snakemake_too(path: Path, number: int) -> None:
    paragraphs = make_report.read_paragraphs(str(path), CONFIG, study="x", number=str(number))
    # As reStructuredText: no warning, and nothing read as markup.
    document = docutils.core.publish_doctree(
        "\n\n".join(paragraphs), settings_overrides={"halt_level": 2, "report_level": 2}
    )
    assert [node.astext() for node in document] == paragraphs
    assert {node.tagname for node in document.findall()} == {"document", "paragraph", "#text"}


@pytest.mark.parametrize("path", TITLED, ids=lambda path: path.stem)
def test_captions_have_a_title_and_text(path: Path) -> None:
    caption = caption_of(path, CONFIG)
    assert len(caption.title) < 100
    assert not caption.title.endswith(".")
    assert caption.paragraphs
    assert all(paragraph.endswith(".") for paragraph in caption.paragraphs)


@pytest.mark.parametrize(
    ("number", "section", "key", "paper"),
    [
        (2, "decay", "before", "resnet110"),
        (3, "histograms", "figure_3", "resnet50"),
        (4, "histograms", "figure_4", "resnet18"),
        (5, "histograms", "figure_5", "resnet34"),
    ],
)
def test_captions_say_where_the_paper_has_another_network(
    number: int, section: str, key: str, paper: str
) -> None:
    shown = CONFIG["figures"][section][key]
    for model, stands_in in ((paper, False), ("mlp", True)):
        runs = [
            {**run, "model": {"name": model}} if run["name"] == shown else run
            for run in CONFIG["runs"]
        ]
        caption = caption_of(REPORT / f"figure_{number}.rst", {**CONFIG, "runs": runs})
        assert ("this study" in caption.paragraphs[-1]) == stands_in


def test_figure_7_says_how_many_networks_it_has() -> None:
    for count in (4, 5):
        shown = {"runs": [f"run{number}" for number in range(count)], "batch_size": 32}
        config = {**CONFIG, "figures": {**CONFIG["figures"], "alpha_by_network": shown}}
        last = caption_of(REPORT / "figure_7.rst", config).paragraphs[-1]
        assert ("has 4 networks in their place" in last) == (count == 4)


def test_table_captions_differ() -> None:
    captions = [caption_of(REPORT / "table.rst", CONFIG, number) for number in (1, 2, 3)]
    assert len({" ".join(caption.paragraphs) for caption in captions}) == 3
    assert captions[0].title == captions[2].title != captions[1].title


def test_a_caption_that_asks_for_an_unknown_setting_fails() -> None:
    with pytest.raises(UndefinedError, match="histograms"):
        caption_of(REPORT / "figure_3.rst", {**CONFIG, "figures": {}})
