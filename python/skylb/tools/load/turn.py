"""One request of a workload, and the blocks of its prompt."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Annotated

import msgspec

BLOCK_ID_LIMIT = 1 << 62
"""Ids from here on are ours, for the text after a prompt's last listed block."""

_Id = Annotated[int, msgspec.Meta(ge=0, lt=BLOCK_ID_LIMIT)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Who = Annotated[int, msgspec.Meta(ge=0, lt=BLOCK_ID_LIMIT)]
_Tokens = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One request."""

    id: _Id
    region: _Name
    user: _Who
    session: _Who
    in_tokens: _Tokens = msgspec.field(name="in")
    out_tokens: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = msgspec.field(name="out")
    block_tokens: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = msgspec.field(name="block")
    runs: tuple[tuple[_Id, Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]], ...]
    t_s: _Seconds = msgspec.field(name="t", default=0.0)
    after: _Id | None = None
    think_s: _Seconds = msgspec.field(name="think", default=0.0)
    turn: int = 1
    model: str | None = None
    prompt_bytes: int = msgspec.field(name="bytes", default=0)
    in_guessed: bool = False

    def listed_blocks(self) -> int:
        """Blocks of the prompt that have an id in ``runs``, as far as its length has room for them."""
        return min(sum(length for _, length in self.runs), -(-self.in_tokens // self.block_tokens))


def block_at(turn: Turn, index: int) -> int:
    """The id of one block of a prompt; after the listed ones, that of the rest."""
    for start, length in turn.runs:
        if index < length:
            return start + index
        index -= length
    return tail_id(turn)


def tail_id(turn: Turn) -> int:
    """The id of the text after a prompt's last listed block."""
    last_id = sum(turn.runs[-1]) - 1 if turn.runs else -1
    digest = blake2b(f"{turn.session}/{last_id}".encode(), digest_size=8).digest()
    return BLOCK_ID_LIMIT | int.from_bytes(digest, "little") & (BLOCK_ID_LIMIT - 1)


def compact(ids: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Ids as runs."""
    runs: list[tuple[int, int]] = []
    for block_id in ids:
        if runs and block_id == runs[-1][0] + runs[-1][1]:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((block_id, 1))
    return tuple(runs)
