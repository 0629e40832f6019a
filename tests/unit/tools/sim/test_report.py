"""What the report, its text and its page say of a sweep."""

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from skylb.tools.sim import SimSettings, render, run_command
from skylb.tools.sim.differing import differing
from skylb.tools.sim.grid import baseline_of, changes, figures, groups, labels, present
from skylb.tools.sim.headline import headlines
from skylb.tools.sim.page import Image, page
from skylb.tools.sim.report import Report
from skylb.tools.sim.summary import METRICS, Interval

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

TTFT = next(metric for metric in METRICS if metric.name == "ttft_p90_s")


def reported(path: Path, text: str = SCENARIO, **settings: object) -> Report:
    path.write_text(text)
    return run_command(SimSettings(scenario=path, seeds=2, processes=1, progress="off", **settings))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return reported(Path(tmp_path_factory.mktemp("sim")) / "two.toml")


def with_ttft(report: Report, change: Interval) -> Report:
    """The report with P90 TTFT of 1 s and, at the second point, so much more."""
    first, second = report.points
    summaries = [
        {**point.summary, "ttft_p90_s": Interval(value, value, value)}
        for point, value in ((first, 1.0), (second, 1 + change.mean))
    ]
    points = [
        msgspec.structs.replace(first, summary=summaries[0]),
        msgspec.structs.replace(second, summary=summaries[1], against_baseline={"ttft_p90_s": change}),
    ]
    return msgspec.structs.replace(report, points=points)


def test_no_share_is_given_of_what_is_shown_as_0(report: Report) -> None:
    shown, against = figures(report.points), changes(report.points)
    zero = [
        m.name for m, cell in zip(shown.metrics, shown.rows[0][1], strict=True) if not cell.text.strip("0.")
    ]
    said = {m.name: cell.text for m, cell in zip(against.metrics, against.rows[0][1], strict=True)}
    assert "hold_p90_s" in zero
    assert {said[name] for name in zero if name in said} <= {"-"}
    assert "%" in said["ttft_p90_s"]


def test_every_column_has_a_name_of_its_own(report: Report) -> None:
    columns = [metric.column for metric in figures(report.points).metrics]
    assert len(set(columns)) == len(columns)
    assert columns[1] in render(report)


def test_the_best_value_of_each_column_is_marked_and_none_where_all_are_equal(report: Report) -> None:
    grid = figures(report.points)
    for place, metric in enumerate(grid.metrics):
        cells = [cells[place] for _, cells in grid.rows]
        values = [float(cell.text) for cell in cells]
        best = max(values) if metric.higher_is_better else min(values)
        assert [cell.best for cell in cells] == [value == best and len(set(values)) > 1 for value in values]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Interval(-0.35, -0.4, -0.3), "ring: P90 TTFT 650 ms, 35 % below prefix (95 % interval: 30 to 40 %)"),
        (Interval(-0.35, -0.35, -0.35), "ring: P90 TTFT 650 ms, 35 % below prefix"),
        (Interval(-0.05, -0.2, 0.1), "ring: P90 TTFT 950 ms, no clear difference from prefix (1.00 s)"),
        (
            Interval(0.35, 0.3, 0.4),
            "prefix: P90 TTFT 1.00 s, the baseline and the lowest; next is ring, 35 % above",
        ),
        (Interval(0.05, -0.1, 0.2), "prefix: P90 TTFT 1.00 s, the baseline; no clear difference from ring"),
    ],
)
def test_the_headline_compares_the_best_point_with_the_baseline(
    report: Report, change: Interval, said: str
) -> None:
    told = with_ttft(report, change)
    assert [headline.text for headline in headlines(told.points)] == [said]
    assert render(told).startswith(said)
    assert f"<p>{said}</p>" in page(told, [])


def test_a_change_is_better_or_worse_only_by_all_of_its_interval(report: Report) -> None:
    intervals = (Interval(-0.3, -0.4, -0.2), Interval(-0.1, -0.3, 0.1), Interval(0.3, 0.2, 0.4))
    for change, better in zip(intervals, (True, None, False), strict=True):
        grid = changes(with_ttft(report, change).points)
        assert [cell.better for cell in grid.rows[0][1]] == [better]


def test_a_baseline_is_compared_with_points_that_are_otherwise_the_same(tmp_path: Path) -> None:
    text = SCENARIO + "topology = ['skylb', 'local']\n"
    found = reported(tmp_path / "four.toml", text, baseline=("ring",))
    assert [point.baseline for point in found.points] == [2, 3, None, None]
    assert baseline_of(found.points) == "ring"
    assert [labels(group) for group in groups(found.points)] == [["ring", "prefix"]] * 2
    assert [headline.group for headline in headlines(found.points)] == ["topology=skylb", "topology=local"]
    assert len(changes(found.points).rows) == 2


def test_a_point_whose_baseline_has_not_run_is_shown_without_one(report: Report) -> None:
    first, second = report.points
    found = present([msgspec.structs.replace(first, runs=[]), second])
    assert [point.baseline for point in found] == [None]
    assert present(report.points) == report.points


class Outline(HTMLParser):
    """Tags that are open, cells of tables, and what would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.loaded: list[str] = []
        self.best = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loaded += [given[name] or "" for name in ("src", "srcset", "href") if name in given]
        if tag not in {"meta", "img", "source", "link"}:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"th", "td"}:
            self.rows[-1].append("")
            self.best += "best" in (given.get("class") or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and "tr" in self.open:
            self.rows[-1][-1] += data


def test_the_page_is_whole_and_has_each_figure_in_a_cell(report: Report) -> None:
    outline = Outline()
    html = page(report, [Image("ttft", "TTFT", b"light", b"dark")])
    outline.feed(html)
    assert outline.open == []
    assert all(uri.startswith("data:image/png;base64,") for uri in outline.loaded)
    assert len(outline.loaded) == 2
    assert "<script" not in html
    assert "<pre" not in html
    grid = figures(report.points)
    header = next(row for row in outline.rows if "TTFT P90 ms" in row)
    assert header == ["policy", *(metric.column for metric in grid.metrics)]
    for name, cells in grid.rows:
        row = next(row for row in outline.rows if row and row[0].startswith(name))
        shown = [cell.replace(",", "") for cell in row[1:]]
        assert all(text.startswith(cell.text) for cell, text in zip(cells, shown, strict=True))
    assert outline.best == sum(cell.best for _, cells in grid.rows for cell in cells)


def test_what_a_scenario_calls_its_parts_is_escaped(tmp_path: Path) -> None:
    name = "<script>alert('x')</script> & \"y\""
    text = SCENARIO.replace('"us"', "'''" + name + "'''")
    found = reported(tmp_path / "a<b>&.toml", text)
    html = page(found, [])
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "<h1>a&lt;b&gt;&amp;.toml</h1>" in html
    outline = Outline()
    outline.feed(html)
    assert outline.open == []


def test_the_page_of_one_point_and_one_seed_compares_nothing(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text(SCENARIO.partition("[sweep]")[0])
    found = run_command(SimSettings(scenario=path, progress="off"))
    html = page(found, [])
    assert "Against" not in html
    assert 'class="best"' not in html
    assert "baseline" not in re.sub(r"<style>.*</style>", "", html, flags=re.DOTALL)


def test_the_page_lists_the_fields_that_make_the_scenario(report: Report) -> None:
    assert dict(differing(report.points)) == {
        "engine.policy": "prefix, ring",
        "duration_s": "20",
        "warmup_s": "2",
        "regions.0.name": "us",
        "regions.0.balancers": "1",
        "regions.0.replicas.0.count": "2",
        "regions.0.replicas.0.profile": "l4-8b",
        "clients.mode": "sessions",
        "workload.kind": "arena",
        "workload.rate_per_s": "0.5",
    }


def test_plots_are_drawn_for_light_and_dark_screens(report: Report, tmp_path: Path) -> None:
    plots = pytest.importorskip("skylb.tools.sim.plots")
    drawn = [name for name, _, _ in (*plots.BARS, *plots.PLOTS)]
    assert [path.name for path in plots.write(report, tmp_path)] == [
        *map("{}.png".format, drawn),
        "index.html",
    ]
    html = (tmp_path / "index.html").read_text()
    assert html.count("prefers-color-scheme: dark)") == len(drawn) + 1  # and one of the style
