"""``/v1/rerank``, ``/v1/score``, ``/classify`` and ``/pooling``: figures that depend on their texts alone."""

from collections.abc import Callable
from hashlib import shake_128

import msgspec
import orjson

from skylb.tools.mock import errors
from skylb.tools.mock.api.common import Asked, Call, Context, Shape, decide

Texts = str | list[str]
Answerer = Callable[["_PooledShape"], dict[str, object]]

_UNIT = 1 / 65_536


class _Body(msgspec.Struct, kw_only=True):
    model: str | None = None
    cache_salt: str | None = None


class _RerankBody(_Body):
    query: str
    documents: list[str]
    top_n: int = 0


class _ScoreBody(_Body):
    queries: Texts = msgspec.field(name="text_1")
    documents: Texts = msgspec.field(name="text_2")


class _InputBody(_Body):
    input: Texts


class _PooledShape(Shape):
    """An answer without tokens, made by ``answerer`` once the prompt is computed."""

    __slots__ = ("_answerer", "context")

    def __init__(self, call: Call, context: Context, answerer: Answerer) -> None:
        super().__init__(call)
        self.context = context
        self._answerer = answerer

    def whole(self, cached: int) -> bytes:  # noqa: ARG002 - these do not report it
        """The JSON body."""
        return orjson.dumps(self._answerer(self))

    def usage(self) -> dict[str, int]:
        """Tokens, as pooling models report them."""
        tokens = self.call.prompt_tokens
        return {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}

    def listed(self, kind: str, data: list[dict[str, object]]) -> dict[str, object]:
        """A list in OpenAI's form."""
        return {
            "id": f"{kind}-{self.context.request_id}",
            "object": "list",
            "created": self.context.created,
            "model": self.call.model,
            "data": data,
            "usage": self.usage(),
        }


def rerank(context: Context, body: bytes) -> Shape:
    """Reads a rerank request; the best of its documents come first.

    Raises:
        RefusedError: the request cannot be served.
        msgspec.MsgspecError: the body is not one.
    """
    request = _RERANK.decode(body)

    def answer(shape: _PooledShape) -> dict[str, object]:
        scores = [_score(request.query, text) for text in request.documents]
        order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
        results = [
            {
                "index": index,
                "document": {"text": request.documents[index]},
                "relevance_score": scores[index],
            }
            for index in order[: request.top_n or None]
        ]
        return {
            "id": f"rerank-{shape.context.request_id}",
            "model": shape.call.model,
            "usage": shape.usage(),
            "results": results,
        }

    return _pooled(context, request, [request.query, *request.documents], answer)


def score(context: Context, body: bytes) -> Shape:
    """Reads a score request: one text against many, or pairs.

    Raises:
        RefusedError: the request cannot be served.
        msgspec.MsgspecError: the body is not one.
    """
    request = _SCORE.decode(body)
    queries, documents = _listed(request.queries), _listed(request.documents)
    if len(queries) == 1:
        queries *= len(documents)
    if len(queries) != len(documents):
        raise errors.RefusedError(400, "Input lengths must be either 1:1, 1:N or N:N", param="text_1")
    data: list[dict[str, object]] = [
        {"index": index, "object": "score", "score": _score(query, document)}
        for index, (query, document) in enumerate(zip(queries, documents, strict=True))
    ]
    return _pooled(context, request, queries + documents, lambda shape: shape.listed("score", data))


def classify(context: Context, body: bytes) -> Shape:
    """Reads a classification request: two classes.

    Raises:
        RefusedError: the request cannot be served.
        msgspec.MsgspecError: the body is not one.
    """
    return _each(context, body, "classify", _classified)


def pooling(context: Context, body: bytes) -> Shape:
    """Reads a pooling request: one figure per text.

    Raises:
        RefusedError: the request cannot be served.
        msgspec.MsgspecError: the body is not one.
    """
    return _each(context, body, "pool", lambda text: {"object": "pooling", "data": [_score("", text)]})


def _classified(text: str) -> dict[str, object]:
    share = _score("", text)
    label = "LABEL_1" if share >= 1 - share else "LABEL_0"
    return {"label": label, "probs": [1 - share, share], "num_classes": 2}


def _each(context: Context, body: bytes, kind: str, figure: Callable[[str], dict[str, object]]) -> Shape:
    """One entry per text of ``input``."""
    request = _INPUT.decode(body)
    texts = _listed(request.input)
    data: list[dict[str, object]] = [{"index": index, **figure(text)} for index, text in enumerate(texts)]
    return _pooled(context, request, texts, lambda shape: shape.listed(kind, data))


_RERANK = msgspec.json.Decoder(_RerankBody)
_SCORE = msgspec.json.Decoder(_ScoreBody)
_INPUT = msgspec.json.Decoder(_InputBody)


def _listed(texts: Texts) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def _pooled(context: Context, body: _Body, texts: list[str], answerer: Answerer) -> Shape:
    # The one token is the figure: it is there when the last prompt token is computed.
    asked = Asked(body.model, max_tokens=1, cache_salt=body.cache_salt)
    call = decide(context.served, asked, "".join(texts), None)
    return _PooledShape(call, context, answerer)


def _score(query: str, document: str) -> float:
    return int.from_bytes(shake_128(f"{query}\0{document}".encode()).digest(2), "big") * _UNIT
