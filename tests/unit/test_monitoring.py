"""What cluster/ asks of Prometheus is what the service exports."""

import re
from collections import Counter

import pytest
import yaml
from ray.util import metrics as ray_metrics

from deployments import metrics
from tests.monitoring.expressions import (
    CLUSTER,
    alert_expressions,
    dashboard_expressions,
    labels_in,
    metrics_in,
    panels,
)

EXPRESSIONS = dashboard_expressions() | alert_expressions()
HISTOGRAM_SUFFIXES = ("_bucket", "_count", "_sum")


@pytest.fixture(scope="module")
def exported():
    """The labels of each series that the service's metrics make, as Ray names them."""
    found = {}

    def noting(kind, suffixes):
        class Noting(kind):
            def __init__(self, name, *arguments, **options):
                super().__init__(name, *arguments, **options)
                for suffix in suffixes:
                    labels = {*self.info["tag_keys"]} | ({"le"} if suffix == "_bucket" else set())
                    found[f"ray_{name}{suffix}"] = labels

        return Noting

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "Gauge", noting(ray_metrics.Gauge, ("",)))
        patch.setattr(metrics, "Counter", noting(ray_metrics.Counter, ("",)))
        patch.setattr(metrics, "Histogram", noting(ray_metrics.Histogram, HISTOGRAM_SUFFIXES))
        for each in (metrics.IngressMetrics, metrics.EncoderMetrics, metrics.IndexMetrics):
            each()
    return found


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_reads_what_there_is(exported, name):
    expression = EXPRESSIONS[name]
    own = {each for each in metrics_in(expression) if each.startswith("ray_embeddings_")}
    assert metrics_in(expression)
    assert own <= exported.keys()
    for metric, labels in labels_in(expression).items():
        if metric in exported:
            assert labels <= exported[metric]
    grouped = {
        label.strip()
        for each in re.findall(r"by \(([^)]*)\)", expression)
        for label in each.split(",")
    }
    known = set().union({"application", "deployment"}, *(exported[each] for each in own))
    assert grouped <= known


def test_every_metric_is_looked_at(exported):
    looked_at = set().union(*map(metrics_in, EXPRESSIONS.values()))
    histograms = {name.removesuffix("_bucket") for name in exported if name.endswith("_bucket")}
    plain = {name for name in exported if not name.endswith(HISTOGRAM_SUFFIXES)}
    # What tokenising takes is for benchmarks.
    assert plain - looked_at == {"ray_embeddings_encoder_tokenize_seconds_total"}
    assert {f"{name}_bucket" for name in histograms} <= looked_at


def test_the_guide_lists_every_metric(exported):
    page = (CLUSTER.parent / "deployments/web/guide/monitoring.md").read_text()
    section = page[page.index("## Metrics") : page.index("## Logs")]
    for name in exported:
        plain = name.removeprefix("ray_embeddings_")
        for suffix in HISTOGRAM_SUFFIXES:
            plain = plain.removesuffix(suffix)
        short = plain.removeprefix("encoder_").removesuffix("_total")
        assert f"`{plain}`" in section or f"`{short}`" in section, name


def test_every_alert_says_how_bad_it_is_and_what_to_do():
    (group,) = yaml.safe_load((CLUSTER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description"} == rule["annotations"].keys()


def test_the_panels_have_room_titles_and_a_data_source():
    taken = Counter()
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        taken.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
        assert panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert set(taken.values()) == {1}
    identifiers = Counter(panel["id"] for panel in panels())
    assert set(identifiers.values()) == {1}
    assert set(Counter(panel["title"] for panel in panels()).values()) == {1}


def test_the_provisioned_data_source_is_the_dashboard_s_default():
    folder = CLUSTER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert (source["uid"], source["type"]) == ("prometheus", "prometheus")
    (provider,) = yaml.safe_load((folder / "dashboards" / "embeddings.yaml").read_text())[
        "providers"
    ]
    assert provider["type"] == "file"
