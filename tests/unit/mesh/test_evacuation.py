"""What stays in an evacuated region is counted, and said at most every ten seconds."""

import pytest

from skylb.mesh.evacuation import TOLD_NS, Leaving


class Counting:
    """A router that has begun so many requests here while its region was evacuated."""

    def __init__(self) -> None:
        self.count = 5

    @property
    def engine(self) -> "Counting":
        return self

    def counters(self) -> dict[str, int]:
        return {"evacuation_stayed": self.count}


def test_what_stays_is_counted_from_the_order_on_and_said_again_after_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = Counting()
    leaving = Leaving("us", router)  # type: ignore[arg-type]  # only its counters are read
    leaving.look(1)
    assert leaving.stayed == 0
    leaving.set(evacuating=True)
    leaving.look(2)
    assert (leaving.stayed, caplog.messages) == (0, [])
    router.count += 1
    leaving.look(3)
    router.count += 1
    leaving.set(evacuating=True)
    leaving.look(4)
    assert (leaving.stayed, len(caplog.messages)) == (2, 1)
    leaving.look(3 + TOLD_NS)
    leaving.look(4 + 2 * TOLD_NS)
    assert ["stayed: 1;" in line or "stayed: 2;" in line for line in caplog.messages] == [True, True]
    leaving.set(evacuating=False)
    router.count += 1
    leaving.look(5 + 3 * TOLD_NS)
    assert (leaving.stayed, len(caplog.messages)) == (0, 2)
