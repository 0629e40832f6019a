"""The Engine through Python: what the binding adds to the state machine, which Rust tests on its own."""

import json

import pytest

from skylb import _core
from skylb._core import (
    Engine,
    Expire,
    Head,
    Hold,
    Probe,
    Push,
    Reject,
    Request,
    RequestError,
    Tenant,
)
from skylb.config import EngineSettings
from tests.support import core
from tests.support.core import answered, head

SECRET = b"0123456789abcdef"
MS = 1_000_000


def settings(**changes: object) -> bytes:
    return json.dumps(EngineSettings().model_dump(mode="json") | changes).encode()


def body(text: str = "Why is the sky blue?", **more: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **more}).encode()


def submit(
    engine: Engine, request_id: int, body: bytes, now_ns: int, of: Head | None = None
) -> tuple[Request, tuple[object, ...]]:
    request = core.request(of, start_ns=now_ns)
    return request, engine.submit(request_id, request, body)


def blind_engine(**changes: object) -> Engine:
    """One replica without readable metrics, one request in flight allowed."""
    made = Engine(settings(blind_outstanding_max=1, **changes), SECRET, 1)
    assert made.set_replicas([(7, "http://a")], 1) == ()
    assert made.set_models(7, [("m", 4096)], False, 1) == (True, ())
    assert made.observe_failed(7, _core.PROBE_UNREADABLE, 1) == ()
    return made


def test_a_list_of_models_that_says_nothing_new_is_no_change() -> None:
    engine = blind_engine()
    assert engine.set_models(7, [("m", 4096)], False, 2) == (False, ())
    assert engine.set_models(7, [("m", 8192)], False, 2) == (True, ())
    assert engine.set_models(7, [("m", 8192)], True, 2) == (True, ())
    assert engine.hide_models(7, 2) == ()
    assert engine.set_models(7, [("m", 8192)], True, 2) == (True, ())
    assert engine.set_models(8, [("m", 4096)], False, 2) == (False, ()), "a replica that is not known"


def test_a_request_is_pushed_and_ends_and_calls_without_effects_share_one_empty_tuple() -> None:
    engine = blind_engine()
    request = core.request(start_ns=2)
    assert (request.id, request.model, request.stream, request.prompt_bytes) == (0, None, False, 0)
    effects = engine.submit(1, request, body(stream=True))
    assert (request.id, request.model, request.stream, request.retry_safe) == (1, "m", True, True)
    assert request.prompt_bytes > 0
    (push,) = effects
    assert isinstance(push, Push)
    assert (push.request_id, push.replica, push.attempt, push.match_blocks) == (1, 7, 1, 0)
    assert engine.in_flight == 1
    assert engine.first_byte(request, answered(), 3) is engine.complete(
        request, _core.OUTCOME_OK, answered(), 4
    )
    assert (engine.in_flight, engine.counters()["completed_ok"]) == (0, 1)
    engine.check_invariants()


def test_a_held_request_is_pushed_by_the_completion_of_another() -> None:
    engine = blind_engine()
    first, _ = submit(engine, 1, body(), 2)
    _, effects = submit(engine, 2, body(), 3)
    assert isinstance(effects[0], Hold)
    assert (effects[0].request_id, engine.hold_requests) == (2, 1)
    (push,) = engine.complete(first, _core.OUTCOME_CLIENT_LEFT, None, 4)
    assert isinstance(push, Push)
    assert push.request_id == 2


def test_a_deadline_that_passed_expires_in_tick() -> None:
    engine = blind_engine(hold_timeout_s=1.5)
    submit(engine, 1, body(), 2)
    submit(engine, 2, body(), 3)
    probe, *_ = engine.tick(engine.next_deadline_ns() or 0)
    assert isinstance(probe, Probe)
    deadline_ns = 1_500 * MS + 3
    assert (engine.next_deadline_ns() or 0) <= deadline_ns
    assert not any(isinstance(effect, Expire) for effect in engine.tick(deadline_ns - 1))
    expire, *_ = engine.tick(deadline_ns)
    assert isinstance(expire, Expire)
    assert expire.request_id == 2
    assert engine.hold_requests == 0


def test_a_failed_attempt_is_refused_with_what_the_client_reads() -> None:
    engine = blind_engine(attempts_max=1)
    request, _ = submit(engine, 1, body(), 2)
    (reject,) = engine.retry(request, _core.FAILURE_TIMEOUT, True, 3)
    assert isinstance(reject, Reject)
    assert (reject.request_id, reject.status, reject.code) == (1, 504, "upstream_timeout")
    assert reject.retry_after_s is None


def test_an_unknown_model_names_the_known_ones() -> None:
    engine = blind_engine()
    _, (reject,) = submit(engine, 1, body().replace(b'"m"', b'"other"'), 2)
    assert isinstance(reject, Reject)
    assert (reject.status, reject.code) == (404, "model_not_found")
    assert reject.message == "The model `other` does not exist. Known models: m."


def test_a_refused_body_leaves_nothing_behind() -> None:
    engine = blind_engine()
    with pytest.raises(RequestError) as refused:
        submit(engine, 1, b'{"model": "m", "model": "n"}', 2)
    assert refused.value.status == 400
    assert engine.counters()["submitted"] == 0
    assert engine.in_flight == 0


def test_a_stored_response_is_found_again_by_its_id() -> None:
    engine = blind_engine()
    of = head("/v1/responses")
    request, _ = submit(engine, 1, b'{"model": "m", "input": "hi"}', 2, of)
    answer = answered(b'{"id": "resp_1", "object": "response", "output": []}', of)
    engine.first_byte(request, answer, 3)
    engine.complete(request, _core.OUTCOME_OK, answer, 4)
    _, (push,) = submit(engine, 2, b"", 5, head("/v1/responses/resp_1", "GET"))
    assert isinstance(push, Push)
    assert push.replica == 7
    _, (reject,) = submit(engine, 3, b"", 6, head("/v1/responses/resp_2", "GET"))
    assert isinstance(reject, Reject)
    assert reject.status == 404


def test_usage_of_the_answer_is_counted() -> None:
    engine = blind_engine()
    request, _ = submit(engine, 1, body(), 2)
    details = b'"prompt_tokens_details": {"cached_tokens": 32}'
    answer = answered(b'{"usage": {"prompt_tokens": 40, "completion_tokens": 9, %b}}' % details)
    engine.first_byte(request, answer, 3)
    engine.complete(request, _core.OUTCOME_OK, answer, 4)
    (gauges,) = engine.gauges()
    assert (gauges.prompt_tokens_total, gauges.cached_tokens_total) == (40, 32)


def test_snapshots_and_gauges_agree() -> None:
    engine = blind_engine()
    (gauges,) = engine.gauges()
    assert (gauges.replica, gauges.name, gauges.ready, gauges.blind) == (7, "http://a", True, True)
    (probe,) = engine.tick(10 * MS)
    assert isinstance(probe, Probe)
    assert (probe.replica, engine.probed_state(7)) == (7, _core.PROBED_BLIND)
    page = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 2\n"
    snapshot = _core.scan_metrics(page, "vllm")
    assert engine.observe(7, snapshot, 10 * MS, 11 * MS) == ()
    (gauges,) = engine.gauges()
    assert engine.probed_state(7) == _core.PROBED_UP
    assert (gauges.blind, gauges.running, gauges.waiting, gauges.health) == (False, 3, 2, "up")
    assert engine.set_draining(7, True, 12 * MS) == ()
    assert engine.gauges()[0].draining
    assert not engine.ready()
    assert engine.models(Tenant.NOBODY) == []


def test_state_is_json_without_prompt_key_or_salt() -> None:
    engine = blind_engine()
    for request_id in (1, 2):
        submit(engine, request_id, body("canary " * 100, cache_salt="canary", user="canary"), 2)
    state = engine.state(3)
    assert b"canary" not in state
    parsed = json.loads(state)
    assert parsed["now_ns"] == 3
    assert parsed["replicas"][0]["in_flight"] == 1
    assert parsed["hold"]["requests"] == 1


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda engine: engine.retry(core.request(), 99, True, 2), "failure"),
        (lambda engine: engine.complete(core.request(), 4, None, 2), "outcome"),
        (lambda engine: engine.submit(1, core.request(), body()), "1"),
        (lambda _: Engine(settings(), b"short", 1), "secret"),
        (lambda engine: engine.set_peer_digest(b"short", 8192, 1, 1), "key"),
        (lambda engine: engine.written(1, 9), "kind"),
        (lambda engine: engine.merge_peer_digest(1, b"", 2), "unknown"),
        (lambda _: Engine(settings(hold_len_max=-1), SECRET, 1), "hold_len_max"),
        (lambda _: Engine(settings(surplus=1), SECRET, 1), "surplus"),
        (lambda _: Engine(b"{}", SECRET, 1), "policy"),
    ],
)
def test_what_does_not_fit_is_a_value_error_that_names_it(call: object, named: str) -> None:
    engine = blind_engine()
    submit(engine, 1, body(), 1)
    assert callable(call)
    with pytest.raises(ValueError, match=named):
        call(engine)
    engine.check_invariants()
