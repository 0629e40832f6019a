"""Writes the dashboards (``*.json``) from their sources (``*.toml``): ``python deploy/grafana/make.py``.

A source names panels, their queries, and how to read them. With ``--check`` nothing is written, and the
status is 1 where a dashboard is not what its source makes.
"""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
ROW_WIDTH = 24
WIDTH = 8
HEIGHT = 8


def variable(label: str, metric: str) -> dict[str, Any]:
    """A variable with the values of a label of a metric."""
    query = f"label_values({metric}, {label})"
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": label},
        "definition": query,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
        "sort": 1,
    }


def panel(source: dict[str, Any], number: int, x: int, y: int) -> dict[str, Any]:
    """A panel as Grafana reads it."""
    stacked = source.get("stacked", False)
    custom = {"fillOpacity": 20 if stacked else 0, "stacking": {"mode": "normal" if stacked else "none"}}
    return {
        "id": number,
        "type": "timeseries",
        "title": source["title"],
        "description": source["text"],
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": source.get("width", WIDTH), "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": source["unit"], "min": 0, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": DATASOURCE,
                "expr": query["expr"],
                "legendFormat": query["legend"],
                **({"exemplar": True} if source.get("exemplars") else {}),
            }
            for place, query in enumerate(source["queries"])
        ],
    }


def layout(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All panels, row by row."""
    found: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        grid = {"x": 0, "y": y, "w": ROW_WIDTH, "h": 1}
        heading = {"id": len(found) + 1, "type": "row", "title": row["title"], "collapsed": False}
        found.append({**heading, "panels": [], "gridPos": grid})
        x, y = 0, y + 1
        for source in row["panel"]:
            if x + source.get("width", WIDTH) > ROW_WIDTH:
                x, y = 0, y + HEIGHT
            found.append(panel(source, len(found) + 1, x, y))
            x += source.get("width", WIDTH)
        y += HEIGHT
    return found


def dashboard(source: Path) -> str:
    """The dashboard that a source describes."""
    read = tomllib.loads(source.read_text())
    own = [variable(read["variable"]["label"], read["variable"]["metric"])] if "variable" in read else []
    data = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    others = {"title": "SkyLB", "type": "dashboards", "tags": ["skylb"], "asDropdown": True, "keepTime": True}
    made = {
        "uid": f"skylb-{source.stem}",
        "title": f"SkyLB: {read['title']}",
        "description": read["text"],
        "tags": ["skylb"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "timezone": "browser",
        "templating": {"list": [data, variable("instance", "skylb_build_info"), *own]},
        "links": [others],
        "panels": layout(read["row"]),
    }
    return json.dumps(made, indent=1) + "\n"


def main() -> int:
    """Writes or checks every dashboard."""
    stale = []
    for source in sorted(HERE.glob("*.toml")):
        path, text = source.with_suffix(".json"), dashboard(source)
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        print(f"not what their sources make: {', '.join(stale)}", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
