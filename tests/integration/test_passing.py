"""What passes on the way to an engine and back, seen by a replica that keeps all it gets."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import orjson
import pytest

from skylb import _core
from tests.support.processes import Balancer, balancer, eventually
from tests.support.raw import Answer, ask, request
from tests.support.recorder import DONE, Recorder, Seen, recording

pytestmark = pytest.mark.any_clock

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
UNBELIEVED = ["--no-engine-class-from-body"]
TRUSTED = [*UNBELIEVED, "--trusted-proxies", "127.0.0.0/8"]

Front = tuple[Balancer, Recorder]


@pytest.fixture(scope="module")
def strangers() -> Iterator[Front]:
    """A balancer that trusts nobody, and believes no body."""
    with recording() as recorder, balancer(recorder.url, arguments=UNBELIEVED) as found:
        yield found, recorder


@pytest.fixture(scope="module")
def friends() -> Iterator[Front]:
    """A balancer that trusts its clients."""
    with recording() as recorder, balancer(recorder.url, arguments=TRUSTED) as found:
        yield found, recorder


def post(
    front: Front, body: dict[str, Any] | bytes, *lines: str, path: str = "/v1/chat/completions"
) -> tuple[Answer, list[Seen]]:
    """The answer, and what the replica saw."""
    found, recorder = front
    recorder.seen.clear()
    answer = asyncio.run(ask(found.port, request(body, path=path, headers=lines)))
    return answer, list(recorder.seen)


def send(front: Front, text: str) -> tuple[Answer, list[Seen]]:
    """Likewise, of a request written by hand."""
    found, recorder = front
    recorder.seen.clear()
    answer = asyncio.run(ask(found.port, text.replace("\n", "\r\n").encode()))
    return answer, list(recorder.seen)


def error_of(answer: Answer) -> tuple[int, str, str | None]:
    error = orjson.loads(answer.body)["error"]
    return answer.status, error["code"], error["param"]


# --------------------------------------------------------------------------- headers


def spelt(name: str) -> list[str]:
    """Ways to write a name that some server takes for the same."""
    name = name + "x" if name.endswith("-") else name
    return [name.title(), name.upper().replace("-", "_")]


@pytest.mark.parametrize("who", ["strangers", "friends"])
def test_every_header_that_steers_an_engine_meets_its_fate(who: str, request: pytest.FixtureRequest) -> None:
    front: Front = request.getfixturevalue(who)
    for name, fate, _ in _core.steering_headers():
        for written in spelt(name):
            if fate == "passed" and "_" in written:
                continue
            answer, seen = post(front, CHAT, f"{written}: 7")
            assert answer.status == 200, (written, answer.body)
            passes = fate == "passed" or (who == "friends" and fate == "trusted only")
            came = any(key.lower() == written.lower() for key, _ in seen[0].lines)
            assert came is passes, (written, fate, seen[0].lines)


def test_names_of_ours_with_underscores_do_not_pass(friends: Front) -> None:
    lines = ["X_Request_Id: a", "Content_Length: 5", "Transfer_Encoding: chunked", "X_Skylb_Hop: b"]
    _, seen = post(friends, CHAT, *lines, "X_Own_Thing: c")
    names = {name.lower() for name, _ in seen[0].lines}
    assert names & {line.partition(":")[0].lower() for line in lines} == set()
    assert "x_own_thing" in names


# --------------------------------------------------------------------------- fields


@pytest.mark.parametrize("who", ["strangers", "friends"])
def test_every_field_that_steers_an_engine_meets_its_fate(who: str, request: pytest.FixtureRequest) -> None:
    front: Front = request.getfixturevalue(who)
    for name, fate, _ in _core.steering_fields():
        value: Any = -9 if name == "priority" else {"x": 1} if name.endswith(("kwargs", "args")) else "7"
        answer, seen = post(front, {**CHAT, name: value})
        if fate == "refused" and who == "strangers":
            assert error_of(answer) == (400, "untrusted_field", name)
            assert seen == []
            continue
        assert answer.status == 200, (name, answer.body)
        sent = orjson.loads(seen[0].body)[name]
        assert sent == (0 if fate == "zeroed" and who == "strangers" else value), name


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[],"kv_transfer_para\\u006ds":{"remote_host":"x"}}',
        b'{"model":"m","messages":[],"kv_transfer_params":null,"kv_transfer_params":{"remote_host":"x"}}',
        b'{"model":"m","messages":[],"vllm_xargs":{"kv_transfer_params":"x"}}',
        b'{"model":"m","messages":[],"extra_body":{"kv_transfer_params":{"remote_host":"x"}}}',
        b'{"model":"m","token_ids":[1],"sampling_params":{"extra_args":{"kv_transfer_params":{}}}}',
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/chat/completions/batch", "/inference/v1/generate", "/invocations"]
)
def test_no_way_of_writing_it_lets_a_transfer_pass(strangers: Front, body: bytes, path: str) -> None:
    answer, seen = post(strangers, body, path=path)
    assert error_of(answer) == (400, "untrusted_field", "kv_transfer_params")
    assert seen == []


@pytest.mark.parametrize("part", ["kv_transfer_params", "vllm_xargs[kv_transfer_params]"])
def test_no_form_lets_a_transfer_pass(strangers: Front, part: str) -> None:
    body = "".join(
        f'--b\nContent-Disposition: form-data; name="{name}"\n\n{value}\n'
        for name, value in (("model", "m"), (part, "{}"), ("file", "RIFF"))
    )
    body = (body + "--b--\n").replace("\n", "\r\n")
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\nHost: h\nContent-Type: multipart/form-data; boundary=b\n"
        f"Content-Length: {len(body)}\n\n"
    )
    answer, seen = send(strangers, head + body.replace("\r\n", "\n"))
    assert error_of(answer) == (400, "untrusted_field", "kv_transfer_params")
    assert seen == []


# ----------------------------------------------------------------- what engines take


@pytest.mark.parametrize(
    "member",
    [
        {"max_tokens": "100"},
        {"max_tokens": 100.0},
        {"max_tokens": "100.0"},
        {"max_tokens": -1},
        {"metadata": []},
        {"metadata": "x"},
        {"user": 7},
        {"stream": "false"},
        {"n": "1"},
        {"cache_salt": 5},
    ],
)
def test_what_engines_take_passes_unchanged(strangers: Front, member: dict[str, Any]) -> None:
    answer, seen = post(strangers, {**CHAT, **member})
    assert answer.status == 200, answer.body
    assert orjson.loads(seen[0].body) == {**CHAT, **member}


def test_a_key_that_is_there_twice_passes_with_one_value_and_is_refused_with_two(strangers: Front) -> None:
    same = b'{"model":"m","messages":[],"model":"m"}'
    answer, seen = post(strangers, same)
    assert (answer.status, seen[0].body) == (200, same)
    answer, seen = post(strangers, b'{"model":"m","messages":[],"model":"other"}')
    assert error_of(answer) == (400, "duplicate_key", "model")
    assert seen == []


def test_two_million_token_ids_pass(strangers: Front) -> None:
    body = b'{"model":"m","prompt":[' + b",".join([b"12345"] * 2_100_000) + b"]}"
    answer, seen = post(strangers, body, path="/v1/completions")
    assert answer.status == 200, answer.body
    assert seen[0].body == body


def test_a_body_of_48_mib_passes_by_default(strangers: Front) -> None:
    body = b'{"model":"m","prompt":"' + b"x" * (48 << 20) + b'"}'
    answer, seen = post(strangers, body, path="/v1/completions")
    assert answer.status == 200, answer.body
    assert len(seen[0].body) == len(body)


def test_the_one_model_that_is_served_is_meant_where_none_is_named(strangers: Front) -> None:
    answer, seen = post(strangers, {"messages": CHAT["messages"]})
    assert answer.status == 200, answer.body
    assert orjson.loads(seen[0].body) == CHAT


LARGE = {"messages": [{"role": "user", "content": "x" * 400_000}]}
"""Read beside the loop."""


def test_a_large_body_is_edited_and_refused_alike(strangers: Front, friends: Front) -> None:
    answer, seen = post(strangers, {**LARGE, "priority": -9})
    assert answer.status == 200, answer.body
    assert orjson.loads(seen[0].body) == {**LARGE, "model": "m", "priority": 0}
    steering = {**LARGE, "model": "m", "priority": -9, "kv_transfer_params": {"x": 1}}
    answer, seen = post(strangers, steering)
    assert (error_of(answer), seen) == ((400, "untrusted_field", "kv_transfer_params"), [])
    answer, seen = post(friends, steering)
    assert answer.status == 200, answer.body
    assert orjson.loads(seen[0].body) == steering


def test_a_model_has_to_be_named_where_there_are_two() -> None:
    with recording("m", "other") as recorder, balancer(recorder.url) as found:
        answer, seen = post((found, recorder), {"messages": CHAT["messages"]})
    assert error_of(answer) == (400, "missing_model", "model")
    assert seen == []


# --------------------------------------------------------------------------- routes

PROMPTS: dict[str, Any] = {
    "messages": [],
    "prompt": "x",
    "input": "x",
    "query": "x",
    "token_ids": [1],
    "tokens": [1],
}


def test_every_route_of_an_engine_reaches_it(strangers: Front) -> None:
    for path, methods, body, served, _ in _core.routes():
        if served == "the balancer" or "{id}" in path or body == "form":
            continue
        if "POST" in methods:
            answer, seen = post(strangers, {"model": "m", **PROMPTS}, path=path)
        else:
            answer, seen = send(strangers, f"GET {path} HTTP/1.1\nHost: h\n\n")
        assert answer.status == 200, (path, answer.body)
        assert seen[0].target == path


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_a_ping_is_answered_without_a_body(strangers: Front, method: str) -> None:
    answer, _ = send(strangers, f"{method} /ping HTTP/1.1\nHost: h\nContent-Length: 0\nConnection: close\n\n")
    assert (answer.status, answer.body) == (200, b"")


def test_a_slash_at_the_end_is_left_out_and_a_doubled_one_refused(strangers: Front) -> None:
    answer, seen = post(strangers, CHAT, path="/v1/chat/completions/?a=b")
    assert (answer.status, seen[0].target) == (200, "/v1/chat/completions?a=b")
    models, _ = send(strangers, "GET /v1/models/ HTTP/1.1\nHost: h\n\n")
    assert models.status == 200
    for path in ("/v1/chat/completions//", "/v1//chat/completions", "//v1/chat/completions"):
        answer, seen = post(strangers, CHAT, path=path)
        assert (answer.status, seen) == (404, []), path


def test_a_404_names_the_list_and_its_log_line_says_who_asked_for_what() -> None:
    with recording() as recorder, balancer(recorder.url) as found:
        answer, _ = post(
            (found, recorder), CHAT, "X-Request-Id: seen-by-client", path="/v1/v1/chat/completions?key=secret"
        )
        error = orjson.loads(answer.body)["error"]
        assert (answer.status, answer.headers["x-request-id"]) == (404, "seen-by-client")
        assert "Did you mean /v1/chat/completions?" in error["message"]
        assert all(path in error["message"] for path, *_ in _core.routes())
        long, _ = post((found, recorder), CHAT, path="/" + "x" * 4000)

        def logged() -> list[dict[str, Any]]:
            return [line for line in found.log() if line.get("status") == 404]

        line, other = eventually(lambda: logged()[1:] and logged(), what="two lines of the log")
    assert line["path"] == "/v1/v1/chat/completions"
    assert (line["method"], line["request_id"], line["error_code"]) == (
        "POST",
        "seen-by-client",
        "unknown_path",
    )
    assert "secret" not in str(line)
    assert other["request_id"] == long.headers["x-request-id"]
    assert len(other["path"]) <= 256


# ------------------------------------------------------------------------------ back

ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def browsers() -> Iterator[Front]:
    with recording() as recorder, balancer(recorder.url, arguments=["--cors-origin", ORIGIN]) as found:
        recorder.answer_lines = [
            "Access-Control-Allow-Origin: *",
            "access-control-expose-headers: x",
            "Vary: Origin",
            "Vary: Accept",
            "X-Own: y",
        ]
        yield found, recorder


def head_of(front: Front, text: bytes) -> list[tuple[str, str]]:
    """The header lines of one answer, as they came."""

    async def whole() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", front[0].port)
        writer.write(text)
        try:
            return await reader.readuntil(b"\r\n\r\n")
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    lines = asyncio.run(whole()).decode().rstrip("\r\n").split("\r\n")[1:]
    return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]


@pytest.mark.parametrize(
    ("status", "content_type", "answer"),
    [
        (200, "application/json", b"{}"),
        (400, "application/json", b'{"error":{}}'),
        (200, "text/event-stream", b"data: {}\n\ndata: [DONE]\n\n"),
    ],
)
def test_relayed_answers_say_who_may_read_them_once(
    browsers: Front, status: int, content_type: str, answer: bytes
) -> None:
    _, recorder = browsers
    recorder.status, recorder.content_type, recorder.answer = status, content_type, answer
    lines = head_of(browsers, request({**CHAT, "stream": True}, headers=[f"Origin: {ORIGIN}"]))
    assert [value for name, value in lines if name == "access-control-allow-origin"] == [ORIGIN]
    exposed = [value for name, value in lines if name == "access-control-expose-headers"]
    assert len(exposed) == 1
    assert {"X-Request-Id", "Retry-After"} <= set(exposed[0].split(", "))
    assert sorted(value for name, value in lines if name == "vary") == ["Accept", "Origin"]
    assert ("x-own", "y") in lines


def test_a_refusal_says_who_may_read_it(browsers: Front) -> None:
    for text in (
        request(CHAT, path="/nowhere"),
        request(b"{"),
        b"GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n",
    ):
        lines = dict(head_of(browsers, text))
        assert lines["access-control-allow-origin"] == ORIGIN
        assert "X-Request-Id" in lines["access-control-expose-headers"]
        assert lines["vary"] == "Origin"


def test_a_preflight_names_every_header_that_is_asked_for(browsers: Front) -> None:
    asked = (
        "authorization, content-type, x-api-key, anthropic-version, x-app-tenant, "
        "anthropic-dangerous-direct-browser-access, x-stainless-lang, x-stainless-something-new"
    )
    text = (
        f"OPTIONS /v1/messages HTTP/1.1\r\nHost: h\r\nOrigin: {ORIGIN}\r\n"
        f"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: {asked}, bad name\r\n\r\n"
    )
    lines = dict(head_of(browsers, text.encode()))
    allowed = {name.strip().lower() for name in lines["access-control-allow-headers"].split(",")}
    assert set(asked.split(", ")) <= allowed
    assert "bad name" not in allowed
    assert "POST" in lines["access-control-allow-methods"]
    assert lines["access-control-allow-origin"] == ORIGIN


def test_without_the_setting_the_engine_s_word_on_cors_passes() -> None:
    with recording() as recorder, balancer(recorder.url) as found:
        recorder.answer_lines = ["Access-Control-Allow-Origin: *"]
        lines = head_of((found, recorder), request(CHAT))
    assert [value for name, value in lines if name == "access-control-allow-origin"] == ["*"]


@pytest.mark.parametrize("status", [200, 302, 400, 404, 418, 422, 501])
def test_a_status_that_is_the_request_s_own_passes_with_its_body(strangers: Front, status: int) -> None:
    _, recorder = strangers
    recorder.status, recorder.answer = status, b'{"said":"by the engine"}'
    try:
        answer, seen = post(strangers, CHAT)
    finally:
        recorder.status, recorder.answer = 200, DONE
    assert (answer.status, answer.body) == (status, b'{"said":"by the engine"}')
    assert len(seen) == 1


def test_response_headers_meet_their_fates(strangers: Front) -> None:
    _, recorder = strangers
    recorder.answer_lines = [
        "X-Request-Id: engine",
        "X-Skylb-Refused: x",
        "X-SkyLB-Receipt: id=of-another; replica=http://10.0.0.1",
        "X-Amzn-Sagemaker-New-Session-Id: x",
        "Keep-Alive: timeout=5",
        "Connection: X-Hop",
        "X-Hop: y",
        "X-Own: y",
        "Server: engine",
    ]
    try:
        lines = head_of(strangers, request(CHAT, request_id="mine"))
    finally:
        recorder.answer_lines = []
    names = [name for name, _ in lines]
    assert [value for name, value in lines if name == "x-request-id"] == ["mine"]
    assert {"x-own", "server"} <= set(names)
    ours = {"x-skylb-refused", "x-skylb-receipt"}
    assert not (ours | {"x-amzn-sagemaker-new-session-id", "keep-alive", "x-hop"}) & set(names)
