"""``/v1/responses``: text in, text out; the latest responses can be fetched and continued."""

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
    Stored,
    decide,
    named_event,
    quoted,
    render,
)

Json = dict[str, object]


class ResponsesBody(msgspec.Struct):
    """The fields of a responses request that change what a replica does."""

    input: str | list[Message]
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = False
    store: bool | None = True
    max_output_tokens: int | None = None
    previous_response_id: str | None = None
    cache_salt: str | None = None


_RESPONSES = msgspec.json.Decoder(ResponsesBody)


def responses(context: Context, body: bytes) -> Shape:
    """Reads a responses request.

    Raises:
        RefusedError: the request cannot be served.
        msgspec.MsgspecError: the body is not one.
    """
    request = _RESPONSES.decode(body)
    items = [Message("user", request.input)] if isinstance(request.input, str) else request.input
    text, answer = render([Message("system", request.instructions), *items])
    before = request.previous_response_id
    prompt = text if before is None else context.responses.get(before).text + text
    asked = Asked(
        request.model,
        request.max_output_tokens,
        stream=bool(request.stream),
        cache_salt=request.cache_salt,
    )
    call = decide(context.served, asked, prompt, answer)
    return _ResponsesShape(call, context, previous=before, store=request.store is not False)


class _ResponsesShape(Shape):
    """A response of one message of one text."""

    __slots__ = ("_context", "_id", "_previous", "_sequence", "_store")

    def __init__(self, call: Call, context: Context, *, previous: str | None, store: bool) -> None:
        super().__init__(call)
        self._context = context
        self._id = f"resp_{context.request_id}"
        self._previous = previous
        self._store = store
        self._sequence = 0

    def whole(self, cached: int) -> bytes:
        """A ``response``; it is remembered unless ``store`` is false."""
        body = orjson.dumps(self._response(self._status(), cached))
        if self._store:
            text = (self.call.prompt + self.call.answer).decode()
            self._context.responses.put(self._id, Stored(body, text))
        return body

    def error(self) -> bytes:
        """``response.failed`` behind the announcement, and the end of the framing."""
        error = {"code": "server_error", "message": errors.failed().message}
        failed = {**self._response("failed", None), "error": error}
        return self.preamble() + self._event("response.failed", response=failed) + b"0\r\n\r\n"

    def preamble(self) -> bytes:
        """``response.created`` and ``.in_progress``: vLLM sends them while the request still waits."""
        response = self._response("in_progress", None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def opening(self, cached: int) -> bytes:  # noqa: ARG002 - told at the end
        """The message and its one text begin."""
        return self._event(
            "response.output_item.added", output_index=0, item=self._item("in_progress", [])
        ) + self._event(
            "response.content_part.added",
            item_id=self._item_id,
            output_index=0,
            content_index=0,
            part=_part(""),
        )

    def token(self, index: int) -> bytes:
        """A ``response.output_text.delta`` with four bytes of text."""
        self._sequence += 1
        return named_event(
            b"response.output_text.delta",
            b'{"content_index":0,"delta":"%b","item_id":%b,"logprobs":[],"output_index":0,'
            b'"sequence_number":%d,"type":"response.output_text.delta"}'
            % (
                self.call.answer[4 * index : 4 * index + 4],
                quoted(self._item_id),
                self._sequence - 1,
            ),
        )

    def closing(self, cached: int) -> bytes:
        """Text, part, message and response end."""
        text = self.call.answer.decode()
        at: Json = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        done = self._event("response.output_text.done", **at, text=text, logprobs=[])
        done += self._event("response.content_part.done", **at, part=_part(text))
        done += self._event(
            "response.output_item.done", output_index=0, item=self._item("completed", [_part(text)])
        )
        response = orjson.loads(self.whole(cached))
        return done + self._event(f"response.{self._status()}", response=response) + LAST_CHUNK

    @property
    def _item_id(self) -> str:
        return f"msg_{self._context.request_id}"

    def _status(self) -> str:
        return "completed" if self.call.finish == "stop" else "incomplete"

    def _event(self, kind: str, **fields: object) -> bytes:
        data = orjson.dumps({**fields, "sequence_number": self._sequence, "type": kind})
        self._sequence += 1
        return named_event(kind.encode(), data)

    def _item(self, status: str, content: list[Json]) -> Json:
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _response(self, status: str, cached: int | None) -> Json:
        ended = status != "in_progress"
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._context.created,
            "model": self.call.model,
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": None,
            "metadata": None,
            "output": [self._item("completed", [_part(self.call.answer.decode())])] if ended else [],
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "background": False,
            "previous_response_id": self._previous,
            "usage": None if cached is None else self._usage(cached),
        }

    def _usage(self, cached: int) -> Json:
        call = self.call
        return {
            "input_tokens": call.prompt_tokens,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": call.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": call.prompt_tokens + call.tokens,
        }


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
