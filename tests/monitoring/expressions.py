"""The PromQL in cluster/: of the dashboard's panels and of the alerts."""

import json
import re
from pathlib import Path

import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"
DASHBOARD = CLUSTER / "grafana" / "dashboards" / "embeddings.json"
ALERTS = CLUSTER / "alerts.yml"

_METRIC = re.compile(r"\bray_\w+")
_SELECTOR = re.compile(r"\b(ray_\w+)\{([^}]*)\}")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")


def panels() -> list[dict]:
    """The dashboard's panels, without its rows."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if "targets" in panel]


def dashboard_expressions() -> dict[str, str]:
    """Each panel's queries by its title and their letter."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels()
        for target in panel["targets"]
    }


def alert_expressions() -> dict[str, str]:
    """Each alert's expression by its name."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def metrics_in(expression: str) -> set[str]:
    """The names of the metrics that an expression reads."""
    return set(_METRIC.findall(expression))


def labels_in(expression: str) -> dict[str, set[str]]:
    """The labels by which an expression selects from each metric."""
    found: dict[str, set[str]] = {}
    for metric, selector in _SELECTOR.findall(expression):
        found.setdefault(metric, set()).update(_LABEL.findall(selector))
    return found
