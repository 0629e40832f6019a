"""From blocks to messages: what a conversation's requests say, word for word.

A prompt's text is the text of its blocks, four bytes a token (`skylb.tools.synthetic`). So what two prompts
share in the trace they share in text. Where one message ends and the next begins is tied to blocks as well.
A *mark* on a block id says that here the user's message ends and the answer begins, or the other way round.
So two prompts with the same blocks have the same messages up to where their blocks part. That holds even if
the trace does not say that one follows the other.

Three kinds of id get a meaning beyond their text, all in one pass over the workload:

- *Shared* ids open prompts of several sessions: they make up the system message.
- A block that a prompt fills only in part has its own id (or none); the next turn has another one
  there. The next turn's block *continues* it: takes over the text as far as it goes.
- The answer's place in the next turn's prompt gets its two marks, where the trace has room for it.
  Where it has none (scaled traces, edited contexts), the user's message continues. The blocks that the trace
  shares are shared, but no generated KV is found again.

For the mock replica, the last user message ends with an answer directive, which is no part of the prompt. It
names the blocks that the next turn has in the answer's place.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import Literal

import msgspec

from skylb.tools.load.turn import Turn, block_at, compact, tail_id
from skylb.tools.synthetic import TOKEN_BYTES, Answer, Run, block_text

Role = Literal["system", "user", "assistant"]

DIRECTIVE_RUNS_MAX = 96
"""Runs an answer may consist of; one of more pieces is not asked for (the mock's bound is 128)."""

TEXT_CACHE_BYTES = 64 << 20
"""Block texts kept ready, about."""

CHUNK_BLOCKS = 64
"""Blocks looked at together: most have neither marks nor other blocks' text."""

_CACHE_ENTRY_BYTES = 200


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class _Spoken:
    """An answer that has its place: its blocks before the last one, and that one."""

    tokens: int
    filled: int
    runs: tuple[Run, ...]
    last_id: int
    directive: str


@dataclass(frozen=True, slots=True)
class _Mark:
    """At ``offset`` tokens into a block the role changes; ``directive`` ends the message before."""

    offset: int
    role: Role
    directive: str = ""


Piece = tuple[int, int]
"""A block's id, and how many tokens of its text a prompt holds, from the first on."""


class Renderer:
    """Makes the messages of a workload's requests.

    Args:
        turns: the whole workload, a request after the one it follows.
        directives: end the last user message with the answer directive.
    """

    def __init__(self, turns: Sequence[Turn], *, directives: bool = True) -> None:
        self._directives = directives
        self._shared = _shared_ids(turns)
        self._continued: dict[int, Piece] = {}
        self._marks: dict[int, tuple[_Mark, ...]] = {}
        self._answers: dict[int, str] = {}
        self._answered: set[int] = set()
        self._spoken: dict[int, _Spoken] = {}
        block_bytes = turns[0].block_tokens * TOKEN_BYTES if turns else TOKEN_BYTES
        self._block_text = lru_cache(TEXT_CACHE_BYTES // (block_bytes + _CACHE_ENTRY_BYTES))(block_text)
        by_id = {turn.id: turn for turn in turns}
        for turn in turns:
            if turn.after is not None:
                self._join(by_id[turn.after], turn)

    def messages(self, turn: Turn) -> list[Message]:
        """The chat of one request. The contents without directives are exactly ``in`` tokens."""
        builder = _Builder()
        whole = turn.block_tokens
        for ids, last_tokens in _chunks(turn):
            if last_tokens == whole and self._are_plain(ids, builder.role):
                builder.add("".join(map(self._block_text, ids, repeat(whole))))
                continue
            for block_id in ids:
                if builder.role == "system" and block_id not in self._shared:
                    builder.switch("user")
                text = self._text(block_id, last_tokens if block_id == ids[-1] else whole, whole)
                _add_marked(builder, text, self._marks_of(block_id))
        directive = self.directive(turn)
        if self._directives and not directive and builder.role != "user":
            directive = Answer(max(1, turn.out_tokens), turn.block_tokens).directive()
        return builder.finish(directive)

    def prompt(self, turn: Turn) -> str:
        """The same text in one piece, for ``/v1/completions``."""
        text = "".join(self._text(block_id, tokens, turn.block_tokens) for block_id, tokens in pieces(turn))
        return text + self.directive(turn)

    def directive(self, turn: Turn) -> str:
        """What the last user message ends with; empty where there is nothing to say."""
        return self._answers.get(turn.id, "")

    def _are_plain(self, ids: range, role: Role) -> bool:
        """Whether these blocks have their own text, and all belong to the message under way."""
        if role == "system" and not self._shared.issuperset(ids):
            return False
        return self._marks.keys().isdisjoint(ids) and self._continued.keys().isdisjoint(ids)

    def _marks_of(self, block_id: int) -> tuple[_Mark, ...]:
        """A block's marks in order: those in the text that it takes over, and its own."""
        own = self._marks.get(block_id, ())
        before = self._continued.get(block_id)
        if before is None:
            return own
        source_id, taken = before
        return (*(mark for mark in self._marks_of(source_id) if mark.offset < taken), *own)

    def _text(self, block_id: int, tokens: int, block_tokens: int) -> str:
        """The first tokens of a block's text. Texts are cached by whole blocks."""
        before = self._continued.get(block_id)
        if before is None:
            text = self._block_text(block_id, max(tokens, block_tokens))
            return text if len(text) == tokens * TOKEN_BYTES else text[: tokens * TOKEN_BYTES]
        source_id, taken = before
        head = self._text(source_id, min(tokens, taken), block_tokens)
        if tokens <= taken:
            return head
        own = self._block_text(block_id, max(tokens, block_tokens))
        return head + own[taken * TOKEN_BYTES : tokens * TOKEN_BYTES]

    # ------------------------------------------------------------------ one pass over the workload

    def _join(self, parent: Turn, child: Turn) -> None:
        """Lets a request's prompt continue that of the one it follows, if its blocks say so."""
        depth, filled = divmod(parent.in_tokens, parent.block_tokens)
        if child.in_tokens <= parent.in_tokens or not _extends(parent, child, depth):
            return
        if filled:
            self._continue(block_at(child, depth), (block_at(parent, depth), filled))
        end = parent.in_tokens + parent.out_tokens
        last, end_offset = divmod(end, child.block_tokens)
        if parent.out_tokens == 0 or child.in_tokens <= end or last > child.listed_blocks():
            return
        ids = [block_at(child, index) for index in range(depth, last + 1)]
        self._mark_answer(parent, ids, filled, end_offset)

    def _continue(self, block_id: int, before: Piece) -> None:
        if block_id in self._continued or block_id in self._answered:
            return
        source: Piece | None = before
        while source is not None:
            if source[0] == block_id:
                return  # the same block, or a trace that runs in circles
            source = self._continued.get(source[0])
        self._continued[block_id] = before

    def _mark_answer(self, parent: Turn, ids: list[int], filled: int, end_offset: int) -> None:
        """Marks the answer in a child's blocks, and has the mock asked for just these.

        Args:
            parent: the request that is answered.
            ids: the child's blocks from the one in which the prompt ends to the one in which the answer does.
            filled: where the answer begins, tokens into the first.
            end_offset: where it ends, tokens into the last.
        """
        spoken = self._spoken.get(ids[0])
        if spoken is not None and len(ids) > 1:
            self._repeat(parent, ids, end_offset, spoken, filled)
            return
        answer_ids = ids if end_offset else ids[:-1]
        runs = compact(answer_ids)
        if len(runs) > DIRECTIVE_RUNS_MAX or not self._is_plain(ids, filled):
            return
        directive = self._answers.get(parent.id)  # a child before this one may have set it
        if directive is None and self._directives:
            directive = Answer(parent.out_tokens, parent.block_tokens, filled, runs).directive()
        directive = directive or ""
        self._add_mark(ids[0], _Mark(filled, "assistant", directive))
        self._add_mark(ids[-1], _Mark(end_offset, "user"))
        self._answered.update(answer_ids)
        self._answers[parent.id] = directive
        self._spoken[ids[0]] = _Spoken(parent.out_tokens, filled, compact(ids[:-1]), ids[-1], directive)

    def _repeat(self, parent: Turn, ids: list[int], end_offset: int, spoken: _Spoken, filled: int) -> None:
        """Another request with the same prompt got the same answer, and a follower of its own.

        Its last block differs, though the answer within is the same: it continues the first one's.
        """
        if (parent.out_tokens, filled, compact(ids[:-1])) != (spoken.tokens, spoken.filled, spoken.runs):
            return
        self._answers.setdefault(parent.id, spoken.directive)
        if ids[-1] == spoken.last_id or ids[-1] in self._marks:
            return
        if end_offset:
            self._continue(ids[-1], (spoken.last_id, end_offset))
        self._add_mark(ids[-1], _Mark(end_offset, "user"))
        self._answered.add(ids[-1])

    def _is_plain(self, ids: list[int], filled: int) -> bool:
        """Whether the blocks' text from ``filled`` tokens on is their own, and free of marks."""
        before = self._continued.get(ids[0])
        if before is not None and before[1] > filled:
            return False
        if any(mark.offset >= filled for mark in self._marks.get(ids[0], ())):
            return False
        return not any(block_id in self._continued or block_id in self._marks for block_id in ids[1:])

    def _add_mark(self, block_id: int, mark: _Mark) -> None:
        self._marks[block_id] = (*self._marks.get(block_id, ()), mark)


class _Builder:
    """Messages as they grow."""

    __slots__ = ("_messages", "_parts", "role")

    def __init__(self) -> None:
        self.role: Role = "system"
        self._parts: list[str] = []
        self._messages: list[Message] = []

    def add(self, text: str) -> None:
        self._parts.append(text)

    def switch(self, role: Role, directive: str = "") -> None:
        """Ends the message under way. A system message is followed by one of the user."""
        if role == self.role:
            return
        if self.role == "system" and role == "assistant":
            self._close()
            self.role = "user"
        self._parts.append(directive)
        self._close()
        self.role = role

    def finish(self, directive: str) -> list[Message]:
        """All messages; the last one is the user's, and ends with the directive."""
        if self.role != "user" and not directive:
            self.role = "user"  # nothing to say after it: it is the user who said it
        else:
            self.switch("user")
        self._parts.append(directive)
        self._close()
        return self._messages

    def _close(self) -> None:
        content = "".join(self._parts)
        self._parts.clear()
        if content:
            self._messages.append(Message(self.role, content))


def _add_marked(builder: _Builder, text: str, marks: Iterable[_Mark]) -> None:
    done = 0
    for mark in marks:
        at = mark.offset * TOKEN_BYTES
        if at >= len(text):
            break
        builder.add(text[done:at])
        builder.switch(mark.role, mark.directive)
        done = at
    builder.add(text[done:])


def pieces(turn: Turn) -> Iterator[Piece]:
    """A prompt's blocks in order, with the tokens it holds of each; their sum is ``in``.

    Tokens after the last listed block get an id of their own that depends on that block and on the
    session: equal prompts of one session stay equal, and other sessions say something else.
    """
    for ids, last_tokens in _chunks(turn):
        for block_id in ids[:-1]:
            yield block_id, turn.block_tokens
        yield ids[-1], last_tokens


def _chunks(turn: Turn) -> Iterator[tuple[range, int]]:
    """The same by ids in a row, `CHUNK_BLOCKS` at most: all whole blocks, but for the last one's tokens."""
    left, whole = turn.in_tokens, turn.block_tokens
    for start, length in turn.runs:
        for first in range(start, start + length, CHUNK_BLOCKS):
            if not left:
                return
            ids = range(first, min(first + CHUNK_BLOCKS, start + length, first + -(-left // whole)))
            yield ids, min(whole, left - (len(ids) - 1) * whole)
            left = max(0, left - len(ids) * whole)
    if left:
        yield range(rest := tail_id(turn), rest + 1), left


def _extends(parent: Turn, child: Turn, depth: int) -> bool:
    """Whether the child's prompt begins with the parent's whole blocks, all of them listed."""
    mine = _prefix(parent, depth)
    return mine is not None and mine == _prefix(child, depth)


def _prefix(turn: Turn, depth: int) -> tuple[Run, ...] | None:
    """The first blocks as the fewest runs; ``None`` if fewer are listed."""
    runs: list[Run] = []
    for start, length in turn.runs:
        taken = min(length, depth)
        depth -= taken
        if runs and sum(runs[-1]) == start:
            runs[-1] = (runs[-1][0], runs[-1][1] + taken)
        elif taken:
            runs.append((start, taken))
    return None if depth else tuple(runs)


def _shared_ids(turns: Iterable[Turn]) -> set[int]:
    """Ids among the first requests of more than one session."""
    owner: dict[int, int] = {}
    shared = set()
    for turn in turns:
        if turn.after is None:
            for block_id, _ in pieces(turn):
                if owner.setdefault(block_id, turn.session) != turn.session:
                    shared.add(block_id)
    return shared
