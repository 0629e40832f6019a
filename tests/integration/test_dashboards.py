"""Every metric that a dashboard or an alert names is on the page of a real balancer."""

import asyncio
import re
import urllib.request
from pathlib import Path

import pytest

from tests.dashboards import queries
from tests.dashboards.stage import play, stage
from tests.support.processes import eventually

pytestmark = pytest.mark.any_clock


def test_every_metric_that_is_named_is_on_a_real_page(tmp_path: Path) -> None:
    with stage(tmp_path, replicas=1) as (found, keys, collector):
        asyncio.run(play(found, keys))
        asked = urllib.request.Request(
            f"{found['us'].front.admin}/metrics", headers={"Accept": "application/openmetrics-text"}
        )
        with urllib.request.urlopen(asked, timeout=20) as answer:
            page = answer.read().decode()
        for name in ("skylb_ttft_seconds", "skylb_request_seconds"):
            line = rf'^{name}_bucket{{.*}} \S+ # {{trace_id="(\w+)"}} \S+ \S+$'
            exemplars = set(re.findall(line, page, re.MULTILINE))
            assert exemplars
            eventually(
                lambda exemplars=exemplars: exemplars <= {span.trace for span in collector.spans},
                what="the traces of exemplars arrived",
            )
        with urllib.request.urlopen(f"{found['us'].front.admin}/metrics", timeout=20) as answer:
            assert b" # {" not in answer.read()
    there = set(re.findall(r"^# TYPE (\w+) ", page, re.MULTILINE))
    for query in (*queries.panels(), *queries.rules()):
        assert query.families <= there, query
    series = (
        "skylb_inter_token_seconds_count",
        "skylb_inter_token_worst_seconds_count",
        "skylb_tokens_total",
        "skylb_answers_total",
        "skylb_ttft_hold_seconds_total",
        "skylb_replicas_ready",
        "skylb_shortages_total",
        "skylb_forwards_turned_away_total",
        "skylb_spans_dropped_total",
    )
    for name in (*series, "skylb_tenant_tokens_total", "skylb_errors_total", "skylb_replicas_wanted"):
        assert f"\n{name}{{" in page, name
