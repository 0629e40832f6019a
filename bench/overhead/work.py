"""What is sent: prebuilt requests of the sizes under test."""

import json
import random

WORDS = [
    "region", "replica", "prefix", "block", "hold", "push", "forward", "match", "owner", "snapshot",
    "probe", "effect", "balance", "token", "cache", "queue", "stream", "answer", "prompt", "model",
]  # fmt: skip

HEADERS = (
    "Host: bench\r\nContent-Type: application/json\r\nAccept: application/json\r\n"
    "User-Agent: OpenAI/Python 3.52.0\r\nAccept-Encoding: gzip, deflate\r\nX-Stainless-Lang: python\r\n"
    "X-Stainless-Runtime: CPython\r\nAuthorization: Bearer sk-bench\r\n"
)


def text(rng: random.Random, size: int) -> str:
    """``size`` bytes of words."""
    words = " ".join(rng.choices(WORDS, k=size // 4))
    return words[:size]


def body(rng: random.Random, systems: list[str], *, size: int, stream: bool, tokens: int) -> bytes:
    """One chat request of about ``size`` bytes with a system prompt that others share."""
    system = rng.choice(systems)
    payload = {
        "model": "bench",
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": text(rng, max(16, size - len(system) - 180))},
        ],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": stream,
    }
    return json.dumps(payload).encode()


def http(payload: bytes) -> bytes:
    """The bytes of one POST."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{HEADERS}Content-Length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


def requests(count: int, *, size: int, stream: bool = False, tokens: int = 8, seed: int = 1) -> list[bytes]:
    """``count`` different requests; half of each is a system prompt, eight of those in all."""
    rng = random.Random(seed)
    systems = [text(rng, size // 2) for _ in range(8)]
    return [http(body(rng, systems, size=size, stream=stream, tokens=tokens)) for _ in range(count)]
