"""Mooncake's trace format: one JSON object a line, with prompts as ids of blocks of 512 tokens.

    {"timestamp": 1500, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2, 3]}

``timestamp``: arrival in milliseconds. An id stands for the block's text and all before it, as in ``runs``.
The last id stands for what is left of the prompt. Nothing says which request follows which.

Published with Mooncake (Qin et al., FAST 2025); Dynamo's tools read and write it too.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import msgspec

from skylb.tools.load.turn import BLOCK_ID_LIMIT, Turn, block_at, compact

BLOCK_TOKENS = 512
REGION = "local"
"""Region of all requests, which the format does not name."""

MARK = b'"hash_ids"'
"""A field that no other format has."""

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]


class _Line(msgspec.Struct, frozen=True, gc=False):
    timestamp: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    input_length: _Tokens
    output_length: _Tokens
    hash_ids: tuple[Annotated[int, msgspec.Meta(ge=0, lt=BLOCK_ID_LIMIT)], ...]


_decoder = msgspec.json.Decoder(_Line)


def read_line(line: bytes, number: int) -> Turn:
    """One request; each has a session of its own.

    Args:
        line: the JSON object.
        number: the request's id, from 0.

    Raises:
        msgspec.DecodeError: it is no such line.
    """
    found = _decoder.decode(line)
    return Turn(
        id=number,
        region=REGION,
        user=number,
        session=number,
        in_tokens=max(1, found.input_length),
        out_tokens=found.output_length,
        block_tokens=BLOCK_TOKENS,
        runs=compact(found.hash_ids),
        t_s=found.timestamp / 1000,
    )


def write_lines(turns: Sequence[Turn]) -> Iterator[bytes]:
    """The requests in Mooncake's form, by arrival.

    Two prompts share an id of 512 tokens where they share all blocks up to its end. What they share beyond a
    multiple of 512 tokens is lost. So are sessions, pauses, users and regions.
    """
    numbers: dict[tuple[int, int, int], int] = {}
    for turn in sorted(turns, key=lambda turn: (turn.t_s, turn.id)):
        ids = [numbers.setdefault(key, len(numbers)) for key in _keys(turn)]
        yield (
            msgspec.json.encode(
                {
                    "timestamp": round(turn.t_s * 1000),
                    "input_length": turn.in_tokens,
                    "output_length": turn.out_tokens,
                    "hash_ids": ids,
                }
            )
            + b"\n"
        )


def _keys(turn: Turn) -> Iterable[tuple[int, int, int]]:
    """What each block of 512 tokens ends with: a block and how much of it, or unlisted text."""
    listed = turn.listed_blocks() * turn.block_tokens
    for start in range(0, turn.in_tokens, BLOCK_TOKENS):
        end = min(start + BLOCK_TOKENS, turn.in_tokens)
        place = (min(end, listed) - 1) // turn.block_tokens
        last = block_at(turn, place) if place >= 0 else -1
        if end > listed:
            yield last, end, turn.session
        else:
            yield last, end - place * turn.block_tokens, -1
