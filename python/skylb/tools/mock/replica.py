"""One mock replica: its model driven by the event loop's clock, and the requests inside it."""

import asyncio
import random
import secrets
import sys
import time
from dataclasses import dataclass, field
from typing import Literal, Protocol

from skylb._core import ADMIT_FULL, ADMIT_OK, ReplicaModel
from skylb.clock import monotonic_ns
from skylb.tools.mock import errors
from skylb.tools.mock.api import Context, Model, ResponseStore, Shape
from skylb.tools.mock.api.common import COMMENT
from skylb.tools.mock.completions import CompletionsLog, Outcome
from skylb.tools.mock.faults import Faults
from skylb.tools.mock.profiles import Profile

NS_PER_S = 1e9

Fault = Literal["cut", "stall"]


class Client(Protocol):
    """Where a response goes: a connection."""

    def begin_stream(self, preamble: bytes) -> None:
        """Sends the response head of a stream, and its first events."""

    def send(self, data: bytes) -> None:
        """Sends a part of a stream."""

    def finish(self, body: bytes | None) -> None:
        """The response is complete; ``body`` is the whole of one that is not streamed."""

    def stall(self, body: bytes) -> None:
        """Sends the head and the first byte of a whole response, and nothing more."""

    def cut(self) -> None:
        """Closes the connection after what was sent."""


@dataclass(slots=True)
class Totals:
    """What is counted beside the model's own figures."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    ended: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0})
    rejected: int = 0
    behind: int = 0
    """Requests that came while another one waited."""
    pages: int = 0
    """Times that ``/metrics`` was read."""


class Run:
    """One request in the model, and how much of its response is sent."""

    __slots__ = (
        "_begun",
        "_cached",
        "_client",
        "_comments",
        "_generated",
        "_paused",
        "_replica",
        "_sent",
        "_slow",
        "number",
        "request_id",
        "shape",
    )

    def __init__(self, replica: "MockReplica", client: Client, shape: Shape, request_id: str) -> None:
        self._replica = replica
        self._client = client
        self.shape = shape
        self.request_id = request_id
        self.number = replica.next_number()
        self._generated = 0
        self._sent = 0
        self._cached = 0
        self._begun = False
        self._paused = False
        self._slow: asyncio.TimerHandle | None = None
        self._comments: asyncio.TimerHandle | None = None

    def accepted(self, slow_s: float) -> None:
        """The model has it: the head goes out at once, as vLLM's does, or after ``slow_s``."""
        if slow_s > 0:
            self._slow = asyncio.get_running_loop().call_later(slow_s, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        self._slow = None
        self._begun = True
        if self.shape.call.stream:
            if self._replica.draw_error_event():
                self._fail_at_once()
                return
            self._client.begin_stream(self.shape.preamble())
            self._expect_silence()
        self._flush()

    def _fail_at_once(self) -> None:
        self._begun = False
        self._replica.ended(self, "failed")
        self._client.begin_stream(self.shape.error())
        self._client.finish(None)

    def _expect_silence(self) -> None:
        """A comment follows unless a token does."""
        interval_s = self._replica.faults.comment_ms / 1000
        if interval_s > 0:
            loop = asyncio.get_running_loop()
            self._comments = loop.call_later(interval_s, self._comment, self._sent)

    def _comment(self, sent: int) -> None:
        if self._begun and not self._paused:
            if sent == self._sent:
                self._client.send(COMMENT)
            self._expect_silence()

    def _hush(self) -> None:
        if self._comments is not None:
            self._comments.cancel()

    def gained(self, generated: int, cached: int, finished: bool) -> None:
        """The model generated a token; ``finished``: it was the last and the model has forgotten it."""
        self._generated = generated
        self._cached = cached
        if finished and generated < self._replica.fault_tokens:
            self._replica.ended(self, "completed")
        if self._begun and not self._paused:
            self._flush()

    def _flush(self) -> None:
        """Sends what is due."""
        limit = self._replica.fault_tokens
        if self.shape.call.stream:
            self._flush_stream(min(self._generated, limit))
        elif self._generated == self.shape.call.tokens and self._generated < limit:
            if self._replica.faults.stall_in_body:
                self._client.stall(self.shape.whole(self._cached))
            else:
                self._client.finish(self.shape.whole(self._cached))
            return
        if self._generated >= limit:
            self._fail(self._replica.fault)

    def _flush_stream(self, until: int) -> None:
        shape = self.shape
        sent = self._sent
        if sent == until:
            return
        if sent == 0:
            self._client.send(shape.opening(self._cached) + shape.token(0))
            sent = 1
        while sent < until and not self._paused:
            self._client.send(shape.token(sent))
            sent += 1
        self._sent = sent
        if sent == shape.call.tokens and sent < self._replica.fault_tokens:
            self._hush()
            self._client.send(shape.closing(self._cached))
            self._client.finish(None)

    def _fail(self, fault: Fault) -> None:
        self._replica.ended(self, "failed")
        self._begun = False
        self._hush()
        if fault == "cut":
            self._client.cut()

    def pause(self) -> None:
        """The client reads too slowly: the model goes on, the events wait as a count."""
        self._paused = True

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        if self._begun:
            self._flush()

    def left(self) -> None:
        """The client's connection is gone."""
        if self._slow is not None:
            self._slow.cancel()
        self._hush()
        self._begun = False
        self._replica.ended(self, "aborted")

    @property
    def generated(self) -> int:
        """Tokens so far."""
        return self._generated

    @property
    def cached(self) -> int:
        """Prompt tokens that were cached, known from the first token on."""
        return self._cached


class MockReplica:
    """One replica: model, faults, requests.

    Args:
        profile: sizes and speeds.
        time_scale: factor on the profile's times.
        models: names it serves, the first is the base model.
        numbers_tokens: the text of each token is its number in the answer.
        faults: what it does wrong.
        seed: of the draws of ``error_rate``.
        log: where the ends of requests are written.
    """

    def __init__(
        self,
        *,
        profile: Profile,
        time_scale: float,
        models: tuple[str, ...],
        faults: Faults,
        seed: int,
        log: CompletionsLog | None,
        numbers_tokens: bool = False,
    ) -> None:
        self.model = ReplicaModel(profile.model_json(time_scale))
        self.served = Model(models, profile.max_model_len, numbers_tokens)
        self.responses = ResponseStore()
        self.totals = Totals()
        self.url = ""
        self._runs: dict[int, Run] = {}
        self._numbers = 0
        self._random = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self._log = log
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._stepping = False
        self._frozen_ns: int | None = None
        self.set_faults(faults)

    def set_faults(self, faults: Faults) -> None:
        """Changes what it does wrong from now on, also for requests under way."""
        thaws = self._frozen_ns is not None and not faults.freeze
        if faults.freeze and self._frozen_ns is None:
            self._frozen_ns = monotonic_ns()
        self.faults = faults
        limits: list[tuple[int, Fault]] = []
        if faults.cut_after_tokens is not None:
            limits.append((faults.cut_after_tokens, "cut"))
        if faults.stall_after_tokens is not None:
            limits.append((faults.stall_after_tokens, "stall"))
        self.fault_tokens, self.fault = min(limits, default=(sys.maxsize, "cut"))
        if thaws:
            self._thaw()

    def _thaw(self) -> None:
        """The step that was under way goes on where it stood."""
        since_ns, self._frozen_ns = self._frozen_ns, None
        if since_ns is not None:
            self.model.pause(monotonic_ns() - since_ns)
        self.advance()

    def next_number(self) -> int:
        """The model's id for one more request."""
        self._numbers += 1
        return self._numbers

    @property
    def in_flight(self) -> int:
        """Requests in the model."""
        return len(self._runs)

    def context(self, request_id: str | None) -> Context:
        """What reading a request needs; an id is made where the client gave none."""
        return Context(self.served, self.responses, request_id or secrets.token_hex(16), int(time.time()))

    def draw_error(self) -> None:
        """Lets the configured share of requests fail.

        Raises:
            RefusedError: this one does.
        """
        rate = self.faults.error_rate
        if rate > 0 and self._random.random() < rate:
            raise errors.RefusedError(self.faults.status, "An error that was asked for.")

    def draw_error_event(self) -> bool:
        """Lets the configured share of streams begin with an error."""
        rate = self.faults.error_event_rate
        return rate > 0 and self._random.random() < rate

    def submit(self, client: Client, shape: Shape, request_id: str) -> Run:
        """Gives a request to the model.

        Raises:
            RefusedError: the queue is full.
        """
        call = shape.call
        run = Run(self, client, shape, request_id)
        self.totals.behind += self.model.waiting > 0
        admitted = self.model.submit(run.number, call.salt, call.prompt, call.answer, monotonic_ns())
        if admitted == ADMIT_FULL:
            self.totals.rejected += 1
            raise errors.full()
        if admitted != ADMIT_OK:
            raise errors.too_long(call.prompt_tokens, call.tokens, self.served.max_model_len)
        self._runs[run.number] = run
        return run

    def ended(self, run: Run, outcome: Outcome) -> None:
        """A request ended; what comes after the first call for it is ignored."""
        if self._runs.pop(run.number, None) is None:
            return
        call = run.shape.call
        if outcome == "completed":
            self.totals.prompt_tokens += call.prompt_tokens
            self.totals.cached_tokens += run.cached
            self.totals.ended[call.finish] += 1
        else:
            self.model.abort(run.number)
            self.totals.ended["abort"] += 1
        if self._log is not None:
            self._log.write(
                request_id=run.request_id,
                replica=self.url,
                outcome=outcome,
                prompt_tokens=call.prompt_tokens,
                cached_tokens=run.cached,
                tokens=run.generated,
            )

    def advance(self, at_least_ns: int = 0) -> None:
        """Runs the steps that are due, now or at the given time, and arms the timer for the next."""
        if self._stepping or self._frozen_ns is not None:
            # A response that ended let the next request of its connection in: the loop below goes on.
            # And nothing is due while the engine is frozen.
            return
        self._stepping = True
        try:
            now = max(at_least_ns, monotonic_ns())
            while (due := self.model.next_ns()) is not None and due <= now:
                self._step(now)
        finally:
            self._stepping = False
        if due is not None and (self._timer is None or due != self._timer_ns):
            self._arm(due, now)

    def _step(self, now: int) -> None:
        runs = self._runs
        every = self.fault_tokens < sys.maxsize
        for number, generated, cached, finished in self.model.advance(now):
            run = runs.get(number)
            # A client may have left, or a fault ended it, earlier in this very list.
            if run is not None and (finished or every or run.shape.call.stream):
                run.gained(generated, cached, finished)

    def _arm(self, due: int, now: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = due
        self._timer = asyncio.get_running_loop().call_later((due - now) / NS_PER_S, self._on_timer)

    def _on_timer(self) -> None:
        # The loop's timers are exact to a millisecond. One that fires early is taken at its word: the
        # model is then up to half of that ahead of the clock, instead of spinning until it is right.
        self._timer = None
        self.advance(self._timer_ns)

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
