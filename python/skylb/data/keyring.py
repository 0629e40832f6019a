"""Lets requests in by their API keys, before anything of their bodies is read.

A request without a valid key gets one answer, whatever is wrong with its key. Up to that answer the work is
the same too: one hash, one look-up, one comparison of times, two counts. Metrics and log have the reason.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from skylb._core import Head, RequestError
from skylb.clock import monotonic_ns, unix_offset_ns
from skylb.data.answers import status_of
from skylb.keys.ring import REASONS, UNKNOWN_ENTRY, Party, Ring

log = logging.getLogger("skylb.keys")

MESSAGE = "Incorrect API key provided."
"""Of every key that is not valid, and of none. The key is not repeated."""

IDS_LOGGED_MAX = 8
"""Ids of refused keys that one line of the log names."""


class Keyring:
    """The valid keys.

    Args:
        ring: the keys of the file, as it was read last.
        unix_offset_ns: answers how far the wall clock, by which keys end, is ahead of the monotonic one.
    """

    __slots__ = ("_entries", "_offset_ns", "_unix_offset_ns", "_used", "refused", "ring")

    def __init__(self, ring: Ring, unix_offset_ns: Callable[[], int] = unix_offset_ns) -> None:
        self._unix_offset_ns = unix_offset_ns
        self.refused = dict.fromkeys(REASONS, 0)
        """Requests that were not let in, by reason."""
        self._used: dict[str, int] = {}
        """Those since the last line in the log, by the key's id; without one for keys that no file has."""
        self.set(ring)

    def set(self, ring: Ring) -> None:
        """Takes another reading of the file. Requests that were let in go on."""
        self.ring = ring
        self._entries = ring.entries
        self.keep_time()

    def keep_time(self) -> None:
        """Looks at the wall clock, which may have been set. To be called every second or so."""
        self._offset_ns = self._unix_offset_ns()

    def party(self, digest: bytes, now_ns: int) -> Party | None:
        """The tenant that a key stands for at a moment of the monotonic clock; ``None`` for none.

        Args:
            digest: SHA-256 of the key.
            now_ns: the moment.
        """
        entry = self._entries.get(digest, UNKNOWN_ENTRY)
        if now_ns + self._offset_ns < entry.ends_ns:
            return entry.party
        self.refused[entry.reason] += 1
        self._used[entry.id] = self._used.get(entry.id, 0) + 1
        return None

    def tell(self) -> None:
        """Logs which keys were refused since the last time, if any: those that a file has, by their ids."""
        used, self._used = self._used, {}
        used.pop("", None)
        if not used:
            return
        most = Counter(used).most_common(IDS_LOGGED_MAX)
        named = ", ".join(f"{key_id} ({count})" for key_id, count in most)
        more = f", and {len(used) - IDS_LOGGED_MAX} more" if len(used) > IDS_LOGGED_MAX else ""
        log.warning("requests refused because their keys have expired or are revoked: %s%s", named, more)

    def states(self) -> dict[str, int]:
        """How many keys are valid, expired and revoked now."""
        return self.ring.states(monotonic_ns() + self._offset_ns)

    def families(self) -> Iterator[Metric]:
        """For ``/metrics``."""
        refused = CounterMetricFamily(
            "skylb_keys_refused", "Requests refused for their API keys.", labels=("reason",)
        )
        for reason, count in self.refused.items():
            refused.add_metric((reason,), count)
        yield refused
        keys = GaugeMetricFamily("skylb_keys", "API keys in the keys file.", labels=("state",))
        for state, count in self.states().items():
            keys.add_metric((state,), count)
        yield keys


def wrong_key(head: Head) -> RequestError:
    """The answer to a request without a valid key. The connection stays open, unless its end is not known."""
    error = RequestError(MESSAGE)
    error.status, error.code, error.message = status_of("invalid_api_key"), "invalid_api_key", MESSAGE
    error.param, error.allow, error.head = None, None, head
    error.close = head.expect_continue
    return error
