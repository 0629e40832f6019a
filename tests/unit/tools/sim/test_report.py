"""What the report and its page say of a sweep."""

from pathlib import Path

import pytest

from skylb.tools.sim import SimSettings, run_command
from skylb.tools.sim.page import page
from skylb.tools.sim.report import Report, changes, figures, render

SCENARIO = """
duration_s = 20
warmup_s = 2
[[regions]]
name = "us"
[[regions.replicas]]
count = 2
[clients]
mode = "sessions"
[workload]
kind = "arena"
rate_per_s = 0.5
[sweep]
"engine.policy" = ["prefix", "ring"]
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    path = Path(tmp_path_factory.mktemp("sim")) / "two.toml"
    path.write_text(SCENARIO)
    return run_command(SimSettings(scenario=path, seeds=2))


def test_no_share_is_given_of_what_is_shown_as_0(report: Report) -> None:
    columns, (first, *_) = figures(report.points)
    titles, (against,) = changes(report.points)
    said = dict(zip(titles, against, strict=True))
    zero = [
        title for title, cell in zip(columns, first, strict=True) if not cell.partition(" ")[0].strip("0.")
    ]
    assert "hold P90 ms" in zero
    assert {said[title] for title in zero if title in said} <= {"", "-"}
    assert "%" in said["TTFT P90 ms"]


def test_the_pages_tables_have_a_row_per_figure_and_every_cell_of_the_text(report: Report) -> None:
    html = page(report, [])
    assert html.count("<table>") == 2
    columns, rows = figures(report.points)
    for cell in (*columns, *(cell for row in rows for cell in row)):
        assert f">{cell}<" in html
    assert "<tr><th>TTFT P90 ms</th>" in html


def test_every_column_has_a_name_of_its_own(report: Report) -> None:
    columns, _ = figures(report.points)
    assert len(set(columns)) == len(columns)
    assert columns[1] in render(report)
