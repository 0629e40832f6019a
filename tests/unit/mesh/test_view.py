"""Metrics of the mesh."""

import inspect
import re

from skylb.data import crossing
from skylb.mesh import signing, view


def test_every_reason_to_turn_a_forward_away_has_a_series_before_there_is_one() -> None:
    families = {family.name: family for family in view.families({}, [], {}, {"stale": 2})}
    turned_away = families["skylb_forwards_turned_away"].samples
    found = {sample.labels["reason"]: sample.value for sample in turned_away}
    assert found == dict.fromkeys(signing.REASONS, 0) | {"stale": 2}


def test_the_reasons_are_those_of_the_code() -> None:
    named = {
        reason
        for module in (signing, crossing)
        for reason in re.findall(r'Refused\("(\w+)"\)', inspect.getsource(module))
    }
    assert sorted(named) == list(signing.REASONS)
