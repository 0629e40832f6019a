"""Slow start, without a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylb.tools.wan.window import INITIAL_BYTES, RTO_MIN_S, Window

RTT_S = 0.15
MAX = 4 << 20


def round_trips(window: Window, count: int, now_s: float) -> tuple[int, float]:
    """Rounds that ``count`` bytes take, each sent as soon as the window allows, and the time after them."""
    rounds = 0
    while count > 0:
        sent = min(count, window.room(now_s, RTT_S, slow_start=True))
        assert sent > 0
        window.sent(sent, now_s)
        count -= sent
        rounds += 1
        now_s += RTT_S
        window.acked(sent)
    return rounds, now_s


@pytest.mark.parametrize(
    ("count", "rounds"),
    [(1, 1), (INITIAL_BYTES, 1), (INITIAL_BYTES + 1, 2), (3 * INITIAL_BYTES, 2), (400_000, 5)],
)
def test_a_cold_connection_doubles_every_round_trip(count: int, rounds: int) -> None:
    assert round_trips(Window(MAX), count, 0.0)[0] == rounds


def test_a_warm_connection_takes_one_round_trip_and_an_idle_one_begins_anew() -> None:
    window = Window(MAX)
    _, now_s = round_trips(window, 400_000, 0.0)
    rounds, now_s = round_trips(window, 400_000, now_s)
    assert rounds == 1
    rounds, _ = round_trips(window, 400_000, now_s + RTT_S + RTO_MIN_S)
    assert rounds == 5


def test_small_requests_do_not_open_the_window() -> None:
    window = Window(MAX)
    now_s = 0.0
    for _ in range(100):
        _, now_s = round_trips(window, 1000, now_s)
    assert window.bytes == INITIAL_BYTES


@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 10)), max_size=50))
def test_never_more_is_under_way_than_the_window_and_the_window_keeps_its_bounds(
    transfers: list[tuple[int, float]],
) -> None:
    window = Window(1 << 20)
    now_s = 0.0
    for count, pause_s in transfers:
        _, now_s = round_trips(window, count, now_s + pause_s)
        assert window.flight == 0
        assert INITIAL_BYTES <= window.bytes <= 1 << 20
