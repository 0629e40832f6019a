"""Models that replicas hide, load, lose, and resolve on demand, behind a balancer of its own process."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests.support.processes import Balancer, answers, balancer, eventually, free_port
from tests.support.raw import Answer, ask, chat, request, until

METRICS = b'vllm:num_requests_running{engine="0"} 0.0\nvllm:num_requests_waiting{engine="0"} 0.0\n'
KEY = "sk-engine"
SELDOM = ["--discovery-models-s", "3600"]
"""Lists are read once, and when a request asks for it."""


class Engine:
    """A replica with a list of models that a test can change, guarded by a key if it has one."""

    def __init__(self, *models: str, key: str | None = None) -> None:
        self.models = list(models)
        self.resolves: list[str] = []
        """Served, and in no list."""
        self.key = key
        self.list_status = 200
        self.lists = asyncio.Event()
        """It answers when it is asked for its list."""
        self.lists.set()
        self.looks = 0
        self.asked: list[str] = []
        self.url = ""
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = head.lower().partition("content-length:")[2].partition("\r")[0]
                body = await reader.readexactly(int(length or 0))
                status, answer = self._answer(head, body)
                if head.startswith("GET /v1/models"):
                    await self.lists.wait()
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(answer), answer))
        writer.close()

    def _answer(self, head: str, body: bytes) -> tuple[int, bytes]:
        path = head.split(" ")[1]
        if path.startswith("/metrics"):
            return (404, b"") if "?" in path else (200, METRICS)
        if path == "/v1/models":
            self.looks += 1
        if self.key is not None and f"Bearer {self.key}" not in head:
            return 401, b'{"error": "engine: Unauthorized"}'
        if path == "/v1/models":
            listed = {"object": "list", "data": [{"id": model} for model in self.models]}
            return self.list_status, json.dumps(listed).encode()
        model = json.loads(body)["model"]
        self.asked.append(model)
        if model in self.models or model in self.resolves:
            return 200, json.dumps({"served": model}).encode()
        return 404, b'{"error": "engine: no such model"}'


def run(
    engines: list[Engine],
    work: Callable[[Balancer], Awaitable[Any]],
    *arguments: str,
    urls: tuple[str, ...] = (),
) -> None:
    """Runs ``work`` against a balancer in front of ``engines``, and of ``urls``."""

    async def whole() -> None:
        for engine in engines:
            await engine.start()
        with ExitStack() as stack:
            context = balancer(*(e.url for e in engines), *urls, arguments=list(arguments), wait_ready=False)
            try:
                front = await asyncio.to_thread(stack.enter_context, context)
                await until(lambda: "clients" in front.child.text())  # it has looked at its replicas
                await work(front)
            finally:
                await asyncio.to_thread(stack.close)
                for engine in engines:
                    engine.stop()

    asyncio.run(whole())


async def send(front: Balancer, model: str, *, key: str | None = None) -> Answer:
    headers = [f"Authorization: Bearer {key}"] if key is not None else []
    return await ask(front.port, request(chat("x", model=model), headers=headers))


async def fetch(front: Balancer, path: str, method: str = "GET") -> Answer:
    return await ask(front.port, f"{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode())


async def listed(front: Balancer) -> list[str]:
    body = json.loads((await fetch(front, "/v1/models")).body)
    return [model["id"] for model in body["data"]]


def test_a_fleet_behind_keys_serves_those_who_have_one_and_its_own_refusals_pass() -> None:
    engine = Engine("m", key=KEY)

    async def work(front: Balancer) -> None:
        assert await asyncio.to_thread(answers, f"{front.admin}/ready")
        assert (await send(front, "m", key=KEY)).body == b'{"served": "m"}'
        refused = await send(front, "m", key="wrong")
        assert (refused.status, refused.body) == (401, b'{"error": "engine: Unauthorized"}')
        unknown = await send(front, "n", key=KEY)
        assert (unknown.status, unknown.body) == (404, b'{"error": "engine: no such model"}')
        assert "its models are not known" in front.child.text()
        state = await asyncio.to_thread(front.state)
        assert "/v1/models answers 401" in state["replicas"][engine.url]

    run([engine], work)


def test_a_key_for_probes_reads_the_lists_and_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    engine = Engine("m", key=KEY)

    async def work(front: Balancer) -> None:
        assert await listed(front) == ["m"]
        assert (await send(front, "m")).status == 401
        assert (await send(front, "m", key=KEY)).status == 200
        assert "replica_key_file" not in front.child.text()

    run([engine], work, "--probe-key-file", str(tmp_path / "key"))


def test_a_key_for_all_requests_is_remarked_where_clients_are_not_checked(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    engine = Engine("m", key=KEY)

    async def work(front: Balancer) -> None:
        assert (await send(front, "m")).status == 200
        said = "replica_key_file: everybody on this machine can use the replicas with this key"
        front.child.require(lambda: said in front.child.text(), what="a warning")

    run([engine], work, "--replica-key-file", str(tmp_path / "key"))


def test_a_replica_behind_a_key_is_no_dead_end_for_models_that_another_has() -> None:
    engines = [Engine("m", key=KEY), Engine("n", key=KEY)]

    async def work(front: Balancer) -> None:
        for model in ["m", "n"] * 6:
            assert (await send(front, model, key=KEY)).body == json.dumps({"served": model}).encode()
        assert (await send(front, "x", key=KEY)).status == 404

    run(engines, work)


def test_ready_says_no_while_nothing_can_be_served() -> None:
    engine = Engine("m")
    engine.list_status = 503

    async def work(front: Balancer) -> None:
        assert not await asyncio.to_thread(answers, f"{front.admin}/ready")
        answer = await send(front, "m")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        engine.list_status = 200
        await until(lambda: answers(f"{front.admin}/ready"))
        assert (await send(front, "m")).status == 200

    run([engine], work, "--hold-timeout-s", "1")


def test_an_adapter_loaded_a_moment_ago_is_served_at_once() -> None:
    engine = Engine("m")

    async def work(front: Balancer) -> None:
        engine.models.append("lora")
        assert (await send(front, "lora")).body == b'{"served": "lora"}'
        unknown = await send(front, "none")
        assert unknown.status == 404
        assert "Known models: lora, m" in json.loads(unknown.body)["error"]["message"]
        assert engine.asked == ["lora"]

    run([engine], work, *SELDOM)


def test_a_request_that_is_refused_out_of_the_hold_says_how_long_it_was_there() -> None:
    engine = Engine("m")

    async def work(front: Balancer) -> None:
        before = engine.looks
        engine.lists.clear()
        sent = asyncio.ensure_future(send(front, "none"))
        await until(lambda: engine.looks > before)
        engine.lists.set()
        assert (await sent).status == 404
        (line,) = await asyncio.to_thread(eventually, front.log, what="its line")
        assert line["error_code"] == "model_not_found"
        assert line["held_s"] > 0

    run([engine], work, *SELDOM)


def test_a_flood_of_names_costs_the_engines_a_look_a_second() -> None:
    engine = Engine("m")

    async def work(front: Balancer) -> None:
        before, began_s = engine.looks, time.monotonic()
        found = await asyncio.gather(*(send(front, f"x{number}") for number in range(100)))
        assert {answer.status for answer in found} == {404}
        assert 1 <= engine.looks - before <= 2 + time.monotonic() - began_s
        assert engine.asked == []

    run([engine], work, *SELDOM)


def test_passed_on_a_model_that_an_engine_resolves_on_demand_is_served_by_who_has_it() -> None:
    engines = [Engine("m"), Engine("m")]
    engines[1].resolves.append("lora")

    async def work(front: Balancer) -> None:
        for _ in range(6):
            assert (await send(front, "lora")).body == b'{"served": "lora"}'
        unknown = await send(front, "none")
        assert (unknown.status, unknown.body) == (404, b'{"error": "engine: no such model"}')
        assert await listed(front) == ["m"]

    run(engines, work, *SELDOM, "--unknown-models", "pass")


def test_a_model_that_left_its_list_a_moment_ago_is_to_be_asked_for_again() -> None:
    engine = Engine("m", "n")

    async def work(front: Balancer) -> None:
        assert await listed(front) == ["m", "n"]
        engine.models.remove("n")
        for _ in range(400):
            if await listed(front) == ["m"]:
                break
            await asyncio.sleep(0.05)
        answer = await send(front, "n")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert json.loads(answer.body)["error"]["code"] == "model_not_ready"

    run([engine], work, "--discovery-models-s", "0.2")


def test_a_model_whose_only_replica_may_still_be_loading_is_to_be_asked_for_again() -> None:
    async def work(front: Balancer) -> None:
        answer = await send(front, "n")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert (await send(front, "m")).status == 200

    run([Engine("m")], work, urls=(f"http://127.0.0.1:{free_port()}",))


def test_a_model_beyond_the_bound_of_a_list_is_served_all_the_same() -> None:
    names = [f"a{number:05}" for number in range(1_100)]

    async def work(front: Balancer) -> None:
        assert len(await listed(front)) == 1_024
        for model in (names[0], names[-1]):
            assert (await send(front, model)).status == 200

    run([Engine(*names)], work)


FOUND = {
    "org/name": "org/name",
    "org%2Fname": "org/name",
    "org%2fname": "org/name",
    "%6Frg/n%61me": "org/name",
    "org/name/": "org/name",
    "mod%C3%A8le": "modèle",
    "100%25": "100%",
}
NOT_FOUND = ["org%252Fname", "org%2Fother", "org%2", "%zz", "%ff", "a//b", "org/name//", "..", "%2e%2e"]


def test_a_model_is_found_by_its_name_escaped_or_not() -> None:
    async def work(front: Balancer) -> None:
        for path, found in FOUND.items():
            answer = await fetch(front, f"/v1/models/{path}")
            assert (answer.status, json.loads(answer.body)["id"]) == (200, found), path
            assert (await fetch(front, f"/v1/models/{path}", "HEAD")).status == 200, path
        for path in NOT_FOUND:
            for method in ("GET", "HEAD"):
                answer = await fetch(front, f"/v1/models/{path}", method)
                assert answer.status in {400, 404}, path
        assert (await fetch(front, "/v1/models/")).body == (await fetch(front, "/v1/models")).body
        assert not front.child.text().count("Traceback")

    run([Engine("org/name", "modèle", "100%")], work)
