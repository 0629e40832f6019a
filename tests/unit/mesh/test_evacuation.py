"""What stays in an evacuated region is counted, and said at most every ten seconds."""

import pytest

from skylb.mesh.evacuation import LOG_INTERVAL_NS, Evacuation


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
    evacuation = Evacuation("us", router)  # type: ignore[arg-type]  # only its counters are read
    evacuation.look(1)
    assert evacuation.stayed == 0
    evacuation.set(evacuating=True)
    evacuation.look(2)
    assert (evacuation.stayed, caplog.messages) == (0, [])
    router.count += 1
    evacuation.look(3)
    router.count += 1
    evacuation.set(evacuating=True)
    evacuation.look(4)
    assert (evacuation.stayed, len(caplog.messages)) == (2, 1)
    evacuation.look(3 + LOG_INTERVAL_NS)
    evacuation.look(4 + 2 * LOG_INTERVAL_NS)
    assert ["stayed: 1;" in line or "stayed: 2;" in line for line in caplog.messages] == [True, True]
    evacuation.set(evacuating=False)
    router.count += 1
    evacuation.look(5 + 3 * LOG_INTERVAL_NS)
    assert (evacuation.stayed, len(caplog.messages)) == (0, 2)
