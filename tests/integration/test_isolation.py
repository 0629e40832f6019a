"""``--isolate-tenants``: what engines are sent, and that no tenant finds what another has asked."""

import asyncio
import base64
import hashlib
import hmac
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from skylb import _core
from tests.support.processes import Balancer, balancer, eventually, free_port, mocks
from tests.support.raw import Answer, ask, request
from tests.support.recorder import Recorder, Seen, recording
from tests.support.regions import key_line

WORD = "a word of sixteen or more".replace(" ", "-")
NOBODY, TENANT, CREDENTIAL = 0, 1, 2
MESSAGES = [{"role": "user", "content": "hello"}]
CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES}
LARGE = {"model": "m", "messages": [{"role": "user", "content": "x" * 600_000}]}
"""Read by the thread."""
MIDDLE = {"model": "m", "messages": [{"role": "user", "content": "x" * 100_000}]}
"""Read by the loop, and sent in parts."""

UNSALTED = {"/cohere/v2/chat", "/v2/embed", "/v1/audio/speech"}
"""Paths of vLLM's batch that take no salt."""


def salt(kind: int, name: bytes = b"", own: bytes | None = None, *, key: bytes | None = None) -> str:
    """The salt that docs/ISOLATION.md describes."""
    key = key or hmac.digest(WORD.encode(), b"cache salts v1\n", "sha256")
    asked = b"\0" if own is None else b"\1" + own
    message = b"skylb cache_salt v1\n" + bytes([kind]) + len(name).to_bytes(8, "big") + name + asked
    return base64.urlsafe_b64encode(hmac.digest(key, message, "sha256")).rstrip(b"=").decode()


def arguments(directory: Path, *more: str) -> list[str]:
    """Isolation with the key of `WORD`, and two tenants by their keys."""
    (directory / "isolation").write_text(WORD)
    lines = [f"{name}:{hashlib.sha256(f'sk-{name}'.encode()).hexdigest()}" for name in ("acme", "bolt")]
    (directory / "tenants").write_text("\n".join(lines))
    isolate = ["--isolate-tenants", "--isolation-key-file", str(directory / "isolation")]
    return [*isolate, "--tenant-key-file", str(directory / "tenants"), *more]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Balancer, Recorder]]:
    """A balancer that isolates, and a replica that keeps what it gets."""
    more = ["--tenant-header", "X-Tenant", "--trusted-proxies", "127.0.0.0/8"]
    with recording() as recorder:
        command = arguments(tmp_path_factory.mktemp("keys"), *more)
        with balancer(recorder.url, arguments=command) as found:
            yield found, recorder


def send(
    found: Balancer,
    recorder: Recorder,
    body: dict[str, Any] | bytes,
    *lines: str,
    path: str = "/v1/chat/completions",
) -> Seen:
    """What the replica saw of a request."""
    recorder.seen.clear()
    answer = asyncio.run(ask(found.port, request(body, path=path, headers=lines)))
    assert answer.status == 200, answer.body
    assert len(recorder.seen) == 1
    return recorder.seen[0]


# --------------------------------------------------------------------------- the body


def test_each_json_route_of_the_batch_gets_the_salt_and_no_other(front: tuple[Balancer, Recorder]) -> None:
    salted = set()
    for path, methods, kind, served, _ in _core.routes():
        if kind != "JSON" or served == "the balancer":
            continue
        assert methods == "POST"
        messages = [MESSAGES] if path.endswith("/batch") else MESSAGES
        body = {"model": "m", "messages": messages, "prompt": "p", "input": "i", "state": "s", "texts": ["t"]}
        seen = send(*front, body, "Authorization: Bearer sk-acme", path=path)
        sent = json.loads(seen.body)
        assert {**sent, "cache_salt": 0} == {**body, "cache_salt": 0}, path
        if "cache_salt" in sent:
            assert sent["cache_salt"] == salt(TENANT, b"acme")
            salted.add(path)
        assert (served == "an engine's batch" and path not in UNSALTED) is ("cache_salt" in sent), path
    assert {"/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"} <= salted


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Authorization: Bearer sk-acme"], salt(TENANT, b"acme")),
        (["X-Api-Key: sk-acme"], salt(TENANT, b"acme")),
        (["X-Tenant: acme"], salt(TENANT, b"acme")),
        (["X-Tenant: acme", "Authorization: Bearer other"], salt(TENANT, b"acme")),
        (["Authorization: Bearer sk-bolt"], salt(TENANT, b"bolt")),
        (["Authorization: Bearer unlisted"], salt(CREDENTIAL, b"Bearer unlisted")),
        (["X-Api-Key: unlisted"], salt(CREDENTIAL, b"unlisted")),
        ([], salt(NOBODY)),
    ],
)
def test_the_salt_is_the_tenants_else_the_credentials_else_nobodys(
    front: tuple[Balancer, Recorder], lines: list[str], expected: str
) -> None:
    for body in (CHAT, LARGE):
        assert json.loads(send(*front, body, *lines).body)["cache_salt"] == expected


@pytest.mark.parametrize("body", [CHAT, MIDDLE, LARGE])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("own", [None, "own", "\u00e9\n"])
def test_a_clients_own_salt_is_part_of_the_salt_that_replaces_it(
    front: tuple[Balancer, Recorder], body: dict[str, Any], last: bool, own: str | None
) -> None:
    field = {"cache_salt": own, "priority": 3}
    asked = {**body, **field} if last else {**field, **body}
    seen = send(*front, asked, "X-Tenant: acme")
    assert int(seen.headers["content-length"]) == len(seen.body)
    expected = salt(TENANT, b"acme", None if own is None else own.encode())
    assert json.loads(seen.body) == {**asked, "cache_salt": expected}
    assert list(json.loads(seen.body)) == list(asked), "the fields stand in their order"


def test_edits_that_stand_before_and_behind_it_leave_the_salt_in_its_place(tmp_path: Path) -> None:
    with recording() as recorder:
        command = arguments(tmp_path, "--inject-usage", "--no-engine-class-from-body")
        with balancer(recorder.url, arguments=command) as found:
            for content in ("hello", "x" * 600_000):
                body = (
                    '{ "priority": -12345, "stream_options": {}, "cache_salt": "own", "priority": -12345,'
                    f' "stream": true, "messages": [{{"role": "user", "content": "{content}"}}]}}'
                )
                sent = json.loads(send(found, recorder, body.encode()).body)
                expected = json.loads(body) | {
                    "model": "m",
                    "priority": 0,
                    "stream_options": {"include_usage": True},
                    "cache_salt": salt(NOBODY, own=b"own"),
                }
                assert sent == expected


def test_a_form_passes_as_it_came(front: tuple[Balancer, Recorder]) -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nsound\r\n--b--\r\n'
    )
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(form)}\r\n\r\n"
    )
    found, recorder = front
    recorder.seen.clear()
    assert asyncio.run(ask(found.port, head.encode() + form)).status == 200
    assert recorder.seen[0].body == form


@pytest.mark.parametrize("body", [CHAT, LARGE])
def test_what_no_engine_takes_for_a_salt_is_refused_by_name(
    front: tuple[Balancer, Recorder], body: dict[str, Any]
) -> None:
    found, _ = front
    answer = asyncio.run(ask(found.port, request({**body, "cache_salt": 5})))
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "invalid_type", "cache_salt")


def test_a_tenants_name_that_cannot_be_one_is_refused_before_a_large_body_is_read(
    front: tuple[Balancer, Recorder],
) -> None:
    found, _ = front
    before = found.metric("skylb_buffer_bytes")
    answer = asyncio.run(ask(found.port, request(LARGE, headers=["X-Tenant: not a name"])))
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "bad_tenant")
    assert found.metric("skylb_buffer_bytes") == before


# --------------------------------------------------------------------------- regions


@contextmanager
def two_regions(directory: Path, replica: str, *more: str) -> Iterator[tuple[Balancer, Balancer]]:
    """``eu``, which has no replica that answers, and ``us``, which has ``replica``."""
    (directory / "peers").write_text(key_line("k1"))
    sync = {name: free_port() for name in ("eu", "us")}

    def command(name: str, other: str) -> list[str]:
        listens = ["--sync-listen", f"127.0.0.1:{sync[name]}", "--peer-listen", f"127.0.0.1:{free_port()}"]
        peers = ["--peer", f"{other}=http://127.0.0.1:{sync[other]}"]
        return ["--region", name, "--peer-key-file", str(directory / "peers"), *listens, *peers, *more]

    nobody = f"http://127.0.0.1:{free_port()}"
    with (
        balancer(replica, arguments=command("us", "eu")) as us,
        balancer(nobody, arguments=command("eu", "us")) as eu,
    ):
        yield eu, us


@pytest.mark.parametrize("kept", [True, False])
def test_a_forward_has_the_salt_that_the_peers_own_requests_have(tmp_path: Path, kept: bool) -> None:
    more = arguments(tmp_path, "--tenant-header", "X-Tenant", "--trusted-proxies", "127.0.0.0/8")
    if not kept:  # the key comes from the mesh's
        more = ["--isolate-tenants", *more[3:]]
    with recording() as recorder, two_regions(tmp_path, recorder.url, *more) as (eu, us):
        seen = set()
        for lines in (
            ["X-Tenant: acme"],
            ["Authorization: Bearer sk-bolt"],
            ["Authorization: Bearer unlisted"],
            [],
        ):
            for body in (CHAT, {**CHAT, "cache_salt": "own"}, LARGE, {**LARGE, "cache_salt": "own"}):
                forwarded = send(eu, recorder, body, *lines)
                direct = send(us, recorder, body, *lines)
                assert forwarded.body == direct.body
                seen.add(json.loads(direct.body)["cache_salt"])
        assert len(seen) == 8, "four owners, with and without a salt of their own"
        if kept:
            assert salt(TENANT, b"acme", b"own") in seen
            assert salt(CREDENTIAL, b"Bearer unlisted") in seen
        eventually(lambda: len(us.log()) == 32, what="the log of both ways", of=[us.child])
        assert sum(line["peer"] == "eu" for line in us.log()) == 16


# --------------------------------------------------------------------------- whose cache


def cached_tokens(found: Balancer, text: str, key: str) -> int:
    """What the engine has found of a prompt in its cache, for whoever has this key."""
    body = {"model": "mock", "messages": [{"role": "user", "content": text}], "max_tokens": 2}
    answer = asyncio.run(ask(found.port, request(body, headers=[f"Authorization: Bearer {key}"])))
    assert answer.status == 200, answer.body
    tokens: int = json.loads(answer.body)["usage"]["prompt_tokens_details"]["cached_tokens"]
    return tokens


@pytest.mark.parametrize("isolates", [True, False])
def test_a_tenant_finds_its_own_prompts_again_and_no_others(tmp_path: Path, isolates: bool) -> None:
    command = arguments(tmp_path)
    if not isolates:
        command = command[3:]
    text = "a secret that is long enough for some blocks of the cache " * 40
    with mocks(1, "--profile", "instant") as urls, balancer(*urls, arguments=command) as found:
        assert cached_tokens(found, text, "sk-acme") == 0
        assert cached_tokens(found, text, "sk-acme") > 0
        for other in ("sk-bolt", "unlisted"):
            assert (cached_tokens(found, text, other) == 0) is isolates
        eventually(lambda: len(found.log()) == 4, what="the log", of=[found.child])
        believed = [line["match_blocks"] > 0 for line in found.log()]
        assert believed == [False, True, not isolates, not isolates], "the tree is keyed alike"


def test_a_stored_response_is_another_tenants_by_no_way(tmp_path: Path) -> None:
    command = arguments(tmp_path)[3:]  # tenants are known: that is enough

    def responses(found: Balancer, key: str, **fields: Any) -> Answer:
        body = {"model": "mock", "input": "what I told you", "store": True, **fields}
        head = [f"Authorization: Bearer {key}"]
        return asyncio.run(ask(found.port, request(body, path="/v1/responses", headers=head)))

    def stored(found: Balancer, key: str, method: str, path: str) -> int:
        head = f"{method} {path} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {key}\r\nContent-Length: 0\r\n"
        return asyncio.run(ask(found.port, f"{head}Connection: close\r\n\r\n".encode())).status

    with mocks(1, "--profile", "instant") as urls, balancer(*urls, arguments=command) as found:
        made = json.loads(responses(found, "sk-acme").body)["id"]
        unknown = json.loads(responses(found, "sk-bolt", previous_response_id="resp_none").body)
        for other in ("sk-bolt", "unlisted"):
            assert json.loads(responses(found, other, previous_response_id=made).body) == unknown
            assert stored(found, other, "GET", f"/v1/responses/{made}") == 404
            assert stored(found, other, "POST", f"/v1/responses/{made}/cancel") == 404
        assert responses(found, "sk-acme", previous_response_id=made).status == 200
        assert stored(found, "sk-acme", "GET", f"/v1/responses/{made}") == 200
        assert stored(found, "sk-acme", "POST", f"/v1/responses/{made}/cancel") == 400  # the engine's word


# --------------------------------------------------------------------------- the key


def test_the_log_says_what_a_key_that_is_drawn_costs_and_that_another_takes_a_restart(tmp_path: Path) -> None:
    with recording() as recorder:
        with balancer(recorder.url, arguments=["--isolate-tenants"]) as found:
            said = "isolate_tenants: the key is drawn at each start"
            eventually(lambda: said in found.child.text(), what="a line in the log", of=[found.child])
            first = json.loads(send(found, recorder, CHAT).body)["cache_salt"]
        with balancer(recorder.url, arguments=["--isolate-tenants"]) as found:
            assert json.loads(send(found, recorder, CHAT).body)["cache_salt"] != first
        with balancer(recorder.url, arguments=arguments(tmp_path)) as found:
            assert "drawn" not in found.child.text()
            (tmp_path / "isolation").write_text("another-word-of-sixteen")
            found.child.send(signal.SIGHUP)
            eventually(lambda: "it counts after a restart" in found.child.text(), of=[found.child])
            assert json.loads(send(found, recorder, CHAT).body)["cache_salt"] == salt(NOBODY)
            assert WORD not in found.child.text()
