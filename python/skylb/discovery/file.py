"""Replicas or peers from a file that is read again when it changes.

The file's suffix distinguishes three forms. ``.json``: a list, or an object with the list under
``replicas`` or ``peers``. ``.toml``: ``replicas = [...]``. Anything else: one a line, ``#`` begins a comment.
"""

import asyncio
import json
import logging
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from skylb.addresses import PeerUrl, ReplicaUrl, parse_peer, parse_replica
from skylb.discovery.named import NamedSource
from skylb.discovery.source import REPLICAS_MAX, Lack, Site, Trouble
from skylb.errors import ConfigError
from skylb.settings.discovery import DiscoverySettings
from skylb.settings.mesh import PEERS_MAX
from skylb.watch import Signature, WatchedFile, read_whole

log = logging.getLogger("skylb.discovery")

FILE_BYTES_MAX = 4 << 20
FAULTS_MAX = 20
"""Faults named of one file."""

T = TypeVar("T")


@dataclass(frozen=True)
class Listing(Generic[T]):
    """What a file lists."""

    noun: str
    expected: str
    parse: Callable[[str], T]
    """Reads one entry, or raises `ValueError`."""
    len_max: int


REPLICAS: Listing[ReplicaUrl] = Listing(
    "replicas", "expected http://HOST:PORT, https://HOST:PORT or unix:PATH", parse_replica, REPLICAS_MAX
)
PEERS: Listing[PeerUrl] = Listing(
    "peers", "expected NAME[@REGION]=SYNC_URL or NAME[@REGION]=SYNC_URL,FORWARD_URL", parse_peer, PEERS_MAX
)

_FORMS: dict[str, tuple[str, Callable[[str], object]]] = {
    ".json": ("JSON", json.loads),
    ".toml": ("TOML", tomllib.loads),
}


class ListFile(WatchedFile[list[T]]):
    """Watches one file of a list.

    Args:
        path: the file.
        set_urls: takes the whole list; where it raises `ConfigError`, that was not understood.
        interval_s: time between looks.
        listing: what it lists.
    """

    def __init__(
        self,
        path: Path,
        set_urls: Callable[[Sequence[T]], None],
        *,
        interval_s: float,
        listing: Listing[T],
    ) -> None:
        super().__init__(
            path,
            partial(read, listing=listing),
            set_urls,
            interval_s=interval_s,
            kept="the last good list stays",
        )


def read(path: Path, listing: Listing[T]) -> tuple[Signature | None, list[T]]:
    """What tells this content from others, and what it lists.

    Raises:
        ConfigError: it cannot be read or understood; all its faults.
    """
    signature, content = read_whole(path, FILE_BYTES_MAX)
    return signature, parse(path, content, listing)


def parse(path: Path, content: bytes, listing: Listing[T]) -> list[T]:
    """What a file's content lists.

    Raises:
        ConfigError: all faults, each naming file, line and expectation.
    """
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError([f"{path}: expected at most {FILE_BYTES_MAX} bytes"])
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: expected UTF-8"]) from error
    urls, faults = [], []
    for number, entry in _entries(path, text, listing):
        try:
            urls.append(listing.parse(entry))
        except ValueError as error:
            line = _line_of(text, entry) if number is None else number
            faults.append(f"{path}:{line}: {listing.expected}, got {entry[:200]!r}: {error}")
            if len(faults) == FAULTS_MAX:
                break
    if faults:
        raise ConfigError(faults)
    if len(urls) > listing.len_max:
        log.error(
            "%s: %d %s are listed; those after the first %d are left out",
            path,
            len(urls),
            listing.noun,
            listing.len_max,
        )
    return urls[: listing.len_max]


def _entries(path: Path, text: str, listing: Listing[T]) -> list[tuple[int | None, str]]:
    """The entries with their lines; ``None``: `_line_of` finds it, too slowly for every entry."""
    if path.suffix in _FORMS:
        return [(None, entry) for entry in _listed(path, text, _document(path, text), listing)]
    lines = ((number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1))
    entries: list[tuple[int | None, str]] = [(number, line) for number, line in lines if line]
    if not entries:
        # More likely cut short while it was written than meant; JSON and TOML can say "none".
        raise ConfigError([f"{path}:1: expected at least one URL"])
    return entries


def _document(path: Path, text: str) -> object:
    name, loads = _FORMS[path.suffix]
    try:
        return loads(text)
    except ValueError as error:
        at = re.search(r"\bline (\d+)", str(error))  # both parsers say it in their message
        line = int(at[1]) if at else text.count("\n") + 1
        raise ConfigError([f"{path}:{line}: expected {name}: {error}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{path}: expected {name} without deep nesting"]) from error


def _listed(path: Path, text: str, document: object, listing: Listing[T]) -> list[str]:
    entries, noun = document, listing.noun
    if isinstance(document, dict):
        unknown = [key for key in document if key != noun]
        if unknown:
            raise ConfigError(
                [f"{path}:{_line_of(text, unknown[0])}: expected only {noun}, got {unknown[0]!r}"]
            )
        entries = document.get(noun)
    if not isinstance(entries, list):
        raise ConfigError([f"{path}:1: expected a list of URLs under {noun}"])
    others = [str(entry) for entry in entries if not isinstance(entry, str)]
    if others:
        raise ConfigError(
            [
                f"{path}:{_line_of(text, other)}: {listing.expected}, got {other[:200]!r}"
                for other in others[:FAULTS_MAX]
            ]
        )
    return entries


def _line_of(text: str, entry: str) -> int:
    """Line of an entry's first occurrence; parsers do not tell where a value stood."""
    at = text.find(entry)
    return text.count("\n", 0, at) + 1 if at >= 0 else 1


class FileSource:
    """The replicas that a file lists, each at one address at a time.

    Args:
        path: the file.
        timing: how often to look at the file, and at names.
        site: takes the replicas.
    """

    def __init__(self, path: Path, timing: DiscoverySettings, site: Site) -> None:
        self.name = str(path)
        self._named = NamedSource(partial(site.offer, self.name), site.is_up, interval_s=timing.dns_s)
        self._file = ListFile(path, self._named.set_urls, interval_s=timing.file_s, listing=REPLICAS)
        self.passed = self._named.passed

    @property
    def seen_ns(self) -> int | None:
        """When the file was last found good."""
        return self._file.seen_ns

    async def load(self) -> None:
        """Reads the file.

        Raises:
            ConfigError: it cannot be understood.
        """
        await self._file.load()

    async def run(self) -> None:
        """Looks at the file, and at the names in it, until cancelled."""
        await asyncio.gather(self._file.run(), self._named.run())

    async def look(self) -> None:
        """Reads the file if it changed."""
        await self._file.look()

    def troubles(self) -> dict[str, Trouble]:
        """Names of replicas without address, with the reason; what is wrong with the file, under its path."""
        failure = self._file.failure
        if failure is None:
            return self._named.troubles()
        return {self.name: Trouble(Lack.UNREAD, failure), **self._named.troubles()}


def sources(path: Path | None, timing: DiscoverySettings, site: Site) -> Iterator[FileSource]:
    """The source of the replicas in a file, if there is one."""
    if path is not None:
        yield FileSource(path, timing, site)
