"""Operators' words for regions: the last one counts, for ever, whatever peers say."""

from skylb.mesh.frames import Order
from skylb.mesh.orders import AHEAD_NS, ORDERS_MAX, WITHIN_S_MAX, Orders, leave_ns

NOW_NS = 1_800_000_000 * 1_000_000_000


def take(orders: Orders, order: Order, *regions: str) -> bool:
    """As a balancer does."""
    news = orders.is_news(order)
    if news:
        orders.remember(order, regions)
    return news


def test_the_later_word_counts() -> None:
    orders = Orders()
    assert take(orders, Order("eu", True, 5), "eu")
    assert not take(orders, Order("eu", False, 5), "eu")
    assert not take(orders, Order("eu", False, 4), "eu")
    assert orders.of("eu") == Order("eu", True, 5)
    assert take(orders, Order("eu", False, 6), "eu")
    assert orders.all() == [Order("eu", False, 6)]


def test_a_word_of_a_time_that_nothing_comes_after_is_not_taken() -> None:
    orders = Orders()
    assert orders.is_ahead(Order("eu", True, 1 << 62), NOW_NS)
    assert orders.is_ahead(Order("eu", True, NOW_NS + AHEAD_NS + 1), NOW_NS)
    assert not orders.is_ahead(Order("eu", True, NOW_NS + AHEAD_NS), NOW_NS)


def test_the_next_word_given_anywhere_is_taken_by_all_that_took_the_one_before() -> None:
    here, there = Orders(), Orders()
    furthest = Order("eu", True, NOW_NS + AHEAD_NS)
    for orders in (here, there):
        take(orders, furthest, "eu")
    for evacuating in (False, True) * 20:
        word = Order("eu", evacuating, here.next_ns("eu", NOW_NS))
        for orders in (here, there):
            assert not orders.is_ahead(word, NOW_NS - 1_000_000_000)  # a clock a little behind
            assert take(orders, word, "eu")


def test_regions_come_and_go_for_ever_and_those_with_balancers_keep_their_word() -> None:
    orders = Orders()
    take(orders, Order("eu", True, 5), "eu")
    for number in range(1_000):
        assert take(orders, Order(f"region-{number}", True, number), "eu", "us")
        assert len(orders.all()) <= ORDERS_MAX
    assert orders.of("eu") == Order("eu", True, 5)
    assert orders.of("region-999") is not None


def test_the_time_at_which_streams_leave_is_on_each_balancers_own_clock() -> None:
    order = Orders().new("eu", True, 2.5, NOW_NS)
    assert leave_ns(order, NOW_NS, 100) == 100 + 2_500_000_000
    assert leave_ns(order, NOW_NS + 3_000_000_000, 100) == 100, "the time is over"
    assert leave_ns(order, 0, 100) == 100 + WITHIN_S_MAX * 1_000_000_000, "a clock that is far ahead"
    assert leave_ns(Orders().new("eu", True, None, NOW_NS), NOW_NS, 100) is None
