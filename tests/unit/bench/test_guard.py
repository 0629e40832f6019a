"""What the benchmark of keys sends is let in, by all tenants in turn; a ratio is that of one round."""

from pathlib import Path

import pytest

from bench import guard, paired
from skylb._core import HeadParser
from skylb.keys.ring import read_ring


@pytest.mark.parametrize("limits", [True, False])
def test_every_request_has_a_key_of_the_file(tmp_path: Path, limits: bool) -> None:
    _, ring = read_ring(guard.keys_file(tmp_path / "keys.toml", limits=limits))
    tenants = set()
    for request in guard.requests(guard.WORK["unary"])[:100]:
        head = HeadParser().parse(request)
        assert head is not None
        assert head.content_length == len(request) - head.consumed
        digest = head.api_key_digest()
        assert digest is not None
        tenants.add(ring.entries[digest].party.tenant)
        assert ring.entries[digest].party.metered is limits
    assert len(tenants) == guard.TENANTS


def test_ratios_are_taken_round_by_round() -> None:
    figures = {"off": [50.0, 100.0, 200.0], "keys": [50.0, 100.0, 200.0], "on": [51.0, 104.0, 206.0]}
    assert paired.ratio(figures, "on", "off") == (1.03, 1.02, 1.04)
    assert "  on / off      1.030   1.020 to 1.040   (target <= 1.05)" in guard.table("work", figures)
    assert not any("before" in line for line in guard.table("work", figures))
