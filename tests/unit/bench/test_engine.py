"""The timed calls do what their rows say: a benchmark that breaks would be noticed only when it is run."""

import pytest

from bench import engine
from skylb.config import EngineSettings


@pytest.mark.parametrize("policy", ["prefix", EngineSettings().policy])
def test_a_choice_is_one_push_or_one_forward(policy: str) -> None:
    times: dict[str, list[float]] = {}
    engine.measure_choice(engine.choices(policy), times)
    assert sorted(times) == [f"choice, of 1,000, {policy}", f"choice, of 10 peers, {policy}"]
