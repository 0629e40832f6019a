"""What ``skylb mock`` answers on vLLM's routes: official SDKs, prompts and caches, refusals."""

import json
from typing import Any

import anthropic
import openai
import pytest

from skylb.tools.synthetic import Answer, runs_text
from tests.support.mock import NEVER, ask, get, mock, post, run, state
from tests.support.raw import chat, request, until

HELLO = [{"role": "user", "content": "hello there"}]


# ------------------------------------------------------------------------------------- SDKs


def test_the_openai_sdk_gets_the_same_answer_whole_and_streamed_one_event_per_token() -> None:
    async def test() -> None:
        async with mock() as fleet, openai.AsyncOpenAI(base_url=fleet.urls[0] + "/v1", api_key="x") as client:
            whole = await client.chat.completions.create(model="mock", messages=HELLO, max_tokens=9)  # type: ignore[arg-type]
            stream = await client.chat.completions.create(
                model="mock",
                messages=HELLO,  # type: ignore[arg-type]
                max_tokens=9,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [chunk async for chunk in stream]
        first, *tokens, last = chunks
        assert first.choices[0].delta.role == "assistant"
        assert first.choices[0].delta.content == ""
        texts = [chunk.choices[0].delta.content for chunk in tokens]
        assert [len(text or "") for text in texts] == [4] * 9
        assert "".join(map(str, texts)) == whole.choices[0].message.content
        assert [chunk.choices[0].finish_reason for chunk in tokens] == [None] * 8 + ["length"]
        assert last.choices == []
        for usage in (whole.usage, last.usage):
            assert usage is not None
            assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 9, 12)
            assert usage.prompt_tokens_details is not None
            assert usage.prompt_tokens_details.cached_tokens == 0
        assert len({chunk.id for chunk in chunks}) == 1

    run(test)


def test_the_openai_sdk_gets_completions_and_embeddings() -> None:
    async def test() -> None:
        async with mock() as fleet, openai.AsyncOpenAI(base_url=fleet.urls[0] + "/v1", api_key="x") as client:
            whole = await client.completions.create(model="mock", prompt="abcdefgh", max_tokens=5)
            stream = await client.completions.create(
                model="mock", prompt="abcdefgh", max_tokens=5, stream=True
            )
            text = "".join([chunk.choices[0].text async for chunk in stream])
            assert text == whole.choices[0].text
            assert len(text) == 20
            null = await client.completions.create(model="mock", prompt="abcdefgh", max_tokens=None)
            assert null.usage is not None
            assert null.usage.completion_tokens == 16, "as without it"
            one = await client.embeddings.create(model="mock", input=["a", "b"])
            other = await client.embeddings.create(model="mock", input="b", encoding_format="float")
            assert one.data[1].embedding == other.data[0].embedding != one.data[0].embedding
            assert [model.id for model in (await client.models.list()).data] == ["mock"]

    run(test)


def test_the_openai_sdk_gets_responses_and_continues_one() -> None:
    async def test() -> None:
        async with mock() as fleet, openai.AsyncOpenAI(base_url=fleet.urls[0] + "/v1", api_key="x") as client:
            first = await client.responses.create(model="mock", input="hello there you", max_output_tokens=30)
            assert len(first.output_text) % 4 == 0
            second = await client.responses.create(
                model="mock", input="more", previous_response_id=first.id, max_output_tokens=4, stream=True
            )
            events = [event async for event in second]
            assert [event.sequence_number for event in events] == list(range(len(events)))
            assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
            ended = events[-1]
            assert ended.type == "response.incomplete"
            assert ended.response.usage is not None
            assert ended.response.usage.input_tokens == 4 + len(first.output_text) // 4 + 1
            deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
            assert "".join(deltas) == ended.response.output_text
            fetched = await client.responses.retrieve(first.id)
            assert fetched.output_text == first.output_text
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve("resp_unknown")

    run(test)


def test_the_anthropic_sdk_gets_messages_whole_and_streamed() -> None:
    async def test() -> None:
        async with mock() as fleet, anthropic.AsyncAnthropic(base_url=fleet.urls[0], api_key="x") as client:
            whole = await client.messages.create(
                model="mock",
                system="be brief",
                messages=HELLO,  # type: ignore[arg-type]
                max_tokens=6,
            )
            async with client.messages.stream(
                model="mock",
                system="be brief",
                messages=HELLO,  # type: ignore[arg-type]
                max_tokens=6,
            ) as stream:
                streamed = await stream.get_final_message()
            texts = [[block.model_dump()["text"] for block in said.content] for said in (whole, streamed)]
            assert texts[0] == texts[1]
            assert whole.stop_reason == streamed.stop_reason == "max_tokens"
            assert streamed.usage.output_tokens == 6
            # "be brief" and "hello there" are 19 bytes: 5 tokens, cached ones counted apart.
            assert streamed.usage.input_tokens + (streamed.usage.cache_read_input_tokens or 0) == 5
            counted = await client.messages.count_tokens(
                model="mock",
                system="be brief",
                messages=HELLO,  # type: ignore[arg-type]
            )
            assert counted.input_tokens == 5
            with pytest.raises(anthropic.NotFoundError):
                await client.messages.create(model="other", messages=HELLO, max_tokens=6)  # type: ignore[arg-type]

    run(test)


# --------------------------------------------------------------------------- prompts, cache


def test_a_directed_answer_is_the_traced_text_and_the_next_turn_hits_it() -> None:
    # Turn 1: 100 tokens, answer of 60; turn 2: 200 tokens. Blocks of 16 tokens, ids of turn 2 throughout.
    runs = [(7, 2), (900, 11)]
    whole = runs_text(runs, block_tokens=16, tokens=200)
    asked = Answer(60, block_tokens=16, skip_tokens=100, runs=tuple(runs))
    first = {"role": "user", "content": whole[:400] + asked.directive()}

    async def test() -> None:
        async with mock() as fleet:

            async def turn(*messages: dict[str, str]) -> Any:
                return json.loads((await ask(fleet, {"messages": messages, "max_tokens": 60})).body)

            one = await turn(first)
            answer = one["choices"][0]["message"]
            assert answer["content"] == whole[400:640]
            assert one["usage"]["prompt_tokens"] == 100
            # The client sends back what it sent and got, the directive included.
            two = await turn(first, answer, {"role": "user", "content": whole[640:]})
            assert two["usage"]["prompt_tokens"] == 200
            # 159 tokens have KV: nine whole blocks.
            assert two["usage"]["prompt_tokens_details"]["cached_tokens"] == 144
            await post(fleet, "/reset_prefix_cache", b"")
            again = await turn(first)
            assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
            assert again["choices"] == one["choices"]

    run(test)


def test_adapters_and_cache_salts_have_caches_of_their_own() -> None:
    async def test() -> None:
        async with mock(model=("base", "adapter")) as fleet:

            async def cached(**fields: str) -> int:
                body = {"messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 1, **fields}
                usage = json.loads((await ask(fleet, body)).body)["usage"]
                return int(usage["prompt_tokens_details"]["cached_tokens"])

            for fields in ({}, {"model": "adapter"}, {"cache_salt": "a"}, {"cache_salt": "b"}):
                assert await cached(**fields) == 0
                assert await cached(**fields) == 96

    run(test)


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("abcd", 1),
        ("abcde", 2),
        ("\u00e9\u00e9\u00e9", 2),
        ([{"type": "text", "text": "ab"}, {"type": "text", "text": "cde"}], 2),
    ],
)
def test_a_token_is_four_bytes_of_the_rendered_prompt(prompt: object, tokens: int) -> None:
    async def test() -> None:
        async with mock() as fleet:
            body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 1}
            counted = json.loads((await post(fleet, "/tokenize", body)).body)
            assert counted["count"] == len(counted["tokens"]) == tokens
            assert json.loads((await ask(fleet, body)).body)["usage"]["prompt_tokens"] == tokens

    run(test)


def test_an_answer_ends_by_itself_unless_it_may_not() -> None:
    async def test() -> None:
        async with mock() as fleet:

            async def answer(**fields: object) -> tuple[str, int]:
                got = json.loads((await ask(fleet, {"messages": HELLO, **fields})).body)
                return got["choices"][0]["finish_reason"], got["usage"]["completion_tokens"]

            reason, natural = await answer()
            assert reason == "stop"
            assert await answer(max_tokens=natural + 5) == ("stop", natural)
            assert await answer(max_tokens=natural + 5, ignore_eos=True) == ("length", natural + 5)
            assert await answer(max_tokens=natural - 5) == ("length", natural - 5)
            assert await answer(max_completion_tokens=2) == ("length", 2)

    run(test)


# --------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": "other", "messages": HELLO}, 404, "model"),
        ({"messages": HELLO, "max_tokens": 98}, 400, "input_tokens"),
        ({"messages": [{"role": "user", "content": "x" * 401}]}, 400, "input_tokens"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "prompt"),
        ({"messages": HELLO, "max_tokens": 0}, 400, "max_tokens"),
        ({"messages": HELLO, "n": 2}, 400, "n"),
        ({"messages": [{"role": "user", "content": "<|answer:nothing|>"}]}, 400, "messages"),
        ({"messages": "text"}, 400, None),
        ({}, 400, None),
    ],
)
def test_what_cannot_be_served_is_refused_in_the_shape_of_vllm(
    body: dict[str, Any], status: int, param: str | None
) -> None:
    async def test() -> None:
        async with mock(max_model_len=100) as fleet:
            got = await ask(fleet, body)
            error = json.loads(got.body)["error"]
            assert (got.status, error["code"], error["param"]) == (status, status, param)
            assert (await state(fleet))["ended"] == {"stop": 0, "length": 0, "abort": 0}

    run(test)


def test_a_full_replica_refuses_with_503_and_serves_again_when_it_has_room() -> None:
    async def test() -> None:
        async with mock(max_num_queued_reqs=2, time_scale=NEVER, profile="h100-8b") as fleet:
            replica = fleet.replicas[0]
            connections = [await fleet.connect() for _ in range(2)]
            for connection in connections:
                connection.writer.write(request(chat("hello")))
            await until(lambda: replica.in_flight == 2)
            got = await ask(fleet, chat("hello"))
            assert got.status == 503
            assert json.loads(got.body)["error"]["code"] == 503
            assert (await state(fleet))["rejected"] == 1
            connections[0].abort()
            await until(lambda: replica.in_flight == 1)
            late = await fleet.connect()
            late.writer.write(request(chat("hello", stream=True)))
            assert (await late.reader.readline()).startswith(b"HTTP/1.1 200")

    run(test)


def test_unknown_paths_and_wrong_methods_are_refused() -> None:
    async def test() -> None:
        async with mock() as fleet:
            assert (await get(fleet, "/nothing")).status == 404
            assert (await get(fleet, "/v1/chat/completions")).status == 405
            assert (await post(fleet, "/health", b"")).status == 405
            assert (await get(fleet, "/health")).status == 200
            assert json.loads((await get(fleet, "/version")).body) == {"version": "0.32.0"}

    run(test)
