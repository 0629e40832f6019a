"""The keys file at work: read at start, watched, and applied to the data plane and the engine.

A file that is broken later changes nothing: the last good one stays in use, and one line in the log says so.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from skylb.config import Settings
from skylb.data.keyring import Keyring
from skylb.errors import ConfigError
from skylb.keys.document import Document
from skylb.keys.ring import Ring, read_ring
from skylb.router import Router
from skylb.settings.mesh import ResidencyRule
from skylb.tasks import TaskGroup
from skylb.watch import WatchedFile

log = logging.getLogger("skylb.keys")

KEEP_TIME_S = 1.0
"""Between two looks at the wall clock."""

TELL_ROUNDS = 10
"""Looks at the clock between two lines in the log that name keys which were refused."""


class Guard:
    """Keeps keys and terms as the file has them.

    Args:
        path: the keys file.
        apply: gets each reading of the file before its keys count.
        interval_s: time between two looks at the file.
        on_failure: called where the file and the clock are looked at no longer.
    """

    def __init__(
        self,
        path: Path,
        apply: Callable[[Ring], None],
        *,
        interval_s: float,
        on_failure: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        self._path = path
        self._apply = apply
        self._file = WatchedFile(
            path, read_ring, self._take, interval_s=interval_s, kept="the last good keys stay in use"
        )
        self._tasks = TaskGroup(on_failure)
        self.keyring = Keyring(Ring(Document()))

    def _take(self, ring: Ring) -> None:
        """Applies another reading of the file, the whole of it or nothing."""
        try:
            self._apply(ring)
        except ValueError as error:
            self._apply(self.keyring.ring)
            raise ConfigError([f"{self._path}: tenants: {error}"]) from error
        self.keyring.set(ring)
        log.info("%s: %s", self._path, self.about())

    async def start(self) -> None:
        """Reads and applies the file, and looks at it from now on. Before, no key is valid.

        Raises:
            ConfigError: the file cannot be read or understood.
        """
        await self._file.load()
        self._tasks.start(self._file.run(), name="keys file")
        self._tasks.start(self._keep(), name="keys")

    async def _keep(self) -> None:
        while True:
            for _ in range(TELL_ROUNDS):
                await asyncio.sleep(KEEP_TIME_S)
                self.keyring.keep_time()
            self.keyring.tell()

    def renew(self) -> None:
        """Reads the file at once, in the background, if it changed."""
        self._tasks.start(self._file.renew(), name="renew keys")

    async def close(self) -> None:
        """Looks at the file no more."""
        await self._tasks.stop()
        self.keyring.tell()

    def about(self) -> str:
        """How many tenants and keys there are, in a line."""
        states = self.keyring.states()
        valid = states.pop("valid")
        others = "".join(f", {count} {state}" for state, count in states.items() if count)
        tenants = len(self.keyring.ring.parties)
        return f"{_count(tenants, 'tenant')}, {_count(valid, 'valid key')}{others}"

    def view(self) -> dict[str, Any]:
        """For operators."""
        ring = self.keyring.ring
        return {
            "file": str(self._path),
            "fault": self._file.failure,
            "tenants": len(ring.parties),
            "keys": self.keyring.states(),
            "refused": dict(self.keyring.refused),
        }

    def families(self) -> Iterator[Metric]:
        """For ``/metrics``."""
        yield from self.keyring.families()
        yield GaugeMetricFamily(
            "skylb_keys_file_good",
            "1: the keys file, as it is now, is in use. 0: it is broken, and the last good one is.",
            value=float(self._file.failure is None),
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def rules_for(rules: Sequence[ResidencyRule], router: Router) -> Callable[[Ring], None]:
    """What gives an engine the terms of tenants, and their regions besides the rules of the configuration."""
    residency = [(rule.tenant, rule.model, [*rule.regions]) for rule in rules]

    def apply(ring: Ring) -> None:
        router.set_residency([*residency, *ring.residency])
        router.set_tenants(ring.terms)

    return apply


def make(
    settings: Settings,
    apply: Callable[[Ring], None],
    on_failure: Callable[[str, BaseException], None] | None = None,
) -> Guard | None:
    """The guard, where the settings name a keys file; ``apply``: see `Guard`."""
    if settings.keys_file is None:
        return None
    return Guard(
        settings.keys_file,
        apply,
        interval_s=settings.discovery.file_s,
        on_failure=on_failure,
    )
