"""What a peer is told of the news: it fits into frames whatever they are, and arrives whole."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skylb.mesh.frames import (
    FRAME_BYTES_MAX,
    MAC_BYTES,
    NAME_LEN_MAX,
    REPLICAS_MAX,
    URL_LEN_MAX,
    HeirsByName,
    Kind,
    News,
    read_more,
    read_news,
)
from skylb.mesh.news import BURST_BYTES, BYTES_PER_S_MAX, NewsTeller
from skylb.settings.mesh import PEERS_MAX

SECOND_NS = 1_000_000_000
FRAME_HEAD_BYTES = 20
"""Kind, sequence and length, at most."""


class Peer:
    """What a peer knows by what it was told."""

    def __init__(self, *, knows_more: bool) -> None:
        self.knows_more = knows_more
        self.teller = NewsTeller("the peer")
        self.news = News([], {}, [])
        self.heirs: HeirsByName = {}
        self.frames = 0
        self.now_ns = 0

    def hear(self, news: News, *, seconds: int = 60) -> int:
        """Is told all, in so much time; the bytes of it."""
        size = 0
        for _ in range(seconds * 10):
            self.now_ns += SECOND_NS // 10
            while (
                told := self.teller.next(news, knows_more=self.knows_more, now_ns=self.now_ns)
            ) is not None:
                kind, payload = told
                assert len(payload) + FRAME_HEAD_BYTES + MAC_BYTES <= FRAME_BYTES_MAX
                self.take(kind, payload)
                size += len(payload)
        return size

    def take(self, kind: Kind, payload: bytes) -> None:
        """As a link does."""
        self.frames += 1
        if kind is Kind.NEWS:
            told = read_news(payload)
            self.heirs |= told.heirs
            replicas = self.news.replicas if told.same_replicas else told.replicas
            self.news = News(told.reached, {}, replicas)
        else:
            more = read_more(payload)
            self.heirs |= more.heirs
            self.news = News(self.news.reached, {}, [*self.news.replicas, *more.replicas])


def names(count: int, length: int) -> list[str]:
    return [f"{number:0>{length}}" for number in range(count)]


def most(name_len: int, url_len: int) -> News:
    """The news of a balancer with all peers that there may be, of itself too."""
    peers = names(PEERS_MAX, name_len)
    all_names = [*peers, "x" * name_len]
    heirs = dict.fromkeys(all_names, (1 << 61, 1 << 61, peers))
    return News(peers, heirs, [f"http://{number:0>{url_len - 7}}" for number in range(REPLICAS_MAX)])


@pytest.mark.parametrize("name_len", [2, 15, NAME_LEN_MAX])
@pytest.mark.parametrize("url_len", [30, URL_LEN_MAX])
def test_the_most_that_there_can_be_fits_and_arrives_whole(name_len: int, url_len: int) -> None:
    news, peer = most(name_len, url_len), Peer(knows_more=True)
    peer.hear(news)
    assert (peer.news.reached, peer.news.replicas) == (news.reached, news.replicas)
    assert peer.heirs == news.heirs


@pytest.mark.parametrize("name_len", [2, 15, NAME_LEN_MAX])
def test_a_peer_that_knows_no_more_frames_hears_all_but_the_replicas_that_do_not_fit(name_len: int) -> None:
    news, peer = most(name_len, URL_LEN_MAX), Peer(knows_more=False)
    peer.hear(news, seconds=240)
    assert peer.news.reached == news.reached
    assert peer.news.replicas == news.replicas[: len(peer.news.replicas)]
    assert len(peer.news.replicas) > 100
    assert peer.heirs == news.heirs


name = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
some_names = st.lists(name, unique=True, max_size=PEERS_MAX)
number = st.integers(0, 1 << 62)
some_news = st.builds(
    News,
    some_names,
    st.dictionaries(name, st.tuples(number, number, some_names), max_size=8),
    st.lists(st.text(max_size=URL_LEN_MAX), max_size=REPLICAS_MAX),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(some_news, min_size=1, max_size=4), st.booleans())
def test_whatever_the_news_become_the_last_arrive(all_news: list[News], knows_more: bool) -> None:
    peer = Peer(knows_more=knows_more)
    for news, seconds in zip(all_news, itertools.cycle((0, 1, 60)), strict=False):
        peer.hear(news, seconds=seconds)
    last = all_news[-1]
    peer.hear(last)
    assert peer.news.reached == last.reached
    assert {name: peer.heirs[name] for name in last.heirs} == last.heirs
    if knows_more:
        assert peer.news.replicas == last.replicas


def test_only_what_has_changed_is_told_again() -> None:
    news, peer = most(15, 30), Peer(knows_more=True)
    peer.hear(news)
    before = peer.frames
    assert peer.hear(news) == 0
    changed = News(news.reached[1:], news.heirs, news.replicas)
    assert peer.hear(changed) < 2_000
    heirs = {**news.heirs, news.reached[5]: (1 << 61, (1 << 61) + 1, ["eu"])}
    assert peer.hear(News(news.reached[1:], heirs, news.replicas)) < 100
    assert peer.frames == before + 2
    assert peer.heirs == heirs


def test_heirs_that_a_peer_has_told_or_named_itself_are_not_told_back() -> None:
    peer = Peer(knows_more=True)
    peer.teller.heard({"eu": (1, 2, ["us"])})
    peer.hear(News([], {"eu": (1, 2, ["us"]), "asia": (1, 1, []), "the peer": (1, 1, [])}, []))
    assert set(peer.heirs) == {"asia"}


def test_a_peer_is_not_told_more_than_it_takes() -> None:
    peer, size = Peer(knows_more=True), 0
    for sequence in range(100):
        news = most(NAME_LEN_MAX, URL_LEN_MAX)
        heirs = {name: (start, sequence, heirs) for name, (start, _, heirs) in news.heirs.items()}
        size += peer.hear(News(news.reached, heirs, news.replicas), seconds=1)
    assert size <= BURST_BYTES + 101 * BYTES_PER_S_MAX + 2 * FRAME_BYTES_MAX
