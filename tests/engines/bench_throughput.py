"""Selective pushing costs no throughput where answers are short."""

import asyncio
import statistics
import time

from tests.engines.load import chat, post_all
from tests.engines.vllm import Vllm
from tests.support.processes import balancer

ROUNDS = 9
"""Each has many times more requests than slots: with few, the last, partly filled batches decide. On two
cores that engine, balancer and clients share, one round may be off by a third."""


def ratio(urls: list[str], path: str, bodies: list[dict[str, object]], concurrency: int) -> float:
    """Throughput of selective pushing over that of blind pushing, median of paired rounds."""
    pairs = []
    with (
        balancer(*urls, arguments=["--engine-push", "pending"]) as gated,
        balancer(*urls, arguments=["--engine-push", "blind"]) as blind,
    ):
        for front in (gated, blind):  # warm connections, learned knee
            asyncio.run(post_all(front.url, path, bodies, concurrency=concurrency))
        for number in range(ROUNDS):
            walls = {}
            for front in (gated, blind) if number % 2 else (blind, gated):
                batch = asyncio.run(post_all(front.url, path, bodies, concurrency=concurrency))
                assert set(batch.statuses) == {200}
                walls[front.port] = batch.wall_s
            pairs.append(walls[blind.port] / walls[gated.port])
            time.sleep(0.2)
    print(f"{path}: pending / blind throughput, rounds {[round(p, 3) for p in pairs]}")
    return statistics.median(pairs)


def test_short_answers_reach_the_throughput_of_blind_pushing(pair: list[Vllm]) -> None:
    bodies = [
        chat([{"role": "user", "content": f"{i} the quick brown fox jumps over a lazy dog"}], max_tokens=20)
        for i in range(480)
    ]
    assert ratio([server.url for server in pair], "/v1/chat/completions", bodies, 48) >= 0.95


def test_embeddings_reach_the_throughput_of_blind_pushing(embedder: list[Vllm]) -> None:
    bodies = [
        {"model": "tiny", "input": f"{i} the quick brown fox jumps over a lazy dog"} for i in range(600)
    ]
    assert ratio([server.url for server in embedder], "/v1/embeddings", bodies, 32) >= 0.95
