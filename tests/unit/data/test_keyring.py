"""Who is let in by a key, and what everybody else learns: nothing, at the same work."""

import hashlib
import re
import sys
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import orjson
import pytest

from skylb._core import Head, HeadParser, RequestError, Tenant
from skylb.clock import monotonic_ns
from skylb.data.keyring import Keyring
from skylb.data.tenants import Tenants
from skylb.keys.document import Document, KeyTable, TenantTable
from skylb.keys.ring import Party, Ring
from tests.support.dataplane import END, STREAM_HEAD, World, answer, chat, event, plays, settle, until

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
NOON_NS = int(NOON.timestamp()) * 10**9
BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)
HOUR_NS = 3_600 * 10**9
TOLD = '{"choices":[],"usage":{"prompt_tokens":40,"completion_tokens":4000}}'
KEYS = {
    "good": ({}, "acme"),
    "brief": ({"expires": NOON}, "acme"),
    "expired": ({"expires": BEFORE}, "acme"),
    "revoked": ({"revoked": BEFORE}, "acme"),
    "both": ({"expires": LONG_AGO, "revoked": BEFORE}, "acme"),
    "other": ({}, "globex"),
    "narrow": ({}, "initech"),
}


def digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def ring(*without: str) -> Ring:
    keys = [
        KeyTable(id=name, sha256=hashlib.sha256(f"sk-{name}".encode()).hexdigest(), tenant=tenant, **fields)
        for name, (fields, tenant) in KEYS.items()
        if name not in without
    ]
    tenants = {
        "acme": TenantTable(models=["m"], tokens_per_minute=1_000_000, requests_per_minute=600),
        "globex": TenantTable(),
        "initech": TenantTable(models=["n"]),
    }
    return Ring(Document(tenants=tenants, keys=keys))


def keyring(unix_ns: int = NOON_NS - HOUR_NS) -> Keyring:
    """Keys at a moment of the wall clock, at which the monotonic one is at 0."""
    return Keyring(ring(), lambda: unix_ns)


def head(*fields: str, path: str = "POST /v1/chat/completions") -> Head:
    lines = [f"{path} HTTP/1.1", "Host: t", "Content-Type: application/json", *fields]
    found = HeadParser(cors=True).parse(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    assert found is not None
    return found


# ------------------------------------------------------------------------------ one key


def test_a_key_stands_for_its_tenant_until_it_ends_and_no_reading_is_needed_for_that() -> None:
    keys = keyring(NOON_NS - 1)
    assert keys.party(digest(b"sk-good"), 0) == Party(Tenant("acme"), metered=True)
    assert keys.party(digest(b"sk-other"), 0) == Party(Tenant("globex"))
    assert keys.party(digest(b"sk-brief"), 0) is not None
    assert keys.party(digest(b"sk-brief"), 1) is None
    assert keys.party(digest(b"sk-good"), 1) is not None


def test_a_wall_clock_that_is_set_counts_when_it_is_looked_at() -> None:
    offset = [NOON_NS - HOUR_NS]
    keys = Keyring(ring(), lambda: offset[0])
    offset[0] = NOON_NS
    assert keys.party(digest(b"sk-brief"), 0) is not None
    keys.keep_time()
    assert keys.party(digest(b"sk-brief"), 0) is None


def test_refusals_are_counted_by_their_reason() -> None:
    keys = keyring()
    for key in ("sk-none", "", "sk-expired", "sk-revoked", "sk-revoked", "sk-both"):
        assert keys.party(digest(key.encode()), 0) is None
    assert keys.refused == {"missing": 1, "unknown": 1, "expired": 2, "revoked": 2}
    page = {sample.labels["reason"]: sample.value for sample in next(keys.families()).samples}
    assert page == {"missing": 1, "unknown": 1, "expired": 2, "revoked": 2}


def test_keys_are_counted_by_their_state() -> None:
    assert ring().states(NOON_NS - 1) == {"valid": 4, "expired": 2, "revoked": 1}
    assert ring().states(NOON_NS) == {"valid": 3, "expired": 3, "revoked": 1}


def test_the_log_names_refused_keys_of_the_file_by_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = keyring()
    for key in ("sk-none", "", "sk-expired", "sk-revoked", "sk-revoked", "sk-good"):
        keys.party(digest(key.encode()), 0)
    keys.tell()
    (line,) = caplog.messages
    assert line.endswith("have expired or are revoked: revoked (2), expired (1)")
    keys.tell()
    assert len(caplog.messages) == 1, "what was said is not said again"


def test_the_log_line_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    tables = [
        KeyTable(id=f"k{n}", sha256=hashlib.sha256(b"%d" % n).hexdigest(), tenant="acme", revoked=BEFORE)
        for n in range(30)
    ]
    keys = Keyring(Ring(Document(tenants={"acme": TenantTable()}, keys=tables)), lambda: NOON_NS)
    for n in range(30):
        keys.party(digest(b"%d" % n), 0)
    keys.tell()
    assert caplog.messages[0].count("(1)") == 8
    assert caplog.messages[0].endswith(", and 22 more")


REFUSED = {"missing": b"", "unknown": b"sk-none", "expired": b"sk-expired", "revoked": b"sk-revoked"}


def steps(work: Any) -> int:
    """How many instructions of Python a call executes, those of all that it calls included."""
    count = 0

    def look(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def work_of(key: bytes) -> tuple[int, int]:
    """What a refusal costs: the look-up alone, and all up to the answer."""
    keys = keyring()
    tenants = Tenants(keyring=keys)
    request = head(f"Authorization: Bearer {key.decode()}")

    def refused() -> None:
        with pytest.raises(RequestError):
            tenants.let_in(request, False, 0)

    refused()
    return steps(lambda: keys.party(digest(key), 0)), steps(refused)


def test_every_key_that_is_refused_costs_the_same_work() -> None:
    counts = {name: work_of(key) for name, key in REFUSED.items()}
    assert min(counts.values()) > (10, 10)
    assert len(set(counts.values())) == 1, counts


# --------------------------------------------------------------------------- who needs one


@pytest.mark.parametrize("path", ["GET /health", "POST /ping", "OPTIONS /v1/chat/completions", "OPTIONS *"])
def test_health_and_preflights_need_no_key(path: str) -> None:
    assert Tenants(keyring=keyring()).let_in(head(path=path), False, 0) is None


@pytest.mark.parametrize("path", ["GET /v1/models", "GET /version", "POST /v1/messages"])
def test_everything_else_needs_one(path: str) -> None:
    with pytest.raises(RequestError) as caught:
        Tenants(keyring=keyring()).let_in(head(path=path), False, 0)
    assert (caught.value.status, caught.value.code, caught.value.close) == (401, "invalid_api_key", False)


def test_a_trusted_front_that_names_a_tenant_needs_no_key_and_one_that_names_none_does() -> None:
    tenants = Tenants("x-tenant", keyring=keyring())
    assert tenants.let_in(head("X-Tenant: acme"), True, 0) == keyring().ring.party("acme")
    assert tenants.let_in(head("X-Tenant: initech"), True, 0) == Party(Tenant("initech"))
    for fields, trusted in ((("X-Tenant: acme",), False), ((), True)):
        with pytest.raises(RequestError, match="Incorrect API key"):
            tenants.let_in(head(*fields), trusted, 0)
    with pytest.raises(RequestError, match="malformed"):
        tenants.let_in(head("X-Tenant: a b"), True, 0)


# --------------------------------------------------------------------------- on the wire


def guarded(world: World) -> Keyring:
    """The world with keys."""
    world.context.tenants = Tenants(keyring=Keyring(ring(), lambda: NOON_NS - HOUR_NS))
    assert world.context.tenants.keyring is not None
    world.router.set_tenants(ring().terms)
    return world.context.tenants.keyring


def plain(written: bytes) -> bytes:
    """An answer without what differs from one to the next."""
    return re.sub(rb"(Date|X-Request-Id): [^\r]*\r\n", b"", written)


def test_all_who_are_refused_read_the_same_bytes() -> None:
    async def test(world: World) -> None:
        guarded(world)
        seen = {}
        for name, key in REFUSED.items():
            client = world.client()
            for _ in range(2):
                line = f"Authorization: Bearer {key.decode()}\r\n" if key else ""
                client.feed(chat(lines=line))
                await settle()
            seen[name] = plain(client.taken())
            client.finish()
        assert len(set(seen.values())) == 1, seen
        text = seen["missing"]
        assert text.count(b"HTTP/1.1 401 Unauthorized\r\nConnection: keep-alive\r\n") == 2
        assert b"\r\nWWW-Authenticate: Bearer\r\n" in text
        assert b'"message":"Incorrect API key provided."' in text
        assert b'"type":"authentication_error"' in text
        assert world.calls() == [], "the engine knows nothing of them"
        assert [(line["status"], line["error_code"], line["tenant"]) for line in world.log()] == [
            (401, "invalid_api_key", None)
        ] * 8

    plays(test)


def test_a_refusal_has_the_shape_of_the_api_and_a_head_request_no_body() -> None:
    async def test(world: World) -> None:
        guarded(world)
        client = world.client()
        client.feed(b"HEAD /v1/models HTTP/1.1\r\nHost: a\r\n\r\n")
        await settle()
        assert client.taken().endswith(b"\r\n\r\n")
        client.feed(chat().replace(b"/v1/chat/completions", b"/v1/messages"))
        await settle()
        assert b'{"type":"error","error":{"type":"authentication_error"' in client.taken()
        client.finish()

    plays(test)


def test_a_body_that_nobody_let_in_is_neither_awaited_nor_kept() -> None:
    async def test(world: World) -> None:
        guarded(world)
        client = world.client()
        request = chat(text="x" * 5_000)
        client.feed(request[:300])
        await settle()
        assert client.taken().startswith(b"HTTP/1.1 401 "), "answered before the body is here"
        assert world.context.budget.bytes == 0
        client.feed(request[300:])
        client.feed(chat(lines="X-Api-Key: sk-good\r\n"))
        upstream = await world.sent()
        upstream.feed(answer())
        await settle()
        assert client.taken().startswith(b"HTTP/1.1 200 "), "the connection takes the next request"
        client.finish()

    plays(test)


def test_a_client_that_waits_for_100_continue_is_refused_and_its_connection_ends() -> None:
    async def test(world: World) -> None:
        guarded(world)
        client = world.client()
        client.feed(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"
        )
        await settle()
        written = client.taken()
        assert written.startswith(b"HTTP/1.1 401 ")
        assert b"\r\nConnection: close\r\n" in written
        client.finish()

    plays(test)


ALL = "Authorization: Bearer sk-good\r\nX-Api-Key: sk-good\r\napi-key: sk-good\r\n"


@pytest.mark.parametrize("lines", [ALL, "api-key: sk-good\r\nAPI_KEY: sk-good\r\nx_api_key: sk-good\r\n"])
def test_no_replica_gets_a_clients_key(lines: str) -> None:
    async def test(world: World) -> None:
        guarded(world)
        client = world.client()
        client.feed(chat(lines=lines))
        upstream = await world.sent()
        assert b"sk-good" not in upstream.written
        assert b"uthorization" not in upstream.written
        upstream.feed(answer())
        await settle()
        (line,) = world.log()
        assert line["tenant"] == "acme"
        client.finish()

    plays(test)


def test_a_key_that_is_revoked_ends_with_the_next_request_and_not_within_this_one() -> None:
    async def test(world: World) -> None:
        keys = guarded(world)
        client = world.client()
        client.feed(chat(lines="X-Api-Key: sk-good\r\n"))
        upstream = await world.sent()
        keys.set(ring("good"))
        upstream.feed(answer())
        await settle()
        assert client.taken().startswith(b"HTTP/1.1 200 ")
        client.feed(chat(lines="X-Api-Key: sk-good\r\n"))
        await settle()
        assert client.taken().startswith(b"HTTP/1.1 401 ")
        client.finish()

    plays(test)


def test_models_are_those_that_the_tenant_may_use() -> None:
    async def test(world: World) -> None:
        guarded(world)
        client = world.client()
        for key, listed in (("good", [b'"id":"m"']), ("other", [b'"id":"m"']), ("narrow", [])):
            client.feed(f"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Api-Key: sk-{key}\r\n\r\n".encode())
            await settle()
            assert re.findall(rb'"id":"\w+"', client.taken()) == listed
        client.feed(b"GET /v1/models/m HTTP/1.1\r\nHost: a\r\nX-Api-Key: sk-narrow\r\n\r\n")
        await settle()
        assert client.taken().startswith(b"HTTP/1.1 404 ")
        client.finish()

    plays(test)


def test_a_model_that_the_tenant_may_not_use_is_refused() -> None:
    async def test(world: World) -> None:
        guarded(world)
        client = world.client()
        client.feed(chat(lines="X-Api-Key: sk-narrow\r\n"))
        await settle()
        written = client.taken()
        assert written.startswith(b"HTTP/1.1 403 ")
        assert b'"code":"model_not_allowed"' in written
        client.finish()

    plays(test)


LIMIT_LINE = re.compile(rb"^x-ratelimit-([a-z-]+): (\S+)\r$", re.MULTILINE | re.IGNORECASE)


def test_answers_and_streams_tell_the_limits_of_the_tenant_and_replicas_do_not() -> None:
    async def test(world: World) -> None:
        guarded(world)
        for stream in (False, True):
            client = world.client()
            client.feed(chat(stream=stream, lines="X-Api-Key: sk-good\r\n"))
            upstream = await world.sent()
            if stream:
                upstream.feed(STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nX-RateLimit-Limit-Requests: 7\r\n\r\n"))
                upstream.feed(event('{"x":1}') + event("[DONE]") + END)
            else:
                upstream.feed(answer(lines="X-RateLimit-Limit-Requests: 7\r\n"))
            await settle()
            lines = LIMIT_LINE.findall(client.taken())
            assert [name for name, _ in lines] == [
                b"limit-requests",
                b"remaining-requests",
                b"reset-requests",
                b"limit-tokens",
                b"remaining-tokens",
                b"reset-tokens",
            ]
            assert dict(lines)[b"limit-requests"] == b"600"
            client.finish()
            await settle()

    plays(test)


def test_a_stream_that_begins_before_its_first_event_tells_them_too() -> None:
    async def test(world: World) -> None:
        guarded(world)
        client = world.client()
        client.feed(chat(stream=True, lines="X-Api-Key: sk-good\r\n"))
        upstream = await world.sent()
        upstream.feed(STREAM_HEAD)
        await until(lambda: b"\r\n\r\n" in client.written)
        assert len(LIMIT_LINE.findall(client.written.partition(b"\r\n\r\n")[0] + b"\r\n")) == 6
        upstream.feed(event('{"x":1}') + event("[DONE]") + END)
        await settle()
        client.finish()

    plays(test, timeouts={"stream_keep_alive_s": 1.0})


def test_over_its_limit_a_tenant_is_refused_with_the_time_to_wait() -> None:
    async def test(world: World) -> None:
        keys = guarded(world)
        terms = keys.ring.terms.replace(b'"requests_per_minute":600', b'"requests_per_minute":1')
        world.router.set_tenants(terms)
        client = world.client()
        client.feed(chat(lines="X-Api-Key: sk-good\r\n"))
        (await world.sent()).feed(answer())
        await settle()
        assert client.taken().startswith(b"HTTP/1.1 200 ")
        client.feed(chat(lines="X-Api-Key: sk-good\r\n"))
        await settle()
        refused = client.taken()
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b'"code":"rate_limit_exceeded"' in refused
        assert b'"type":"rate_limit_error"' in refused
        assert b"\r\nRetry-After: 60\r\n" in refused
        assert dict(LIMIT_LINE.findall(refused))[b"remaining-requests"] == b"0"
        client.feed(chat(lines="X-Api-Key: sk-other\r\n"))
        (await world.sent()).feed(answer())
        await settle()
        assert client.taken().startswith(b"HTTP/1.1 200 "), "others are not concerned"
        client.finish()

    plays(test)


def test_streams_of_a_tenant_whose_tokens_are_limited_are_asked_for_usage() -> None:
    async def test(world: World) -> None:
        guarded(world)
        for key, asked in (("good", True), ("other", False)):
            client = world.client()
            client.feed(chat(stream=True, lines=f"X-Api-Key: sk-{key}\r\n"))
            upstream = await world.sent()
            assert (b'"include_usage"' in upstream.taken()) is asked, key
            upstream.feed(answer())
            await settle()
            client.finish()

    plays(test)


def test_a_large_body_of_such_a_tenant_is_asked_for_usage_too() -> None:
    async def test(world: World) -> None:
        guarded(world)
        client = world.client()
        client.feed(chat(stream=True, text="x" * 300_000, lines="X-Api-Key: sk-good\r\n"))
        await until_sent(world)
        upstream = await world.sent()
        assert b'"include_usage"' in upstream.taken()
        upstream.feed(answer())
        await settle()
        client.finish()

    plays(test)


async def until_sent(world: World) -> None:
    """A large body is read beside the loop."""
    for _ in range(2_000):
        if world.pool.wires:
            break
        await settle()


@pytest.mark.parametrize("text", ["hi", "x" * 300_000], ids=["small", "large"])
def test_a_client_that_declines_usage_is_obeyed_only_where_tokens_are_not_limited(text: str) -> None:
    async def test(world: World) -> None:
        guarded(world)
        declined = {"stream_options": {"include_usage": False}}
        for key, asked in (("good", b"true"), ("other", b"false")):
            client = world.client()
            client.feed(chat(stream=True, text=text, lines=f"X-Api-Key: sk-{key}\r\n", **declined))
            await until_sent(world)
            upstream = await world.sent()
            assert re.findall(rb'"include_usage": ?(\w+)', upstream.taken()) == [asked], key
            upstream.feed(STREAM_HEAD + event('{"choices":[{}]}') + event(TOLD) + END)
            await settle()
            assert (b"completion_tokens" in client.taken()) is (asked == b"false")
            client.finish()
        report = orjson.loads(world.engine.tenant_usage())
        (acme,) = (of for of in report["tenants"] if of["name"] == "acme")
        assert [row["charged_tokens"] for row in acme["models"] if row["model"] == "m"] == [4_040]

    plays(test, inject_usage=True)


def test_without_another_clock_the_machines_own_counts() -> None:
    assert Keyring(ring()).party(digest(b"sk-expired"), monotonic_ns()) is None
    assert Keyring(ring()).party(digest(b"sk-good"), monotonic_ns()) is not None
