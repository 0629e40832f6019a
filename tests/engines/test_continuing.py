"""Streams of a real vLLM that break, and go on at another one."""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.engines.vllm import Vllm, fleet, installed
from tests.support.cutting import Cut, cutting
from tests.support.processes import Balancer, balancer, post_stream, sample_sum

TOKENS = 64
CONTEXT = 4096
"""Of the engines: `COMMON`."""
POSITIONS = range(1, 51)
ANSWER_S = 300.0
"""Longest silence: an engine beside other work takes its time."""
NOT_CONTINUED = "skylb_streams_not_continued_total"
PROMPT = "the quick brown fox jumps over a lazy dog"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with weights of its own: each token depends on all before it."""
    directory = tmp_path_factory.mktemp("weighted") / "model"
    shutil.copytree(installed() / "model", directory)
    script = Path(__file__).parent / "weights.py"
    subprocess.run([installed() / "bin/python", script, directory], check=True)
    return directory


@pytest.fixture(scope="module")
def weighted(model: Path) -> Iterator[list[Vllm]]:
    """Two engines of that model."""
    with fleet(2, "--max-num-seqs", "16", model=model, dummy=False) as servers:
        yield servers


@pytest.fixture(scope="module")
def cuts(weighted: list[Vllm]) -> Iterator[list[Cut]]:
    """A proxy that cuts in front of each."""
    with cutting(weighted[0].url) as first, cutting(weighted[1].url) as second:
        yield [first, second]


@pytest.fixture(scope="module")
def front(cuts: list[Cut]) -> Iterator[Balancer]:
    """SkyLB in front of the proxies; its streams go on. They break nearly all: none is ejected for that."""
    arguments = ["--continue-streams", "--engine-eject-ratio-max", "0"]
    with balancer(*(cut.url for cut in cuts), arguments=arguments) as running:
        yield running


def asked(**more: Any) -> dict[str, Any]:
    """A greedy chat, whose ids the client sees."""
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        **more,
    }


@dataclass
class Heard:
    """What a client reads of a stream."""

    text: str = ""
    silent: int = 0
    """Events before the first with text: a stream that breaks behind one of them is asked for anew."""
    ids: list[int] = field(default_factory=list)
    finishes: list[str] = field(default_factory=list)
    usages: list[dict[str, int]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    ends: int = 0
    errors: list[Any] = field(default_factory=list)


def hear(url: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> Heard:
    """Reads one stream to its end."""
    heard = Heard()
    for data in post_stream(f"{url}{path}", body, ANSWER_S):
        if data == "[DONE]":
            heard.ends += 1
            continue
        event = json.loads(data)
        if "error" in event:
            heard.errors.append(event["error"])
            continue
        heard.names.add(event["id"])
        if event.get("usage"):
            usage = event["usage"]
            heard.usages.append({key: usage[key] for key in ("prompt_tokens", "completion_tokens")})
        heard.silent += not heard.text and not texted(event)
        for choice in event["choices"]:
            heard.text += choice.get("text") or choice.get("delta", {}).get("content") or ""
            heard.ids += choice.get("token_ids") or []
            if choice["finish_reason"]:
                heard.finishes.append(choice["finish_reason"])
    return heard


def texted(event: dict[str, Any]) -> bool:
    """Whether an event has text."""
    return any(choice.get("text") or choice.get("delta", {}).get("content") for choice in event["choices"])


def check(heard: Heard, whole: Heard, where: str) -> None:
    """One stream, as if nothing had happened."""
    assert heard.errors == [], where
    assert heard.ids == whole.ids, where
    assert heard.text == whole.text, where
    assert (heard.finishes, heard.ends) == (["length"], 1), where
    assert heard.usages == whole.usages, where
    assert len(heard.names) == 1, where


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_an_answer_that_is_cut_at_each_of_fifty_tokens_equals_the_whole_one(
    path: str, weighted: list[Vllm], cuts: list[Cut], front: Balancer
) -> None:
    body = asked()
    if path == "/v1/completions":
        body = {**body, "prompt": PROMPT}
        del body["messages"]
    done = cut_each(POSITIONS, body, path, weighted, cuts, front)
    assert done >= len(POSITIONS), "each was cut, some of them twice"


def test_an_answer_with_several_tokens_in_an_event_goes_on_too(
    weighted: list[Vllm], cuts: list[Cut], front: Balancer
) -> None:
    """The last of them may end within a character: the engine is asked for their text.

    How many tokens an event has depends on the load of the engine too. This model writes many broken
    characters: behind some events it is not known where their text ends. Most streams go on all the same.
    """
    body = asked(stream_interval=3)
    assert cut_each(range(1, 20), body, "/v1/chat/completions", weighted, cuts, front, unknown=9) >= 19


def test_a_chat_without_a_limit_goes_on_to_the_end_of_the_context(
    weighted: list[Vllm], cuts: list[Cut], front: Balancer
) -> None:
    def count(times: int) -> int:
        body = json.dumps({"model": "tiny", "messages": long(times)}).encode()
        head = {"Content-Type": "application/json"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{weighted[0].url}/tokenize", body, head)
        ) as found:
            return int(json.load(found)["count"])

    few, many = count(1), count(51)
    times = 1 + (CONTEXT - TOKENS - few) * 50 // (many - few)
    body = asked(messages=long(times))
    del body["max_tokens"]
    whole = hear(weighted[0].url, body)
    assert len(whole.ids) == CONTEXT - count(times) >= TOKENS
    before = sum(cut.done for cut in cuts)
    for cut in cuts:
        cut.after = 25
    check(hear(front.url, body), whole, "cut after 25 events")
    for cut in cuts:
        cut.after = None
    assert sum(cut.done for cut in cuts) > before


def long(times: int) -> list[dict[str, str]]:
    """Messages whose prompt is so many times as long."""
    return [{"role": "user", "content": " ".join([PROMPT] * times)}]


def at_boundary(front: Balancer) -> float:
    """Streams that did not go on because of that."""
    return sample_sum(front.metrics(), f'{NOT_CONTINUED}{{reason="boundary"}}')


def cut_each(
    positions: range,
    body: dict[str, Any],
    path: str,
    weighted: list[Vllm],
    cuts: list[Cut],
    front: Balancer,
    unknown: int = 0,
) -> int:
    """Cuts an answer behind each of so many events; how many streams were cut in all.

    Args:
        unknown: so many streams may end with an error because of ``boundary`` (CONTINUING.md).
    """
    whole = hear(weighted[0].url, body, path)
    assert len(whole.ids) == TOKENS
    assert len(set(whole.ids)) > TOKENS // 3, "an answer that repeats itself would prove little"
    before = sum(cut.done for cut in cuts)
    first = boundaries = at_boundary(front)
    for position in positions:
        # What is missing goes through the other proxy, and is cut as well if it is long enough.
        after = whole.silent + position
        for cut in cuts:
            cut.after, cut.behind_text = after, True
        heard, ended = hear(front.url, body, path), at_boundary(front)
        if heard.errors and ended == boundaries + 1 and ended - first <= unknown:
            assert whole.ids[: len(heard.ids)] == heard.ids
        else:
            why = [line for line in front.metrics().splitlines() if line.startswith(NOT_CONTINUED)]
            check(heard, whole, f"cut after {after} events; {why}")
        boundaries = ended
    done = sum(cut.done for cut in cuts) - before
    print(f"{path}: {len(positions)} answers equal by ids, cut {done} times")
    return done


def test_the_sdk_sees_one_stream_when_an_engine_is_killed(weighted: list[Vllm], front: Balancer) -> None:
    with openai.OpenAI(base_url=f"{front.url}/v1", api_key="unused", max_retries=0) as sdk:
        body = asked(max_tokens=600)
        del body["return_token_ids"], body["ignore_eos"]
        extra = {"ignore_eos": True}
        whole = "".join(_texts(sdk.chat.completions.create(**body, extra_body=extra)))
        chunks = sdk.chat.completions.create(**body, extra_body=extra)
        texts = []
        killed = False
        for text in _texts(chunks):
            texts.append(text)
            if not killed and len(texts) > 20:
                killed = True
                busy = next(server for server in weighted if server.running > 0)
                busy.child.kill()
        assert killed
        assert "".join(texts) == whole
    assert front.metric("skylb_streams_continued_total") >= 1


def _texts(chunks: Any) -> Iterator[str]:
    for chunk in chunks:
        for choice in chunk.choices:
            yield choice.delta.content or ""
