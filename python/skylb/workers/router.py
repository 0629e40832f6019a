"""The router of a worker: over the engine of another process."""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeAlias

import orjson

from skylb._core import (
    Expire,
    Forward,
    Hold,
    Note,
    Placed,
    Push,
    Recorder,
    Reject,
    Relay,
    RemoteEngine,
    Request,
    Scanned,
    Scanner,
    Tenant,
    Withdraw,
)
from skylb.clock import monotonic_ns
from skylb.mesh.signing import Claims
from skylb.router import Loads, Models, RequestRouter, Sink
from skylb.types import Address, Peer, Replica
from skylb.workers import protocol
from skylb.workers.line import PORTION_BYTES, Line
from skylb.workers.protocol import Asked, Listing, View

log = logging.getLogger("skylb.workers")

PATIENCE_S = 3.0
"""How long requests wait for another engine process, at most. It is mostly there within half a second."""

LATE_MAX = 4096
"""Requests that come meanwhile, and wait for it."""

LAZY_S = 0.002
"""How long a report may wait for others, that needs no answer: a first byte, an end."""

ASKS_MAX = 1024
"""Listings that are asked for and not answered yet."""

_AWAY = View(
    ready=False,
    leaves=False,
    only_model="",
    policy="",
    continuing=False,
    identity=("", 0),
    replicas=[],
    peers=[],
    silent_peers=[],
)

Args = ParamSpec("Args")

_Decision: TypeAlias = Placed | Push | Forward | Hold | Reject | Expire | Withdraw


class RemoteRouter(RequestRouter):
    """Reports to the engine process, and delivers what it decides.

    While there is no engine process, requests at replicas go on. Those that wait for a decision and new ones
    wait for the next engine process, which gets them all from here.

    Args:
        engine: reads bodies, and writes and reads what crosses.
        recorder: of this worker's requests; its records cross too.
        retry_after_s: for requests that waited in vain.
        changed: called with what the engine process says of itself, when it changes.
    """

    def __init__(
        self,
        engine: RemoteEngine,
        recorder: Recorder,
        *,
        retry_after_s: int,
        changed: Callable[[View], None],
    ) -> None:
        self._engine = engine
        self._recorder = recorder
        self._retry_after_s = retry_after_s
        self._changed = changed
        self._sinks: dict[int, Sink] = {}
        self._last = 0
        self._line: Line | None = None
        self._flush: asyncio.Handle | None = None
        self._urgent = False
        self._patience: asyncio.TimerHandle | None = None
        self._late_len = 0
        """Requests that came since the engine process is away; beyond `LATE_MAX` none may wait."""
        self._highest: dict[str, str] = {}
        self._excluded: set[str] = set()
        """Tenants whose streams do not go on elsewhere."""
        self._asks: dict[int, Callable[[Listing | None], None]] = {}
        self._replicas: dict[int, Replica] = {}
        self._peers: dict[int, Peer] = {}
        self._own_ids: dict[tuple[str, Address], int] = {}
        self._last_own_id = 0
        self.view = _AWAY

    # ------------------------------------------------------------------------ the data plane

    def submit(
        self, sink: Sink, request: Request, body: bytes | Scanned, claims: Claims | None = None
    ) -> None:
        del claims  # peers forward to the engine process
        number = self._last = self._last + 1
        self._engine.submit(number, request, body)
        self._sinks[number] = sink
        if self._line is not None:
            self._post(urgent=True)
            return
        self._late_len += 1
        if self._late_len > LATE_MAX:
            self._late_len = LATE_MAX + 1
            asyncio.get_running_loop().call_soon(self._refuse, number)

    def first_byte(self, request: Request, relay: Relay, now_ns: int) -> None:
        self._engine.first_byte(request, relay, now_ns)
        self._post(urgent=False)

    def complete(self, request: Request, outcome: int, relay: Relay | None, now_ns: int) -> None:
        del self._sinks[request.id]
        self._engine.complete(request, outcome, relay, now_ns)
        self._post(urgent=False)

    def retry(self, request: Request, failure: int, *, sent: bool, now_ns: int, status: int = 0) -> None:
        self._engine.retry(request, failure, sent, now_ns, status)
        self._await_decision(request)

    def resume(self, request: Request, relay: Relay, failure: int, *, now_ns: int, status: int = 0) -> None:
        self._engine.resume(request, relay, failure, now_ns, status)
        self._await_decision(request)

    @property
    def continuing(self) -> bool:
        return self._engine.continuing

    def heard(self, replica_ids: list[int], now_ns: int) -> None:
        del now_ns  # the engine process notes when it reads it
        own = {replica.id: number for number, replica in self._replicas.items()}
        self._engine.heard([own[number] for number in replica_ids if number in own])
        self._post(urgent=False)

    def only_model(self) -> str | None:
        return self.view.only_model

    def over_limit(self, tenant: Tenant, now_ns: int) -> tuple[str, int, bytes | None] | None:
        del tenant, now_ns  # the engine process knows: it refuses what is submitted
        return None

    def continues(self, tenant: Tenant) -> bool:
        return self.continuing and tenant.name not in self._excluded

    def highest_class(self, tenant: Tenant) -> str | None:
        return self._highest.get(tenant.name) if tenant.name is not None else None

    def guessed(self, request: Request) -> bool:
        return request.guessed

    def silent_peers(self) -> list[int]:
        return self.view.silent_peers

    def ready(self) -> bool:
        return self.view.ready

    def list_models(self, tenant: Tenant, then: Callable[[Models | None], None]) -> None:
        self._ask(tenant, models=True, then=lambda found: then(None if found is None else found.models))

    def list_loads(self, then: Callable[[Loads | None], None]) -> None:
        self._ask(
            Tenant.NOBODY, models=False, then=lambda found: then(None if found is None else found.loads)
        )

    def scanner(self) -> Scanner:
        return self._engine.scanner()

    # ------------------------------------------------------------------------ the worker

    def set_terms(self, terms: bytes) -> None:
        """Takes the terms of tenants, as `Router.set_tenants` does: what the data plane needs of them."""
        tenants = orjson.loads(terms)["tenants"]
        self._highest = {of["name"]: of["class"] for of in tenants if of["class"] is not None}
        self._excluded = {of["name"] for of in tenants if of["continue_streams"] is False}
        self._engine.exclude(sorted(self._excluded))

    def tell(self, note: protocol.Up) -> None:
        """Sends a note to the engine process, if it is there."""
        if self._line is not None:
            self._engine.tell(protocol.encode(note))
            self._post(urgent=False)

    @property
    def requests_len(self) -> int:
        """Requests that have not ended."""
        return self._engine.requests_len

    @property
    def attached(self) -> bool:
        """An engine process takes reports."""
        return self._line is not None

    def attach(self, line: Line) -> None:
        """An engine process is there. It gets all requests that have not ended, portion by portion."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._line = line
        self._late_len = 0
        self._engine.joined()
        self.drained(line)

    def drained(self, line: Line) -> None:
        """The line takes a portion of the requests that the engine process is still to get."""
        if line is not self._line or not line.takes_portions:
            return
        more = self._engine.submit_again(PORTION_BYTES, monotonic_ns())
        self._post(urgent=True)
        if more:
            asyncio.get_running_loop().call_soon(self.drained, line)  # behind that, and others' turns

    def detach(self) -> None:
        """The engine process is gone."""
        if self._line is None:
            return
        self._line = None
        self._engine.lost()
        asks, self._asks = self._asks, {}
        for then in asks.values():
            then(None)
        self._patience = asyncio.get_running_loop().call_later(PATIENCE_S, self._give_up)

    def close(self) -> None:
        """Sends what waits to be sent; no timer runs any more."""
        for handle in (self._flush, self._patience):
            if handle is not None:
                handle.cancel()
        self._send()

    def receive(self, data: bytes) -> None:
        """Bytes from the engine process.

        Raises:
            Exception: they cannot be carried out. What was before is delivered. The line is of no use any
                more.
        """
        effects, fault = self._engine.receive(data)
        self._deliver(effects)
        if fault is not None:
            raise ValueError(fault)
        if self._engine.mail_len:
            self._post(urgent=True)  # what the engine process does not know, it gets again

    # ------------------------------------------------------------------------------ delivery

    def _deliver(self, effects: Sequence[_Decision | Note]) -> None:
        """Delivers all; a request that fails takes only itself along.

        Raises:
            ExceptionGroup: some could not be delivered.
        """
        errors: list[Exception] = []
        for effect in effects:
            try:
                if isinstance(effect, Note):
                    self._noted(protocol.decode_down(effect.payload))
                elif (sink := self._sinks.get(effect.request_id)) is not None:
                    self._decided(sink, effect)
            except Exception as error:  # noqa: BLE001 - whatever it is: it is raised below
                errors.append(error)
        if errors:
            raise ExceptionGroup("decisions could not be delivered", errors)

    def _decided(self, sink: Sink, effect: _Decision) -> None:
        if isinstance(effect, Placed):
            sink.submitted()
        elif isinstance(effect, Push):
            sink.pushed(effect, self._replicas[effect.replica])
        elif isinstance(effect, Forward):
            sink.forwarded(effect, self._peers[effect.peer])
        elif isinstance(effect, Hold):
            sink.held()
        elif isinstance(effect, Withdraw):
            sink.withdrawn()
        else:
            del self._sinks[effect.request_id]
            if isinstance(effect, Reject):
                sink.rejected(effect)
            else:
                sink.expired()

    def _noted(self, note: protocol.Down) -> None:
        if isinstance(note, Listing):
            then = self._asks.pop(note.number, None)
            if then is not None:
                then(note)
            return
        self.view = note
        self._engine.only_model = note.only_model
        self._engine.set_continuing(note.continuing)
        self._peers = {peer.id: peer for peer in note.peers}
        # Another engine process numbers replicas anew; pools know them by numbers of ours.
        ids = {(of.name, of.address): self._own_id(of) for of in note.replicas}
        self._own_ids = ids
        self._replicas = {of.id: dataclasses.replace(of, id=ids[of.name, of.address]) for of in note.replicas}
        self._changed(note)

    def _own_id(self, replica: Replica) -> int:
        known = self._own_ids.get((replica.name, replica.address))
        if known is None:
            known = self._last_own_id = self._last_own_id + 1
        return known

    def _ask(self, tenant: Tenant, *, models: bool, then: Callable[[Listing | None], None]) -> None:
        if self._line is None or len(self._asks) >= ASKS_MAX:
            then(None)
            return
        number = self._last = self._last + 1
        self._asks[number] = then
        unknown = tenant == Tenant.UNKNOWN
        self._engine.tell(protocol.encode(Asked(number, models, tenant.name, unknown)))
        self._post(urgent=True)

    # ------------------------------------------------------------------ without an engine process

    def _give_up(self) -> None:
        """No engine process has come: what waits for one is answered, and what comes now is so at once."""
        self._patience = None
        self._late_len = LATE_MAX + 1
        log.warning("no engine process for %g s: requests that wait for it are refused", PATIENCE_S)
        self._deliver(self._engine.give_up(self._retry_after_s))

    def _await_decision(self, request: Request) -> None:
        """Asks the engine process, or the next one. Where none has come in time, it waits for none."""
        if self._line is None and self._patience is None:
            asyncio.get_running_loop().call_soon(self._refuse, request.id)
        self._post(urgent=True)

    def _refuse(self, number: int) -> None:
        if number in self._sinks and self._line is None:
            self._deliver(self._engine.give_up(self._retry_after_s, number))

    # --------------------------------------------------------------------------------- mail

    def _post(self, *, urgent: bool) -> None:
        """Sends the reports: urgent ones behind this turn of the loop, others with the next of those."""
        if self._line is None or (self._flush is not None and (self._urgent or not urgent)):
            return
        if self._flush is not None:
            self._flush.cancel()
        loop = asyncio.get_running_loop()
        self._urgent = urgent
        self._flush = loop.call_soon(self._send) if urgent else loop.call_later(LAZY_S, self._send)

    def _send(self) -> None:
        self._flush = None
        self._urgent = False
        if self._line is not None and (mail := self._engine.take_mail(self._recorder)):
            self._line.write(mail)


def understood(receive: Callable[Args, None], *args: Args.args, **kwargs: Args.kwargs) -> bool:
    """Has bytes from another process of this balancer read.

    Returns:
        Whether they could be read and carried out; if not, the log has why, and the line is of no use.
    """
    try:
        receive(*args, **kwargs)
    except Exception:  # whatever it is: the two sides disagree from here on
        log.exception("what another process of this balancer has sent cannot be carried out")
        return False
    return True
