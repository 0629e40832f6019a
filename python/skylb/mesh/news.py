"""The news that a peer has not received yet, in frames that fit and at a rate that the peer takes."""

from collections.abc import Sequence

from skylb.mesh.frames import HeirsByName, Kind, More, News, encode

CHUNK_BYTES = 8 << 10
"""Of replicas or heirs in one frame; one item may go beyond it."""

REPLICAS_BYTES_MAX = 40 << 10
"""Of replicas for a peer that knows no `More`: with all else that is in its frame it stays below
`frames.FRAME_BYTES_MAX`. Those beyond are served by us alone, as that peer sees it."""

BYTES_PER_S_MAX = 32 << 10
BURST_BYTES = 256 << 10
"""A peer ends a connection that brings more than `sync.RECEIVE_BYTES_PER_S_MAX` in the long run."""

NOTHING = News([], {}, [])

Heirs = tuple[int, int, list[str]]


class NewsTeller:
    """The news as one peer knows them, from the begin of a connection on.

    Heirs are sent one by one, when they change, and not to the peer that has sent them or names them.

    Args:
        peer: its name.
    """

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._reached: list[str] | None = None
        self._replicas: list[str] | None = None
        self._rest: Sequence[str] = ()
        """Replicas that follow those sent so far."""
        self._heirs: dict[str, tuple[int, int]] = {}
        self._credit_bytes = float(BURST_BYTES)
        self._credited_ns: int | None = None

    def heard(self, heirs: HeirsByName) -> None:
        """The peer itself has sent these."""
        self._heirs.update((name, (start, sequence)) for name, (start, sequence, _) in heirs.items())

    def next(self, news: News, *, knows_more: bool, now_ns: int) -> tuple[Kind, bytes] | None:
        """The next frame to send now, if there is one.

        Args:
            news: as they are.
            knows_more: the peer understands `Kind.MORE`.
            now_ns: the clock.
        """
        before_ns, self._credited_ns = self._credited_ns, now_ns
        earned_bytes = 0 if before_ns is None else (now_ns - before_ns) * BYTES_PER_S_MAX / 1e9
        self._credit_bytes = min(BURST_BYTES, self._credit_bytes + earned_bytes)
        if self._credit_bytes <= 0:
            return None
        said = self._split(news) if knows_more else self._whole(news)
        if said is None:
            return None
        payload = encode(said)
        self._credit_bytes -= len(payload)
        return Kind.NEWS if isinstance(said, News) else Kind.MORE, payload

    def _split(self, news: News) -> News | More | None:
        if self._replicas != news.replicas:
            self._reached, self._replicas, self._rest = news.reached, news.replicas, news.replicas
            return News(news.reached, {}, self._next_replicas())
        if self._reached != news.reached:
            self._reached = news.reached
            return News(news.reached, {}, [], same_replicas=True)
        if self._rest:
            return More({}, self._next_replicas())
        heirs = self._next_heirs(news)
        return More(heirs, []) if heirs else None

    def _whole(self, news: News) -> News | None:
        changed = self._replicas != news.replicas or self._reached != news.reached
        heirs = self._next_heirs(news)
        if not changed and not heirs:
            return None
        self._reached, self._replicas, self._rest = news.reached, news.replicas, ()
        return News(news.reached, heirs, _fitting(news.replicas, REPLICAS_BYTES_MAX))

    def _next_replicas(self) -> list[str]:
        told = _fitting(self._rest, CHUNK_BYTES)
        self._rest = self._rest[len(told) :]
        return told

    def _next_heirs(self, news: News) -> dict[str, Heirs]:
        told: dict[str, Heirs] = {}
        size_bytes = 0
        for name, heirs in news.heirs.items():
            if name == self._peer or self._heirs.get(name) == heirs[:2]:
                continue
            if size_bytes >= CHUNK_BYTES:
                break
            told[name] = heirs
            self._heirs[name] = heirs[:2]
            size_bytes += _size(name) + sum(map(_size, heirs[2]))
        # Those that are no longer told need not be remembered.
        self._heirs = {name: number for name, number in self._heirs.items() if name in news.heirs}
        return told


def _fitting(texts: Sequence[str], bytes_max: int) -> list[str]:
    """The first of them, as many as fit."""
    size_bytes, fitting = 0, []
    for text in texts:
        size_bytes += _size(text)
        if size_bytes > bytes_max:
            break
        fitting.append(text)
    return fitting


def _size(text: str) -> int:
    """As encoded, at most."""
    return 3 + len(text.encode())
