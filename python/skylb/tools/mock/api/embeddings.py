"""``/v1/embeddings``: vectors that depend on their texts alone."""

import base64
import struct
from hashlib import shake_128

import msgspec
import orjson

from skylb.tools.mock.api.common import Asked, Call, Context, Shape, decide

DIMENSIONS = 64

_UNIT = 1 / 32_768


class EmbeddingsBody(msgspec.Struct):
    """The fields of an embeddings request that change what a replica does."""

    input: str | list[str]
    model: str | None = None
    encoding_format: str = "float"
    cache_salt: str | None = None


_EMBEDDINGS = msgspec.json.Decoder(EmbeddingsBody)


def embeddings(context: Context, body: bytes) -> Shape:
    """Reads an embeddings request; all its inputs are prefilled as one prompt.

    Raises:
        RefusedError: the request cannot be served.
        msgspec.MsgspecError: the body is not one.
    """
    request = _EMBEDDINGS.decode(body)
    texts = [request.input] if isinstance(request.input, str) else request.input
    # The one token is the vector: it is there when the last prompt token is computed.
    asked = Asked(request.model, max_tokens=1, cache_salt=request.cache_salt)
    call = decide(context.served, asked, "".join(texts), None)
    return _EmbeddingsShape(call, context, texts, floats=request.encoding_format != "base64")


class _EmbeddingsShape(Shape):
    __slots__ = ("_context", "_floats", "_texts")

    def __init__(self, call: Call, context: Context, texts: list[str], *, floats: bool) -> None:
        super().__init__(call)
        self._context = context
        self._texts = texts
        self._floats = floats

    def whole(self, cached: int) -> bytes:  # noqa: ARG002 - embeddings do not report it
        """The list of vectors."""
        data = [
            {"index": index, "object": "embedding", "embedding": self._encoded(_vector(text))}
            for index, text in enumerate(self._texts)
        ]
        tokens = self.call.prompt_tokens
        return orjson.dumps(
            {
                "id": f"embd-{self._context.request_id}",
                "object": "list",
                "created": self._context.created,
                "model": self.call.model,
                "data": data,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
            }
        )

    def _encoded(self, vector: tuple[float, ...]) -> tuple[float, ...] | str:
        if self._floats:
            return vector
        return base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *vector)).decode()


def _vector(text: str) -> tuple[float, ...]:
    raw = shake_128(text.encode()).digest(2 * DIMENSIONS)
    return tuple(number * _UNIT for number in struct.unpack(f"<{DIMENSIONS}h", raw))
