"""What a decision and a streamed chunk cost through Python, over a tree of a million blocks.

    python -m bench.engine [--rounds 7]

One request is ``submit`` and ``complete``: the body read, a replica chosen, the prompt recorded in the
tree, the request forgotten. Where it has an answer, ``complete`` learns that as well, and a *chunk* is
one ``Relay.feed`` of a token of it. A *choice* is ``submit`` and ``complete`` of 2 kB before 1,000
replicas, or, where all of these are full, 10 peers (`bench.choice`), by the policy of the other rows and
by the default one. Figures are CPU time of the
thread. Rounds alternate between the kinds, and the median round is reported with the best: on a
machine shared with others the best is nearest to the cost.
"""

import argparse
import gc
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import choice, record
from skylb import _core
from skylb.config import EngineSettings

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
REPLICAS = 4
TREE_BLOCKS = 1_000_000
TREE_BYTES_MAX = 4 << 30
WORDS = ("the", "of", "model", "region", "cache", "queue", "answer", "prefix", "token", "time", "load", "a")
CHUNK_CHARS = 4_000


@dataclass(frozen=True)
class Kind:
    """A size of prompt and what it may cost."""

    name: str
    body_bytes: int
    target_us: float
    requests: int
    """Per round."""


KINDS = (Kind("4 kB", 4_000, 5.0, 2_000), Kind("400 kB", 400_000, 170.0, 40))
CHUNK_TARGET_US = 0.5
ANSWER_CHUNKS = 500
ANSWERS = 100
"""Per round."""
CHOICES = 1_000
"""Per round."""


class Bodies:
    """Chat bodies of one size: a system text that all share, then a conversation's own words."""

    def __init__(self, kind: Kind, seed: int) -> None:
        self._kind = kind
        self._random = random.Random(seed)
        words = self._random.choices(WORDS, k=200_000)
        self._text = " ".join(words)

    def make(self) -> bytes:
        """A body with a text that no other has."""
        messages = [{"role": "system", "content": self._text[:1_000]}]
        left = self._kind.body_bytes - 1_200
        while left > 0:
            start = self._random.randrange(len(self._text) - CHUNK_CHARS)
            size = min(left, CHUNK_CHARS)
            turn = f"{self._random.getrandbits(64):x} {self._text[start : start + size]}"
            messages.append({"role": "user", "content": turn[:size]})
            left -= size
        return json.dumps({"model": MODEL, "stream": True, "messages": messages}).encode()


def engine(policy: str, tree_bytes_max: int) -> _core.Engine:
    """Ready replicas that take whatever comes and cache as much as the tree may hold."""
    settings = EngineSettings(
        policy=policy,  # a name from the command line, validated here
        push="blind",
        in_flight_max=1_000_000,
        replica_kv_tokens=(1 << 31) - 1,
        tree_bytes_max=tree_bytes_max,
    )
    made = _core.Engine(settings.model_dump_json().encode(), b"bench-secret-bench-secret", 1)
    made.set_replicas([(replica, f"http://127.0.0.1:{8100 + replica}") for replica in range(REPLICAS)], 1)
    for replica in range(REPLICAS):
        made.set_models(replica, [(MODEL, 131_072)], False, 1)
        made.observe_failed(replica, _core.PROBE_UNREADABLE, 1)
    return made


def head(body_bytes: int) -> _core.Head:
    """The head that a client's library sends."""
    text = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
        f"Content-Length: {body_bytes}\r\nAuthorization: Bearer key\r\nUser-Agent: bench\r\n\r\n"
    )
    parsed = _core.HeadParser().parse(text.encode())
    if parsed is None:
        raise RuntimeError(text)
    return parsed


def answer() -> tuple[bytes, list[bytes], bytes]:
    """A streamed answer as vLLM sends it: the head, a chunk per token, and the end with its usage."""
    choice = '{"index":0,"delta":{"content":"%s"},"logprobs":null,"finish_reason":null,"token_ids":null}'
    event = (
        'data: {"id":"chatcmpl-8f1c1c4de1c34cf5a1f4d4c9bfb63c5e","object":"chat.completion.chunk",'
        f'"created":1763700000,"model":"{MODEL}","choices":[%s]%s}}\n\n'
    )
    usage = (
        f',"usage":{{"prompt_tokens":900,"total_tokens":{900 + ANSWER_CHUNKS},'
        f'"completion_tokens":{ANSWER_CHUNKS},"prompt_tokens_details":{{"cached_tokens":0}}}}'
    )

    def chunk(text: str) -> bytes:
        return f"{len(text):x}\r\n{text}\r\n".encode()

    words = random.Random(6).choices(WORDS, k=ANSWER_CHUNKS)
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    chunks = [chunk(event % (choice % f" {word}", "")) for word in words]
    return head, chunks, chunk(event % ("", usage)) + chunk("data: [DONE]\n\n") + b"0\r\n\r\n"


class Bench:
    """One engine with a full tree, and the requests' counter."""

    def __init__(self, made: _core.Engine) -> None:
        self.engine = made
        self._id = choice.REPLICAS

    def fill(self, bodies: Bodies, kind: Kind) -> None:
        """Serves conversations until the tree has its blocks, or has no room for more."""
        before = -1
        while before < self.blocks() < TREE_BLOCKS:
            before = self.blocks()
            self.serve([bodies.make() for _ in range(500)], head(kind.body_bytes))

    def blocks(self) -> int:
        """Blocks in the tree, counted once per replica that has them."""
        return sum(gauges.tree_blocks for gauges in self.engine.gauges())

    def serve(self, bodies: list[bytes], sent: _core.Head) -> int:
        """Submits and completes each body; the CPU time taken, in nanoseconds."""
        engine = self.engine
        now_ns, request_id = 2_000_000_000, self._id
        begin_ns = time.thread_time_ns()
        for body in bodies:
            request_id += 1
            request, _ = choice.submit(engine, request_id, sent, body, now_ns)
            engine.complete(request, _core.OUTCOME_OK, None, now_ns)
        taken_ns = time.thread_time_ns() - begin_ns
        self._id = request_id
        return taken_ns

    def serve_answers(self, bodies: list[bytes], sent: _core.Head, learn: bool) -> tuple[int, int]:
        """Serves each body with a streamed answer, all of them side by side.

        Args:
            bodies: of requests.
            sent: the head of each.
            learn: the answers enter the tree.

        Returns:
            The CPU time of all ``submit`` and ``complete``, and that of all chunks, in nanoseconds.
        """
        engine = self.engine
        begin, chunks, end = answer()
        now_ns, first_id = 2_000_000_000, self._id + 1
        begin_ns = time.thread_time_ns()
        requests = [
            choice.submit(engine, first_id + index, sent, body, now_ns)[0]
            for index, body in enumerate(bodies)
        ]
        decided_ns = time.thread_time_ns() - begin_ns
        chunks_ns = 0
        relays = []
        for request in requests:
            relay = request.relay(True, learn)
            feed = relay.feed
            feed(begin)
            feed(chunks[0])
            begin_ns = time.thread_time_ns()
            for chunk in chunks:
                feed(chunk)
            chunks_ns += time.thread_time_ns() - begin_ns
            if not feed(end) & _core.FEED_DONE:
                raise RuntimeError(relay.error)
            relays.append(relay)
        begin_ns = time.thread_time_ns()
        for request, relay in zip(requests, relays, strict=True):
            engine.complete(request, _core.OUTCOME_OK, relay, now_ns)
        decided_ns += time.thread_time_ns() - begin_ns
        self._id += len(bodies)
        return decided_ns, chunks_ns


def repeated(bodies: list[bytes], kind: Kind) -> Callable[[], list[bytes]]:
    """Rounds of bodies: some seen before and some new, drawn afresh."""
    chooser = random.Random(5)
    return lambda: chooser.choices(bodies, k=kind.requests)


def measure_answers(bench: Bench, bodies: Bodies, times: dict[str, list[float]]) -> None:
    """One round of streamed answers, learned and not."""
    kind = KINDS[0]
    for learn, what in ((False, "passed"), (True, "learned")):
        new = [bodies.make() for _ in range(ANSWERS)]
        decided_ns, chunks_ns = bench.serve_answers(new, head(kind.body_bytes), learn)
        times.setdefault(f"{kind.name}, answer {what}", []).append(decided_ns / 1_000 / ANSWERS)
        times.setdefault(f"chunk, {what}", []).append(chunks_ns / 1_000 / ANSWERS / ANSWER_CHUNKS)


def choices(policy: str) -> dict[str, tuple[Bench, list[bytes]]]:
    """Balancers with 1,000 replicas and 10 peers, and the bodies that they know."""
    kind = Kind(choice.MODEL, 2_000, choice.TARGET_US, CHOICES)
    bodies = [Bodies(kind, 4).make().replace(MODEL.encode(), choice.MODEL.encode()) for _ in range(100)]
    sent = head(kind.body_bytes)
    return {
        f"choice, {name}, {policy}": (Bench(choice.meshed(sent, bodies, full=full, policy=policy)), bodies)
        for name, full in (("of 1,000", False), ("of 10 peers", True))
    }


def measure_choice(chosen: dict[str, tuple[Bench, list[bytes]]], times: dict[str, list[float]]) -> None:
    """One round of requests for which a replica, or a peer, is chosen."""
    for name, (bench, bodies) in chosen.items():
        drawn = random.Random(7).choices(bodies, k=CHOICES)
        taken_ns = bench.serve(drawn, head(2_000))
        times.setdefault(name, []).append(taken_ns / 1_000 / CHOICES)


def target_of(name: str) -> float:
    """What a row may cost, in microseconds."""
    targets_us = {kind.name: kind.target_us for kind in KINDS} | {
        "chunk": CHUNK_TARGET_US,
        "choice": choice.TARGET_US,
    }
    return targets_us[name.partition(",")[0]]


def main() -> None:
    """Measures, prints, and keeps the figures."""
    parser = argparse.ArgumentParser(prog="bench.engine")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--policy", default="prefix")
    arguments = parser.parse_args()
    bench = Bench(engine(arguments.policy, TREE_BYTES_MAX))
    bench.fill(Bodies(KINDS[0], 1), KINDS[0])
    filled_blocks, filled_bytes = bench.blocks(), bench.engine.tree_bytes
    bounded = Bench(engine(arguments.policy, filled_bytes // 2))
    bounded.fill(Bodies(KINDS[0], 1), KINDS[0])
    draws = {kind.name: repeated([Bodies(kind, 2).make() for _ in range(200)], kind) for kind in KINDS}
    fresh = {kind.name: Bodies(kind, 3) for kind in KINDS}
    policies = dict.fromkeys((arguments.policy, EngineSettings().policy))
    chosen = {name: made for policy in policies for name, made in choices(policy).items()}
    times: dict[str, list[float]] = {}
    gc.disable()
    for _ in range(arguments.rounds):
        for kind in KINDS:
            new = [fresh[kind.name].make() for _ in range(kind.requests)]
            rows = (
                ("seen before", bench, draws[kind.name]()),
                ("new", bench, new),
                ("new, evicting", bounded, new),
            )
            for name, served, bodies in rows:
                taken_us = served.serve(bodies, head(kind.body_bytes)) / 1_000 / kind.requests
                times.setdefault(f"{kind.name}, {name}", []).append(taken_us)
        measure_answers(bench, fresh[KINDS[0].name], times)
        measure_choice(chosen, times)
    bounded.engine.check_invariants()
    if bounded.engine.tree_bytes > filled_bytes // 2:
        raise RuntimeError("the tree passed its bound")
    bench.engine.check_invariants()
    lines = [f"submit + complete through Python, policy {arguments.policy}, tree of {filled_blocks} blocks"]
    lines.append(f"  {'prompt':<32}{'median us':>10}{'best us':>10}{'target us':>11}")
    for name, taken in times.items():
        lines.append(
            f"  {name:<32}{statistics.median(taken):>10.2f}{min(taken):>10.2f}{target_of(name):>11.1f}"
        )
    lines.append(f"  tree: {filled_bytes / filled_blocks:.1f} bytes per block and replica   (target <= 64)")
    print("\n".join(lines))
    keep(lines, times, filled_bytes / filled_blocks)


def keep(lines: list[str], times: dict[str, list[float]], bytes_per_block: float) -> None:
    """Writes ``bench/results/bench-engine.{json,md}``."""
    figures = {
        "machine": record.machine(),
        "us": times,
        "tree_bytes_per_block": bytes_per_block,
    }
    record.keep("bench-engine", lines)
    (record.RESULTS / "bench-engine.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
