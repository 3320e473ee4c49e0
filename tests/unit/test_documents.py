"""What the documents say agrees with the code, and their links lead somewhere."""

import ast
import json
import re
from pathlib import Path

import pytest
import typer
import yaml

from deployments.client.cli import app as commands
from deployments.core.errors import ModelNotFound, ServiceError
from deployments.core.settings import Settings
from deployments.rest.application import create_app
from tests.documents import DOCUMENTS, GUIDE, ROOT, anchors, blocks, links, tables

LANGUAGES = {"sh", "console", "json", "python", "yaml", "text"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for link in links(document):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert target.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(target), link


def test_the_index_leads_to_every_page():
    pages = {path.name for path in GUIDE.glob("*.md")}
    assert {link.partition("#")[0] for link in links(GUIDE / "index.md")} == pages - {"index.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_of_code_say_what_they_are(document):
    for block in blocks(document):
        assert block.language in LANGUAGES, block.text
        if block.language == "json":
            json.loads(block.text)
        if block.language == "yaml":
            yaml.safe_load(block.text)


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def documented_settings():
    """The rows of the tables of settings, by name."""
    head = ["setting", "default", "allowed", "meaning"]
    rows = [row for table in tables(GUIDE / "settings.md") if table[0] == head for row in table[1:]]
    names = [row[0].strip("`") for row in rows]
    assert len(names) == len(set(names))
    return dict(zip(names, rows, strict=True))


def allowed(schema):
    """What a setting's JSON schema allows, in words; None if it takes more than numbers to say."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "boolean":
        return "0, 1"
    if schema["type"] not in ("integer", "number"):
        return None
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is None:
        return f"over {schema['exclusiveMinimum']}, up to {most}"
    return f"{least} or more" if most is None else f"{least} to {most}"


def test_every_setting_is_explained_as_it_is():
    schema = Settings.model_json_schema()
    rows = documented_settings()
    assert rows.keys() == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        _, default, values, meaning = rows[name.upper()]
        one = schema["properties"][name]
        one = one.get("anyOf", [one])[0]
        if "$ref" in one:
            one = schema["$defs"][one["$ref"].rpartition("/")[2]]
        if field.default is None:
            assert default == "none" or default.strip("`") in rows
        elif isinstance(field.default, str | Path):
            assert default == f"`{field.default}`"
        else:
            assert float(default) == field.default
        assert values == (allowed(one) or values) != ""
        assert meaning


def test_settings_in_the_documents_exist():
    """Also those in running text and examples."""
    known = {name.upper() for name in Settings.model_fields} | {"EMBEDDINGS_SERVICE_URL"}
    for document in DOCUMENTS:
        named = re.findall(r"\b(?:EMBEDDINGS?_[A-Z_]+|FAISS_INDEX_[A-Z_]+)\b", document.read_text())
        assert set(named) <= known, document


def test_every_route_has_an_example():
    page = (GUIDE / "api.md").read_text()
    typed = "\n".join(block.text for block in blocks(GUIDE / "api.md") if block.language == "sh")
    for path, methods in create_app(None, Settings()).openapi()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in page
        anything = re.sub(r"\\\{.*?\\\}", "[^/]+", re.escape(path))
        kinds = re.sub("(transcript|frame|clip)s$", "(transcripts|frames|clips)", anything)
        assert re.search(rf"localhost:8004{kinds}[?' \n]", typed), path


def test_every_error_is_explained():
    def kinds(root):
        for kind in root.__subclasses__():
            yield kind
            yield from kinds(kind)

    (table,) = [table for table in tables(GUIDE / "api.md") if table[0][0] == "status"]
    explained = {(int(row[0]), row[1].strip("`")): row[3] for row in table[1:]}
    # Those that only stop the start come to clients within the detail of a `deployment_failed`.
    inner = {"store_error", "store_mismatch", "legacy_folder", "model_error", "model_corrupt"}
    for kind in {ServiceError, *kinds(ServiceError)} - {ModelNotFound}:
        if kind.code not in inner | {"settings_error"}:
            repeat = explained[kind.status, kind.code]
            assert repeat.startswith("no" if kind.retry_after_s is None else "yes"), kind


def test_every_alert_is_explained():
    (group,) = yaml.safe_load((ROOT / "cluster/alerts.yml").read_text())["groups"]
    alerts = {rule["alert"]: rule["labels"]["severity"] for rule in group["rules"]}
    (table,) = [table for table in tables(GUIDE / "monitoring.md") if table[0][0] == "alert"]
    assert {row[0].strip("`"): row[1] for row in table[1:]} == alerts
    assert all(cell for row in table for cell in row)


def messages_of_the_code():
    """Every string of the package, with … for what is put into it."""
    found = []
    for path in (ROOT / "deployments").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [
                part.value if isinstance(part, ast.Constant) else "…"
                for part in parts
                if isinstance(part, ast.FormattedValue)
                or (isinstance(part, ast.Constant) and isinstance(part.value, str))
            ]
            found.append(re.sub(r"…+|\{\w+\}", "…", "".join(texts)))
    return "\n".join(found)


def test_messages_in_troubleshooting_are_those_of_the_code():
    known = messages_of_the_code()
    for block in blocks(GUIDE / "troubleshooting.md"):
        for part in block.text.strip().strip("…").split("…"):
            assert part.strip(" .:;()") in known, part


def test_files_and_names_that_contributors_are_led_to_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    top = {path.name for path in ROOT.iterdir()}
    paths = {each for each in re.findall(r"`([\w./*-]+)`", text) if each.partition("/")[0] in top}
    assert len(paths) > 30
    for path in paths:
        assert list(ROOT.glob(path)), path
    named = re.findall(r"`(\w+)`(?: and[^`]*`(\w+)`)? in\s+`([\w/.]+)`", text)
    assert len(named) >= 8
    for first, second, path in named:
        source = (ROOT / path).read_text()
        assert first in source, (first, path)
        assert second in source, (second, path)
    targets = re.findall(r"(?m)^([a-z-]+):.*##", (ROOT / "Makefile").read_text())
    assert {*re.findall(r"\bmake ([a-z-]+)", text)} <= {*targets}


def measured():
    """Of the benchmark's results: searches and segments a second, of the service and the design."""
    text = (ROOT / "tests/bench/RESULTS.md").read_text()
    pattern = r"(?m)^\| (search|ingest), (\d+) \w+[^|]*\| (service|baseline) \| ([\d.]+) "
    rows = re.findall(pattern, text)
    return {(measure, int(count), who): float(speed) for measure, count, who, speed in rows}


@pytest.mark.parametrize("document", [ROOT / "README.md", GUIDE / "measured.md"], ids=str)
def test_figures_are_those_of_the_results(document):
    found = measured()
    (table,) = [table for table in tables(document) if "that design" in table[0]]
    assert len(table) == 6
    for row in table[1:]:
        clients = re.search(r"(\d+) clients?", row[0])
        measure = ("search", int(clients[1])) if clients else ("ingest", 100)
        service, design = found[*measure, "service"], found[*measure, "baseline"]
        assert [float(row[1]), float(row[2])] == pytest.approx([service, design], abs=0.5)
        # Ratios are taken round by round, so they aren't those of the medians.
        assert float(row[3]) == pytest.approx(service / design, rel=0.03)
    results = re.findall(r"\b0\.\d{4}\b", (ROOT / "tests/eval/RESULTS.md").read_text())
    (table,) = [table for table in tables(document) if "hybrid" in table[0]]
    for row in table[1:]:
        for figure in row[1:]:
            assert any(abs(float(figure) - float(each)) <= 0.00051 for each in results), row


def test_every_command_and_every_option_of_backfill_is_explained():
    found = typer.main.get_group(commands).commands
    page = (GUIDE / "clients.md").read_text()
    assert [name for name in found if not re.search(rf"`{name}[ `]", page)] == []
    page = (GUIDE / "backfill.md").read_text()
    options = [name for each in found["backfill"].params for name in each.opts if "--" in name]
    assert len(options) > 10
    assert [name for name in options if f"`{name}" not in page] == []
