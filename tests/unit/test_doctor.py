"""What `skylb doctor` finds, as it is put together."""

import asyncio

import pytest

from skylb.tools.doctor.findings import Report, in_order


def test_findings_stand_in_the_order_of_what_was_asked_whichever_answers_first() -> None:
    last_has_answered = asyncio.Event()

    async def look(name: str, report: Report) -> str:
        if name == "last":
            last_has_answered.set()
        await last_has_answered.wait()
        report.ok("replica", f"{name} answers")
        return name

    report = Report()
    assert asyncio.run(in_order(report, look, ["first", "last"])) == ["first", "last"]
    assert [finding.text for finding in report.findings] == ["first answers", "last answers"]


def test_what_was_found_before_a_failure_is_kept() -> None:
    async def look(name: str, report: Report) -> None:
        report.ok("replica", name)
        if name == "b":
            raise RuntimeError(name)

    report = Report()
    with pytest.raises(RuntimeError, match="b"):
        asyncio.run(in_order(report, look, ["a", "b"]))
    assert [finding.text for finding in report.findings] == ["a", "b"]
