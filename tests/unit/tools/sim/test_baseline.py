"""Which point each other one is compared with."""

from typing import Any

import pytest

from skylb.errors import ConfigError
from skylb.tools.sim.baseline import checked, choose, places
from skylb.tools.sim.read import ScenarioFile

SWEEP: dict[str, list[Any]] = {
    "engine.policy": ["prefix", "ring"],
    "workload.rate_per_s": [2, 3],
    "check": [True],
}


@pytest.mark.parametrize("text", ["ring", "policy=ring", "engine.policy=ring"])
def test_a_baseline_is_named_by_its_value_with_or_without_its_field(text: str) -> None:
    assert choose([text], SWEEP) == {"engine.policy": "ring"}


def test_numbers_are_named_as_toml_has_them() -> None:
    assert choose(["rate_per_s=3.0", "true"], SWEEP) == {"workload.rate_per_s": 3, "check": True}


@pytest.mark.parametrize(
    ("text", "sweep", "fault"),
    [
        (
            "rnig",
            SWEEP,
            "baseline: rnig: no value of the sweep is named so: expected one of engine.policy=prefix, ",
        ),
        ("seed=ring", SWEEP, "baseline: seed=ring: no value"),
        ("1", {"a.x": [1], "b.x": [1]}, "baseline: 1: is a value of a.x, b.x: expected FIELD=VALUE"),
        ("ring", {}, "baseline: ring: without a sweep, there is nothing to compare with it"),
    ],
)
def test_what_names_no_value_or_several_is_refused(
    text: str, sweep: dict[str, list[Any]], fault: str
) -> None:
    with pytest.raises(ConfigError) as error:
        choose([text], sweep)
    assert error.value.faults[0].startswith(fault)


def test_the_baseline_of_a_script_must_be_of_the_sweep() -> None:
    assert checked({"engine.policy": "ring"}, SWEEP) == {"engine.policy": "ring"}
    with pytest.raises(ConfigError, match="best"):
        checked({"engine.policy": "best"}, SWEEP)


def test_without_a_choice_all_are_compared_with_the_first() -> None:
    points = ScenarioFile({}, {"engine.policy": ["prefix", "ring"], "seed": [1, 2]}).points()
    assert places(points, {}) == [None, 0, 0, 0]
    assert places(points, {"engine.policy": "ring"}) == [2, 3, None, None]
    assert places(points, {"engine.policy": "ring", "seed": 1}) == [2, 2, None, 2]
    assert places(ScenarioFile({}).points(), {}) == [None]
