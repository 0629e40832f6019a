"""``skylb mock`` over real sockets: time, leaving, HTTP, metrics, faults, log."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from skylb._core import scan_metrics
from skylb.addresses import ListenAddress
from skylb.control.dialects import DIALECTS
from skylb.errors import ListenError
from skylb.tools.mock import MockSettings, start
from skylb.tools.mock.faults import Faults
from tests.support.mock import NEVER, ask, fault, get, mock, port_of, post, run, state
from tests.support.raw import chat, request, until

# ----------------------------------------------------------------------- time, leaving, load


def test_the_head_of_a_stream_is_sent_on_acceptance_before_any_token() -> None:
    async def test() -> None:
        async with mock(profile="l4-8b", time_scale=NEVER) as fleet:
            connection = await fleet.connect()
            connection.writer.write(request(chat("hello", stream=True)))
            head = await connection.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"content-type: text/event-stream" in head
            assert fleet.replicas[0].model.output_tokens == 0

    run(test)


def test_a_client_that_leaves_is_aborted_in_the_model_in_every_phase() -> None:
    async def test() -> None:
        async with mock(profile="l4-8b", time_scale=NEVER, max_num_seqs=1) as fleet:
            replica = fleet.replicas[0]
            connections = [await fleet.connect() for _ in range(3)]
            for connection, stream in zip(connections, (True, True, False), strict=True):
                connection.writer.write(request(chat("hello", stream=stream)))
            await until(lambda: replica.in_flight == 3)
            now = await state(fleet)
            assert (now["running"], now["waiting"]) == (1, 2)
            assert json.loads((await get(fleet, "/load")).body) == {"server_load": 3}
            connections[1].abort()
            connections[2].writer.close()
            connections[0].abort()
            await until(lambda: replica.in_flight == 0)
            now = await state(fleet)
            assert (now["running"], now["waiting"], now["kv_usage"]) == (0, 0, 0.0)
            assert now["ended"]["abort"] == 3
            replica.model.check_invariants()

    run(test)


def test_a_client_that_reads_late_gets_every_token() -> None:
    async def test() -> None:
        async with mock() as fleet:
            replica = fleet.replicas[0]
            connection = await fleet.connect()
            connection.writer.write(request(chat("hello", max_tokens=20_000, stream=True)))
            await until(lambda: replica.totals.ended["length"] == 1)
            answer = await connection.answer()
            assert answer.complete
            assert answer.body.count(b'"content":"') == 20_000 + 1

    run(test)


def test_an_idle_connection_is_closed_and_one_with_a_request_is_not() -> None:
    async def test() -> None:
        async with mock(profile="l4-8b", time_scale=NEVER, keep_alive_s=0.2) as fleet:
            idle = await fleet.connect()
            busy = await fleet.connect()
            busy.writer.write(request(chat("hello", stream=True)))
            await busy.reader.readuntil(b"\r\n\r\n")
            assert await idle.reader.read() == b""
            assert not busy.reader.at_eof()
            assert fleet.replicas[0].in_flight == 1

    run(test)


# ------------------------------------------------------------------------------------- HTTP


def test_requests_on_one_connection_are_answered_in_order() -> None:
    async def test() -> None:
        async with mock(profile="h100-8b", time_scale=0.01) as fleet:
            lengths = [3, 1, 2]
            connection = await fleet.connect()
            connection.writer.write(b"".join(request(chat("hi", max_tokens=n)) for n in lengths))
            for length in lengths:
                head = await connection.reader.readuntil(b"\r\n\r\n")
                size = re.search(rb"content-length: (\d+)", head)
                assert size is not None
                body = json.loads(await connection.reader.readexactly(int(size[1])))
                assert body["usage"]["completion_tokens"] == length

    run(test)


@pytest.mark.parametrize("cut", [1, 7, 64])
def test_a_chunked_body_in_small_pieces_is_accepted(cut: int) -> None:
    async def test() -> None:
        async with mock() as fleet:
            body = json.dumps(chat("hello", max_tokens=2)).encode()
            pieces = [body[at : at + 50] for at in range(0, len(body), 50)]
            sent = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            sent += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
            connection = await fleet.connect()
            for at in range(0, len(sent), cut):
                connection.writer.write(sent[at : at + cut])
                # The server's turn on the same loop: it sees the piece alone.
                await asyncio.sleep(0)
            assert (await connection.answer()).status == 200
            assert (await connection.ask(request(chat("again")))).status == 200

    run(test)


def test_a_client_that_expects_100_gets_it_before_it_sends_the_body() -> None:
    async def test() -> None:
        async with mock() as fleet:
            connection = await fleet.connect()
            head, _, body = request(chat("hello")).partition(b"\r\n\r\n")
            connection.writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
            assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert (await connection.ask(body)).status == 200

    run(test)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /health HTTP/1.0\r\n\r\n", 505),
        (b"POST /ping HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /ping HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n", 413),
        (b"POST /ping HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nX: " + b"x" * 70_000, 431),
        (b"POST /ping HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_a_head_that_cannot_be_framed_closes_the_connection(sent: bytes, status: int) -> None:
    async def test() -> None:
        async with mock() as fleet:
            connection = await fleet.connect()
            connection.writer.write(sent)
            answered = await connection.reader.read()
            assert answered.startswith(b"HTTP/1.1 %d " % status)
            assert b"connection: close\r\n" in answered

    run(test)


# ----------------------------------------------------------------------------------- metrics


def test_the_metrics_page_is_read_by_prometheus_and_by_the_scanner_and_is_as_long_as_asked() -> None:
    async def test() -> None:
        async with mock(metrics_bytes=50_000, kv_tokens=600_000, model=('a"b',)) as fleet:
            before = (await get(fleet, "/metrics")).body
            assert 50_000 <= len(before) < 53_000
            for _ in range(2):
                assert (await ask(fleet, chat("x" * 400, max_tokens=3, model='a"b'))).status == 200
            page = (await get(fleet, "/metrics")).body
            families = {family.name: family for family in text_string_to_metric_families(page.decode())}
            queries = families["vllm:prefix_cache_queries"].samples[0]
            assert (queries.labels["model_name"], queries.value) == ('a"b', 200.0)
            assert families["vllm:generation_tokens"].samples[0].value == 6.0
            snapshot = scan_metrics(page, "vllm")
            assert (snapshot.running, snapshot.waiting, snapshot.preemptions) == (0, 0, 0)
            assert (snapshot.cache_queries, snapshot.cache_hits) == (200, 96)
            assert (snapshot.kv_tokens, snapshot.block_size) == (600_000, 16)
            assert snapshot.kv_usage == 0.0

    run(test)


def test_a_page_of_the_metrics_asked_for_tells_what_the_whole_page_tells() -> None:
    async def test() -> None:
        async with mock(metrics_bytes=50_000) as fleet:
            assert (await ask(fleet, chat("x" * 400, max_tokens=3))).status == 200
            whole = (await get(fleet, "/metrics")).body
            narrowed = (await get(fleet, DIALECTS[0].narrowed_path)).body
            assert len(narrowed) < len(whole) / 10
            assert repr(scan_metrics(narrowed, "vllm")) == repr(scan_metrics(whole, "vllm"))
            # vLLM's own route for the page knows no names.
            assert (await get(fleet, "/metrics?name[]=vllm:num_requests_running")).body == whole
            some = (await get(fleet, "/metrics/?name[]=vllm:num_requests_running&name[]=nobody:s")).body
            families = list(text_string_to_metric_families(whole.decode()))
            running = [family for family in families if family.name == "vllm:num_requests_running"]
            assert list(text_string_to_metric_families(some.decode())) == running

    run(test)


def test_the_gauges_tell_the_end_of_the_last_step_and_the_state_tells_the_present() -> None:
    async def test() -> None:
        async with mock(profile="l4-8b", time_scale=NEVER) as fleet:
            connection = await fleet.connect()
            connection.writer.write(request(chat("hello", stream=True)))
            await connection.reader.readuntil(b"\r\n\r\n")
            assert (await state(fleet))["running"] == 1
            assert scan_metrics((await get(fleet, "/metrics")).body, "vllm").running == 0

    run(test)


# ------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/chat/completions", b'data: {"error":'),
        ("/v1/messages", b'event: error\ndata: {"type":"error"'),
        ("/v1/responses", b"event: response.failed\ndata: "),
    ],
)
def test_a_stream_begins_with_an_error_where_it_is_told_to(path: str, error: bytes) -> None:
    async def test() -> None:
        async with mock(fault=Faults(error_event_rate=1)) as fleet:
            body = {"model": "mock", "messages": [{"role": "user", "content": "x"}], "input": "x"}
            answer = await post(fleet, path, {**body, "max_tokens": 4, "stream": True})
            assert (answer.status, answer.complete) == (200, True)
            assert answer.body.count(error) == 1
            assert b"delta" not in answer.body
            assert (await state(fleet))["in_flight"] == 0

    run(test)


def test_a_silent_stream_has_comments_where_it_is_told_to() -> None:
    async def test() -> None:
        async with mock(profile="l4-8b", time_scale=NEVER, fault=Faults(comment_ms=10)) as fleet:
            connection = await fleet.connect()
            connection.writer.write(request(chat("x", stream=True)))
            seen = b""
            while seen.count(b": keep-alive\n\n") < 2:
                seen += await connection.reader.read(4096)
            assert b"data:" not in seen

    run(test)


def test_an_answer_stalls_behind_its_first_byte_where_it_is_told_to() -> None:
    async def test() -> None:
        async with mock(fault=Faults(stall_in_body=True)) as fleet:
            connection = await fleet.connect()
            connection.writer.write(request(chat("x")))
            head = await connection.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await connection.reader.readexactly(1) == b"{"

    run(test)


def test_faults_are_changed_at_run_time_field_by_field() -> None:
    async def test() -> None:
        async with mock(fault=Faults(error_rate=1, status=429)) as fleet:
            assert (await ask(fleet, chat("a"))).status == 429
            assert (await fault(fleet, status=599))["error_rate"] == 1.0
            assert (await ask(fleet, chat("a"))).status == 599
            await fault(fleet, error_rate=0, health_status=503, metrics_status=404)
            assert (await ask(fleet, chat("a"))).status == 200
            assert (await get(fleet, "/health")).status == 503
            assert (await get(fleet, "/metrics")).status == 404
            assert (await post(fleet, "/mock/faults", {"error_rat": 1})).status == 400
            assert (await post(fleet, "/mock/faults", b"[]")).status == 400
            assert (await post(fleet, "/mock/faults", b"{")).status == 400
            assert fleet.replicas[0].faults.health_status == 503

    run(test)


def test_the_share_of_errors_is_drawn_from_the_seed() -> None:
    async def statuses(seed: int) -> list[int]:
        async with mock(seed=seed, fault=Faults(error_rate=0.5)) as fleet:
            return [(await ask(fleet, chat("a"))).status for _ in range(40)]

    async def test() -> None:
        one = await statuses(1)
        assert set(one) == {200, 500}
        assert one == await statuses(1)
        assert one != await statuses(2)

    run(test)


@pytest.mark.parametrize("after", [0, 1, 5, 8])
@pytest.mark.parametrize("stream", [True, False])
def test_a_cut_response_holds_exactly_the_tokens_before_the_cut(after: int, stream: bool) -> None:
    async def test() -> None:
        async with mock(fault=Faults(cut_after_tokens=after)) as fleet:
            connection = await fleet.connect()
            connection.writer.write(request(chat("hello", max_tokens=8, stream=stream)))
            got = await connection.reader.read()
            assert fleet.replicas[0].in_flight == 0
            if stream:
                assert got.startswith(b"HTTP/1.1 200 OK")
                assert len(re.findall(rb'"content":"[^"]{4}"', got)) == after
                assert b"[DONE]" not in got
            else:
                assert got == b""

    run(test)


def test_an_answer_that_ends_before_the_cut_is_whole() -> None:
    async def test() -> None:
        async with mock(fault=Faults(cut_after_tokens=9)) as fleet:
            for stream in (True, False):
                assert (await ask(fleet, chat("hello", max_tokens=8, stream=stream))).complete

    run(test)


def test_a_stalled_response_stays_open_without_another_byte() -> None:
    async def test() -> None:
        async with mock(fault=Faults(stall_after_tokens=3)) as fleet:
            connection = await fleet.connect()
            connection.writer.write(request(chat("hello", max_tokens=8, stream=True)))
            got = b""
            while len(re.findall(rb'"content":"[^"]{4}"', got)) < 3:
                got += await connection.reader.read(65_536)
            # Another connection is served by the same loop meanwhile: had more been sent, it were here.
            await get(fleet, "/health")
            assert len(re.findall(rb'"content":"[^"]{4}"', got)) == 3
            assert b"[DONE]" not in got
            assert not connection.reader.at_eof()

    run(test)


def test_a_refusing_replica_resets_connections_and_still_takes_orders() -> None:
    async def test() -> None:
        async with mock(fault=Faults(refuse=True)) as fleet:
            for answer in (await ask(fleet, chat("a")), await get(fleet, "/health")):
                assert (answer.status, answer.complete) == (0, False)
            await fault(fleet, refuse=False)
            assert (await get(fleet, "/health")).status == 200

    run(test)


@pytest.mark.parametrize("stream", [True, False])
def test_a_slow_head_comes_with_the_whole_response(stream: bool) -> None:
    async def test() -> None:
        async with mock(fault=Faults(slow_head_ms=30)) as fleet:
            answer = await ask(fleet, chat("hello", max_tokens=8, stream=stream))
            assert (answer.status, answer.complete) == (200, True)

    run(test)


# ------------------------------------------------------------------------------- log, fleet


def test_the_completions_log_says_how_each_request_ended(tmp_path: Path) -> None:
    log = tmp_path / "completions.jsonl"

    async def test() -> None:
        async with mock(completions_log=log) as fleet:
            url = fleet.urls[0]
            body = chat("hello", max_tokens=3)
            await ask(fleet, body, request_id="done")
            await fault(fleet, cut_after_tokens=2)
            await ask(fleet, body, request_id="cut")
        async with mock(completions_log=log, profile="l4-8b", time_scale=NEVER) as fleet:
            replica = fleet.replicas[0]
            connection = await fleet.connect()
            connection.writer.write(request(body, request_id="gone"))
            await until(lambda: replica.in_flight == 1)
            connection.abort()
            await until(lambda: replica.totals.ended["abort"] == 1)
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            assert [(line["request_id"], line["outcome"]) for line in lines] == [
                ("done", "completed"),
                ("cut", "failed"),
                ("gone", "aborted"),
            ]
            assert lines[0] == {
                "request_id": "done",
                "replica": url,
                "outcome": "completed",
                "prompt_tokens": 2,
                "cached_tokens": 0,
                "tokens": 3,
            }
            assert lines[1]["tokens"] == 2

    run(test)


def test_many_replicas_of_one_process_are_apart() -> None:
    async def test() -> None:
        async with mock(count=5) as fleet:
            assert len(set(fleet.urls)) == 5
            for index in range(5):
                for _ in range(index):
                    await ask(fleet, chat("a"), index=index)
            assert [replica.totals.ended["length"] for replica in fleet.replicas] == [0, 1, 2, 3, 4]

    run(test)


def test_a_port_in_use_is_a_listen_error() -> None:
    async def test() -> None:
        async with mock() as fleet:
            taken = ListenAddress("127.0.0.1", port_of(fleet))
            with pytest.raises(ListenError, match=str(taken)):
                await start(MockSettings(listen=taken))

    run(test)


def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    async def test() -> None:
        path = str(tmp_path / "mock.sock")
        async with mock(listen=ListenAddress(path, 0, unix=True)) as fleet:
            assert fleet.urls == [f"unix:{path}"]
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.close()

    run(test)


def test_what_comes_after_a_request_that_closes_is_not_answered() -> None:
    async def test() -> None:
        async with mock() as fleet:
            connection = await fleet.connect()
            closing = request(chat("hello")).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
            connection.writer.write(closing + request(chat("again")))
            assert (await connection.reader.read()).count(b"HTTP/1.1 ") == 1

    run(test)


def test_the_log_knows_of_requests_under_way_when_the_replicas_stop(tmp_path: Path) -> None:
    log = tmp_path / "completions.jsonl"

    async def test() -> None:
        async with mock(completions_log=log, profile="l4-8b", time_scale=NEVER) as fleet:
            connection = await fleet.connect()
            connection.writer.write(request(chat("hello", stream=True), request_id="cut-off"))
            await connection.reader.readuntil(b"\r\n\r\n")
            await fleet.stop()
        assert [json.loads(line)["request_id"] for line in log.read_text().splitlines()] == ["cut-off"]

    run(test)
