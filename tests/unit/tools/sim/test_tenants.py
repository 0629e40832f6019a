"""Tenants with requests of their own, and what a report says of them."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skylb.tools.sim import text as printed
from skylb.tools.sim.examples import example
from skylb.tools.sim.page import page
from skylb.tools.sim.read import Point, from_tree, read_file
from skylb.tools.sim.report import SCHEMA, Report, point_report
from skylb.tools.sim.requests import requests
from skylb.tools.sim.scenario import Clients, Region, Replicas, Scenario, Tenant
from skylb.tools.sim.simulate import run
from skylb.tools.sim.text import render
from skylb.tools.sim.workload import Agent, Arena, Mix, SharedPrompt, Tree

STEADY = Tenant("steady", count=3, rate_per_s=0.5)
FLOOD = Tenant("flood", weight=2, rate_per_s=5.0, from_s=5.0, classes=["low"])


def scenario(*tenants: Tenant, **changes: object) -> Scenario:
    made = Scenario(
        seed=3,
        duration_s=30.0,
        regions=[Region(replicas=[Replicas(2, "l4-8b")])],
        clients=Clients(mode="sessions", max_tokens=200),
        tenants=list(tenants),
        workload=Arena(tokens_max=8_000),
    )
    return msgspec.structs.replace(made, **changes)


def rows(of: Scenario) -> list[dict[str, object]]:
    columns = msgspec.json.decode(requests(of).data)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_the_others_send_the_same_requests_without_the_last_tenant() -> None:
    alone = rows(scenario(STEADY))
    others = [row for row in rows(scenario(STEADY, FLOOD)) if row["tenant"] != 3]
    assert len(alone) > 20
    assert others == alone


@pytest.mark.parametrize("workload", [Arena(), SharedPrompt(), Agent(), Tree(), Mix()])
def test_tenants_have_no_user_session_or_text_in_common(workload: Arena | Agent | Tree | Mix) -> None:
    made = rows(scenario(STEADY, workload=workload, duration_s=60.0))
    for column in ("id", "user", "session"):
        seen: dict[object, object] = {}
        for row in made:
            assert seen.setdefault(row[column], row["tenant"]) == row["tenant"], column
    texts: dict[int, object] = {}
    for row in made:
        for start, length in row["runs"]:  # type: ignore[attr-defined]  # a list, as JSON has it
            for block in (start, start + length - 1):
                assert texts.setdefault(block, row["tenant"]) == row["tenant"]


def test_a_flood_begins_and_ends_when_it_is_told_to() -> None:
    flood = msgspec.structs.replace(FLOOD, until_s=10.0)
    made = [row for row in rows(scenario(STEADY, flood)) if row["tenant"] == 3]
    begins = [row["t"] for row in made if row["after"] is None]
    assert begins
    assert all(5.0 <= at_s < 10.0 for at_s in begins)  # type: ignore[operator]  # a number, as JSON has it


@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        ({"tenants": [{"name": "a"}, {"name": "a"}]}, "tenants: a: the name is there twice"),
        ({"clients": {"mode": "closed"}, "tenants": [{"name": "a"}]}, "tenants: for the clients' modes"),
        ({"clients": {"mode": "open", "tenants": 2}, "tenants": [{"name": "a"}]}, "tenants: clients.tenants"),
        ({"tenants": [{"name": "a", "from_s": 5.0, "until_s": 5.0}]}, "tenants.0.until_s: expected a time"),
        (
            {"workload": {"kind": "file", "path": "x"}, "tenants": [{"name": "a"}]},
            "tenants.0.workload: ",
        ),
        ({"tenants": [{"name": "a", "count": 150}, {"name": "b", "count": 150}]}, "tenants: 300 in all"),
        ({"tenants": [{"name": "a", "weight": 0}]}, "tenants.0.weight"),
        ({"tenants": [{"name": "a", "classes": ["first"]}]}, "tenants.0.classes.0"),
        ({"tenants": [{"name": "a", "rate": 1}]}, "tenants.0.rate: unknown field"),
    ],
)
def test_faults_of_tenants_name_their_field(tree: dict[str, object], fault: str) -> None:
    faults: list[str] = []
    found = from_tree({"clients": {"mode": "sessions"}, **tree}, faults)
    assert found is None or faults
    assert any(text.startswith(fault) for text in faults), faults


def test_reports_tell_tenants_and_classes_apart() -> None:
    of = scenario(STEADY, FLOOD, engine={"tenant_rule": "fair"})
    result = run(of)
    assert set(result.tenants) == {"steady-1", "steady-2", "steady-3", "flood"}
    assert set(result.classes) == {"normal", "low"}
    assert sum(section.requests for section in result.tenants.values()) == result.total.requests
    assert result.tenants["flood"].requests == result.classes["low"].requests
    assert sum(section.output_tokens for section in result.tenants.values()) == result.total.output_tokens
    assert result.fairness is not None
    assert 0 < result.fairness.gap_tokens <= result.fairness.bound_tokens
    point = point_report(Point({}, of), [result], None, [])
    report = Report(SCHEMA, "x.toml", 1, 10, 0, None, 1.0, False, [point])
    for text in (render(report), page(report, [])):
        assert "steady-3" in text
        assert "tenant" in text
        assert "low" in text


def test_points_are_compared_for_each_tenant_and_the_rules_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `skylb sim tenants` promises: what the others notice of a flood."""
    steady = msgspec.structs.replace(STEADY, count=1, rate_per_s=1.0)
    reports: list[Any] = []
    for rule in ("none", "fair"):
        of = scenario(steady, FLOOD, engine={"tenant_rule": rule})
        at = Point({"engine.tenant_rule": rule}, of)
        reports.append(point_report(at, [run(of)], 0 if reports else None, []))
    report = Report(SCHEMA, "x.toml", 1, 10, 0, None, 1.0, False, reports)
    lines = render(report).splitlines()
    title = "by tenant, one seed (none: tenant_rule=none, fair: tenant_rule=fair):"
    start = lines.index(title)
    figures = ("TTFT P50 ms", "TTFT P90 ms", "failed")
    columns = [f"{rule} {figure}" for rule in ("none", "fair") for figure in figures]
    assert re.split(r"\s{2,}", lines[start + 1]) == ["tenant", *columns]
    rows_ = {row.split()[0]: row.split()[1:] for row in lines[start + 2 : start + 4]}
    for name, cells in rows_.items():
        found = [point.runs[0].tenants[name] for point in reports]
        assert [float(cells[place]) for place in (2, 5)] == [row.failures + row.unfinished for row in found]
        assert [cells[place] for place in (1, 4)] == [f"{(row.ttft_s.p90 or 0) * 1e3:.0f}" for row in found]
    assert set(rows_) == {"steady", "flood"}
    assert any(line.startswith("by class, one seed") for line in lines)
    monkeypatch.setattr(printed, "WIDTH_MAX", 80)
    assert "\nsteady  fair  " in render(report)
    monkeypatch.setattr(printed, "APART_MAX", 1)
    assert "by tenant" not in render(report)


def test_without_tenants_a_result_has_none() -> None:
    result = run(scenario(duration_s=5.0))
    assert (result.tenants, result.classes, result.fairness) == ({}, {}, None)


@pytest.mark.parametrize("name", ["tenants", "classes"])
def test_examples_with_tenants_have_a_point_for_each_rule(name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(example(name))
    points = read_file(file).points()
    assert [point.scenario.engine["tenant_rule"] for point in points] == ["none", "fair"]
    assert all(len(rows(point.scenario)) > 100 for point in points[:1])
