"""The supervisor's side of lines, without processes."""

from skylb.workers import links
from skylb.workers.router import PATIENCE_S


def test_a_worker_gets_another_line_before_it_refuses_requests() -> None:
    pauses = [links._pause_s(failures) for failures in range(20)]
    assert pauses == sorted(pauses)
    assert pauses[-1] <= PATIENCE_S / 2
