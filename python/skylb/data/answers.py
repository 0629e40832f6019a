"""Responses that the balancer writes itself: refusals, `/v1/models`, `/workers`."""

import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus

import orjson

from skylb import _core
from skylb._core import Head, RequestError

REASONS = {status.value: status.phrase for status in HTTPStatus}

_STATUSES = {code: status for code, status, *_ in _core.errors()}

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = _OPENAI_TYPES | {413: "request_too_large", 503: "overloaded_error"}

Headers = tuple[tuple[str, str], ...]


def status_of(code: str) -> int:
    """The HTTP status of an error's code, as the table of errors has it.

    Raises:
        KeyError: the table has no such code.
    """
    return _STATUSES[code]


def error_body(code: str, message: str, *, param: str | None = None, anthropic: bool = False) -> bytes:
    """An error in the shape of the API that was asked.

    Args:
        code: stable word for programs, of the table of errors; its status decides ``type``.
        message: one sentence for people.
        param: the field at fault.
        anthropic: Anthropic's shape instead of OpenAI's.
    """
    status = status_of(code)
    types = _ANTHROPIC_TYPES if anthropic else _OPENAI_TYPES
    server = "api_error" if anthropic else "server_error"
    kind = types.get(status) or ("invalid_request_error" if status < 500 else server)
    if anthropic:
        return orjson.dumps({"type": "error", "error": {"type": kind, "message": message, "code": code}})
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def models_body(models: list[tuple[str, int | None]]) -> bytes:
    """The answer to ``GET /v1/models``."""
    return orjson.dumps({"object": "list", "data": [_model(name, length) for name, length in models]})


def model_body(name: str, models: list[tuple[str, int | None]]) -> bytes | None:
    """The answer to ``GET /v1/models/{name}``, ``None`` for a model nobody serves."""
    for known, length in models:
        if known == name:
            return orjson.dumps(_model(known, length))
    return None


def fleet_body(loads: Sequence[tuple[int, bool, int]]) -> bytes:
    """The answer to ``GET /workers``, in the shape of vllm-router and smg.

    It has no addresses and no models: whoever may ask here need not know them.
    """
    replicas = [
        {
            "id": str(number),
            "worker_type": "regular",
            "connection_mode": "http",
            "is_healthy": ready,
            "load": in_flight,
        }
        for number, ready, in_flight in loads
    ]
    stats = {"prefill_count": 0, "decode_count": 0, "regular_count": len(replicas)}
    return orjson.dumps({"workers": replicas, "total": len(replicas), "stats": stats})


def _model(name: str, length: int | None) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "skylb", "max_model_len": length}


def response(  # the parts of one response, by keyword at every call
    *,
    status: int,
    body: bytes,
    request_id: str,
    close: bool,
    is_head: bool = False,
    retry_after_s: int | None = None,
    headers: Headers = (),
) -> bytes:
    """A whole response of our own, ``application/json`` where it has a body."""
    lines = [
        f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}",
        f"Date: {formatdate(time.time(), usegmt=True)}",
        f"X-Request-Id: {request_id}",
        f"Connection: {'close' if close else 'keep-alive'}",
    ]
    if status != 204:
        lines.append(f"Content-Length: {len(body)}")
    if body:
        lines.append("Content-Type: application/json")
    if retry_after_s is not None:
        lines.append(f"Retry-After: {retry_after_s}")
    lines.extend(f"{name}: {value}" for name, value in headers)
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if is_head else head + body


def fields_of(lines: bytes | None) -> Headers:
    """Header lines, each with its CR LF, as names and values."""
    if not lines:
        return ()
    pairs = (line.partition(": ") for line in lines.decode("latin-1").splitlines())
    return tuple((name, value) for name, _, value in pairs)


def stream_head(request_id: str, headers: Headers = ()) -> bytes:
    """The head of a stream of events, up to where the fields of its framing go."""
    lines = [
        "HTTP/1.1 200 OK",
        f"Date: {formatdate(time.time(), usegmt=True)}",
        "Content-Type: text/event-stream; charset=utf-8",
        "Cache-Control: no-cache",
        f"X-Request-Id: {request_id}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")


def refused(
    error: RequestError,
    head: Head | None,
    *,
    request_id: str,
    close: bool,
    retry_after_s: int,
    headers: Headers = (),
) -> bytes:
    """The answer to a request that has no exchange.

    Args:
        error: why.
        head: of the request, where it could be read.
        request_id: of the request.
        close: the connection closes behind it.
        retry_after_s: goes with a 503.
        headers: further fields.
    """
    if error.allow:
        headers = (*headers, ("Allow", error.allow))
    if error.status == 401:
        headers = (*headers, ("WWW-Authenticate", "Bearer"))
    anthropic = head is not None and head.anthropic
    return response(
        status=error.status,
        body=error_body(error.code, error.message, param=error.param, anthropic=anthropic),
        request_id=request_id,
        close=close,
        is_head=head is not None and head.is_head,
        retry_after_s=retry_after_s if error.status == 503 else None,
        headers=headers,
    )


def refusal(code: str, message: str) -> RequestError:
    """An error that closes the connection."""
    error = RequestError(message)
    error.status, error.code, error.message = status_of(code), code, message
    error.param, error.close, error.allow = None, True, None
    return error
