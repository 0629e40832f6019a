"""What `make peers` decides before and after a run: settings, scaled times, rows, figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import environments
from bench.peers import __main__ as command
from bench.peers import configs, report
from bench.peers.cases import CASES, Case, Entry, entries, quick, rotated, workload
from bench.peers.fleet import Links, by_region, wan_script
from bench.peers.rivals import BY_NAME, RIVALS, SKYLB, Rival, Site
from bench.peers.run import Sample, figures
from bench.peers.scale import Interval, flags, skylb_flags
from bench.peers.summary import Row, against, base_of, cells, short
from skylb.config import Settings
from skylb.options import options
from skylb.tools.load.workload import read_workload

URLS = ["http://127.0.0.1:8101", "http://127.0.0.1:8102"]


def case(name: str) -> Case:
    return next(one for one in CASES if one.name == name)


def site(tmp_path: Path, scale: float = 0.25) -> Site:
    return Site("us", URLS, 9000, tmp_path, scale)


# ------------------------------------------------------------------------------ times


def test_an_interval_in_whole_seconds_says_when_it_cannot_follow() -> None:
    assert Interval("--a-secs", 120).told(0.25) == "--a-secs 30 s"
    assert Interval("--a-secs", 5).told(0.25) == "--a-secs 1 s (not 1.25 s)"
    assert Interval("--a-secs", 1).units(0.25) == 1
    assert Interval("--a-ms", 0.05, 0.001).units(0.25) == 12


def test_uncompressed_programs_keep_what_is_shipped() -> None:
    assert flags((Interval("--a-secs", 120),), 1.0) == []
    assert skylb_flags(1.0) == []


def test_skylbs_times_shrink_and_its_rates_grow() -> None:
    scaled = dict(zip(skylb_flags(0.25)[::2], skylb_flags(0.25)[1::2], strict=True))
    shipped = {option.flag: option.default for option in options(Settings)}
    assert float(scaled["--engine-probe-interval-s"]) == shipped["--engine-probe-interval-s"] / 4
    assert float(scaled["--hold-timeout-s"]) == shipped["--hold-timeout-s"] / 4
    assert float(scaled["--engine-retry-per-s"]) == shipped["--engine-retry-per-s"] * 4
    assert "--timeout-connect-s" not in scaled
    assert not any(flag.startswith("--dns-") for flag in scaled)


def test_links_get_the_profiles_figures_in_faster_time() -> None:
    pair = frozenset({"us", "eu"})
    (line,) = wan_script({pair}, 0.25).splitlines()
    assert json.loads(line) == {
        "link": "eu-us",
        "rtt_s": 0.0225,
        "jitter_s": 0.0005,
        "bytes_per_s": 500_000_000,
    }


def test_a_region_reaches_itself_without_a_link(tmp_path: Path) -> None:
    links = Links()
    assert links.through("us", "us", 8101) == 8101
    assert links.command(1.0, tmp_path / "script") == []
    assert links.through("us", "eu", 8102) != 8102
    assert "--link" in links.command(1.0, tmp_path / "script")


# --------------------------------------------------------------------------- settings


def test_haproxy_and_nginx_send_to_the_least_loaded_of_all_replicas(tmp_path: Path) -> None:
    haproxy = configs.haproxy(URLS, 9000, 0.25)
    assert "balance leastconn" in haproxy
    assert "check inter 500ms" in haproxy
    assert "server r1 127.0.0.1:8102" in haproxy
    nginx = configs.nginx(URLS, 9000, 0.25, tmp_path)
    assert "least_conn;" in nginx
    assert "server 127.0.0.1:8102 max_fails=1 fail_timeout=2s;" in nginx
    assert nginx.count("{") == nginx.count("}")


def test_litellm_knows_each_replica_as_a_deployment_of_the_one_model() -> None:
    config = json.loads(configs.litellm(URLS, "mock", 0.5))
    assert [one["litellm_params"]["api_base"] for one in config["model_list"]] == [f"{u}/v1" for u in URLS]
    assert {one["model_name"] for one in config["model_list"]} == {"mock"}
    assert config["router_settings"]["cooldown_time"] == 2.5


@pytest.mark.parametrize("rival", [rival for rival in RIVALS if rival.settings.startswith("--")])
def test_a_router_gets_what_is_quoted_with_its_times_scaled(rival: Rival, tmp_path: Path) -> None:
    found = rival.command(rival, "/bin/router", site(tmp_path))
    quoted = rival.settings.split()
    for flag, value in zip(quoted[::2], quoted[1::2], strict=True):
        given = found[found.index(flag) + 1]
        interval = next((one for one in rival.intervals if one.flag == flag), None)
        assert given == (value if interval is None else str(interval.units(0.25)))
    assert len([part for part in found if part == "--eviction-interval-secs"]) == 1
    assert found[-2:] == URLS


def test_a_rival_that_is_not_installed_says_so(tmp_path: Path) -> None:
    rival = Rival("other", "no-such-program", lambda *_: [], "", "")
    assert rival.version() == "not installed"
    with pytest.raises(RuntimeError, match="no-such-program is not installed"):
        rival.proxy(site(tmp_path))


def test_every_rival_names_its_source_and_what_cannot_follow_the_scale() -> None:
    assert all(rival.source and rival.fixed and rival.settings for rival in RIVALS)


def test_the_lock_files_pin_the_rivals() -> None:
    pinned = {rival.name: rival.version() for rival in RIVALS if rival.environment}
    assert all(version[:1].isdigit() for version in pinned.values()), pinned


def test_why_pip_failed_is_one_line_without_addresses() -> None:
    said = "Collecting x\nERROR: Could not fetch https://a.example/simple: host='a.example' is down\n\nnotice"
    why = environments.reason(said)
    assert why.startswith("ERROR: Could not fetch (address)")
    assert "example" not in why
    assert environments.reason("") == "no reason given"


# ------------------------------------------------------------------------------- rows


def test_every_rival_has_a_row_for_each_way_to_stand_before_three_regions() -> None:
    rows = [(entry.rival.name, entry.layout) for entry in entries(case("three"))]
    assert rows.count((SKYLB, "peers")) == 1
    for rival in ("vllm-router", "sglang-router", "smg", "litellm", "haproxy", "nginx"):
        assert {layout for name, layout in rows if name == rival} == {"global", "local"}


def test_a_rival_whose_cpu_time_is_the_limit_runs_in_real_time() -> None:
    slow = case("three").of(BY_NAME["litellm"])
    assert slow.scale == 1.0
    assert slow.measured_s < case("three").measured_s
    assert case("three").of(BY_NAME["smg"]) == case("three")
    assert "litellm" not in case("one").rivals
    assert "litellm" in case("life").rivals


def test_each_repeat_begins_with_another_row() -> None:
    rows = list(entries(case("one")))
    assert rotated(rows, 0) == rows
    assert rotated(rows, 1)[0] != rows[0]
    assert {entry.key for entry in rotated(rows, 1)} == {entry.key for entry in rows}


def test_a_whole_run_and_a_quick_one_fit_their_time() -> None:
    whole = sum(entry.estimate_s() for one in CASES for entry in entries(one))
    assert 3 * whole < 60 * 60
    short = [quick(one) for one in CASES]
    assert sum(entry.estimate_s() for one in short if one is not None for entry in entries(one)) < 5 * 60


def test_a_plan_runs_all_rows_before_any_again() -> None:
    planned = list(command.plan([case("one"), case("even")], 2))
    half = len(planned) // 2
    assert {seed for seed, _ in planned[:half]} == {1}
    assert {entry.key for _, entry in planned[:half]} == {entry.key for _, entry in planned[half:]}


def test_a_choice_of_rivals_holds_for_quick_runs_too() -> None:
    options = command.parsed(["--quick", "--only", "nginx", "--cases", "three", "--seconds", "10"])
    (found,) = command.chosen(options)
    assert found.rivals == ("nginx",)
    assert (found.warmup_s, found.measured_s) == (3.0, 10.0)
    assert not options.whole
    assert command.parsed([]).whole


def test_an_unknown_rival_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parsed(["--only", "nobody"])
    assert "nobody: expected some of" in capsys.readouterr().err


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_groups_of_users_are_of_one_size_and_each_has_a_region(one: Case) -> None:
    assert len(set(one.users.values())) == 1
    assert {one.region(group) for group in one.users} == set(one.replicas)


def test_the_workload_has_users_enough_in_every_group(tmp_path: Path) -> None:
    three = case("three")
    turns = read_workload(workload(three, 1, tmp_path)).turns
    for group, users in three.users.items():
        assert len({turn.user for turn in turns if turn.region == group}) >= users


def test_replicas_are_dealt_to_their_regions() -> None:
    urls = [f"http://127.0.0.1:{port}" for port in range(6)]
    assert by_region(case("three"), urls) == {"us": urls[:2], "eu": urls[2:4], "asia": urls[4:]}


# ---------------------------------------------------------------------------- figures

QUANTILES = {"p50": 0.5, "p90": 1.0, "p99": None, "mean": 0.75}
TOTAL = {
    "tokens_per_s": 4000.0,
    "output_tokens_per_s": 400.0,
    "requests_per_s": 2.0,
    "ok": 50,
    "failed": 1,
    "unfinished": 2,
    "usage_missing": 0,
    "prompt_mismatches": 3,
    "errors": {"http_503": 1},
    "error_samples": {},
    "ttft_s": QUANTILES,
    "e2e_s": QUANTILES,
    "itl_s": QUANTILES,
}
REPORT: dict[str, Any] = {
    "total": TOTAL,
    "regions": {"us1": TOTAL},
    "generator": {"loop_lag_s": {"p99": 0.001}, "late": False},
    "ended_by": "duration",
}


def run(ttft_p90_s: float = 4.0) -> dict[str, Any]:
    found = figures(REPORT, Sample(0, 1, 0, 10, 1000, 100), Sample(20, 2, 5, 60, 3000, 1100), 0.25)
    return found | {"ttft_p90_s": ttft_p90_s}


def test_times_and_rates_are_told_in_the_replicas_time() -> None:
    found = run()
    assert found["tokens_per_s"] == 1000.0
    assert found["ttft_p50_s"] == 2.0
    assert found["ttft_p99_s"] is None
    assert found["hit_rate"] == 0.5
    assert found["cpu_ms_per_request"] == 20.0
    assert found["cpu_cores"] == 0.05


def test_rivals_are_compared_with_skylb_in_the_same_repeat() -> None:
    own, other = (Row(Entry(case("one"), BY_NAME[name], "one")) for name in (SKYLB, "smg"))
    own.runs = {1: run(2.0), 2: run(4.0)}
    other.runs = {1: run(4.0), 2: run(4.0), 3: run(100.0)}
    assert base_of([other, own]) is own
    assert against(other, own, "ttft_p90_s") == 1.5
    assert against(other, None, "ttft_p90_s") is None
    assert cells(own, own)[-2:] == ["1", "1"]
    assert cells(other, own)[-1] == "1.50"
    assert cells(own, own)[4] == "3.00 (2.00 to 4.00)"


def test_a_row_without_runs_has_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    rows = {entry.key: Row(entry) for entry in entries(case("one"))}
    rows["one/skylb/one"].runs = {1: run()}
    rows["one/smg/one"].reason = "not installed: no such version"
    report.keep(rows, [case("one")], {"cpu": "a processor"}, "make peers")
    page = (tmp_path / "peers.md").read_text()
    assert "| smg | - |" in page
    assert "- smg: not installed: no such version" in page
    assert "- nginx: there was no time left for it" in page
    assert "## Settings" in page
    assert "--eviction-interval-secs 15 s" in page
    assert "(peers.png)" in page
    assert (tmp_path / "peers.png").stat().st_size > 0
    kept = json.loads((tmp_path / "peers.json").read_text())
    assert kept["rows"]["one/skylb/one"]["runs"]["1"]["failed"] == 1


def test_why_a_rival_failed_is_one_line() -> None:
    said = f"smg is not ready: refused\n\n\x1b[31mfirst\x1b[0m\n{Path.home()}/x: weak key\n"
    assert short(said) == "smg is not ready: refused: ~/x: weak key"
    assert short("gone") == "gone"


def test_notes_say_what_a_figure_may_owe_to_the_setup() -> None:
    row = Row(Entry(case("three"), BY_NAME["litellm"], "local"))
    row.runs = {1: run() | {"cpu_cores": 0.95, "late": True}}
    row.reason = "it did not start"
    notes = "\n".join(row.notes())
    for told in (
        "0.95 of its core",
        "waited for its core for 25%",
        "3 answers were of other prompts",
        "late in 1 of 1",
        "a run failed",
        "time scale of 1",
    ):
        assert told in notes
