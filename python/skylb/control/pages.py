"""Which metrics page SkyLB asks a replica for, and what the answers say.

At first SkyLB asks for the whole page. From then on it asks only for the metrics that it reads: a fifteenth
of the bytes for vLLM. That saves both sides most of a probe's cost. The first such answer shows whether the
engine supports it. If not, SkyLB asks for whole pages again.
"""

from http import HTTPStatus

from skylb._core import Snapshot, __version__
from skylb.control.dialects import DIALECTS, Dialect, read_page
from skylb.types import Replica
from skylb.upstream import Response

FIGURES = (
    "running",
    "waiting",
    "deferred",
    "kv_usage",
    "kv_tokens",
    "block_size",
    "cache_queries",
    "cache_hits",
    "preemptions",
)
"""Of a snapshot, those that are ``None`` where a page does not tell them."""


class Pages:
    """The pages of one replica.

    Args:
        replica: the one to ask.
    """

    __slots__ = (
        "_dialect",
        "_narrowed_requests",
        "_refused",
        "_told",
        "_tried",
        "_whole_request",
        "narrowed",
        "request",
    )

    def __init__(self, replica: Replica) -> None:
        self._dialect: Dialect | None = None
        self._told: set[str] | None = None
        """What its last whole page had, until a narrowed one has had as much."""
        self._refused = False
        """It does not take requests for narrowed pages."""
        self._tried = -1
        """Dialects in which narrowed pages were tried because whole ones cannot be read."""
        self.aim(replica)

    def aim(self, replica: Replica) -> None:
        """Takes over the replica as it is now: its key may have changed."""
        self._whole_request = get_request("/metrics", "text/plain", replica)
        self._narrowed_requests = {
            dialect.name: get_request(dialect.narrowed_path, "text/plain", replica) for dialect in DIALECTS
        }
        self.forget()

    def forget(self) -> None:
        """What stands at its address may be another server from now on."""
        self._refused = False
        self._ask_whole()

    def _ask_whole(self) -> None:
        self.request = self._whole_request
        """The bytes to send next."""
        self.narrowed = False
        """Whether they ask for a narrowed page."""

    def unanswered(self, narrowed: bool, *, late: bool) -> bool:
        """A probe ended without an answer.

        Args:
            narrowed: whether a narrowed page was asked for.
            late: it took too long: the same server is there, and what is less work for it is asked for again.

        Returns:
            Whether that may be because a narrowed page was asked for: then a whole one is to be asked for at
            once.
        """
        untried = narrowed and self._told is not None
        if untried or not late:
            self.forget()
            self._refused = untried
        return untried

    def unreadable(self) -> None:
        """A whole page is beyond what is read: narrowed ones are tried, in each dialect in turn."""
        self._tried += 1
        dialect = DIALECTS[self._tried % len(DIALECTS)]
        self.request = self._narrowed_requests[dialect.name]
        self.narrowed = True

    def read(self, response: Response, narrowed: bool) -> Snapshot | None:
        """What an answer says; ``None`` where it tells no load.

        Args:
            response: the answer.
            narrowed: whether a narrowed page was asked for. Where one tells no load, a whole one is to be
                asked for at once.
        """
        read = read_page(response.body, self._dialect) if response.status == 200 else None
        if not narrowed:
            return self._read_whole(read)
        if read is None or (self._told is not None and not self._told <= _told(read[0])):
            # Refused at the first, or another server since: then a whole page tells which.
            self._refused = self._told is not None
            self._ask_whole()
            return None
        self._told = None
        return read[0]

    def _read_whole(self, read: tuple[Snapshot, Dialect] | None) -> Snapshot | None:
        if read is None:
            return None
        snapshot, dialect = read
        if dialect is not self._dialect:
            self._dialect = dialect
            self._refused = False
        if not self._refused:
            self._told = _told(snapshot)
            self.request = self._narrowed_requests[dialect.name]
            self.narrowed = True
        return snapshot


def refusal(path: str, status: int, replica: Replica) -> str:
    """What a replica answers instead of a page or a list, for people: with the flag that may help."""
    said = f"{path} answers {status}"
    if status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return said
    key = replica.probe_authorization
    if key is None:
        return f"{said} without a key: probe_key_file gives one"
    option = "replica_key_file" if key == replica.authorization else "probe_key_file"
    return f"{said} to the key of {option}"


def get_request(path: str, accept: str, replica: Replica) -> bytes:
    """A GET, whole."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {replica.authority}",
        f"User-Agent: skylb/{__version__}",
        f"Accept: {accept}",
        "Accept-Encoding: identity",
    ]
    if replica.probe_authorization is not None:
        lines.append(f"Authorization: {replica.probe_authorization}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _told(snapshot: Snapshot) -> set[str]:
    return {name for name in FIGURES if getattr(snapshot, name) is not None}
