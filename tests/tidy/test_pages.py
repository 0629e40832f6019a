"""Two pages that the code holds to what they say: what passes, and every limit."""

from tests.tidy import limits, tables


def test_every_limit_has_a_row_that_says_its_value_and_what_happens_at_it() -> None:
    faults = limits.faults(limits.PAGE.read_text())
    assert not faults, "\n".join(faults)


def test_a_limit_without_a_row_is_found_and_named() -> None:
    text = limits.PAGE.read_text()
    limit = next(limit for limit in limits.limits() if limit.name == "--body-bytes-max")
    without = "\n".join(line for line in text.splitlines() if "`--body-bytes-max`" not in line)
    assert any("lacks a row" in fault and limit.name in fault for fault in limits.faults(without))
    wrong = text.replace(f"| `{limit.name}` | setting | {limit.value} |", f"| `{limit.name}` | setting | 7 |")
    assert any(limit.name in fault and "not 7" in fault for fault in limits.faults(wrong))
    assert limits.renewed(wrong) == text


def test_the_tables_that_the_core_has_are_current() -> None:
    texts = [page.read_text() for page in (tables.PASSING, tables.ALGORITHM)]
    assert [tables.passing(text) for text in texts] == texts, "run `make docs`"
    assert all(any(f"<!-- core: {name} -->" in text for text in texts) for name in tables.TABLES)
