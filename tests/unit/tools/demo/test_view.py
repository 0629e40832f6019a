"""What the demo shows on a terminal, and how it words failures."""

import pytest
from rich.console import Console

from skylb.admin.state import State
from skylb.tools.demo.compare import Comparison, Setting
from skylb.tools.demo.failures import reasons, sentence
from skylb.tools.demo.frame import FlowFrame, Frame, RegionFrame, ReplicaFrame
from skylb.tools.demo.state import History, Look, Users
from skylb.tools.demo.view import View
from skylb.tools.load.stats import Histogram, Tally

NAMES = ("us", "eu", "asia")


class FakeLoad:
    """Figures without users."""

    def tally(self, region: str) -> Tally:
        del region
        return Tally(failed=3)

    def total(self) -> Tally:
        return Tally(failed=9)


def full_frame() -> Frame:
    """Three regions in every kind of trouble, with figures as long as they get."""
    comparison = Comparison(Setting("predictive"))
    histogram = Histogram()
    for second, setting in (
        (11.0, "predictive"),
        (30.0, "predictive"),
        (31.0, "round_robin"),
        (60.0, "round_robin"),
    ):
        histogram.add(12.345)
        comparison.look(second, Setting(setting, share=False), histogram)
    return Frame(
        t_s=1234.5,
        title="a title",
        regions=[
            RegionFrame(
                name=name,
                balancer="killed" if name == "us" else "up",
                evacuating=name == "eu",
                held=123,
                users=100,
                sent_to="asia",
                ttft_p50_s=12.345,
                replicas=[
                    ReplicaFrame(
                        name=f"{name}-{n}",
                        health="draining",
                        in_flight=99,
                        pending=99,
                        cached=1.0,
                        served_by="asia",
                    )
                    for n in range(1, 5)
                ],
            )
            for name in NAMES
        ],
        flows=[FlowFrame(origin="asia", target=name, per_s=12.3) for name in ("us", "eu")],
        news=[(1234.5, f"all balancers: {name}") for name in NAMES],
        given=comparison.given(),
    )


def test_the_table_fits_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    history = History()
    empty: dict[str, State] = {}
    users = {name: Users(Histogram().buckets, 0) for name in NAMES}
    history.add(Look(0.0, empty, users))
    history.add(Look(10.0, empty, users))
    view = View("SkyLB: 3 regions with 4 mock replicas and up to 44 users", 9)
    view.page = "http://127.0.0.1:45678/"
    console = Console(width=80, force_terminal=False)
    console.print(view.screen(full_frame(), history, FakeLoad()))  # type: ignore[arg-type]  # it has what is read
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for words in (
        "balancer killed",
        "evacuated",
        "by asia",
        "12.3 us 12.3 eu",
        "100 >asia",
        "12345 ms",
        view.page,
    ):
        assert words in text
    assert "…" not in text


def test_without_a_terminal_its_lines_fit_eighty_columns_too(capsys: pytest.CaptureFixture[str]) -> None:
    history = History()
    users = {name: Users(Histogram().buckets, 0) for name in NAMES}
    history.add(Look(10.0, {}, users))
    view = View("three regions", 9)
    view.show(full_frame(), history, FakeLoad())  # type: ignore[arg-type]  # it has what is read
    text = capsys.readouterr().out
    assert "requests/s" in text
    assert "held: us -, eu 123, asia 123" in text
    assert max(map(len, text.splitlines())) <= 80


def test_failures_are_counted_by_reason_and_an_unknown_code_is_said_as_it_is() -> None:
    codes = {"upstream_reset": 5, "connect": 2, "reset": 1, "brand_new": 1}
    assert reasons(codes)[0] == ("cut by a killed replica", 5)
    assert sentence(codes).startswith("5 cut by a killed replica, 2 balancer dead")
    assert "1 brand new" in sentence(codes)
    assert sentence({}) == ""


def test_the_code_of_an_error_is_taken_from_the_answer_or_event_that_had_it() -> None:
    tally = Tally()
    tally.fail("stream_error", "upstream_reset: the replica closed the connection")
    tally.fail("http_503", '{"error":{"message":"no room","code":"hold_full"}}')
    tally.fail("http_500", "no JSON")
    tally.fail("truncated", "closed")
    assert dict(tally.codes) == {"upstream_reset": 1, "hold_full": 1, "http_500": 1, "truncated": 1}
    assert dict(tally.errors) == {"stream_error": 1, "http_503": 1, "http_500": 1, "truncated": 1}
