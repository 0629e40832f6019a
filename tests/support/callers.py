"""Clients that count exactly what becomes of their requests while processes come and go.

Each keeps its connection while the server does, as the clients of SDKs do, and retries nothing.
"""

import asyncio
import json
import ssl
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.raw import Answer, Connection, chat, request

TURNS = 6
"""Requests of one conversation."""

WORDS = 100
"""That each user adds per turn."""


@dataclass(frozen=True)
class Door:
    """Where clients connect."""

    name: str
    port: int = 0
    path: str = ""
    tls: ssl.SSLContext | None = None

    async def open(self) -> Connection:
        """One connection."""
        if self.path:
            found = await asyncio.open_unix_connection(self.path, ssl=self.tls, server_hostname=self._host)
        else:
            found = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=self.tls, server_hostname=self._host
            )
        return Connection(*found)

    @property
    def _host(self) -> str | None:
        return None if self.tls is None else "localhost"


@dataclass
class Tally:
    """What has become of requests."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """``ok``, ``refused``, ``reset``, ``cut``, or a status."""
    prompt_tokens: int = 0
    cached_tokens: int = 0

    def add(self, outcome: str, answer: Answer | None = None) -> None:
        """One request has ended."""
        self.outcomes[outcome] += 1
        usage = usage_of(answer) if answer is not None else {}
        self.prompt_tokens += usage.get("prompt_tokens", 0)
        self.cached_tokens += (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)

    @property
    def hit_percent(self) -> float:
        """Of all prompt tokens, those that engines had cached."""
        return 100 * self.cached_tokens / max(1, self.prompt_tokens)

    @property
    def faults(self) -> dict[str, int]:
        """All but the requests that went well."""
        return {name: count for name, count in self.outcomes.items() if name != "ok"}


def usage_of(answer: Answer) -> dict[str, Any]:
    """The usage that a stream, or a whole answer, ends with."""
    found: dict[str, Any] = {}
    for line in answer.body.split(b"\n"):
        text = line.removeprefix(b"data: ")
        if b'"usage"' in text:
            with suppress(ValueError):
                found = json.loads(text).get("usage") or found
    return found


class Callers:
    """Clients that talk until they are stopped.

    Args:
        doors: where; each client stays at one.
        count: clients.
        tokens: of each answer.
        pause_s: between two requests of a client.
        open_len: conversations that each client goes on with in turn.
    """

    def __init__(
        self, doors: list[Door], count: int, *, tokens: int = 24, pause_s: float = 0.05, open_len: int = 1
    ) -> None:
        self.tallies = {door.name: Tally() for door in doors}
        self._doors = doors
        self._count = count
        self._tokens = tokens
        self._pause_s = pause_s
        self._open_len = open_len
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Callers":
        for number in range(self._count):
            door = self._doors[number % len(self._doors)]
            self._tasks.append(asyncio.create_task(self._talk(door, number)))
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    def total(self) -> Tally:
        """Of all doors."""
        found = Tally()
        for tally in self.tallies.values():
            found.outcomes += tally.outcomes
            found.prompt_tokens += tally.prompt_tokens
            found.cached_tokens += tally.cached_tokens
        return found

    def anew(self) -> None:
        """Counts from now on."""
        self.tallies = {name: Tally() for name in self.tallies}

    async def _talk(self, door: Door, number: int) -> None:
        connection: Connection | None = None
        begun, texts = 0, deque[tuple[str, int]]()
        while not self._stopping:
            if len(texts) < self._open_len:
                begun += 1
                texts.append((f"caller {number}, conversation {begun}:", 0))
            text, turn = texts.popleft()
            text += " " + " ".join(f"w{turn}x{word % 97}" for word in range(WORDS))
            if turn + 1 < TURNS:
                texts.append((text, turn + 1))
            connection = await self._turn(door, connection, text, streams=(number + turn) % 4 != 0)
            await asyncio.sleep(self._pause_s)
        if connection is not None:
            await connection.close()

    async def _turn(
        self, door: Door, connection: Connection | None, text: str, *, streams: bool
    ) -> Connection | None:
        """One request; the connection, if it stays."""
        if connection is None:
            try:
                connection = await door.open()
            except ConnectionRefusedError:
                self.tallies[door.name].add("refused")
                return None
            except OSError:  # of TLS too
                self.tallies[door.name].add("reset")
                return None
        body = {**chat(text, max_tokens=self._tokens, stream=streams)}
        if streams:
            body["stream_options"] = {"include_usage": True}
        answer = await connection.ask(request(body))
        self.tallies[door.name].add(outcome_of(answer, streams=streams), answer)
        if answer.complete and answer.headers.get("connection", "").lower() != "close":
            return connection
        await connection.close()
        return None


def outcome_of(answer: Answer, *, streams: bool) -> str:
    """What became of one request."""
    if answer.status == 0:
        return "reset"
    if answer.status != 200:
        return str(answer.status)
    if not answer.complete or (streams and answer.done_events != 1) or answer.error_events:
        return "cut"
    return "ok"
