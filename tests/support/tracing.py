"""What tests of traces have in common: requests, and what their spans must be."""

import asyncio

from tests.support.otlp import Receiver, Span
from tests.support.processes import eventually
from tests.support.raw import Answer, ask, chat, request
from tests.support.recorder import Recorder, recording
from tests.support.regions import regions

CLIENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
"""A client's span; flags follow."""

EVENTS = b"".join(
    b"data: %b\n\n" % text
    for text in (
        b'{"id":"x","choices":[{"delta":{"content":"hi"}}]}',
        b'{"id":"x","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}',
        b"[DONE]",
    )
)


def send(port: int, model: str = "m", *headers: str, stream: bool = False) -> Answer:
    """One chat request."""
    body = chat("a secret prompt", model=model, stream=stream)
    return asyncio.run(ask(port, request(body, headers=headers)))


def streams(replica: Recorder) -> None:
    """From now on it answers with a stream."""
    replica.content_type, replica.answer = "text/event-stream", EVENTS


def one(spans: list[Span], name: str) -> Span:
    """The only span of this name."""
    (found,) = [span for span in spans if span.name == name]
    return found


def arrived(collector: Receiver, *names: str) -> list[Span]:
    """The spans that came, once there is one of each name."""
    eventually(
        lambda: all(len(collector.named(name)) >= names.count(name) for name in names),
        what=f"spans {names}: {collector.spans}",
    )
    return list(collector.spans)


def forwarded_is_one_trace(collector: Receiver, endpoint: str, *more: str) -> None:
    """Sends a request to one region that only another one can serve, and looks at its spans.

    Args:
        collector: where the spans arrive in the end.
        endpoint: where balancers send them.
        more: flags of all balancers.
    """
    with recording("m-us") as us, recording("m-eu") as eu:
        streams(us)
        streams(eu)
        engines = {"us": [us.url], "eu": [eu.url]}
        with regions("us", "eu", engines=engines, arguments=["--otlp-endpoint", endpoint, *more]) as found:
            state = "vendor=opaque"
            headers = f"traceparent: {CLIENT}-01", f"tracestate: {state}"
            answer = send(found["us"].front.port, "m-eu", *headers, stream=True)
            assert (answer.status, answer.done_events) == (200, 1)
            names = "request", "forward", "stream", "request", "attempt", "stream"
            spans = arrived(collector, *names)
        assert sorted(span.name for span in spans) == sorted(names)
        assert {span.trace for span in spans} == {CLIENT[3:35]}
        here, there = (
            {span.name: span for span in spans if span.service["skylb.region"] == region}
            for region in ("us", "eu")
        )
        _are_nested(here, there)
        assert {here["request"].state, there["request"].state} == {state}
        kinds = {span.name: span.kind for span in spans}
        assert kinds == {"request": "server", "forward": "client", "attempt": "client", "stream": "internal"}
        (seen,) = eu.seen
        assert seen.headers["traceparent"] == f"00-{CLIENT[3:35]}-{there['attempt'].id}-01"
        assert [value for name, value in seen.lines if name.lower() == "tracestate"] == [state]
        assert not us.seen


def _are_nested(here: dict[str, Span], there: dict[str, Span]) -> None:
    assert here["request"].parent == CLIENT[36:]
    assert here["request"].remote
    assert there["request"].remote
    assert not here["forward"].remote
    for inner, outer in (
        (here["forward"], here["request"]),
        (here["stream"], here["forward"]),
        (there["request"], here["forward"]),
        (there["attempt"], there["request"]),
        (there["stream"], there["attempt"]),
    ):
        assert inner.parent == outer.id
        # The peer's own end is not seen here: it may come a little after the answer's last byte.
        ends = outer.end_ns if inner is not there["request"] else inner.end_ns
        assert outer.start_ns <= inner.start_ns <= inner.end_ns <= ends, (inner, outer)
    for leg, stream in ((here["forward"], here["stream"]), (there["attempt"], there["stream"])):
        assert leg.events["first token"] == stream.start_ns
