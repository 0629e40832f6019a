"""Who notices that the process stood still, and how often."""

from skylb.clock import STOOD_STILL_S, Standstill

S = 1_000_000_000
STILL_NS = int((STOOD_STILL_S + 0.5) * S)


def test_a_call_that_is_late_by_more_than_a_stall_finds_the_process_standing_still() -> None:
    standstill = Standstill(1.0)
    assert not standstill.before(5 * S), "the first has no due time"
    assert not standstill.before(6 * S)
    assert not standstill.before(7 * S + S // 2), "late, but awake"
    assert standstill.before(8 * S + S // 2 + STILL_NS)


def test_one_that_is_always_late_is_told_every_other_time() -> None:
    standstill, now_ns, told = Standstill(1.0), 0, []
    for _ in range(5):
        told.append(standstill.before(now_ns))
        now_ns += S + STILL_NS
    assert told == [False, True, False, True, False]
