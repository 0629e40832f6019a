"""What the inference routes share: a call, how it is answered, and how events are framed."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import orjson
from msgspec import Struct

from skylb.tools.mock import errors
from skylb.tools.mock.api import ids
from skylb.tools.synthetic import (
    TOKEN_BYTES,
    Answer,
    DirectiveError,
    answer_text,
    prompt_number,
    split_directive,
    token_count,
)

ANSWER_TOKENS_MIN = 16
"""An answer that nobody directs and no ``ignore_eos`` stretches has this many tokens, or up to ..."""

ANSWER_TOKENS_SPAN = 240
"""... this many more, by the prompt."""

RESPONSES_MAX = 4096
"""Responses that ``/v1/responses/{id}`` remembers."""

LAST_CHUNK = b"0\r\n\r\n"

Finish = Literal["stop", "length"]


class Text(Struct, gc=False):
    """A part of a message; other kinds than text are not rendered."""

    type: str = "text"
    text: str = ""


class Message(Struct):
    """A message of any of the APIs."""

    role: str = "user"
    content: str | list[Text] | None = None


class StreamOptions(Struct, gc=False):
    """OpenAI's ``stream_options``."""

    include_usage: bool | None = None


SALT_LEN_MAX = 128
SALT_FORBIDDEN = frozenset("@/\\\0")
"""What a ``cache_salt`` may not have."""


@dataclass(frozen=True, slots=True)
class Model:
    """What the replica serves: names, and the length of its context in tokens."""

    names: tuple[str, ...]
    max_model_len: int
    numbers_tokens: bool = False
    """The text of each token is its number in the answer."""


@dataclass(slots=True)
class Asked:
    """What a body says beside its prompt; lengths in tokens."""

    model: str | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stream: bool = False
    include_usage: bool = False
    cache_salt: str | None = None
    given: bytes = b""
    """What the prompt's ids have of the answer already, four bytes a token."""
    tells_ids: bool = False
    """``return_token_ids``."""


@dataclass(slots=True)
class Call:
    """One request, read and decided: what will be answered is known before the model runs it."""

    model: str
    prompt: bytes
    prompt_tokens: int
    answer: bytes
    """Four bytes a token."""
    tokens: int
    finish: Finish
    stream: bool
    include_usage: bool
    salt: bytes
    prompt_ids: list[int] | None = None
    """Where the client is told ids: of the prompt."""


@dataclass(slots=True)
class Stored:
    """A response of ``/v1/responses`` that can be fetched or continued."""

    body: bytes
    text: str
    """Rendered prompt and answer."""


class ResponseStore:
    """The latest responses by id; the oldest make room."""

    def __init__(self) -> None:
        self._stored: OrderedDict[str, Stored] = OrderedDict()

    def put(self, response_id: str, stored: Stored) -> None:
        """Keeps a response."""
        self._stored[response_id] = stored
        if len(self._stored) > RESPONSES_MAX:
            self._stored.popitem(last=False)

    def get(self, response_id: str) -> Stored:
        """The response.

        Raises:
            RefusedError: 404, it is not known (any more).
        """
        stored = self._stored.get(response_id)
        if stored is None:
            raise errors.RefusedError(
                404, f"Response with id '{response_id}' not found.", param="response_id"
            )
        return stored


@dataclass(slots=True)
class Context:
    """What reading one request needs beside its body."""

    served: Model
    responses: ResponseStore
    request_id: str
    created: int
    """Unix time in seconds."""


COMMENT = b"e\r\n: keep-alive\n\n\r\n"
"""A comment as one HTTP chunk, in vLLM's words."""


class Shape:
    """One response in the form of its API. Stream parts are framed as HTTP chunks.

    ``cached`` is the number of prompt tokens found in the prefix cache.
    """

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call

    def whole(self, cached: int) -> bytes:
        """The JSON body of a response that is not streamed."""
        raise NotImplementedError

    def preamble(self) -> bytes:
        """Events that are sent on acceptance, before the request is scheduled."""
        return b""

    def opening(self, cached: int) -> bytes:  # noqa: ARG002 - for those that need it
        """Events before the first token's."""
        return b""

    def token(self, index: int) -> bytes:
        """The event of the token with this index."""
        raise NotImplementedError

    def closing(self, cached: int) -> bytes:
        """Events after the last token's, and the end of the framing."""
        raise NotImplementedError

    def error(self) -> bytes:
        """The one event of a stream that fails before its first token, and the end of the framing."""
        return event(errors.failed().body(anthropic=False)) + event(b"[DONE]") + b"0\r\n\r\n"


def event(data: bytes) -> bytes:
    """One unnamed server-sent event as one HTTP chunk (RFC 9112, section 7.1)."""
    return b"%x\r\ndata: %b\n\n\r\n" % (len(data) + 8, data)


def named_event(name: bytes, data: bytes) -> bytes:
    """One named server-sent event as one HTTP chunk."""
    return b"%x\r\nevent: %b\ndata: %b\n\n\r\n" % (len(name) + len(data) + 16, name, data)


def quoted(text: str) -> bytes:
    """A JSON string."""
    return orjson.dumps(text)


def render(messages: list[Message]) -> tuple[str, Answer | None]:
    """The prompt, and the last message's answer directive; directives are no part of the prompt.

    Raises:
        RefusedError: a directive cannot be read.
    """
    texts: list[str] = []
    answer: Answer | None = None
    for message in messages:
        content = message.content
        if content is None:
            continue
        whole = content if isinstance(content, str) else "".join(part.text for part in content)
        text, answer = directed(whole)
        texts.append(text)
    return "".join(texts), answer


def directed(text: str) -> tuple[str, Answer | None]:
    """A text without its directive, and the directive.

    Raises:
        RefusedError: the directive cannot be read.
    """
    try:
        return split_directive(text)
    except DirectiveError as error:
        raise errors.RefusedError(400, str(error), param="messages") from error


def decide(served: Model, asked: Asked, prompt: str, answer: Answer | None) -> Call:
    """Settles length and text of the answer.

    Raises:
        RefusedError: unknown model, empty prompt, or more than fits into the context.
    """
    _check_salt(asked.cache_salt)
    name = served.names[0] if asked.model is None else asked.model
    if name not in served.names:
        raise errors.unknown_model(name)
    encoded = prompt.encode()
    prompt_tokens = token_count(len(encoded)) + len(asked.given) // TOKEN_BYTES
    if not encoded:
        raise errors.RefusedError(400, "The prompt is empty.", param="prompt")
    room = served.max_model_len - prompt_tokens
    max_tokens = max(room, 1) if asked.max_tokens is None else asked.max_tokens
    if max_tokens < 1:
        raise errors.RefusedError(
            400, f"max_tokens must be at least 1, got {max_tokens}.", param="max_tokens"
        )
    if max_tokens > room:
        raise errors.too_long(prompt_tokens, max_tokens, served.max_model_len)
    natural = _natural_tokens(asked, prompt, answer)
    tokens = min(natural, max_tokens)
    if tokens < 1:
        raise errors.RefusedError(400, "The answer has ended before.", param="prompt")
    # An adapter's KV is not the base model's, and a salt separates tenants.
    salt = (
        b""
        if name == served.names[0] and not asked.cache_salt
        else f"{name}\0{asked.cache_salt or ''}".encode()
    )
    return Call(
        model=name,
        prompt=encoded + asked.given,
        prompt_tokens=prompt_tokens,
        answer=_answer(served, asked, prompt, tokens, answer),
        tokens=tokens,
        finish="stop" if natural < max_tokens else "length",
        stream=asked.stream,
        include_usage=asked.include_usage,
        salt=salt,
        prompt_ids=ids.of_prompt(encoded, answer) if asked.tells_ids else None,
    )


def _check_salt(salt: str | None) -> None:
    """Takes what vLLM 0.32 takes (``validate_cache_salt``)."""
    if salt is None:
        return
    if not salt:
        raise errors.RefusedError(
            400, "Parameter 'cache_salt' must be a non-empty string if provided.", param="cache_salt"
        )
    if len(salt) > SALT_LEN_MAX or not SALT_FORBIDDEN.isdisjoint(salt):
        raise errors.RefusedError(
            400,
            f"Parameter 'cache_salt' must be at most {SALT_LEN_MAX} characters and must not contain "
            "'@', '/', '\\', or NUL.",
            param="cache_salt",
        )


def _natural_tokens(asked: Asked, prompt: str, answer: Answer | None) -> int:
    if asked.ignore_eos and asked.max_tokens is not None:
        return asked.max_tokens
    natural = ANSWER_TOKENS_MIN + prompt_number(prompt) % ANSWER_TOKENS_SPAN
    whole = natural if answer is None else answer.tokens
    return max(whole - len(asked.given) // TOKEN_BYTES, asked.min_tokens)


def _answer(served: Model, asked: Asked, prompt: str, tokens: int, answer: Answer | None) -> bytes:
    """The next tokens. After others than this replica would have given, others follow."""
    given = asked.given
    whole = len(given) // TOKEN_BYTES + tokens
    if served.numbers_tokens:
        text = b"".join(b"%04d" % (index % 10_000) for index in range(whole))
    else:
        text = answer_text(prompt, whole, answer).encode()
    if text.startswith(given):
        return text[len(given) :]
    return answer_text(prompt + given.decode(), tokens, None).encode()
