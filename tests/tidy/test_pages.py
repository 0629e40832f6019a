"""Pages that the code holds to what they say: what passes, every limit, and the fields of scenarios."""

import json
from typing import Annotated

import msgspec
import pytest
from msgspec.inspect import StructType, Type, type_info

from skylb.dropin.row import PROGRAMS
from skylb.tools.sim.scenario import Scenario
from tests.tidy import api, chart, commands, dropin, limits, passing, scenarios, tables


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
    texts = [page.read_text() for page in (tables.API, tables.PASSING, tables.ALGORITHM)]
    assert [tables.passing(text) for text in texts] == texts, "run `make docs`"
    assert all(any(f"<!-- core: {name} -->" in text for text in texts) for name in passing.TABLES)


def test_the_api_page_names_every_header_of_answers() -> None:
    text = tables.API.read_text()
    assert api.missing_headers(text) == []
    assert api.missing_headers(text.replace("`Retry-After`", "")) == ["Retry-After"]


def test_every_request_of_the_admin_listener_says_what_it_does() -> None:
    found = ", ".join(request for request, *_ in api.admin_routes())
    assert all(f"`{said}`" in found for said in ("GET /ready", "POST /peers/PEER/rejoin", "PUT /log-level"))


def test_the_charts_schema_of_settings_is_current() -> None:
    text = chart.SCHEMA.read_text()
    assert chart.renewed(text) == text, "run `make docs`"


# ----------------------------------------------------------------------------- other routers


def test_the_tables_of_other_routers_flags_are_current() -> None:
    text = dropin.PAGE.read_text()
    assert dropin.renewed(text) == text, "run `make docs`"
    names = [program.name for program in PROGRAMS]
    assert all(f"<!-- dropin: {name} -->" in text for name in ("policies", *names))


def test_every_metric_of_the_recorded_programs_has_a_row() -> None:
    recorded = json.loads((dropin.ROOT / "tests" / "data" / "routers.json").read_text())
    names = {name for page in recorded.values() for name in page.get("metrics", ())}
    assert len(names) > 80
    text = dropin.PAGE.read_text()
    assert dropin.unnamed(text, sorted(names)) == []
    assert dropin.unnamed(text, ["smg_planted_total"]) == ["smg_planted_total"]


# -------------------------------------------------------------------------------- commands


def test_the_page_of_commands_has_each_with_its_help_as_it_is() -> None:
    text = commands.PAGE.read_text()
    assert commands.missing(text) == []
    assert commands.renewed(text) == text, "run `make docs`"


# -------------------------------------------------------------------------- scenario files


def test_the_scenario_reference_is_current() -> None:
    text = tables.SCENARIO.read_text()
    assert tables.scenario(text) == text, "run `make docs`"


def structs(kind: Type) -> set[type[msgspec.Struct]]:
    """Every struct that a scenario can hold."""
    found = {kind.cls} if isinstance(kind, StructType) else set()
    below = [field.type for field in kind.fields] if isinstance(kind, StructType) else [scenarios.item(kind)]
    if not isinstance(kind, StructType):
        below = [part for one in below for part in scenarios.present(one)]
    return found.union(*(structs(one) for one in below if one is not kind))


def test_every_field_of_every_struct_is_in_the_reference() -> None:
    reference = scenarios.reference()
    found = structs(type_info(Scenario))
    assert len(found) > 25
    missing = [
        f"{struct.__name__}.{name}"
        for struct in found
        for name, *_ in scenarios.rows(struct)
        if f"| {name} |" not in reference
    ]
    assert missing == []


class Planted(msgspec.Struct, frozen=True):
    """A table.

    Attributes:
        wait_s: how long to wait,
            in seconds. ``0``: not at all.
        limit: the most. Without it, none.
    """

    wait_s: Annotated[float, msgspec.Meta(gt=0, le=5)]
    limit: Annotated[int, msgspec.Meta(ge=1, lt=1 << 62)] | None = None
    names: list[str] = []


def test_a_row_says_type_range_default_and_meaning() -> None:
    assert scenarios.rows(Planted, ["wait_s", "limit"]) == [
        (
            "`wait_s`",
            "a number, above 0 and at most 5",
            "required",
            "How long to wait, in seconds. `0`: not at all.",
        ),
        ("`limit`", "an integer, at least 1 and below 2^62", "none", "The most. Without it, none."),
    ]


def test_a_planted_field_without_a_description_is_found_and_named() -> None:
    with pytest.raises(AssertionError, match=r"Planted\.names: describe it in the docstring"):
        scenarios.rows(Planted)
