"""``/invocations``: any of the other requests, recognised by its fields."""

import msgspec

from skylb.tools.mock.api.chat import chat, completion
from skylb.tools.mock.api.common import Context, Shape
from skylb.tools.mock.api.embeddings import embeddings
from skylb.tools.mock.api.pooling import rerank, score
from skylb.tools.mock.errors import RefusedError

_READERS = {
    "messages": chat,
    "prompt": completion,
    "input": embeddings,
    "documents": rerank,
    "text_1": score,
}
"""By a field that the body has, the first that fits."""


def invocations(context: Context, body: bytes) -> Shape:
    """Reads a request as SageMaker sends it.

    Raises:
        RefusedError: the request cannot be served, or is none of those known.
        msgspec.MsgspecError: the body is not one.
    """
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    for name, reader in _READERS.items():
        if name in fields:
            return reader(context, body)
    raise RefusedError(400, "Cannot find suitable handler for request.")
