"""From blocks of bytes, which a balancer counts, to blocks of tokens, of which workloads consist.

A recording lists blocks of so many bytes, and the tokens of the whole prompt. How many tokens a block has
differs between prompts. But a block's number stands for all text before it too. So it has one place in
tokens, whichever prompts share it. That place is computed where the number is seen first. There the tokens
that the prompt adds to earlier ones are spread evenly over the bytes that it adds.

What a prompt adds is a `_Segment`. It gets new blocks of tokens, from the place at which it begins. A
prompt that follows another (``after``) contains all of it, so its segment begins at that one's end.
"""

import math
from bisect import bisect_right, insort
from dataclasses import dataclass, field
from operator import attrgetter

import msgspec

from skylb.tools.load.turn import Turn

BLOCK_TOKENS = 16
"""Tokens of a block: as many as vLLM's have."""

_RATE_MIN = 1 / 64
_RATE_MAX = 4.0
"""Tokens per byte: what is outside follows from usage that does not fit."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """What one prompt added.

    Attributes:
        first: its first listed block's number.
        last: the number of its last.
        index: the place of ``first`` among its prompt's blocks.
        from_bytes: where it begins.
        from_tokens: where it begins.
        rate: tokens per byte.
        base: number of its first block of tokens.
        before: what it continues.
    """

    first: int
    last: int
    index: int
    from_bytes: int
    from_tokens: float
    rate: float
    base: int
    before: "_Segment | None"


@dataclass(slots=True)
class _End:
    """How a prompt ends."""

    segment: _Segment
    blocks: int
    tokens: int
    prompt_bytes: int


@dataclass(slots=True)
class Positions:
    """Gives the requests of recordings blocks of tokens, in the order of their lines.

    Args:
        block_bytes: bytes of a recorded block.
        token_rate: tokens per byte, for prompts whose tokens are not known.
    """

    block_bytes: int
    token_rate: float
    _segments: list[_Segment] = field(default_factory=list)
    _ends: dict[int, _End] = field(default_factory=dict)
    _next: int = 0

    def placed(self, turn: Turn) -> Turn:
        """The request with its prompt in blocks of tokens."""
        known, shared = self._known(turn.runs)
        from_bytes, from_tokens = 0, 0.0
        if known is not None:
            from_bytes, from_tokens = shared * self.block_bytes, self._place(known, shared)
        end = self._ends.get(turn.after) if turn.after is not None else None
        if end is not None and end.blocks == shared and turn.prompt_bytes >= end.prompt_bytes:
            known, from_bytes, from_tokens = end.segment, end.prompt_bytes, float(end.tokens)
        left_bytes = max(0, turn.prompt_bytes - from_bytes)
        tokens = turn.in_tokens
        if turn.in_guessed:
            tokens = max(1, round(from_tokens + left_bytes * self.token_rate))
        rate = (tokens - from_tokens) / left_bytes if left_bytes else self.token_rate
        blocks = sum(length for _, length in turn.runs)
        segment = _Segment(
            *_added(turn, shared),
            index=shared,
            from_bytes=from_bytes,
            from_tokens=from_tokens,
            rate=min(_RATE_MAX, max(_RATE_MIN, rate)),
            base=self._next,
            before=known,
        )
        self._next += max(0, tokens // BLOCK_TOKENS - math.floor(from_tokens) // BLOCK_TOKENS)
        if blocks > shared and (not self._segments or segment.first > self._segments[-1].last):
            self._segments.append(segment)
        elif blocks > shared and not self._covered(segment):
            insort(self._segments, segment, key=attrgetter("first"))
        self._ends[turn.id] = _End(segment, blocks, tokens, turn.prompt_bytes)
        return msgspec.structs.replace(
            turn, in_tokens=tokens, block_tokens=BLOCK_TOKENS, runs=_runs(segment, tokens)
        )

    def _known(self, runs: tuple[tuple[int, int], ...]) -> tuple[_Segment | None, int]:
        """The segment that the last known block at a prompt's beginning is in, and how many are known."""
        found, count = None, 0
        for start, length in runs:
            at, end = start, start + length
            while at < end:
                segment = self._at(at)
                if segment is None or segment.index + at - segment.first != count:
                    return found, count
                taken = min(end, segment.last + 1) - at
                found, count, at = segment, count + taken, at + taken
        return found, count

    def _at(self, number: int) -> _Segment | None:
        place = bisect_right(self._segments, number, key=attrgetter("first")) - 1
        segment = self._segments[place] if place >= 0 else None
        return segment if segment is not None and number <= segment.last else None

    def _covered(self, segment: _Segment) -> bool:
        """Another segment has some of these numbers: an earlier file is missing."""
        place = bisect_right(self._segments, segment.last, key=attrgetter("first")) - 1
        return place >= 0 and self._segments[place].last >= segment.first

    def _place(self, segment: _Segment, blocks: int) -> float:
        """Tokens up to the end of so many blocks, the last of which is in the segment."""
        return segment.from_tokens + (blocks * self.block_bytes - segment.from_bytes) * segment.rate


def _added(turn: Turn, shared: int) -> tuple[int, int]:
    """First and last of the numbers that follow the shared ones, as far as they follow each other."""
    for start, length in turn.runs:
        if shared < length:
            return start + shared, start + length - 1
        shared -= length
    return -1, -1


def _runs(segment: _Segment, tokens: int) -> tuple[tuple[int, int], ...]:
    """The whole blocks of the first tokens of a prompt that ends in a segment."""
    runs: list[tuple[int, int]] = []
    at: _Segment | None = segment
    until = tokens // BLOCK_TOKENS
    while at is not None:
        start = math.floor(at.from_tokens) // BLOCK_TOKENS
        if until > start:
            runs.append((at.base, until - start))
        until = min(until, start)
        at = at.before
    return tuple(reversed(runs))
