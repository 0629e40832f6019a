"""Two regions in which everything happens that dashboards and alerts look at."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from skylb.keys.edit import add_key
from tests.support.otlp import Receiver, receiver
from tests.support.processes import free_port, start_mocks
from tests.support.raw import Connection, ask, chat, request
from tests.support.regions import Regions, key_line, regions

NAMES = ("us", "eu")
MOCK = ("--profile", "l4-8b", "--time-scale", "0.2", "--max-num-seqs", "4")
BROKEN = ("--model", "broken", "--fault-error-rate", "1")
"""A replica whose answers are all errors."""
TENANTS: dict[str, dict[str, object]] = {
    "acme": {},
    "umbrella": {"class": "low"},
    "limited": {"requests_per_minute": 1},
}
BURST = 40
"""Requests at once: more than both regions run."""


@contextmanager
def stage(directory: Path, replicas: int = 2) -> Iterator[tuple[Regions, dict[str, str], Receiver]]:
    """Balancers with peers, tenants, recordings, traces, DNS that fails and a file of replicas.

    Yields:
        The balancers, the tenants' keys, and the collector of the traces.
    """
    file = directory / "keys.toml"
    keys = {name: add_key(file, name, terms, {})[0] for name, terms in TENANTS.items()}
    secret = directory / "dns.key"
    secret.write_text("hmac-sha256:" + key_line("skylb"))
    secret.chmod(0o600)
    listed = directory / "replicas"
    words = [
        "--keys-file",
        str(file),
        "--inject-usage",
        "--hold-timeout-s",
        "2",
        "--replicas-file",
        str(listed),
    ]
    words += ["--dns-provider", "rfc2136", "--dns-name", "api.example.org", "--dns-zone", "example.org"]
    words += ["--dns-server", f"127.0.0.1:{free_port()}", "--dns-key-file", str(secret)]
    words += ["--dns-address", "192.0.2.1"]
    own = {name: ("--record", str(directory / f"recording-{name}")) for name in NAMES}
    with ExitStack() as stack:
        collector = stack.enter_context(receiver())
        words += ["--otlp-endpoint", collector.url]
        urls: list[str] = []
        for more in ((), BROKEN):
            child, found_urls = start_mocks(1, *MOCK, *more)
            stack.callback(child.stop)
            urls += found_urls
        listed.write_text("\n".join(urls))
        found = stack.enter_context(regions(*NAMES, replicas=replicas, mock=MOCK, arguments=words, own=own))
        yield found, keys, collector


async def play(found: Regions, keys: dict[str, str]) -> None:
    """One round: bursts of two tenants, one over its limit, wrong keys and models, a replica that fails, and
    clients that leave."""
    us, eu = found["us"].front.port, found["eu"].front.port

    def asked(text: str, key: str, *, tokens: int = 8, model: str = "mock", path: str = "") -> bytes:
        headers = [f"Authorization: Bearer {key}"]
        body = chat(text, max_tokens=tokens, stream=True, model=model)
        return request(body, headers=headers, path=path or "/v1/chat/completions")

    prompt = "once more the same long beginning of a prompt, which replicas cache. " * 20
    work = [
        *(ask(us, asked(f"{prompt}{number % 5}", keys["acme"], tokens=30)) for number in range(BURST)),
        *(ask(eu, asked(f"{prompt}{number % 5}", keys["umbrella"])) for number in range(4)),
        *(ask(us, asked("hello", keys["limited"])) for _ in range(3)),
        ask(us, asked("hello", "sk-wrong")),
        ask(us, asked("hello", keys["acme"], model="none")),
        ask(us, asked("hello", keys["acme"], model="broken")),
        ask(found["us"].forward_port, asked("hello", keys["acme"])),
        leave(us, asked(prompt, keys["acme"], tokens=200)),
    ]
    await asyncio.gather(*work, return_exceptions=True)


async def leave(port: int, data: bytes) -> None:
    """A client that goes away in the middle of its stream."""
    connection = await Connection.open(port)
    connection.writer.write(data)
    await connection.reader.read(100)
    await connection.close()


@contextmanager
def traffic(found: Regions, keys: dict[str, str]) -> Iterator[None]:
    """Rounds, one after the other, as long as the caller needs them."""
    over = threading.Event()

    async def run() -> None:
        while not over.is_set():
            await play(found, keys)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def admins(found: Regions) -> Sequence[str]:
    """Addresses of the admin listeners."""
    return [region.front.admin.removeprefix("http://") for region in found.by_name.values()]
