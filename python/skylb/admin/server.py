"""The admin application: health, readiness, metrics, state, a live page, and an operator's verbs.

``/health``, ``/ready``, ``/metrics`` and the page, which holds no figures itself, answer everybody who
reaches the listener. ``/state``, the page's events and the verbs need the bearer token where one is
configured. Without one they answer on loopback only. They never answer another web page, whose requests a
browser would carry there: see `foreign`.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import orjson
from aiohttp import web

from skylb.addresses import ListenAddress
from skylb.admin import receipts, rehearsal
from skylb.admin.continuing import ContinuingService, put_continuing
from skylb.admin.frame import frame, vitals
from skylb.admin.host import AdminHost
from skylb.admin.live import Feed, page
from skylb.admin.origin import foreign
from skylb.admin.policy import PolicyService, put_policy
from skylb.admin.pulse import Member, Pulse, Pulses
from skylb.admin.refusal import Refusal, field_of, json_answer, of_library
from skylb.admin.state import State
from skylb.descriptors import Shortage
from skylb.listeners import Listening
from skylb.mesh.orders import WITHIN_S_MAX
from skylb.tasks import TaskGroup
from skylb.types import Replica

REQUEST_BYTES_MAX = 4096
FRAME_INTERVAL_S = 1.0

LOG_LEVELS = ("debug", "info", "warning", "error")
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/ready/here", "/metrics"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service(receipts.Source, rehearsal.Source, PolicyService, ContinuingService, Protocol):
    """What the admin application shows and changes."""

    def ready(self, *, here: bool = False) -> bool:
        """Whether a request would find a replica: ``here``, or also at a peer."""

    def serves(self) -> bool:
        """Whether a request would find a replica, here or at a peer, wanted here or not."""

    async def metrics(self, accept: str, /) -> tuple[bytes, str]:
        """The metrics page and its content type."""

    def state(self) -> dict[str, Any]:
        """Everything an operator may want to see, fit for orjson."""

    def pulse(self) -> Pulse:
        """What was counted so far, and how it is now."""

    def members(self) -> Mapping[str, Member]:
        """The condition of each replica and peer."""

    def usage(self) -> bytes:
        """What tenants have used, in JSON."""

    def replicas(self) -> Sequence[Replica]:
        """The fleet."""

    def set_draining(self, name: str, draining: bool, /) -> bool:
        """Operator intent for one replica; whether it drains now, for this or another reason."""

    def leave(self, name: str, in_s: float, /, *, ends: bool) -> None:
        """A replica of the fleet ends in so many seconds, or is to be empty."""

    @property
    def ordered(self) -> Callable[[], None]:
        """To be called behind each order of an operator."""

    def staying(self) -> tuple[int, int, int]:
        """Requests at replicas here; of these, those that cannot leave, and those of peers."""

    def peers(self) -> dict[str, Any] | None:
        """This balancer and its peers; ``None`` without a mesh."""

    def isolate(self, name: str, isolated: bool, /) -> bool:
        """Operator intent for one peer; ``False`` for an unknown name."""

    def evacuate(self, region: str, evacuating: bool, within_s: float | None, /) -> list[str]:
        """Operator intent for a region; the names of its balancers, none for an unknown region."""

    def set_log_level(self, level: str, /) -> None:
        """Least severe level that is logged."""


class Admin:
    """The admin listener.

    Args:
        service: what is shown and changed.
        address: where it listens.
        token: what guards ``/state`` and the verbs.
    """

    def __init__(self, service: Service, address: ListenAddress, token: str | None) -> None:
        self._service = service
        self._is_local = address.is_loopback
        self.token = token
        self._feed = Feed()
        self._pulses = Pulses()
        self._tasks = TaskGroup()
        app = web.Application(middlewares=[self._guarded], client_max_size=REQUEST_BYTES_MAX)
        app.on_response_prepare.append(_hide_software)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/ready/here", self._ready_here)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/state", self._state)
        app.router.add_get("/usage", self._usage)
        app.router.add_get("/", self._page)
        app.router.add_get("/events", self._feed.serve)
        app.router.add_post("/replicas/{replica:.+}/{verb:drain|undrain}", self._drain)
        app.router.add_post("/replicas/{replica:.+}/leave", self._leave)
        app.router.add_delete("/replicas/{replica:.+}/leave", self._stay)
        app.router.add_get("/peers", self._peers)
        app.router.add_post("/peers/{peer}/{verb:isolate|rejoin}", self._isolate)
        app.router.add_post("/regions/{region}/{verb:evacuate|undrain}", self._evacuate)
        app.router.add_put("/log-level", self._log_level)
        app.router.add_put("/policy", put_policy(service))
        app.router.add_put("/continuing", put_continuing(service))
        receipts.Receipts(service).add_to(app)
        rehearsal.Rehearsal(service).add_to(app)
        self._host: AdminHost | None = None
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, keepalive_timeout=30.0, shutdown_timeout=1.0
        )

    async def start(self, sockets: Sequence[Listening], shortage: Shortage | None = None) -> None:
        """Serves on listening sockets; ``shortage`` hears of what an accept lacked."""
        self._is_local = self._is_local and all(sock.address.is_loopback for sock in sockets)
        await self._runner.setup()
        if self._runner.server is not None:
            self._host = AdminHost(self._runner.server, sockets, shortage or Shortage())
        self._tasks.start(self._show(), name="live page")

    async def hand_over(self) -> None:
        """Lets go of the address, for a successor; connections stay."""
        if self._host is not None:
            await self._host.stop()

    async def close(self) -> None:
        """Stops serving; answers under way get a second."""
        await self._tasks.stop()
        await self.hand_over()
        self._feed.close()
        await self._runner.cleanup()

    # ------------------------------------------------------------------------- guard

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await self._answered(request, handler)
        if request.method not in {"GET", "HEAD"}:
            self._service.ordered()
        return answer

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path not in OPEN_PATHS:
                self._authorise(request)
            return await handler(request)
        except Refusal as refusal:
            return refusal.answer()
        except web.HTTPException as error:
            if (known := of_library(error)) is None:
                raise
            return known.answer()

    def _authorise(self, request: web.Request) -> None:
        if self.token is not None:
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            known = hmac.compare_digest(given.strip().encode(errors="surrogateescape"), self.token.encode())
            if scheme.lower() != "bearer" or not known:
                raise Refusal("unauthorized", "give the admin token: Authorization: Bearer TOKEN")
        elif not self._is_local:
            raise Refusal("no_token", "not on loopback: set admin_token_file to use this")
        elif foreign(request):
            raise Refusal("cross_origin", "not for other web pages, and only under a loopback name")

    # ---------------------------------------------------------------------- handlers

    async def _health(self, request: web.Request) -> web.Response:
        """200 while the process runs."""
        del request
        return json_answer({"status": "alive"})

    async def _ready(self, request: web.Request) -> web.Response:
        """200 when some request would find a replica, here or at a peer, else 503 with `Retry-After`.

        The replica is up, and has reported its models or hides them. 503 from the first SIGTERM on, and
        while the region is evacuated.
        """
        del request
        return _readiness(self._service.ready())

    async def _ready_here(self, request: web.Request) -> web.Response:
        """As `/ready`, but peers do not count. Use it for DNS health checks of a region."""
        del request
        return _readiness(self._service.ready(here=True))

    async def _metrics(self, request: web.Request) -> web.Response:
        """Prometheus text, or OpenMetrics where `Accept` asks for it."""
        page, content_type = await self._service.metrics(request.headers.get("Accept", ""))
        return web.Response(body=page, headers={"Content-Type": content_type})

    async def _state(self, request: web.Request) -> web.Response:
        """The process, its replicas and where they come from, hold, tree and keys."""
        del request
        return json_answer(self._service.state())

    async def _usage(self, request: web.Request) -> web.Response:
        """What each tenant has used, by model."""
        del request
        return json_answer(orjson.Fragment(self._service.usage()))

    async def _page(self, request: web.Request) -> web.Response:
        """The live page: replicas, hold and cache in a browser. It loads nothing from elsewhere."""
        del request
        return page("skylb.admin")

    async def _show(self) -> None:
        """A sample a second; a frame of it while somebody looks."""
        service, pulses = self._service, self._pulses
        while True:
            pulse = service.pulse()
            pulses.add(pulse)
            if pulses.members_due(pulse.uptime_s):
                pulses.look(pulse.uptime_s, service.members())
            self._feed.keep(msgspec.to_builtins(vitals(pulses)))
            if self._feed.is_watched:
                state = msgspec.json.decode(orjson.dumps(service.state()), type=State)
                self._feed.publish(msgspec.to_builtins(frame(state, pulses, serves=service.serves())))
            await self._feed.pause(FRAME_INTERVAL_S)

    async def _drain(self, request: web.Request) -> web.Response:
        """`drain`: no new requests go to this replica, running ones end. `undrain`: the opposite.

        With `within`, requests that are still there after so many seconds go elsewhere, as others have room.
        The name is its id, `host:port`, or its URL percent-encoded. A replica that its source ends goes on
        draining, and the answer says so.
        """
        replica = self._find(request.match_info["replica"])
        draining = request.match_info["verb"] == "drain"
        within_s = _seconds(request, "within") if draining else None
        drains = self._service.set_draining(replica.name, draining)
        said: dict[str, Any] = {"replica": replica.name, "id": replica.id, "draining": drains}
        if within_s is not None:
            self._service.leave(replica.name, within_s, ends=False)
            said["empties_in_s"] = within_s
        note = "its source says that it leaves" if drains and not draining else None
        return json_answer(said if note is None else {**said, "note": note})

    async def _leave(self, request: web.Request) -> web.Response:
        """The replica ends in `in` seconds: no new requests go there, and what is there leaves in time.

        What has not begun is then tried elsewhere, and streams that can continue elsewhere do. Named as for
        `drain`.
        """
        replica = self._find(request.match_info["replica"])
        in_s = _seconds(request, "in")
        if in_s is None:
            raise Refusal("bad_query", f"in: expected seconds from 0 to {WITHIN_S_MAX:,}")
        self._service.leave(replica.name, in_s, ends=True)
        said = {"replica": replica.name, "id": replica.id, "draining": True, "leaves_in_s": in_s}
        return json_answer(said)

    async def _stay(self, request: web.Request) -> web.Response:
        """Takes the notice back: the replica takes requests again."""
        replica = self._find(request.match_info["replica"])
        drains = self._service.set_draining(replica.name, False)
        return json_answer({"replica": replica.name, "id": replica.id, "draining": drains})

    async def _peers(self, request: web.Request) -> web.Response:
        """This balancer and what it knows of its peers."""
        del request
        found = self._service.peers()
        if found is None:
            raise Refusal("no_mesh", "this balancer has no peers: see --peer")
        return json_answer(found)

    async def _isolate(self, request: web.Request) -> web.Response:
        """`isolate`: no forward goes to this peer or comes from it. `rejoin`: the opposite."""
        peer, isolated = request.match_info["peer"], request.match_info["verb"] == "isolate"
        if not self._service.isolate(peer, isolated):
            raise Refusal("unknown_peer", f"no peer {peer!r}: see /peers")
        return json_answer({"peer": peer, "isolated": isolated})

    async def _evacuate(self, request: web.Request) -> web.Response:
        """`evacuate`: new and held requests leave the region, running ones end there.

        With `within`, requests that are still there after so many seconds go elsewhere, as others have room.
        `undrain`: the opposite.
        """
        region, evacuating = request.match_info["region"], request.match_info["verb"] == "evacuate"
        within_s = _seconds(request, "within") if evacuating else None
        names = self._service.evacuate(region, evacuating, within_s)
        mesh = self._service.peers() or {}
        if not names:
            raise _unknown_region(region, mesh or None)
        said: dict[str, Any] = {"region": region, "evacuating": evacuating, "balancers": names}
        if within_s is not None:
            said["within_s"] = within_s
            if mesh.get("region") == region:
                said["in_flight"], said["ending_here"], said["of_peers"] = self._service.staying()
        note = _evacuation_note(mesh, region) if evacuating else None
        return json_answer(said if note is None else {**said, "note": note})

    def _find(self, text: str) -> Replica:
        for replica in self._service.replicas():
            if text in {str(replica.id), replica.name, replica.authority}:
                return replica
        names = ", ".join(replica.name for replica in self._service.replicas())
        raise Refusal("unknown_replica", f"no replica {text!r}; there are: {names or 'none'}")

    async def _log_level(self, request: web.Request) -> web.Response:
        """The least severe level that is logged, until the next start: `{"level": "debug"}`."""
        level = field_of(await request.read(), "level", "bad_level", LOG_LEVELS)
        self._service.set_log_level(level)
        return json_answer({"level": level})


def _seconds(request: web.Request, name: str) -> float | None:
    """The only field that the query may have; ``None`` without it."""
    unknown = [key for key in request.query if key != name]
    if unknown:
        raise Refusal("bad_query", f"{unknown[0]}: expected {name}")
    texts = request.query.getall(name, [])
    if not texts:
        return None
    try:
        seconds = float(texts[0]) if len(texts) == 1 else -1.0
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= WITHIN_S_MAX:
        given = "&".join(texts)[:40]
        raise Refusal("bad_query", f"{name} {given!r}: expected seconds from 0 to {WITHIN_S_MAX:,}")
    return seconds


def _unknown_region(region: str, mesh: dict[str, Any] | None) -> Refusal:
    if mesh is None:
        return Refusal("no_mesh", "this balancer has no peers: see --peer")
    known = {str(name) for name in (mesh.get("region"), *(row["region"] for row in mesh["peers"])) if name}
    there = ", ".join(sorted(known))
    return Refusal(
        "unknown_region", f"no balancer is known in region {region!r}; there are: {there or 'none'}"
    )


def _evacuation_note(mesh: dict[str, Any], region: str) -> str | None:
    """What an operator should know who has evacuated a region; ``mesh`` is what ``GET /peers`` says."""
    here = mesh.get("region")
    if here is None:
        return None
    if here != region:
        return "this counts where the region's own balancers trust this one: see trusted_peers"
    if not any(row["available"] and row["region"] != region for row in mesh["peers"]):
        return "no peer can take requests now: they stay here until one can"
    return None


def _readiness(ready: bool) -> web.Response:
    if ready:
        return json_answer({"ready": True})
    return json_answer({"ready": False}, status=503, headers={"Retry-After": "1"})


async def _hide_software(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers["Server"] = "SkyLB"
