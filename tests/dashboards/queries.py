"""The queries of dashboards and alerts, and the metrics that they name."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARDS = DEPLOY / "grafana"
RUNBOOK = DEPLOY.parent / "docs" / "RUNBOOK.md"

_SELECTOR = re.compile(r"\b((?:skylb|process)_\w+|up)\b(\{[^}]*\})?")
_SUFFIX = re.compile(r"_(bucket|sum|count|total|info)$")


@dataclass(frozen=True)
class Query:
    """One query, with where it stands."""

    place: str
    expr: str

    @property
    def selectors(self) -> list[str]:
        """Every series that it reads, as a query of its own."""
        return sorted({f"{name}{labels}" for name, labels in _SELECTOR.findall(self.expr)})

    @property
    def families(self) -> set[str]:
        """Names of the metrics, as a page's TYPE lines have them in OpenMetrics."""
        return {_SUFFIX.sub("", name) for name, _ in _SELECTOR.findall(self.expr) if name != "up"}


def dashboards() -> dict[str, dict[str, Any]]:
    """All dashboards by the name of their file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def panels(interval: str = "1m") -> Iterator[Query]:
    """Every query of every panel, with each variable set to all."""
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                expr = target["expr"].replace("$__rate_interval", interval)
                yield Query(f"{name}: {panel['title']}", re.sub(r"\$\w+", ".*", expr))


def alerts() -> list[dict[str, Any]]:
    """All alerts."""
    groups: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def rules() -> Iterator[Query]:
    """The query of every alert."""
    for alert in alerts():
        yield Query(alert["alert"], alert["expr"])
