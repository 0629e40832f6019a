"""Requests of a workload: read from a file, or made up by `skylb.tools.load.generate`.

A file holds one JSON object a line, sorted so that a request comes after the one it follows::

    {"id":7,"t":1.2,"after":3,"think":0.5,"region":"eu","user":1,"session":4,"turn":2,
     "in":500,"out":80,"block":64,"runs":[[9000,7],[17,1]]}

``t``: open-loop arrival, seconds. ``after``, ``think``: closed loop, ``think`` seconds after request
``after`` has completed, or when the session starts. ``in``, ``out``: tokens of prompt and answer.
``runs``: ids of the prompt's blocks of ``block`` tokens as ``[start, length]``. An id stands for the block's
text and all before it, so equal ids mean equal prefixes. Other fields are ignored.
"""

import gzip
import io
import itertools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from skylb.errors import SkyLBError

LINE_BYTES_MAX = 4 << 20
REQUESTS_MAX = 5_000_000
BLOCK_ID_LIMIT = 1 << 62
"""Ids from here on are ours, for the text after a prompt's last listed block."""

_GZIP_MAGIC = b"\x1f\x8b"

_Id = Annotated[int, msgspec.Meta(ge=0, lt=BLOCK_ID_LIMIT)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Who = Annotated[int, msgspec.Meta(ge=0, lt=BLOCK_ID_LIMIT)]
_Tokens = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


class WorkloadError(SkyLBError):
    """A workload cannot be read; the message names file and line."""


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

    def listed_blocks(self) -> int:
        """Blocks of the prompt that have an id in ``runs``, as far as its length has room for them."""
        return min(sum(length for _, length in self.runs), -(-self.in_tokens // self.block_tokens))


@dataclass(slots=True)
class Workload:
    """Requests in the order of their file, and what was left out of it."""

    turns: list[Turn]
    lines_bad: int = 0
    first_fault: str | None = None


def read_workload(path: Path, *, skip_bad: bool = False) -> Workload:
    """Reads a workload file, plain or gzip.

    Args:
        path: the file.
        skip_bad: leave out broken lines (and requests that follow one left out), and count them.

    Raises:
        WorkloadError: the file cannot be read, is empty, or has a broken line and ``skip_bad`` is off.
    """
    workload = Workload([])
    reader = _Reader()
    try:
        with _open(path) as file:
            for number, line in _lines(file):
                fault = reader.add(line, workload.turns)
                if fault is None:
                    continue
                message = f"{path}, line {number}: {fault}"
                if not skip_bad:
                    raise WorkloadError(message)
                workload.lines_bad += 1
                workload.first_fault = workload.first_fault or message
    except (OSError, EOFError, zlib.error) as error:
        raise WorkloadError(f"{path}: cannot be read: {error}") from error
    if not workload.turns:
        raise WorkloadError(f"{path}: holds no request; {workload.first_fault or 'it is empty'}")
    return workload


def _open(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
    return gzip.GzipFile(path, "rb") if packed else path.open("rb")


def _lines(file: io.BufferedIOBase) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not empty; of an overlong one the first ``LINE_BYTES_MAX`` bytes."""
    for number in itertools.count(1):
        line = file.readline(LINE_BYTES_MAX)
        if not line:
            return
        rest = line
        while len(rest) == LINE_BYTES_MAX and not rest.endswith(b"\n"):
            rest = file.readline(LINE_BYTES_MAX)
        if len(line) == LINE_BYTES_MAX or line.strip():
            yield number, line


class _Reader:
    """Decodes lines and checks each against those before it."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(Turn)
        self._session_of: dict[int, int] = {}
        self._block_tokens: int | None = None

    def add(self, line: bytes, turns: list[Turn]) -> str | None:
        """Appends the line's request; what is wrong with it instead, if something is."""
        if len(line) == LINE_BYTES_MAX:
            return f"expected less than {LINE_BYTES_MAX} bytes"
        try:
            turn = self._decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return str(error)
        fault = self._fault(turn)
        if fault is None:
            self._session_of[turn.id] = turn.session
            self._block_tokens = turn.block_tokens
            turns.append(turn)
        return fault

    def _fault(self, turn: Turn) -> str | None:
        if len(self._session_of) >= REQUESTS_MAX:
            return f"more than {REQUESTS_MAX} requests"
        if turn.id in self._session_of:
            return f"id {turn.id} was there before"
        if turn.after is not None and self._session_of.get(turn.after) != turn.session:
            return f"after is {turn.after}: expected an earlier request of session {turn.session}"
        if self._block_tokens not in {None, turn.block_tokens}:
            return f"block is {turn.block_tokens}: expected {self._block_tokens} as before"
        return None


@dataclass(slots=True)
class Session:
    """One conversation: the requests that open it, and those that follow each."""

    roots: list[Turn] = field(default_factory=list)
    followers: dict[int, list[Turn]] = field(default_factory=dict)


@dataclass(slots=True)
class User:
    """One user's conversations in the order in which they start."""

    region: str
    sessions: list[Session] = field(default_factory=list)


def select_sessions(turns: Iterable[Turn], sessions_max: int | None) -> list[Turn]:
    """The requests of the first ``sessions_max`` sessions."""
    chosen: set[int] = set()
    kept = []
    for turn in turns:
        if turn.session not in chosen:
            if sessions_max is not None and len(chosen) >= sessions_max:
                continue
            chosen.add(turn.session)
        kept.append(turn)
    return kept


def group_users(turns: Iterable[Turn]) -> dict[str, list[User]]:
    """Users by region, in the order of their first request."""
    users: dict[tuple[str, int], User] = {}
    sessions: dict[int, Session] = {}
    for turn in turns:
        session = sessions.get(turn.session)
        if session is None:
            session = sessions[turn.session] = Session()
            user = users.setdefault((turn.region, turn.user), User(turn.region))
            user.sessions.append(session)
        if turn.after is None:
            session.roots.append(turn)
        else:
            session.followers.setdefault(turn.after, []).append(turn)
    regions: dict[str, list[User]] = {}
    for user in users.values():
        regions.setdefault(user.region, []).append(user)
    return regions
