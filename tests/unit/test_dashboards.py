"""Dashboards and alerts as files: made from their sources, complete, and explained."""

import re
import subprocess
import sys

from skylb import _core
from tests.dashboards import queries


def test_every_dashboard_is_what_its_source_makes() -> None:
    command = [sys.executable, str(queries.DASHBOARDS / "make.py"), "--check"]
    assert subprocess.run(command, capture_output=True, text=True, check=False, timeout=50).stderr == ""
    assert set(queries.dashboards()) == {"fleet", "regions", "tenants", "why-slow"}


def test_every_panel_has_a_unit_a_description_and_the_data_source_of_the_variable() -> None:
    for name, dashboard in queries.dashboards().items():
        assert [variable["name"] for variable in dashboard["templating"]["list"]][:2] == [
            "datasource",
            "instance",
        ]
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]), name
        for panel in panels:
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            for target in panel["targets"]:
                assert target["datasource"]["uid"] == "${datasource}"
                assert 'instance=~"$instance"' in target["expr"], panel["title"]


def test_every_alert_names_a_section_of_the_runbook_and_every_section_an_alert() -> None:
    sections = re.findall(r"^## (.*)\n\n`(\w+)`", queries.RUNBOOK.read_text(), re.MULTILINE)
    named = [
        (alert["annotations"]["runbook_url"].removeprefix("docs/RUNBOOK.md#"), alert["alert"])
        for alert in queries.alerts()
    ]
    assert sections == named
    for alert in queries.alerts():
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert alert["annotations"]["summary"]


def test_the_rate_of_errors_leaves_out_what_is_no_request_for_a_model() -> None:
    (rate,) = (rule for rule in queries.rules() if rule.place == "SkyLBErrorRate")
    local = {path for path, _, _, served, _ in _core.routes() if served == "the balancer"}
    assert {"/health", "/readiness"} < local
    requests = [selector for selector in rate.selectors if "skylb_requests_total" in selector]
    assert len(requests) == 2
    for selector in requests:
        (left_out,) = re.findall(r'route!~"(.*?)"', selector)
        assert set(left_out.split("|")) == {*local, "/version", "other", "invalid"}
        assert 'from="client"' in selector


def test_the_points_of_requests_are_shown_where_a_histogram_has_them() -> None:
    shown = {
        panel["title"]: target["expr"]
        for dashboard in queries.dashboards().values()
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        if target.get("exemplar")
    }
    assert set(shown) == {"Time to first token", "Time to first token, P90"}
    assert all("skylb_ttft_seconds_bucket" in expr for expr in shown.values())
