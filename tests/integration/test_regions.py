"""Three real balancers with mock replicas: what crosses, what never does, and who survives whom."""

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from skylb.data.crossing import SILENT_S
from tests.support.processes import PATIENCE_S, SKYLB, eventually
from tests.support.raw import Answer, ask, chat, request
from tests.support.regions import Region, Regions, regions

MANY = 48
"""Requests at once: more than one replica's pending room, fewer than all three replicas' room."""


RESIDENTS = {"sk-home": "home", "sk-exile": "exile", "sk-nowhere": "nowhere"}
"""API keys, and whose they are."""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Regions]:
    tenants = tmp_path_factory.mktemp("tenants") / "tenants"
    digests = {name: hashlib.sha256(key.encode()).hexdigest() for key, name in RESIDENTS.items()}
    tenants.write_text("".join(f"{name}:{digest}\n" for name, digest in digests.items()))
    rules = ["home/*=us", "exile/*=eu+mars", "nowhere/*=us", "nowhere/mock=eu"]
    arguments = ["--tenant-key-file", str(tenants)]
    for rule in rules:
        arguments += ["--residency", rule]
    with regions("us", "eu", "asia", arguments=arguments) as found:
        yield found


async def burst(
    region: Region, count: int, *, name: str, stream: bool = True, key: str | None = None
) -> list[Answer]:
    """Requests of their own prompts, all at once."""
    headers = () if key is None else (f"Authorization: Bearer {key}",)
    return await asyncio.gather(
        *(
            ask(
                region.front.port,
                request(
                    chat(f"{name} {index} asks", max_tokens=40, stream=stream),
                    request_id=f"{name}-{index}",
                    headers=headers,
                ),
            )
            for index in range(count)
        )
    )


def lines(region: Region, name: str, count: int) -> list[dict[str, object]]:
    """The access log's lines of one burst, once all are written."""

    def found() -> list[dict[str, object]] | None:
        mine = [line for line in region.front.log() if str(line["request_id"]).startswith(f"{name}-")]
        return mine if len(mine) >= count else None

    return eventually(found, what=f"{count} lines of {name}")


def test_what_one_region_has_no_room_for_is_answered_by_its_peers(three: Regions) -> None:
    answers = asyncio.run(burst(three["us"], MANY, name="spill"))
    assert [answer.status for answer in answers] == [200] * MANY
    assert all(answer.done_events == 1 for answer in answers)
    said = lines(three["us"], "spill", MANY)
    peers = Counter(line["peer"] for line in said)
    assert peers[None] > 0
    assert peers["eu"] + peers["asia"] > 0
    assert all((line["replica"] is None) == (line["peer"] is not None) for line in said)


def test_a_forward_is_served_by_the_peers_own_replicas_and_goes_no_further(three: Regions) -> None:
    asyncio.run(burst(three["us"], MANY, name="hop"))
    out = {str(line["request_id"]) for line in lines(three["us"], "hop", MANY) if line["peer"] is not None}
    assert len(out) > 0

    def served_elsewhere() -> list[dict[str, object]] | None:
        mine = [
            line
            for name in ("eu", "asia")
            for line in three[name].front.log()
            if str(line["request_id"]).startswith("hop-") and line["status"] == 200
        ]
        return mine if len(mine) >= len(out) else None

    taken = eventually(served_elsewhere, what=f"{len(out)} lines of forwards at the peers")
    assert sorted(str(line["request_id"]) for line in taken) == sorted(out)
    assert {line["peer"] for line in taken} == {"us"}
    served = {line["replica"] for line in taken}
    assert served <= {*three["eu"].replicas, *three["asia"].replicas}


def test_what_clients_write_into_our_headers_is_never_believed(three: Regions) -> None:
    lines_of = [
        b"X-SkyLB-Forward: v1;k1;eu;00;0;0;9;9;;00;00",
        b"X-SkyLB-Hop: 0",
        b"X-SkyLB-Refused: hold",
    ]
    body = b'{"model":"mock","messages":[{"role":"user","content":"hello"}],"max_tokens":4}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    head += b"X-Request-Id: client-0\r\n"
    data = head + b"\r\n".join(lines_of) + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    before = three["us"].front.metric("skylb_forwards_turned_away_total")
    answer = asyncio.run(ask(three["us"].front.port, data))
    assert answer.status == 200
    assert lines(three["us"], "client", 1)[0]["peer"] is None
    assert three["us"].front.metric("skylb_forwards_turned_away_total") == before


@pytest.mark.parametrize(
    "header", [b"", b"X-SkyLB-Forward: v1;k1;us;%s;1;1;1;1;;%s;%s\r\n" % (b"0" * 32, b"0" * 64, b"0" * 64)]
)
def test_the_peer_listener_lets_in_nobody_without_a_signature(three: Regions, header: bytes) -> None:
    body = b'{"model":"mock","messages":[]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n" + header
    data = head + b"Content-Length: %d\r\n\r\n" % len(body)
    before = three["eu"].front.metric("skylb_forwards_turned_away_total")
    answer = asyncio.run(ask(three["eu"].forward_port, data + body))
    assert answer.status == 403
    assert three["eu"].front.metric("skylb_forwards_turned_away_total") == before + 1
    refused = re.findall(
        r'^skylb_requests_total{from="(\w+)",.*status="403"}', three["eu"].front.metrics(), re.MULTILINE
    )
    assert refused == ["peer"]


def test_peers_shows_the_mesh(three: Regions) -> None:
    rows = three["us"].peers()
    assert set(rows) == {"eu", "asia"}
    for row in rows.values():
        assert row["state"] == "alive"
        assert row["fault"] is None
        assert row["rtt_s"] is not None
        assert row["age_s"] < 5
        assert row["bytes_in"] > 0 < row["bytes_out"]
    assert three["us"].front.metric("skylb_peer_rtt_seconds") > 0
    command = [*SKYLB, "peers", "--admin", f"127.0.0.1:{three['us'].front.admin_port}"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "us in us" in printed
    assert printed.count("alive") == 2


def test_nothing_goes_to_an_isolated_peer_and_it_comes_back(three: Regions) -> None:
    three["us"].verb("/peers/eu/isolate")
    try:
        asyncio.run(burst(three["us"], MANY, name="alone"))
        said = lines(three["us"], "alone", MANY)
        assert "eu" not in {line["peer"] for line in said}
        assert {line["status"] for line in said} == {200}
    finally:
        three["us"].verb("/peers/eu/rejoin")
    eventually(lambda: three["us"].peers()["eu"]["available"], what="room at eu again")


def test_an_evacuated_region_takes_nothing_and_its_clients_are_served_elsewhere(three: Regions) -> None:
    assert three["asia"].verb("/regions/us/evacuate")["balancers"] == ["us"]
    try:
        eventually(lambda: three["eu"].peers()["us"]["draining"], what="eu hears that us is evacuating")
        answers = asyncio.run(burst(three["us"], 8, name="moved"))
        assert {answer.status for answer in answers} == {200}
        assert {line["peer"] for line in lines(three["us"], "moved", 8)} <= {"eu", "asia"}
    finally:
        three["eu"].verb("/regions/us/undrain")
    eventually(lambda: three["eu"].peers()["us"]["available"], what="room at us again")


def test_held_work_leaves_a_region_that_is_evacuated_and_running_work_ends_there(three: Regions) -> None:
    us = three["us"]

    async def run() -> list[Answer]:
        asked = asyncio.ensure_future(burst(us, MANY, name="held"))
        held = partial(us.front.metric, "skylb_hold_requests")
        await asyncio.to_thread(eventually, lambda: held() > MANY // 2, what="held")
        await asyncio.to_thread(us.verb, "/regions/us/evacuate")
        for peer in ("eu", "asia"):
            await asyncio.to_thread(us.verb, f"/peers/{peer}/rejoin")
        return await asked

    for peer in ("eu", "asia"):
        us.verb(f"/peers/{peer}/isolate")
    try:
        answers = asyncio.run(run())
    finally:
        us.verb("/regions/us/undrain")
    assert all(answer.status == 200 and answer.done_events == 1 for answer in answers)
    peers = Counter(line["peer"] for line in lines(us, "held", MANY))
    assert 0 < peers[None] < MANY // 2
    three.settled()


def switch_faults(region: Region, **faults: object) -> None:
    """Changes what is wrong with a region's mock replicas."""
    for url in region.replicas:
        data = json.dumps(faults).encode()
        urllib.request.urlopen(urllib.request.Request(f"{url}/mock/faults", data), timeout=PATIENCE_S).close()


def test_a_request_is_tried_twice_over_both_balancers_and_not_more(three: Regions) -> None:
    us, eu = three["us"], three["eu"]

    def attempts() -> float:
        return sum(region.front.metric("skylb_attempts_total") for region in three.by_name.values())

    before = attempts()
    switch_faults(eu, error_rate=1.0)
    try:
        answers = asyncio.run(burst(us, 1, name="twice", key="sk-exile", stream=False))
    finally:
        switch_faults(eu, error_rate=0.0)
    assert {answer.status for answer in answers} <= {500, 502, 503}
    assert 1 <= attempts() - before <= 2, lines(eu, "twice", 1)
    eventually(lambda: eu.serves() == set(eu.replicas), what="its replicas are trusted again")
    three.settled()


def test_a_balancer_that_stood_still_hears_first_what_its_peers_said_meanwhile(three: Regions) -> None:
    us, eu = three["us"], three["eu"]
    pid = us.front.child.pid

    async def run() -> list[Answer]:
        asked = asyncio.ensure_future(burst(us, 2, name="still", key="sk-exile"))
        crossing = partial(eu.front.metric, "skylb_replica_in_flight")
        await asyncio.to_thread(eventually, lambda: crossing() == 2, what="forwarded")
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(SILENT_S + 1.5)
        os.kill(pid, signal.SIGCONT)
        return await asked

    switch_faults(eu, slow_head_ms=(SILENT_S + 4) * 1000)
    try:
        answers = asyncio.run(run())
    finally:
        switch_faults(eu, slow_head_ms=0)
    assert all(answer.status == 200 and answer.done_events == 1 for answer in answers)
    assert {(line["peer"], line["attempts"]) for line in lines(us, "still", 2)} == {("eu", 1)}
    three.settled()


def test_a_tenant_that_must_stay_is_held_here_whatever_room_there_is_elsewhere(three: Regions) -> None:
    answers = asyncio.run(burst(three["us"], MANY, name="home", key="sk-home"))
    assert {answer.status for answer in answers} == {200}
    assert {line["peer"] for line in lines(three["us"], "home", MANY)} == {None}


def test_a_tenant_that_must_not_stay_is_forwarded_whatever_room_there_is_here(three: Regions) -> None:
    answers = asyncio.run(burst(three["us"], 4, name="exile", key="sk-exile"))
    assert {answer.status for answer in answers} == {200}
    assert {line["peer"] for line in lines(three["us"], "exile", 4)} == {"eu"}
    assert {line["peer"] for line in lines(three["eu"], "exile", 4)} == {"us"}


def test_a_large_body_is_signed_and_forwarded_as_a_small_one(three: Regions) -> None:
    body = request(
        json.dumps(chat("hello", max_tokens=1)).encode()[:-1] + b" " * 1_000_000 + b"}",
        request_id="large-exile",
        headers=("Authorization: Bearer sk-exile",),
    )
    answer = asyncio.run(ask(three["us"].front.port, body))
    assert (answer.status, answer.complete) == (200, True), answer
    log = three["eu"].front.log
    eventually(lambda: any(line["request_id"] == "large-exile" for line in log()), what="in eu's log")


def test_where_no_region_is_allowed_the_answer_is_a_refusal_that_is_counted(three: Regions) -> None:
    event = 'skylb_engine_events_total{event="residency_refused"} '

    def refused() -> int:
        page = three["us"].front.metrics().splitlines()
        return sum(int(float(line.removeprefix(event))) for line in page if line.startswith(event))

    before = refused()
    answers = asyncio.run(burst(three["us"], 2, name="nowhere", key="sk-nowhere"))
    assert {answer.status for answer in answers} == {403}
    assert all(b'"code":"residency"' in answer.body for answer in answers)
    assert refused() == before + 2


def test_a_tenant_whose_region_cannot_be_reached_is_refused_rather_than_served_elsewhere(
    three: Regions,
) -> None:
    asia = three["asia"]
    asia.verb("/peers/eu/isolate")
    try:
        answers = asyncio.run(burst(asia, 2, name="stranded", key="sk-exile"))
        assert {answer.status for answer in answers} <= {403, 503}
        assert {(line["replica"], line["peer"]) for line in lines(asia, "stranded", 2)} == {(None, None)}
    finally:
        asia.verb("/peers/eu/rejoin")


def test_a_killed_balancer_loses_nothing_of_others_and_its_replicas_are_adopted_and_handed_back(
    three: Regions,
) -> None:
    us, eu, asia = three["us"], three["eu"], three["asia"]

    async def storm() -> list[Answer]:
        requests = asyncio.ensure_future(burst(us, MANY, name="storm"))
        await asyncio.sleep(0.05)
        await asyncio.get_running_loop().run_in_executor(None, eu.kill)
        return await requests

    answers = asyncio.run(storm())
    for answer in answers:
        whole = answer.status == 200 and answer.done_events == 1 and answer.error_events == 0
        cut = answer.status == 200 and answer.done_events == 0 and answer.error_events == 1
        assert whole or cut, answer
    adopted = eventually(
        lambda: [region for region in (us, asia) if set(eu.replicas) <= region.serves()],
        what="somebody serves the replicas of eu",
    )
    assert len(adopted) == 1
    (adopter,) = adopted
    stay = asyncio.run(burst(adopter, 4, name="kept", key="sk-exile"))
    assert {answer.status for answer in stay} == {200}
    assert {line["replica"] for line in lines(adopter, "kept", 4)} <= set(eu.replicas)
    eu.start()
    eventually(
        lambda: all(not set(eu.replicas) & region.serves() for region in (us, asia)), what="handed back"
    )
    three.settled()


def test_a_balancer_that_stops_says_so_and_its_replicas_are_adopted_at_once(three: Regions) -> None:
    us, eu, asia = three["us"], three["eu"], three["asia"]
    eu.front.child.send(signal.SIGTERM)
    assert eu.front.child.popen.wait(PATIENCE_S) == 0
    row = us.peers()["eu"]
    assert (row["state"], row["fault"]) == ("dead", "it stopped")
    eventually(
        lambda: any(set(eu.replicas) <= region.serves() for region in (us, asia)),
        what="somebody serves the replicas of eu",
    )
    eu.start()
    three.settled()
