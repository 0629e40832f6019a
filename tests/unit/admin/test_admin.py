"""The admin application over a real socket, in front of a service that records what it is told."""

import asyncio
import io
import re
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp.test_utils import make_mocked_request

from skylb.addresses import ListenAddress
from skylb.admin import Admin, live
from skylb.admin.pulse import Member, Pulse
from skylb.admin.refusal import Refusal
from skylb.admin.rehearsal import Asked as Rehearsed
from skylb.listeners import bind, bound_address
from skylb.types import Address, Replica

LOOPBACK = ListenAddress("127.0.0.1", 0)
REPLICA = Replica(7, "http://gpu-1:8000", Address("10.0.0.1", 8000), "gpu-1:8000")


class Recording:
    """A service as the composition root is one, with its state in plain sight."""

    def __init__(self) -> None:
        self.is_ready = True
        self.has_replicas = True
        self.mesh: dict[str, Any] | None = {"name": "us", "peers": []}
        self.told: list[object] = []
        self.leaves = False
        self.policy = "predictive"

    def ready(self, *, here: bool = False) -> bool:
        return self.is_ready and (self.has_replicas or not here)

    def serves(self) -> bool:
        return self.has_replicas

    async def metrics(self, accept: str, /) -> tuple[bytes, str]:
        return f"accept {accept}\n".encode(), "text/plain; version=0.0.4; charset=utf-8"

    def state(self) -> dict[str, Any]:
        return {"process": {"pid": 1}, "engine": orjson.Fragment(b'{"hold":{}}')}

    def pulse(self) -> Pulse:
        return Pulse(uptime_s=1.0)

    def members(self) -> dict[str, Member]:
        return {"replica gpu-1:8000": Member(condition="up")}

    @property
    def body_bytes_max(self) -> int:
        return 1 << 20

    def receipt(self, request_id: str, /) -> bytes | None:
        return b'{"request_id":"a/b","submitted_ns":1}' if request_id == "a/b" else None

    def receipts(self, len_max: int, /) -> bytes | None:
        row = {"request_id": "a/b", "submitted_ns": 1}
        found = {"kept": 1, "kept_max": 9, "since_ns": 1, "requests": [row][:len_max]}
        return orjson.dumps(found) if self.is_ready else None

    async def rehearse(self, asked: Rehearsed, body: bytes, /) -> bytes:
        self.told.append((asked, len(body)))
        return b'{"decision":{}}'

    def usage(self) -> bytes:
        return b'{"tenants":[{"name":"acme"}]}'

    def replicas(self) -> list[Replica]:
        return [REPLICA]

    def set_draining(self, name: str, draining: bool, /) -> bool:
        self.told.append((name, draining))
        return draining or self.leaves

    def leave(self, name: str, in_s: float, /, *, ends: bool) -> None:
        self.told.append((name, in_s, ends))

    def ordered(self) -> None:
        pass

    def staying(self) -> tuple[int, int, int]:
        return 7, 2, 1

    def peers(self) -> dict[str, Any] | None:
        return self.mesh

    def isolate(self, name: str, isolated: bool, /) -> bool:
        self.told.append((name, isolated))
        return name == "eu"

    def evacuate(self, region: str, evacuating: bool, within_s: float | None, /) -> list[str]:
        self.told.append((region, evacuating, within_s))
        return ["eu-1", "eu-2"] if region == "eu" else []

    def set_policy(self, name: str, /) -> None:
        self.told.append(name)
        self.policy = name

    def set_log_level(self, level: str, /) -> None:
        self.told.append(level)


class Asked:
    """A client of an admin listener that runs for one test."""

    def __init__(self, session: aiohttp.ClientSession, url: str, service: Recording) -> None:
        self._session = session
        self._url = url
        self.service = service

    async def __call__(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        async with self._session.request(method, self._url + path, **more) as answer:
            assert answer.headers["Server"] == "SkyLB"
            text = await answer.read()
            return answer.status, orjson.loads(text) if answer.content_type == "application/json" else text


def asking(
    test: Callable[[Asked], Awaitable[None]], *, address: ListenAddress = LOOPBACK, token: str | None = None
) -> None:
    """Runs ``test`` against a listener that believes to be at ``address``; the socket is on loopback."""

    async def run() -> None:
        service = Recording()
        admin = Admin(service, address, token)
        sockets = bind(LOOPBACK)
        await admin.start(sockets)
        try:
            async with aiohttp.ClientSession() as session:
                await test(Asked(session, f"http://{bound_address(sockets[0])}", service))
        finally:
            await admin.close()

    asyncio.run(run())


def test_health_is_alive_also_when_nothing_is_ready() -> None:
    async def test(ask: Asked) -> None:
        ask.service.is_ready = False
        assert await ask("GET", "/health") == (200, {"status": "alive"})
        assert await ask("GET", "/ready") == (503, {"ready": False})
        ask.service.is_ready = True
        assert await ask("GET", "/ready") == (200, {"ready": True})
        assert await ask("GET", "/ready/here") == (200, {"ready": True})
        ask.service.has_replicas = False  # it serves by its peers
        assert await ask("GET", "/ready") == (200, {"ready": True})
        assert await ask("GET", "/ready/here") == (503, {"ready": False})

    asking(test)


def test_metrics_and_state_are_the_services() -> None:
    async def test(ask: Asked) -> None:
        assert await ask("GET", "/metrics", headers={"Accept": "x/y"}) == (200, b"accept x/y\n")
        assert await ask("GET", "/state") == (200, {"process": {"pid": 1}, "engine": {"hold": {}}})
        assert await ask("GET", "/usage") == (200, {"tenants": [{"name": "acme"}]})

    asking(test)


@pytest.mark.parametrize("name", ["7", "gpu-1:8000", "http%3A%2F%2Fgpu-1%3A8000", "http://gpu-1:8000"])
def test_a_replica_is_drained_by_id_authority_or_name(name: str) -> None:
    async def test(ask: Asked) -> None:
        status, said = await ask("POST", f"/replicas/{name}/drain")
        assert (status, said) == (200, {"replica": REPLICA.name, "id": 7, "draining": True})
        assert (await ask("POST", f"/replicas/{name}/undrain"))[1]["draining"] is False
        ask.service.leaves = True
        assert (await ask("POST", f"/replicas/{name}/undrain"))[1] == {
            "replica": REPLICA.name,
            "id": 7,
            "draining": True,
            "note": "its source says that it leaves",
        }
        assert ask.service.told == [(REPLICA.name, True), (REPLICA.name, False), (REPLICA.name, False)]

    asking(test)


def test_an_unknown_replica_is_a_404_that_names_the_known_ones() -> None:
    async def test(ask: Asked) -> None:
        status, said = await ask("POST", "/replicas/8/drain")
        assert (status, said["error"]["code"]) == (404, "unknown_replica")
        assert REPLICA.name in said["error"]["message"]
        assert ask.service.told == []

    asking(test)


def test_the_log_level_changes_to_a_known_one_only() -> None:
    async def test(ask: Asked) -> None:
        assert await ask("PUT", "/log-level", data=b'{"level": "debug"}') == (200, {"level": "debug"})
        for body in (b'{"level": "loud"}', b"[]", b"{", b""):
            assert (await ask("PUT", "/log-level", data=body))[0] == 400
        assert ask.service.told == ["debug"]

    asking(test)


def test_the_policy_changes_to_a_known_one_only() -> None:
    async def test(ask: Asked) -> None:
        changed = {"policy": "round_robin", "before": "predictive"}
        assert await ask("PUT", "/policy", data=b'{"policy": "round_robin"}') == (200, changed)
        for body in (b'{"policy": "best"}', b'{"policy": ["ring"]}', b"[]", b'{"policies": "ring"}'):
            status, said = await ask("PUT", "/policy", data=body)
            assert (status, said["error"]["code"]) == (400, "bad_policy")
            assert "prefix, predictive, ring" in said["error"]["message"]
        for body, start in (
            (b"{}", "policy: missing: expected"),
            (b'{"name": "prefix"}', "name: unknown field: expected"),
            (b'{"policy": "prefix", "for_s": 9}', "for_s: unknown field: expected"),
            (b'{"policy": "best"}', "policy 'best': expected"),
            (b"[]", "the body is no object: expected"),
        ):
            assert (await ask("PUT", "/policy", data=body))[1]["error"]["message"].startswith(start)
        assert (await ask("PUT", "/policy", data=b"{"))[1]["error"]["code"] == "invalid_json"
        assert ask.service.told == ["round_robin"]

    asking(test)


def test_errors_of_the_library_are_json_too() -> None:
    async def test(ask: Asked) -> None:
        status, said = await ask("GET", "/nothing")
        assert (status, said["error"]["code"]) == (404, "unknown_path")
        status, said = await ask("DELETE", "/state")
        assert (status, said["error"]["code"]) == (405, "method_not_allowed")
        status, said = await ask("PUT", "/log-level", data=b"x" * 10_000)
        assert (status, said["error"]["code"]) == (413, "body_too_large")

    asking(test)


def test_the_mesh_is_shown_where_there_is_one() -> None:
    async def test(ask: Asked) -> None:
        assert await ask("GET", "/peers") == (200, {"name": "us", "peers": []})
        ask.service.mesh = None
        status, said = await ask("GET", "/peers")
        assert (status, said["error"]["code"]) == (404, "no_mesh")

    asking(test)


def test_a_peer_is_isolated_and_let_back() -> None:
    async def test(ask: Asked) -> None:
        assert await ask("POST", "/peers/eu/isolate") == (200, {"peer": "eu", "isolated": True})
        assert await ask("POST", "/peers/eu/rejoin") == (200, {"peer": "eu", "isolated": False})
        status, said = await ask("POST", "/peers/mars/isolate")
        assert (status, said["error"]["code"]) == (404, "unknown_peer")
        assert ask.service.told == [("eu", True), ("eu", False), ("mars", True)]

    asking(test)


def test_a_region_is_evacuated_and_taken_back_in_one_call() -> None:
    async def test(ask: Asked) -> None:
        status, said = await ask("POST", "/regions/eu/evacuate")
        assert (status, said) == (200, {"region": "eu", "evacuating": True, "balancers": ["eu-1", "eu-2"]})
        assert (await ask("POST", "/regions/eu/undrain"))[1]["evacuating"] is False
        status, said = await ask("POST", "/regions/mars/evacuate")
        assert (status, said["error"]["code"]) == (404, "unknown_region")

    asking(test)


@pytest.mark.parametrize(
    ("region", "rows", "note"),
    [
        ("eu", [("us", True)], None),
        ("eu", [("us", False)], "no peer can take requests"),
        ("eu", [("eu", True)], "no peer can take requests"),
        ("us", [("eu", True)], "trusted_peers"),
    ],
)
def test_the_answer_to_an_evacuation_says_where_nothing_can_leave_or_it_may_not_count(
    region: str, rows: list[tuple[str, bool]], note: str | None
) -> None:
    async def test(ask: Asked) -> None:
        peers = [{"region": of, "available": available} for of, available in rows]
        ask.service.mesh = {"region": region, "peers": peers}
        _, said = await ask("POST", "/regions/eu/evacuate")
        assert note in said["note"] if note is not None else "note" not in said
        assert "note" not in (await ask("POST", "/regions/eu/undrain"))[1]

    asking(test)


def test_requests_that_run_leave_within_a_time() -> None:
    async def test(ask: Asked) -> None:
        _, said = await ask("POST", "/replicas/7/drain?within=2.5")
        assert (said["draining"], said["empties_in_s"]) == (True, 2.5)
        assert ask.service.told == [(REPLICA.name, True), (REPLICA.name, 2.5, False)]
        ask.service.mesh = {"region": "eu", "peers": [{"region": "us", "available": True}]}
        _, said = await ask("POST", "/regions/eu/evacuate?within=30")
        assert ask.service.told[-1] == ("eu", True, 30.0)
        assert said == {
            "region": "eu",
            "evacuating": True,
            "balancers": ["eu-1", "eu-2"],
            "within_s": 30.0,
            "in_flight": 7,
            "ending_here": 2,
            "of_peers": 1,
        }
        ask.service.mesh = {"region": "us", "peers": []}
        assert "in_flight" not in (await ask("POST", "/regions/eu/evacuate?within=30"))[1]
        for query in ("within=-1", "within=x", "soon=1", "within=1&within=2"):
            assert (await ask("POST", f"/replicas/7/drain?{query}"))[0] == 400
            assert (await ask("POST", f"/regions/eu/evacuate?{query}"))[0] == 400

    asking(test)


OPEN = ("/health", "/ready", "/ready/here", "/metrics")
GUARDED = (
    ("GET", "/state"),
    ("GET", "/usage"),
    ("POST", "/replicas/7/drain"),
    ("PUT", "/log-level"),
    ("PUT", "/policy"),
    ("GET", "/nothing"),
    ("GET", "/peers"),
    ("POST", "/peers/eu/isolate"),
    ("POST", "/regions/eu/evacuate"),
)


@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", "Basic secret", "secret", "Bearer", "Bearer s\u00e9cret"]
)
def test_with_a_token_all_but_probes_and_metrics_ask_for_it(authorization: str | None) -> None:
    async def test(ask: Asked) -> None:
        headers = {"Authorization": authorization} if authorization is not None else {}
        for path in OPEN:
            assert (await ask("GET", path, headers=headers))[0] == 200
        for method, path in GUARDED:
            assert (await ask(method, path, headers=headers))[0] == 401
        assert ask.service.told == []

    asking(test, token="secret")


def test_the_right_token_opens() -> None:
    async def test(ask: Asked) -> None:
        headers = {"Authorization": "Bearer secret"}
        assert (await ask("GET", "/state", headers=headers))[0] == 200
        assert (await ask("POST", "/replicas/7/drain", headers=headers))[0] == 200

    asking(test, token="secret", address=ListenAddress("0.0.0.0", 0))


def test_off_loopback_without_a_token_verbs_and_state_are_refused() -> None:
    async def test(ask: Asked) -> None:
        for path in OPEN:
            assert (await ask("GET", path))[0] == 200
        for method, path in GUARDED:
            assert (await ask(method, path))[0] == 403
        assert ask.service.told == []

    asking(test, address=ListenAddress("0.0.0.0", 0))


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Host": "evil.example:8081"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "null", "X-SkyLB-Page": "1"},
        {"Origin": "http://evil.example", "X-SkyLB-Page": "1"},
        # A name that was rebound to loopback: page and host agree, and neither is this machine's.
        {"Origin": "http://evil.example:8081", "Host": "evil.example:8081", "X-SkyLB-Page": "1"},
        # A page of another program of this machine.
        {"Origin": "http://127.0.0.1:3000", "X-SkyLB-Page": "1"},
        {"Origin": "http://127.0.0.1:8081", "Host": "localhost:8081", "X-SkyLB-Page": "1"},
        {"Origin": "https://127.0.0.1:8081", "Host": "127.0.0.1:8081", "X-SkyLB-Page": "1"},
        # A form of our own origin, which no page of ours has.
        {"Origin": "http://127.0.0.1:8081", "Host": "127.0.0.1:8081"},
        # A request without Origin, such as an image's.
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_web_page_cannot_use_the_verbs_through_its_visitors_browser(headers: dict[str, str]) -> None:
    async def test(ask: Asked) -> None:
        for method, path in GUARDED:
            assert (await ask(method, path, headers=headers))[0] == 403
        assert ask.service.told == []

    asking(test)


def test_our_own_page_may_use_the_verbs_under_each_loopback_name() -> None:
    async def test(ask: Asked) -> None:
        for host in ("127.0.0.1:8081", "localhost:8081", "[::1]:8081"):
            own = {
                "Host": host,
                "Origin": f"http://{host}",
                "X-SkyLB-Page": "1",
                "Sec-Fetch-Site": "same-origin",
            }
            assert (await ask("POST", "/replicas/7/drain", headers=own))[0] == 200
        assert ask.service.told == [(REPLICA.name, True)] * 3

    asking(test)


def test_another_pages_browser_that_asks_first_is_not_told_yes() -> None:
    async def test(ask: Asked) -> None:
        headers = {
            "Origin": "http://127.0.0.1:3000",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-skylb-page",
        }
        assert (await ask("OPTIONS", "/replicas/7/drain", headers=headers))[0] == 403

    asking(test)


def test_the_live_page_loads_nothing_from_elsewhere_and_its_figures_are_guarded_as_the_state_is() -> None:
    async def test(ask: Asked) -> None:
        status, html = await ask("GET", "/")
        assert status == 200
        assert b"<title>SkyLB</title>" in html
        assert not re.search(rb"""(src|href)=["']?(https?:)?//""", html)
        assert (await ask("GET", "/events", headers={"Origin": "http://evil.example"}))[0] == 403
        assert (await ask("GET", "/events", headers={"Host": "evil.example"}))[0] == 403

    asking(test)


def test_a_page_too_many_is_told_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "VIEWERS_MAX", 0)
    with pytest.raises(Refusal) as refused:
        asyncio.run(live.Feed().serve(make_mocked_request("GET", "/events")))
    answer = refused.value.answer()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")


def test_a_receipt_is_found_by_any_id_and_has_the_time_for_people() -> None:
    async def test(ask: Asked) -> None:
        status, said = await ask("GET", "/requests/a%2Fb")
        assert (status, said["request_id"]) == (200, "a/b")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", said["submitted"])
        status, said = await ask("GET", "/requests?limit=1")
        assert (status, said["kept"], len(said["requests"])) == (200, 1, 1)
        status, said = await ask("GET", "/requests/other")
        assert (status, said["error"]["code"]) == (404, "no_receipt")
        assert "1 of 9 are kept" in said["error"]["message"]
        ask.service.is_ready = False
        status, said = await ask("GET", "/requests/other")
        assert (status, said["error"]["message"]) == (404, "receipts are off: start SkyLB with --receipts=N")

    asking(test)


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "1.5", ""])
def test_a_listing_of_any_other_length_is_refused(limit: str) -> None:
    async def test(ask: Asked) -> None:
        status, said = await ask("GET", "/requests", params={"limit": limit})
        assert (status, said["error"]["code"]) == (400, "bad_query")
        assert "an integer from 1 to 1,000" in said["error"]["message"]

    asking(test)


def test_a_rehearsal_takes_the_body_of_a_request_and_what_its_query_says() -> None:
    async def test(ask: Asked) -> None:
        query = {"path": "/v1/completions", "tenant": "acme", "session": "s", "class": "low"}
        body = b"{" + b" " * 500_000 + b"}"
        assert await ask("POST", "/route", params=query, data=body) == (200, {"decision": {}})
        named = Rehearsed(path="/v1/completions", tenant="acme", session="s", requested_class="low")
        assert ask.service.told == [(named, len(body))]
        status, said = await ask("POST", "/route", data=io.BytesIO(b" " * ((1 << 20) + 1)))
        assert (status, said["error"]["code"]) == (413, "body_too_large")
        assert "1,048,576 bytes" in said["error"]["message"]

    asking(test)


@pytest.mark.parametrize(
    ("name", "value"),
    [("path", "/a b"), ("class", "urgent"), ("session", ""), ("colour", "red"), ("path", "é")],
)
def test_a_rehearsal_refuses_a_query_that_it_does_not_know(name: str, value: str) -> None:
    async def test(ask: Asked) -> None:
        status, said = await ask("POST", "/route", params={name: value}, data=b"{}")
        assert (status, said["error"]["code"]) == (400, "bad_query")
        assert name in said["error"]["message"]

    asking(test)
