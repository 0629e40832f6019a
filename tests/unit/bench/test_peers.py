"""What `make peers` decides before and after a run: settings, scaled times, rows, figures."""

import json
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from bench import environments
from bench.peers import __main__ as command
from bench.peers import configs, plot, report
from bench.peers.cases import CASES, Case, Entry, entries, quick, shuffled, workload
from bench.peers.fleet import BUILDERS, Fleet, Links, by_region, wan_script
from bench.peers.load import quantiles
from bench.peers.rivals import BY_NAME, RIVALS, SKYLB, Rival, Site
from bench.peers.run import RivalError, Sample, figures, finished, load_command
from bench.peers.scale import Interval, flags, skylb_flags
from bench.peers.summary import Row, against, base_of, cells, comparison_notes, short
from skylb.config import Settings
from skylb.options import options
from skylb.tools.load import LoadSettings
from skylb.tools.load.stats import Histogram
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


def test_haproxy_prefers_the_replicas_of_its_own_region() -> None:
    config = configs.haproxy(URLS, 9000, 0.25, near=1)
    assert "server r0 127.0.0.1:8101 weight 3\n" in config
    assert "server r1 127.0.0.1:8102\n" in config
    assert "weight" not in configs.haproxy(URLS, 9000, 0.25)


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
    evicts = "--eviction-interval-secs" in {one.flag for one in rival.intervals}
    assert found.count("--eviction-interval-secs") == evicts
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


def test_rivals_stand_before_three_regions_in_several_ways() -> None:
    rows = [(entry.rival.name, entry.layout) for entry in entries(case("three"))]
    assert len(rows) == len(set(rows))
    assert rows.count((SKYLB, "peers")) == 1
    for rival in ("smg", "haproxy"):
        assert {"global", "all"} <= {layout for name, layout in rows if name == rival}


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_a_rival_that_cannot_follow_faster_time_runs_in_real_time_only(one: Case) -> None:
    assert all(BY_NAME[name].scale_min <= one.scale for name in one.rivals)


def test_every_rival_runs_somewhere() -> None:
    assert {name for one in CASES for name in one.rivals} == set(BY_NAME)


@pytest.mark.parametrize("one", [one for one in CASES if one.repeats_max > 1], ids=lambda one: one.name)
def test_each_repeat_has_another_order(one: Case) -> None:
    rows, repeats = list(entries(one)), one.repeats_max
    orders = [[entry.key for entry in shuffled(rows, repeat)] for repeat in range(repeats)]
    assert all(sorted(order) == sorted(entry.key for entry in rows) for order in orders)
    assert len({order[0] for order in orders}) == repeats
    followers = [pair for order in orders for pair in pairwise(order)]
    assert len(followers) == len(set(followers))
    assert shuffled(rows, 1) == shuffled(rows, 1)


def test_a_whole_run_and_a_quick_one_fit_their_time() -> None:
    whole = sum(entry.longest_s() * one.repeats_max for one in CASES for entry in entries(one))
    assert whole < command.parsed([]).minutes * 60
    short = [quick(one) for one in CASES]
    spent = sum(entry.longest_s() for one in short if one is not None for entry in entries(one))
    assert spent < command.parsed(["--quick"]).minutes * 60


def test_a_plan_runs_all_rows_before_any_again() -> None:
    planned = list(command.plan([case("one"), case("even")], 2))
    half = len(planned) // 2
    assert {seed for seed, _ in planned[:half]} == {1}
    assert {entry.key for _, entry in planned[:half]} == {entry.key for _, entry in planned[half:]}
    seeds = [seed for seed, _ in command.plan([case("life")], 3)]
    assert set(seeds) == set(range(1, case("life").repeats_max + 1))


def test_a_choice_of_rivals_holds_for_quick_runs_too() -> None:
    options = command.parsed(["--quick", "--only", "haproxy", "--cases", "three", "--seconds", "10"])
    (found,) = command.chosen(options)
    assert found.rivals == ("haproxy",)
    assert (found.warmup_s, found.measured_s) == (3.0, 10.0)
    assert not options.whole
    assert command.parsed([]).whole
    assert not command.parsed(["--repeats", "1"]).whole


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


def test_a_proxy_before_all_regions_has_its_own_replicas_first(tmp_path: Path) -> None:
    three, links = case("three"), Links()
    urls = [f"http://127.0.0.1:{8100 + number}" for number in range(6)]
    found: list[Site] = []
    rival = Rival("other", sys.executable, lambda _, path, site: found.append(site) or [path], "", "")
    proxies, targets = BUILDERS["all"](rival, three, urls, links, tmp_path)
    assert [site.name for site in found] == three.regions == list(targets)
    for site_of, own in zip(found, (urls[:2], urls[2:4], urls[4:]), strict=True):
        assert site_of.upstreams[: site_of.near] == own
        assert len(site_of.upstreams) == 6
        assert not set(site_of.upstreams[site_of.near :]) & set(urls)
    assert len(proxies) == 3


# ------------------------------------------------------------------------ a plan that goes wrong


def ran(monkeypatch: pytest.MonkeyPatch, measure: Any, *arguments: str) -> tuple[dict[str, Row], bool, int]:
    """What is left of a run whose measurements are made up: rows, whether all was tried, runs kept."""
    chosen = command.parsed(["--cases", "one", "--only", "skylb,haproxy", "--repeats", "2", *arguments])
    cases = command.chosen(chosen)
    rows = {entry.key: Row(entry) for one in cases for entry in entries(one)}
    monkeypatch.setattr(command, "measure", measure)
    kept: list[int] = []
    whole = command.run_all(rows, cases, chosen, lambda: kept.append(1))
    return rows, whole, len(kept)


@pytest.mark.parametrize("fault", [RuntimeError("gone"), KeyError("total"), ValueError("no number")])
def test_a_run_that_fails_leaves_the_others_and_its_reason(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def measure(entry: Entry, seed: int, _workloads: Path) -> dict[str, Any]:
        if entry.rival.name == "haproxy" and seed == 1:
            raise fault
        return run()

    rows, whole, kept = ran(monkeypatch, measure)
    assert whole
    assert set(rows["one/skylb/one"].runs) == {1, 2}
    assert set(rows["one/haproxy/one"].runs) == {2}
    assert rows["one/haproxy/one"].reason == short(str(fault))
    assert kept == 4
    assert len(against(rows["one/haproxy/one"], rows["one/skylb/one"], "ttft_p90_s")) == 1


def test_a_rival_that_failed_under_load_has_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(entry: Entry, seed: int, _workloads: Path) -> dict[str, Any]:
        if entry.rival.name == "haproxy" and seed == 1:
            raise RivalError("it ended during the run")
        return run()

    rows, _, _ = ran(monkeypatch, measure)
    base, row = rows["one/skylb/one"], rows["one/haproxy/one"]
    assert against(row, base, "tokens_per_s") == []
    notes = comparison_notes(row, base, 2)
    assert "a run failed: it ended during the run" in notes
    assert "1 of 2 runs" in notes


def test_a_plan_ends_where_its_time_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, whole, kept = ran(monkeypatch, lambda *_: run(), "--minutes", "0.001")
    assert not whole
    assert kept == 0
    assert not any(row.runs for row in rows.values())


@pytest.mark.parametrize(("complete", "arguments"), [(True, []), (False, []), (True, ["--quick"])])
def test_only_a_whole_run_that_was_not_cut_off_renews_the_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, complete: bool, arguments: list[str]
) -> None:
    def run_all(rows: dict[str, Row], *_: Any) -> bool:
        rows["one/skylb/one"].runs = {1: run()}
        return complete

    kept = []
    monkeypatch.setattr(sys, "argv", ["peers", *arguments])
    for name in ("heed_stops", "installed"):
        monkeypatch.setattr(command, name, lambda *_: None)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(command, "run_all", run_all)
    monkeypatch.setattr(report, "keep", lambda *_: kept.append(1))
    with pytest.raises(SystemExit):
        command.main()
    assert bool(kept) == (complete and not arguments)


# ---------------------------------------------------------------------------- figures

QUANTILES = {"p50": 0.5, "p90": 1.0}
TOTAL = {
    "tokens_per_s": 4000.0,
    "output_tokens_per_s": 400.0,
    "requests_per_s": 2.0,
    "begun": 53,
    "ok": 50,
    "failed": 1,
    "unfinished": 2,
    "usage_missing": 0,
    "prompt_mismatches": 3,
    "errors": {"http_503": 1},
    "error_samples": {},
}
WHOLE = {"begun": 50, "answered": 50, "ttft_s": QUANTILES, "e2e_s": QUANTILES | {"p90": None}}
REPORT: dict[str, Any] = {
    "total": TOTAL,
    "regions": {"us1": TOTAL},
    "generator": {"loop_lag_s": {"p99": 0.001}, "late": False, "cpu_share": 0.25},
    "ended_by": "duration",
}
FOUND = {"report": REPORT, "total": WHOLE, "regions": {"us1": WHOLE}}
SAMPLES = (Sample(0, 1, 0, 0, 10, 1000, 100), Sample(20, 2, 5, 15, 60, 3000, 1100))


def run(ttft_p90_s: float = 4.0) -> dict[str, Any]:
    return figures(FOUND, SAMPLES, 0.25, 1) | {"ttft_p90_s": ttft_p90_s}


def test_times_and_rates_are_told_in_the_replicas_time() -> None:
    found = run()
    assert found["tokens_per_s"] == 1000.0
    assert found["ttft_p50_s"] == 2.0
    assert found["e2e_p90_s"] is None
    assert found["rest_share"] == 1.0
    assert found["hit_rate"] == 0.5
    assert found["cpu_ms_per_request"] == 20.0
    assert found["cpu_cores"] == 0.05


def test_a_request_without_a_first_token_is_later_than_any() -> None:
    times = Histogram()
    for number in range(1, 81):
        times.add(number / 10)
    everyone = quantiles(times, 80)
    assert everyone["p50"] == pytest.approx(4.0, rel=0.01)
    assert everyone["p90"] == pytest.approx(7.2, rel=0.01)
    hung = quantiles(times, 100)
    assert hung["p50"] == pytest.approx(5.0, rel=0.01)
    assert hung["p90"] is None
    assert quantiles(Histogram(), 0) == {"p50": None, "p90": None}
    assert quantiles(times, 88)["p90"] == pytest.approx(8.0, rel=0.01)


def test_a_run_in_which_nothing_was_answered_is_none() -> None:
    found = FOUND | {"total": WHOLE | {"answered": 0}}
    with pytest.raises(RivalError, match=r"nothing was answered: 50 requests began; http_503 1"):
        figures(found, SAMPLES, 0.25, 1)


def test_requests_that_were_cut_off_are_not_counted_as_answered() -> None:
    page = "".join(
        f'vllm:request_success_total{{engine="0",finished_reason="{reason}",model_name="m"}} {count}\n'
        for reason, count in (("stop", 3), ("length", 4.0), ("abort", 100), ("error", 100))
    )
    assert finished(page) == 7


def test_the_load_generator_accepts_what_it_is_given(tmp_path: Path) -> None:
    three = case("three")
    requests = workload(three, 1, tmp_path)
    found = Fleet(targets=dict.fromkeys(three.regions, "http://127.0.0.1:9000"))
    found.proxies.append(BY_NAME[SKYLB].proxy(site(tmp_path)))
    words = load_command(three, found, requests, tmp_path / "report.json", tmp_path)
    settings = LoadSettings.model_validate(json.loads(Path(words[-1]).read_text()))
    assert settings.time_scale == three.scale
    assert {target.region for target in settings.target} == set(three.users)
    assert settings.drain_s == three.drain_s * three.scale


def test_rivals_are_compared_with_skylb_in_the_same_repeat() -> None:
    own, other = (Row(Entry(case("one"), BY_NAME[name], "one")) for name in (SKYLB, "smg"))
    own.runs = {1: run(2.0), 2: run(4.0)}
    other.runs = {1: run(4.0), 2: run(4.0), 3: run(100.0)}
    assert base_of([other, own]) is own
    assert against(other, own, "ttft_p90_s") == [2.0, 1.0]
    assert against(other, None, "ttft_p90_s") == []
    assert cells(own, own)[-2:] == ["1", "1"]
    assert cells(other, own)[-1] == "1.50 (1.00 to 2.00)"
    assert cells(own, own)[4] == "3.00 (2.00 to 4.00)"
    assert "2 of 3 runs" in comparison_notes(own, own, 3)


@pytest.mark.parametrize("figure", [None, 0.0])
def test_a_repeat_without_a_figure_leaves_no_ratio_and_no_mean_of_the_others(figure: float | None) -> None:
    own, other = (Row(Entry(case("one"), BY_NAME[name], "one")) for name in (SKYLB, "smg"))
    own.runs = {1: run(2.0), 2: run(4.0)}
    other.runs = {1: run(1.0), 2: run() | {"ttft_p90_s": figure, "answered_measured": 45}}
    assert against(other, own, "ttft_p90_s") == []
    assert cells(other, own)[-1] == "none"
    notes = "\n".join(comparison_notes(other, own, 2))
    assert "no ratio of TTFT P90" in notes
    assert "no ratio of tokens/s" not in notes
    assert "5 of 100 measured requests have no complete answer" in notes
    if figure is None:
        assert cells(other, own)[4] == "none"


def test_the_picture_has_a_word_instead_of_a_bar_of_nothing(tmp_path: Path) -> None:
    row = Row(Entry(case("one"), BY_NAME["smg"], "one"), {1: run() | {"ttft_p90_s": None}})
    axes = Figure().subplots()
    plot._bars(axes, [row], "ttft_p90_s", "")
    assert [text.get_text().strip() for text in axes.texts] == ["none"]
    plot._bars(axes, [row], "tokens_per_s", "")
    assert len(axes.texts) == 1


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
    row = Row(Entry(case("life"), BY_NAME["litellm"], "one"))
    row.runs = {1: run() | {"cpu_cores": 0.95, "late": True, "rest_share": 0.95}}
    row.reason = "it did not start"
    notes = "\n".join(row.notes())
    for told in (
        "0.95 of its core",
        "waited for its core for 25%",
        "3 answers were of other prompts",
        "late in 1 of 1",
        "a run failed",
        "more than 90% of their cores in 1 of 1 runs",
    ):
        assert told in notes
