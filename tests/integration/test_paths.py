"""Inference paths that neither chat nor stream: through the balancer they answer as the replica does."""

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.support.processes import Balancer, balancer, mocks
from tests.support.raw import Answer, ask, request

BODIES: dict[str, dict[str, Any]] = {
    "/v1/rerank": {"model": "mock", "query": "rain", "documents": ["sun", "cloud", "storm"], "top_n": 2},
    "/v1/score": {"model": "mock", "text_1": "rain", "text_2": ["sun", "cloud"]},
    "/rerank": {"model": "mock", "query": "rain", "documents": ["sun", "cloud", "storm"], "top_n": 2},
    "/v2/rerank": {"model": "mock", "query": "rain", "documents": ["sun", "cloud", "storm"], "top_n": 2},
    "/score": {"model": "mock", "text_1": "rain", "text_2": ["sun", "cloud"]},
    "/invocations": {"model": "mock", "query": "rain", "documents": ["sun", "cloud"]},
    "/classify": {"model": "mock", "input": ["sun", "cloud"]},
    "/pooling": {"model": "mock", "input": "sun"},
    "/v1/embeddings": {"model": "mock", "input": ["sun", "cloud"]},
    "/tokenize": {"model": "mock", "prompt": "it rains today"},
    "/detokenize": {"model": "mock", "tokens": [0x69742072, 0x61696E73]},
}
OWN = {"id", "created"}
"""What differs from one answer to the next."""


@pytest.fixture(scope="module")
def front() -> Iterator[tuple[Balancer, str]]:
    with mocks(1) as urls, balancer(*urls) as found:
        yield found, urls[0]


def asked(port: int, path: str, body: dict[str, Any]) -> Answer:
    return asyncio.run(ask(port, request(orjson.dumps(body), path=path)))


@pytest.mark.parametrize("path", BODIES)
def test_the_answer_is_the_replicas_own(front: tuple[Balancer, str], path: str) -> None:
    found, url = front
    through = asked(found.port, path, BODIES[path])
    direct = asked(int(url.rsplit(":", 1)[1]), path, BODIES[path])
    assert through.status == direct.status == 200, through.body
    seen, said = orjson.loads(through.body), orjson.loads(direct.body)
    assert {key: seen[key] for key in seen.keys() - OWN} == {key: said[key] for key in said.keys() - OWN}
    assert seen.keys() == said.keys()


@pytest.mark.parametrize("path", [path for path in BODIES if not path.endswith("tokenize")])
def test_what_the_replica_does_not_take_is_its_own_answer(front: tuple[Balancer, str], path: str) -> None:
    found, _ = front
    wrong = {"model": "mock", **dict.fromkeys(BODIES[path].keys() - {"model"}, 3.5)}
    answer = asked(found.port, path, wrong)
    assert answer.status == 400
    assert b"error" in answer.body


def test_the_best_documents_come_first(front: tuple[Balancer, str]) -> None:
    found, _ = front
    results = orjson.loads(asked(found.port, "/v1/rerank", BODIES["/v1/rerank"]).body)["results"]
    assert len(results) == 2
    assert results[0]["relevance_score"] >= results[1]["relevance_score"]


def test_tokens_give_their_text_back(front: tuple[Balancer, str]) -> None:
    found, _ = front
    tokens = orjson.loads(asked(found.port, "/tokenize", BODIES["/tokenize"]).body)["tokens"]
    back = asked(found.port, "/detokenize", {"model": "mock", "tokens": tokens})
    assert orjson.loads(back.body)["prompt"] == BODIES["/tokenize"]["prompt"]
