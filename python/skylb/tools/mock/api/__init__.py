"""The inference routes: from a body to a call, and the shape of its response."""

from collections.abc import Callable

from skylb.tools.mock.api.chat import chat, completion
from skylb.tools.mock.api.common import Call, Context, Model, ResponseStore, Shape
from skylb.tools.mock.api.embeddings import embeddings
from skylb.tools.mock.api.invocations import invocations
from skylb.tools.mock.api.messages import count_tokens, messages
from skylb.tools.mock.api.pooling import classify, pooling, rerank, score
from skylb.tools.mock.api.responses import responses

INFERENCE: dict[str, Callable[[Context, bytes], Shape]] = {
    "/v1/chat/completions": chat,
    "/v1/completions": completion,
    "/v1/responses": responses,
    "/v1/messages": messages,
    "/v1/embeddings": embeddings,
    "/v1/rerank": rerank,
    "/rerank": rerank,
    "/v2/rerank": rerank,
    "/v1/score": score,
    "/score": score,
    "/invocations": invocations,
    "/classify": classify,
    "/pooling": pooling,
}
"""By path. Each raises ``RefusedError``, or ``msgspec.MsgspecError`` for a body it cannot read."""

__all__ = ["INFERENCE", "Call", "Context", "Model", "ResponseStore", "Shape", "count_tokens"]
