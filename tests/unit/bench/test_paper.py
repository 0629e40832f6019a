"""The arithmetic of ``make paper``: ratios, replicas needed, the day's curve, goals, and what is left out."""

import math
from dataclasses import replace

import msgspec
import pytest

from bench.paper import __main__ as command
from bench.paper.cells import DAY, DAY_EVEN, EVEN, SKEW, TABLE, split
from bench.paper.checks import checks, never_kept, worse
from bench.paper.claims import Claim, verdict
from bench.paper.columns import columns_of, merged
from bench.paper.curve import DAY_HOURS, PEAK_HOUR, Clock, demand, peaks_over_peak
from bench.paper.figures import ratio
from bench.paper.keep import stored
from bench.paper.page import document
from bench.paper.replicas import equal_p90, needed, needed_between, saving, series
from bench.paper.runs import SYSTEMS_MAX, Cell, Figures, Found, figures, run_task, tasks
from bench.paper.systems import BY_NAME, LOCAL, OURS, SYSTEMS, System, fault_of, known, named, varied
from bench.paper.workloads import CASES, HOLD_TIMEOUT_S, LAYOUTS, day, requests_of, scenario
from skylb.tools.sim.requests import requests
from skylb.tools.sim.simulate import finish, prepare

CASE = {case.name: case for case in CASES}


def row(seed: int, **figures: float) -> Figures:
    every: Figures = {
        "tokens_per_s": 100.0,
        "output_tokens_per_s": 20.0,
        "failed": 0.0,
        "ttft_p50_s": 0.2,
        "ttft_p90_s": 1.0,
        "e2e_p50_s": 9.0,
        "hit_rate": 0.5,
        "load_spread": 1.5,
        "forwards": 0.0,
    }
    return {"seed": float(seed)} | every | figures


# ------------------------------------------------------------------------------ figures


def test_a_ratio_is_of_the_means_of_seeds_that_both_have() -> None:
    ours = [row(1, ttft_p90_s=1.0), row(2, ttft_p90_s=3.0), row(3, ttft_p90_s=100.0)]
    theirs = [row(2, ttft_p90_s=6.0), row(1, ttft_p90_s=2.0)]
    found = ratio(ours, theirs, "ttft_p90_s")
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    inverse = ratio(ours, theirs, "ttft_p90_s", inverse=True)
    assert inverse is not None
    assert inverse.mean == pytest.approx(2.0)


def test_there_is_no_ratio_without_a_common_seed_or_to_nothing() -> None:
    assert ratio([row(1)], [row(2)], "hit_rate") is None
    assert ratio([row(1)], [row(1, hit_rate=0.0)], "hit_rate") is None
    assert ratio([row(1)], [], "hit_rate") is None


def test_worse_is_above_one_in_both_directions() -> None:
    assert worse([row(1, ttft_p90_s=2.0)], [row(1, ttft_p90_s=1.0)], "ttft_p90_s") == 2.0
    assert worse([row(1, tokens_per_s=50.0)], [row(1)], "tokens_per_s") == 2.0
    assert worse([row(1)], [row(2)], "tokens_per_s") is None


# ----------------------------------------------------------------------------- replicas

LOCAL_P90 = {9: 20.0, 12: 8.0, 15: 4.0, 18: 1.5}
OUR_P90 = {9: 6.0, 12: 1.8, 15: 1.6, 18: 1.4}


def test_the_fewest_replicas_keep_the_bound_with_all_larger_numbers() -> None:
    assert needed(LOCAL_P90, 2.0) == 18
    assert needed(OUR_P90, 2.0) == 12
    assert needed({9: 1.0, 12: 3.0, 15: 1.0}, 2.0) == 15
    assert needed(OUR_P90, 1.0) is None
    assert saving(OUR_P90, LOCAL_P90, 2.0) == (12, 18)
    assert saving(OUR_P90, LOCAL_P90, 1.45) is None


def test_between_numbers_the_logarithm_is_linear() -> None:
    assert needed_between({10: 4.0, 12: 1.0}, 2.0) == pytest.approx(11.0)
    assert needed_between({10: 4.0, 12: 1.0}, 4.0) == 10.0
    assert needed_between({10: 4.0}, 2.0) is None


def test_equal_p90_is_bounded_by_what_the_other_has() -> None:
    assert equal_p90(OUR_P90, LOCAL_P90, 12) == 9
    assert equal_p90(OUR_P90, LOCAL_P90, 18) == 18
    assert equal_p90(OUR_P90, LOCAL_P90, 10) is None


def test_a_series_has_the_cells_of_its_placement_by_number() -> None:
    cells = {"even 12": {"a": [row(1, ttft_p90_s=2.0)]}, "even 9": {"a": [row(1)]}}
    cells["by users 9"] = {"a": [row(1)]}
    assert series(cells, "even", "ttft_p90_s") == {"a": {9: 1.0, 12: 2.0}}


@pytest.mark.parametrize(
    ("count", "shares", "expected"),
    [
        (12, (1, 1, 1), (4, 4, 4)),
        (3, (60, 20, 20), (1, 1, 1)),
        (6, (120, 40, 40), (4, 1, 1)),
        (15, (120, 40, 40), (9, 3, 3)),
        (20, (98, 1, 1), (18, 1, 1)),
    ],
)
def test_replicas_are_split_by_shares_and_every_region_has_one(
    count: int, shares: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    assert split(count, shares) == expected


def test_too_few_replicas_for_the_regions_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        split(2, (1, 1, 1))


# -------------------------------------------------------------------------------- curve


def test_the_curve_is_what_its_module_says() -> None:
    hours = [DAY_HOURS * step / 240 for step in range(240)]
    values = [demand(hour) for hour in hours]
    assert max(values) == demand(PEAK_HOUR) == 1.0
    assert max(values) / min(values) == pytest.approx(5.0, abs=0.05)
    assert max(values) / (sum(values) / len(values)) == pytest.approx(1.9, abs=0.02)
    assert peaks_over_peak({"us": 1.0, "eu": 1.0, "asia": 1.0}) == pytest.approx(1.67, abs=0.01)


def test_a_clock_keeps_order_and_ends_and_puts_sessions_where_demand_is() -> None:
    clock = Clock("eu", 1200.0)
    moved = [clock.at(1200.0 * step / 4000) for step in range(4001)]
    assert moved == sorted(moved)
    assert moved[0] == 0.0
    assert moved[-1] == pytest.approx(1200.0)
    peak_s = 1200.0 * (PEAK_HOUR - 1.0) / DAY_HOURS  # eu is an hour ahead
    near = sum(abs(t_s - peak_s) < 50.0 for t_s in moved)
    far = sum(abs(t_s - peak_s) > 550.0 for t_s in moved)
    assert near / far == pytest.approx(5.0, rel=0.15)


def test_a_day_moves_whole_sessions_and_changes_nothing_else() -> None:
    case = day((60, 20, 20))
    made_for = scenario(case, (2, 2, 2), 1, 1200.0, 60.0)
    steady, moved = columns_of(requests(made_for)), columns_of(requests_of(case, made_for))
    assert sorted(steady["id"]) == sorted(moved["id"])
    began = dict(zip(steady["id"], steady["t"], strict=True))
    shifts: dict[int, set[float]] = {}
    seen = set()
    columns = (moved[name] for name in ("id", "after", "session", "t"))
    for id_, after, session, t_s in zip(*columns, strict=True):
        seen.add(id_)
        assert after is None or after in seen
        shifts.setdefault(session, set()).add(round(t_s - began[id_], 6))
    assert all(len(of_session) == 1 for of_session in shifts.values())


# ---------------------------------------------------------------------------- workloads


def test_the_mixed_tree_has_wide_programs_in_us_alone_and_shares_no_blocks() -> None:
    case = CASE["mixed-tree"]
    columns = columns_of(requests_of(case, scenario(case, LAYOUTS["444"], 1, 60.0, 0.0)))
    assert len(set(columns["id"])) == len(columns["id"])
    sizes: dict[int, int] = {}
    regions: dict[int, str] = {}
    users: dict[int, set[str]] = {}
    for session, region, user in zip(columns["session"], columns["region"], columns["user"], strict=True):
        sizes[session] = sizes.get(session, 0) + 1
        assert regions.setdefault(session, region) == region
        users.setdefault(user, set()).add(region)
    assert {sizes[session] for session, region in regions.items() if region == "us"} == {340}
    assert {sizes[session] for session, region in regions.items() if region != "us"} == {30}
    assert all(len(where) == 1 for where in users.values())


def test_merged_workloads_keep_what_sessions_share() -> None:
    case = CASE["wildchat"]
    base = scenario(case, LAYOUTS["444"], 1, 60.0, 0.0)
    one = requests_of(case, base)
    both = columns_of(merged(one, one))
    first = {start for runs in columns_of(one)["runs"] for start, _ in runs}
    starts = {start for runs in both["runs"] for start, _ in runs}
    shared = {start for start in first if start >= 1 << 59}
    assert shared
    assert {start for start in starts if start >= 1 << 59} == shared
    assert len(starts) == 2 * len(first) - len(shared)


def test_regions_without_replicas_are_left_out() -> None:
    found = scenario(CASE["tot"], (4, 0, 0), 1, 60.0, 0.0)
    assert [region.name for region in found.regions] == ["us"]
    assert found.network.rtt_ms == [[0.5]]
    assert found.clients.users == {"us": 40}


# ------------------------------------------------------------------------------ systems


def test_settings_that_this_build_lacks_are_left_out_with_a_note() -> None:
    systems = [
        BY_NAME[OURS],
        System("new", "", "ours", "skylb", {"a_setting_of_tomorrow": 1}),
        System("value", "", "ours", "skylb", {"allowance": "of tomorrow"}),
    ]
    found, notes = known(systems)
    assert [system.name for system in found] == [OURS]
    assert notes == [
        "new is left out: this build has no setting a_setting_of_tomorrow",
        "value is left out: this build has no allowance = of tomorrow",
    ]


def test_a_value_out_of_range_is_a_fault_too() -> None:
    assert fault_of({"session_gain_s": 0.5}) is None
    assert "session_gain_s" in (fault_of({"session_gain_s": -1.0}) or "")


def test_set_adds_a_row_of_the_default_for_each_combination() -> None:
    found = varied(
        named(f"{LOCAL},{OURS}"),
        ["engine.session_gain_s=0.1,0.5", "engine.session_gain_ratio=0.5"],
        everywhere=False,
    )
    assert [system.name for system in found] == [
        LOCAL,
        OURS,
        f"{OURS} session_gain_s=0.1 session_gain_ratio=0.5",
        f"{OURS} session_gain_s=0.5 session_gain_ratio=0.5",
    ]
    assert found[-1].engine == {"policy": "predictive", "session_gain_s": 0.5, "session_gain_ratio": 0.5}
    everywhere = varied(named(f"{LOCAL},{OURS}"), ["session_gain_s=0.1"], everywhere=True)
    assert [system.set_ for system in everywhere] == [False, True, False, True]


def test_unknown_systems_and_settings_are_named() -> None:
    with pytest.raises(ValueError, match="no system nobody"):
        named("nobody")
    with pytest.raises(ValueError, match="no setting nothing"):
        varied(named(OURS), ["engine.nothing=1"], everywhere=False)


# -------------------------------------------------------------------------------- goals


def found_of(ours: float, local: float, ring: float, central: float) -> Found:
    """One cell of the table, with a P90 for each."""
    systems = {
        name: [row(1, ttft_p90_s=p90_s)]
        for name, p90_s in ((OURS, ours), (LOCAL, local), ("G-ring", ring), ("G-predictive", central))
    }
    return Found({TABLE: {"wildchat 323": systems}})


@pytest.mark.parametrize("option", ["parts", "workloads", "layouts"])
def test_a_name_that_is_not_there_is_an_error(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parsed([f"--{option}", "tabel"])
    assert f"--{option}: there is no tabel: expected some of" in capsys.readouterr().err


def test_goals_are_met_missed_or_open() -> None:
    met = checks(found_of(ours=1.0, local=1.0, ring=1.2, central=0.96))
    assert [check.met for check in met] == [None, True, None, True, True, None, None, None, None]
    missed = checks(found_of(ours=1.0, local=0.97, ring=0.9, central=0.9))
    assert [check.met for check in missed[:5]] == [None, False, None, False, False]
    assert "+3.1% (wildchat 323, P90, L-predictive; one central: -7.2%)" in missed[1].figure
    assert "+11.1% (wildchat 323, P90, G-ring)" in missed[3].figure


def test_goals_of_replicas_compare_numbers() -> None:
    cells = {
        f"{EVEN} {count}": {OURS: [row(1, ttft_p90_s=OUR_P90[count])], LOCAL: [row(1, ttft_p90_s=p90_s)]}
        for count, p90_s in LOCAL_P90.items()
    }
    days = {name.replace(EVEN, DAY_EVEN): systems for name, systems in cells.items()}
    found = checks(Found({SKEW: cells, DAY: days}))
    skew, day_ = (check for check in found if check.goal.endswith(f" {LOCAL}"))
    assert skew.met
    assert "8000 ms takes 9 of 9 to 18" in skew.figure
    assert day_.met
    assert day_.figure.startswith("12 instead of 18 (-33%")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1.3, 1.5), "yes"),
        ((1.05, 1.5), "partly (1 of 2)"),
        ((1.05, 1.1), "sign only"),
        ((0.9, 1.1), "sign in 1 of 2"),
        ((0.9, 0.8), "no"),
        ((), "-"),
    ],
)
def test_a_claim_reproduces_by_its_range_or_by_its_sign(values: tuple[float, ...], expected: str) -> None:
    claim = Claim("", "", (1.12, 2.06), lambda *_: {}, "")
    found = {str(at): float(value) for at, value in enumerate(values)}
    assert verdict(found, claim) == expected


# --------------------------------------------------------------------------------- runs


def test_tasks_take_all_systems_of_a_cell_in_turn() -> None:
    cell = Cell(TABLE, "tot 444", CASE["tot"], LAYOUTS["444"], SYSTEMS, 40.0, 10.0)
    parts = [task.systems for task in tasks(cell, 1)]
    assert [system for part in parts for system in part] == list(SYSTEMS)
    assert max(map(len, parts)) <= SYSTEMS_MAX


def test_systems_of_a_cell_get_the_same_requests_and_make_a_page() -> None:
    systems = tuple(BY_NAME[name] for name in ("G-round_robin", LOCAL, OURS))
    cell = Cell(TABLE, "wildchat 444", CASE["wildchat"], LAYOUTS["444"], systems, 40.0, 10.0)
    never_run = replace(cell, name="wildchat 323")
    todo = [task for seed in (1, 2) for task in tasks(cell, seed)]
    found = Found.of([*todo, *tasks(never_run, 1)])
    assert found.part(TABLE) == {}
    for task in reversed(todo):
        found.add(task, run_task(task))
    rows = found.part(TABLE)["wildchat 444"]
    assert [one["seed"] for one in rows[OURS]] == [1.0, 2.0]
    assert rows["G-round_robin"][0]["forwards"] == 0.0
    assert all(not math.isnan(one["ttft_p90_s"] or math.nan) for many in rows.values() for one in many)
    about = dict.fromkeys(("command", "requests", "commit", "wall_s", "cores", "cpu"), "1")
    about["interrupted"] = "yes"
    page = document(found, about, [("Throughput", "paper/throughput.png")])
    assert "### wildchat 444" in page
    assert "ended early" in page
    kept = msgspec.json.decode(stored(found, about))
    assert kept["figures"][TABLE].keys() == {"wildchat 444"}
    assert kept["figures"][TABLE]["wildchat 444"][OURS]["seeds"] == 2


def test_a_day_that_ours_never_keeps_is_missed_and_one_that_only_theirs_fails_is_met() -> None:
    slow, fast = {12: 9.0, 15: 9.0, 18: 9.0}, {12: 1.0, 15: 1.0, 18: 1.0}
    assert never_kept("day", slow, fast).met is False
    assert never_kept("day", fast, slow).met is True
    assert never_kept("day", {**slow, 18: 1.0}, slow).met is None, "18 against more than 18 tells nothing"
    assert never_kept("day", None, slow).met is None


def test_what_fails_is_not_left_out_of_first_tokens() -> None:
    case = next(case for case in CASES if case.name == "tot")
    base = scenario(case, (1, 0, 0), 1, 20.0, 0.0)
    base.engine["hold_timeout_s"] = 0.5
    result = finish(prepare(base, requests_of(case, base)))
    found = figures(result)
    assert result.total.failures > result.total.requests / 2
    assert found["ttft_p90_s"] == HOLD_TIMEOUT_S
