"""Every target over its seeds, the inputs that once failed, and some changes of them."""

import random

import pytest

from tests.fuzz.__main__ import known
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS, Target

CHANGES = 2_000


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_reader_keeps_its_properties_for_changed_inputs(target: Target) -> None:
    inputs, draw = known(target), random.Random(1)
    for data in (*inputs, *(mutated(inputs, draw) for _ in range(CHANGES))):
        target.run(data)
