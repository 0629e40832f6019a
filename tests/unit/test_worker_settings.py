"""A balancer of several processes takes the settings of one."""

import pytest

from skylb.config import Settings
from skylb.options import load


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("continue_streams", "true"),
        ("state_dir", "/var/lib/skylb"),
        ("handover_socket", "/run/skylb.sock"),
    ],
)
def test_workers_take_over_keep_state_and_continue_streams(name: str, value: str) -> None:
    flags = {"replica": ["http://a"], "workers": ["2"], name: [value]}
    if name != "continue_streams":
        flags["takeover"] = ["true"]
    load(Settings, flags=flags)
