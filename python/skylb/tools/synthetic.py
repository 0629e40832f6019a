"""Text made of token blocks: what the load generator sends and the mock replica answers.

A *token* is four ASCII bytes. JSON escapes none of them, so a text of ``n`` tokens is ``4 * n`` bytes on
the wire and in the rendered prompt alike. A *block* is the text that belongs to a block id of a workload
file. Equal ids give equal text, different ids different text. A shorter text of one id is a prefix of a
longer one.

A replica's answer must be what the next turn's prompt contains, or generated KV would never be hit.
The load generator knows the traced answer, the replica does not. So the generator appends an *answer
directive* to the text of the last user message::

    <|answer:TOKENS,BLOCK,SKIP:START+LEN,START+LEN|>

It means: answer ``TOKENS`` tokens. The text is that of the blocks ``START``, ``START + 1``, ... (``LEN`` of
them, then the next run), each ``BLOCK`` tokens long, without the first ``SKIP`` tokens. Where the runs end
early, the rest is text seeded by the prompt: the last turn of a session has no traced successor. The list
of runs may be empty. Numbers are decimal.

A directive stands at the end of a message's text and is *no part of the rendered prompt*. The replica
removes it from every message before it counts or hashes tokens. So earlier user messages keep theirs when
the history is sent again. The bytes of a conversation only ever grow, and the tokens counted are those of
the workload file.

The last block of a traced prompt is usually partial. The next turn has a different id at that position,
because ids stand for whole blocks. To keep the chain unbroken, the partial block takes its text from the id
that the *following* turn has there. The answer continues it with ``SKIP`` set to the tokens already used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import shake_128
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import _hashlib

TOKEN_BYTES = 4
"""Bytes of one token, in UTF-8."""

Run = tuple[int, int]
"""``(start, length)``: the block ids ``start .. start + length - 1``."""

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TO_ALPHABET = bytes(_ALPHABET[byte & 63] for byte in range(256))
_OPEN = "<|answer:"
_CLOSE = "|>"
_DIRECTIVE_CHARS_MAX = 4096
_NUMBER_CHARS_MAX = 20
_RUNS_MAX = 128
_SEED_TAIL_CHARS = 256


class DirectiveError(ValueError):
    """A text ends like an answer directive but is none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a directive asks for.

    Attributes:
        tokens: length of the answer, in tokens, at least 1.
        block_tokens: tokens per block, at least 1.
        skip_tokens: tokens at the beginning of the runs that the prompt already holds.
        runs: block ids of the text.
    """

    tokens: int
    block_tokens: int
    skip_tokens: int = 0
    runs: tuple[Run, ...] = ()

    def directive(self) -> str:
        """The directive's text, to be appended to the last user message."""
        runs = ",".join(f"{start}+{length}" for start, length in self.runs)
        return f"{_OPEN}{self.tokens},{self.block_tokens},{self.skip_tokens}:{runs}{_CLOSE}"


def token_count(text_bytes: int) -> int:
    """Tokens of a text of so many UTF-8 bytes; the last one may be partial."""
    return -(-text_bytes // TOKEN_BYTES)


@lru_cache(maxsize=16_384)
def block_text(block_id: int, tokens: int) -> str:
    """The first ``tokens`` tokens of a block's text.

    Args:
        block_id: below 2**64.
        tokens: 0 or more.
    """
    return _text(shake_128(block_id.to_bytes(8, "little")), tokens)


def _text(seeded: "_hashlib.HASHXOF", tokens: int) -> str:
    return seeded.digest(tokens * TOKEN_BYTES).translate(_TO_ALPHABET).decode("ascii")


def runs_text(runs: Sequence[Run], *, block_tokens: int, skip_tokens: int = 0, tokens: int) -> str:
    """Text of ``tokens`` tokens of a chain of blocks, the first ``skip_tokens`` left out.

    It is shorter where the runs end. Only the blocks that are needed are made.
    """
    parts: list[str] = []
    skip_blocks, skip_tokens = divmod(skip_tokens, block_tokens)
    missing = -(-(skip_tokens + tokens) // block_tokens)
    for start, length in runs:
        first = min(skip_blocks, length)
        skip_blocks -= first
        last = min(length, first + missing)
        missing -= last - first
        parts.extend(block_text(start + index, block_tokens) for index in range(first, last))
        if missing == 0:
            break
    text = "".join(parts)
    return text[skip_tokens * TOKEN_BYTES : (skip_tokens + tokens) * TOKEN_BYTES]


def split_directive(text: str) -> tuple[str, Answer | None]:
    """A message's text without its answer directive, and the directive where there is one.

    Raises:
        DirectiveError: the text ends like a directive, but its numbers cannot be read.
    """
    if not text.endswith(_CLOSE):
        return text, None
    at = text.rfind(_OPEN, max(0, len(text) - _DIRECTIVE_CHARS_MAX))
    if at < 0:
        return text, None
    return text[:at], _parse(text[at + len(_OPEN) : -len(_CLOSE)])


def _parse(inner: str) -> Answer:
    head, colon, tail = inner.partition(":")
    fields = head.split(",")
    runs = tail.split(",") if tail else []
    if not colon or len(fields) != 3 or len(runs) > _RUNS_MAX:
        raise DirectiveError(f"not an answer directive: {inner!r}")
    try:
        tokens, block_tokens, skip_tokens = (_number(field) for field in fields)
        parsed = tuple(_run(run) for run in runs)
    except ValueError as error:
        raise DirectiveError(f"not an answer directive: {inner!r}") from error
    if tokens == 0 or block_tokens == 0:
        raise DirectiveError(f"an answer and its blocks have at least one token: {inner!r}")
    return Answer(tokens, block_tokens, skip_tokens, parsed)


def _run(text: str) -> Run:
    start, length = (_number(field) for field in text.split("+"))
    if start + length > 1 << 64:
        raise ValueError(text)
    return start, length


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > _NUMBER_CHARS_MAX:
        raise ValueError(text)
    return int(text)


def prompt_number(prompt: str) -> int:
    """A number below 2**32 that depends on the rendered prompt alone."""
    return int.from_bytes(_prompt_hash(prompt).digest(4), "little")


def _prompt_hash(prompt: str) -> "_hashlib.HASHXOF":
    """A stream of bytes that depends on the prompt's length and end, so that long ones cost no more."""
    return shake_128(b"%d:%b" % (len(prompt), prompt[-_SEED_TAIL_CHARS:].encode()))


def answer_text(prompt: str, tokens: int, answer: Answer | None) -> str:
    """The text of an answer of exactly ``tokens`` tokens: a pure function of its arguments.

    Directed text as far as the directive's runs reach, then text seeded by the prompt.
    """
    directed = ""
    if answer is not None:
        directed = runs_text(
            answer.runs, block_tokens=answer.block_tokens, skip_tokens=answer.skip_tokens, tokens=tokens
        )
    missing = tokens - len(directed) // TOKEN_BYTES
    if missing == 0:
        return directed
    return directed + _text(_prompt_hash(prompt), missing)
