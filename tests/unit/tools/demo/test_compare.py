"""What is measured goes to the setting under which it was."""

from skylb.tools.demo.compare import BEFORE_S, MARKS_LEN, SETTLE_S, WARM_S, Comparison, Setting
from skylb.tools.load.stats import Histogram

GOOD = Setting("predictive")
POOR = Setting("round_robin")


class Users:
    """Users who see one TTFT each half second."""

    def __init__(self) -> None:
        self.ttft = Histogram()
        self.comparison = Comparison(GOOD)
        self.now_s = 0.0

    def go_on(self, seconds: float, setting: Setting, ttft_s: float) -> None:
        for _ in range(int(seconds * 2)):
            self.now_s += 0.5
            self.ttft.add(ttft_s)
            self.comparison.look(self.now_s, setting, self.ttft)


def near(value_s: float | None, wanted_s: float) -> bool:
    return value_s is not None and abs(value_s / wanted_s - 1) < 0.02


def test_the_time_in_which_caches_fill_counts_for_no_setting() -> None:
    users = Users()
    users.go_on(WARM_S - 1, GOOD, 5.0)
    assert users.comparison.since.requests == 0
    assert users.comparison.since.p90_s is None
    users.go_on(1, GOOD, 5.0)
    users.go_on(20, GOOD, 0.1)
    assert near(users.comparison.since.p90_s, 0.1)
    assert users.comparison.since.seconds == 20.0
    assert users.comparison.before is None


def test_a_switch_gives_a_mark_and_two_numbers_and_what_settles_counts_for_neither() -> None:
    users = Users()
    users.go_on(WARM_S + BEFORE_S + 20, GOOD, 0.1)
    switched_s = users.now_s + 0.5
    users.go_on(SETTLE_S, POOR, 9.0)
    users.go_on(12, POOR, 0.4)
    before, since = users.comparison.before, users.comparison.since
    assert before is not None
    assert (before.setting, since.setting, since.now) == ("predictive", "round robin", True)
    assert near(before.p90_s, 0.1)
    assert near(since.p90_s, 0.4)
    assert BEFORE_S - 1 <= before.seconds <= BEFORE_S + 1
    assert list(users.comparison.marks) == [(switched_s, "round robin")]


def test_a_setting_that_comes_back_goes_on_counting() -> None:
    users = Users()
    users.go_on(WARM_S + 10, GOOD, 0.1)
    users.go_on(10, POOR, 0.4)
    users.go_on(10, GOOD, 0.1)
    given = users.comparison.given()
    assert [(found.setting, found.now) for found in given] == [("predictive", True), ("round robin", False)]
    assert near(given[0].p50_s, 0.1)
    assert near(given[1].p50_s, 0.4)
    assert given[0].requests > given[1].requests


def test_a_switch_before_anything_counted_has_no_number_before_it() -> None:
    users = Users()
    users.go_on(2, GOOD, 0.1)
    users.go_on(20, Setting("predictive", share=False), 0.2)
    assert users.comparison.before is None
    assert users.comparison.since.setting == "predictive, regions alone"
    assert [text for _, text in users.comparison.marks] == ["regions alone"]


def test_marks_are_bounded() -> None:
    users = Users()
    for _ in range(MARKS_LEN):
        users.go_on(1, POOR, 0.1)
        users.go_on(1, GOOD, 0.1)
    assert len(users.comparison.marks) == MARKS_LEN
