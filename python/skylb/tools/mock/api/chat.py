"""``/v1/chat/completions`` and ``/v1/completions``."""

import msgspec
import orjson

from skylb.tools.mock import errors
from skylb.tools.mock.api.common import (
    LAST_CHUNK,
    Asked,
    Call,
    Context,
    Message,
    Shape,
    StreamOptions,
    decide,
    directed,
    event,
    quoted,
    render,
)
from skylb.tools.mock.api.ids import Given, of_text, take_apart

DONE = event(b"[DONE]")

COMPLETION_TOKENS = 16
"""Tokens of a completion whose ``max_tokens`` is missing or null, as in vLLM."""


class ChatBody(msgspec.Struct):
    """The fields of a chat completion that change what a replica does."""

    messages: list[Message]
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    n: int | None = 1
    cache_salt: str | None = None
    return_token_ids: bool | None = None


class CompletionBody(msgspec.Struct):
    """The fields of a completion that change what a replica does."""

    prompt: str | list[int | str]
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    n: int | None = 1
    cache_salt: str | None = None
    return_token_ids: bool | None = None


_CHAT = msgspec.json.Decoder(ChatBody)
_COMPLETION = msgspec.json.Decoder(CompletionBody)


def chat(context: Context, body: bytes) -> Shape:
    """Reads a chat completion.

    Raises:
        RefusedError: the request cannot be served.
        msgspec.MsgspecError: the body is not one.
    """
    request = _CHAT.decode(body)
    prompt, answer = render(request.messages)
    _one_choice(request.n)
    max_tokens = request.max_completion_tokens
    asked = _asked(request, request.max_tokens if max_tokens is None else max_tokens)
    call = decide(context.served, asked, prompt, answer)
    return _ChatShape(call, context)


def completion(context: Context, body: bytes) -> Shape:
    """Reads a completion; raises like ``chat``."""
    request = _COMPLETION.decode(body)
    _one_choice(request.n)
    given = _one_prompt(request.prompt)
    prompt, answer = directed(given.text)
    max_tokens = COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens
    asked = _asked(request, max_tokens)
    asked.given = given.answer
    call = decide(context.served, asked, prompt, answer)
    return _CompletionShape(call, context)


def _asked(request: ChatBody | CompletionBody, max_tokens: int | None) -> Asked:
    options = request.stream_options
    return Asked(
        request.model,
        max_tokens,
        request.min_tokens,
        request.ignore_eos,
        bool(request.stream),
        options is not None and bool(options.include_usage),
        request.cache_salt,
        tells_ids=bool(request.return_token_ids),
    )


def _one_choice(n: int | None) -> None:
    if n not in {None, 1}:
        raise errors.RefusedError(400, "This replica makes one choice per request.", param="n")


def _one_prompt(prompt: str | list[int | str]) -> Given:
    if isinstance(prompt, str):
        return Given(prompt, b"")
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return Given(prompt[0], b"")
    tokens = [token for token in prompt if isinstance(token, int)]
    if tokens and len(tokens) == len(prompt):
        return take_apart(tokens)
    raise errors.RefusedError(400, "This replica takes one prompt, as text or as tokens.", param="prompt")


def _told(ids: list[int] | None) -> bytes:
    return b"null" if ids is None else orjson.dumps(ids)


def usage(call: Call, cached: int) -> bytes:
    """OpenAI's ``usage``."""
    return (
        b'{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,'
        b'"prompt_tokens_details":{"cached_tokens":%d}}'
    ) % (call.prompt_tokens, call.prompt_tokens + call.tokens, call.tokens, cached)


class _EventShape(Shape):
    """What both shapes share; a token's event is two constants around its four bytes."""

    __slots__ = ("_after", "_before", "_created", "_data", "_end", "_head", "_id", "_last", "_model")

    def __init__(self, call: Call, context: Context, prefix: str) -> None:
        super().__init__(call)
        self._id = quoted(f"{prefix}-{context.request_id}")
        self._created = context.created
        self._model = quoted(call.model)

    def _parts(self, cached: int) -> tuple[bytes, int, bytes, bytes, bytes, bytes]:
        """What a whole answer is filled with: id, time, model, text, finish reason and usage."""
        call = self.call
        finish = call.finish.encode()
        return self._id, self._created, self._model, call.answer, finish, usage(call, cached)

    def _prepare(self, kind: bytes, before: bytes, after: bytes) -> None:
        """Makes the constants; ``after`` has places for the reasons of the end, and for ids."""
        call = self.call
        self._head = b'{"id":%b,"object":"%b","created":%d,"model":%b,' % (
            self._id,
            kind,
            self._created,
            self._model,
        )
        reason = b'"%b","stop_reason":null' % call.finish.encode()
        self._data = data = self._head + before
        self._end = after
        self._last = self._event(call.answer[-4:], reason)
        end = after % (b"null", b"null")
        self._before = b"%x\r\ndata: %b" % (len(data) + 4 + len(end) + 8, data)
        self._after = end + b"\n\n\r\n"

    def _event(self, text: bytes, reason: bytes) -> bytes:
        told = None if self.call.prompt_ids is None else of_text(text)
        return event(self._data + text + self._end % (reason, _told(told)))

    def token(self, index: int) -> bytes:
        """``data: {...}`` with four bytes of text."""
        call = self.call
        if index == call.tokens - 1:
            return self._last
        if call.prompt_ids is not None:
            return self._event(call.answer[4 * index : 4 * index + 4], b"null")
        return self._before + call.answer[4 * index : 4 * index + 4] + self._after

    def closing(self, cached: int) -> bytes:
        """The usage, where it was asked for, and ``[DONE]``."""
        if not self.call.include_usage:
            return DONE + LAST_CHUNK
        data = b'%b"choices":[],"usage":%b}' % (self._head, usage(self.call, cached))
        return event(data) + DONE + LAST_CHUNK


class _ChatShape(_EventShape):
    """A chat completion."""

    __slots__ = ()

    def __init__(self, call: Call, context: Context) -> None:
        super().__init__(call, context, "chatcmpl")

    def whole(self, cached: int) -> bytes:
        """A ``chat.completion``."""
        return (
            b'{"id":%b,"object":"chat.completion","created":%d,"model":%b,"choices":[{"index":0,'
            b'"message":{"role":"assistant","content":"%b","refusal":null,"annotations":null,'
            b'"audio":null,"function_call":null,"tool_calls":[],"reasoning":null},"logprobs":null,'
            b'"finish_reason":"%b","stop_reason":null,"token_ids":null}],"service_tier":null,'
            b'"system_fingerprint":null,"usage":%b,"prompt_logprobs":null,"prompt_token_ids":null,'
            b'"kv_transfer_params":null}'
        ) % self._parts(cached)

    def opening(self, cached: int) -> bytes:  # noqa: ARG002 - the role does not depend on it
        """The chunk with the role, which vLLM sends along with the first token's."""
        self._prepare(
            b"chat.completion.chunk",
            b'"choices":[{"index":0,"delta":{"content":"',
            b'"},"logprobs":null,"finish_reason":%b,"token_ids":%b}]}',
        )
        return event(
            self._head
            + b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
            + b'"finish_reason":null}],"prompt_token_ids":%b}' % _told(self.call.prompt_ids)
        )


class _CompletionShape(_EventShape):
    """A completion."""

    __slots__ = ()

    def __init__(self, call: Call, context: Context) -> None:
        super().__init__(call, context, "cmpl")

    def whole(self, cached: int) -> bytes:
        """A ``text_completion``."""
        return (
            b'{"id":%b,"object":"text_completion","created":%d,"model":%b,"choices":[{"index":0,'
            b'"text":"%b","logprobs":null,"finish_reason":"%b","stop_reason":null,"token_ids":null,'
            b'"prompt_logprobs":null,"prompt_token_ids":null}],"service_tier":null,'
            b'"system_fingerprint":null,"usage":%b,"kv_transfer_params":null}'
        ) % self._parts(cached)

    def opening(self, cached: int) -> bytes:  # noqa: ARG002 - nothing is told before the first token
        """Nothing: there is no role."""
        self._prepare(
            b"text_completion",
            b'"choices":[{"index":0,"text":"',
            b'","logprobs":null,"finish_reason":%b,"token_ids":%b}]}',
        )
        return b""

    def token(self, index: int) -> bytes:
        """As the others'; the first tells the ids of the prompt, where they are asked for."""
        call = self.call
        if index > 0 or call.prompt_ids is None:
            return super().token(index)
        text = call.answer[:4]
        reason = b'"%b","stop_reason":null' % call.finish.encode() if call.tokens == 1 else b"null"
        end = self._end % (reason, _told(of_text(text)))
        ids = b'"prompt_token_ids":%b,"token_ids":' % _told(call.prompt_ids)
        return event(self._data + text + end.replace(b'"token_ids":', ids))
