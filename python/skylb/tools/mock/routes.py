"""Everything that is not inference: models, health, load, metrics, tokens, and the mock's own verbs."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

import msgspec
import orjson
from pydantic import ValidationError

from skylb.tools.mock.api import count_tokens
from skylb.tools.mock.api.common import Message, render
from skylb.tools.mock.api.ids import PROMPT_ENDS, of_prompt, of_text
from skylb.tools.mock.errors import RefusedError, UnauthorizedError
from skylb.tools.mock.faults import Faults
from skylb.tools.mock.metrics import MetricsPage
from skylb.tools.mock.replica import MockReplica
from skylb.tools.synthetic import TOKEN_BYTES, token_count

JSON = b"application/json"
PROMETHEUS = b"text/plain; version=1.0.0; charset=utf-8"
VERSION = "0.32.0"
"""The vLLM whose answers these are."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A small response."""

    body: bytes = b""
    content_type: bytes = JSON
    status: int = HTTPStatus.OK


@dataclass(frozen=True, slots=True)
class Guard:
    """What ``--api-key`` asks for."""

    keys: tuple[str, ...]
    prefixes: tuple[str, ...]


class Routes:
    """The routes of one replica."""

    def __init__(self, replica: MockReplica, metrics_bytes: int, guard: Guard | None = None) -> None:
        self._replica = replica
        self._guard = guard
        self._page = MetricsPage(replica, metrics_bytes)
        self._handlers: dict[tuple[str, str], Callable[[bytes], Reply]] = {
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("POST", "/ping"): self._health,
            ("GET", "/version"): lambda _: _json({"version": VERSION}),
            ("GET", "/v1/models"): self._models,
            ("GET", "/metrics"): lambda _: self._metrics(),
            ("GET", "/load"): lambda _: _json({"server_load": replica.in_flight}),
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
            ("POST", "/v1/messages/count_tokens"): lambda body: _json({"input_tokens": count_tokens(body)}),
            ("POST", "/reset_prefix_cache"): self._reset,
            ("GET", "/mock/faults"): lambda _: _json(replica.faults.model_dump()),
            ("POST", "/mock/faults"): self._set_faults,
            ("GET", "/mock/state"): self._state,
        }

    def check_key(self, path: str, key: str | None) -> None:
        """Lets a request pass, or not.

        Raises:
            UnauthorizedError: the path is guarded, and this is none of the keys.
        """
        guard = self._guard
        if guard is not None and path.startswith(guard.prefixes) and key not in guard.keys:
            raise UnauthorizedError

    def answer(self, method: str, path: str, query: str, body: bytes) -> Reply:
        """Answers one request.

        Raises:
            RefusedError: 404, 405, or 400 for a body that is not what the route takes.
        """
        handler = self._handlers.get((method, path))
        if handler is not None:
            return handler(body)
        if path == "/metrics/" and method == "GET":
            return self._metrics(frozenset(parse_qs(query).get("name[]", ())))
        if path.startswith("/v1/responses/"):
            return self._response(method, path)
        if any(known == path for _, known in self._handlers):
            raise RefusedError(405, "Method Not Allowed")
        raise RefusedError(404, "Not Found")

    def _health(self, _: bytes) -> Reply:
        return Reply(status=self._replica.faults.health_status)

    def _models(self, _: bytes) -> Reply:
        served = self._replica.served
        base = served.names[0]
        cards: list[dict[str, object]] = [
            {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": "vllm",
                "root": name,
                "parent": None if name == base else base,
                "max_model_len": served.max_model_len if name == base else None,
                "permission": [],
            }
            for name in served.names
        ]
        return _json({"object": "list", "data": cards})

    def _metrics(self, names: frozenset[str] = frozenset()) -> Reply:
        """The page; with names, which vLLM takes at ``/metrics/`` only, those metrics and no others."""
        faults = self._replica.faults
        status = faults.metrics_names_status if names else faults.metrics_status
        if status != HTTPStatus.OK:
            return Reply(status=status)
        self._replica.totals.pages += 1
        return Reply(self._page.render(names), PROMETHEUS)

    def _check_tokenizer(self) -> None:
        status = self._replica.faults.tokenize_status
        if status != HTTPStatus.OK:
            raise RefusedError(status, "The tokenizer does not answer.")

    def _detokenize(self, body: bytes) -> Reply:
        self._check_tokenizer()
        return _detokenize(body)

    def _tokenize(self, body: bytes) -> Reply:
        self._check_tokenizer()
        request = msgspec.json.decode(body, type=_TokenizeBody)
        prompt, answer = render(request.messages or [Message("user", request.prompt)])
        encoded = prompt.encode()
        # Only of a chat it is known that its prompt ends here.
        tokens = of_prompt(encoded, answer) if request.messages and encoded else of_text(encoded)
        return _json(
            {
                "count": token_count(len(encoded)),
                "max_model_len": self._replica.served.max_model_len,
                "tokens": tokens,
                "token_strs": None,
            }
        )

    def _reset(self, _: bytes) -> Reply:
        self._replica.model.reset_prefix_cache()
        return Reply()

    def _response(self, method: str, path: str) -> Reply:
        response_id, _, verb = path.removeprefix("/v1/responses/").partition("/")
        stored = self._replica.responses.get(response_id)
        if method == "GET" and not verb:
            return Reply(stored.body)
        if method == "POST" and verb == "cancel":
            raise RefusedError(400, "Cannot cancel a synchronous response.")
        raise RefusedError(404, "Not Found")

    def _set_faults(self, body: bytes) -> Reply:
        """Changes the fields that the body names; the others stay."""
        replica = self._replica
        try:
            changes = orjson.loads(body)
            if not isinstance(changes, dict):
                raise RefusedError(400, "expected an object")
            replica.set_faults(Faults.model_validate({**replica.faults.model_dump(), **changes}))
        except (orjson.JSONDecodeError, ValidationError) as error:
            raise RefusedError(400, str(error)) from error
        return _json(replica.faults.model_dump())

    def _state(self, _: bytes) -> Reply:
        """The truth at this moment, where ``/metrics`` tells that of the last step."""
        model = self._replica.model
        return _json(
            {
                "in_flight": self._replica.in_flight,
                "running": model.running,
                "waiting": model.waiting,
                "kv_usage": model.kv_usage,
                "cache_queries": model.cache_queries,
                "cache_hits": model.cache_hits,
                "preemptions": model.preemptions,
                "prefill_tokens": model.prefill_tokens,
                "output_tokens": model.output_tokens,
                "steps": model.steps,
                "ended": self._replica.totals.ended,
                "rejected": self._replica.totals.rejected,
                "behind": self._replica.totals.behind,
                "pages": self._replica.totals.pages,
            }
        )


class _TokenizeBody(msgspec.Struct):
    prompt: str = ""
    messages: list[Message] = []


class _DetokenizeBody(msgspec.Struct):
    tokens: list[int]


def _detokenize(body: bytes) -> Reply:
    """The text of tokens that ``/tokenize`` gave; the last may be shorter than the others."""
    tokens = [token & ~PROMPT_ENDS for token in msgspec.json.decode(body, type=_DetokenizeBody).tokens]
    try:
        encoded = b"".join(token.to_bytes(TOKEN_BYTES, "big").lstrip(b"\0") for token in tokens)
    except OverflowError as error:
        raise RefusedError(400, f"expected tokens of {TOKEN_BYTES} bytes", param="tokens") from error
    return _json({"prompt": encoded.decode(errors="replace")})


def _json(value: object) -> Reply:
    return Reply(orjson.dumps(value))
