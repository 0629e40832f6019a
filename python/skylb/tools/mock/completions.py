"""The log that proves what ran, and that nothing ran twice."""

import os
from pathlib import Path
from typing import Literal

import orjson

Outcome = Literal["completed", "aborted", "failed"]
"""``completed``: every token was generated, whether or not the client took them; ``aborted``: the client
left before; ``failed``: the replica ended it, see ``Faults``."""


class CompletionsLog:
    """One JSON line per request that the replica took, when it ended.

    Fields: ``request_id`` (the client's ``X-Request-Id``, else made), ``replica`` (URL), ``outcome``,
    ``prompt_tokens``, ``cached_tokens``, ``tokens`` (generated). Each line is one ``write`` to a file
    opened for appending, so that several processes can share it and a SIGKILL loses none.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(
        self,
        *,
        request_id: str,
        replica: str,
        outcome: Outcome,
        prompt_tokens: int,
        cached_tokens: int,
        tokens: int,
    ) -> None:
        """Appends one line."""
        line = {
            "request_id": request_id,
            "replica": replica,
            "outcome": outcome,
            "prompt_tokens": prompt_tokens,
            "cached_tokens": cached_tokens,
            "tokens": tokens,
        }
        os.write(self._fd, orjson.dumps(line) + b"\n")

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)
