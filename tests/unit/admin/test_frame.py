"""What a balancer's own page shows: samples, events, troubles, and the frame made of them."""

from typing import Any

import msgspec
import pytest

from skylb.admin.frame import EVENTS_SHOWN, frame
from skylb.admin.members import condition
from skylb.admin.pulse import EVENTS_LEN, PULSES_LEN, Member, Pulse, Pulses
from skylb.admin.state import State
from skylb.admin.trouble import HELD_S

URL = "http://gpu-1:8000"
KEY = "replica gpu-1:8000"


def state(
    uptime_s: float = 10.0,
    *,
    held: int = 0,
    peers: tuple[str, ...] = (),
    evacuating: bool = False,
    **replica: Any,
) -> State:
    """A balancer with one replica."""
    row = {
        "name": URL,
        "replica": 7,
        "health": "up",
        "in_flight": 0,
        "pending": 0,
        "tree_blocks": 0,
        "pushed_total": 0,
        "cached_tokens_total": 0,
        "prompt_tokens_total": 0,
        **replica,
    }
    engine: dict[str, Any] = {
        "replicas": [row],
        "hold": {"requests": held},
        "peers": [{"name": name, "region": name, "state": "alive", "rtt_ns": 90_000_000} for name in peers],
    }
    process = {"uptime_s": uptime_s, "policy": "predictive", "version": "0.1.0"}
    mesh = {"name": "us", "region": "us", "evacuating": evacuating} if peers else None
    return msgspec.convert({"process": process, "engine": engine, "mesh": mesh}, State)


def pulses(condition: str = "up", **members: str) -> Pulses:
    """Samples of ten seconds, at the end of which everything is in these conditions."""
    found = Pulses()
    for second in range(11):
        found.add(Pulse(uptime_s=float(second), ended=10 * second))
    found.look(
        10.0, {KEY: Member(condition=condition)} | {n: Member(condition=c) for n, c in members.items()}
    )
    return found


def said(condition: str, **more: Any) -> str:
    return frame(state(), pulses(condition), serves=more.get("serves", True)).headline


# ------------------------------------------------------------------------------ headline


def test_where_nothing_is_wrong_the_headline_says_so() -> None:
    shown = frame(state(), pulses(), serves=True)
    assert (shown.level, shown.headline) == ("good", "All well: 1 replica serves, nothing waits.")
    assert shown.troubles == []


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("down: connection refused", "Replica gpu-1:8000 has been down for 0 s: connection refused."),
        ("ejected: its last requests failed", "ejected for 0 s: its last requests failed."),
        ("blind: no load among its metrics", "blind for 0 s: no load among its metrics."),
    ],
)
def test_a_replica_that_does_not_serve_is_named_with_its_reason(condition: str, text: str) -> None:
    assert text in said(condition)


def test_what_an_operator_wanted_is_a_note_below_a_headline_that_all_is_well() -> None:
    shown = frame(state(), pulses("draining: by an operator"), serves=True)
    assert shown.level == "good"
    assert shown.headline.startswith("All well")
    assert [trouble.level for trouble in shown.troubles] == ["note"]


def test_the_worst_trouble_comes_first_and_the_others_below() -> None:
    found = pulses("blind: no metrics", **{"peer eu": "unreachable: refused"})
    shown = frame(state(peers=("eu",)), found, serves=False)
    assert (shown.level, shown.headline) == ("bad", "No request can be served: no replica is ready.")
    assert [trouble.text for trouble in shown.troubles] == [
        "Replica gpu-1:8000 has been blind for 0 s: no metrics.",
        "Peer eu is unreachable: refused.",
    ]


def test_an_evacuated_region_whose_replicas_are_well_is_no_region_that_cannot_serve() -> None:
    text = "This region is evacuated: its requests go to the other regions."
    shown = frame(state(peers=("eu",), evacuating=True), pulses(), serves=True)
    assert (shown.level, shown.headline, shown.troubles) == ("warn", text, [])
    shown = frame(state(peers=("eu",), evacuating=True), pulses("down"), serves=False)
    assert shown.headline == "No request can be served: no replica is ready."
    assert text in [trouble.text for trouble in shown.troubles]


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"leaves_in_s": 94.6}, "ends in 95 s"),
        ({"leaves_in_s": 0.0}, "its time is over"),
        ({"empties_in_s": 12.2}, "requests leave in 12 s"),
        ({"empties_in_s": 0.0}, "requests leave"),
    ],
)
def test_a_replica_that_is_left_at_a_time_shows_how_long_it_is_until_then(
    told: dict[str, float], text: str
) -> None:
    shown = frame(state(draining=True, **told), pulses("draining: by an operator"), serves=True)
    assert shown.replicas[0].reason == f"by an operator, {text}"
    assert shown.troubles[0].text.endswith(f": by an operator, {text}.")
    assert frame(state(), pulses(), serves=True).replicas[0].reason == ""


def test_an_evacuated_region_shows_when_its_streams_leave() -> None:
    mesh = {"name": "us", "region": "us", "evacuating": True}
    for left_s, text in ((7.4, "Those that run leave in 7 s."), (0.0, "Those that run leave.")):
        told = msgspec.to_builtins(state(peers=("eu",))) | {"mesh": mesh | {"leaves_in_s": left_s}}
        shown = frame(msgspec.convert(told, State), pulses(), serves=True)
        assert shown.headline.endswith(f"to the other regions. {text}")


def test_a_forward_that_a_peer_was_refused_is_no_failed_request_and_a_client_refused_for_a_peer_is() -> None:
    found = pulses()
    forwards = {"peer_hold_max": 4, "evacuating": 3, "not_served_here": 2, "hop_limit": 1}
    found.add(Pulse(uptime_s=11.0, ended=120, errors=forwards))
    shown = frame(state(), found, serves=True)
    assert shown.headline.startswith("All well")
    assert {error.code: error.count for error in shown.errors} == forwards
    found.add(Pulse(uptime_s=12.0, ended=121, errors=forwards | {"peers_full": 1}))
    shown = frame(state(), found, serves=True)
    assert shown.headline == "1 of 121 requests failed in the last 12 s: peers_full."


def test_failed_requests_are_bad_where_they_are_many_and_those_of_clients_are_no_trouble() -> None:
    found = pulses()
    found.add(Pulse(uptime_s=11.0, ended=200, errors={"upstream_reset": 2, "invalid_json": 90}))
    shown = frame(state(), found, serves=True)
    assert (shown.level, shown.headline) == (
        "warn",
        "2 of 200 requests failed in the last 11 s: upstream_reset.",
    )
    found.add(Pulse(uptime_s=12.0, ended=220, errors={"upstream_reset": 20, "hold_timeout": 3}))
    shown = frame(state(), found, serves=True)
    assert shown.level == "bad"
    assert shown.headline.endswith("most with upstream_reset.")
    assert [(error.code, error.count, error.side) for error in shown.errors] == [
        ("upstream_reset", 20, "replica"),
        ("hold_timeout", 3, "SkyLB"),
    ]


def test_requests_that_wait_are_a_trouble_once_they_wait_without_a_break() -> None:
    found = pulses()
    found.add(Pulse(uptime_s=11.0, held=3))
    assert frame(state(held=3), found, serves=True).level == "good"
    found.add(Pulse(uptime_s=12.0 + HELD_S, held=2))
    assert frame(state(held=2), found, serves=True).headline == (
        "2 requests wait in the hold: no replica has room for them."
    )
    assert frame(state(held=1), found, serves=True).headline == (
        "1 request waits in the hold: no replica has room for it."
    )


# ---------------------------------------------------------------------- samples and events


def test_errors_older_than_the_recent_time_are_no_longer_counted() -> None:
    found = pulses()
    found.add(Pulse(uptime_s=20.0, ended=200, errors={"upstream_reset": 2}))
    found.add(Pulse(uptime_s=100.0, ended=300, errors={"upstream_reset": 2}))
    found.add(Pulse(uptime_s=110.0, ended=310, errors={"upstream_reset": 3}))
    assert found.window() == (10.0, 10, {"upstream_reset": 1})


def test_latencies_of_long_ago_are_not_shown() -> None:
    found = Pulses()
    found.add(Pulse(uptime_s=1.0, ended=5, ttft_p50_s=0.3))
    found.add(Pulse(uptime_s=2.0, ended=6, ttft_p50_s=0.3))
    assert frame(state(), found, serves=True).vitals.ttft_p50_s == 0.3
    found.add(Pulse(uptime_s=100.0, ended=6, ttft_p50_s=0.3))
    assert frame(state(), found, serves=True).vitals.ttft_p50_s is None


def test_a_change_of_condition_is_one_event_with_its_reason_and_a_change_of_reason_is_none() -> None:
    found = pulses()
    assert list(found.events) == []  # the state at the start is no event
    found.look(11.0, {KEY: Member(condition="down: refused")})
    found.look(12.0, {KEY: Member(condition="down: no route")})
    found.look(13.0, {KEY: Member(condition="up")})
    assert [(event.at_s, event.level, event.text) for event in found.events] == [
        (11.0, "bad", f"{KEY} is down: refused"),
        (13.0, "good", f"{KEY} is up"),
    ]
    assert found.since_s(KEY) == 13.0


def test_replicas_that_join_and_leave_are_events() -> None:
    found = pulses()
    found.look(11.0, {"replica gpu-2:8000": Member(condition="unknown")})
    assert [event.text for event in found.events] == [
        "replica gpu-2:8000 has joined and is unknown",
        "replica gpu-1:8000 has left",
    ]


def test_samples_and_events_are_bounded() -> None:
    found = Pulses()
    for second in range(PULSES_LEN + 50):
        found.add(Pulse(uptime_s=float(second)))
        found.look(float(second), {KEY: Member(condition="up" if second % 2 else "blind")})
    assert len(found.events) == EVENTS_LEN
    shown = frame(state(), found, serves=True)
    assert len(shown.events) == EVENTS_SHOWN
    assert shown.events[0].at_s > shown.events[1].at_s


def test_a_large_fleet_is_looked_at_less_often() -> None:
    found = Pulses()
    assert found.members_due(0.0)
    found.look(0.0, {f"replica {number}": Member(condition="up") for number in range(1000)})
    assert not found.members_due(1.0)
    assert found.members_due(4.0)


def test_the_hit_rate_is_that_of_the_recent_time_and_starts_anew_with_another_server() -> None:
    found = pulses()
    found.look(11.0, {KEY: Member(condition="up", cached=50, prompt=100)})
    assert found.hit_rate(KEY) == 0.5
    for second in range(20, 100, 10):
        found.look(float(second), {KEY: Member(condition="up", cached=50, prompt=100)})
    assert found.hit_rate(KEY) is None
    found.look(100.0, {KEY: Member(condition="up", cached=3, prompt=4)})
    assert found.hit_rate(KEY) == 0.75


def test_forwards_per_second_are_counted_between_two_samples() -> None:
    found = Pulses()
    for second, forwarded in ((10.0, 100), (12.0, 107)):
        found.add(Pulse(uptime_s=second))
        found.look(second, {"peer eu": Member(condition="alive", forwarded=forwarded)})
    shown = frame(state(12.0, peers=("eu",)), found, serves=True)
    assert [(peer.name, peer.word, peer.rtt_s, peer.per_s) for peer in shown.peers] == [
        ("eu", "alive", 0.09, 3.5)
    ]


def test_without_a_mesh_there_are_no_peers() -> None:
    shown = frame(state(), pulses(), serves=True)
    assert (shown.balancer, shown.peers) == ("", [])


# ------------------------------------------------------------------------------ conditions


@pytest.mark.parametrize(
    ("health", "said_by_control", "drained_by", "word"),
    [
        ("up", "up", None, "up"),
        ("up", "up; models unknown: /v1/models gave 500", None, "up; models unknown: /v1/models gave 500"),
        ("up", "up", "by an operator", "draining: by an operator"),
        ("ejected", "up", "by an operator", "ejected: its last requests failed"),
        ("ejected", "down: refused", "by an operator", "down: refused"),
        ("up", "blind: no metrics", None, "blind: no metrics"),
        (
            "up",
            "down: [Errno 111] Connect call failed ('127.0.0.1', 1)",
            None,
            "down: connection refused",
        ),
    ],
)
def test_of_several_conditions_that_counts_which_hinders_requests_most(
    health: str, said_by_control: str, drained_by: str | None, word: str
) -> None:
    assert condition(health, said_by_control, drained_by) == word
