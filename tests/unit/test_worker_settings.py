"""What a balancer of several processes cannot do yet is refused at its start."""

import pytest

from skylb.config import HANDOVER_VARIABLE, Settings
from skylb.errors import ConfigError
from skylb.options import load
from skylb.workers.supervisor import Supervisor


def faults(**flags: str) -> list[str]:
    """Of these settings and a replica."""
    try:
        load(Settings, flags={"replica": ["http://a"], **{name: [value] for name, value in flags.items()}})
    except ConfigError as error:
        return error.faults
    return []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state_dir", "/var/lib/skylb"),
        ("handover_socket", "/run/skylb.sock"),
    ],
)
def test_what_workers_cannot_do_is_a_conflict_that_names_both(name: str, value: str) -> None:
    assert faults(workers="1", **{name: value}) == []
    expected = f"workers is 2 and {name} is given: expected workers 1, or no {name}"
    assert faults(workers="2", **{name: value}) == [expected]


def test_workers_take_over_from_nobody() -> None:
    found = faults(workers="2", takeover="true", handover_socket="/run/skylb.sock")
    assert "workers is 2 and takeover is given: expected workers 1, or no takeover" in found


def test_a_program_with_workers_gets_nothing_from_one_without() -> None:
    settings = load(Settings, flags={"replica": ["http://a"], "workers": ["2"]}).settings
    with pytest.raises(ConfigError) as caught:
        Supervisor(settings, {HANDOVER_VARIABLE: "3"})
    assert caught.value.faults == ["workers is 2: expected 1 in a hand-over, or a restart"]
