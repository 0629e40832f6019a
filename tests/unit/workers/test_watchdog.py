"""Who hangs, by the times of beats."""

from dataclasses import dataclass

import pytest

from skylb.workers.router import understood
from skylb.workers.watchdog import LATE_S, SILENCE_S, START_S, Watchdog

LOOK_S = 0.5


@dataclass(eq=False)
class Child:
    """A child that beats, or does not."""

    beat_ns: int = 0
    beats: bool = True


def look(watchdog: Watchdog, child: Child, at_s: float) -> bool:
    """Whether the child hangs, as of a time."""
    return watchdog.silent([(child, SILENCE_S)], int(at_s * 1e9)) == [child]


def test_a_child_that_beats_does_not_hang_and_a_silent_one_does() -> None:
    watchdog, child = Watchdog(), Child()
    for number in range(20):
        child.beat_ns = int(number * LOOK_S * 1e9)
        assert not look(watchdog, child, number * LOOK_S)
    last_s = 19 * LOOK_S
    found = [look(watchdog, child, last_s + number * LOOK_S) for number in range(1, 13)]
    assert found == [False] * int(SILENCE_S / LOOK_S) + [True, True]


def test_a_child_may_take_longer_to_its_first_beat() -> None:
    watchdog, child = Watchdog(), Child(beats=False)
    found = [look(watchdog, child, number * LOOK_S) for number in range(int(START_S / LOOK_S) + 2)]
    assert found.index(True) == int(START_S / LOOK_S) + 1


def test_a_supervisor_that_was_not_scheduled_blames_nobody() -> None:
    watchdog, child = Watchdog(), Child()
    assert not look(watchdog, child, 0)
    assert not look(watchdog, child, 60)
    later = [look(watchdog, child, 60 + number * LOOK_S) for number in range(1, 12)]
    assert later == [False] * int(SILENCE_S / LOOK_S) + [True]
    assert LATE_S > 2 * LOOK_S


@pytest.mark.parametrize("error", [KeyError(7), ValueError("no"), AttributeError("x"), RuntimeError()])
def test_whatever_a_report_causes_ends_the_line_alone(error: Exception) -> None:
    def receive() -> None:
        raise error

    assert not understood(receive)
    assert understood(lambda: None)
