"""The load generator against real sockets: a scripted server, and `skylb mock`."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skylb.errors import ConfigError, SkyLBError
from skylb.tools.load import LoadSettings, Report, prepare, render, run
from skylb.tools.load.settings import SyntheticSettings, parse_target
from tests.support.processes import PATIENCE_S, SKYLB, Child, free_port, mocks
from tests.support.recorder import recording

pytestmark = pytest.mark.any_clock

ONE = SyntheticSettings(users=1, sessions=1, turns=1)
Script = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
"""Answers one request, whose body is given; the connection stays open unless the script closes it."""


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length")
    )
    return await reader.readexactly(length)


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[str]:
    """A server that answers each request with the next script, the last one for all others."""
    left = list(scripts)
    serving: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.append(task)
        try:
            while not writer.is_closing():
                body = await read_request(reader)
                await (left.pop(0) if len(left) > 1 else left[0])(body, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the generator has gone, or the test has ended
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)
        await server.wait_closed()


def event(data: object) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def delta(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def usage(prompt: int, cached: int, completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(*events: bytes, head: bytes = HEAD, end: bytes = END) -> Script:
    async def script(_: bytes, writer: asyncio.StreamWriter) -> None:
        for data in (head, *map(chunk, events), end):
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0)

    return script


def whole(status: bytes, body: bytes) -> Script:
    async def script(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    return script


def closing(script: Script) -> Script:
    async def closed(body: bytes, writer: asyncio.StreamWriter) -> None:
        await script(body, writer)
        await writer.drain()
        writer.close()

    return closed


GOOD = answer(
    event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
    event(delta("one ")),
    event(delta("two ")),
    event({"choices": [], "usage": usage(100, 64, 3)}),
    event(b"[DONE]"),
)


def settings(url: str, **changes: Any) -> LoadSettings:
    given = {"target": (url,), "model": "m", "progress": "off", "synthetic": ONE, "drain_s": 5.0} | changes
    return LoadSettings.model_validate(given)


def load(*scripts: Script, **changes: Any) -> Report:
    async def go() -> Report:
        async with scripted(*scripts) as url:
            return await run(settings(url, **changes))

    return asyncio.run(go())


# ---------------------------------------------------------------------------- one answer


def test_a_stream_is_timed_from_content_event_to_content_event() -> None:
    total = load(GOOD).total
    assert (total.begun, total.ok, total.failed) == (1, 1, 0)
    assert total.ttft_s.count == 1
    assert total.itl_s.count == 1  # the role's event has no content, usage is no content
    assert total.e2e_s.count == 1
    assert (total.ttft_s.max or 0) <= (total.e2e_s.max or 0)
    assert (total.prompt_tokens, total.cached_tokens, total.completion_tokens) == (100, 64, 3)
    assert total.hit_rate == 0.64
    assert total.prompt_mismatches == 1  # the workload's prompt has another length


@pytest.mark.parametrize("cut", [1, 7, 50])
def test_where_events_are_cut_makes_no_difference(cut: int) -> None:
    stream = HEAD + b"".join(chunk(event(data)) for data in (delta("a"), delta("b"), b"[DONE]")) + END

    async def script(_: bytes, writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(stream), cut):
            writer.write(stream[at : at + cut])
            await writer.drain()
            await asyncio.sleep(0)

    total = load(script).total
    assert (total.ok, total.itl_s.count, total.usage_missing) == (1, 1, 1)


def test_a_whole_answer_is_read_when_no_stream_is_asked_for() -> None:
    body = {"choices": [{"message": {"role": "assistant", "content": "x"}}], "usage": usage(9, 3, 1)}
    total = load(whole(b"200 OK", json.dumps(body).encode()), stream=False).total
    assert (total.ok, total.ttft_s.count, total.e2e_s.count, total.cached_tokens) == (1, 0, 1, 3)


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        (whole(b"503 Service Unavailable", b'{"error": {"message": "full"}}'), "http_503", "full"),
        (whole(b"404 Not Found", b"nothing here"), "http_404", "nothing here"),
        (closing(whole(b"200 OK", b"")), "truncated", "[DONE]"),
        (answer(event(delta("a"))), "truncated", "[DONE]"),
        (closing(answer(event(delta("a")), end=b"")), "truncated", "closed"),
        (closing(answer(head=b"", end=b"")), "reset", "closed"),
        (
            answer(event(delta("a")), event({"error": {"message": "died", "code": 500}})),
            "stream_error",
            "died",
        ),
        (answer(event(b"{nonsense")), "bad_response", "nonsense"),
        (answer(head=b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", end=b""), "bad_response", ""),
        (answer(head=b"SSH-2.0-OpenSSH\r\n\r\n", end=b""), "bad_response", ""),
    ],
)
def test_every_kind_of_failure_is_counted_by_its_name(script: Script, kind: str, words: str) -> None:
    total = load(script).total
    assert (total.begun, total.ok, total.failed, total.errors) == (1, 0, 1, {kind: 1})
    assert words in total.error_samples[kind]


def test_a_target_that_is_not_there_is_counted_as_such() -> None:
    report = asyncio.run(run(settings(f"http://127.0.0.1:{free_port()}")))
    assert report.total.errors == {"connect": 1}
    assert "connect" in render(report)


def test_a_silent_target_is_given_up() -> None:
    async def script(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        await asyncio.Event().wait()

    assert load(script, silence_s=0.05).total.errors == {"silent": 1}


def test_a_kept_connection_that_was_closed_meanwhile_is_no_failure() -> None:
    two = SyntheticSettings(users=1, sessions=2, turns=1)

    async def closed_unanswered(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    total = load(GOOD, closed_unanswered, GOOD, synthetic=two).total
    assert (total.ok, total.failed, total.stale_connections) == (2, 0, 1)


# ------------------------------------------------------------------------- what is asked for


def asked(**changes: Any) -> list[dict[str, Any]]:
    bodies: list[dict[str, Any]] = []

    async def script(body: bytes, writer: asyncio.StreamWriter) -> None:
        bodies.append(json.loads(body))
        await GOOD(body, writer)

    load(script, **changes)
    return bodies


def test_a_chat_request_asks_for_the_traced_length_and_for_usage() -> None:
    (body,) = asked()
    assert body["model"] == "m"
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["ignore_eos"] is True
    assert body["temperature"] == 0
    assert body["max_tokens"] > 0
    assert body["user"] == "user-0"
    assert [message["role"] for message in body["messages"]] == ["user"]


def test_a_completion_request_has_a_prompt_instead_of_messages() -> None:
    (body,) = asked(endpoint="completions", stream=True)
    assert isinstance(body["prompt"], str)
    assert "messages" not in body


def test_turns_of_a_user_follow_each_other() -> None:
    chats = SyntheticSettings(users=1, sessions=2, turns=3, think_s=0, systems=0, seed=5)
    lengths = [len(body["messages"]) for body in asked(synthetic=chats)]
    starts = [index for index, length in enumerate(lengths) if length == 1]
    assert len(starts) == 2
    assert lengths == [1 + 2 * index for index in range(starts[1])] + [
        1 + 2 * index for index in range(len(lengths) - starts[1])
    ]


def test_a_header_names_the_conversation_where_it_is_wanted(tmp_path: Path) -> None:
    chats = SyntheticSettings(users=1, sessions=2, turns=2, think_s=0, systems=0, seed=5)
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("secret")
    with recording() as replica:
        asyncio.run(run(settings(replica.url, synthetic=chats, stream=False)))
        plain, replica.seen = replica.seen, []
        named = {"session_header": "X-Session-ID", "key_file": key}
        asyncio.run(run(settings(replica.url, synthetic=chats, stream=False, **named)))
    assert all("x-session-id" not in seen.headers for seen in plain)
    assert all(seen.headers["authorization"] == "Bearer secret" for seen in replica.seen)
    sessions = [seen.headers["x-session-id"] for seen in replica.seen]
    starts = [len(json.loads(seen.body)["messages"]) == 1 for seen in replica.seen]
    assert sessions == [f"session-{sum(starts[: index + 1]) - 1}" for index in range(len(starts))]


@pytest.mark.parametrize("name", ["Content-Length", "host", "AUTHORIZATION"])
def test_a_header_that_says_something_else_names_no_conversation(name: str) -> None:
    ((options, sentence),) = settings("http://127.0.0.1:1", session_header=name).conflicts()
    assert options == {"session_header"}
    assert sentence == f"session_header is {name}: expected a header that no request has anyway"


def test_no_more_users_talk_at_once_than_allowed() -> None:
    now = most = 0

    async def script(body: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        await GOOD(body, writer)
        now -= 1

    many = SyntheticSettings(users=12, sessions=1, turns=2, think_s=0)
    report = load(script, synthetic=many, concurrency=3)
    assert report.total.ok == report.workload_requests
    assert most == 3


def test_the_open_loop_sends_in_time_whatever_comes_back() -> None:
    pending: list[asyncio.StreamWriter] = []

    async def script(body: bytes, writer: asyncio.StreamWriter) -> None:
        pending.append(writer)
        if len(pending) == 5:
            for waiting in pending:
                await GOOD(body, waiting)

    five = SyntheticSettings(users=5, sessions=1, turns=1, rate_per_s=1000)
    report = load(script, synthetic=five, mode="open")
    assert report.total.ok == 5
    assert report.generator.send_lag_s.count == 5


def test_the_open_loop_refuses_what_is_too_much_and_says_so() -> None:
    async def script(_: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    five = SyntheticSettings(users=5, sessions=1, turns=1, rate_per_s=1000)
    report = load(script, synthetic=five, mode="open", in_flight_max=2, duration_s=0.5, drain_s=0.0)
    assert report.total.errors == {"client_limit": 3}
    assert report.total.unfinished == 2


def test_users_are_made_up_for_the_regions_of_the_targets() -> None:
    async def go(*targets: str) -> list[str]:
        async with scripted(GOOD) as server:
            report = await run(settings("", target=[text.format(server) for text in targets]))
            return list(report.regions)

    assert asyncio.run(go("us={}")) == ["us"]
    assert asyncio.run(go("us={}", "eu={}", "us={}")) == ["eu", "us"]
    assert asyncio.run(go("us={}", "{}")) == ["local", "us"]


def test_regions_go_to_their_own_targets() -> None:
    async def go() -> Report:
        async with scripted(GOOD) as eu, scripted(GOOD) as other:
            regions = SyntheticSettings(users=2, sessions=1, turns=1, regions=("eu", "us"))
            report = await run(settings(f"eu={eu}", target=(f"eu={eu}", other), synthetic=regions))
            with pytest.raises(ConfigError, match="no target for region us"):
                await prepare(settings(f"eu={eu}", synthetic=regions))
            return report

    report = asyncio.run(go())
    assert {name: section.ok for name, section in report.regions.items()} == {"eu": 2, "us": 2}
    assert report.total.ok == 4


def test_the_warm_up_is_sent_but_not_timed() -> None:
    report = load(GOOD, warmup_s=3600.0)
    assert (report.total.ok, report.total.warmup, report.total.e2e_s.count) == (1, 1, 0)
    assert (report.total.prompt_tokens, report.total.requests_per_s) == (0, 0.0)


def test_after_its_time_the_load_sends_nothing_more_and_waits_for_answers() -> None:
    async def script(body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        await GOOD(body, writer)

    many = SyntheticSettings(users=4, sessions=50, turns=1)
    report = load(script, synthetic=many, concurrency=4, duration_s=0.1)
    assert (report.ended_by, report.total.begun, report.total.ok) == ("duration", 4, 4)
    assert 0 < report.workload_sent < 1


def test_the_model_is_the_targets_first_unless_named() -> None:
    with mocks(1, "--model", "first", "--model", "second", "--time-scale", "0.01") as (url,):
        assert asyncio.run(run(settings(url, model=None))).model == "first"
    with pytest.raises(SkyLBError, match="--model"):
        asyncio.run(run(settings(f"http://127.0.0.1:{free_port()}", model=None)))


# ----------------------------------------------------------------- against the mock replica


def test_the_mock_counts_the_prompt_tokens_of_the_workload_and_finds_generated_kv() -> None:
    chats = SyntheticSettings(users=4, sessions=2, turns=4, think_s=0, answer_tokens=64)
    with mocks(1, "--time-scale", "0.001", "--kv-tokens", "200000") as (url,):
        for changes in ({}, {"endpoint": "completions"}, {"stream": False}):
            report = asyncio.run(run(settings(url, model="mock", synthetic=chats, concurrency=4, **changes)))
            assert report.total.ok == report.workload_requests > 16
            assert report.total.prompt_mismatches == report.total.usage_missing == 0
            assert report.total.hit_rate is not None
            assert report.total.hit_rate > 0.6


def test_generated_kv_is_found_only_with_directives() -> None:
    chats = SyntheticSettings(users=2, sessions=2, turns=5, systems=0, user_tokens=16, answer_tokens=200)
    rates = []
    for directives in (False, True):
        with mocks(1, "--time-scale", "0.001", "--kv-tokens", "200000") as (url,):
            report = asyncio.run(
                run(settings(url, model="mock", synthetic=chats, time_scale=0.001, directives=directives))
            )
            assert report.total.prompt_mismatches == 0
            rates.append(report.total.hit_rate or 0.0)
    assert rates[1] > rates[0] + 0.2


# -------------------------------------------------------------------------- as a command


@contextmanager
def command(*arguments: str) -> Iterator[Child]:
    child = Child([*SKYLB, "load", *arguments])
    try:
        yield child
    finally:
        child.stop()


def test_the_command_prints_and_writes_its_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with mocks(2, "--time-scale", "0.001") as urls:
        targets = ["--target", urls[0], "--target", urls[1]]
        with command(*targets, "--sessions", "3", "--time-scale", "0.001", "--json-file", str(path)) as child:
            assert child.popen.wait(PATIENCE_S) == 0
            text = child.text()
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    assert report.total.ok == report.workload_requests
    assert report.ended_by == "exhausted"
    assert "TTFT" in text
    assert str(report.total.ok) in text


def test_interrupted_it_reports_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    endless = ["--synthetic-answer-tokens", "2000", "--synthetic-think-s", "0", "--progress", "lines"]
    with (
        mocks(1) as (url,),
        command("--target", url, "--json-file", str(path), "--concurrency", "3", *endless) as child,
    ):
        child.require(lambda: " in flight" in child.text(), timeout_s=30, what="progress")
        child.send(signal.SIGINT)
        assert child.popen.wait(PATIENCE_S) in {0, 1}  # 1 if nothing had been answered yet
        text = child.text()
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    total = report.total
    assert report.ended_by == "interrupted"
    assert total.unfinished > 0
    assert total.begun == total.ok + total.failed + total.unfinished
    assert "interrupted" in text


def test_a_load_of_which_nothing_was_answered_fails() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    few = ["--synthetic-users", "1", "--synthetic-sessions", "1", "--synthetic-turns", "1"]
    with command("--target", nowhere, "--model", "m", *few) as child:
        assert child.popen.wait(PATIENCE_S) == 1
        assert "error connect" in child.text()


def test_a_broken_workload_ends_the_command_with_its_name_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"id": 1}\n')
    with command("--target", "http://127.0.0.1:9", "--workload", str(path)) as child:
        assert child.popen.wait(PATIENCE_S) == 1
        assert f"{path}, line 1: " in child.text()


def test_a_target_reads_as_it_is_written() -> None:
    assert str(parse_target("eu=http://h:1/v1")) == "eu=http://h:1"
    assert str(parse_target("https://h/v1/")) == "https://h:443"
    for bad in ("=http://h:1", "ftp://h", "eu=", "http://h:1/other"):
        with pytest.raises(ValueError):  # noqa: PT011 - the messages are those of `skylb.addresses`
            parse_target(bad)
