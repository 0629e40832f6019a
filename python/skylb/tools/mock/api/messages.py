"""``/v1/messages``: Anthropic's API."""

import msgspec

from skylb.tools.mock import errors
from skylb.tools.mock.api.common import (
    LAST_CHUNK,
    Asked,
    Call,
    Context,
    Message,
    Shape,
    Text,
    decide,
    named_event,
    quoted,
    render,
)
from skylb.tools.synthetic import token_count

_STOP_REASONS = {"stop": b"end_turn", "length": b"max_tokens"}
_BLOCK_START = named_event(
    b"content_block_start",
    b'{"type":"content_block_start","content_block":{"type":"text","text":""},"index":0}',
)
_BLOCK_STOP = named_event(b"content_block_stop", b'{"type":"content_block_stop","index":0}')
_MESSAGE_STOP = named_event(b"message_stop", b'{"type":"message_stop"}')


class MessagesBody(msgspec.Struct):
    """The fields of a message request that change what a replica does."""

    messages: list[Message]
    max_tokens: int | None = None
    model: str | None = None
    system: str | list[Text] | None = None
    stream: bool | None = False
    cache_salt: str | None = None


_MESSAGES = msgspec.json.Decoder(MessagesBody)


def messages(context: Context, body: bytes) -> Shape:
    """Reads a message request.

    Raises:
        RefusedError: the request cannot be served.
        msgspec.MsgspecError: the body is not one.
    """
    request = _MESSAGES.decode(body)
    prompt, answer = render([Message("system", request.system), *request.messages])
    asked = Asked(
        request.model, request.max_tokens, stream=bool(request.stream), cache_salt=request.cache_salt
    )
    call = decide(context.served, asked, prompt, answer)
    return _MessagesShape(call, context)


def count_tokens(body: bytes) -> int:
    """Tokens of the prompt of a message request; raises like ``messages``."""
    request = _MESSAGES.decode(body)
    prompt, _ = render([Message("system", request.system), *request.messages])
    return token_count(len(prompt.encode()))


def usage(call: Call, cached: int, tokens: int) -> bytes:
    """Anthropic's ``usage``: ``input_tokens`` without the cached ones."""
    return b'{"input_tokens":%d,"output_tokens":%d,"cache_read_input_tokens":%d}' % (
        call.prompt_tokens - cached,
        tokens,
        cached,
    )


class _MessagesShape(Shape):
    """An Anthropic message."""

    __slots__ = ("_id", "_model", "_stop")

    def __init__(self, call: Call, context: Context) -> None:
        super().__init__(call)
        self._id = quoted(f"chatcmpl-{context.request_id}")
        self._model = quoted(call.model)
        self._stop = _STOP_REASONS[call.finish]

    def whole(self, cached: int) -> bytes:
        """A ``message``."""
        call = self.call
        return (
            b'{"id":%b,"type":"message","role":"assistant","content":[{"type":"text","text":"%b"}],'
            b'"model":%b,"stop_reason":"%b","usage":%b}'
        ) % (self._id, call.answer, self._model, self._stop, usage(call, cached, call.tokens))

    def opening(self, cached: int) -> bytes:
        """``message_start`` and the start of the one content block."""
        data = (
            b'{"type":"message_start","message":{"id":%b,"content":[],"model":%b,"type":"message",'
            b'"role":"assistant","stop_reason":null,"stop_sequence":null,"usage":%b}}'
        ) % (self._id, self._model, usage(self.call, cached, 0))
        return named_event(b"message_start", data) + _BLOCK_START

    def error(self) -> bytes:
        """An ``error``, and the end of the framing."""
        return named_event(b"error", errors.failed().body(anthropic=True)) + b"0\r\n\r\n"

    def token(self, index: int) -> bytes:
        """A ``content_block_delta`` with four bytes of text."""
        return named_event(
            b"content_block_delta",
            b'{"type":"content_block_delta","delta":{"type":"text_delta","text":"%b"},"index":0}'
            % self.call.answer[4 * index : 4 * index + 4],
        )

    def closing(self, cached: int) -> bytes:
        """The end of block and message, with the usage between them."""
        data = b'{"type":"message_delta","delta":{"stop_reason":"%b","stop_sequence":null},"usage":%b}' % (
            self._stop,
            usage(self.call, cached, self.call.tokens),
        )
        return _BLOCK_STOP + named_event(b"message_delta", data) + _MESSAGE_STOP + LAST_CHUNK
