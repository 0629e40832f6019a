"""A small API server for EndpointSlices, which does wrong what the real one cannot be made to do.

`tests/kubernetes/` has the real one.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

PATH = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
NAMESPACE = "vllm"
SERVICE = "kubernetes.io/service-name"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
"""Answers in place of the server, unless it returns ``None``."""


def endpoint(
    address: str,
    *,
    ready: bool | None = True,
    serving: bool | None = None,
    terminating: bool | None = None,
    name: str = "",
    uid: str = "",
    **more: str,
) -> dict[str, Any]:
    """An endpoint as the controller writes it."""
    found: dict[str, Any] = {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        **more,
    }
    if name or uid:
        found["targetRef"] = {"kind": "Pod", "name": name, "uid": uid}
    return found


def endpoint_slice(
    name: str,
    *endpoints: Mapping[str, Any],
    ports: Sequence[Mapping[str, Any]] | None = ({"name": "http", "port": 8000, "protocol": "TCP"},),
    service: str = "vllm",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    address_type: str = "IPv4",
) -> dict[str, Any]:
    """An EndpointSlice."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "labels": {SERVICE: service, **(labels or {})},
            "annotations": dict(annotations) if annotations is not None else None,
        },
        "addressType": address_type,
        "endpoints": list(endpoints) or None,
        "ports": list(ports) if ports is not None else None,
    }


def status(code: int, reason: str, message: str = "") -> dict[str, Any]:
    """An error as the API server answers it."""
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason} | (
        {"message": message} if message else {}
    )


def _event(kind: str, what: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": what}).encode() + b"\n"


class FakeApi:
    """What the server has and does. Tests change it, and look at what was asked."""

    def __init__(self) -> None:
        self.slices: dict[str, dict[str, Any]] = {}
        self.version = 100
        self.asked: list[dict[str, str]] = []
        """Queries, in order, with the namespace and the value of ``Authorization``."""
        self.handler: Handler | None = None
        self.page_len = 2
        self.url = ""
        self._changes: deque[tuple[int, str, Mapping[str, Any]]] = deque(maxlen=500)
        self._watches: dict[asyncio.Queue[bytes | None], None] = {}
        app = web.Application()
        app.router.add_get(PATH, self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)

    async def start(self) -> None:
        """Listens."""
        await self._runner.setup()
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        await web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Closes."""
        self.end_watches()
        await self._runner.cleanup()

    def config(self, path: Path, *, token: str = "t") -> Path:
        """Writes a kubeconfig for it; the path."""
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "contexts": [
                        {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}
                    ],
                    "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                    "users": [{"name": "u", "user": {"token": token}}],
                }
            )
        )
        return path

    # ------------------------------------------------------------------------ what it has

    def put(self, one: dict[str, Any]) -> None:
        """Adds or changes a slice."""
        name = one["metadata"]["name"]
        kind = "MODIFIED" if name in self.slices else "ADDED"
        self.slices[name] = self._next(one)
        self._change(kind, self.slices[name])

    def delete(self, name: str) -> None:
        """Takes a slice away."""
        self._change("DELETED", self._next(self.slices.pop(name)))

    def _change(self, kind: str, what: Mapping[str, Any]) -> None:
        self._changes.append((self.version, kind, what))
        self.say(kind, what)

    def _next(self, one: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        return {**one, "metadata": {**one["metadata"], "resourceVersion": str(self.version)}}

    def say(self, kind: str, what: Mapping[str, Any]) -> None:
        """Sends an event to all watches."""
        self.write(_event(kind, what))

    def bookmark(self) -> None:
        """Sends the version, and no change."""
        self.say("BOOKMARK", {"kind": "EndpointSlice", "metadata": {"resourceVersion": str(self.version)}})

    def write(self, data: bytes) -> None:
        """Sends bytes to all watches."""
        for queue in self._watches:
            queue.put_nowait(data)

    def end_watches(self) -> None:
        """Ends all watches, as after their time."""
        for queue in self._watches:
            queue.put_nowait(None)

    @property
    def watches_len(self) -> int:
        """Watches that are open."""
        return len(self._watches)

    @property
    def lists(self) -> list[dict[str, str]]:
        """Queries for lists."""
        return [query for query in self.asked if query.get("watch") != "True"]

    @property
    def watched(self) -> list[dict[str, str]]:
        """Queries for watches."""
        return [query for query in self.asked if query.get("watch") == "True"]

    # --------------------------------------------------------------------------- answers

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        query = {**request.query, "namespace": request.match_info["namespace"]}
        self.asked.append({**query, "authorization": request.headers.get("Authorization", "")})
        if self.handler is not None and (response := await self.handler(request)) is not None:
            return response
        return await self.watch(request) if query.get("watch") == "True" else self._list(query)

    def _list(self, query: Mapping[str, str]) -> web.Response:
        first = int(query.get("continue", "0"))
        names = sorted(self.slices)
        last = first + self.page_len
        meta = {"resourceVersion": str(self.version)} | ({"continue": str(last)} if last < len(names) else {})
        items = [self.slices[name] for name in names[first:last]]
        return web.json_response({"kind": "EndpointSliceList", "metadata": meta, "items": items})

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """An open watch, until the test ends it."""
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(1000)
        for version, kind, what in self._changes:
            if version > int(request.query["resourceVersion"]):
                queue.put_nowait(_event(kind, what))
        self._watches[queue] = None
        try:
            while (data := await queue.get()) is not None:
                await response.write(data)
        finally:
            del self._watches[queue]
        return response


@asynccontextmanager
async def fake_api() -> AsyncIterator[FakeApi]:
    """A running server."""
    api = FakeApi()
    await api.start()
    try:
        yield api
    finally:
        await api.stop()
