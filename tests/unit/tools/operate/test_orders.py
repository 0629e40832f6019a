"""``skylb drain``, ``undrain``, ``evacuate`` and ``state``: what they ask, and what they print."""

import json
from typing import Any

import pytest

from skylb.errors import SkyLBError
from skylb.tools.operate import drain as orders
from skylb.tools.operate.drain import DrainSettings, RegionSettings, ReplicaSettings
from skylb.tools.operate.state import faults, render

A = "http://10.0.0.1:8000"


def row(**changed: Any) -> dict[str, Any]:
    """A replica of ``/state``."""
    return {
        "name": A,
        "ready": True,
        "draining": False,
        "blind": False,
        "health": "up",
        "running": 3,
        "waiting": 1,
        "in_flight": 4,
        "theirs_in_flight": 0,
        "shared": False,
        "room": 2,
        "cached_tokens_total": 30,
        "prompt_tokens_total": 120,
        "models": ["m"],
    } | changed


def state(*rows: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """An answer to ``GET /state``."""
    return {
        "process": {
            "version": "0.1.0",
            "listen": ["127.0.0.1:8080"],
            "policy": "predictive",
            "uptime_s": 7200.0,
            "stopping": False,
            "requests": 5,
            "connections": 6,
            "buffer_bytes": 1 << 20,
            "log_dropped": 0,
        },
        "replicas": {one["name"]: "up" for one in rows},
        "mesh": None,
        "keys": None,
        "engine": {
            "replicas": list(rows),
            "hold": {"requests": 1, "len_max": 10},
            "tree": {"bytes": 0, "bytes_max": 1 << 28},
        },
    } | changed


class Asked:
    """Stands for a balancer: answers in turn, and notes what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.paths: list[str] = []

    def __call__(self, settings: object, method: str, path: str, body: bytes | None = None) -> Any:
        self.paths.append(f"{method} {path}")
        return self.answers.pop(0)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skylb.tools.operate.drain.time.sleep", lambda _: None)


def balancer(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> Asked:
    asked = Asked(*answers)
    monkeypatch.setattr(orders, "ask", asked)
    return asked


def test_drain_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = balancer(monkeypatch, {"replica": A, "id": 1, "draining": True}, state(row()))
    said = orders.drain(DrainSettings(replica=A))
    assert said == (
        f"{A} drains: it gets no new requests from this balancer. In flight there: 4. "
        f"skylb drain {A} --wait waits for their end."
    )
    assert asked.paths == [f"POST /replicas/{A}/drain", "GET /state"]


def drained(monkeypatch: pytest.MonkeyPatch, *others: dict[str, Any], **changed: Any) -> str:
    """What a drain of a replica of the model m prints, beside other replicas."""
    answer = state(row(in_flight=0, ready=False, draining=True), *others, **changed)
    balancer(monkeypatch, {"replica": A, "draining": True}, answer)
    return orders.drain(DrainSettings(replica=A))


def test_drain_says_where_no_replica_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = "No replica takes requests now."
    assert drained(monkeypatch).endswith(f"it can be stopped. {nothing}")
    assert drained(monkeypatch, row(name="b", ready=False)).endswith(nothing)
    assert drained(monkeypatch, row(name="b", draining=True)).endswith(nothing)
    assert drained(monkeypatch, row(name="b", models=["n"])).endswith("takes requests for m now.")
    peers = {"evacuating": False, "peers": [{"peer": "eu", "state": "alive", "fault": None}]}
    assert drained(monkeypatch, mesh=peers).endswith(f"{nothing} They go to peers that serve them.")


@pytest.mark.parametrize("models", [["m", "n"], []])
def test_drain_says_nothing_while_another_serves_the_model(
    models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drained(monkeypatch, row(name="b", models=models)).endswith("it can be stopped.")


def test_drain_waits_until_nothing_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [state(row(in_flight=2)), state(row(in_flight=1)), state(row(name="b"))]
    balancer(monkeypatch, {"replica": A, "draining": True}, *answers)
    assert orders.drain(DrainSettings(replica="1", wait=True)).endswith(
        "Nothing is in flight there: it can be stopped."
    )
    balancer(monkeypatch, {"replica": A, "draining": True}, state(row(in_flight=0)))
    assert json.loads(orders.drain(DrainSettings(replica="1", json_=True)))["in_flight"] == 0


def test_requests_of_other_balancers_count_and_must_be_drained_there(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"replica": A, "draining": True}
    balancer(monkeypatch, answer, state(row(in_flight=1, theirs_in_flight=3, shared=True)))
    said = orders.drain(DrainSettings(replica=A))
    assert "In flight there: 4, 3 of them from other balancers." in said
    assert said.endswith(orders.SHARED)
    left = [state(row(in_flight=0, theirs_in_flight=count, shared=True)) for count in (2, 0)]
    asked = balancer(monkeypatch, answer, *left)
    said = orders.drain(DrainSettings(replica=A, wait=True))
    assert not asked.answers, "it waits for the others' requests too"
    assert said.endswith(f"Nothing is in flight there now. {orders.SHARED}")
    balancer(monkeypatch, answer, state(row(in_flight=1, theirs_in_flight=3, shared=True)))
    found = json.loads(orders.drain(DrainSettings(replica=A, json_=True)))
    assert found.items() >= {"in_flight": 1, "theirs_in_flight": 3, "shared": True}.items()


def test_one_that_left_and_came_back_has_the_requests_of_both_times(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = state(row(in_flight=0), row(in_flight=2, removed=True))
    balancer(monkeypatch, {"replica": A, "draining": True}, twice, state(row(in_flight=0)))
    assert orders.drain(DrainSettings(replica=A, wait=True)).endswith("it can be stopped.")
    balancer(monkeypatch, {"replica": A, "draining": True}, twice)
    assert "In flight there: 2." in orders.drain(DrainSettings(replica=A))


def test_the_wait_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(0, 10**12, 10**9))
    monkeypatch.setattr(orders, "monotonic_ns", lambda: next(moments))
    balancer(monkeypatch, {"replica": A, "draining": True}, *[state(row())] * 9)
    with pytest.raises(SkyLBError, match="4 requests are still in flight after 3 s"):
        orders.drain(DrainSettings(replica=A, wait=True, wait_s=3))
    balancer(
        monkeypatch, {"replica": A, "draining": True}, *[state(row(theirs_in_flight=2, shared=True))] * 9
    )
    with pytest.raises(SkyLBError, match=r"6 requests .* after 3 s, 2 of them from other balancers"):
        orders.drain(DrainSettings(replica=A, wait=True, wait_s=3))


def test_undrain_tells_a_replica_that_still_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    balancer(monkeypatch, {"replica": A, "draining": False})
    assert orders.undrain(ReplicaSettings(replica=A)) == f"{A} gets requests again."
    balancer(monkeypatch, {"replica": A, "draining": True, "note": "its source says that it leaves"})
    assert "still drains: its source says" in orders.undrain(ReplicaSettings(replica=A))


def test_what_runs_leaves_within_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"region": "us", "evacuating": True, "balancers": ["us-1"], "within_s": 30.0}
    here = {"in_flight": 5, "ending_here": 2, "of_peers": 1}
    asked = balancer(
        monkeypatch, said | here, said, {"replica": A, "draining": True, "empties_in_s": 9}, state(row())
    )
    lines = orders.evacuate(RegionSettings(region="us", within=30)).splitlines()
    assert lines[1:3] == [
        "What has not ended in 30 s goes on elsewhere, as others have room.",
        "In flight here: 5. Of these, 2 cannot go on elsewhere, and 1 are other balancers'.",
    ]
    assert "In flight" not in orders.evacuate(RegionSettings(region="us", within=30))
    assert "What has not ended in 9 s goes elsewhere" in orders.drain(DrainSettings(replica=A, within=9))
    assert asked.paths[0] == "POST /regions/us/evacuate?within=30"
    assert asked.paths[2] == f"POST /replicas/{A}/drain?within=9"


def test_evacuate_and_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {
        "region": "us",
        "evacuating": True,
        "balancers": ["us-1"],
        "note": "no peer can take requests now",
    }
    asked = balancer(monkeypatch, answer, answer | {"evacuating": False})
    lines = orders.evacuate(RegionSettings(region="us")).splitlines()
    assert lines[1:] == [
        "Note: no peer can take requests now.",
        "skylb evacuate us --end lets it take requests again.",
    ]
    assert orders.evacuate(RegionSettings(region="us", end=True)).startswith("us takes requests again")
    assert asked.paths == ["POST /regions/us/evacuate", "POST /regions/us/undrain"]


def test_state_has_a_table_of_workers_and_says_which_is_away() -> None:
    serves = {"worker": 1, "attached": True, "pid": 77, "connections": 12, "requests": 3}
    away = {"worker": 2, "attached": False, "pid": None, "connections": 0, "requests": 0}
    said = state(row(), workers=[one | {"cpu_s": 1.25, "lag_ms": 0.5} for one in (serves, away)])
    text = render(said, as_json=False)
    assert "│ 1      │ serves │ 77      │ 12          │ 3        │ 1.2 s │ 0.5 ms │" in text
    assert "│ 2      │ away   │ -       │" in text
    assert "worker 2 is away" in faults(said)
    assert "worker" not in render(state(row()), as_json=False)


def test_state_is_a_row_per_replica() -> None:
    text = render(state(row(), row(name="http://b", draining=True)), as_json=False)
    assert "up 2 h" in text
    (line,) = (line for line in text.splitlines() if f" {A} " in line)
    for cell in ("up", "3", "1", "4", "2", "25 %", "m"):
        assert f" {cell} " in line
    assert all(len(line) <= 100 for line in text.splitlines())
    assert json.loads(render(state(row()), as_json=True))["engine"]["replicas"][0]["name"] == A


PEERS = {"evacuating": True, "peers": [{"peer": "eu", "state": "dead", "fault": None}]}


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (state(row()), None),
        (state(), "no replica takes requests"),
        (state(row(), replicas={A: "down: refused"}), f"{A}: down: refused"),
        (state(row(health="ejected")), f"{A}: requests there fail (ejected)"),
        (state(row(draining=True)), f"{A}: drains, 4 in flight"),
        (
            state(row(draining=True, shared=True, theirs_in_flight=2)),
            f"{A}: drains, 4 in flight, 2 from other balancers",
        ),
        (state(row(), mesh=PEERS), "this region is evacuated"),
        (state(row(), mesh=PEERS), "peer eu: dead"),
        (state(row(), keys={"file": "k", "fault": "broken"}), "keys file k: broken"),
        (
            state(row(), recording={"directory": "/r", "active": False, "dropped": 7}),
            "recording to /r has stopped: see the log",
        ),
        (
            state(row(), spans={"url": "http://c", "failing": True, "dropped": {"unreachable": 44}}),
            "collector http://c does not take spans: 44 dropped",
        ),
        (state(row(), spans={"url": "http://c", "failing": False, "dropped": {"unreachable": 44}}), None),
    ],
)
def test_what_is_wrong_is_said(said: dict[str, Any], fault: str | None) -> None:
    found = faults(said)
    assert (found == []) if fault is None else any(fault in one for one in found)
