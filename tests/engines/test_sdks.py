"""The official SDKs through SkyLB, and bytes of events equal to those vLLM sent."""

import asyncio
import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

import aiohttp
import anthropic
import openai
import pytest

from skylb._core import ResponseReader
from tests.engines.load import chat
from tests.engines.vllm import Vllm
from tests.support.processes import Balancer, balancer

MESSAGES = [{"role": "user", "content": "the quick brown fox jumps over a lazy dog"}]


@pytest.fixture(scope="module")
def front(pair: list[Vllm]) -> Iterator[Balancer]:
    """SkyLB in front of both servers."""
    with balancer(*(server.url for server in pair)) as running:
        yield running


@pytest.fixture(scope="module")
def client(front: Balancer) -> Iterator[openai.OpenAI]:
    """The official OpenAI SDK."""
    with openai.OpenAI(base_url=f"{front.url}/v1", api_key="unused", max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def claude(front: Balancer) -> Iterator[anthropic.Anthropic]:
    """The official Anthropic SDK."""
    with anthropic.Anthropic(base_url=front.url, api_key="unused", max_retries=0) as sdk:
        yield sdk


def test_models_are_the_union_over_the_fleet(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert [model.id for model in models] == ["tiny"]


def test_a_chat_completion_is_served(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=8, extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_a_chat_completion_is_streamed_to_its_last_token(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"


def test_a_completion_is_served_and_streamed(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt="the lazy dog", max_tokens=5, extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    pieces = list(client.completions.create(model="tiny", prompt="the lazy dog", max_tokens=5, stream=True))
    assert pieces[-1].choices[0].finish_reason is not None


def test_a_response_is_served_and_streamed(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="tiny", input="the lazy dog", max_output_tokens=6)
    assert answer.usage is not None
    assert answer.usage.output_tokens <= 6
    kinds = [
        e.type
        for e in client.responses.create(model="tiny", input="the dog", max_output_tokens=6, stream=True)
    ]
    assert kinds[0] == "response.created"
    assert kinds[-1] in {"response.completed", "response.incomplete"}


def test_a_message_is_served_and_streamed(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(model="tiny", max_tokens=6, messages=MESSAGES)  # type: ignore[arg-type]
    assert answer.usage.output_tokens <= 6
    with claude.messages.stream(model="tiny", max_tokens=6, messages=MESSAGES) as stream:  # type: ignore[arg-type]
        kinds = [event.type for event in stream]
    assert kinds[0] == "message_start"
    assert "message_stop" in kinds


def test_an_unknown_model_is_named_by_the_sdk(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="tiny"):
        client.chat.completions.create(model="huge", messages=MESSAGES)


class Tee:
    """Passes connections on to a server and keeps what the server sent on each."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self.host, self.port = parts.hostname, parts.port
        self.heard: list[bytearray] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client connection."""
        up_reader, up_writer = await asyncio.open_connection(self.host, self.port)
        heard = bytearray()
        self.heard.append(heard)
        await asyncio.gather(self._pass(reader, up_writer, None), self._pass(up_reader, writer, heard))

    def heard_with(self, text: bytes) -> bytes:
        """What came on the one connection that carried ``text``: probes go over others."""
        (found,) = (heard for heard in self.heard if text in heard)
        return bytes(found)

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, copy: bytearray | None
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if copy is not None:
                    copy += data
                sink.write(data)
                await sink.drain()
        sink.close()


def test_the_bytes_of_each_event_are_those_vllm_sent(pair: list[Vllm]) -> None:
    heard, received = asyncio.run(stream_through_tee(pair[0].url))
    # A server that is behind puts several tokens into one event.
    assert received.count(b"\n\n") >= 3
    assert received.count(b'"delta"') >= 2
    assert received.endswith(b"data: [DONE]\n\n")
    start = heard.rindex(b"HTTP/1.1 200 OK\r\n", 0, heard.index(b"chat.completion.chunk"))
    assert ResponseReader().feed(heard[start:]) == received


async def stream_through_tee(target: str) -> tuple[bytes, bytes]:
    """One stream; what the server sent to SkyLB on its connection, and the payload that the client got."""
    tee = Tee(target)
    server = await asyncio.start_server(tee.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    context = balancer(f"http://127.0.0.1:{port}")
    front = await asyncio.to_thread(context.__enter__)
    try:
        async with aiohttp.ClientSession() as session:
            body = chat(MESSAGES, max_tokens=24, stream=True)
            async with session.post(f"{front.url}/v1/chat/completions", json=body) as answer:
                received = await answer.read()
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)
        server.close()
    return tee.heard_with(b"chat.completion.chunk"), received


def test_embeddings_are_served_through_the_sdk(embedder: list[Vllm]) -> None:
    words = ["the quick brown fox", "jumps over a lazy dog"]
    with (
        balancer(*(server.url for server in embedder)) as front,
        openai.OpenAI(base_url=f"{front.url}/v1", api_key="unused", max_retries=0) as sdk,
        openai.OpenAI(base_url=f"{embedder[0].url}/v1", api_key="unused", max_retries=0) as direct,
    ):
        served = sdk.embeddings.create(model="tiny", input=words)
        expected = direct.embeddings.create(model="tiny", input=words)
    assert [item.index for item in served.data] == [0, 1]
    for ours, theirs in zip(served.data, expected.data, strict=True):
        assert ours.embedding == pytest.approx(theirs.embedding, abs=1e-3)
