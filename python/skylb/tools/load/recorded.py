"""Recordings of ``skylb serve --record``: a head per file, numbers that begin anew with each recording.

The first line of each file says which recording it belongs to, and when that began. Several recordings can be
read together, such as those of a balancer before and after its restart, or those of several regions.
"""

from collections.abc import Container
from pathlib import Path

import msgspec

from skylb.tools.load.positions import Positions
from skylb.tools.load.turn import Turn

PATTERN = "arrivals-*.jsonl*"
"""Files of recordings in their directory; their names sort by time."""

MARK = b'{"skylb_recording"'

_SPACING = 1 << 40
"""Numbers kept for each recording, so that those of two never meet."""

_RECORDINGS_MAX = 1 << 20

TOKEN_BYTES = 4
"""Bytes of a token, where no usage says it."""


class Head(msgspec.Struct, frozen=True):
    """First line of a file.

    Attributes:
        skylb_recording: version of the format.
        recording: name of the recording, drawn at its start.
        started: when it began, in seconds since 1970.
        block_bytes: bytes of a block of the prompt.
    """

    skylb_recording: int
    recording: str
    started: float
    block_bytes: int = 64


_decoder = msgspec.json.Decoder(Head)


class Recordings:
    """Brings the requests of several recordings together."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._head: Head | None = None
        self.block_bytes: int | None = None
        """Bytes of a block; ``None`` while there is no recording."""

    @property
    def reading(self) -> bool:
        """The lines that come belong to a recording."""
        return self._head is not None

    def begin(self, line: bytes) -> str | None:
        """A file begins with this head; what is wrong with it, if something is."""
        try:
            head = _decoder.decode(line)
        except msgspec.DecodeError as error:
            return str(error)
        if head.skylb_recording != 1:
            return f"skylb_recording is {head.skylb_recording}: expected 1"
        if len(self._numbers) >= _RECORDINGS_MAX:
            return f"more than {_RECORDINGS_MAX} recordings"
        self._numbers.setdefault(head.recording, len(self._numbers))
        self._head = head
        self.block_bytes = self.block_bytes or head.block_bytes
        return None

    def end(self) -> None:
        """The file is over."""
        self._head = None

    def placed(self, turn: Turn, known: Container[int]) -> Turn:
        """A request with numbers and a time that are its own among all recordings.

        Args:
            turn: as the line says.
            known: ids that were read; a request that follows none of them begins its session.
        """
        if self._head is None:
            raise AssertionError("there is a head")
        base = self._numbers[self._head.recording] * _SPACING
        after = None if turn.after is None else turn.after + base
        if after not in known:
            after = None
        return msgspec.structs.replace(
            turn,
            id=turn.id + base,
            after=after,
            think_s=0.0 if after is None else turn.think_s,
            user=turn.user + base,
            session=turn.session + base,
            runs=tuple((start + base, length) for start, length in turn.runs),
            t_s=turn.t_s + self._head.started,
        )


def files(directory: Path) -> list[Path]:
    """The files of recordings in a directory, oldest first; of one that is being packed the old form."""
    found = {path.name.removesuffix(".gz"): path for path in sorted(directory.glob(PATTERN), reverse=True)}
    return [path for name, path in sorted(found.items()) if name.endswith(".jsonl")]


def settled(turns: list[Turn], block_bytes: int) -> list[Turn]:
    """The requests by arrival, from time 0, with prompts in blocks of tokens.

    Args:
        turns: in the order of their lines.
        block_bytes: bytes of the blocks that the lines list.
    """
    known = [turn for turn in turns if turn.prompt_bytes and not turn.in_guessed]
    known_bytes = sum(turn.prompt_bytes for turn in known)
    rate = sum(turn.in_tokens for turn in known) / known_bytes if known_bytes else 1 / TOKEN_BYTES
    positions = Positions(block_bytes, rate)
    first_s = min((turn.t_s for turn in turns), default=0.0)
    placed = (
        msgspec.structs.replace(positions.placed(turn), t_s=round(turn.t_s - first_s, 6)) for turn in turns
    )
    return sorted(placed, key=lambda turn: (turn.t_s, turn.id))
