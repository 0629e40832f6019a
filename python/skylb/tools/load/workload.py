"""Requests of a workload: read from a file, or made up by `skylb.tools.load.generate`.

A file holds one JSON object a line, sorted so that a request comes after the one it follows::

    {"id":7,"t":1.2,"after":3,"think":0.5,"region":"eu","user":1,"session":4,"turn":2,
     "in":500,"out":80,"block":64,"runs":[[9000,7],[17,1]]}

``t``: open-loop arrival, seconds. ``after``, ``think``: closed loop, ``think`` seconds after request
``after`` has completed, or when the session starts. ``in``, ``out``: tokens of prompt and answer.
``runs``: ids of the prompt's blocks of ``block`` tokens as ``[start, length]``. An id stands for the block's
text and all before it, so equal ids mean equal prefixes. ``model`` may be there. Other
fields are ignored.

A directory of recordings (`skylb.tools.load.recorded`) and Mooncake's format (`skylb.tools.load.mooncake`)
are read too. The lines tell which it is.
"""

import gzip
import io
import itertools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from skylb.errors import SkyLBError
from skylb.tools.load import mooncake, recorded
from skylb.tools.load.turn import Turn

LINE_BYTES_MAX = 4 << 20
REQUESTS_MAX = 5_000_000
_GZIP_MAGIC = b"\x1f\x8b"


class WorkloadError(SkyLBError):
    """A workload cannot be read; the message names file and line."""


@dataclass(slots=True)
class Workload:
    """Requests in the order of their file, and what was left out of it."""

    turns: list[Turn]
    lines_bad: int = 0
    first_fault: str | None = None


def read_workload(path: Path, *, skip_bad: bool = False) -> Workload:
    """Reads a workload file, plain or gzip, or all recordings in a directory.

    Args:
        path: the file or directory.
        skip_bad: leave out broken lines (and requests that follow one left out), and count them.

    Raises:
        WorkloadError: the file cannot be read, is empty, or has a broken line and ``skip_bad`` is off.
    """
    workload = Workload([])
    reader = _Reader()
    try:
        for file in _files(path):
            _read_file(file, reader, workload, skip_bad=skip_bad)
    except (OSError, EOFError, zlib.error) as error:
        raise WorkloadError(f"{path}: cannot be read: {error}") from error
    if not workload.turns:
        raise WorkloadError(f"{path}: holds no request; {workload.first_fault or 'it is empty'}")
    if reader.recordings.block_bytes is not None:
        workload.turns = recorded.settled(workload.turns, reader.recordings.block_bytes)
    return workload


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = recorded.files(path)
    if not files:
        raise WorkloadError(f"{path}: holds no recording: expected files like {recorded.PATTERN}")
    return files


def _read_file(path: Path, reader: "_Reader", workload: Workload, *, skip_bad: bool) -> None:
    reader.begin()
    with _open(path) as file:
        for number, line in _lines(file):
            if reader.recordings.reading and not line.endswith(b"\n"):
                break  # it is being written
            fault = reader.add(line, workload.turns)
            if fault is None:
                continue
            message = f"{path}, line {number}: {fault}"
            if not skip_bad:
                raise WorkloadError(message)
            workload.lines_bad += 1
            workload.first_fault = workload.first_fault or message


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
        self.recordings = recorded.Recordings()
        self._decoder = msgspec.json.Decoder(Turn)
        self._session_of: dict[int, int] = {}
        self._block_tokens: int | None = None
        self._is_mooncake: bool | None = None

    def begin(self) -> None:
        """A file begins."""
        self._is_mooncake = None
        self.recordings.end()

    def add(self, line: bytes, turns: list[Turn]) -> str | None:
        """Appends the line's request; what is wrong with it instead, if something is."""
        if len(line) == LINE_BYTES_MAX:
            return f"expected less than {LINE_BYTES_MAX} bytes"
        if line.startswith(recorded.MARK):
            return self.recordings.begin(line)
        if self._is_mooncake is None:
            self._is_mooncake = mooncake.MARK in line
        try:
            turn = mooncake.read_line(line, len(turns)) if self._is_mooncake else self._decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return str(error)
        if self.recordings.reading:
            turn = self.recordings.placed(turn, self._session_of)
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


def select_time(turns: Iterable[Turn], from_s: float, until_s: float | None) -> list[Turn]:
    """The requests that arrive in a span of time, which becomes the beginning.

    A request whose predecessor arrived before the span waits for nothing.
    """
    kept: list[Turn] = []
    ids: set[int] = set()
    for turn in turns:
        if turn.t_s < from_s or (until_s is not None and turn.t_s >= until_s):
            continue
        ids.add(turn.id)
        cut = turn.after is not None and turn.after not in ids
        kept.append(
            msgspec.structs.replace(
                turn,
                t_s=turn.t_s - from_s,
                after=None if cut else turn.after,
                think_s=0.0 if cut else turn.think_s,
            )
        )
    return kept
