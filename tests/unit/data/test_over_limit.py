"""A tenant over its limits is refused before its body is read, with the answer that it gets later."""

import hashlib
import json
import re
from typing import Any

import pytest

from skylb.data.keyring import Keyring
from skylb.data.tenants import Tenants
from skylb.keys.document import Document, KeyTable, TenantTable
from skylb.keys.ring import Ring
from tests.support.dataplane import World, plays, settle

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()
KEY = "sk-acme"
VARYING = re.compile(rb"(Date|X-Request-Id): [^\r]*\r\n")


def limit(world: World, **limits: int) -> None:
    """The one tenant has these limits, and a request under way."""
    key = KeyTable(id="k", sha256=hashlib.sha256(KEY.encode()).hexdigest(), tenant="acme")
    ring = Ring(Document(tenants={"acme": TenantTable(**limits)}, keys=[key]))
    world.context.tenants = Tenants(keyring=Keyring(ring))
    world.router.set_tenants(ring.terms)


def head(*lines: str, path: str = "/v1/chat/completions") -> bytes:
    fields = (f"POST {path} HTTP/1.1", "Host: t", "Content-Type: application/json", *lines)
    text = "\r\n".join((*fields, f"Authorization: Bearer {KEY}", f"Content-Length: {len(BODY)}"))
    return f"{text}\r\n\r\n".encode()


def log(world: World) -> list[dict[str, Any]]:
    return [json.loads(line) for line in world.recorder.take_log().splitlines()]


async def answers(world: World, whole: bytes, cuts: tuple[int, ...]) -> list[bytes]:
    """What a client gets for one request, that is cut there; it must come before the last part."""
    got = []
    for cut in cuts:
        client = world.client()
        client.feed(whole[:cut])
        await settle()
        got.append(VARYING.sub(b"", client.taken()))
        client.feed(whole[cut:])
        await settle()
        assert client.taken() == b"", "the rest is dropped"
        assert not client.is_closing()
        client.finish()
    return got


@pytest.mark.parametrize("limits", [{"concurrent": 1}, {"requests_per_minute": 1}])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_the_answer_is_the_same_whether_the_body_has_come_or_not(limits: dict[str, int], path: str) -> None:
    async def test(world: World) -> None:
        limit(world, **limits)
        first = world.client()
        first.feed(head() + BODY)
        await settle()
        assert len(world.pool.wires) == 1, "it is admitted"
        start = head(path=path)
        now, later, much_later = await answers(
            world, start + BODY, (len(start + BODY), len(start), len(start) + 9)
        )
        assert now.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: " in now
        assert later == much_later == now
        assert world.router.calls.count("submit") == 2, "only a whole one was read"
        said = {(line["tenant"], line["error_code"], line["status"]) for line in log(world)}
        assert said == {("acme", "rate_limit_exceeded", 429)}
        assert world.router.counters()["rate_limited"] == 3
        (tenant,) = json.loads(world.router.tenant_usage())["tenants"]
        assert {row["model"]: row["refused"] for row in tenant["models"]} == {"m": 1, "other": 2}
        first.finish()

    plays(test)


def test_a_tenant_in_debt_of_tokens_is_refused_too() -> None:
    async def test(world: World) -> None:
        limit(world, tokens_per_minute=1)
        first = world.client()
        first.feed(head() + BODY)
        await settle()
        start = head()
        (early,) = await answers(world, start + BODY, (len(start),))
        assert early.startswith(b"HTTP/1.1 429 ")
        assert b"x-ratelimit-remaining-tokens: 0\r\n" in early
        first.finish()

    plays(test)


def test_a_client_that_waits_for_a_go_ahead_gets_none() -> None:
    async def test(world: World) -> None:
        limit(world, requests_per_minute=1)
        patient, late = world.client(), world.client()
        patient.feed(head("Expect: 100-continue"))
        await settle()
        assert patient.taken().startswith(b"HTTP/1.1 100 ")
        patient.feed(BODY)
        await settle()
        late.feed(head("Expect: 100-continue"))
        await settle()
        assert late.taken().startswith(b"HTTP/1.1 429 ")
        assert late.ended, "its body may come or not"
        patient.finish()
        late.finish()

    plays(test)


def test_what_has_no_limit_is_read_and_answered() -> None:
    async def test(world: World) -> None:
        limit(world, requests_per_minute=1)
        first = world.client()
        first.feed(head() + BODY)
        await settle()
        for target, status in (("/v1/models", b"405"), ("/nowhere", b"404")):
            client = world.client()
            client.feed(head(path=target))
            await settle()
            assert client.taken().startswith(b"HTTP/1.1 %b " % status)
            client.feed(BODY)
            client.finish()
        first.finish()

    plays(test)
