"""The Engine through Python: what the binding adds to the state machine, which Rust tests on its own."""

import json

import pytest

from skylb import _core
from skylb._core import Engine, Expire, Head, HeadParser, Hold, Push, Reject, Relay, RequestError
from skylb.config import EngineSettings

SECRET = b"0123456789abcdef"
MS = 1_000_000


def settings(**changes: object) -> bytes:
    return json.dumps(EngineSettings().model_dump(mode="json") | changes).encode()


def head(path: str = "/v1/chat/completions", method: str = "POST") -> Head:
    text = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    text += "Content-Length: 2\r\n\r\n" if method == "POST" else "\r\n"
    parsed = HeadParser().parse(text.encode())
    assert parsed is not None
    return parsed


def body(text: str = "Why is the sky blue?", **more: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **more}).encode()


def relay(answer: bytes = b"{}") -> Relay:
    made = Relay(True, True, False, "r", False, False, True)
    made.feed(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(answer), answer)
    )
    return made


def blind_engine(**changes: object) -> Engine:
    """One replica without readable metrics, one request in flight allowed."""
    made = Engine(settings(blind_outstanding_max=1, **changes), SECRET, 1)
    assert made.set_replicas([(7, "http://a")], 1) == ()
    assert made.set_models(7, [("m", 4096)], 1) == ()
    assert made.observe_failed(7, _core.PROBE_UNREADABLE, 1) == ()
    return made


def test_a_request_is_pushed_and_ends_and_calls_without_effects_share_one_empty_tuple() -> None:
    engine = blind_engine()
    digest, effects = engine.submit(1, head(), body(stream=True), 2)
    assert (digest.model, digest.stream, digest.retry_safe) == ("m", True, True)
    assert digest.prompt_bytes > 0
    (push,) = effects
    assert isinstance(push, Push)
    assert (push.request_id, push.replica, push.attempt, push.match_blocks) == (1, 7, 1, 0)
    assert engine.in_flight == 1
    assert engine.first_byte(1, relay(), 3) is engine.complete(1, _core.OUTCOME_OK, relay(), 4)
    assert (engine.in_flight, engine.counters()["completed_ok"]) == (0, 1)
    engine.check_invariants()


def test_a_held_request_is_pushed_by_the_completion_of_another() -> None:
    engine = blind_engine()
    engine.submit(1, head(), body(), 2)
    _, effects = engine.submit(2, head(), body(), 3)
    assert isinstance(effects[0], Hold)
    assert (effects[0].request_id, engine.hold_requests) == (2, 1)
    (push,) = engine.complete(1, _core.OUTCOME_CLIENT_LEFT, None, 4)
    assert isinstance(push, Push)
    assert push.request_id == 2


def test_a_deadline_that_passed_expires_in_tick() -> None:
    engine = blind_engine(hold_timeout_s=1.5)
    engine.submit(1, head(), body(), 2)
    engine.submit(2, head(), body(), 3)
    deadline_ns = engine.next_deadline_ns()
    assert deadline_ns == 1_500 * MS + 3
    (expire,) = engine.tick(deadline_ns)
    assert isinstance(expire, Expire)
    assert expire.request_id == 2
    assert engine.next_deadline_ns() is None or engine.hold_requests == 0


def test_a_failed_attempt_is_refused_with_what_the_client_reads() -> None:
    engine = blind_engine(attempts_max=1)
    engine.submit(1, head(), body(), 2)
    (reject,) = engine.retry(1, _core.FAILURE_TIMEOUT, True, 3)
    assert isinstance(reject, Reject)
    assert (reject.request_id, reject.status, reject.code) == (1, 504, "upstream_timeout")
    assert reject.retry_after_s is None


def test_an_unknown_model_names_the_known_ones() -> None:
    engine = blind_engine()
    _, (reject,) = engine.submit(1, head(), body().replace(b'"m"', b'"other"'), 2)
    assert isinstance(reject, Reject)
    assert (reject.status, reject.code) == (404, "model_not_found")
    assert reject.message == "The model `other` does not exist. Known models: m."


def test_a_refused_body_leaves_nothing_behind() -> None:
    engine = blind_engine()
    with pytest.raises(RequestError) as refused:
        engine.submit(1, head(), b'{"model": "m", "model": "n"}', 2)
    assert refused.value.status == 400
    assert engine.counters()["submitted"] == 0
    assert engine.in_flight == 0


def test_a_stored_response_is_found_again_by_its_id() -> None:
    engine = blind_engine()
    engine.submit(1, head("/v1/responses"), b'{"model": "m", "input": "hi"}', 2)
    answer = relay(b'{"id": "resp_1", "object": "response", "output": []}')
    engine.first_byte(1, answer, 3)
    engine.complete(1, _core.OUTCOME_OK, answer, 4)
    _, (push,) = engine.submit(2, head("/v1/responses/resp_1", "GET"), b"", 5)
    assert isinstance(push, Push)
    assert push.replica == 7
    _, (reject,) = engine.submit(3, head("/v1/responses/resp_2", "GET"), b"", 6)
    assert isinstance(reject, Reject)
    assert reject.status == 404


def test_usage_of_the_answer_is_counted() -> None:
    engine = blind_engine()
    engine.submit(1, head(), body(), 2)
    details = b'"prompt_tokens_details": {"cached_tokens": 32}'
    answer = relay(b'{"usage": {"prompt_tokens": 40, "completion_tokens": 9, %b}}' % details)
    engine.first_byte(1, answer, 3)
    engine.complete(1, _core.OUTCOME_OK, answer, 4)
    (gauges,) = engine.gauges()
    assert (gauges.prompt_tokens_total, gauges.cached_tokens_total) == (40, 32)


def test_snapshots_and_gauges_agree() -> None:
    engine = blind_engine()
    (gauges,) = engine.gauges()
    assert (gauges.replica, gauges.name, gauges.ready, gauges.blind) == (7, "http://a", True, True)
    assert engine.probes_due(10 * MS) == [7]
    page = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 2\n"
    snapshot = _core.scan_metrics(page, _core.DIALECT_VLLM)
    assert engine.observe(7, snapshot, 10 * MS, 11 * MS) == ()
    (gauges,) = engine.gauges()
    assert (gauges.blind, gauges.running, gauges.waiting, gauges.health) == (False, 3, 2, "up")
    assert engine.set_draining(7, True, 12 * MS) == ()
    assert engine.gauges()[0].draining
    assert not engine.ready()
    assert engine.models() == []


def test_state_is_json_without_prompt_key_or_salt() -> None:
    engine = blind_engine()
    for request_id in (1, 2):
        engine.submit(request_id, head(), body("canary " * 100, cache_salt="canary", user="canary"), 2)
    state = engine.state(3)
    assert b"canary" not in state
    parsed = json.loads(state)
    assert parsed["replicas"][0]["in_flight"] == 1
    assert parsed["hold"]["requests"] == 1


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda engine: engine.retry(1, 99, True, 2), "failure"),
        (lambda engine: engine.complete(1, 3, None, 2), "outcome"),
        (lambda engine: engine.submit(1, head(), body(), 2), "1"),
        (lambda _: Engine(settings(), b"short", 1), "secret"),
        (lambda engine: engine.set_peer_digest(b"short", 8192, 1, 1), "key"),
        (lambda engine: engine.peer_digest(1, 2), "digest"),
        (lambda engine: engine.merge_peer_digest(1, b"", 2), "unknown"),
        (lambda _: Engine(settings(hold_len_max=-1), SECRET, 1), "hold_len_max"),
        (lambda _: Engine(settings(surplus=1), SECRET, 1), "surplus"),
        (lambda _: Engine(b"{}", SECRET, 1), "policy"),
    ],
)
def test_what_does_not_fit_is_a_value_error_that_names_it(call: object, named: str) -> None:
    engine = blind_engine()
    engine.submit(1, head(), body(), 1)
    assert callable(call)
    with pytest.raises(ValueError, match=named):
        call(engine)
    engine.check_invariants()
