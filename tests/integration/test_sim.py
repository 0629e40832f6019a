"""``skylb sim`` as a process: what a user types, sees, and gets."""

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE_S, SKYLB, Child

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.timeout(180),  # plots take twenty seconds of an idle machine
    pytest.mark.any_clock,
]

SCENARIO = """
duration_s = 20
[[regions]]
name = "us"
[[regions.replicas]]
count = 2
[clients]
users = { us = 6 }
[workload]
kind = "tree"
"""


def sim(*words: object) -> subprocess.CompletedProcess[str]:
    command = [*SKYLB, "sim", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)


def written(directory: Path, text: str = SCENARIO) -> Path:
    path = directory / "s.toml"
    path.write_text(text)
    return path


def test_a_scenario_gives_a_table_json_and_plots(tmp_path: Path) -> None:
    report, plots = tmp_path / "r.json", tmp_path / "plots"
    words = ("--sweep", "engine.policy=prefix,ring", "--seeds", 2, "--json-file", report, "--plots", plots)
    done = sim(*words, written(tmp_path))
    assert done.returncode == 0, done.stderr
    assert re.match(r"(prefix|ring): P90 TTFT \d+ ms, \d+ % below (prefix|ring) ", done.stdout)
    read = json.loads(report.read_text())
    assert [len(point["runs"]) for point in read["points"]] == [2, 2]
    assert read["points"][0]["scenario"]["workload"]["kind"] == "tree"
    page = (plots / "index.html").read_text()
    files = list(plots.glob("*.png"))
    assert files, "plots beside the page"
    assert page.count("data:image/png;base64,") == 2 * len(files), "each in light and dark"
    assert "://" not in page, "nothing is loaded from elsewhere"


def test_faults_of_a_scenario_end_it_with_status_2(tmp_path: Path) -> None:
    text = SCENARIO.replace("count = 2", "count = 0").replace("duration_s = 20", "duration = 20")
    done = sim(written(tmp_path, text))
    assert done.returncode == 2
    assert "s.toml: duration: unknown field; did you mean duration_s?" in done.stderr
    assert "s.toml: regions.0.replicas.0.count: expected" in done.stderr


def test_a_broken_trace_line_is_named_or_counted(tmp_path: Path) -> None:
    lines = [
        f'{{"id":{n},"region":"us","user":1,"session":{n},"in":90,"out":3,"block":16,"runs":[[{n * 99},5]]}}'
        for n in range(20)
    ]
    (tmp_path / "trace.jsonl").write_text("\n".join([*lines[:7], "{broken", *lines[7:]]))
    path = written(tmp_path, SCENARIO.replace('kind = "tree"', 'kind = "file"\npath = "trace.jsonl"'))
    refused = sim(path)
    assert refused.returncode == 2
    assert "trace.jsonl, line 8: " in refused.stderr
    done = sim(path, "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert "1 broken lines left out; " in done.stdout


def test_flags_without_a_scenario_are_faults() -> None:
    done = sim("--sweep", "seed")
    assert done.returncode == 2
    assert "SCENARIO: missing" in done.stderr


def test_ctrl_c_reports_what_there_is(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    path = written(tmp_path, SCENARIO.replace("duration_s = 20", "duration_s = 1000000"))
    child = Child(
        [*SKYLB, "sim", str(path), "--progress", "lines", "--seeds", "4", "--json-file", str(report)]
    )
    try:
        child.require(lambda: " runs  " in child.text(), timeout_s=30, what="progress")
        child.send(signal.SIGINT)
        assert child.popen.wait(PATIENCE_S) == 130
        assert "INTERRUPTED: 0 of 4 runs are whole" in child.text()
        assert json.loads(report.read_text())["interrupted"]
    finally:
        child.stop()
