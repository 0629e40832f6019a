"""A worker's core and that of the engine process, joined by bytes: also where the other one is a new one."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylb import _core
from skylb._core import (
    Engine,
    Forward,
    Hold,
    Note,
    Placed,
    Push,
    Recorder,
    Reject,
    RemoteEngine,
    Request,
    Withdraw,
)
from skylb.config import EngineSettings
from tests.support.core import answered, head, request

SECRET = b"0123456789abcdef"
MODELS: list[tuple[str, int | None]] = [("m", 4096)]
EVENT = {"id": "c", "created": 1, "model": "m"}


def body(*, stream: bool = True, **more: object) -> bytes:
    """A chat."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "stream": stream, **more}
    return json.dumps(asked).encode()


def recorder() -> Recorder:
    """One that counts."""
    return Recorder(_core.LOG_OFF, 1, "predictive", 0)


def engine_process(replicas: Sequence[str], **changes: object) -> Engine:
    """An engine with such replicas, and worker 1."""
    settings = EngineSettings().model_dump(mode="json") | {"blind_outstanding_max": 4} | changes
    made = Engine(json.dumps(settings).encode(), SECRET, 1)
    made.keep_receipts(100, 1)
    made.worker_joined(1)
    made.set_replicas(list(enumerate(replicas, 1)), 1)
    for number, _ in enumerate(replicas, 1):
        made.set_models(number, MODELS, False, 1)
        made.observe_failed(number, _core.PROBE_UNREADABLE, 1)
    return made


class Pair:
    """A worker with one request, and an engine process."""

    def __init__(self, *replicas: str, **changes: object) -> None:
        self.worker = RemoteEngine(SECRET, 64, 1_000, False)
        self.worker.keep_ids(1 << 20, 1_000, [], False)
        self.worker.set_continuing(True)
        self.recorder = recorder()
        self.engine = engine_process(replicas, **changes)
        self.names = dict(enumerate(replicas, 1))
        self.worker.joined()
        self.request: Request

    def replace(self, *replicas: str, **changes: object) -> list[object]:
        """Another engine process takes the place of this one; what it decides."""
        self.worker.lost()
        self.engine = engine_process(replicas, **changes)
        self.names = dict(enumerate(replicas, 1))
        self.worker.joined()
        assert not self.worker.submit_again(1 << 20, 50)
        return self.decided()

    def submit(self, asked: bytes, number: int = 1) -> list[object]:
        """The request comes."""
        self.request = request(head(length=len(asked)), start_ns=3)
        self.worker.submit(number, self.request, asked)
        return self.decided()

    def decided(self) -> list[object]:
        """What is decided of what the worker has said, until nobody has more to say."""
        found: list[object] = []
        while mail := self.worker.take_mail(self.recorder):
            _, _, fault = self.engine.serve(1, mail, recorder(), 4)
            assert fault is None
            effects, fault = self.worker.receive(self.engine.take_mail(1))
            assert fault is None
            for effect in effects:
                if isinstance(effect, Push):
                    self.request.pushed(effect, self.names[effect.replica])
                if not isinstance(effect, Placed):
                    found.append(effect)
        self.engine.check_invariants()
        return found

    def fails(self, failure: int, *, sent: bool) -> list[object]:
        """Its attempt fails."""
        self.worker.retry(self.request, failure, sent, 9)
        return self.decided()


def attempt(effects: Sequence[object]) -> int:
    """Of the one push that there is."""
    (push,) = effects
    assert isinstance(push, Push)
    return push.attempt


def code(effects: Sequence[object]) -> str:
    """Of the one refusal that there is."""
    (reject,) = effects
    assert isinstance(reject, Reject)
    return reject.code


def test_what_must_not_be_sent_twice_is_not_sent_again_by_another_engine_process() -> None:
    late = body(stream=False)  # its time is up
    for asked, failure in ((body(store=True), _core.FAILURE_RESET), (late, _core.FAILURE_TIMEOUT)):
        pair = Pair("http://a", "http://b")
        assert attempt(pair.submit(asked)) == 1
        pair.worker.lost()
        pair.worker.retry(pair.request, failure, True, 9)
        assert code(pair.replace("http://a", "http://b")).startswith("upstream_")
        assert (pair.engine.requests_len, pair.worker.requests_len) == (0, 0)


def test_attempts_are_counted_over_engine_processes() -> None:
    pair = Pair("http://a", "http://b", "http://c", attempts_max=2)
    pair.submit(body())
    assert attempt(pair.fails(_core.FAILURE_RESET, sent=True)) == 2
    assert pair.replace("http://a", "http://b", "http://c", attempts_max=2) == []
    assert code(pair.fails(_core.FAILURE_RESET, sent=True)) == "upstream_reset"
    pair = Pair("http://a", "http://b", "http://c", attempts_max=2)
    pair.submit(body())
    pair.worker.lost()
    pair.worker.retry(pair.request, _core.FAILURE_RESET, True, 9)
    assert attempt(pair.replace("http://a", "http://b", "http://c", attempts_max=2)) == 2


def test_a_request_that_waits_between_attempts_is_submitted_with_those_it_has_had() -> None:
    pair = Pair("http://a", blind_outstanding_max=1, attempts_max=2)
    pair.submit(body())
    (held,) = pair.fails(_core.FAILURE_FULL, sent=True)
    assert isinstance(held, Hold)
    assert attempt(pair.replace("http://b", attempts_max=2)) == 1, "nothing was begun before"


def test_a_request_that_the_engine_process_does_not_know_is_decided_on_all_the_same() -> None:
    pair = Pair("http://a", "http://b")
    pair.submit(body())
    assert pair.replace("http://b") == [], "its replica is not known here, and it goes on there"
    assert attempt(pair.fails(_core.FAILURE_RESET, sent=True)) == 2


def test_a_request_that_fails_while_it_crosses_is_submitted_again_once() -> None:
    """The next engine process knows neither the request nor its failure, and says so of both."""
    pair = Pair("http://a", "http://b")
    pair.submit(body())
    pair.worker.lost()
    pair.engine = engine_process(["http://b"])
    pair.names = {1: "http://b"}
    pair.worker.joined()
    pair.worker.submit_again(1 << 20, 50)
    mail = pair.worker.take_mail(pair.recorder)
    pair.worker.retry(pair.request, _core.FAILURE_RESET, True, 60)
    for data in (mail, pair.worker.take_mail(pair.recorder)):
        _, _, fault = pair.engine.serve(1, data, recorder(), 61)
        assert fault is None
    assert pair.worker.receive(pair.engine.take_mail(1)) == ([], None)
    assert attempt(pair.decided()) == 2
    pair.engine = engine_process(["http://b", "http://c"], attempts_max=5)
    pair.names = {1: "http://b", 2: "http://c"}
    assert attempt(pair.fails(_core.FAILURE_RESET, sent=True)) == 3, "and again for its next failure"
    assert pair.engine.requests_len == 1


def test_a_retry_of_what_was_forgotten_is_answered() -> None:
    for asked, expected in ((body(), Push), (body(store=True), Reject)):
        pair = Pair("http://a", "http://b")
        pair.submit(asked)
        pair.engine = engine_process(["http://a", "http://b"])  # the worker does not know
        (found,) = pair.fails(_core.FAILURE_RESET, sent=True)
        assert isinstance(found, expected)


def test_a_report_about_a_request_that_is_elsewhere_ends_it() -> None:
    """Both sides disagree: the request ends with an error, and does not hang."""
    pair = Pair("http://a", blind_outstanding_max=1)
    pair.submit(body())
    first = pair.request
    (held,) = pair.submit(body(), 2)
    assert isinstance(held, Hold)
    assert code(pair.fails(_core.FAILURE_RESET, sent=True)) == "engine_away"
    assert pair.engine.requests_len == 1
    pair.worker.complete(first, _core.OUTCOME_OK, None, 10)
    assert pair.decided() == []
    assert (pair.engine.requests_len, pair.engine.in_flight) == (0, 0)


def events(*texts: str) -> bytes:
    """A stream that has begun, with the ids of its tokens."""
    role = {"index": 0, "delta": {"role": "assistant"}}
    chunks: list[dict[str, object]] = [{**EVENT, "prompt_token_ids": [1, 2], "choices": [role]}]
    chunks += [
        {**EVENT, "choices": [{"index": 0, "delta": {"content": text}, "token_ids": [number]}]}
        for number, text in enumerate(texts)
    ]
    data = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + data


@pytest.mark.parametrize("dies", ["nobody", "before", "meanwhile", "forgets"])
def test_a_stream_goes_on_whoever_has_placed_it(dies: str) -> None:
    pair = Pair("http://a", "http://b")
    (push,) = pair.submit(body(ignore_eos=True))
    assert isinstance(push, Push)
    pair.request.edited(body(ignore_eos=True), False)
    relay = pair.request.relay(True)
    relay.feed(events("a", "b", "c"))
    pair.worker.first_byte(pair.request, relay, 5)
    assert pair.decided() == []
    if dies == "before":
        assert pair.replace("http://a", "http://b") == []
    if dies == "meanwhile":
        pair.worker.lost()
    if dies == "forgets":
        pair.engine = engine_process(["http://a", "http://b"])
    assert relay.keeps
    assert relay.refusal is None
    assert pair.request.continued(relay) is not None
    pair.worker.resume(pair.request, relay, _core.FAILURE_RESET, 9)
    found = pair.replace("http://a", "http://b") if dies == "meanwhile" else pair.decided()
    (again,) = found
    assert isinstance(again, Push)
    assert again.replica != push.replica, "the one that failed is not tried again"
    assert pair.engine.counters()["submitted"] == (0 if dies != "nobody" else 1)
    pair.worker.first_byte(pair.request, relay, 12)
    pair.worker.complete(pair.request, _core.OUTCOME_OK, relay, 13)
    assert pair.decided() == []
    assert (pair.engine.requests_len, pair.engine.in_flight) == (0, 0)


def test_what_becomes_of_requests_that_are_still_to_be_submitted_again_is_not_reported() -> None:
    pair = Pair("http://a", "http://b", blind_outstanding_max=8)
    asked = []
    for number in range(1, 5):
        pair.submit(body(stream=True), number)
        asked.append(pair.request)
    pair.worker.lost()
    pair.engine = engine_process(["http://a", "http://b"], blind_outstanding_max=8)
    pair.worker.joined()
    assert pair.worker.submit_again(1, 50), "one, and there are more"
    pair.decided()
    assert pair.engine.requests_len == 1
    relay = asked[2].relay(True)
    relay.feed(events("a"))
    pair.worker.complete(asked[1], _core.OUTCOME_OK, None, 51)
    pair.worker.first_byte(asked[2], relay, 51)
    pair.worker.retry(asked[3], _core.FAILURE_RESET, True, 51)
    assert pair.worker.mail_len == 0
    pair.request = asked[3]
    assert not pair.worker.submit_again(1 << 20, 52)
    assert attempt(pair.decided()) == 2, "the one that has failed meanwhile"
    assert pair.engine.requests_len == 3, "one has ended"


def test_what_can_be_read_before_a_fault_is_delivered() -> None:
    pair = Pair("http://a", "http://b")
    pair.request = request(head(length=len(body())), start_ns=3)
    pair.worker.submit(1, pair.request, body())
    mail = pair.worker.take_mail(pair.recorder)
    _, notes, fault = pair.engine.serve(1, mail + b"\xff\xff\xff\xff", recorder(), 4)
    assert (notes, fault) == ([], "a frame of 4294967295 bytes")
    assert pair.engine.in_flight == 1, "the request was placed"
    down = pair.engine.take_mail(1)
    effects, fault = pair.worker.receive(down + b"\x01\x00\x00\x00\xff")
    assert fault == "a malformed frame"
    assert [type(effect) for effect in effects] == [Placed, Push]


def test_a_report_may_come_in_any_pieces() -> None:
    pair = Pair("http://a")
    pair.request = request(head(length=len(body())), start_ns=3)
    pair.worker.submit(1, pair.request, body())
    pair.worker.tell(b"note")
    found: list[bytes] = []
    for byte in pair.worker.take_mail(pair.recorder):
        _, notes, fault = pair.engine.serve(1, bytes([byte]), recorder(), 4)
        assert fault is None
        found += notes
    assert (found, pair.engine.in_flight) == ([b"note"], 1)
    effects: list[object] = []
    for byte in pair.engine.take_mail(1):
        some, fault = pair.worker.receive(bytes([byte]))
        assert fault is None
        effects += some
    assert [type(effect) for effect in effects] == [Placed, Push]


@given(st.data())
def test_no_bytes_make_either_side_fail_otherwise_than_by_saying_so(data: st.DataObject) -> None:
    pair = Pair("http://a", "http://b")
    pair.request = request(head(length=len(body())), start_ns=3)
    pair.worker.submit(1, pair.request, body())
    pair.worker.tell(b"note")
    ups = bytearray(pair.worker.take_mail(pair.recorder))
    pair.engine.serve(1, bytes(ups), recorder(), 4)
    downs = bytearray(pair.engine.take_mail(1))
    for mail in (ups, downs):
        for at in data.draw(st.lists(st.integers(4, len(mail) - 1), max_size=4)):
            mail[at] = data.draw(st.integers(0, 255))
    pair.engine.serve(1, bytes(ups), recorder(), 5)
    pair.engine.check_invariants()
    effects, _ = pair.worker.receive(bytes(downs))
    kinds = (Placed, Push, Forward, Hold, Reject, Withdraw, Note, _core.Expire)
    assert all(isinstance(effect, kinds) for effect in effects)


def test_a_worker_that_has_no_request_of_a_number_takes_nothing_of_it() -> None:
    pair = Pair("http://a")
    pair.submit(body())
    pair.worker.complete(pair.request, _core.OUTCOME_OK, answered(), 5)
    assert pair.decided() == []
    assert pair.engine.requests_len == 0
