"""``skylb why``: a receipt in sentences."""

from typing import Any

import pytest

from skylb import _core
from skylb.tools.operate.why import ENDS, ms, render


def candidate(name: str, total_ms: int, *, room: bool = True, closed: str | None = None) -> dict[str, Any]:
    """A candidate under ``predictive``, whose cost is its own time."""
    return {
        "replica": f"http://{name}",
        "room": room,
        "closed": closed,
        "in_flight": 1,
        "match_blocks": 2,
        "figures": {
            "start_in_ns": 20_000_000,
            "uncached_tokens": 400,
            "ns_per_token": 250_000,
            "ttft_ns": total_ms * 1_000_000,
        },
        "score": {"imposed_ns": 3_000_000, "total_ns": total_ms * 1_000_000},
    }


def search(**changed: Any) -> dict[str, Any]:
    found = {
        "found": "room",
        "basis": "time",
        "chosen": "http://a",
        "preferred": None,
        "home": None,
        "candidates": [candidate("b", 180), candidate("a", 120), candidate("c", 240)],
        "candidates_left_out": 0,
        "closed": [{"replica": "http://d", "why": "draining"}],
        "closed_left_out": 0,
    }
    return {**found, **changed}


def decision(result: str, at_ms: int, **more: Any) -> dict[str, Any]:
    made = {
        "at_ns": at_ms * 1_000_000,
        "result": result,
        "replica": None,
        "peer": None,
        "why": None,
        "code": None,
        "failed": None,
        "failed_ns": None,
        "first_byte_ns": None,
        "predicted_ttft_ns": None,
        "search": None,
        "peers": None,
    }
    return {**made, **more}


def receipt(*decisions: dict[str, Any], **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "request_id": "r-1",
        "submitted": "2026-11-30T14:00:00.000Z",
        "submitted_ns": 1_000_000_000,
        "route": "/v1/chat/completions",
        "model": "m",
        "class": "normal",
        "tenant": "acme",
        "origin": None,
        "prompt_bytes": 4_096,
        "prompt_blocks": 64,
        "session": True,
        "decisions": list(decisions),
        "decisions_left_out": 0,
        "held_ns": 0,
        "first_byte_ns": None,
        "ttft_ns": None,
        "end": None,
    }
    return {**made, **more}


def test_a_push_says_what_the_alternatives_would_have_cost_and_who_was_closed() -> None:
    push = decision("push", 1_000, replica="http://a", predicted_ttft_ns=117_000_000, search=search())
    end = {"at_ns": 3_400_000_000, "outcome": "ok", "prompt_tokens": 512, "cached_tokens": 384}
    text = render(receipt(push, first_byte_ns=1_130_000_000, ttft_ns=130_000_000, end=end))
    assert text == (
        "Request r-1 (/v1/chat/completions, model m, class normal, tenant acme) came at "
        "2026-11-30T14:00:00.000Z with a prompt of 4,096 bytes (64 blocks). It belongs to a session. "
        "It was pushed to a, where its cost was lowest. "
        "There the first token was reckoned 120 ms away: 20 ms until it could start, and 400 tokens to "
        "compute at 250 us each; other requests lose 3.0 ms by it (weighed). "
        "Alternatives: b would have cost 180 ms, c would have cost 240 ms. "
        "Closed to it: d (draining). "
        "The first byte came 130 ms later, where 117 ms were predicted: 130 ms after the request. "
        "The engine reported 384 of 512 prompt tokens cached. It was answered, 2,400 ms after it came."
    )


def test_a_request_that_was_held_says_for_whom_and_how_long() -> None:
    full = candidate("b", 90, room=False, closed="pending")
    waited = search(
        found="better_to_wait", preferred="http://b", candidates=[full, candidate("a", 120)], closed=[]
    )
    hold = decision("hold", 1_000, why="better_to_wait", search=waited)
    push = decision(
        "push", 1_250, replica="http://b", search=search(chosen="http://b", basis="only", closed=[])
    )
    text = render(receipt(hold, push, held_ns=250_000_000))
    assert "It was held: b has no room. To wait for it is better than to take a, which has room." in text
    assert "After 250 ms in the hold it was pushed to b, the only one that could take it." in text
    assert text.endswith("It has not ended.")


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("no_room", "It was held: no replica had room."),
        ("none_ready", "It was held: no replica here was ready for it."),
        ("others_first", "It was held: requests that wait have the right to the room there is."),
        ("leaves", "It was held until a peer has room: this region is evacuated."),
        ("lists_are_read", "It was held until the replicas had told their models: its model was in no list."),
    ],
)
def test_every_reason_to_hold_is_said(why: str, said: str) -> None:
    assert said in render(
        receipt(decision("hold", 1_000, why=why, search=search(candidates=[], chosen=None)))
    )


def test_a_forward_names_the_balancer_to_ask_next() -> None:
    there = {"peer": "eu", "rtt_ns": 90_000_000, "room": 3, "ttft_ns": 310_000_000, "closed": None}
    peers = {"best": "eu", "here_ttft_ns": 900_000_000, "leaves": True, "looked_at": [there]}
    text = render(receipt(decision("forward", 1_000, peer="eu", peers=peers)))
    assert "It was forwarded to balancer eu, a round trip of 90 ms away, which granted room for 3." in text
    assert "Its first token was reckoned 310 ms away, against 900 ms here." in text
    assert "Balancer eu has its own receipt: skylb why r-1 --admin ADMIN_ADDRESS_OF_eu." in text


def test_a_push_says_why_peers_were_not_taken() -> None:
    looked_at = [
        {"peer": "eu", "rtt_ns": 90_000_000, "room": 3, "ttft_ns": 310_000_000, "closed": None},
        {"peer": "asia", "rtt_ns": None, "room": 0, "ttft_ns": None, "closed": "no_room"},
    ]
    peers = {"best": "eu", "here_ttft_ns": 120_000_000, "leaves": False, "looked_at": looked_at}
    push = decision("push", 1_000, replica="http://a", search=search(), peers=peers, failed="reset")
    refused = decision("refuse", 1_100, code="upstream_reset")
    text = render(receipt(push, refused))
    assert "looked at and not taken: eu (first token 310 ms away), asia (no_room)." in text
    assert "That attempt failed: reset. It was refused: upstream_reset." in text


def test_times_are_written_as_people_read_them() -> None:
    assert [ms(ns) for ns in (0, 1_500_000, 99_400_000, 12_345_000_000)] == [
        "0.0 ms",
        "1.5 ms",
        "99 ms",
        "12.3 s",
    ]


def test_every_end_of_a_request_has_its_words() -> None:
    names = {name.removeprefix("OUTCOME_").lower() for name in dir(_core) if name.startswith("OUTCOME_")}
    assert set(ENDS) == names


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        ("ok", 200, "It was answered, 2,000 ms"),
        ("ok", 400, "It was answered with status 400, 2,000 ms"),
        ("replica_failed", 502, "The replica failed (status 502), 2,000 ms"),
        ("client_left", None, "The client left, 2,000 ms"),
    ],
)
def test_an_answer_that_is_an_error_is_not_called_an_answer_alone(
    outcome: str, status: int | None, said: str
) -> None:
    push = decision("push", 1_000, replica="http://a", search=search())
    end = {"at_ns": 3_000_000_000, "outcome": outcome, "status": status}
    end |= {"prompt_tokens": None, "cached_tokens": None}
    assert said in render(receipt(push, end=end))


def test_a_stream_that_was_given_up_says_where_and_why() -> None:
    first = decision("push", 1_000, replica="http://a", search=search())
    first.update(failed="reset", first_byte_ns=1_100_000_000, failed_ns=3_600_000_000)
    second = decision("push", 3_600, replica="http://b", search=search(chosen="http://b"))
    text = render(receipt(first, {**second, "first_byte_ns": 3_700_000_000}))
    assert "It streamed for 2,500 ms, and was given up there: reset." in text
    assert "pushed to b" in text
